//! Reads single fields out of a JSON body without building a tree.
//!
//! Invariants:
//! - All paths are served by one pass over the body; what no path needs is skipped by serde_json's `ignore_value`,
//!   which keeps its own stack, so nesting of any depth overflows nothing. Our recursion is bounded by
//!   [`STEPS_MAX`], the longest path an operator can write.
//! - The body must be one JSON text (RFC 8259) to its very end, without a byte order mark; else nothing is found.
//! - A repeated key means its last value, as in JavaScript, Python and Go, so that the gateway and the receiving
//!   application read the same id.
//! - Text that no path needs is checked for syntax, not for UTF-8.

use super::FIELD_BYTES_MAX;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Most steps of a path.
const STEPS_MAX: usize = 16;
/// Longest path text, in bytes.
const PATH_BYTES_MAX: usize = 256;
/// Most paths served by one pass: the bits of [`Mask`].
const PATHS_MAX: usize = 32;

/// Where a value is in a JSON body: `id`, `event.type`, `[0].eventId`, `entry[0].changes[0].value`.
///
/// Keys that contain `.`, `[` or `]` can't be written; no known provider has them where an id is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Why a text is not a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The text has an empty key, a stray bracket or an index that is not a number.
    #[error("JSON path `{text}` is not of the form `key`, `key.key`, `[0].key` or `key[0].key`")]
    Syntax {
        /// The text as written.
        text: String,
    },
    /// The text is longer or deeper than any body needs.
    #[error(
        "JSON path has {bytes} bytes and {steps} steps; at most {PATH_BYTES_MAX} bytes and {STEPS_MAX} steps are read"
    )]
    TooLong {
        /// Length of the text in bytes.
        bytes: usize,
        /// Steps counted, 0 when the text was too long to be split.
        steps: usize,
    },
}

impl Path {
    /// Parses the text form.
    ///
    /// # Errors
    /// [`PathError`] when the text is not a path or exceeds the limits.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong { bytes: text.len(), steps: 0 });
        }
        let syntax = || PathError::Syntax { text: text.to_owned() };
        let mut steps = Vec::new();
        for (position, part) in text.split('.').enumerate() {
            let (key, indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
            // Only the very first part may lack a key: a body can be an array itself.
            if key.contains(']') || (key.is_empty() && (position > 0 || indexes.is_empty())) {
                return Err(syntax());
            }
            if !key.is_empty() {
                steps.push(Step::Key(key.to_owned()));
            }
            parse_indexes(indexes, &mut steps).ok_or_else(syntax)?;
        }
        if steps.len() > STEPS_MAX {
            return Err(PathError::TooLong { bytes: text.len(), steps: steps.len() });
        }
        Ok(Self { steps })
    }
}

/// Writes the form that [`Path::parse`] reads.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.steps.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Reads `[0][12]…` to the end of the text.
fn parse_indexes(mut text: &str, steps: &mut Vec<Step>) -> Option<()> {
    while !text.is_empty() {
        let (digits, rest) = text.strip_prefix('[')?.split_once(']')?;
        // `usize::from_str` would also take `+1`.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        steps.push(Step::Index(digits.parse().ok()?));
        text = rest;
    }
    Some(())
}

/// Looks all `paths` up in `body` in one pass and returns what is at each, in their order.
///
/// Strings are taken unescaped, numbers as they are written. `None` stands for a value that is absent, empty,
/// longer than [`FIELD_BYTES_MAX`] or of another JSON type, and for every path when the body is not JSON.
pub(super) fn lookup(body: &[u8], paths: &[&Path]) -> Vec<Option<String>> {
    let mut found = vec![None; paths.len()];
    if paths.is_empty() || paths.len() > PATHS_MAX {
        return found;
    }
    let mut de = serde_json::Deserializer::from_slice(body);
    let all = Mask::MAX >> (PATHS_MAX - paths.len());
    let read = Node { paths, depth: 0, active: all, found: &mut found }.deserialize(&mut de);
    if read.and_then(|()| de.end()).is_err() {
        found.fill(None);
    }
    found
}

/// One bit per path.
type Mask = u32;

/// The paths that lead through the value being read: those in `active`, of which `depth` steps are done.
struct Node<'p> {
    paths: &'p [&'p Path],
    depth: usize,
    active: Mask,
    found: &'p mut [Option<String>],
}

impl Node<'_> {
    /// The active paths by number, with the steps that remain.
    fn each(&self) -> impl Iterator<Item = (usize, &[Step])> {
        let (active, depth) = (self.active, self.depth);
        self.paths
            .iter()
            .enumerate()
            .filter(move |(bit, _)| active & (1 << bit) != 0)
            .map(move |(bit, path)| (bit, &path.steps[depth..]))
    }

    /// The active paths whose next step satisfies `wanted`; with `None`, those that end here.
    fn select(&self, wanted: impl Fn(Option<&Step>) -> bool) -> Mask {
        self.each().filter(|(_, steps)| wanted(steps.first())).fold(0, |mask, (bit, _)| mask | 1 << bit)
    }

    /// The reader of a value one step further in.
    fn child(&mut self, active: Mask) -> Node<'_> {
        Node { paths: self.paths, depth: self.depth + 1, active, found: self.found }
    }

    /// Drops what an earlier occurrence of the same key gave, even when the last one gives nothing.
    fn forget(&mut self, mask: Mask) {
        for (bit, slot) in self.found.iter_mut().enumerate() {
            if mask & (1 << bit) != 0 {
                *slot = None;
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        let leaves = self.select(|step| step.is_none());
        if leaves == 0 {
            return deserializer.deserialize_any(self);
        }
        // The raw text is borrowed from the body and found by the same stackless skipping.
        let raw = <&RawValue as serde::Deserialize>::deserialize(deserializer)?.get();
        let value = scalar(raw);
        for (bit, slot) in self.found.iter_mut().enumerate() {
            if leaves & (1 << bit) != 0 {
                slot.clone_from(&value);
            }
        }
        // `event` and `event.type` may both be asked for; then the value is read again for the deeper one.
        self.active &= !leaves;
        if self.active != 0 && raw.starts_with(['{', '[']) {
            let mut de = serde_json::Deserializer::from_str(raw);
            self.deserialize(&mut de).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

/// The text of a string or number within the limits.
fn scalar(raw: &str) -> Option<String> {
    let text = match raw.bytes().next()? {
        // The longest escape, `\uXXXX`, is six bytes for one, which bounds the text worth unescaping.
        b'"' if raw.len() <= 6 * FIELD_BYTES_MAX + 2 => serde_json::from_str(raw).ok()?,
        b'-' | b'0'..=b'9' if raw.len() <= FIELD_BYTES_MAX => raw.to_owned(),
        _ => return None,
    };
    (!text.is_empty() && text.len() <= FIELD_BYTES_MAX).then_some(text)
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(hits) = map.next_key_seed(Key(&self))? {
            if hits == 0 {
                map.next_value::<IgnoredAny>()?;
            } else {
                self.forget(hits);
                map.next_value_seed(self.child(hits))?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            let hits = self.select(|step| matches!(step, Some(Step::Index(wanted)) if *wanted == index));
            let element = match hits {
                0 => seq.next_element::<IgnoredAny>()?.map(|_| ()),
                _ => seq.next_element_seed(self.child(hits))?,
            };
            if element.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    // The path goes on but the value is a scalar: nothing is found, and that is not an error.
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads an object key and says which paths go on through it.
struct Key<'n, 'p>(&'n Node<'p>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = Mask;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Mask, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = Mask;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Mask, E> {
        Ok(self.0.select(|step| matches!(step, Some(Step::Key(wanted)) if wanted == key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(body: impl AsRef<[u8]>, paths: &[&str]) -> Vec<Option<String>> {
        let parsed: Vec<Path> = paths.iter().map(|text| Path::parse(text).unwrap()).collect();
        lookup(body.as_ref(), &parsed.iter().collect::<Vec<_>>())
    }

    fn one(body: impl AsRef<[u8]>, path: &str) -> Option<String> {
        get(body, &[path]).remove(0)
    }

    #[test]
    fn reads_keys_indexes_and_both() {
        let body = r#" {"id":"a", "event": {"type": "x.y", "n": -1.50e3}, "entry":[{"x":1},{"x":2}]} "#;
        let found = get(body, &["id", "event.type", "event.n", "entry[1].x", "entry[2].x", "event-data.x"]);
        let want = [Some("a"), Some("x.y"), Some("-1.50e3"), Some("2"), None, None];
        assert_eq!(found, want.map(|text| text.map(str::to_owned)));
        assert_eq!(one(r#"[{"eventId":7}]"#, "[0].eventId").as_deref(), Some("7"));
        assert_eq!(one(r#"[[1,2],[3,[4]]]"#, "[1][1][0]").as_deref(), Some("4"));
    }

    #[test]
    fn a_path_may_end_where_another_goes_on() {
        let found = get(r#"{"event":{"type":"t"}}"#, &["event", "event.type"]);
        assert_eq!(found, [None, Some("t".to_owned())]);
        let found = get(r#"{"event":"plain"}"#, &["event.type", "event"]);
        assert_eq!(found, [None, Some("plain".to_owned())]);
    }

    #[test]
    fn only_short_strings_and_numbers_count() {
        for body in [r#"{"id":""}"#, r#"{"id":null}"#, r#"{"id":true}"#, r#"{"id":["a"]}"#, r#"{"id":{"id":"a"}}"#] {
            assert_eq!(one(body, "id"), None, "{body}");
        }
        let longest = "x".repeat(FIELD_BYTES_MAX);
        assert_eq!(one(format!(r#"{{"id":"{longest}"}}"#), "id"), Some(longest.clone()));
        assert_eq!(one(format!(r#"{{"id":"{longest}x"}}"#), "id"), None);
        assert_eq!(one(format!(r#"{{"id":"{}"}}"#, "x".repeat(10_000)), "id"), None);
        let escaped = r"\u0061".repeat(FIELD_BYTES_MAX);
        assert_eq!(one(format!(r#"{{"id":"{escaped}"}}"#), "id"), Some("a".repeat(FIELD_BYTES_MAX)));
    }

    #[test]
    fn the_last_of_repeated_keys_counts() {
        assert_eq!(one(r#"{"id":"a","id":"b"}"#, "id").as_deref(), Some("b"));
        assert_eq!(one(r#"{"e":{"id":"a"},"e":{}}"#, "e.id"), None);
        assert_eq!(one(r#"{"e":{"id":"a"},"e":3}"#, "e.id"), None);
    }

    #[test]
    fn deep_nesting_overflows_nothing() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(one(format!(r#"{{"a":{deep},"id":"x"}}"#), "id").as_deref(), Some("x"));
        assert_eq!(one(format!(r#"{{"id":{deep}}}"#), "id"), None);
        assert_eq!(one(&deep, "id"), None);
        let objects = format!("{}1{}", r#"{"id":"#.repeat(10_000), "}".repeat(10_000));
        assert_eq!(get(&objects, &["id", "id.id", "id.id.id.id"]), [None, None, None]);
        assert_eq!(one("[".repeat(100_000), "[0][0][0]"), None);
    }

    #[test]
    fn huge_numbers_are_skipped() {
        let digits = "9".repeat(10_000);
        assert_eq!(one(format!(r#"{{"n":{digits},"id":"x"}}"#), "id").as_deref(), Some("x"));
        assert_eq!(one(format!(r#"{{"id":{digits}}}"#), "id"), None);
        assert_eq!(one(r#"{"id":2800763136717140857123}"#, "id").as_deref(), Some("2800763136717140857123"));
        // Where a path goes on, serde_json must judge the number, and one beyond f64 is not readable.
        assert_eq!(one(format!(r#"{{"e":{digits}}}"#), "e.id"), None);
    }

    #[test]
    fn what_is_not_json_holds_nothing() {
        for body in ["", " ", "\u{feff}{\"id\":\"a\"}", r#"{"id":"a"} x"#, r#"{"id":"a""#, "id=a", r#"{"id":'a'}"#] {
            assert_eq!(one(body, "id"), None, "{body}");
        }
        assert_eq!(one(b"{\"id\":\"\xff\"}", "id"), None);
        assert_eq!(one(b"{\"\xff\":1,\"id\":\"a\"}", "id"), None);
        assert_eq!(one(b"\xff\xfe", "id"), None);
    }

    #[test]
    fn paths_are_parsed_and_written_back() {
        for text in ["id", "event.type", "[0].eventId", "entry[0].changes[0].value", "[0][1]", "event-data.event"] {
            assert_eq!(Path::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a[",
            "a[]",
            "a[x]",
            "a[+1]",
            "a[1",
            "a]",
            "a[0]b",
            "a.[0]",
            "a[99999999999999999999]",
        ] {
            assert!(matches!(Path::parse(text), Err(PathError::Syntax { .. })), "{text}");
        }
        assert!(matches!(Path::parse(&"a".repeat(257)), Err(PathError::TooLong { .. })));
        assert!(matches!(Path::parse("a.".repeat(17).trim_end_matches('.')), Err(PathError::TooLong { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_body_panics(body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "[\\[\\]{}\":,a0 e.\\\\u-]{0,48}".prop_map(String::into_bytes),
        ]) {
            get(&body, &["a", "a.a", "a[0]", "[0]", "[0].a"]);
        }
    }
}
