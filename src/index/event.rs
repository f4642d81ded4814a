//! Family `e`: where events are. `e` event(16) → carried(1) segment(8) offset(8), and for an event that was carried `e`
//! event(16) 1(1) → the same.
//!
//! Sparse: one entry a batch, under its first event; an event of the batch is found by the greatest key that is not above
//! it. An event that was carried forward has an entry of its own beside that: while its old segment is still there, the
//! batch that it opened must be found as well.

use super::key::{Reader, Writer};
use crate::core::id::EventId;

/// The family's byte.
pub const FAMILY: u8 = b'e';

/// Last byte of a carried event's key.
const CARRIED: u8 = 1;

/// The place of a frame in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// Number of the segment.
    pub segment: u64,
    /// Byte offset of the frame in it.
    pub offset: u64,
}

/// An entry of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The event was carried here alone; otherwise the entry stands for the whole batch.
    pub carried: bool,
    /// Where.
    pub at: At,
}

/// The key of the batch that begins with an event.
pub fn key(event: EventId) -> Vec<u8> {
    Writer::key(FAMILY, 17).u128(event.as_u128()).done()
}

/// The key of an event that was carried; no other comes between it and [`key`] of the same event.
pub fn carried_key(event: EventId) -> Vec<u8> {
    Writer::key(FAMILY, 18).u128(event.as_u128()).u8(CARRIED).done()
}

/// Reads what [`key`] or [`carried_key`] wrote.
pub fn parse_key(bytes: &[u8]) -> Option<EventId> {
    let mut parts = Reader::key(FAMILY, bytes)?;
    let event = EventId::from_u128(parts.u128()?);
    match parts.u8() {
        None | Some(CARRIED) => parts.end(event),
        Some(_) => None,
    }
}

/// The value under it.
pub fn value(entry: Entry) -> Vec<u8> {
    Writer::value(17).u8(u8::from(entry.carried)).u64(entry.at.segment).u64(entry.at.offset).done()
}

/// Reads what [`value`] wrote.
pub fn parse_value(bytes: &[u8]) -> Option<Entry> {
    let mut parts = Reader::value(bytes);
    let carried = match parts.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let entry = Entry { carried, at: At { segment: parts.u64()?, offset: parts.u64()? } };
    parts.end(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_and_order(a: u128, b: u128, segment: u64, offset: u64) {
            let (x, y) = (EventId::from_u128(a), EventId::from_u128(b));
            prop_assert_eq!(parse_key(&key(x)), Some(x));
            prop_assert_eq!(parse_key(&carried_key(x)), Some(x));
            prop_assert_eq!(key(x).cmp(&key(y)), a.cmp(&b));
            prop_assert_eq!(carried_key(x).cmp(&carried_key(y)), a.cmp(&b));
            prop_assert!(key(x) < carried_key(x) && (a >= b || carried_key(x) < key(y)));
            for carried in [false, true] {
                let entry = Entry { carried, at: At { segment, offset } };
                prop_assert_eq!(parse_value(&value(entry)), Some(entry));
            }
        }
    }
}
