//! Family `c`: what is known of endpoints. `c` endpoint(16) → bincode of [`EndpointNote`].

use super::key::{Reader, Writer};
use crate::core::fact::EndpointNote;
use crate::core::id::EndpointId;

/// The family's byte.
pub const FAMILY: u8 = b'c';

/// The key of an endpoint.
pub fn key(endpoint: EndpointId) -> Vec<u8> {
    Writer::key(FAMILY, 17).u128(endpoint.as_u128()).done()
}

/// Reads what [`key`] wrote.
pub fn parse_key(bytes: &[u8]) -> Option<EndpointId> {
    let mut parts = Reader::key(FAMILY, bytes)?;
    let endpoint = EndpointId::from_u128(parts.u128()?);
    parts.end(endpoint)
}

/// The value under it.
pub fn value(note: &EndpointNote) -> Vec<u8> {
    bincode::encode_to_vec(note, bincode::config::standard()).expect("every field of a note has an encoding")
}

/// Reads what [`value`] wrote.
pub fn parse_value(bytes: &[u8]) -> Option<EndpointNote> {
    let config = bincode::config::standard().with_limit::<{ 1 << 16 }>();
    let (note, read) = bincode::decode_from_slice(bytes, config).ok()?;
    (read == bytes.len()).then_some(note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fact::Standing;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(id: u128, app in "[a-z]{1,20}", name in "[a-z]{1,20}", version: u64, since_ms: u64) {
            let id = EndpointId::from_u128(id);
            prop_assert_eq!(parse_key(&key(id)), Some(id));
            for standing in [Standing::Enabled, Standing::Gone { since_ms }, Standing::Removed { since_ms }] {
                let note = EndpointNote { id, app: app.clone(), name: name.clone(), version, standing };
                prop_assert_eq!(parse_value(&value(&note)), Some(note));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), parse_value(&bytes));
        }
    }
}
