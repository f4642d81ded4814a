//! What an operator or a client names things by: URLs, ranges of addresses, patterns of event types, ids. The input is two
//! lines: a name, and something to try it on.

use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::str::FromStr;

use postrider::core::cidr::Cidr;
use postrider::core::id::{AttemptId, EndpointId, EventId};
use postrider::core::pattern::{Pattern, check_event_type};
use postrider::core::url::{EndpointUrl, URL_BYTES_MAX};

use super::input::split_once;

pub fn run(bytes: &[u8]) {
    let (name, other) = split_once(bytes, b"\n");
    let (Ok(name), Ok(other)) = (std::str::from_utf8(name), std::str::from_utf8(other)) else { return };
    url(name);
    range(name, other);
    pattern(name, other);
    exactly::<EventId>(name);
    exactly::<EndpointId>(name);
    exactly::<AttemptId>(name);
}

/// There is one way to write it.
fn exactly<T: FromStr + Display>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text);
    }
}

/// What is written reads back as the same.
fn reads_back<T: Display + Debug + PartialEq, E: Debug>(value: &T, parse: impl Fn(&str) -> Result<T, E>) {
    let written = value.to_string();
    assert_eq!(parse(&written).as_ref().ok(), Some(value), "written as {written:?}");
}

fn url(text: &str) {
    let Ok(url) = EndpointUrl::parse(text) else { return };
    assert!(url.target().starts_with('/') && url.target().bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!url.host().is_empty() && url.host().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@'));
    assert!(url.port() > 0);
    assert_eq!(url.ip().is_some_and(|ip| ip.is_ipv6()), url.host().contains(':'));
    // A bare host gains a slash, and so may the longest URL become too long.
    if url.to_string().len() <= URL_BYTES_MAX {
        reads_back(&url, EndpointUrl::parse);
    }
}

fn range(text: &str, address: &str) {
    let Ok(range) = text.parse::<Cidr>() else { return };
    reads_back(&range, str::parse::<Cidr>);
    let written = range.to_string();
    let (first, prefix) = written.split_once('/').expect("a range is written with its prefix");
    let (first, prefix): (IpAddr, usize) = (first.parse().expect("an address"), prefix.parse().expect("a number"));
    assert!(range.contains(first));
    if let Ok(address) = address.parse::<IpAddr>() {
        let (bits, of_first) = (bits(address), bits(first));
        let begins_alike = bits.len() == of_first.len() && bits[..prefix] == of_first[..prefix];
        assert_eq!(range.contains(address), begins_alike, "{range} and {address}");
    }
}

fn bits(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{:032b}", ip.to_bits()),
        IpAddr::V6(ip) => format!("{:0128b}", ip.to_bits()),
    }
}

fn pattern(text: &str, event_type: &str) {
    if check_event_type(text).is_ok() {
        let itself: Pattern = text.parse().expect("every event type is a pattern");
        assert!(itself.matches(text));
    }
    let Ok(pattern) = text.parse::<Pattern>() else { return };
    reads_back(&pattern, str::parse::<Pattern>);
    let (parts, names): (Vec<_>, Vec<_>) = (text.split('.').collect(), event_type.split('.').collect());
    // The definition takes exponential time, so only short ones are held against it.
    if parts.len() <= 8 && names.len() <= 8 {
        assert_eq!(pattern.matches(event_type), defined(&parts, &names), "{text:?} on {event_type:?}");
    } else {
        pattern.matches(event_type);
    }
}

/// Matching as the words of the documentation say it.
fn defined(parts: &[&str], names: &[&str]) -> bool {
    match (parts, names) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=names.len()).any(|taken| defined(rest, &names[taken..])),
        (["*", rest @ ..], [_, names @ ..]) => defined(rest, names),
        ([part, rest @ ..], [name, names @ ..]) => part == name && defined(rest, names),
        _ => false,
    }
}
