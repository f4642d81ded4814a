//! A random life of a store that repeats from its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postrider::core::delivery::{DeadReason, DeliveryId, DeliveryState, Next};
use postrider::core::event::DedupKey;
use postrider::core::fact::Standing;
use postrider::core::id::EventId;
use postrider::env::{Entropy, ManualClock, SeededEntropy};
use postrider::store::{Accepted, Applied, Redriven, Store, StoreError};

use crate::support::{
    ENDPOINTS, all_events, backlog, body_of, delivery, ended, endpoint, event_with, graveyard, key, state,
};

/// An endpoint that hardly ever answers, so that some deliveries stay pending for long.
const LAZY: usize = ENDPOINTS - 1;

/// What a life is made of, each so many times in a hundred; the rest is nothing.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    pub accept: u64,
    pub settle: u64,
    pub redrive: u64,
    pub erase: u64,
    pub standing: u64,
    /// Bytes of a body at most.
    pub body_bytes: u64,
    /// Milliseconds that pass at most between two steps.
    pub pause_ms: u64,
}

impl Default for Habits {
    fn default() -> Self {
        Self { accept: 45, settle: 45, redrive: 5, erase: 1, standing: 2, body_bytes: 1_500, pause_ms: 200 }
    }
}

/// A life and what must be remembered of it.
pub struct Story {
    random: SeededEntropy,
    habits: Habits,
    clock: Arc<ManualClock>,
    /// Keys with the events that took them and the time when they end, unix milliseconds.
    pub keys: BTreeMap<DedupKey, (EventId, u64)>,
    /// Bytes of every event that was accepted; `None` once erased.
    pub bodies: BTreeMap<EventId, Option<Vec<u8>>>,
    /// Deliveries that must be pending.
    pub pending: BTreeSet<DeliveryId>,
    /// Deliveries that must be dead letters, as long as their events are kept.
    pub dead: BTreeSet<DeliveryId>,
    accepted: u64,
}

impl Story {
    pub fn new(seed: u64, habits: Habits, clock: Arc<ManualClock>) -> Self {
        let random = SeededEntropy::new(seed);
        Self {
            random,
            habits,
            clock,
            keys: BTreeMap::new(),
            bodies: BTreeMap::new(),
            pending: BTreeSet::new(),
            dead: BTreeSet::new(),
            accepted: 0,
        }
    }

    /// A number below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.random.next_u64() % end.max(1)
    }

    fn one_of<'t, T>(&self, all: &'t [T]) -> Option<&'t T> {
        all.get(self.below(all.len() as u64) as usize)
    }

    /// Keys whose window is open.
    pub fn open_keys(&self, now_ms: u64) -> Vec<DedupKey> {
        self.keys.iter().filter(|(_, (_, end_ms))| now_ms < *end_ms).map(|(key, _)| *key).collect()
    }

    pub async fn live(&mut self, store: &impl Store, steps: usize, dedup_ms: u64) {
        for _ in 0..steps {
            self.step(store, dedup_ms).await;
        }
    }

    pub async fn step(&mut self, store: &impl Store, dedup_ms: u64) {
        self.clock.advance(self.below(self.habits.pause_ms + 1));
        let Habits { accept, settle, redrive, erase, standing, .. } = self.habits;
        let mut dice = self.below(100);
        for (part, what) in [accept, settle, redrive, erase, standing].into_iter().enumerate() {
            if dice < what {
                return match part {
                    0 => self.accept(store, dedup_ms).await,
                    1 => self.settle(store).await,
                    2 => self.redrive(store).await,
                    3 => self.erase(store).await,
                    _ => self.standing(store).await,
                };
            }
            dice -= what;
        }
    }

    async fn accept(&mut self, store: &impl Store, dedup_ms: u64) {
        self.accepted += 1;
        let body = body_of(self.random.next_u64(), self.below(self.habits.body_bytes + 1) as usize);
        let endpoints: Vec<usize> =
            (0..ENDPOINTS).filter(|n| self.below(if *n == LAZY { 12 } else { 3 }) == 0).collect();
        // Now and then a key that was used before, taken or free again.
        let text = if self.below(10) == 0 { self.below(self.accepted) } else { self.accepted };
        let key = key(&format!("evt_{text}"));
        let keys: &[DedupKey] = if self.below(3) == 0 { &[] } else { &[key] };
        let now_ms = store.now_ms();
        let taken = keys.first().and_then(|key| self.keys.get(key)).filter(|(_, end_ms)| now_ms < *end_ms);
        let taken = taken.map(|(event, _)| *event);
        match store.accept(event_with(&endpoints, &body, keys)).await {
            Ok(Accepted::New { event }) => {
                assert_eq!(taken, None, "a key was lost");
                let id = event.meta.id;
                assert!(self.bodies.last_key_value().is_none_or(|(last, _)| *last < id), "ids are in commit order");
                self.bodies.insert(id, Some(body));
                self.pending.extend(endpoints.iter().map(|n| delivery(*n, id)));
                self.keys.extend(keys.iter().map(|key| (*key, (id, now_ms + dedup_ms))));
            }
            Ok(Accepted::Duplicate { id, .. }) => assert_eq!(taken, Some(id), "a key of nobody"),
            Err(StoreError::Refused(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn settle(&mut self, store: &impl Store) {
        let n = self.below(ENDPOINTS as u64) as usize;
        if n == LAZY && self.below(8) > 0 {
            return;
        }
        let due = store.pending(endpoint(n), None, 8).await.unwrap();
        let Some(due) = self.one_of(&due) else { return };
        let now_ms = store.now_ms();
        let next = match self.below(10) {
            0..6 => Next::Delivered,
            6..8 => Next::Retry { due_ms: now_ms + self.below(60_000) },
            8 => Next::Dead { reason: DeadReason::Rejected },
            _ => Next::Dead { reason: if self.below(4) == 0 { DeadReason::Gone } else { DeadReason::MaxRetries } },
        };
        let (id, response) = (delivery(n, due.event), body_of(now_ms, self.below(200) as usize));
        let applied = store.settle(ended(id, due.pending, next, now_ms, &response)).await.unwrap();
        assert_eq!(applied, Applied::Ok);
        match next {
            Next::Delivered => drop(self.pending.remove(&id)),
            Next::Dead { .. } => self.bury(id),
            Next::Retry { .. } => {}
        }
    }

    /// Delivers whatever is pending.
    pub async fn deliver_all(&mut self, store: &impl Store) {
        for n in 0..ENDPOINTS {
            for due in backlog(store, n).await {
                crate::support::settle(store, delivery(n, due.event), due.pending, Next::Delivered).await;
            }
        }
        self.pending.clear();
    }

    fn bury(&mut self, id: DeliveryId) {
        self.pending.remove(&id);
        self.dead.insert(id);
    }

    fn bury_all(&mut self, which: impl Fn(&DeliveryId) -> bool) {
        let ids: Vec<_> = self.pending.iter().copied().filter(which).collect();
        ids.into_iter().for_each(|id| self.bury(id));
    }

    async fn redrive(&mut self, store: &impl Store) {
        let ids: Vec<EventId> = self.bodies.keys().copied().collect();
        let Some(id) = self.one_of(&ids) else { return };
        let id = delivery(self.below(ENDPOINTS as u64) as usize, *id);
        if store.redrive(id).await.unwrap() == Redriven::Due {
            self.dead.remove(&id);
            self.pending.insert(id);
        }
    }

    async fn erase(&mut self, store: &impl Store) {
        let ids: Vec<EventId> = self.bodies.keys().copied().collect();
        if let Some(id) = self.one_of(&ids)
            && store.erase(*id).await.unwrap()
        {
            self.bodies.insert(*id, None);
            self.bury_all(|delivery| delivery.event == *id);
        }
    }

    async fn standing(&mut self, store: &impl Store) {
        let (n, since_ms) = (self.below(ENDPOINTS as u64) as usize, store.now_ms());
        let standing = match self.below(8) {
            0..5 => Standing::Enabled,
            5..7 => Standing::Disabled { since_ms },
            _ => Standing::Removed { since_ms },
        };
        store.set_standing(endpoint(n), "default", &format!("endpoint-{n}"), standing).await.unwrap();
        if matches!(standing, Standing::Removed { .. }) {
            self.bury_all(|delivery| delivery.endpoint == endpoint(n));
        }
    }

    /// What was promised: everything pending is there with its bytes; what is kept is as it was; nothing else is shown.
    pub async fn assert_kept(&mut self, store: &impl Store, when: &str) {
        let mut pending = BTreeSet::new();
        for n in 0..ENDPOINTS {
            for due in backlog(store, n).await {
                pending.insert(delivery(n, due.event));
                let event = store.event(due.event).await.unwrap();
                let event = event.unwrap_or_else(|| panic!("{} is pending and has no bytes {when}", due.event));
                assert!(!event.erased, "an erased event is pending {when}");
                assert_eq!(state(store, delivery(n, due.event)).await, DeliveryState::Pending(due.pending), "{when}");
            }
        }
        assert_eq!(pending, self.pending, "pending {when}");
        let mut kept = BTreeSet::new();
        for event in all_events(store).await {
            let id = event.meta.id;
            kept.insert(id);
            match &self.bodies[&id] {
                Some(body) => assert!(!event.erased && event.body == *body, "{id} has other bytes {when}"),
                None => assert!(event.erased && event.body.is_empty(), "{id} is erased {when}"),
            }
        }
        let found: BTreeSet<_> = graveyard(store).await.into_iter().map(|letter| letter.delivery).collect();
        self.dead.retain(|id| kept.contains(&id.event));
        assert_eq!(found, self.dead, "dead letters {when}");
        for id in &found {
            assert!(matches!(state(store, *id).await, DeliveryState::Dead(_)), "{when}");
        }
        // What is not listed is not found either.
        for id in self.bodies.keys().filter(|id| !kept.contains(id)) {
            assert!(store.event(*id).await.unwrap().is_none(), "{id} is not listed but found {when}");
        }
        self.bodies.retain(|id, _| kept.contains(id));
    }
}
