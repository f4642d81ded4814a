//! What every rule needs: a form of the store, a clock that a test moves, events to accept, attempts to settle, an ear for
//! hints, and a picture of everything that can be observed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider::core::delivery::{DeadReason, DeliveryId, Next, Pending};
use postrider::core::event::{DedupKey, DedupScope, Event, NewEvent, body_fingerprint};
use postrider::core::fact::EndpointNote;
use postrider::core::id::{AppId, EndpointId, EventId};
use postrider::core::limits::StoreLimits;
pub use postrider::env::ManualClock;
use postrider::store::{Accepted, Applied, AttemptRecord, DeadLetter, Delivery, Due, Hints, Settle, Store};

pub use crate::store::{accept, all_events, backlog, ended, endpoint, graveyard, pending_state, state};

/// Where every test starts, unix milliseconds.
pub const START_MS: u64 = 1_700_000_000_000;

/// How long a test waits for something that must come; reached only when it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A form of the store under test.
pub trait Form: Sized + Send + 'static {
    /// The store.
    type S: Store;

    /// Random cases of the comparison with the model.
    const CASES: u32 = 64;

    /// An empty store that goes by this clock.
    fn open(clock: Arc<ManualClock>, limits: StoreLimits) -> impl Future<Output = Self> + Send;

    /// The store. Whoever holds it lets go before [`reopen`](Self::reopen).
    fn store(&self) -> Arc<Self::S>;

    /// Closes the store and opens it again on the same data and clock; false when this form keeps nothing, and then does
    /// nothing.
    fn reopen(self) -> impl Future<Output = (Self, bool)> + Send;
}

/// An empty store with its clock.
pub async fn open<F: Form>() -> (F, Arc<F::S>, Arc<ManualClock>) {
    open_with(limits()).await
}

/// An empty store with these limits.
pub async fn open_with<F: Form>(limits: StoreLimits) -> (F, Arc<F::S>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(START_MS));
    let form = F::open(Arc::clone(&clock), limits).await;
    let store = form.store();
    (form, store, clock)
}

/// The default limits, but small files: some tests open many stores.
pub fn limits() -> StoreLimits {
    StoreLimits { segment_bytes: 1 << 20, batch_bytes_max: 256 << 10, free_bytes_min: 0, ..StoreLimits::default() }
}

/// A published event for these endpoints, with neither keys nor anything that tells it from the next.
pub fn event_for(endpoints: &[usize]) -> NewEvent {
    NewEvent {
        app: AppId::named("", "default"),
        source: None,
        event_type: Some("order.created".to_owned()),
        external_id: None,
        headers: [("content-type", "application/json")].into_iter().collect(),
        body: Bytes::from_static(b"{}"),
        dedup: Vec::new(),
        fingerprint: body_fingerprint(b"{}"),
        endpoints: endpoints.iter().map(|n| endpoint(*n)).collect(),
    }
}

/// An event under these keys.
pub fn keyed(keys: &[DedupKey]) -> NewEvent {
    NewEvent { dedup: keys.to_vec(), ..event_for(&[0]) }
}

/// The key of this text in a scope.
pub fn key(scope: DedupScope, text: &str) -> DedupKey {
    DedupKey::new(scope, 7, text)
}

/// Accepts what must be a duplicate; its id, the scope of the key and whether the body was the same.
pub async fn duplicate(store: &impl Store, event: NewEvent) -> (EventId, DedupScope, bool) {
    match store.accept(event).await.expect("the store works") {
        Accepted::New { event } => panic!("expected a duplicate, got the new event {}", event.meta.id),
        Accepted::Duplicate { id, scope, same_body } => (id, scope, same_body),
    }
}

/// Accepts an event for endpoint 0; the delivery and the state it starts in.
pub async fn delivery(store: &impl Store) -> (DeliveryId, Pending) {
    let event = accept(store, event_for(&[0])).await;
    (DeliveryId { endpoint: endpoint(0), event: event.meta.id }, Pending::fresh(event.meta.accepted_ms))
}

/// The end of an attempt that began and ended now.
pub fn ending(delivery: DeliveryId, was: Pending, next: Next, now_ms: u64) -> Settle {
    ended(delivery, was, next, now_ms, format!("answer {}", was.attempts + 1).as_bytes())
}

/// Settles what must take effect.
pub async fn settle(store: &impl Store, delivery: DeliveryId, was: Pending, next: Next) {
    let settle = ending(delivery, was, next, store.now_ms());
    assert_eq!(store.settle(settle).await.expect("the store works"), Applied::Ok);
}

/// Settles a delivery as a dead letter.
pub async fn kill(store: &impl Store, delivery: DeliveryId, was: Pending) {
    settle(store, delivery, was, Next::Dead { reason: DeadReason::Rejected }).await;
}

/// Listens to what the store tells the engine.
pub struct Ear {
    hints: Arc<Hints>,
    /// What was heard of deliveries.
    pub due: Vec<(EndpointId, Due)>,
    /// What was heard of standings.
    pub standings: Vec<EndpointId>,
}

impl Ear {
    /// An ear that hears what was not taken yet.
    pub fn at(store: &impl Store) -> Self {
        Self { hints: store.hints(), due: Vec::new(), standings: Vec::new() }
    }

    /// Takes what is there.
    pub fn listen(&mut self) {
        for (endpoint, lane) in self.hints.take() {
            self.due.extend(lane.due.into_iter().map(|due| (endpoint, due)));
            if lane.standing_changed {
                self.standings.push(endpoint);
            }
        }
    }

    /// Listens until this was told: a form may answer the call before it tells the engine.
    pub async fn until(&mut self, what: &str, heard: impl Fn(&Self) -> bool) {
        self.listen();
        while !heard(self) {
            let news = tokio::time::timeout(PATIENCE, self.hints.wait()).await;
            assert!(news.is_ok(), "never told of {what}; heard {:?} {:?}", self.due, self.standings);
            self.listen();
        }
    }

    /// Listens until it was told that this delivery is pending in this state.
    pub async fn until_due(&mut self, id: DeliveryId, pending: Pending) {
        let news = (id.endpoint, Due { event: id.event, pending });
        self.until(&format!("{news:?}"), |ear| ear.due.contains(&news)).await;
    }
}

/// Everything that can be observed of the store, in an order of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    events: Vec<(Event, Vec<Delivery>, Vec<AttemptRecord>)>,
    pending: Vec<(EndpointId, Vec<Due>)>,
    dead: Vec<DeadLetter>,
    notes: Vec<EndpointNote>,
    figures: (u64, Option<u64>, u64),
}

impl Picture {
    /// What the store shows of the endpoints 0 to `endpoints` and of every event.
    pub async fn of(store: &impl Store, endpoints: usize) -> Self {
        let mut events = Vec::new();
        for listed in all_events(store).await {
            let id = listed.meta.id;
            let event = store.event(id).await.expect("the store works").expect("what is listed is there");
            assert_eq!(*event, *listed, "the listing and the look-up show the same");
            let mut deliveries = store.deliveries(id).await.expect("the store works").expect("known");
            deliveries.sort_by_key(|delivery| delivery.id);
            let attempts = store.attempts(id).await.expect("the store works").expect("known");
            events.push((Event::clone(&event), deliveries, attempts));
        }
        let mut pending = Vec::new();
        for n in 0..endpoints {
            pending.push((endpoint(n), backlog(store, n).await));
        }
        let dead = graveyard(store).await;
        let mut notes = store.endpoint_notes();
        notes.sort_by_key(|note| note.id);
        let stats = store.stats();
        Self { events, pending, dead, notes, figures: (stats.pending, stats.oldest_pending_ms, stats.dead) }
    }

    /// The same but for the notes on endpoints.
    pub fn set_notes(&mut self, notes: Vec<EndpointNote>) {
        self.notes = notes;
    }

    /// The same with every event's id replaced, to compare two stores that gave the same events other ids.
    pub fn renamed(mut self, name: impl Fn(EventId) -> EventId) -> Self {
        for (event, deliveries, _) in &mut self.events {
            Arc::make_mut(&mut event.meta).id = name(event.meta.id);
            deliveries.iter_mut().for_each(|delivery| delivery.id.event = name(delivery.id.event));
        }
        self.pending.iter_mut().flat_map(|(_, due)| due).for_each(|due| due.event = name(due.event));
        self.dead.iter_mut().for_each(|letter| letter.delivery.event = name(letter.delivery.event));
        self
    }
}
