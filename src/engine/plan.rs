//! All lanes together: whose turn it is, what to load, when to wake. Pure; everything that happens is told to it, and
//! [`Plan::next`] says what to do about it.
//!
//! **Fairness.** Attempts in flight are limited over all endpoints. Two rules keep a slow endpoint from delaying another:
//! - *Who has least goes first*: of the lanes that could start, the one with the fewest attempts in flight does, and
//!   among equals the one that waits longest.
//! - *Nobody takes more than is left*: a lane may start only while it has fewer attempts in flight than places are free.
//!
//! By the second rule `n` endpoints that hang hold at most `n / (n + 1)` of the places (as the dynamic thresholds of
//! [Choudhury and Hahne](https://doi.org/10.1109/90.664262) do with a switch's buffers): with 1,024 places and 32 endpoints
//! that hang, each holds 31 or 32 and about as many places stay free for whoever is healthy. As attempts that hang time out,
//! their places go to the lanes that have less, until all that want more have the same. A single endpoint is held to its
//! own limit long before any of this. Only when as many endpoints hang as there are places do the healthy ones wait for
//! attempts to time out.
//!
//! An endpoint that fails at once holds no places but wants the processor: `pace` bounds how often it is tried.
//!
//! **Invariants**
//! - A lane stands in one place: among the ready, among the timers, or in neither (then only news of it can change that).
//! - Nothing here depends on the order of a hash map, so the same calls give the same orders.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::lane::{Lane, Load, Readiness, Release};
use super::pace::Health;
use crate::core::delivery::DeliveryId;
use crate::core::id::EndpointId;
use crate::core::limits::DeliveryLimits;
use crate::store::{Due, LaneHints};

/// Leases per place: how far attempts that have ended may run ahead of the store, over all endpoints.
const LEASES_PER_PLACE: usize = 4;

/// What is due where, and who may start.
#[derive(Debug)]
pub struct Plan {
    lanes: HashMap<EndpointId, Slot>,
    ready: BTreeSet<Turn>,
    timers: BTreeSet<(u64, EndpointId)>,
    loads: VecDeque<(EndpointId, Load)>,
    in_flight_max: usize,
    in_flight: usize,
    /// Leases that are running or wait for their settle.
    leases: usize,
    tickets: u64,
}

#[derive(Debug)]
struct Slot {
    lane: Lane,
    place: Place,
}

/// Where a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Ready(Turn),
    Timer(u64),
}

/// The order among lanes that could start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    in_flight: usize,
    ticket: u64,
    endpoint: EndpointId,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Make an attempt of this delivery, which is leased now; then tell [`Plan::ended`] and [`Plan::released`].
    Start {
        /// To whom.
        endpoint: EndpointId,
        /// Which delivery, in which state.
        due: Due,
    },
    /// Read pending deliveries from the store; then tell [`Plan::loaded`] or [`Plan::load_refused`].
    Load {
        /// Whose.
        endpoint: EndpointId,
        /// From where and how many.
        load: Load,
    },
}

impl Plan {
    /// A plan over these endpoints, each with its own limit of attempts in flight. Endpoints that are not named here don't
    /// exist for it. The window's limit is shared out evenly, but each lane gets room for two rounds of attempts.
    pub fn new(endpoints: impl IntoIterator<Item = (EndpointId, usize)>, limits: &DeliveryLimits, now_ms: u64) -> Self {
        let mut endpoints: Vec<_> = endpoints.into_iter().collect();
        endpoints.sort_unstable();
        let share = limits.window_max / endpoints.len().max(1);
        let slot = |in_flight_max: usize| Slot {
            lane: Lane::new(in_flight_max, share.max(2 * in_flight_max)),
            place: Place::Nowhere,
        };
        let mut plan = Self {
            lanes: endpoints.iter().map(|(id, in_flight_max)| (*id, slot(*in_flight_max))).collect(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            loads: VecDeque::new(),
            in_flight_max: limits.in_flight_max.max(1),
            in_flight: 0,
            leases: 0,
            tickets: 0,
        };
        endpoints.iter().for_each(|(id, _)| plan.look_at(*id, now_ms));
        plan
    }

    /// Attempts in flight over all endpoints.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Deliveries that are leased: their attempt is in flight, or its settle under way.
    pub const fn leases(&self) -> usize {
        self.leases
    }

    /// Takes an endpoint's standing.
    pub fn set_enabled(&mut self, endpoint: EndpointId, enabled: bool, now_ms: u64) {
        self.with(endpoint, now_ms, |lane| lane.set_enabled(enabled));
    }

    /// Takes what the store's mailbox holds for an endpoint, but for its standing.
    pub fn news(&mut self, endpoint: EndpointId, news: &LaneHints, now_ms: u64) {
        self.with(endpoint, now_ms, |lane| {
            news.due.iter().for_each(|due| lane.hint(*due));
            if let Some(key) = news.left_out {
                lane.left_out(key);
            }
        });
    }

    /// Takes the answer to a load, in order. All news must have been taken before.
    pub fn loaded(&mut self, endpoint: EndpointId, found: &[Due], now_ms: u64) {
        self.with(endpoint, now_ms, |lane| lane.loaded(found));
    }

    /// The store did not answer a load.
    pub fn load_refused(&mut self, endpoint: EndpointId, now_ms: u64) {
        self.with(endpoint, now_ms, |lane| lane.load_refused(now_ms));
    }

    /// An attempt has ended and its settle is under way: its place is free.
    pub fn ended(&mut self, delivery: DeliveryId, health: Health, now_ms: u64) {
        self.freed(delivery.endpoint, now_ms, |lane| lane.ended(delivery.event, health, now_ms));
    }

    /// A place is free if `end` says so.
    fn freed(&mut self, endpoint: EndpointId, now_ms: u64, end: impl FnOnce(&mut Lane) -> bool) {
        if self.with(endpoint, now_ms, end) == Some(true) {
            self.in_flight -= 1;
        }
    }

    /// A lease ends. All news must have been taken before.
    pub fn released(&mut self, delivery: DeliveryId, how: Release, now_ms: u64) {
        self.freed(delivery.endpoint, now_ms, |lane| lane.free(delivery.event));
        if self.with(delivery.endpoint, now_ms, |lane| lane.release(delivery.event, how)) == Some(true) {
            self.leases -= 1;
        }
    }

    /// The next thing to do, until there is none.
    pub fn next(&mut self, now_ms: u64) -> Option<Order> {
        while let Some((_, endpoint)) = self.timers.first().copied().filter(|(wake_ms, _)| *wake_ms <= now_ms) {
            self.look_at(endpoint, now_ms);
        }
        if let Some((endpoint, load)) = self.loads.pop_front() {
            return Some(Order::Load { endpoint, load });
        }
        while let Some(turn) = self.ready.first().copied().filter(|turn| self.may_start(turn)) {
            if let Some(Some(due)) = self.with(turn.endpoint, now_ms, |lane| lane.start(now_ms)) {
                self.in_flight += 1;
                self.leases += 1;
                return Some(Order::Start { endpoint: turn.endpoint, due });
            }
        }
        // A start may have brought a window down to where it wants filling.
        self.loads.pop_front().map(|(endpoint, load)| Order::Load { endpoint, load })
    }

    /// When to ask again if nothing happens, unix milliseconds.
    pub fn next_wake(&self) -> Option<u64> {
        self.timers.first().map(|(wake_ms, _)| *wake_ms)
    }

    /// Since the ready are ordered by what they have in flight, the first decides for all.
    fn may_start(&self, turn: &Turn) -> bool {
        turn.in_flight < self.in_flight_max - self.in_flight && self.leases < self.in_flight_max * LEASES_PER_PLACE
    }

    /// Changes a lane, then puts it where it belongs now.
    fn with<T>(&mut self, endpoint: EndpointId, now_ms: u64, change: impl FnOnce(&mut Lane) -> T) -> Option<T> {
        let answer = change(&mut self.lanes.get_mut(&endpoint)?.lane);
        self.look_at(endpoint, now_ms);
        Some(answer)
    }

    fn look_at(&mut self, endpoint: EndpointId, now_ms: u64) {
        let Some(slot) = self.lanes.get_mut(&endpoint) else { return };
        if let Some(load) = slot.lane.load(now_ms) {
            self.loads.push_back((endpoint, load));
        }
        let in_flight = slot.lane.running();
        let place = match (slot.lane.readiness(now_ms), slot.place) {
            // It keeps its ticket unless it has just had its turn.
            (Readiness::Now, Place::Ready(turn)) if in_flight <= turn.in_flight => {
                Place::Ready(Turn { in_flight, ..turn })
            }
            (Readiness::Now, _) => {
                self.tickets += 1;
                Place::Ready(Turn { in_flight, ticket: self.tickets, endpoint })
            }
            (Readiness::At(wake_ms), _) => Place::Timer(wake_ms),
            (Readiness::Never, _) => Place::Nowhere,
        };
        if place == slot.place {
            return;
        }
        match std::mem::replace(&mut slot.place, place) {
            Place::Ready(turn) => drop(self.ready.remove(&turn)),
            Place::Timer(wake_ms) => drop(self.timers.remove(&(wake_ms, endpoint))),
            Place::Nowhere => {}
        }
        match place {
            Place::Ready(turn) => drop(self.ready.insert(turn)),
            Place::Timer(wake_ms) => drop(self.timers.insert((wake_ms, endpoint))),
            Place::Nowhere => {}
        }
    }
}

#[cfg(test)]
mod tests;
