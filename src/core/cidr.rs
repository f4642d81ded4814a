//! Ranges of IP addresses in CIDR notation ([RFC 4632 §3.1](https://www.rfc-editor.org/rfc/rfc4632#section-3.1),
//! [RFC 4291 §2.3](https://www.rfc-editor.org/rfc/rfc4291#section-2.3)).
//!
//! **Invariant:** bits past the prefix are zero. An IPv4 range holds IPv4 addresses only and an IPv6 range IPv6 addresses
//! only; whoever meets IPv4 inside IPv6 must take it out first.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    first: IpAddr,
    prefix: u8,
}

/// A text that is not a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not of the form.
    #[error("expected an address and a prefix length such as 10.1.0.0/16 or fd00::/8, got {0:?}")]
    Form(String),
    /// The address lies within the range instead of at its start, so one of the two is not what was meant.
    #[error("expected the first address of the range, {expected}, got {got:?}")]
    HostBits {
        /// The range with this prefix length.
        expected: Cidr,
        /// What was written.
        got: String,
    },
}

impl Cidr {
    /// An IPv4 range; bits past `prefix` must be zero.
    pub const fn v4(octets: [u8; 4], prefix: u8) -> Self {
        assert!(prefix <= 32);
        Self { first: IpAddr::V4(Ipv4Addr::from_octets(octets)), prefix }
    }

    /// An IPv6 range; bits past `prefix` must be zero.
    pub const fn v6(segments: [u16; 8], prefix: u8) -> Self {
        assert!(prefix <= 128);
        Self { first: IpAddr::V6(Ipv6Addr::from_segments(segments)), prefix }
    }

    /// Whether `address` lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && masked(address, self.prefix) == self.first
    }
}

/// The address with every bit past the prefix cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `10.1.0.0/16`; an address alone is the range of that one address.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let form = || CidrError::Form(text.chars().take(64).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| form())?,
            Some(_) => return Err(form()),
            None => bits,
        };
        if prefix > bits {
            return Err(form());
        }
        let range = Self { first: masked(address, prefix), prefix };
        if range.first != address {
            return Err(CidrError::HostBits { expected: range, got: text.to_owned() });
        }
        Ok(range)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_and_written() {
        for text in ["10.1.0.0/16", "0.0.0.0/0", "1.2.3.4/32", "fd00::/8", "::/0", "::1/128"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        assert_eq!("1.2.3.4".parse::<Cidr>().unwrap(), Cidr::v4([1, 2, 3, 4], 32));
        assert_eq!("::1".parse::<Cidr>().unwrap().to_string(), "::1/128");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0/8",
            "::/129",
            "a/8",
            "10.0.0.0/8/8",
        ] {
            assert!(matches!(text.parse::<Cidr>(), Err(CidrError::Form(_))), "{text}");
        }
        let error = "10.1.2.3/16".parse::<Cidr>().unwrap_err();
        assert_eq!(error.to_string(), "expected the first address of the range, 10.1.0.0/16, got \"10.1.2.3/16\"");
    }

    #[test]
    fn families_are_kept_apart() {
        let all_v4: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(!all_v4.contains("::ffff:1.2.3.4".parse().unwrap()));
        let all_v6: Cidr = "::/0".parse().unwrap();
        assert!(all_v6.contains("::ffff:1.2.3.4".parse().unwrap()) && !all_v6.contains("1.2.3.4".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn a_range_holds_exactly_its_addresses(bits: u32, prefix in 0u8..=32, other: u32) {
            let range = Cidr { first: masked(IpAddr::V4(bits.into()), prefix), prefix };
            prop_assert!(range.contains(IpAddr::V4(bits.into())));
            let same = u64::from(bits ^ other) < (1u64 << (32 - prefix));
            prop_assert_eq!(range.contains(IpAddr::V4(other.into())), same);
            prop_assert_eq!(range.to_string().parse::<Cidr>(), Ok(range));
        }
    }
}
