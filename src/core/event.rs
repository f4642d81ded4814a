//! An event: what a source received or an application published. It never changes, but its content can be erased.

use std::sync::Arc;

use bincode::{Decode, Encode};
use bytes::Bytes;

use super::headers::Headers;
use super::id::{AppId, EndpointId, EventId, SourceId};

/// Everything about an event but its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct EventMeta {
    /// Assigned when the event is committed; the same on every delivery.
    pub id: EventId,
    /// The application it belongs to.
    pub app: AppId,
    /// The source that received it; `None` when it was published.
    pub source: Option<SourceId>,
    /// `order.created`, `invoice.paid`, …; `None` where a provider names none.
    pub event_type: Option<String>,
    /// The provider's id of a received event, the publisher's `eventId` of a published one.
    pub external_id: Option<String>,
    /// Unix milliseconds (engine time) of the commit.
    pub accepted_ms: u64,
    /// Headers of the received request that pass through; for a published event its content type.
    pub headers: Headers,
    /// The endpoints it went to when it was accepted.
    pub endpoints: Vec<EndpointId>,
}

/// An event with its bytes, which are handed on exactly as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Everything but the bytes; shared with the fact that tells of it.
    pub meta: Arc<EventMeta>,
    /// The body; empty once [`erased`](Self::erased).
    pub body: Bytes,
    /// The content was erased on request.
    pub erased: bool,
}

/// A key under which an event is stored once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct DedupKey {
    /// What kind of key it is; equal texts of two scopes are two keys.
    pub scope: DedupScope,
    /// First 128 bits of SHA-256 over owner and text.
    pub hash: u128,
}

/// Who chose a dedup key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum DedupScope {
    /// The provider's event id, per source: a repetition is answered as a duplicate whatever its body.
    Inbound,
    /// The publisher's `idempotency-key`, per application: same body, same answer; other body, conflict.
    Idempotency,
    /// The publisher's `eventId`, per application: a repetition is a conflict.
    EventId,
}

impl DedupScope {
    /// The byte that stands for it in keys on disk.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Inbound => 0,
            Self::Idempotency => 1,
            Self::EventId => 2,
        }
    }
}

impl DedupKey {
    /// The key of `text` as `owner` (a source's or application's number) uses it.
    pub fn new(scope: DedupScope, owner: u128, text: &str) -> Self {
        use sha2::{Digest, Sha256};
        let digest = Sha256::new().chain_update(owner.to_be_bytes()).chain_update(text.as_bytes()).finalize();
        Self { scope, hash: first_128(&digest) }
    }
}

/// The fingerprint of a body by which a repetition is recognised as the same or another one.
pub fn body_fingerprint(body: &[u8]) -> u64 {
    use sha2::{Digest, Sha256};
    (first_128(&Sha256::digest(body)) >> 64) as u64
}

fn first_128(digest: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(bytes)
}

/// An event as it comes in, before it has an id.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// See [`EventMeta::app`].
    pub app: AppId,
    /// See [`EventMeta::source`].
    pub source: Option<SourceId>,
    /// See [`EventMeta::event_type`].
    pub event_type: Option<String>,
    /// See [`EventMeta::external_id`].
    pub external_id: Option<String>,
    /// See [`EventMeta::headers`].
    pub headers: Headers,
    /// The bytes, kept exactly.
    pub body: Bytes,
    /// Zero to two keys, claimed together with the event or not at all.
    pub dedup: Vec<DedupKey>,
    /// [`body_fingerprint`] of the bytes as they came in, kept with the keys to tell a repetition from a conflict. For a
    /// received event these are `body`; for a published one the whole request, of which `body` is a part. Of no account
    /// where there are no keys.
    pub fingerprint: u64,
    /// The endpoints that matched.
    pub endpoints: Vec<EndpointId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dedup_keys_differ_by_owner_text_and_scope() {
        let key = DedupKey::new(DedupScope::Inbound, 1, "evt_1");
        assert_eq!(key, DedupKey::new(DedupScope::Inbound, 1, "evt_1"));
        assert_ne!(key, DedupKey::new(DedupScope::Inbound, 2, "evt_1"));
        assert_ne!(key, DedupKey::new(DedupScope::Inbound, 1, "evt_2"));
        assert_ne!(key, DedupKey::new(DedupScope::EventId, 1, "evt_1"));
    }
}
