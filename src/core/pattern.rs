//! Event types and the patterns that select them.
//!
//! A type is a dotted name such as `order.created`. In a pattern `*` stands for exactly one part and `**` for any number of
//! parts, none included: `order.*` takes `order.created` but not `order.item.added`; `order.**` takes both and `order`.

use std::fmt;
use std::str::FromStr;

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
    /// Whether the pattern takes this event type. Linear in the product of the two lengths, whatever the pattern.
    pub fn matches(&self, event_type: &str) -> bool {
        // `reached[i]`: the first i parts of the pattern can match the parts of the type read so far.
        let mut reached = vec![false; self.parts.len() + 1];
        reached[0] = true;
        self.skip_any(&mut reached);
        for name in event_type.split('.') {
            let mut next = vec![false; reached.len()];
            for (i, part) in self.parts.iter().enumerate().filter(|(i, _)| reached[*i]) {
                match part {
                    Part::Literal(literal) if literal == name => next[i + 1] = true,
                    Part::Literal(_) => {}
                    Part::One => next[i + 1] = true,
                    Part::Any => next[i] = true,
                }
            }
            self.skip_any(&mut next);
            reached = next;
        }
        reached[self.parts.len()]
    }

    /// `**` also matches nothing.
    fn skip_any(&self, reached: &mut [bool]) {
        for (i, part) in self.parts.iter().enumerate() {
            if reached[i] && *part == Part::Any {
                reached[i + 1] = true;
            }
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

    proptest! {
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
