//! The store in memory: the reference model that every other form is held against, and what tests above the store run on.
//!
//! It keeps no promise about durability and forgets nothing (no retention), but every answer is the one that the trait
//! asks for.
//!
//! **Invariants**
//! - Each call is one step under one lock; the lock is never held across an await.
//! - Hints are told while the lock is held: they come in commit order, and whoever follows one finds the change.

mod listing;
mod state;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use self::listing::page;
use self::state::State;
use super::types::{
    Accepted, Applied, AttemptRecord, Backup, DeadKey, DeadLetter, DeadQuery, Delivery, Due, DueKey, EventQuery, Page,
    Redriven, Refusal, Settle, Stats, StoreError,
};
use super::{Hints, Store};
use crate::core::delivery::DeliveryId;
use crate::core::event::{Event, NewEvent};
use crate::core::fact::{EndpointNote, Standing};
use crate::core::id::{EndpointId, EventId};
use crate::core::limits::StoreLimits;

/// A [`Store`] that lives and dies with the process.
pub struct MemoryStore {
    now: Box<dyn Fn() -> u64 + Send + Sync>,
    limits: StoreLimits,
    state: Mutex<State>,
    hints: Arc<Hints>,
    refusal: Mutex<Option<Refusal>>,
    failure: Mutex<Option<StoreError>>,
    stalled: watch::Sender<bool>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store. `now` gives unix milliseconds; it is called under the store's lock and must not call the store. Of
    /// the limits it heeds `batch_bytes_max`, `dedup_ms` and `pending_max`.
    pub fn new(now: impl Fn() -> u64 + Send + Sync + 'static, limits: StoreLimits) -> Self {
        Self {
            now: Box::new(now),
            limits,
            state: Mutex::default(),
            hints: Arc::default(),
            refusal: Mutex::default(),
            failure: Mutex::default(),
            stalled: watch::Sender::new(false),
        }
    }

    /// For tests of what stands above: intake is closed for this reason, until it is called with `None`.
    pub fn refuse_with(&self, refusal: Option<Refusal>) {
        *lock(&self.refusal) = refusal;
    }

    /// For tests of what stands above: every call that can fail does so with this error, until it is called with `None`.
    pub fn fail_with(&self, failure: Option<StoreError>) {
        *lock(&self.failure) = failure;
    }

    /// For tests of what stands above: accepts wait, and have stored nothing yet, until it is called with `false`.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, StoreError> {
        self.working()?;
        Ok(look(&lock(&self.state)))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, u64) -> T) -> Result<T, StoreError> {
        self.working()?;
        let mut state = lock(&self.state);
        let answer = change(&mut state, (self.now)());
        self.hints.push(state.news.due.drain(..));
        for endpoint in state.news.standings.drain(..) {
            self.hints.standing_changed(endpoint);
        }
        Ok(answer)
    }

    fn working(&self) -> Result<(), StoreError> {
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    fn not_refusing(&self) -> Result<(), Refusal> {
        lock(&self.refusal).map_or(Ok(()), Err)
    }
}

impl Store for MemoryStore {
    async fn accept(&self, event: NewEvent) -> Result<Accepted, StoreError> {
        // The sender lives as long as `self`, so that the wait cannot end for want of one.
        let _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
        self.not_refusing()?;
        self.change(|state, now_ms| state.accept(event, &self.limits, now_ms))?
    }

    async fn settle(&self, settle: Settle) -> Result<Applied, StoreError> {
        self.change(|state, _| state.settle(settle))
    }

    async fn pending(&self, endpoint: EndpointId, after: Option<DueKey>, limit: usize) -> Result<Vec<Due>, StoreError> {
        use std::ops::Bound::{Excluded, Included};
        let first = DueKey { due_ms: 0, event: EventId::MIN };
        let last = DueKey { due_ms: u64::MAX, event: EventId::MAX };
        let from = after.map_or(Included((endpoint, first)), |key| Excluded((endpoint, key)));
        self.read(|state| {
            let range = state.due.range((from, Included((endpoint, last))));
            range.take(limit).map(|((_, key), pending)| Due { event: key.event, pending: *pending }).collect()
        })
    }

    async fn event(&self, id: EventId) -> Result<Option<Arc<Event>>, StoreError> {
        self.read(|state| state.events.get(&id).cloned())
    }

    async fn events(&self, query: EventQuery) -> Result<Page<Arc<Event>, EventId>, StoreError> {
        self.read(|state| {
            page(&state.events, query.cursor, query.limit, |_, event| {
                asked_for(&query, event).then(|| Arc::clone(event))
            })
        })
    }

    async fn deliveries(&self, id: EventId) -> Result<Option<Vec<Delivery>>, StoreError> {
        self.read(|state| {
            let event = state.events.get(&id)?;
            let delivery = |endpoint: &EndpointId| {
                let id = DeliveryId { endpoint: *endpoint, event: id };
                state.deliveries.get(&id).map(|slot| Delivery { id, state: slot.state })
            };
            Some(event.meta.endpoints.iter().filter_map(delivery).collect())
        })
    }

    async fn attempts(&self, id: EventId) -> Result<Option<Vec<AttemptRecord>>, StoreError> {
        self.read(|state| state.events.get(&id).map(|_| state.attempts.get(&id).cloned().unwrap_or_default()))
    }

    async fn dead(&self, query: DeadQuery) -> Result<Page<DeadLetter, DeadKey>, StoreError> {
        self.read(|state| {
            page(&state.dead, query.cursor, query.limit, |key, dead| {
                let wanted = query.endpoint.is_none_or(|endpoint| endpoint == key.delivery.endpoint)
                    && within(key.at_ms, query.since_ms, query.until_ms);
                wanted.then_some(DeadLetter { delivery: key.delivery, dead: *dead })
            })
        })
    }

    async fn redrive(&self, delivery: DeliveryId) -> Result<Redriven, StoreError> {
        self.change(|state, now_ms| state.redrive(delivery, now_ms))
    }

    async fn erase(&self, id: EventId) -> Result<bool, StoreError> {
        self.change(|state, now_ms| state.erase(id, now_ms))
    }

    async fn set_standing(
        &self,
        endpoint: EndpointId,
        app: &str,
        name: &str,
        standing: Standing,
    ) -> Result<(), StoreError> {
        self.change(|state, now_ms| state.set_standing(endpoint, app, name, standing, now_ms))
    }

    async fn backup(&self) -> Result<Backup, StoreError> {
        self.working()?;
        Err(StoreError::Unsupported("a store in memory has no backup"))
    }

    fn endpoint_notes(&self) -> Vec<EndpointNote> {
        lock(&self.state).notes.values().cloned().collect()
    }

    fn hints(&self) -> Arc<Hints> {
        Arc::clone(&self.hints)
    }

    fn now_ms(&self) -> u64 {
        (self.now)()
    }

    fn intake(&self) -> Result<(), Refusal> {
        self.not_refusing()?;
        lock(&self.state).open(&self.limits)
    }

    fn stats(&self) -> Stats {
        let state = lock(&self.state);
        Stats {
            pending: state.pending(),
            oldest_pending_ms: state.oldest_pending_ms(),
            dead: state.dead.len() as u64,
            dedup_keys: state.dedup_keys(),
            records: state.records,
            stale_settles: state.stale_settles,
            ..Stats::default()
        }
    }

    fn durability(&self) -> &'static str {
        "none: everything is kept in memory and gone when the process ends"
    }
}

fn asked_for(query: &EventQuery, event: &Event) -> bool {
    let meta = &event.meta;
    query.app.is_none_or(|app| app == meta.app)
        && query.source.is_none_or(|source| Some(source) == meta.source)
        && query.event_type.as_ref().is_none_or(|wanted| Some(wanted) == meta.event_type.as_ref())
        && within(meta.accepted_ms, query.since_ms, query.until_ms)
}

/// From `since_ms` on and before `until_ms`.
fn within(at_ms: u64, since_ms: Option<u64>, until_ms: Option<u64>) -> bool {
    since_ms.is_none_or(|since| since <= at_ms) && until_ms.is_none_or(|until| at_ms < until)
}

/// A panic under the lock leaves maps that are whole: each change is made of map operations that don't panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;

    use super::*;
    use crate::core::headers::Headers;
    use crate::core::id::AppId;

    fn store() -> MemoryStore {
        MemoryStore::new(|| 1_000, StoreLimits::default())
    }

    fn event() -> NewEvent {
        NewEvent {
            app: AppId::MIN,
            source: None,
            event_type: None,
            external_id: None,
            headers: Headers::new(),
            body: Bytes::new(),
            dedup: Vec::new(),
            fingerprint: 0,
            endpoints: vec![EndpointId::MIN],
        }
    }

    #[tokio::test]
    async fn ids_stay_in_commit_order_though_the_clock_steps_back() {
        let times = Mutex::new(vec![0, 3, 9, 5, 5]);
        let now = move || lock(&times).pop().expect("one time for each call");
        let store = MemoryStore::new(now, StoreLimits::default());
        let mut ids = Vec::new();
        for accepted_ms in [5, 5, 9, 3, 0] {
            let Accepted::New { event } = store.accept(event()).await.unwrap() else { panic!("it has no keys") };
            assert_eq!(event.meta.accepted_ms, accepted_ms);
            ids.push(event.meta.id);
        }
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        assert_eq!(ids[4].ms(), 9);
    }

    #[tokio::test]
    async fn it_refuses_on_demand() {
        let store = store();
        store.refuse_with(Some(Refusal::QueueFull));
        assert_eq!(store.intake(), Err(Refusal::QueueFull));
        assert!(matches!(store.accept(event()).await, Err(StoreError::Refused(Refusal::QueueFull))));
        store.refuse_with(None);
        assert!(store.accept(event()).await.is_ok());
        assert_eq!(store.stats().pending, 1);
    }

    #[tokio::test]
    async fn it_fails_on_demand() {
        let store = store();
        store.fail_with(Some(StoreError::Failed("the disk is on fire".into())));
        assert!(matches!(store.accept(event()).await, Err(StoreError::Failed(_))));
        assert!(matches!(store.pending(EndpointId::MIN, None, 1).await, Err(StoreError::Failed(_))));
        store.fail_with(None);
        assert!(store.accept(event()).await.is_ok());
        assert_eq!(store.stats().pending, 1);
    }

    #[test]
    fn a_stalled_accept_waits_and_has_stored_nothing() {
        let store = store();
        store.stall(true);
        let mut accept = pin!(store.accept(event()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(accept.as_mut().poll(&mut context).is_pending());
        assert_eq!(store.stats().pending, 0);
        store.stall(false);
        assert!(matches!(accept.as_mut().poll(&mut context), Poll::Ready(Ok(Accepted::New { .. }))));
        assert_eq!(store.stats().pending, 1);
    }
}
