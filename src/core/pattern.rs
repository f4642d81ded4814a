//! Event types and the patterns that select them.
//!
//! A type is a dotted name such as `order.created`. In a pattern `*` stands for exactly one part and `**` for any number of
//! parts, none included: `order.*` takes `order.created` but not `order.item.added`; `order.**` takes both and `order`.

use std::fmt;
use std::str::{FromStr, Split};

/// Longest event type or pattern, in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 256;

/// A pattern over event types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    One,
    Any,
}

/// A text that is not an event type or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {got:?}")]
pub struct PatternError {
    expected: &'static str,
    got: String,
}

/// Checks the name of a published event type: dotted parts of letters, digits, `_` and `-`, at most
/// [`EVENT_TYPE_BYTES_MAX`] bytes.
pub fn check_event_type(text: &str) -> Result<(), PatternError> {
    let fine = text.len() <= EVENT_TYPE_BYTES_MAX && text.split('.').all(is_name);
    if fine {
        return Ok(());
    }
    Err(PatternError {
        expected: "an event type: parts of letters, digits, _ and - joined by dots, 256 bytes at most",
        got: text.chars().take(64).collect(),
    })
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let part = |part: &str| match part {
            "*" => Some(Part::One),
            "**" => Some(Part::Any),
            // Providers name types with `/`, `:` and spaces; only `*` inside a part and empty parts make no sense.
            name if !name.is_empty() && !name.contains('*') => Some(Part::Literal(name.to_owned())),
            _ => None,
        };
        let parts: Option<Vec<_>> = text.split('.').map(part).collect();
        match parts {
            Some(parts) if text.len() <= EVENT_TYPE_BYTES_MAX => Ok(Self { text: text.to_owned(), parts }),
            _ => Err(PatternError {
                expected: "an event type pattern such as \"order.created\", \"order.*\" or \"**\"",
                got: text.chars().take(64).collect(),
            }),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    /// Whether the pattern takes this event type. Linear in the product of the two lengths at most, whatever the pattern, and
    /// without an allocation: each event is held against every endpoint of its application.
    pub fn matches(&self, event_type: &str) -> bool {
        let (mut parts, mut names) = (&self.parts[..], event_type.split('.'));
        // What is left of both after the last `**` and what it has swallowed so far. Those before it need no second thought:
        // whatever they could swallow in another way, the last one can.
        let mut last_any: Option<(&[Part], Split<'_, char>)> = None;
        loop {
            let mut after = names.clone();
            match (parts.split_first(), after.next()) {
                (None, None) | (Some((Part::Any, [])), _) => return true,
                (Some((Part::Any, rest)), _) => {
                    last_any = Some((rest, names.clone()));
                    parts = rest;
                }
                (Some((part, rest)), Some(name)) if part.takes(name) => (parts, names) = (rest, after),
                _ => {
                    let Some((rest, swallowed)) = &mut last_any else { return false };
                    if swallowed.next().is_none() {
                        return false;
                    }
                    (parts, names) = (rest, swallowed.clone());
                }
            }
        }
    }
}

impl Part {
    /// Whether it can stand for this one part.
    fn takes(&self, name: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == name,
            Self::One | Self::Any => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn takes(pattern: &str, event_type: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(event_type)
    }

    #[test]
    fn stars_stand_for_parts() {
        for (pattern, yes, no) in [
            ("order.created", vec!["order.created"], vec!["order", "order.created.x", "order.Created"]),
            ("order.*", vec!["order.created"], vec!["order", "order.item.added", "orders.created"]),
            ("*.created", vec!["order.created"], vec!["created", "a.b.created"]),
            ("**", vec!["a", "a.b.c"], vec![]),
            ("order.**", vec!["order", "order.a", "order.a.b"], vec!["orders"]),
            ("**.failed", vec!["failed", "a.b.failed"], vec!["a.failed.b"]),
            ("a.**.z", vec!["a.z", "a.b.z", "a.b.c.z"], vec!["a", "z"]),
            ("*", vec!["a"], vec!["a.b"]),
        ] {
            yes.iter().for_each(|t| assert!(takes(pattern, t), "{pattern} should take {t}"));
            no.iter().for_each(|t| assert!(!takes(pattern, t), "{pattern} should not take {t}"));
        }
    }

    #[test]
    fn what_is_no_pattern_or_type_is_refused() {
        for bad in ["", ".", "a..b", "a*", "***", "a.b*.c"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
        for bad in ["", "a..b", "a.*", "a b", "a/b", ".a", "ü"] {
            assert!(check_event_type(bad).is_err(), "{bad}");
        }
        assert!(check_event_type(&"a".repeat(EVENT_TYPE_BYTES_MAX + 1)).is_err());
        assert!(check_event_type("order.created-v2_x").is_ok());
    }

    /// What a pattern means, said without care for how long it takes.
    fn means(parts: &[&str], names: &[&str]) -> bool {
        match parts.split_first() {
            None => names.is_empty(),
            Some((&"**", rest)) => (0..=names.len()).any(|swallowed| means(rest, &names[swallowed..])),
            Some((part, rest)) => {
                names.split_first().is_some_and(|(name, others)| ["*", name].contains(part) && means(rest, others))
            }
        }
    }

    proptest! {
        #[test]
        fn patterns_take_what_they_mean(
            parts in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "**"]), 1..7),
            names in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..7),
        ) {
            prop_assert_eq!(takes(&parts.join("."), &names.join(".")), means(&parts, &names));
        }

        #[test]
        fn a_type_matches_itself_and_the_wildcards(event_type in "[a-z0-9_-]{1,8}(\\.[a-z0-9_-]{1,8}){0,4}") {
            prop_assert!(takes(&event_type, &event_type));
            prop_assert!(takes("**", &event_type));
            let stars = event_type.split('.').map(|_| "*").collect::<Vec<_>>().join(".");
            prop_assert!(takes(&stars, &event_type));
            let too_many = format!("{}.*", stars);
            prop_assert!(!takes(&too_many, &event_type));
        }
    }
}
