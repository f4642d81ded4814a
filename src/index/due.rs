//! Family `q`: pending deliveries in the order they fall due. `q` shard(1) endpoint(16) due(8) event(16) → attempts(4)
//! failures(4).
//!
//! The shard is 0: it keeps the place for the ownership of shards that several gateways on one store will need.

use super::key::{Reader, Writer};
use crate::core::delivery::Pending;
use crate::core::id::{EndpointId, EventId};

/// The family's byte.
pub const FAMILY: u8 = b'q';

const SHARD: u8 = 0;

/// The key of a pending delivery.
pub fn key(endpoint: EndpointId, due_ms: u64, event: EventId) -> Vec<u8> {
    Writer::key(FAMILY, 42).u8(SHARD).u128(endpoint.as_u128()).u64(due_ms).u128(event.as_u128()).done()
}

/// Reads what [`key`] wrote.
pub fn parse_key(bytes: &[u8]) -> Option<(EndpointId, u64, EventId)> {
    let mut parts = Reader::key(FAMILY, bytes)?;
    parts.u8().filter(|shard| *shard == SHARD)?;
    let key = (EndpointId::from_u128(parts.u128()?), parts.u64()?, EventId::from_u128(parts.u128()?));
    parts.end(key)
}

/// The value under it.
pub fn value(pending: &Pending) -> Vec<u8> {
    Writer::value(8).u32(pending.attempts).u32(pending.failures).done()
}

/// Reads a value; the due time stands in the key.
pub fn parse_value(due_ms: u64, bytes: &[u8]) -> Option<Pending> {
    let mut parts = Reader::value(bytes);
    let pending = Pending { due_ms, attempts: parts.u32()?, failures: parts.u32()? };
    parts.end(pending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_and_order(endpoint: u128, due_ms: u64, other_ms: u64, event: u128, attempts: u32, failures: u32) {
            let (endpoint, event) = (EndpointId::from_u128(endpoint), EventId::from_u128(event));
            prop_assert_eq!(parse_key(&key(endpoint, due_ms, event)), Some((endpoint, due_ms, event)));
            prop_assert_eq!(key(endpoint, due_ms, event).cmp(&key(endpoint, other_ms, event)), due_ms.cmp(&other_ms));
            let pending = Pending { due_ms, attempts, failures };
            prop_assert_eq!(parse_value(due_ms, &value(&pending)), Some(pending));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), parse_value(0, &bytes));
        }
    }
}
