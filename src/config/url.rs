//! What an endpoint's URL must be: `http` or `https`, a host, no user, no fragment, ASCII throughout.
//!
//! No error quotes the URL: the path or the query of a webhook URL is often its secret.

use std::net::{IpAddr, Ipv6Addr};

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// Longest host name (RFC 1035 section 2.3.4), in bytes.
const HOST_BYTES_MAX: usize = 253;

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) is_https: bool,
    /// In lower case, an IPv6 address without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// Why a text is no URL of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UrlError {
    #[error("expected a URL of at most {URL_BYTES_MAX} bytes, got {0}")]
    TooLong(usize),
    #[error("expected a URL that begins with http:// or https://, got another beginning")]
    Scheme,
    #[error("expected a URL without user and password, got one with \"@\"; to authenticate, sign with a secret")]
    UserInfo,
    #[error("expected a URL without fragment, got one with \"#\"")]
    Fragment,
    #[error(
        "expected a URL of visible ASCII characters, got others; write host names as xn--… and escape the rest with %"
    )]
    Ascii,
    #[error("expected a host after ://, got none that is a name or an address")]
    Host,
    #[error("expected a port between 1 and 65535, got another text after the host")]
    Port,
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong(text.len()));
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return Err(UrlError::Scheme);
        }
        // A backslash or a quote would be read differently by different parsers.
        if !rest.bytes().all(|b| b.is_ascii_graphic() && !b"\\\"<>^`{|}".contains(&b)) {
            return Err(UrlError::Ascii);
        }
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => {
                if is_https {
                    443
                } else {
                    80
                }
            }
            Some(digits) => parse_port(digits)?,
        };
        Ok(Self { is_https, host: parse_host(host)?, port })
    }

    /// Whether the URL leads to this machine, by its text alone.
    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether the host is `localhost` or a literal loopback or private address (RFC 1918, RFC 4193): the one kind that
    /// the operator's own file may name though deliveries don't go there otherwise.
    pub(super) fn is_private_literal(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private(),
            Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
            Err(_) => self.host == "localhost",
        }
    }
}

/// Cuts off the port; the colons of an IPv6 address are inside brackets.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), UrlError> {
    let host_end = match authority.starts_with('[') {
        true => authority.find(']').ok_or(UrlError::Host)? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(UrlError::Host),
    }
}

fn parse_port(digits: &str) -> Result<u16, UrlError> {
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Port)
    } else {
        Err(UrlError::Port)
    }
}

fn parse_host(host: &str) -> Result<String, UrlError> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().map(|ip| ip.to_string()).map_err(|_| UrlError::Host);
    }
    let is_label = |label: &str| {
        let fine = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len()) && fine
    };
    // A dot at the end marks the name as complete.
    let labels = host.strip_suffix('.').unwrap_or(host);
    if host.len() <= HOST_BYTES_MAX && labels.split('.').all(is_label) {
        Ok(host.to_ascii_lowercase())
    } else {
        Err(UrlError::Host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(is_https: bool, host: &str, port: u16) -> Result<Target, UrlError> {
        Ok(Target { is_https, host: host.to_owned(), port })
    }

    #[test]
    fn urls_are_read() {
        for (text, expected) in [
            ("http://127.0.0.1:3000/webhooks", target(false, "127.0.0.1", 3000)),
            ("https://Example.COM", target(true, "example.com", 443)),
            ("HTTP://example.com?x=a:b@c", target(false, "example.com", 80)),
            ("https://[::1]:8443/x", target(true, "::1", 8443)),
            ("https://[0:0::1]/x", target(true, "::1", 443)),
            ("https://my_app.internal./a//b?c=%23", target(true, "my_app.internal.", 443)),
            ("ftp://example.com", Err(UrlError::Scheme)),
            ("example.com", Err(UrlError::Scheme)),
            ("", Err(UrlError::Scheme)),
            ("https:///x", Err(UrlError::Host)),
            ("https://", Err(UrlError::Host)),
            ("https://:80/", Err(UrlError::Host)),
            ("https://a..b/", Err(UrlError::Host)),
            ("https://[::1", Err(UrlError::Host)),
            ("https://[::1]x", Err(UrlError::Host)),
            ("https://[127.0.0.1]/", Err(UrlError::Host)),
            ("https://%31/", Err(UrlError::Host)),
            ("https://u:p@example.com/", Err(UrlError::UserInfo)),
            ("https://example.com/#x", Err(UrlError::Fragment)),
            ("https://exämple.com/", Err(UrlError::Ascii)),
            ("https://example.com/a b", Err(UrlError::Ascii)),
            ("https://example.com\\@127.0.0.1/", Err(UrlError::Ascii)),
            ("https://example.com:0/", Err(UrlError::Port)),
            ("https://example.com:65536/", Err(UrlError::Port)),
            ("https://example.com:+80/", Err(UrlError::Port)),
            ("https://example.com:/", Err(UrlError::Port)),
        ] {
            assert_eq!(Target::parse(text), expected, "{text}");
        }
        let long = format!("https://example.com/{}", "a".repeat(URL_BYTES_MAX));
        assert_eq!(Target::parse(&long), Err(UrlError::TooLong(long.len())));
    }

    #[test]
    fn only_plain_spellings_count_as_private_literals() {
        let is = |host: &str| Target::parse(&format!("http://{host}/")).unwrap().is_private_literal();
        for host in [
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "127.8.8.8",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "[::1]",
            "[fd00::1]",
        ] {
            assert!(is(host), "{host}");
        }
        // Names resolve to anything; odd spellings, the cloud's metadata address and tunnels are no one's app.
        for host in [
            "example.com",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "[::]",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "8.8.8.8",
        ] {
            assert!(!is(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: String, tail in "[a-z\\[\\]:@/?#.%0-9]{0,40}") {
            let _ = Target::parse(&text);
            if let Ok(target) = Target::parse(&format!("http://{tail}")) {
                prop_assert!(!target.host.is_empty() && target.port > 0);
            }
        }
    }
}
