//! One delivery as the model knows it: the state it is in, those it was in, and what was asked of it.

use std::collections::BTreeSet;

use postrider::core::delivery::{Dead, DeadReason, DeliveryState, Next, Pending};
use tokio::time::Instant;

use super::super::clock::round;

/// The due time of a delivery that was redriven when nobody looked at the clock.
pub const SOME_TIME_MS: u64 = u64::MAX;

/// The attempts of a delivered delivery that was redriven: the journal may have forgotten how many there were.
pub const SOME_ATTEMPTS: u32 = u32::MAX - 1;

/// A change of a delivery.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    Settled { was: Pending, next: Next, ended_ms: u64 },
    Redriven,
    Buried(DeadReason),
}

/// One delivery.
#[derive(Debug, Clone)]
pub struct Course {
    /// The states that it has been in, the present one last.
    states: Vec<DeliveryState>,
    /// It is in one of those from here on, as far as is known.
    from: usize,
    /// When it came into the present one; `None` before this life.
    since: Option<Instant>,
    /// Asked for and not answered, in order.
    pub asked: Vec<Change>,
    /// Numbers of the attempts that began in this life.
    pub tried: BTreeSet<u32>,
    pub failed_before: bool,
}

impl Course {
    pub fn new(state: DeliveryState, asked: Vec<Change>) -> Self {
        Self { states: vec![state], from: 0, since: Some(round()), asked, tried: BTreeSet::new(), failed_before: false }
    }

    pub fn state(&self) -> DeliveryState {
        self.states[self.states.len() - 1]
    }

    pub fn becomes(&mut self, state: DeliveryState) {
        if self.state() != state {
            self.states.push(state);
            self.since = Some(round());
        }
        self.from = self.states.len() - 1;
    }

    /// A process has ended.
    pub fn begin_life(&mut self) {
        self.tried.clear();
        self.since = None;
    }

    /// It is known again only as one of the states from that one on which it had then.
    pub fn doubt_since(&mut self, then: Option<&Self>) {
        self.from = then.map_or(0, |then| then.from);
    }

    /// The states that it may be in.
    pub fn candidates(&self) -> Vec<DeliveryState> {
        let mut states = self.states[self.from..].to_vec();
        for change in &self.asked {
            for state in states.clone() {
                let changed = change.apply(state);
                if !states.contains(&changed) {
                    states.push(changed);
                }
            }
        }
        states
    }

    pub fn is_surely_pending(&self) -> bool {
        self.candidates().iter().all(|state| matches!(state, DeliveryState::Pending(_)))
    }

    /// The pending state that it is in for sure.
    pub fn waits(&self) -> Option<Pending> {
        match self.state() {
            DeliveryState::Pending(pending) if self.asked.is_empty() && pending.due_ms != SOME_TIME_MS => Some(pending),
            _ => None,
        }
    }

    /// Whether everybody has had the time to hear of its state, and `more_ms` beside.
    pub fn is_settled_for(&self, more_ms: u128) -> bool {
        self.since.is_none_or(|since| (round() - since).as_millis() > more_ms)
    }

    pub fn bury(&mut self, reason: DeadReason, done: bool, now_ms: u64) {
        take_first(&mut self.asked, |change| matches!(change, Change::Buried(r) if *r == reason));
        if done && let DeliveryState::Pending(pending) = self.state() {
            self.becomes(DeliveryState::Dead(Dead { reason, at_ms: now_ms, attempts: pending.attempts }));
        }
    }
}

impl Change {
    fn apply(self, state: DeliveryState) -> DeliveryState {
        match (self, state) {
            (Self::Settled { was, next, ended_ms }, state) if matches(&state, &DeliveryState::Pending(was)) => {
                settled(was, next, ended_ms)
            }
            (Self::Redriven, state) => redrive(state),
            (Self::Buried(reason), DeliveryState::Pending(pending)) => {
                DeliveryState::Dead(Dead { reason, at_ms: 0, attempts: pending.attempts })
            }
            (_, state) => state,
        }
    }
}

pub fn settled(was: Pending, next: Next, ended_ms: u64) -> DeliveryState {
    let attempts = was.attempts + 1;
    match next {
        Next::Delivered => DeliveryState::Delivered,
        Next::Retry { due_ms } => DeliveryState::Pending(Pending { due_ms, attempts, failures: was.failures + 1 }),
        Next::Dead { reason } => DeliveryState::Dead(Dead { reason, at_ms: ended_ms, attempts }),
    }
}

/// How many attempts a delivered one had is not the model's business: any number fits.
pub fn redrive(state: DeliveryState) -> DeliveryState {
    let attempts = match state {
        DeliveryState::Pending(pending) => pending.attempts,
        DeliveryState::Dead(dead) => dead.attempts,
        DeliveryState::Delivered => SOME_ATTEMPTS,
    };
    DeliveryState::Pending(Pending { due_ms: SOME_TIME_MS, attempts, failures: 0 })
}

/// Whether a state is what was expected, which may leave times open.
pub fn matches(expected: &DeliveryState, actual: &DeliveryState) -> bool {
    match (expected, actual) {
        (DeliveryState::Delivered, DeliveryState::Delivered) => true,
        (DeliveryState::Pending(e), DeliveryState::Pending(a)) => {
            let due = e.due_ms == SOME_TIME_MS || e.due_ms == a.due_ms;
            due && (e.attempts == SOME_ATTEMPTS || e.attempts == a.attempts) && e.failures == a.failures
        }
        (DeliveryState::Dead(e), DeliveryState::Dead(a)) => {
            e.reason == a.reason && (e.attempts == SOME_ATTEMPTS || e.attempts == a.attempts)
        }
        _ => false,
    }
}

pub fn take_first<T>(all: &mut Vec<T>, wanted: impl FnMut(&T) -> bool) {
    if let Some(at) = all.iter().position(wanted) {
        all.remove(at);
    }
}
