//! Family `d`: deliveries that did not settle at the first try. `d` endpoint(16) event(16) → 0 due(8) attempts(4)
//! failures(4), or 1 reason(1) at(8) attempts(4).
//!
//! A delivery without an entry is delivered, or pending for its first attempt, which family `q` knows.

use super::key::{Reader, Writer};
use crate::core::delivery::{Dead, DeadReason, DeliveryId, Pending};
use crate::core::id::{EndpointId, EventId};

/// The family's byte.
pub const FAMILY: u8 = b'd';

/// A delivery that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Waiting for a retry, or replayed.
    Pending(Pending),
    /// A dead letter.
    Dead(Dead),
}

/// The key of a delivery.
pub fn key(delivery: DeliveryId) -> Vec<u8> {
    Writer::key(FAMILY, 33).u128(delivery.endpoint.as_u128()).u128(delivery.event.as_u128()).done()
}

/// Reads what [`key`] wrote.
pub fn parse_key(bytes: &[u8]) -> Option<DeliveryId> {
    let mut parts = Reader::key(FAMILY, bytes)?;
    let delivery =
        DeliveryId { endpoint: EndpointId::from_u128(parts.u128()?), event: EventId::from_u128(parts.u128()?) };
    parts.end(delivery)
}

/// The value under it.
pub fn value(entry: &Entry) -> Vec<u8> {
    match entry {
        Entry::Pending(p) => Writer::value(17).u8(0).u64(p.due_ms).u32(p.attempts).u32(p.failures).done(),
        Entry::Dead(d) => Writer::value(14).u8(1).u8(reason_byte(d.reason)).u64(d.at_ms).u32(d.attempts).done(),
    }
}

/// Reads what [`value`] wrote.
pub fn parse_value(bytes: &[u8]) -> Option<Entry> {
    let mut parts = Reader::value(bytes);
    let entry = match parts.u8()? {
        0 => Entry::Pending(Pending { due_ms: parts.u64()?, attempts: parts.u32()?, failures: parts.u32()? }),
        1 => Entry::Dead(Dead { reason: reason_of(parts.u8()?)?, at_ms: parts.u64()?, attempts: parts.u32()? }),
        _ => return None,
    };
    parts.end(entry)
}

pub(super) const fn reason_byte(reason: DeadReason) -> u8 {
    match reason {
        DeadReason::MaxRetries => 0,
        DeadReason::Rejected => 1,
        DeadReason::Gone => 2,
        DeadReason::EndpointRemoved => 3,
        DeadReason::ContentErased => 4,
    }
}

pub(super) const fn reason_of(byte: u8) -> Option<DeadReason> {
    Some(match byte {
        0 => DeadReason::MaxRetries,
        1 => DeadReason::Rejected,
        2 => DeadReason::Gone,
        3 => DeadReason::EndpointRemoved,
        4 => DeadReason::ContentErased,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_and_order(endpoint: u128, event: u128, other: u128, at_ms: u64, attempts: u32, failures: u32, reason in 0u8..5) {
            let id = |event| DeliveryId { endpoint: EndpointId::from_u128(endpoint), event: EventId::from_u128(event) };
            prop_assert_eq!(parse_key(&key(id(event))), Some(id(event)));
            prop_assert_eq!(key(id(event)).cmp(&key(id(other))), event.cmp(&other));
            let dead = Entry::Dead(Dead { reason: reason_of(reason).unwrap(), at_ms, attempts });
            let pending = Entry::Pending(Pending { due_ms: at_ms, attempts, failures });
            prop_assert_eq!(parse_value(&value(&dead)), Some(dead));
            prop_assert_eq!(parse_value(&value(&pending)), Some(pending));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), parse_value(&bytes));
        }
    }
}
