//! The URL of an endpoint, parsed strictly: what is accepted here is exactly what can be connected to and sent.
//!
//! **Invariant:** an [`EndpointUrl`] holds neither user information nor a fragment, its host is lower-case ASCII, its target
//! starts with `/` and fits into a request line as it stands. Errors never repeat the URL, since what is refused may hold
//! a password.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the longest URL; the commonest limit of servers on a request line is 8,000.
pub const URL_BYTES_MAX: usize = 2_048;

/// Characters of the longest host name ([RFC 1035 §2.3.4](https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4)), without
/// a final dot.
const HOST_BYTES_MAX: usize = 253;

/// Characters of the longest label of a host name, from the same place.
const LABEL_BYTES_MAX: usize = 63;

/// Where deliveries go: `http` or `https`, a host, a port, a path with its query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl {
    https: bool,
    host: String,
    port: u16,
    target: String,
}

/// A URL that deliveries can't go to. The messages hold nothing of the URL but what can't be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Longer than [`URL_BYTES_MAX`].
    #[error("expected a URL of at most {URL_BYTES_MAX} bytes, got {0}")]
    TooLong(usize),
    /// Neither `http://` nor `https://`.
    #[error("expected a URL that starts with http:// or https://")]
    Scheme,
    /// `user@` or `user:password@`.
    #[error("expected a URL without user or password; endpoints authenticate deliveries by their signature")]
    UserInfo,
    /// `#` and what follows.
    #[error("expected a URL without a fragment; a # within the path is written %23")]
    Fragment,
    /// A character that no URL has.
    #[error("unexpected character {0:?}; international host names are written in punycode (xn--), other text as %XX")]
    Character(char),
    /// A `%` that two hexadecimal digits don't follow.
    #[error("expected two hexadecimal digits after each %")]
    Percent,
    /// No host, or none that can be looked up.
    #[error("expected a host name of letters, digits, - and _, an IPv4 address, or an IPv6 address in brackets")]
    Host,
    /// Not a port.
    #[error("expected a port between 1 and 65535 after the colon")]
    Port,
}

impl EndpointUrl {
    /// Parses a URL ([RFC 3986 §3](https://www.rfc-editor.org/rfc/rfc3986#section-3)). Scheme and host come out in lower
    /// case; path and query stay byte for byte as written, since the receiver may compare them.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong(text.len()));
        }
        let (https, rest) = strip_scheme(text).ok_or(UrlError::Scheme)?;
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        // Before anything is said about a character: what stands before an @ may be a password.
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(digits) => parse_port(digits).ok_or(UrlError::Port)?,
            None if https => 443,
            None => 80,
        };
        check_target(target)?;
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { https, host: parse_host(host)?, port, target })
    }

    /// Whether TLS is spoken.
    pub const fn is_https(&self) -> bool {
        self.https
    }

    /// The host in lower case, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, written or implied.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, as they stand in the request line.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The address, when the host is written as one: dotted with four decimal numbers, or IPv6. Other spellings that a
    /// resolver takes for an address (`127.1`, `0x7f.1`) are names here.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Host and port as they stand in the `Host` field: brackets around IPv6, the scheme's own port left out.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.https, self.port) {
            (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

fn strip_scheme(text: &str) -> Option<(bool, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Some((false, rest)),
        "https" => Some((true, rest)),
        _ => None,
    }
}

/// Splits off the port, minding the colons of an IPv6 address, which keeps its brackets.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), UrlError> {
    let host_end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']').ok_or(UrlError::Host)? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    match authority.split_at(host_end) {
        (host, "") => Ok((host, None)),
        (host, rest) => rest.strip_prefix(':').map(|port| (host, Some(port))).ok_or(UrlError::Host),
    }
}

/// `u16::from_str` would take `+80` as well.
fn parse_port(digits: &str) -> Option<u16> {
    let is_plain = (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|port| is_plain && *port != 0)
}

fn parse_host(host: &str) -> Result<String, UrlError> {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        // Written back in its one canonical form, so that equal addresses are equal hosts.
        return inner.parse::<Ipv6Addr>().map(|ip| ip.to_string()).map_err(|_| UrlError::Host);
    }
    if let Some(odd) = host.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        return Err(UrlError::Character(odd));
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(ip.to_string());
    }
    // One dot at the end says that the name is complete and no search domain is to be tried.
    let name = host.strip_suffix('.').unwrap_or(host);
    let labels_fit = name.split('.').all(|label| (1..=LABEL_BYTES_MAX).contains(&label.len()));
    if name.len() > HOST_BYTES_MAX || !labels_fit {
        return Err(UrlError::Host);
    }
    Ok(host.to_ascii_lowercase())
}

/// Path and query may hold RFC 3986's characters, and brackets, which many query strings have although they shouldn't.
fn check_target(target: &str) -> Result<(), UrlError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?%[]".contains(c);
    if let Some(odd) = target.chars().find(|c| !is_allowed(*c)) {
        return Err(UrlError::Character(odd));
    }
    let is_escape = |after: &str| after.len() >= 2 && after.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    if target.split('%').skip(1).all(is_escape) { Ok(()) } else { Err(UrlError::Percent) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> EndpointUrl {
        EndpointUrl::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn the_parts_come_out() {
        let url = parse("HTTPS://Hooks.Example.COM:8443/In/a%20b?x[]=1&y=%2F");
        assert!(url.is_https());
        assert_eq!((url.host(), url.port()), ("hooks.example.com", 8443));
        assert_eq!(url.target(), "/In/a%20b?x[]=1&y=%2F");
        assert_eq!(url.authority(), "hooks.example.com:8443");
        assert_eq!(url.to_string(), "https://hooks.example.com:8443/In/a%20b?x[]=1&y=%2F");
    }

    #[test]
    fn ports_and_targets_have_defaults() {
        assert_eq!(parse("http://a").to_string(), "http://a/");
        assert_eq!((parse("http://a").port(), parse("https://a").port()), (80, 443));
        assert_eq!(parse("http://a?b=1").target(), "/?b=1");
        assert_eq!(parse("http://a:80").authority(), "a");
        assert_eq!(parse("https://a:80").authority(), "a:80");
    }

    #[test]
    fn addresses_are_told_from_names() {
        assert_eq!(parse("http://127.0.0.1:3000/").ip(), Some(IpAddr::from([127, 0, 0, 1])));
        let v6 = parse("http://[0:0::0001]:3000/");
        assert_eq!((v6.host(), v6.authority().as_str()), ("::1", "[::1]:3000"));
        for name in ["localhost", "0x7f.1", "127.1", "2130706433", "0177.0.0.1", "my_app", "example.com."] {
            assert_eq!(parse(&format!("http://{name}:1/")).ip(), None, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let long = format!("http://a/{}", "x".repeat(URL_BYTES_MAX));
        let label = format!("http://{}/", "x".repeat(64));
        let name = format!("http://{}/", ["abcdefghi"; 26].join("."));
        for (text, expected) in [
            ("ftp://a/", UrlError::Scheme),
            ("//a/", UrlError::Scheme),
            ("a.example", UrlError::Scheme),
            ("http:/a", UrlError::Scheme),
            ("http://user:pa ss@a/", UrlError::UserInfo),
            ("http://@a/", UrlError::UserInfo),
            ("http://a/#x", UrlError::Fragment),
            ("http://", UrlError::Host),
            ("http:///x", UrlError::Host),
            ("http://a..b/", UrlError::Host),
            ("http://.a/", UrlError::Host),
            ("http://[::1/", UrlError::Host),
            ("http://[::1]x/", UrlError::Host),
            ("http://[::1%25eth0]/", UrlError::Host),
            ("http://[127.0.0.1]/", UrlError::Host),
            (label.as_str(), UrlError::Host),
            (name.as_str(), UrlError::Host),
            ("http://a:/", UrlError::Port),
            ("http://a:0/", UrlError::Port),
            ("http://a:65536/", UrlError::Port),
            ("http://a:+80/", UrlError::Port),
            ("http://a:1:2/", UrlError::Port),
            ("http://bücher.example/", UrlError::Character('ü')),
            ("http://a%2eb/", UrlError::Character('%')),
            ("http://a\\b/", UrlError::Character('\\')),
            ("http://a/b c", UrlError::Character(' ')),
            ("http://a/\r\nx: y", UrlError::Character('\r')),
            ("http://a/é", UrlError::Character('é')),
            ("http://a/%2", UrlError::Percent),
            ("http://a/%zz", UrlError::Percent),
            ("http://a/%", UrlError::Percent),
            (long.as_str(), UrlError::TooLong(long.len())),
        ] {
            assert_eq!(EndpointUrl::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn errors_keep_passwords_to_themselves() {
        let error = EndpointUrl::parse("https://admin:hunter2@example.com/").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_text_is_judged_without_panic(text in "(https?://)?\\PC{0,40}") {
            let _ = EndpointUrl::parse(&text);
        }

        #[test]
        fn what_is_written_back_reads_the_same(
            https: bool, host in "[a-z0-9]{1,8}(\\.[a-z0-9_-]{1,8}){0,3}|\\[::[0-9a-f]{1,4}\\]", port in 1u16.., target in "(/[a-z0-9:@,;=]{0,8}){0,3}(\\?[a-z=&?/]{0,8})?",
        ) {
            let text = format!("http{}://{host}:{port}{target}", if https { "s" } else { "" });
            let url = parse(&text);
            prop_assert_eq!(url.port(), port);
            prop_assert_eq!(&parse(&url.to_string()), &url);
        }
    }
}
