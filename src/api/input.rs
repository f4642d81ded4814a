//! What a request brings: query parameters and the fields of a JSON object, each taken by its name.
//!
//! **Invariants**
//! - Nothing is ignored: what nobody takes is refused by name in `finish`, and so is what comes twice.
//! - A JSON value that is to be kept is taken as the bytes that were sent, not as a reading of them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::problem::Problem;
use super::route::percent_decode;
use crate::core::time::parse_ms;
use hyper::StatusCode;

/// Fields of an object and parameters of a query that are looked at.
const FIELDS_MAX: usize = 32;

/// Bytes of a value that an error message repeats.
const SHOWN_BYTES: usize = 64;

/// The parameters behind the `?` of a URL.
#[derive(Debug)]
pub(super) struct Query<'a> {
    left: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Reads `a=1&b=2` ([WHATWG form encoding](https://url.spec.whatwg.org/#urlencoded-parsing), where `+` is a space).
    pub(super) fn parse(query: Option<&'a str>) -> Result<Self, Problem> {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let mut left: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some((name, value)) = form_decode(name).zip(form_decode(value)) else {
                return Err(Problem::invalid("query", "expected percent-encoded UTF-8 without control characters"));
            };
            if left.iter().any(|(have, _)| *have == name) {
                return Err(Problem::invalid(&shown(&name), "expected the parameter once"));
            }
            if left.len() == FIELDS_MAX {
                return Err(Problem::invalid("query", format_args!("expected at most {FIELDS_MAX} parameters")));
            }
            left.push((name, value));
        }
        Ok(Self { left })
    }

    /// The value of a parameter.
    pub(super) fn text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.left.iter().position(|(have, _)| have == name)?;
        Some(self.left.swap_remove(at).1)
    }

    /// A time, as unix milliseconds.
    pub(super) fn time_ms(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        self.text(name).map(|text| parse_ms(&text).map_err(|error| Problem::invalid(name, error))).transpose()
    }

    /// A whole number from 1 to `max`.
    pub(super) fn count(&mut self, name: &str, max: usize) -> Result<Option<usize>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && (1..=max).contains(&number) => Ok(Some(number)),
            _ => Err(Problem::invalid(
                name,
                format_args!("expected a whole number from 1 to {max}, got {:?}", shown(&text)),
            )),
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.text(name).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(Problem::invalid(name, format_args!("expected true or false, got {:?}", shown(other)))),
        }
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), Problem> {
        refuse_rest(self.left.iter().map(|(name, _)| name.as_ref()), "parameter")
    }
}

/// [`percent_decode`], where `+` is a space.
fn form_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return percent_decode(text);
    }
    percent_decode(&text.replace('+', " ")).map(|decoded| Cow::Owned(decoded.into_owned()))
}

/// The fields of a JSON object, whose values borrow from the text.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    left: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// Reads a JSON object.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Problem> {
        let bad = |why: String| Problem::new(StatusCode::BAD_REQUEST, "bad_json", why);
        let text = std::str::from_utf8(body).map_err(|error| bad(format!("the body is not UTF-8: {error}")))?;
        serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Problem::invalid("body", error),
            _ => bad(format!("the body is not JSON: {error}")),
        })
    }

    /// The value of a field exactly as it was sent, `null` included.
    pub(super) fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.left.iter().position(|(have, _)| have == name)?;
        Some(self.left.swap_remove(at).1)
    }

    /// The text of a field; `null` is as good as absent.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, Problem> {
        let text: Option<Text<'a>> = self.read(name, "a string")?;
        Ok(text.map(|Text(text)| text))
    }

    /// A field whose text is of a type that says itself what it expects.
    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        self.text(name)?.map(|text| text.parse().map_err(|error| Problem::invalid(name, error))).transpose()
    }

    /// A time, as unix milliseconds: RFC 3339 text, or a number of unix seconds.
    pub(super) fn time_ms(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let text = match serde_json::from_str(value.get()) {
            Ok(serde_json::Value::Null) => return Ok(None),
            Ok(serde_json::Value::String(text)) => text,
            _ => value.get().to_owned(),
        };
        parse_ms(&text).map(Some).map_err(|error| Problem::invalid(name, error))
    }

    /// A whole number from 1 to `max`.
    pub(super) fn count(&mut self, name: &str, max: usize) -> Result<Option<usize>, Problem> {
        let number: Option<u64> = self.read(name, "a whole number")?;
        let Some(number) = number else { return Ok(None) };
        match usize::try_from(number) {
            Ok(number) if (1..=max).contains(&number) => Ok(Some(number)),
            _ => Err(Problem::invalid(name, format_args!("expected a whole number from 1 to {max}, got {number}"))),
        }
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), Problem> {
        refuse_rest(self.left.iter().map(|(name, _)| name.as_ref()), "field")
    }

    fn read<T: Deserialize<'a>>(&mut self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        serde_json::from_str(value.get())
            .map_err(|_| Problem::invalid(name, format_args!("expected {expected}, got {}", shown(value.get()))))
    }
}

/// A text that is borrowed where it stands in the JSON as it is; a `Cow` alone is always copied.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor).map(|left| Self { left })
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Self::Value = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            let value = map.next_value()?;
            // Which of two counts would be a guess, and another reader may guess otherwise.
            if fields.iter().any(|(have, _)| *have == name) {
                return Err(de::Error::custom(format_args!("expected the field {:?} once", shown(&name))));
            }
            if fields.len() == FIELDS_MAX {
                return Err(de::Error::custom(format_args!("expected at most {FIELDS_MAX} fields")));
            }
            fields.push((name, value));
        }
        Ok(fields)
    }
}

fn refuse_rest<'n>(names: impl Iterator<Item = &'n str>, what: &str) -> Result<(), Problem> {
    let mut names: Vec<_> = names.map(shown).collect();
    if names.is_empty() {
        return Ok(());
    }
    names.sort_unstable();
    Err(Problem::invalid(&names.join(", "), format_args!("no such {what} here; nothing is ignored, so leave it out")))
}

/// The start of a text, for messages.
pub(super) fn shown(text: &str) -> String {
    let mut end = text.len().min(SHOWN_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Reply;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    async fn said(problem: Problem) -> (u16, String) {
        let reply = Reply::from(problem);
        let status = reply.status().as_u16();
        let bytes = reply.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_nobody_takes_is_named() {
        let mut fields = Fields::parse(br#"{"b":1,"eventType":"x","a":[]}"#).unwrap();
        assert_eq!(fields.text("eventType").unwrap().as_deref(), Some("x"));
        let (status, body) = said(fields.finish().unwrap_err()).await;
        assert!(status == 422 && body.contains("a, b: no such field"), "{status} {body}");
        let (status, body) = said(Query::parse(Some("limit=1&x=")).unwrap().finish().unwrap_err()).await;
        assert!(status == 422 && body.contains("limit, x: no such parameter"), "{status} {body}");
    }

    #[tokio::test]
    async fn broken_json_differs_from_json_of_the_wrong_kind() {
        for body in
            [&b""[..], b"{", b"{}x", b"\xef\xbb\xbf{}", b"\xff", b"{\"a\":\"\xff\"}", b"nul", b"{\"a\":01}", b"{'a':1}"]
        {
            let (status, text) = said(Fields::parse(body).unwrap_err()).await;
            assert!(status == 400 && text.contains("bad_json"), "{body:?}: {status} {text}");
        }
        for body in ["[]", "1", "\"x\"", "null", "{\"a\":1,\"a\":2}", "{\"a\":1,\"\\u0061\":2}"] {
            let (status, text) = said(Fields::parse(body.as_bytes()).unwrap_err()).await;
            assert!(status == 422 && text.contains("invalid"), "{body}: {status} {text}");
        }
        let many: Vec<_> = (0..33).map(|n| format!("\"{n}\":0")).collect();
        assert!(Fields::parse(format!("{{{}}}", many.join(",")).as_bytes()).is_err());
    }

    #[test]
    fn raw_values_are_the_bytes_sent() {
        for value in [
            "null",
            "{ \"b\" : 1.0,\t\"a\":[ ] }",
            "123456789012345678901234567890.10",
            "\"\\u00e4ä\\/\"",
            "{\"a\":1,\"a\":2}",
            &format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)),
        ] {
            let body = format!("{{\"payload\":  {value}\n}}");
            let mut fields = Fields::parse(body.as_bytes()).unwrap();
            assert_eq!(fields.raw("payload").unwrap().get(), value);
            fields.finish().unwrap();
        }
    }

    #[test]
    fn typed_fields() {
        let body = br#"{"n":3,"t":"2026-01-31T12:00:00Z","u":1769860800,"null":null,"zero":0,"half":1.5,"text":"3"}"#;
        let mut fields = Fields::parse(body).unwrap();
        assert_eq!(fields.count("n", 3).unwrap(), Some(3));
        assert_eq!(fields.time_ms("t").unwrap(), Some(1_769_860_800_000));
        assert_eq!(fields.time_ms("u").unwrap(), Some(1_769_860_800_000));
        assert_eq!(fields.text("null").unwrap(), None);
        assert!(fields.count("zero", 3).is_err());
        assert!(fields.count("half", 3).is_err());
        assert!(fields.count("text", 3).is_err());
        assert_eq!(fields.time_ms("absent").unwrap(), None);
    }

    #[test]
    fn typed_parameters() {
        let query = "n=250&t=2026-01-31T12%3a00%3a00%2B00:00&yes=true&no=maybe&plus=%2B1&empty=&a+b=c+d&&";
        let mut query = Query::parse(Some(query)).unwrap();
        assert_eq!(query.count("n", 250).unwrap(), Some(250));
        assert_eq!(query.time_ms("t").unwrap(), Some(1_769_860_800_000));
        assert_eq!(query.flag("yes").unwrap(), Some(true));
        assert!(query.flag("no").is_err());
        assert!(query.count("plus", 250).is_err());
        assert!(query.count("empty", 250).is_err());
        assert_eq!(query.text("a b").as_deref(), Some("c d"));
        query.finish().unwrap();
        for bad in ["a=1&a=2", "a=%zz", "a=%ff", "a=%00"] {
            assert!(Query::parse(Some(bad)).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_body_and_query_is_read_without_panic(body: Vec<u8>, near in "[{}\\[\\]\":,a0 ]{0,24}", query in "\\PC{0,40}") {
            let _ = Fields::parse(&body);
            let _ = Fields::parse(near.as_bytes());
            let _ = Query::parse(Some(&query));
        }
    }
}
