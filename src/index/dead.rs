//! Family `x`: dead letters in the order of dying. `x` at(8) endpoint(16) event(16) → reason(1) attempts(4).

use super::delivery::{reason_byte, reason_of};
use super::key::{Reader, Writer};
use crate::core::delivery::{Dead, DeliveryId};
use crate::core::id::{EndpointId, EventId};

/// The family's byte.
pub const FAMILY: u8 = b'x';

/// The key of a dead letter.
pub fn key(at_ms: u64, delivery: DeliveryId) -> Vec<u8> {
    Writer::key(FAMILY, 41).u64(at_ms).u128(delivery.endpoint.as_u128()).u128(delivery.event.as_u128()).done()
}

/// Reads what [`key`] wrote.
pub fn parse_key(bytes: &[u8]) -> Option<(u64, DeliveryId)> {
    let mut parts = Reader::key(FAMILY, bytes)?;
    let at_ms = parts.u64()?;
    let delivery =
        DeliveryId { endpoint: EndpointId::from_u128(parts.u128()?), event: EventId::from_u128(parts.u128()?) };
    parts.end((at_ms, delivery))
}

/// The value under it.
pub fn value(dead: &Dead) -> Vec<u8> {
    Writer::value(5).u8(reason_byte(dead.reason)).u32(dead.attempts).done()
}

/// Reads a value; the time stands in the key.
pub fn parse_value(at_ms: u64, bytes: &[u8]) -> Option<Dead> {
    let mut parts = Reader::value(bytes);
    let dead = Dead { reason: reason_of(parts.u8()?)?, at_ms, attempts: parts.u32()? };
    parts.end(dead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_and_order(at_ms: u64, other_ms: u64, endpoint: u128, event: u128, attempts: u32, reason in 0u8..5) {
            let id = DeliveryId { endpoint: EndpointId::from_u128(endpoint), event: EventId::from_u128(event) };
            prop_assert_eq!(parse_key(&key(at_ms, id)), Some((at_ms, id)));
            prop_assert_eq!(key(at_ms, id).cmp(&key(other_ms, id)), at_ms.cmp(&other_ms));
            let dead = Dead { reason: reason_of(reason).unwrap(), at_ms, attempts };
            prop_assert_eq!(parse_value(at_ms, &value(&dead)), Some(dead));
        }
    }
}
