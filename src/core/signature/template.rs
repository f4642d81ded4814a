//! Which bytes are signed: a text such as `{header:webhook-id}.{ts}.{body}`, parsed once.
//!
//! Invariants: the message is never built. [`Template::pieces`] returns the parts in order, and whoever signs feeds
//! them to the MAC one after another; the body is borrowed. A header value that stands before a separator must not
//! contain that separator, or one signature would cover two readings: `a.1` + `.` + `2` and `a` + `.` + `1.2` are
//! the same bytes. (Standard Webhooks forbids the full stop in `webhook-id` for this reason.) Times can't contain
//! one, as they are parsed.

use super::json::{Path, PathError, lookup};
use super::reject::Reject;
use super::scheme::Request;
use std::borrow::Cow;

/// Longest template text, in bytes.
const TEMPLATE_BYTES_MAX: usize = 1024;
/// Most parts of a template, which bounds how often a body is fed to the MAC.
const PARTS_MAX: usize = 32;

/// The signed message as a list of parts.
///
/// Placeholders: `{body}` the raw body, `{ts}` the timestamp's text as received, `{url}` the public URL, `{method}`,
/// `{header:Name}` and `{json:a.b}` (a string or number of the body). `{{` and `}}` stand for single braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Body,
    Timestamp,
    Url,
    Method,
    Header(String),
    Json(Path),
}

/// Why the text of a message can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder that isn't one of ours.
    #[error(
        "unknown placeholder `{{{name}}}`; known are {{body}}, {{ts}}, {{url}}, {{method}}, {{header:Name}}, {{json:path}}"
    )]
    Unknown {
        /// The text between the braces.
        name: String,
    },
    /// `{header:…}` without a header name in it.
    #[error("placeholder `{{{name}}}` does not name a header")]
    HeaderName {
        /// The text between the braces.
        name: String,
    },
    /// `{json:…}` with a path that doesn't parse.
    #[error("placeholder `{{{name}}}` does not name a place in a JSON body")]
    JsonPath {
        /// The text between the braces.
        name: String,
        /// What is wrong with the path.
        source: PathError,
    },
    /// A brace that opens or closes nothing.
    #[error("unmatched `{brace}` at byte {at}; write `{brace}{brace}` for the character itself")]
    Unmatched {
        /// The brace.
        brace: char,
        /// Its position in the text, in bytes.
        at: usize,
    },
    /// Nothing would be signed.
    #[error("the message is empty; `{{body}}` is the usual one")]
    Empty,
    /// More than a message needs.
    #[error(
        "the message has {bytes} bytes and {parts} parts; at most {TEMPLATE_BYTES_MAX} bytes and {PARTS_MAX} parts are read"
    )]
    TooLong {
        /// Length of the text in bytes.
        bytes: usize,
        /// Parts counted, 0 when the text was too long to be split.
        parts: usize,
    },
}

impl Template {
    /// Parses the text form.
    ///
    /// # Errors
    /// [`TemplateError`], which names the placeholder that is wrong.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong { bytes: text.len(), parts: 0 });
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(next) = text[at..].chars().next() {
            let rest = &text[at + next.len_utf8()..];
            match next {
                '{' | '}' if rest.starts_with(next) => {
                    literal.push(next);
                    at += 2;
                }
                '{' => {
                    let name = rest.split_once('}').ok_or(TemplateError::Unmatched { brace: '{', at })?.0;
                    flush(&mut literal, &mut parts);
                    parts.push(placeholder(name)?);
                    at += name.len() + 2;
                }
                '}' => return Err(TemplateError::Unmatched { brace: '}', at }),
                other => {
                    literal.push(other);
                    at += other.len_utf8();
                }
            }
        }
        flush(&mut literal, &mut parts);
        match parts.len() {
            0 => Err(TemplateError::Empty),
            count if count > PARTS_MAX => Err(TemplateError::TooLong { bytes: text.len(), parts: count }),
            _ => Ok(Self { parts }),
        }
    }

    /// Whether `{ts}` occurs, so that a timestamp must be configured.
    pub(super) fn uses_timestamp(&self) -> bool {
        self.parts.contains(&Part::Timestamp)
    }

    /// Whether `{url}` occurs.
    pub(super) fn uses_url(&self) -> bool {
        self.parts.contains(&Part::Url)
    }

    /// The message of `req` in pieces; `ts` is the timestamp's text.
    ///
    /// # Errors
    /// [`Reject`] when a header or JSON value that is part of the message is missing, ambiguous or holds the
    /// separator that follows it.
    pub(super) fn pieces<'a>(&'a self, req: &Request<'a>, ts: &'a [u8]) -> Result<Vec<Cow<'a, [u8]>>, Reject> {
        let mut json = self.json_values(req.body)?.into_iter();
        let mut pieces = Vec::with_capacity(self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            pieces.push(match part {
                Part::Literal(text) => Cow::Borrowed(text.as_bytes()),
                Part::Body => Cow::Borrowed(req.body),
                Part::Timestamp => Cow::Borrowed(ts),
                Part::Url => Cow::Borrowed(req.url.as_bytes()),
                Part::Method => Cow::Borrowed(req.method.as_bytes()),
                Part::Header(name) => Cow::Borrowed(header(req, name, self.parts.get(index + 1))?),
                Part::Json(_) => Cow::Owned(json.next().expect("one value was read for each JSON part")),
            });
        }
        Ok(pieces)
    }

    /// The values of the `{json:…}` parts in order, read in one pass.
    fn json_values(&self, body: &[u8]) -> Result<Vec<Vec<u8>>, Reject> {
        let paths: Vec<&Path> = self
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Json(path) => Some(path),
                _ => None,
            })
            .collect();
        let found = lookup(body, &paths);
        let missing = |path: &&Path| Reject::BodyFieldMissing { path: path.to_string() };
        found
            .into_iter()
            .zip(&paths)
            .map(|(value, path)| value.map(String::into_bytes).ok_or_else(|| missing(path)))
            .collect()
    }
}

/// Ends the literal being collected, if there is one.
fn flush(literal: &mut String, parts: &mut Vec<Part>) {
    if !literal.is_empty() {
        parts.push(Part::Literal(std::mem::take(literal)));
    }
}

fn placeholder(name: &str) -> Result<Part, TemplateError> {
    let owned = || name.to_owned();
    Ok(match name.split_once(':') {
        None => match name {
            "body" => Part::Body,
            "ts" => Part::Timestamp,
            "url" => Part::Url,
            "method" => Part::Method,
            _ => return Err(TemplateError::Unknown { name: owned() }),
        },
        Some(("header", header)) if is_header_name(header) => Part::Header(header.to_ascii_lowercase()),
        Some(("header", _)) => return Err(TemplateError::HeaderName { name: owned() }),
        Some(("json", path)) => {
            Part::Json(Path::parse(path).map_err(|source| TemplateError::JsonPath { name: owned(), source })?)
        }
        Some(_) => return Err(TemplateError::Unknown { name: owned() }),
    })
}

/// Whether `name` is a field name: a `token` of RFC 9110 §5.6.2, of at most 128 bytes.
pub(super) fn is_header_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(token)
}

/// The one value of a header that is part of the message.
fn header<'a>(req: &Request<'a>, name: &str, next: Option<&Part>) -> Result<&'a [u8], Reject> {
    let value = req.headers.one(name).map_err(|how_many| Reject::header(name, how_many))?;
    if let Some(Part::Literal(separator)) = next
        && value.windows(separator.len()).any(|window| window == separator.as_bytes())
    {
        return Err(Reject::HeaderMalformed {
            name: name.to_owned(),
            why: "it holds the separator that ends it in the signed message",
        });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::headers::Headers;

    fn message(template: &str, headers: &Headers, body: &[u8]) -> Result<Vec<u8>, Reject> {
        let req = Request { method: "POST", url: "https://x.test/in?a=b", headers, body };
        let template = Template::parse(template).unwrap();
        template.pieces(&req, b"17").map(|pieces| pieces.concat())
    }

    #[test]
    fn every_placeholder_is_filled() {
        let headers: Headers = [("X-Id", "m1")].into_iter().collect();
        let body = br#"{"a":{"b":"c"},"n":1.0}"#;
        let text = "{{{method}}}|{url}|{header:x-ID}|{json:a.b}{json:n}|{ts}|{body}é";
        let want = r#"{POST}|https://x.test/in?a=b|m1|c1.0|17|{"a":{"b":"c"},"n":1.0}é"#;
        assert_eq!(message(text, &headers, body).unwrap(), want.as_bytes());
    }

    #[test]
    fn the_body_is_not_copied() {
        let headers = Headers::new();
        let req = Request { method: "POST", url: "", headers: &headers, body: b"bytes" };
        let template = Template::parse("{ts}.{body}").unwrap();
        let pieces = template.pieces(&req, b"1").unwrap();
        assert!(matches!(&pieces[2], Cow::Borrowed(body) if std::ptr::eq(*body, req.body)));
    }

    #[test]
    fn what_the_message_needs_must_be_there() {
        let headers: Headers = [("id", "a"), ("id", "b"), ("dot", "a.b")].into_iter().collect();
        let code = |template: &str| message(template, &headers, b"{}").unwrap_err().code();
        assert_eq!(code("{header:none}"), "header_missing");
        assert_eq!(code("{header:id}"), "header_repeated");
        assert_eq!(code("{header:dot}.{body}"), "header_malformed");
        assert_eq!(code("{json:a}"), "body_field_missing");
        assert!(message("{header:dot}:{body}", &headers, b"{}").is_ok());
        assert!(message("{header:dot}", &headers, b"{}").is_ok());
    }

    #[test]
    fn errors_name_the_placeholder() {
        for (text, want) in [
            ("{bodi}", "unknown placeholder `{bodi}`"),
            ("{query:x}", "unknown placeholder `{query:x}`"),
            ("{header:}", "`{header:}` does not name a header"),
            ("{header:a b}", "`{header:a b}` does not name a header"),
            ("{json:a..b}", "`{json:a..b}` does not name a place"),
            ("{}", "unknown placeholder `{}`"),
            ("a{body", "unmatched `{` at byte 1"),
            ("{body}}", "unmatched `}` at byte 6"),
            ("", "the message is empty"),
            (&"{ts}".repeat(33), "33 parts"),
            (&"x".repeat(1025), "1025 bytes"),
        ] {
            let error = Template::parse(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
