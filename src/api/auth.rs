//! Who may ask: the Host that is spoken to, the token, and requests that a browser makes for a foreign page.
//!
//! **Invariants**
//! - The token itself is not held: its SHA-256 is, and what a request brings is hashed and compared in constant time.
//! - A name that is not on the list is answered 421 before anything else, health checks included: a page whose name was
//!   rebound to this address reads nothing.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Method, StatusCode};
use sha2::{Digest, Sha256};

use super::problem::Problem;

/// The challenge when no token came.
const CHALLENGE: &str = "Bearer realm=\"postrider\"";

/// The challenge when a wrong one came.
const CHALLENGE_INVALID: &str = "Bearer realm=\"postrider\", error=\"invalid_token\"";

/// [Fetch Metadata](https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header): where a browser's request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The Host names that the management listener answers to; ports are not compared, as a forwarded port differs.
#[derive(Debug, Clone)]
pub struct Hosts {
    names: Vec<String>,
    any_address: bool,
}

impl Hosts {
    /// The loopback names and addresses, the address that `listener` is bound to, and `names` (without ports).
    ///
    /// A listener bound to every address (`0.0.0.0`, `::`) does not know by which it is reached, so it takes any literal
    /// address: an attacker's page can rebind a name, never an address.
    pub fn new(listener: SocketAddr, names: impl IntoIterator<Item = String>) -> Self {
        let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
        all.push(written(listener.ip()));
        all.extend(names);
        Self { names: all, any_address: listener.ip().is_unspecified() }
    }

    /// Whether a Host field names this listener.
    pub fn allows(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else { return false };
        self.names.iter().any(|have| have.eq_ignore_ascii_case(name)) || (self.any_address && is_address(name))
    }
}

fn written(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

fn is_address(name: &str) -> bool {
    match name.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => name.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

/// The host of `host[:port]`, brackets kept; `None` when what follows it is no port.
fn without_port(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, rest) = host.split_at(end);
    match rest.strip_prefix(':') {
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(name),
        None if rest.is_empty() => Some(name),
        _ => None,
    }
}

/// Refuses a request that speaks to another host.
pub(super) fn check_host(hosts: &Hosts, headers: &HeaderMap) -> Result<(), Problem> {
    match one(headers, &HOST) {
        Some(host) if hosts.allows(host) => Ok(()),
        _ => Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected",
            "expected a Host that names this listener: localhost, its address, or a name that the configuration allows",
        )),
    }
}

/// Refuses a request without the token whose SHA-256 is `token_sha256`.
pub(super) fn check_token(token_sha256: &[u8; 32], headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(AUTHORIZATION) {
        return Err(Problem::unauthorized(CHALLENGE, "expected the header \"authorization: Bearer <token>\""));
    }
    let token = one(headers, &AUTHORIZATION).and_then(bearer);
    match token {
        Some(token) if equal(&Sha256::digest(token.as_bytes()).into(), token_sha256) => Ok(()),
        Some(_) => Err(Problem::unauthorized(CHALLENGE_INVALID, "this is not the token of this gateway")),
        None => Err(Problem::unauthorized(CHALLENGE_INVALID, "expected one header \"authorization: Bearer <token>\"")),
    }
}

/// Refuses a change that a browser asks for on behalf of a page from elsewhere. Programs send neither header.
pub(super) fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let own_site = !headers.contains_key(&SEC_FETCH_SITE)
        || one(headers, &SEC_FETCH_SITE).is_some_and(|site| matches!(site, "same-origin" | "none"));
    let own_origin = !headers.contains_key(ORIGIN) || one(headers, &ORIGIN).is_some_and(|o| is_own(o, headers));
    if own_site && own_origin {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", "a page from elsewhere may not change anything here"))
}

/// Whether an Origin is that of a page which this host served.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    match (authority, one(headers, &HOST)) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// The value of a field that came once as visible text; a repetition is as bad as none.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { first.to_str().ok() }
}

/// The token of `Bearer <token>`; the scheme's name compares without regard to case (RFC 9110 §11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// Takes as long for digests that differ early as for equal ones.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    // `black_box` keeps the compiler from leaving the loop at the first difference.
    a.iter().zip(b).fold(0, |difference, (x, y)| black_box(difference | (x ^ y))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn loopback_names_the_own_address_and_configured_names_are_hosts() {
        let hosts = Hosts::new("10.1.2.3:8081".parse().unwrap(), ["Hooks.Example".to_owned()]);
        for good in [
            "localhost",
            "LOCALHOST:8081",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:8081",
            "10.1.2.3",
            "10.1.2.3:8081",
            "hooks.example",
            "HOOKS.example:443",
            "localhost:",
        ] {
            assert!(hosts.allows(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "127.1",
            "10.1.2.4",
            "[::2]",
            "[::1",
            "[::1]x",
            "localhost:80@evil.example",
            "localhost:8081:1",
            "user@localhost",
            "hooks.example.",
        ] {
            assert!(!hosts.allows(bad), "{bad}");
        }
    }

    #[test]
    fn a_listener_on_every_address_takes_addresses_but_no_foreign_names() {
        for bound in ["0.0.0.0:8081", "[::]:8081"] {
            let hosts = Hosts::new(bound.parse().unwrap(), []);
            assert!(hosts.allows("192.168.7.9:8081") && hosts.allows("[fd00::7]:8081") && hosts.allows("localhost"));
            assert!(!hosts.allows("evil.example") && !hosts.allows("[evil.example]") && !hosts.allows("0x7f.1"));
        }
    }

    #[test]
    fn only_the_token_passes() {
        let digest: [u8; 32] = Sha256::digest(b"t0ken").into();
        for good in ["Bearer t0ken", "bearer t0ken", "BEARER  t0ken"] {
            assert!(check_token(&digest, &headers(&[("authorization", good)])).is_ok(), "{good}");
        }
        for bad in
            ["", "t0ken", "Bearer", "Bearer ", "Bearer t0ke", "Bearer t0ken2", "Basic t0ken", "Bearer t0ken t0ken"]
        {
            let problem = check_token(&digest, &headers(&[("authorization", bad)])).unwrap_err();
            assert_eq!(problem.code(), "unauthorized", "{bad}");
        }
        assert!(check_token(&digest, &HeaderMap::new()).is_err());
        let twice = headers(&[("authorization", "Bearer t0ken"), ("authorization", "Bearer t0ken")]);
        assert!(check_token(&digest, &twice).is_err());
    }

    #[test]
    fn pages_from_elsewhere_change_nothing() {
        let host = ("host", "127.0.0.1:8081");
        let check = |fields: &[(&'static str, &str)]| check_origin(&Method::POST, &headers(fields)).is_ok();
        assert!(check(&[host]));
        assert!(check(&[host, ("origin", "http://127.0.0.1:8081"), ("sec-fetch-site", "same-origin")]));
        assert!(check(&[host, ("sec-fetch-site", "none")]));
        for origin in ["null", "", "http://evil.example", "http://127.0.0.1:8082", "http://127.0.0.1", "127.0.0.1:8081"]
        {
            assert!(!check(&[host, ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site", "", "Same-Origin"] {
            assert!(!check(&[host, ("sec-fetch-site", site)]), "{site}");
        }
        assert!(!check(&[host, ("origin", "http://127.0.0.1:8081"), ("origin", "http://127.0.0.1:8081")]));
        assert!(check_origin(&Method::GET, &headers(&[host, ("origin", "http://evil.example")])).is_ok());
    }

    #[test]
    fn digests_compare_as_a_whole() {
        let digest = [7; 32];
        assert!(equal(&digest, &[7; 32]));
        for at in 0..32 {
            let mut other = digest;
            other[at] ^= 1;
            assert!(!equal(&digest, &other));
        }
    }
}
