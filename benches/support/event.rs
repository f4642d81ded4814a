//! What the store is given: events that one endpoint takes.

use bytes::Bytes;

use postrider::core::endpoint::{app_id, endpoint_id};
use postrider::core::event::{DedupKey, NewEvent};
use postrider::core::id::EndpointId;

/// The endpoint.
pub fn endpoint() -> EndpointId {
    endpoint_id("default", "app")
}

/// An event.
pub fn event(body: Bytes, dedup: Vec<DedupKey>) -> NewEvent {
    NewEvent {
        app: app_id("default"),
        source: None,
        event_type: Some("invoice.paid".into()),
        external_id: None,
        headers: [("content-type", "application/json")].into_iter().collect(),
        body,
        dedup,
        fingerprint: 7,
        endpoints: vec![endpoint()],
    }
}
