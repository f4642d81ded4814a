//! Checks on a request's head: what hyper accepts, and an origin server at the edge must not.
//!
//! hyper itself answers what it can't parse (400), heads of more than twice the limit, too many fields, and a
//! Content-Length of 2^64 - 1 (431). Some things it settles before we see the request, each in a way that the standard
//! allows and that agrees with itself:
//! - Content-Length beside Transfer-Encoding: it reads the chunks and closes after the answer
//!   ([RFC 9112 §6.1](https://www.rfc-editor.org/rfc/rfc9112#section-6.1)).
//! - Several equal Content-Lengths: it keeps one (§6.3). Differing ones it refuses.
//! - Lines that end in a bare line feed: it takes them (§2.2).
//! - A chunk's claimed size: it is not told, so a chunk over the limit is cut off when the bytes are there, not before.

use hyper::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Uri, Version};

use super::reply::{Reply, close, problem, with_allow};

/// Bytes of a request's target; more is answered 414. Receiving a webhook needs a few dozen.
pub const TARGET_BYTES_MAX: usize = 8 << 10;

/// Parts of a path that, decoded here or by someone behind us, would leave the path they stand in.
const DISGUISES: [&str; 4] = ["%2e", "%2f", "%5c", "%00"];

/// A head that is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The target is too long.
    #[error("the request target is longer than {TARGET_BYTES_MAX} bytes")]
    TargetTooLong,
    /// The fields are too long together.
    #[error("the header fields are longer than {bytes_max} bytes")]
    FieldsTooLong {
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// A method that no resource here has, on a target that is none.
    #[error("CONNECT, TRACE and OPTIONS * are not supported")]
    Method,
    /// Bytes that no URL has.
    #[error("the request target holds bytes that are not ASCII; expected them percent-encoded")]
    TargetNotAscii,
    /// A path that says one thing and may mean another.
    #[error("the path holds an empty, dot or encoded-slash segment; expected a plain path")]
    PathDisguised,
    /// None, or one that is not a host.
    #[error("expected exactly one Host header with a host and perhaps a port")]
    Host,
    /// The target names a host, and another one than the Host header.
    #[error("the request target names another host than the Host header")]
    OtherHost,
    /// A name and perhaps a password before the host.
    #[error("expected no user or password in front of the host")]
    Userinfo,
    /// Who wrote this and who reads it may not agree where the body ends.
    #[error("expected one Content-Length or one Transfer-Encoding: chunked")]
    Framing,
    /// A coding beside chunked.
    #[error("the only transfer coding supported is chunked")]
    Coding,
    /// An expectation that can't be met.
    #[error("the only expectation supported is 100-continue")]
    Expectation,
}

impl HeadError {
    /// The status to answer with.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::FieldsTooLong { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::PathDisguised => StatusCode::NOT_FOUND,
            Self::OtherHost => StatusCode::MISDIRECTED_REQUEST,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::TargetNotAscii | Self::Host | Self::Userinfo | Self::Framing => StatusCode::BAD_REQUEST,
        }
    }

    /// A stable word for answers and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TargetTooLong => "target_too_long",
            Self::FieldsTooLong { .. } => "headers_too_large",
            Self::Method => "method_not_allowed",
            Self::TargetNotAscii => "bad_target",
            Self::PathDisguised => "not_found",
            Self::Host => "bad_host",
            Self::OtherHost => "misdirected",
            Self::Userinfo => "bad_host",
            Self::Framing => "bad_framing",
            Self::Coding => "unsupported_coding",
            Self::Expectation => "unsupported_expectation",
        }
    }

    /// The answer, after which the connection closes. `allow` are the listener's methods, which a 405 must name.
    pub fn reply(&self, allow: &'static str) -> Reply {
        let reply = close(problem(self.status(), self.code(), self.to_string()));
        if matches!(self, Self::Method) { with_allow(reply, allow) } else { reply }
    }
}

/// Checks a head before anything else looks at it. `header_bytes_max` is the limit over names and values with their
/// separators, as they stood on the wire.
///
/// # Errors
/// The first [`HeadError`] found; answer with [`HeadError::reply`].
pub fn check_head(head: &Parts, header_bytes_max: usize) -> Result<(), HeadError> {
    check_size(head, header_bytes_max)?;
    check_target(head)?;
    check_host(head)?;
    check_framing(head)?;
    match head.headers.get_all(EXPECT).iter().find(|value| !is(value, "100-continue")) {
        Some(_) => Err(HeadError::Expectation),
        None => Ok(()),
    }
}

fn check_size(head: &Parts, bytes_max: usize) -> Result<(), HeadError> {
    if target_bytes(&head.uri) > TARGET_BYTES_MAX {
        return Err(HeadError::TargetTooLong);
    }
    // ": " and CRLF.
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > bytes_max { Err(HeadError::FieldsTooLong { bytes_max }) } else { Ok(()) }
}

fn target_bytes(uri: &Uri) -> usize {
    let authority = uri.authority().map_or(0, |a| a.as_str().len());
    authority + uri.path_and_query().map_or(0, |p| p.as_str().len())
}

fn check_target(head: &Parts) -> Result<(), HeadError> {
    let path = head.uri.path();
    if matches!(head.method, Method::CONNECT | Method::TRACE) || path == "*" {
        return Err(HeadError::Method);
    }
    if head.uri.path_and_query().is_some_and(|target| !target.as_str().is_ascii()) {
        return Err(HeadError::TargetNotAscii);
    }
    let is_dotted = |segment: &[u8]| matches!(segment, b"." | b"..");
    let bytes = path.as_bytes();
    let has_empty = bytes.windows(2).any(|two| two == b"//");
    if has_empty || bytes.split(|byte| *byte == b'/').any(is_dotted) || is_disguised(path) {
        return Err(HeadError::PathDisguised);
    }
    Ok(())
}

fn is_disguised(path: &str) -> bool {
    path.contains('%') && {
        let lower = path.to_ascii_lowercase();
        DISGUISES.iter().any(|part| lower.contains(part))
    }
}

/// [RFC 9112 §3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2): exactly one Host, which only HTTP/1.0 may leave out.
fn check_host(head: &Parts) -> Result<(), HeadError> {
    let target = head.uri.authority();
    if target.is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(HeadError::Userinfo);
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map_err(|_| HeadError::Host)?,
        (None, _) if head.version == Version::HTTP_10 && target.is_none() => return Ok(()),
        _ => return Err(HeadError::Host),
    };
    if host.contains('@') {
        return Err(HeadError::Userinfo);
    }
    let parsed: hyper::http::uri::Authority = host.parse().map_err(|_| HeadError::Host)?;
    // An authority may also be a path's first part (`a/b` stops at the slash), which a Host may not.
    if parsed.as_str().len() != host.len() || parsed.host().is_empty() {
        return Err(HeadError::Host);
    }
    match target {
        Some(authority) if !authority.as_str().eq_ignore_ascii_case(host) => Err(HeadError::OtherHost),
        _ => Ok(()),
    }
}

fn check_framing(head: &Parts) -> Result<(), HeadError> {
    let lengths = head.headers.get_all(CONTENT_LENGTH).iter().count();
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next(), lengths) {
        (None, _, 0 | 1) => Ok(()),
        (Some(coding), None, 0) if is(coding, "chunked") => Ok(()),
        // hyper lets through only what ends in `chunked`, so anything else here names a second coding before it.
        (Some(_), None, 0) => Err(HeadError::Coding),
        _ => Err(HeadError::Framing),
    }
}

fn is(value: &HeaderValue, text: &str) -> bool {
    value.as_bytes().eq_ignore_ascii_case(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn head(target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().method("POST").uri(target);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn check(target: &str, fields: &[(&str, &str)]) -> Result<(), HeadError> {
        check_head(&head(target, fields), 1_000)
    }

    #[test]
    fn ordinary_heads_pass() {
        assert_eq!(check("/in/stripe?a=%2e%2e/x", &[("host", "a:8080"), ("content-length", "3")]), Ok(()));
        assert_eq!(check("/in/a.b..c", &[("host", "[::1]:80"), ("transfer-encoding", "Chunked")]), Ok(()));
        assert_eq!(check("http://Example.com/in/x", &[("host", "example.COM"), ("expect", "100-Continue")]), Ok(()));
    }

    #[test]
    fn hosts_that_are_missing_doubled_or_odd() {
        use HeadError::{Host, OtherHost, Userinfo};
        for (target, hosts, error) in [
            ("/", &[][..], Host),
            ("/", &["a", "a"], Host),
            ("/", &[""], Host),
            ("/", &["a/b"], Host),
            ("/", &["a b"], Host),
            ("/", &["u@a"], Userinfo),
            ("http://u:p@a/", &["a"], Userinfo),
            ("http://b/", &["a"], OtherHost),
            ("http://a:81/", &["a"], OtherHost),
        ] {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            assert_eq!(check(target, &fields), Err(error), "{target} {hosts:?}");
        }
        let mut old = head("/", &[]);
        old.version = Version::HTTP_10;
        assert_eq!(check_head(&old, 1_000), Ok(()));
    }

    #[test]
    fn framing_that_can_be_read_in_two_ways() {
        use HeadError::{Coding, Framing};
        for (fields, error) in [
            (&[("content-length", "3"), ("content-length", "3")][..], Framing),
            (&[("content-length", "3"), ("transfer-encoding", "chunked")], Framing),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Framing),
            (&[("transfer-encoding", "gzip, chunked")], Coding),
            (&[("transfer-encoding", "xchunked")], Coding),
        ] {
            let fields: Vec<_> = fields.iter().copied().chain([("host", "a")]).collect();
            assert_eq!(check("/", &fields), Err(error), "{fields:?}");
        }
    }

    #[test]
    fn targets_that_are_long_or_disguised() {
        use HeadError::{PathDisguised, TargetNotAscii, TargetTooLong};
        let long = format!("/{}", "a".repeat(TARGET_BYTES_MAX));
        for (target, error) in [
            ("/in/../admin", PathDisguised),
            ("/in/..", PathDisguised),
            ("/./in", PathDisguised),
            ("//in/x", PathDisguised),
            ("/in/%2E%2e%2fadmin", PathDisguised),
            ("/in/a%00", PathDisguised),
            ("/in/ü", TargetNotAscii),
            (long.as_str(), TargetTooLong),
        ] {
            assert_eq!(check(target, &[("host", "a")]), Err(error), "{target}");
        }
    }

    #[test]
    fn methods_and_expectations_without_a_meaning_here() {
        for (method, target) in [("CONNECT", "a:80"), ("TRACE", "/"), ("OPTIONS", "*")] {
            let request = Request::builder().method(method).uri(target).header("host", "a:80").body(()).unwrap();
            assert_eq!(check_head(&request.into_parts().0, 1_000), Err(HeadError::Method), "{method}");
        }
        assert_eq!(check("/", &[("host", "a"), ("expect", "a-pony")]), Err(HeadError::Expectation));
    }

    #[test]
    fn fields_over_the_limit() {
        let long = "x".repeat(1_000);
        assert_eq!(check("/", &[("host", "a"), ("x", &long)]), Err(HeadError::FieldsTooLong { bytes_max: 1_000 }));
    }

    #[test]
    fn a_refusal_closes_the_connection() {
        let reply = HeadError::Method.reply("POST");
        assert_eq!(
            (reply.status().as_u16(), &reply.headers()["connection"], &reply.headers()["allow"]),
            (405, &HeaderValue::from_static("close"), &HeaderValue::from_static("POST"))
        );
        assert!(HeadError::Host.reply("POST").headers().get("allow").is_none());
    }
}
