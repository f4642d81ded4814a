//! The lane of one endpoint: which of its pending deliveries are in memory, which are leased, what is due. Pure: time is
//! passed in, and loading from the store is something it asks for.
//!
//! ```text
//!        hint ────────────┐                          ┌── beyond the horizon: forgotten, the store has it
//!                         ▼                          │
//!   store ── load ──▶  window (≤ horizon) ── start ──┼─▶ lease: running ─ ended ─▶ settling ─ release ─▶ gone
//!                         ▲   │ too many: evicted,   │     │                                 │
//!                         │   └ horizon lowered ─────┘     └── hold (nothing settled) ◀──────┤
//!                         └────────────── hold is over, or news that came during the lease ──┘
//! ```
//!
//! **Invariants**
//! - Every pending delivery whose key the horizon covers is in the window or leased; the window holds nothing beyond it.
//! - A delivery has at most one lease. What is heard of it meanwhile waits in the lease.
//! - Whatever puts this in doubt (a settle that came too late, news that did not fit, a store that was read while things
//!   changed) lowers the horizon. That costs another load, never a delivery.
//!
//! The caller hands over all news that waits in the store's mailbox *before* it tells of a release or a load. The store
//! tells of a change before it answers the call that made it, so at a release the lane has heard of everything up to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::horizon::Horizon;
use super::pace::{Health, Pace};
use crate::core::delivery::Pending;
use crate::core::id::EventId;
use crate::store::{Due, DueKey};

/// Deliveries asked for in one load: enough to keep a fast endpoint busy, and a read of a few milliseconds at most.
const LOAD_MAX: usize = 2_048;

/// Leases per attempt that may be in flight. An attempt that has ended frees its place at the endpoint at once, while its
/// lease lasts until the settle is durable; this bounds how far attempts may run ahead of a slow disk.
const LEASES_PER_ATTEMPT: usize = 8;

/// Milliseconds until a load that the store refused is tried again.
const LOAD_RETRY_MS: u64 = 1_000;

/// One endpoint's pending deliveries as far as they are in memory.
#[derive(Debug)]
pub struct Lane {
    enabled: bool,
    in_flight_max: usize,
    window_max: usize,
    horizon: Horizon,
    window: BTreeMap<DueKey, Pending>,
    /// Where each delivery of the window stands in it.
    keys: HashMap<EventId, DueKey>,
    leases: HashMap<EventId, Lease>,
    /// Leases whose attempt is being made.
    running: usize,
    pace: Pace,
    /// Leases that nothing was settled for, by the time when they end.
    held: BTreeSet<(u64, EventId)>,
    loading: Option<Loading>,
    /// No load before this time.
    load_from_ms: u64,
}

/// The right to make an attempt, and to be the only one.
#[derive(Debug)]
struct Lease {
    /// The state that the attempt is made in.
    was: Pending,
    running: bool,
    /// The last that was heard of the delivery since.
    news: Option<Due>,
}

/// A load that the store has not answered.
#[derive(Debug)]
struct Loading {
    limit: usize,
    /// The store may have been read before what is beyond this became pending.
    reach: Horizon,
    /// What happened since the load was asked for, and that the answer may not know.
    since: HashMap<EventId, Since>,
    /// The answer no longer joins the window without a gap.
    void: bool,
}

/// What happened to a delivery while a load was running.
#[derive(Debug, Clone, Copy)]
enum Since {
    /// There was news, which has been dealt with.
    Heard,
    /// There was news of this state, which lies beyond the horizon that the load starts from.
    Beyond(Due),
    /// This state was settled.
    Settled(Pending),
}

/// Deliveries to read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// From right after this key; `None` from the first.
    pub after: Option<DueKey>,
    /// At most so many.
    pub limit: usize,
}

/// How a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The settle took effect.
    Settled,
    /// The delivery is not in the state that was leased: the store must be asked what became of it.
    Stale,
    /// Nothing was settled; the delivery is still pending and may be tried again at this time.
    Hold {
        /// Unix milliseconds.
        until_ms: u64,
    },
}

/// When a lane can do something by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// An attempt may start.
    Now,
    /// Not before this time (unix milliseconds), unless something else happens.
    At(u64),
    /// Not before something happens.
    Never,
}

impl Lane {
    /// A lane that knows nothing yet: it will ask for a load. Both limits are at least one.
    pub fn new(in_flight_max: usize, window_max: usize) -> Self {
        Self {
            enabled: true,
            in_flight_max: in_flight_max.max(1),
            window_max: window_max.max(1),
            horizon: Horizon::Nothing,
            window: BTreeMap::new(),
            keys: HashMap::new(),
            leases: HashMap::new(),
            running: 0,
            pace: Pace::new(in_flight_max),
            held: BTreeSet::new(),
            loading: None,
            load_from_ms: 0,
        }
    }

    /// Attempts in flight.
    pub const fn running(&self) -> usize {
        self.running
    }

    /// Deliveries in memory that are not leased.
    pub fn waiting(&self) -> usize {
        self.window.len()
    }

    /// Takes the endpoint's standing. A disabled endpoint's backlog stays in the store; leases run on.
    pub fn set_enabled(&mut self, enabled: bool) {
        if self.enabled != enabled {
            self.enabled = enabled;
            self.forget();
        }
    }

    /// Takes the news that a delivery became pending or changed its due time.
    pub fn hint(&mut self, due: Due) {
        match self.leases.get_mut(&due.event) {
            Some(lease) => {
                lease.news = Some(due);
                self.note(due.event, Since::Heard);
            }
            None => self.place(due),
        }
    }

    /// Takes the news that deliveries from `key` on became pending which are not named.
    pub fn left_out(&mut self, key: DueKey) {
        let below = Horizon::below(key);
        if let Some(loading) = &mut self.loading {
            loading.reach = loading.reach.min(below);
        }
        self.lower(below);
    }

    /// What to read from the store now, if anything. It is not asked for again before [`loaded`](Self::loaded) or
    /// [`load_refused`](Self::load_refused).
    pub fn load(&mut self, now_ms: u64) -> Option<Load> {
        if !self.wants_load() || now_ms < self.load_from_ms {
            return None;
        }
        let limit = (self.window_max - self.window.len()).min(LOAD_MAX);
        self.loading = Some(Loading { limit, reach: Horizon::All, since: HashMap::new(), void: false });
        Some(Load { after: self.horizon.after(), limit })
    }

    /// Takes what the store holds beyond the horizon, in order.
    pub fn loaded(&mut self, found: &[Due]) {
        let Some(loading) = self.loading.take() else { return };
        if loading.void {
            return;
        }
        let end = match found.last() {
            Some(last) if found.len() >= loading.limit => Horizon::Upto(last.key()),
            _ => Horizon::All,
        };
        let mut reach = end.min(loading.reach);
        let mut placed = Vec::with_capacity(found.len());
        for due in found {
            match loading.since.get(&due.event) {
                None => placed.push(*due),
                Some(Since::Heard | Since::Beyond(_)) => {}
                Some(Since::Settled(was)) if *was == due.pending => {}
                // From before or after the settle? The next load will tell.
                Some(Since::Settled(_)) => reach = reach.min(Horizon::below(due.key())),
            }
        }
        placed.extend(loading.since.values().filter_map(Since::beyond));
        // Lowering the horizon voids a load, so this one starts where the horizon is and only extends it.
        self.horizon = self.horizon.max(reach);
        for due in placed {
            match self.leases.get_mut(&due.event) {
                // Mostly the leased state itself, but it may be a later one that the mailbox had no room to tell of.
                Some(lease) => lease.news = Some(due),
                None => self.insert(due),
            }
        }
        self.evict();
    }

    /// The store did not answer the load.
    pub fn load_refused(&mut self, now_ms: u64) {
        self.loading = None;
        self.load_from_ms = now_ms.saturating_add(LOAD_RETRY_MS);
    }

    /// Leases the delivery that is due first, if an attempt may start.
    pub fn start(&mut self, now_ms: u64) -> Option<Due> {
        self.end_holds(now_ms);
        self.pace.pass(now_ms);
        let key = *self.window.first_key_value()?.0;
        if !self.has_room() || key.due_ms > now_ms {
            return None;
        }
        let was = self.window.remove(&key)?;
        self.keys.remove(&key.event);
        let before = self.leases.insert(key.event, Lease { was, running: true, news: None });
        debug_assert!(before.is_none(), "a leased delivery was in the window");
        self.running += 1;
        Some(Due { event: key.event, pending: was })
    }

    /// The attempt has ended; its settle is under way. Frees a place at the endpoint, after a rest if that only fails. False
    /// when it was not running.
    pub fn ended(&mut self, event: EventId, health: Health, now_ms: u64) -> bool {
        let was_running = self.free(event);
        if was_running {
            self.pace.ended(health, now_ms);
        }
        was_running
    }

    /// Frees the place of an attempt that says nothing of its endpoint. False when it was not running.
    pub(super) fn free(&mut self, event: EventId) -> bool {
        match self.leases.get_mut(&event) {
            Some(lease) if lease.running => {
                lease.running = false;
                self.running -= 1;
                true
            }
            _ => false,
        }
    }

    /// Ends a lease. False when there is none.
    pub fn release(&mut self, event: EventId, how: Release) -> bool {
        self.free(event);
        self.held.retain(|(_, held)| *held != event);
        if let Release::Hold { until_ms } = how {
            return self.leases.contains_key(&event) && self.held.insert((until_ms, event));
        }
        let Some(lease) = self.leases.remove(&event) else { return false };
        if how == Release::Stale {
            self.forget();
            return true;
        }
        // News that repeats the leased state came late; anything else is what the settle or a replay made of it.
        match lease.news.filter(|due| due.pending != lease.was) {
            Some(due) => self.put_back(due),
            None => self.note(event, Since::Settled(lease.was)),
        }
        true
    }

    /// When it can do something by itself. Ends holds that are over.
    pub fn readiness(&mut self, now_ms: u64) -> Readiness {
        self.end_holds(now_ms);
        self.pace.pass(now_ms);
        let first_ms = self.window.first_key_value().map(|(key, _)| key.due_ms);
        let due_ms = first_ms.filter(|_| self.has_room());
        let rested_ms = first_ms.filter(|_| self.enabled).and(self.pace.next_ms());
        if due_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            return Readiness::Now;
        }
        let hold_ms = self.held.first().map(|(until_ms, _)| *until_ms);
        let load_ms = self.wants_load().then_some(self.load_from_ms);
        [due_ms, rested_ms, hold_ms, load_ms].into_iter().flatten().min().map_or(Readiness::Never, Readiness::At)
    }

    /// A held lease keeps its place, so that attempts which fail within the gateway can't spin.
    fn has_room(&self) -> bool {
        self.enabled
            && self.running + self.held.len() + self.pace.resting() < self.in_flight_max
            && self.leases.len() < self.in_flight_max.saturating_mul(LEASES_PER_ATTEMPT)
    }

    /// The window is filled before it is empty, so that the endpoint needn't wait for the store.
    fn wants_load(&self) -> bool {
        self.enabled
            && self.loading.is_none()
            && self.horizon != Horizon::All
            && self.window.len() < (self.window_max / 4).max(1)
    }

    fn end_holds(&mut self, now_ms: u64) {
        while let Some((until_ms, event)) = self.held.first().copied()
            && until_ms <= now_ms
        {
            self.held.pop_first();
            if let Some(lease) = self.leases.remove(&event) {
                self.put_back(lease.news.unwrap_or(Due { event, pending: lease.was }));
            }
        }
    }

    /// Takes news of a delivery that is not leased.
    fn place(&mut self, due: Due) {
        let beyond = !self.horizon.covers(due.key());
        self.note(due.event, if beyond { Since::Beyond(due) } else { Since::Heard });
        self.put(due);
    }

    /// Takes what is known of a delivery whose lease has ended. If it was heard before a load was asked for, the answer to
    /// that load knows as much or more.
    fn put_back(&mut self, due: Due) {
        match &self.loading {
            Some(loading) if loading.since.contains_key(&due.event) => self.place(due),
            _ => self.put(due),
        }
    }

    fn put(&mut self, due: Due) {
        if self.enabled {
            self.remove(due.event);
            self.insert(due);
            self.evict();
        }
    }

    /// Remembers what the answer to a running load may not know.
    fn note(&mut self, event: EventId, what: Since) {
        let since_max = 4 * self.window_max;
        let Some(loading) = self.loading.as_mut().filter(|loading| !loading.void) else { return };
        if loading.since.len() < since_max || loading.since.contains_key(&event) {
            loading.since.insert(event, what);
            return;
        }
        match what {
            // Nearly always the first news of a new event; the next load will find it.
            Since::Beyond(due) => loading.reach = loading.reach.min(Horizon::below(due.key())),
            Since::Heard | Since::Settled(_) => loading.give_up(),
        }
    }

    fn insert(&mut self, due: Due) {
        let key = due.key();
        if self.horizon.covers(key) {
            self.remove(due.event);
            self.window.insert(key, due.pending);
            self.keys.insert(due.event, key);
        }
    }

    fn remove(&mut self, event: EventId) {
        if let Some(key) = self.keys.remove(&event) {
            self.window.remove(&key);
        }
    }

    /// Past the limit the window forgets its tail.
    fn evict(&mut self) {
        let Some(excess) = self.window.len().checked_sub(self.window_max + 1) else { return };
        // Counted from the tail, as it is mostly one that is too many.
        if let Some(first_out) = self.window.keys().rev().nth(excess).copied() {
            self.lower(Horizon::below(first_out));
        }
    }

    fn lower(&mut self, to: Horizon) {
        if to >= self.horizon {
            return;
        }
        self.horizon = to;
        while let Some(entry) = self.window.last_entry()
            && !to.covers(*entry.key())
        {
            self.keys.remove(&entry.key().event);
            entry.remove();
        }
        if let Some(loading) = &mut self.loading {
            loading.give_up();
        }
    }

    fn forget(&mut self) {
        self.lower(Horizon::Nothing);
        // Also when the horizon was at nothing already: the load that runs may not know what made us doubt.
        if let Some(loading) = &mut self.loading {
            loading.give_up();
        }
    }
}

impl Since {
    const fn beyond(&self) -> Option<Due> {
        match self {
            Self::Beyond(due) => Some(*due),
            Self::Heard | Self::Settled(_) => None,
        }
    }
}

impl Loading {
    fn give_up(&mut self) {
        self.void = true;
        self.since = HashMap::new();
    }
}

#[cfg(test)]
mod tests;
