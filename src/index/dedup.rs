//! Family `k`: dedup keys. `k` scope(1) hash(16) → event(16) fingerprint(8) expiry(8). The tree has the number of a run (4)
//! before the scope: see `runs.rs`.
//!
//! Whether a key has expired is judged when it is looked up; expired keys are swept out now and then.

use super::key::{Reader, Writer};
use crate::core::event::{DedupKey, DedupScope};
use crate::core::fact::DedupEntry;
use crate::core::id::EventId;

/// The family's byte.
pub const FAMILY: u8 = b'k';

/// Bytes of a stored key up to the end of its run.
pub(super) const RUN_END: usize = 5;

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

/// A dedup key as the tree holds it in a run.
pub(super) fn stored_key(run: u32, key: &[u8]) -> Vec<u8> {
    Writer::key(FAMILY, 4 + key.len()).u32(run).bytes(&key[1..]).done()
}

/// A stored key as another run has it.
pub(super) fn key_in_run(run: u32, stored: &[u8]) -> Vec<u8> {
    let tail = split_stored(stored).map_or(&[][..], |(_, tail)| tail);
    Writer::key(FAMILY, stored.len()).u32(run).bytes(tail).done()
}

/// The run of a key that [`stored_key`] made, and what follows the family in the key itself.
pub(super) fn split_stored(stored: &[u8]) -> Option<(u32, &[u8])> {
    let mut parts = Reader::key(FAMILY, stored)?;
    let run = parts.u32()?;
    Some((run, parts.rest()))
}

/// The dedup key that the tree holds under this key.
pub fn parse_stored(stored: &[u8]) -> Option<DedupKey> {
    let (_, tail) = split_stored(stored)?;
    parse_key(&[&[FAMILY], tail].concat())
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
        fn round_trip_and_order(run in 0..u32::MAX, hash: u128, other: u128, event: u128, fingerprint: u64, expires_ms: u64) {
            for scope in [DedupScope::Inbound, DedupScope::Idempotency, DedupScope::EventId] {
                let (a, b) = (DedupKey { scope, hash }, DedupKey { scope, hash: other });
                prop_assert_eq!(parse_key(&key(&a)), Some(a));
                prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
                prop_assert_eq!(parse_stored(&stored_key(run, &key(&a))), Some(a));
                prop_assert_eq!(key_in_run(run, &stored_key(7, &key(&a))), stored_key(run, &key(&a)));
                prop_assert!(stored_key(run, &key(&a)) < stored_key(run + 1, &key(&b)));
            }
            let entry = DedupEntry { event: EventId::from_u128(event), fingerprint, expires_ms };
            prop_assert_eq!(parse_value(&value(&entry)), Some(entry));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), parse_stored(&bytes), parse_value(&bytes));
        }
    }
}
