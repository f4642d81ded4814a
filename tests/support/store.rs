//! Calls of any store as tests make them: what must succeed does, or the test ends there.

use std::sync::Arc;

use bytes::Bytes;
use postrider::core::attempt::{Attempt, Outcome, Timings};
use postrider::core::delivery::{DeliveryId, DeliveryState, Next, Pending};
use postrider::core::event::{Event, NewEvent};
use postrider::core::headers::Headers;
use postrider::core::id::{AttemptId, EndpointId};
use postrider::store::{Accepted, Cursor, DeadLetter, DeadQuery, Due, EventQuery, Settle, Store};

/// More than any test has of anything.
const ALL: usize = 1_000_000;

/// The endpoint of this number.
pub fn endpoint(n: usize) -> EndpointId {
    EndpointId::named("default", &format!("endpoint-{n}"))
}

/// Accepts what must be new.
pub async fn accept(store: &impl Store, event: NewEvent) -> Arc<Event> {
    match store.accept(event).await.expect("the store works") {
        Accepted::New { event } => event,
        Accepted::Duplicate { id, scope, .. } => panic!("expected a new event, got a duplicate of {id} by {scope:?}"),
    }
}

/// The end of an attempt that began and ended now, with the bytes that the endpoint answered.
pub fn ended(delivery: DeliveryId, was: Pending, next: Next, now_ms: u64, response: &[u8]) -> Settle {
    let number = was.attempts + 1;
    let status = if next == Next::Delivered { 200 } else { 500 };
    let attempt = Attempt {
        id: AttemptId::at(now_ms, delivery.event.as_u128() ^ delivery.endpoint.as_u128() ^ u128::from(number)),
        number,
        started_ms: now_ms,
        ended_ms: now_ms,
        timings: Timings { total_us: 1_500, ..Timings::default() },
        outcome: Outcome::Answered { status, retry_after_ms: None },
        remote: Some("192.0.2.1:443".to_owned()),
        response_headers: Headers::new(),
        response_truncated: false,
    };
    Settle { delivery, was, attempt, response: Bytes::copy_from_slice(response), next }
}

/// Where a delivery stands.
pub async fn state(store: &impl Store, id: DeliveryId) -> DeliveryState {
    let all = store.deliveries(id.event).await.expect("the store works").expect("the event is known");
    all.into_iter().find(|delivery| delivery.id == id).expect("the event went there").state
}

/// The state of a delivery that must be pending.
pub async fn pending_state(store: &impl Store, id: DeliveryId) -> Pending {
    match state(store, id).await {
        DeliveryState::Pending(pending) => pending,
        other => panic!("expected a pending delivery, got {other:?}"),
    }
}

/// Every pending delivery of endpoint `n`.
pub async fn backlog(store: &impl Store, n: usize) -> Vec<Due> {
    store.pending(endpoint(n), None, ALL).await.expect("the store works")
}

/// Every dead letter, newest first.
pub async fn graveyard(store: &impl Store) -> Vec<DeadLetter> {
    store.dead(DeadQuery { limit: ALL, ..DeadQuery::default() }).await.expect("the store works").data
}

/// Every event, newest first.
pub async fn all_events(store: &impl Store) -> Vec<Arc<Event>> {
    let mut all = Vec::new();
    let mut query = EventQuery { limit: 100, ..EventQuery::default() };
    loop {
        let page = store.events(query.clone()).await.expect("the store works");
        all.extend(page.data);
        match page.next {
            Some(last) => query.cursor = Cursor::OlderThan(last),
            None => return all,
        }
    }
}
