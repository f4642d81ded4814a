//! Family `e`: where events are. `e` event(16) → carried(1) segment(8) offset(8).
//!
//! Sparse: one entry a batch, under its first event; an event of the batch is found by the greatest key that is not above
//! it. An event that was carried forward has an entry of its own, which is then exactly its key.

use super::key::{Reader, Writer};
use crate::core::id::EventId;

/// The family's byte.
pub const FAMILY: u8 = b'e';

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

/// The key of an event.
pub fn key(event: EventId) -> Vec<u8> {
    Writer::key(FAMILY, 17).u128(event.as_u128()).done()
}

/// Reads what [`key`] wrote.
pub fn parse_key(bytes: &[u8]) -> Option<EventId> {
    let mut parts = Reader::key(FAMILY, bytes)?;
    let event = EventId::from_u128(parts.u128()?);
    parts.end(event)
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
            prop_assert_eq!(key(x).cmp(&key(y)), a.cmp(&b));
            for carried in [false, true] {
                let entry = Entry { carried, at: At { segment, offset } };
                prop_assert_eq!(parse_value(&value(entry)), Some(entry));
            }
        }
    }
}
