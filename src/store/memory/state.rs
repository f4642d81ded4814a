//! The reference model itself: what each call of the store means, as plain changes to maps. No locks, no waiting.
//!
//! **Invariants**
//! - `due`, `waiting` and `dead` are views of `deliveries`; only [`State::put`] changes any of them, so they agree.
//! - `news` holds what the engine has not been told yet, in commit order; the caller drains it under the same lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::core::attempt::Attempt;
use crate::core::delivery::{Dead, DeadReason, DeliveryId, DeliveryState, Next, Pending};
use crate::core::event::{DedupKey, Event, EventMeta, NewEvent};
use crate::core::fact::{DedupEntry, EndpointNote, Standing};
use crate::core::id::{EndpointId, EventId};
use crate::core::limits::StoreLimits;
use crate::store::types::{
    Accepted, Applied, AttemptRecord, DeadKey, Due, DueKey, Redriven, Refusal, Settle, StoreError,
};

/// Everything that the store knows.
#[derive(Debug, Default)]
pub(super) struct State {
    last: Option<EventId>,
    accepted: u128,
    pub(super) events: BTreeMap<EventId, Arc<Event>>,
    dedup: BTreeMap<DedupKey, DedupEntry>,
    pub(super) deliveries: BTreeMap<DeliveryId, Slot>,
    /// Pending deliveries in the order of (endpoint, due, event).
    pub(super) due: BTreeMap<(EndpointId, DueKey), Pending>,
    /// How many deliveries of an event are pending; no entry for none.
    waiting: BTreeMap<EventId, usize>,
    pub(super) dead: BTreeMap<DeadKey, Dead>,
    pub(super) attempts: BTreeMap<EventId, Vec<AttemptRecord>>,
    pub(super) notes: BTreeMap<EndpointId, EndpointNote>,
    pub(super) records: u64,
    pub(super) stale_settles: u64,
    pub(super) news: News,
}

/// A delivery. The count stands beside the state because a delivered one that is replayed counts on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) state: DeliveryState,
    attempts: u32,
}

/// What the engine has to be told.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) due: Vec<(EndpointId, Due)>,
    pub(super) standings: Vec<EndpointId>,
}

impl State {
    /// Stores the event, or finds the first of its keys that is taken.
    pub(super) fn accept(&mut self, new: NewEvent, limits: &StoreLimits, now_ms: u64) -> Result<Accepted, StoreError> {
        self.open(limits)?;
        let bytes = new.body.len() + new.headers.total_bytes();
        if bytes > limits.batch_bytes_max {
            return Err(StoreError::TooLarge { bytes, max: limits.batch_bytes_max });
        }
        let fingerprint = new.fingerprint;
        // A key whose window has ended is as good as absent; nothing needs to sweep it away.
        let taken = |key: &DedupKey| self.dedup.get(key).filter(|e| now_ms < e.expires_ms).map(|e| (*e, key.scope));
        if let Some((entry, scope)) = new.dedup.iter().find_map(taken) {
            return Ok(Accepted::Duplicate { id: entry.event, scope, same_body: entry.fingerprint == fingerprint });
        }
        let id = self.next_id(now_ms);
        let expires_ms = now_ms.saturating_add(limits.dedup_ms);
        self.dedup.extend(new.dedup.iter().map(|key| (*key, DedupEntry { event: id, fingerprint, expires_ms })));
        let event = Arc::new(stored(id, new, now_ms));
        self.events.insert(id, Arc::clone(&event));
        self.records += 1;
        for endpoint in &event.meta.endpoints {
            self.put(DeliveryId { endpoint: *endpoint, event: id }, DeliveryState::Pending(Pending::fresh(now_ms)), 0);
        }
        Ok(Accepted::New { event })
    }

    /// Whether another event may come in.
    pub(super) fn open(&self, limits: &StoreLimits) -> Result<(), Refusal> {
        if self.pending() >= limits.pending_max {
            return Err(Refusal::PendingFull { limit: limits.pending_max });
        }
        Ok(())
    }

    /// The number in the lower bits counts up, so that one run gives the same ids as the next.
    fn next_id(&mut self, now_ms: u64) -> EventId {
        self.accepted += 1;
        let by_clock = EventId::at(now_ms, self.accepted);
        let id = self.last.map_or(by_clock, |last| by_clock.max(last.successor()));
        self.last = Some(id);
        id
    }

    /// Ends an attempt if the delivery is still in the state that it was made in.
    pub(super) fn settle(&mut self, settle: Settle) -> Applied {
        let Settle { delivery, was, attempt, response, next } = settle;
        let current = self.deliveries.get(&delivery).map(|slot| slot.state);
        if current != Some(DeliveryState::Pending(was)) {
            self.stale_settles += 1;
            return Applied::Stale;
        }
        let attempts = was.attempts.saturating_add(1);
        let state = match next {
            Next::Delivered => DeliveryState::Delivered,
            Next::Retry { due_ms } => {
                DeliveryState::Pending(Pending { due_ms, attempts, failures: was.failures.saturating_add(1) })
            }
            Next::Dead { reason } => DeliveryState::Dead(Dead { reason, at_ms: attempt.ended_ms, attempts }),
        };
        self.put(delivery, state, attempts);
        if next == (Next::Dead { reason: DeadReason::Gone }) {
            self.gone(delivery.endpoint, attempt.ended_ms);
        }
        self.record(delivery, attempt, next, response);
        Applied::Ok
    }

    fn record(&mut self, delivery: DeliveryId, attempt: Attempt, next: Next, response: Bytes) {
        let record = AttemptRecord { endpoint: delivery.endpoint, attempt, next, response };
        self.attempts.entry(delivery.event).or_default().push(record);
        self.records += 1;
    }

    /// An operator's word (disabled, removed) outranks what the endpoint answers.
    fn gone(&mut self, endpoint: EndpointId, since_ms: u64) {
        if let Some(note) = self.notes.get_mut(&endpoint).filter(|note| note.standing.is_enabled()) {
            note.standing = Standing::Gone { since_ms };
            note.version += 1;
            self.news.standings.push(endpoint);
        }
    }

    /// Makes a delivery due now.
    pub(super) fn redrive(&mut self, delivery: DeliveryId, now_ms: u64) -> Redriven {
        let (Some(event), Some(slot)) = (self.events.get(&delivery.event), self.deliveries.get(&delivery).copied())
        else {
            return Redriven::Unknown;
        };
        if event.erased {
            return Redriven::Erased;
        }
        let note = self.notes.get(&delivery.endpoint);
        if note.is_some_and(|note| matches!(note.standing, Standing::Removed { .. })) {
            return Redriven::EndpointRemoved;
        }
        if matches!(slot.state, DeliveryState::Pending(pending) if pending.due_ms <= now_ms) {
            return Redriven::AlreadyDue;
        }
        let pending = Pending { due_ms: now_ms, attempts: slot.attempts, failures: 0 };
        self.put(delivery, DeliveryState::Pending(pending), slot.attempts);
        self.records += 1;
        Redriven::Due
    }

    /// Empties the event and the responses to it. False when it is unknown.
    pub(super) fn erase(&mut self, id: EventId, now_ms: u64) -> bool {
        let Some(event) = self.events.get_mut(&id) else { return false };
        if event.erased {
            return true;
        }
        let meta = event.meta.clone();
        for endpoint in &meta.endpoints {
            self.bury(DeliveryId { endpoint: *endpoint, event: id }, DeadReason::ContentErased, now_ms);
        }
        self.events.insert(id, Arc::new(Event { meta, body: Bytes::new(), erased: true }));
        for record in self.attempts.get_mut(&id).into_iter().flatten() {
            record.response = Bytes::new();
        }
        self.records += 1;
        true
    }

    /// Sets an endpoint's standing if it is another one. A removed endpoint keeps nothing pending, not even what came since.
    pub(super) fn set_standing(&mut self, id: EndpointId, app: &str, name: &str, standing: Standing, now_ms: u64) {
        let before = self.notes.get(&id);
        if !before.is_some_and(|note| same_kind(&note.standing, &standing)) {
            let version = before.map_or(0, |note| note.version) + 1;
            let note = EndpointNote { id, app: app.to_owned(), name: name.to_owned(), version, standing };
            self.notes.insert(id, note);
            self.records += 1;
            self.news.standings.push(id);
        }
        if matches!(standing, Standing::Removed { .. }) {
            self.bury_all(id, now_ms);
        }
    }

    fn bury_all(&mut self, endpoint: EndpointId, at_ms: u64) {
        let from = DueKey { due_ms: 0, event: EventId::MIN };
        let to = DueKey { due_ms: u64::MAX, event: EventId::MAX };
        let range = self.due.range((endpoint, from)..=(endpoint, to));
        let events: Vec<_> = range.map(|((_, key), _)| key.event).collect();
        for event in events {
            self.bury(DeliveryId { endpoint, event }, DeadReason::EndpointRemoved, at_ms);
        }
    }

    /// A pending delivery becomes a dead letter without an attempt; any other stays what it is.
    fn bury(&mut self, delivery: DeliveryId, reason: DeadReason, at_ms: u64) {
        if let Some(DeliveryState::Pending(pending)) = self.deliveries.get(&delivery).map(|slot| slot.state) {
            let dead = Dead { reason, at_ms, attempts: pending.attempts };
            self.put(delivery, DeliveryState::Dead(dead), pending.attempts);
            self.records += 1;
        }
    }

    /// The one place where a delivery changes, with every view of it.
    fn put(&mut self, id: DeliveryId, state: DeliveryState, attempts: u32) {
        let before = self.deliveries.insert(id, Slot { state, attempts });
        match before.map(|slot| slot.state) {
            Some(DeliveryState::Pending(pending)) => {
                self.due.remove(&(id.endpoint, Due { event: id.event, pending }.key()));
                self.count_waiting(id.event, false);
            }
            Some(DeliveryState::Dead(dead)) => {
                self.dead.remove(&DeadKey { at_ms: dead.at_ms, delivery: id });
            }
            Some(DeliveryState::Delivered) | None => {}
        }
        match state {
            DeliveryState::Pending(pending) => {
                let due = Due { event: id.event, pending };
                self.due.insert((id.endpoint, due.key()), pending);
                self.count_waiting(id.event, true);
                self.news.due.push((id.endpoint, due));
            }
            DeliveryState::Dead(dead) => {
                self.dead.insert(DeadKey { at_ms: dead.at_ms, delivery: id }, dead);
            }
            DeliveryState::Delivered => {}
        }
    }

    fn count_waiting(&mut self, event: EventId, one_more: bool) {
        let count = self.waiting.entry(event).or_default();
        *count = if one_more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.waiting.remove(&event);
        }
    }

    /// Deliveries that are pending.
    pub(super) fn pending(&self) -> u64 {
        self.due.len() as u64
    }

    /// Dedup keys held, those included whose window has ended.
    pub(super) fn dedup_keys(&self) -> u64 {
        self.dedup.len() as u64
    }

    /// When the oldest event that has a pending delivery was accepted, unix milliseconds.
    pub(super) fn oldest_pending_ms(&self) -> Option<u64> {
        let (id, _) = self.waiting.first_key_value()?;
        self.events.get(id).map(|event| event.meta.accepted_ms)
    }
}

fn stored(id: EventId, new: NewEvent, accepted_ms: u64) -> Event {
    let NewEvent { app, source, event_type, external_id, headers, body, dedup: _, endpoints, fingerprint: _ } = new;
    let meta = EventMeta { id, app, source, event_type, external_id, accepted_ms, headers, endpoints };
    Event { meta: meta.into(), body, erased: false }
}

/// Equal but for the time since when.
fn same_kind(a: &Standing, b: &Standing) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}
