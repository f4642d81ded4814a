//! Family `k`: dedup keys. `k` scope(1) hash(16) → event(16) fingerprint(8) expiry(8).
//!
//! Whether a key has expired is judged when it is looked up; expired keys are swept out now and then.

use super::key::{Reader, Writer};
use crate::core::event::{DedupKey, DedupScope};
use crate::core::fact::DedupEntry;
use crate::core::id::EventId;

/// The family's byte.
pub const FAMILY: u8 = b'k';

/// The key of a dedup key.
pub fn key(dedup: &DedupKey) -> Vec<u8> {
    Writer::key(FAMILY, 18).u8(dedup.scope.byte()).u128(dedup.hash).done()
}

/// Reads what [`key`] wrote.
pub fn parse_key(bytes: &[u8]) -> Option<DedupKey> {
    let mut parts = Reader::key(FAMILY, bytes)?;
    let scope = match parts.u8()? {
        0 => DedupScope::Inbound,
        1 => DedupScope::Idempotency,
        2 => DedupScope::EventId,
        _ => return None,
    };
    let hash = parts.u128()?;
    parts.end(DedupKey { scope, hash })
}

/// The value under it.
pub fn value(entry: &DedupEntry) -> Vec<u8> {
    Writer::value(32).u128(entry.event.as_u128()).u64(entry.fingerprint).u64(entry.expires_ms).done()
}

/// Reads what [`value`] wrote.
pub fn parse_value(bytes: &[u8]) -> Option<DedupEntry> {
    let mut parts = Reader::value(bytes);
    let entry =
        DedupEntry { event: EventId::from_u128(parts.u128()?), fingerprint: parts.u64()?, expires_ms: parts.u64()? };
    parts.end(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_and_order(hash: u128, other: u128, event: u128, fingerprint: u64, expires_ms: u64) {
            for scope in [DedupScope::Inbound, DedupScope::Idempotency, DedupScope::EventId] {
                let (a, b) = (DedupKey { scope, hash }, DedupKey { scope, hash: other });
                prop_assert_eq!(parse_key(&key(&a)), Some(a));
                prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
            }
            let entry = DedupEntry { event: EventId::from_u128(event), fingerprint, expires_ms };
            prop_assert_eq!(parse_value(&value(&entry)), Some(entry));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), parse_value(&bytes));
        }
    }
}
