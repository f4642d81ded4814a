//! Typed ids: a prefix that names the kind and 128 bits.
//!
//! Events and attempts get *time-ordered* ids (48 bits of unix milliseconds, 80 bits of randomness, as in the
//! [ULID specification](https://github.com/ulid/spec)), written in 26 characters of lower-case Crockford base32, so that
//! the order of the texts, of the numbers and of creation is the same. Applications, sources and endpoints that come from
//! a file get ids *derived* from their names, so that a restart creates nothing new.
//!
//! Invariant: an id is written one way only; parsing accepts exactly what `Display` writes.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use sha2::{Digest, Sha256};

/// Crockford's base32 alphabet in lower case: no `i`, `l`, `o`, `u`.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters of the written number, after the prefix.
const DIGITS: usize = 26;

/// Bits below the milliseconds of a time-ordered id.
const RANDOM_BITS: u32 = 80;

/// A text that is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an id of the form {prefix}_ and 26 characters of 0-9 a-z without i, l, o, u; got {got:?}")]
pub struct IdError {
    prefix: &'static str,
    got: String,
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(u128);

        impl $name {
            /// The text before the underscore.
            pub const PREFIX: &'static str = $prefix;
            /// The lowest id, below every real one.
            pub const MIN: Self = Self(0);
            /// The highest id, above every real one.
            pub const MAX: Self = Self(u128::MAX);

            /// The id with this number.
            pub const fn from_u128(number: u128) -> Self {
                Self(number)
            }

            /// The number, whose big-endian bytes sort as the id does.
            pub const fn as_u128(self) -> u128 {
                self.0
            }

            /// A time-ordered id of unix time `ms` and 80 bits of `random`.
            pub fn at(ms: u64, random: u128) -> Self {
                Self((u128::from(ms) << RANDOM_BITS) | (random & ((1 << RANDOM_BITS) - 1)))
            }

            /// The id that a name stands for; `scope` keeps equal names of two scopes apart.
            pub fn named(scope: &str, name: &str) -> Self {
                Self(digest_128($prefix, scope, name))
            }

            /// The unix milliseconds of a time-ordered id.
            pub const fn ms(self) -> u64 {
                (self.0 >> RANDOM_BITS) as u64
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_id(f, $prefix, self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_id($prefix, text)
                    .map(Self)
                    .ok_or_else(|| IdError { prefix: $prefix, got: text.chars().take(64).collect() })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
    };
}

typed_id!(
    /// An event; the order of event ids is the order in which they were committed.
    EventId,
    "msg"
);
typed_id!(
    /// An endpoint: a URL that takes deliveries.
    EndpointId,
    "ep"
);
typed_id!(
    /// A source: an inbound URL with its verification scheme.
    SourceId,
    "src"
);
typed_id!(
    /// An application: the endpoints of one customer.
    AppId,
    "app"
);
typed_id!(
    /// One try of one delivery.
    AttemptId,
    "atmpt"
);

impl EventId {
    /// The id that comes right after this one; ids stay in commit order when the clock stands still or steps back.
    pub const fn successor(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

fn digest_128(prefix: &str, scope: &str, name: &str) -> u128 {
    let mut hash = Sha256::new();
    for part in [prefix, scope, name] {
        // The length in front keeps ("ab", "c") and ("a", "bc") apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(bytes)
}

fn write_id(f: &mut fmt::Formatter<'_>, prefix: &str, number: u128) -> fmt::Result {
    let mut text = [0u8; DIGITS];
    for (i, digit) in text.iter_mut().enumerate() {
        let shift = 5 * (DIGITS - 1 - i) as u32;
        *digit = ALPHABET[((number >> shift) & 31) as usize];
    }
    let text = std::str::from_utf8(&text).expect("the alphabet is ASCII");
    // Each by itself, as taking a format apart costs more than writing.
    [prefix, "_", text].into_iter().try_for_each(|part| f.write_str(part))
}

fn parse_id(prefix: &str, text: &str) -> Option<u128> {
    let digits = text.strip_prefix(prefix)?.strip_prefix('_')?.as_bytes();
    if digits.len() != DIGITS {
        return None;
    }
    // 26 digits hold 130 bits: the first digit must fit the upper 3 of the 128.
    let first = ALPHABET.iter().position(|c| *c == digits[0])?;
    if first > 7 {
        return None;
    }
    digits.iter().try_fold(0u128, |number, digit| {
        let value = ALPHABET.iter().position(|c| c == digit)?;
        Some((number << 5) | value as u128)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_give_the_same_id_each_time_and_scopes_differ() {
        let a = EndpointId::named("default", "app");
        assert_eq!(a, EndpointId::named("default", "app"));
        assert_ne!(a, EndpointId::named("other", "app"));
        assert_ne!(EndpointId::named("ab", "c"), EndpointId::named("a", "bc"));
        assert_ne!(a.as_u128(), SourceId::named("default", "app").as_u128());
    }

    #[test]
    fn a_wrong_id_says_what_was_expected() {
        for bad in [
            "",
            "msg_",
            "ep_00000000000000000000000000",
            "msg_8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "msg_0000000000000000000000000I",
        ] {
            let error = bad.parse::<EventId>().unwrap_err().to_string();
            assert!(error.contains("msg_") && error.contains("26 characters"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips_and_sorts_as_the_number(a: u128, b: u128) {
            let (x, y) = (EventId::from_u128(a), EventId::from_u128(b));
            prop_assert_eq!(x.to_string().parse::<EventId>().unwrap(), x);
            prop_assert_eq!(x.cmp(&y), x.to_string().cmp(&y.to_string()));
        }

        #[test]
        fn time_is_kept(ms in 0u64..(1 << 48), random: u128) {
            prop_assert_eq!(EventId::at(ms, random).ms(), ms);
        }
    }
}
