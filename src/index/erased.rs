//! Family `z`: events whose content was erased. `z` event(16) → nothing.

use super::key::{Reader, Writer};
use crate::core::id::EventId;

/// The family's byte.
pub const FAMILY: u8 = b'z';

/// The key of an erased event.
pub fn key(event: EventId) -> Vec<u8> {
    Writer::key(FAMILY, 17).u128(event.as_u128()).done()
}

/// Reads what [`key`] wrote.
pub fn parse_key(bytes: &[u8]) -> Option<EventId> {
    let mut parts = Reader::key(FAMILY, bytes)?;
    let event = EventId::from_u128(parts.u128()?);
    parts.end(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_and_order(a: u128, b: u128) {
            let (x, y) = (EventId::from_u128(a), EventId::from_u128(b));
            prop_assert_eq!(parse_key(&key(x)), Some(x));
            prop_assert_eq!(key(x).cmp(&key(y)), a.cmp(&b));
        }
    }
}
