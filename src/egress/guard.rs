//! Where deliveries may go: the guard against requests into the gateway's own network (SSRF).
//!
//! A name is resolved first, then every address it resolves to is judged, then one of *these* addresses is connected to. So
//! a name that changes between judging and connecting changes nothing. One denied address fails the whole attempt: a name
//! that mixes public and private addresses is either a mistake or an attack.
//!
//! Pure: addresses in, verdict out. Three things override each other, the first match wins:
//!
//! 1. the gateway's own listeners are denied, whatever is allowed: a delivery to itself would loop, and could reach the
//!    management API;
//! 2. a literal private or loopback address that the operator wrote into the configuration file is allowed, as that one
//!    address and port: the app next door;
//! 3. the port must be one of the allowed ports, and the address outside [`DENIED`] or inside `egress.allow`.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::core::cidr::Cidr;

/// Ranges that are not on the public internet, from the IANA special-purpose registries for
/// [IPv4](https://www.iana.org/assignments/iana-ipv4-special-registry/) and
/// [IPv6](https://www.iana.org/assignments/iana-ipv6-special-registry/), with what each is.
pub const DENIED: [(Cidr, &str); 30] = [
    (Cidr::v4([0, 0, 0, 0], 8), "this host"),
    (Cidr::v4([10, 0, 0, 0], 8), "private"),
    (Cidr::v4([100, 64, 0, 0], 10), "carrier-grade NAT"),
    (Cidr::v4([127, 0, 0, 0], 8), "loopback"),
    (Cidr::v4([169, 254, 0, 0], 16), "link-local, cloud metadata"),
    (Cidr::v4([172, 16, 0, 0], 12), "private"),
    (Cidr::v4([192, 0, 0, 0], 24), "protocol assignments"),
    (Cidr::v4([192, 0, 2, 0], 24), "documentation"),
    (Cidr::v4([192, 88, 99, 0], 24), "6to4 relays"),
    (Cidr::v4([192, 168, 0, 0], 16), "private"),
    (Cidr::v4([198, 18, 0, 0], 15), "benchmarking"),
    (Cidr::v4([198, 51, 100, 0], 24), "documentation"),
    (Cidr::v4([203, 0, 113, 0], 24), "documentation"),
    (Cidr::v4([224, 0, 0, 0], 4), "multicast"),
    (Cidr::v4([240, 0, 0, 0], 4), "reserved, broadcast"),
    // Before the range that holds both, so that the message names the right one.
    (Cidr::v6([0; 8], 128), "unspecified"),
    (Cidr::v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (Cidr::v6([0; 8], 96), "IPv4-compatible"),
    (Cidr::v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), "IPv4-mapped"),
    (Cidr::v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), "IPv4-translated"),
    (Cidr::v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), "NAT64"),
    (Cidr::v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "local NAT64"),
    (Cidr::v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discard-only"),
    (Cidr::v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "Teredo"),
    (Cidr::v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (Cidr::v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "6to4"),
    (Cidr::v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private"),
    (Cidr::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (Cidr::v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "site-local"),
    (Cidr::v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

/// Ranges that a literal address in the operator's file may lie in: private and loopback, not link-local, where clouds keep
/// their metadata service.
const LITERAL: [Cidr; 6] = [
    Cidr::v4([10, 0, 0, 0], 8),
    Cidr::v4([127, 0, 0, 0], 8),
    Cidr::v4([172, 16, 0, 0], 12),
    Cidr::v4([192, 168, 0, 0], 16),
    Cidr::v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    Cidr::v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
];

/// Judges where deliveries may go. The default denies [`DENIED`] and allows everything else.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Ranges allowed although they are denied by default: `egress.allow`.
    pub allow: Vec<Cidr>,
    /// The only ports allowed; `None` allows any.
    pub ports: Option<Vec<u16>>,
    /// Addresses that the gateway itself listens on, as bound.
    pub own: Vec<SocketAddr>,
    /// Host and port of endpoints in the operator's own file, the host as
    /// [`EndpointUrl::host`](crate::core::url::EndpointUrl::host) writes it. A host that is neither a private or loopback
    /// address nor `localhost` allows nothing.
    pub literals: HashSet<(String, u16)>,
}

/// An attempt that may not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The address is in a denied range.
    #[error(
        "deliveries may not go to {address}, which is in {range} ({what}); if it is meant to, add it to egress.allow"
    )]
    Range {
        /// As it resolved.
        address: IpAddr,
        /// The range that it, or the IPv4 address inside it, lies in.
        range: Cidr,
        /// What the range is.
        what: &'static str,
    },
    /// The gateway would talk to itself.
    #[error("deliveries may not go to {0}, where the gateway itself listens")]
    Own(SocketAddr),
    /// The port is not one of the allowed.
    #[error("deliveries may not go to port {0}; if they are meant to, add it to egress.ports")]
    Port(u16),
}

impl Guard {
    /// Judges every address that `host` (as written in the URL, lower case, no brackets) resolved to. Gives back the
    /// addresses to connect to, in the order in which they came.
    pub fn judge(&self, host: &str, resolved: &[IpAddr], port: u16) -> Result<Vec<SocketAddr>, Denied> {
        let judged = resolved.iter().map(|address| {
            self.judge_one(host, *address, port)?;
            Ok(SocketAddr::new(*address, port))
        });
        judged.collect()
    }

    /// Whether the gateway listens on this port of every address of the machine. Which addresses those are changes while it
    /// runs, so the caller asks the kernel about each one that passed here.
    pub fn listens_everywhere(&self, port: u16) -> bool {
        self.own.iter().any(|own| own.port() == port && own.ip().is_unspecified())
    }

    fn judge_one(&self, host: &str, address: IpAddr, port: u16) -> Result<(), Denied> {
        let meanings = meanings(address);
        if meanings.iter().any(|meant| self.is_own(*meant, port)) {
            return Err(Denied::Own(SocketAddr::new(address, port)));
        }
        if self.is_literal(host, address, port) {
            return Ok(());
        }
        if self.ports.as_ref().is_some_and(|ports| !ports.contains(&port)) {
            return Err(Denied::Port(port));
        }
        let is_allowed = |meant: IpAddr| self.allow.iter().any(|range| range.contains(meant));
        let denied = |meant: IpAddr| DENIED.iter().find(|(range, _)| range.contains(meant) && !is_allowed(meant));
        match meanings.into_iter().find_map(denied) {
            Some((range, what)) => Err(Denied::Range { address, range: *range, what }),
            None => Ok(()),
        }
    }

    /// A connection to the unspecified address arrives at loopback, so it counts as such.
    fn is_own(&self, address: IpAddr, port: u16) -> bool {
        let is_here = address.is_loopback() || address.is_unspecified();
        self.own.iter().filter(|own| own.port() == port).any(|own| match own.ip().to_canonical() {
            listening if listening.is_unspecified() => is_here,
            listening => listening == address || (address.is_unspecified() && listening.is_loopback()),
        })
    }

    fn is_literal(&self, host: &str, address: IpAddr, port: u16) -> bool {
        let is_meant = match host.parse::<IpAddr>() {
            Ok(literal) => literal == address && LITERAL.iter().any(|range| range.contains(address)),
            Err(_) if host == "localhost" => address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST,
            Err(_) => false,
        };
        is_meant && self.literals.contains(&(host.to_owned(), port))
    }
}

/// The address and every IPv4 address inside it that a gateway on the way may unpack and send to. Each of them is judged:
/// an allowed NAT64 prefix must not open the private IPv4 addresses behind it.
fn meanings(address: IpAddr) -> Vec<IpAddr> {
    let mut meanings = vec![address];
    if let IpAddr::V6(v6) = address {
        meanings.extend(embedded_v4(v6).into_iter().map(IpAddr::V4));
    }
    meanings
}

/// IPv4 addresses inside an IPv6 address.
fn embedded_v4(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = address.segments();
    let last = join(s6, s7);
    match [s0, s1, s2, s3, s4, s5] {
        // Unspecified and loopback lie in the IPv4-compatible range without being IPv4.
        [0, 0, 0, 0, 0, 0] if address.is_unspecified() || address.is_loopback() => vec![],
        // Compatible (RFC 4291 §2.5.5.1), mapped (§2.5.5.2), translated (RFC 2765 §2.1).
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0, 0, 0, 0, 0xffff, 0] => vec![last],
        // NAT64 (RFC 6052 §2.2), well-known and local (RFC 8215). The local prefix may hold the address at other places too;
        // its last bits are then zero, which is a denied address.
        [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, ..] => vec![last],
        // 6to4 (RFC 3056 §2).
        [0x2002, high, low, ..] => vec![join(high, low)],
        // Teredo (RFC 4380 §4): the server, and the client with its bits flipped.
        [0x2001, 0, high, low, ..] => vec![join(high, low), Ipv4Addr::from_bits(!last.to_bits())],
        _ => vec![],
    }
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn allowing(ranges: &[&str]) -> Guard {
        Guard { allow: ranges.iter().map(|r| r.parse().unwrap()).collect(), ..Guard::default() }
    }

    fn passes(guard: &Guard, address: &str, port: u16) -> bool {
        guard.judge("example.com", &[ip(address)], port).is_ok()
    }

    #[test]
    fn every_range_of_the_list_is_denied_up_to_its_edges() {
        for (first, last, before, after) in [
            ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
            ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
            ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
            ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
            ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
            ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
            ("192.88.99.0", "192.88.99.255", Some("192.88.98.255"), Some("192.88.100.0")),
            ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
            ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
            ("198.51.100.0", "198.51.100.255", Some("198.51.99.255"), Some("198.51.101.0")),
            ("203.0.113.0", "203.0.113.255", Some("203.0.112.255"), Some("203.0.114.0")),
            ("224.0.0.0", "255.255.255.255", Some("223.255.255.255"), None),
            ("::", "::ffff:ffff", None, Some("::1:0:0")),
            ("::ffff:0.0.0.0", "::ffff:255.255.255.255", Some("::fffe:ffff:ffff"), None),
            ("::ffff:0:0:0", "::ffff:0:ffff:ffff", None, Some("::ffff:1:0:0")),
            ("64:ff9b::", "64:ff9b::ffff:ffff", Some("64:ff9a::"), Some("64:ff9b::1:0:0")),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Some("64:ff9b:0:1::"), Some("64:ff9b:2::")),
            ("100::", "100::ffff:ffff:ffff:ffff", None, Some("100:0:0:1::")),
            ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", None, Some("2001:1::")),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:db7::"), Some("2001:db9::")),
            ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:ffff::"), Some("2003::")),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("fbff::"), None),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("fe7f::"), None),
            ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
        ] {
            let guard = Guard::default();
            for denied in [first, last] {
                assert!(!passes(&guard, denied, 443), "{denied}");
            }
            for public in [before, after].into_iter().flatten() {
                assert!(passes(&guard, public, 443), "{public}");
            }
        }
    }

    #[test]
    fn the_table_names_the_closest_range() {
        for (address, range, what) in
            [("::1", "::1/128", "loopback"), ("::", "::/128", "unspecified"), ("10.9.8.7", "10.0.0.0/8", "private")]
        {
            let denied = Guard::default().judge("a", &[ip(address)], 80).unwrap_err();
            assert_eq!(denied, Denied::Range { address: ip(address), range: range.parse().unwrap(), what });
        }
    }

    #[test]
    fn one_denied_address_fails_them_all() {
        let guard = Guard::default();
        let public = [ip("93.184.215.14"), ip("2606:2800::1")];
        let expected = public.map(|a| SocketAddr::new(a, 443));
        assert_eq!(guard.judge("a", &public, 443).unwrap(), expected);
        assert!(guard.judge("a", &[public[0], ip("10.0.0.1"), public[1]], 443).is_err());
    }

    #[test]
    fn an_allowed_translation_prefix_opens_no_private_address_behind_it() {
        let guard = allowing(&["64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::ffff:0:0/96", "::/96"]);
        for public in
            ["64:ff9b::8.8.8.8", "2002:808:808::1", "2001:0:808:808:0:0:f7f7:f7f7", "::ffff:8.8.8.8", "::8.8.8.8"]
        {
            assert!(passes(&guard, public, 443), "{public}");
        }
        for private in [
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::127.0.0.1",
            "2002:a00:1::1",
            "2002:7f00:1::",
            "2001:0:a00:1:0:0:f7f7:f7f7",
            "2001:0:808:808:0:0:f5ff:fffe",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::10.0.0.1",
        ] {
            assert!(!passes(&guard, private, 443), "{private}");
        }
    }

    #[test]
    fn allowed_ranges_and_ports() {
        let guard = Guard { ports: Some(vec![443, 8443]), ..allowing(&["10.1.0.0/16", "fd00::/8", "::1/128"]) };
        for address in ["10.1.255.255", "fd12::1", "::1", "8.8.8.8"] {
            assert!(passes(&guard, address, 443), "{address}");
            assert_eq!(guard.judge("a", &[ip(address)], 80), Err(Denied::Port(80)), "{address}");
        }
        for address in ["10.2.0.0", "fc00::1", "127.0.0.1", "::ffff:10.1.0.1"] {
            assert!(!passes(&guard, address, 443), "{address}");
        }
    }

    #[test]
    fn a_literal_opens_exactly_its_address_and_port() {
        let literal = |host: &str| Guard { literals: HashSet::from([(host.to_owned(), 3000)]), ..Guard::default() };
        let judge = |guard: &Guard, host: &str, address: &str, port| guard.judge(host, &[ip(address)], port).is_ok();
        let guard = literal("127.0.0.1");
        assert!(judge(&guard, "127.0.0.1", "127.0.0.1", 3000));
        assert!(!judge(&guard, "127.0.0.1", "127.0.0.1", 3001));
        assert!(!judge(&guard, "127.0.0.1", "127.0.0.2", 3000));
        assert!(!judge(&guard, "127.0.0.1", "::ffff:127.0.0.1", 3000));
        // Another endpoint's name that resolves to the same address has no exception.
        for host in ["rebind.example", "localhost", "127.1", "0x7f.1", "2130706433", "0177.0.0.1"] {
            assert!(!judge(&guard, host, "127.0.0.1", 3000), "{host}");
        }
        let localhost = literal("localhost");
        assert!(localhost.judge("localhost", &[ip("::1"), ip("127.0.0.1")], 3000).is_ok());
        assert!(
            !judge(&localhost, "localhost", "127.0.0.2", 3000) && !judge(&localhost, "localhost", "10.0.0.1", 3000)
        );
        for (host, opens) in [
            ("10.0.0.5", true),
            ("::1", true),
            ("fd00::1", true),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("::ffff:127.0.0.1", false),
        ] {
            assert_eq!(judge(&literal(host), host, host, 3000), opens, "{host}");
        }
        assert!(!judge(&literal("127.1"), "127.1", "127.0.0.1", 3000));
        let other_ports = Guard { ports: Some(vec![443]), ..literal("127.0.0.1") };
        assert!(judge(&other_ports, "127.0.0.1", "127.0.0.1", 3000));
    }

    #[test]
    fn own_listeners_stay_closed_whatever_is_allowed() {
        let guard = Guard {
            own: vec!["0.0.0.0:8080".parse().unwrap(), "127.0.0.1:8081".parse().unwrap()],
            literals: HashSet::from([("127.0.0.1".to_owned(), 8081), ("localhost".to_owned(), 8080)]),
            ..allowing(&["0.0.0.0/0", "::/0"])
        };
        for own in ["127.0.0.1:8080", "127.9.9.9:8080", "[::1]:8080", "0.0.0.0:8080", "[::ffff:127.0.0.1]:8080"] {
            let own: SocketAddr = own.parse().unwrap();
            assert_eq!(guard.judge("localhost", &[own.ip()], 8080), Err(Denied::Own(own)), "{own}");
        }
        for own in ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "::"] {
            assert_eq!(guard.judge(own, &[ip(own)], 8081), Err(Denied::Own(SocketAddr::new(ip(own), 8081))), "{own}");
        }
        assert!(
            passes(&guard, "127.0.0.2", 8081) && passes(&guard, "127.0.0.1", 8082) && passes(&guard, "8.8.8.8", 8080)
        );
        assert!(guard.listens_everywhere(8080) && !guard.listens_everywhere(8081));
    }

    proptest! {
        #[test]
        fn no_wrapping_gets_a_denied_v4_address_through(bits: u32, wrap in 0usize..5) {
            let v4 = Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let wrapped = match wrap {
                0 => [0, 0, 0, 0, 0, 0xffff, high, low],
                1 => [0, 0, 0, 0, 0xffff, 0, high, low],
                2 => [0x64, 0xff9b, 0, 0, 0, 0, high, low],
                3 => [0x2002, high, low, 0, 0, 0, 0, 1],
                _ => [0x2001, 0, 0x0808, 0x0808, 0, 0, !high, !low],
            };
            let address = IpAddr::V6(Ipv6Addr::from_segments(wrapped));
            // By default every form is denied; with all of IPv6 allowed the IPv4 address decides.
            prop_assert!(Guard::default().judge("a", &[address], 443).is_err());
            let plain = Guard::default().judge("a", &[IpAddr::V4(v4)], 443).is_ok();
            prop_assert_eq!(allowing(&["::/0"]).judge("a", &[address], 443).is_ok(), plain);
        }

        #[test]
        fn what_passes_comes_back_in_order(addresses in prop::collection::vec(any::<u128>().prop_map(|b| IpAddr::V6(b.into())), 0..6), port: u16) {
            match Guard::default().judge("a", &addresses, port) {
                Ok(targets) => prop_assert_eq!(targets, addresses.iter().map(|a| SocketAddr::new(*a, port)).collect::<Vec<_>>()),
                Err(_) => prop_assert!(addresses.iter().any(|a| Guard::default().judge("a", &[*a], port).is_err())),
            }
        }
    }
}
