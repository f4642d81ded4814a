//! A batch under construction: the facts that commands become, and the answers that wait for them to be durable.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::queue::{Command, NO_BODY, Reply, event_bytes, settle_bytes};
use super::recent::Recent;
use crate::core::delivery::{DeliveryId, DeliveryState, Pending};
use crate::core::event::{DedupKey, Event, EventMeta, NewEvent};
use crate::core::fact::{DedupEntry, Fact, Standing};
use crate::core::id::EventId;
use crate::core::limits::StoreLimits;
use crate::env::{Disk, Entropy};
use crate::index::{State, TreeError, delivery, due, entry_of, erased};
use crate::store::{Accepted, Applied, Redriven, Settle, StoreError};

/// Whether a command went into the batch.
pub(super) enum Verdict<D: Disk> {
    /// It did, or needs no fact.
    Taken,
    /// It does not fit beside what is there; it opens the next batch.
    NextBatch(Command<D>),
}

/// A batch under construction.
pub(super) struct Draft {
    /// What is to be written, with the bodies.
    pub(super) facts: Vec<(Fact, Bytes)>,
    /// The newest event id given out.
    pub(super) last_id: EventId,
    /// Settles that came too late.
    pub(super) stale: u64,
    /// Events of which a delivery had its first attempt.
    pub(super) attempted: Vec<EventId>,
    answers: Vec<Answer>,
    /// Dedup keys that events of this batch claim.
    keys: HashMap<DedupKey, DedupEntry>,
    /// Deliveries that this batch changes.
    deliveries: HashSet<DeliveryId>,
    bytes: usize,
    now_ms: u64,
    random: u128,
    limits: StoreLimits,
}

/// An answer that waits, with the permit that is given back with it.
enum Answer {
    Accept(Reply<Accepted>, Accepted, OwnedSemaphorePermit),
    Settle(Reply<Applied>, Applied, OwnedSemaphorePermit),
    Redrive(Reply<Redriven>, Redriven, OwnedSemaphorePermit),
}

impl Draft {
    pub(super) fn new(limits: &StoreLimits, now_ms: u64, last_id: EventId, entropy: &dyn Entropy) -> Self {
        let mut random = [0; 16];
        entropy.fill(&mut random);
        Self {
            facts: Vec::new(),
            last_id,
            stale: 0,
            attempted: Vec::new(),
            answers: Vec::new(),
            keys: HashMap::new(),
            deliveries: HashSet::new(),
            bytes: 0,
            now_ms,
            random: u128::from_le_bytes(random),
            limits: limits.clone(),
        }
    }

    /// Decides what a command becomes.
    pub(super) fn add<D: Disk>(&mut self, command: Command<D>, state: &State) -> Result<Verdict<D>, TreeError> {
        let bytes = command_bytes(&command);
        let full = self.facts.len() >= self.limits.batch_records_max
            || (!self.facts.is_empty() && self.bytes + bytes > self.limits.batch_bytes_max);
        let taken = touched(&command).is_some_and(|id| self.deliveries.contains(&id));
        if full || taken {
            return Ok(Verdict::NextBatch(command));
        }
        self.deliveries.extend(touched(&command));
        self.bytes += bytes;
        match command {
            Command::Accept { event, permit, reply } => {
                let answer = self.accept(*event, state)?;
                self.answers.push(Answer::Accept(reply, answer, permit));
            }
            Command::Settle { settle, permit, reply } => {
                let answer = self.settle(*settle, state)?;
                self.answers.push(Answer::Settle(reply, answer, permit));
            }
            Command::Redrive { delivery, attempts_made, permit, reply } => {
                let answer = self.redrive(delivery, attempts_made, state)?;
                self.answers.push(Answer::Redrive(reply, answer, permit));
            }
            alone => return Ok(Verdict::NextBatch(alone)),
        }
        Ok(Verdict::Taken)
    }

    fn accept(&mut self, new: NewEvent, state: &State) -> Result<Accepted, TreeError> {
        for key in &new.dedup {
            let stored = || super::read::dedup(state, key);
            let known = match self.keys.get(key) {
                Some(entry) => Some(*entry),
                None => stored()?.filter(|entry| self.now_ms < entry.expires_ms),
            };
            if let Some(entry) = known {
                let same_body = entry.fingerprint == new.fingerprint;
                return Ok(Accepted::Duplicate { id: entry.event, scope: key.scope, same_body });
            }
        }
        let id = self.next_id();
        let meta = Arc::new(EventMeta {
            id,
            app: new.app,
            source: new.source,
            event_type: new.event_type,
            external_id: new.external_id,
            accepted_ms: id.ms(),
            headers: new.headers,
            endpoints: new.endpoints,
        });
        let dedup_expires_ms = self.now_ms.saturating_add(self.limits.dedup_ms);
        let entry = DedupEntry { event: id, fingerprint: new.fingerprint, expires_ms: dedup_expires_ms };
        self.keys.extend(new.dedup.iter().map(|key| (*key, entry)));
        let event = Arc::new(Event { meta: Arc::clone(&meta), body: new.body.clone(), erased: false });
        let fact = Fact::Accepted { meta, dedup: new.dedup, dedup_expires_ms, fingerprint: new.fingerprint };
        self.facts.push((fact, new.body));
        Ok(Accepted::New { event })
    }

    fn settle(&mut self, settle: Settle, state: &State) -> Result<Applied, TreeError> {
        let Settle { delivery, was, attempt, response, next } = settle;
        let stored = state.get(&due::key(delivery.endpoint, was.due_ms, delivery.event))?;
        if stored.and_then(|bytes| due::parse_value(was.due_ms, &bytes)) != Some(was) {
            self.stale += 1;
            return Ok(Applied::Stale);
        }
        if was.attempts == 0 {
            self.attempted.push(delivery.event);
        }
        self.facts.push((Fact::Settled { delivery, was, attempt, next }, response));
        Ok(Applied::Ok)
    }

    fn redrive(&mut self, delivery: DeliveryId, attempts_made: u32, state: &State) -> Result<Redriven, TreeError> {
        // The caller looked before it queued; since then the event may have been dropped or erased.
        if super::read::locate(state, delivery.event)?.is_none() {
            return Ok(Redriven::Unknown);
        }
        if state.get(&erased::key(delivery.event))?.is_some() {
            return Ok(Redriven::Erased);
        }
        let note = super::read::note(state, delivery.endpoint)?;
        if note.is_some_and(|note| matches!(note.standing, Standing::Removed { .. })) {
            return Ok(Redriven::EndpointRemoved);
        }
        // Not before the event itself, whose time may be ahead of a clock that stands still.
        let due_ms = self.now_ms.max(delivery.event.ms());
        let attempts = match entry_of(state, delivery)? {
            Some(delivery::Entry::Pending(pending)) if pending.due_ms <= self.now_ms => {
                return Ok(Redriven::AlreadyDue);
            }
            Some(delivery::Entry::Pending(pending)) => pending.attempts,
            Some(delivery::Entry::Dead(dead)) => dead.attempts,
            // Delivered: at least one attempt was made, even if its record is past retention.
            None => attempts_made.max(1),
        };
        let pending = Pending { due_ms, attempts, failures: 0 };
        self.facts.push((Fact::Redriven { delivery, pending }, NO_BODY));
        Ok(Redriven::Due)
    }

    /// Ids grow whatever the clock does, so that their order is the order of commits.
    fn next_id(&mut self) -> EventId {
        self.last_id = EventId::at(self.now_ms, self.random).max(self.last_id.successor());
        self.last_id
    }

    /// Keeps the events for their attempts. Before they are durable, as attempts may begin the moment they are; until then
    /// nobody knows their ids.
    pub(super) fn keep_events(&self, recent: &Recent) {
        recent.keep(self.answers.iter().filter_map(|answer| match answer {
            Answer::Accept(_, Accepted::New { event }, _) if !event.meta.endpoints.is_empty() => {
                Some(Arc::clone(event))
            }
            _ => None,
        }));
    }

    /// Everything is durable and visible: tell those who wait.
    pub(super) fn answer(self) {
        for answer in self.answers {
            // Whoever gave up waiting finds out by asking again.
            let _ = match answer {
                Answer::Accept(reply, answer, _permit) => reply.send(Ok(answer)).is_ok(),
                Answer::Settle(reply, answer, _permit) => reply.send(Ok(answer)).is_ok(),
                Answer::Redrive(reply, answer, _permit) => reply.send(Ok(answer)).is_ok(),
            };
        }
    }

    /// Nothing of it is known to be durable.
    pub(super) fn fail(self, error: &StoreError) {
        for answer in self.answers {
            let _ = match answer {
                Answer::Accept(reply, ..) => reply.send(Err(error.clone())).is_ok(),
                Answer::Settle(reply, ..) => reply.send(Err(error.clone())).is_ok(),
                Answer::Redrive(reply, ..) => reply.send(Err(error.clone())).is_ok(),
            };
        }
    }
}

/// The delivery that a command changes; two changes of one delivery never share a batch.
fn touched<D: Disk>(command: &Command<D>) -> Option<DeliveryId> {
    match command {
        Command::Settle { settle, .. } => Some(settle.delivery),
        Command::Redrive { delivery, .. } => Some(*delivery),
        _ => None,
    }
}

fn command_bytes<D: Disk>(command: &Command<D>) -> usize {
    match command {
        Command::Accept { event, .. } => event_bytes(event),
        Command::Settle { settle, .. } => settle_bytes(settle),
        _ => 256,
    }
}

/// Bytes that a dedup key takes in a record, a little more than exactly.
pub(super) const DEDUP_ENTRY_BYTES: usize = 64;

/// Bytes that a fact takes besides its body, a little more than exactly.
pub(super) fn fact_bytes(fact: &Fact) -> usize {
    match fact {
        Fact::Accepted { meta, .. } | Fact::Carried { meta, .. } => {
            let texts =
                meta.event_type.as_ref().map_or(0, String::len) + meta.external_id.as_ref().map_or(0, String::len);
            meta.headers.total_bytes() + 8 * meta.headers.len() + texts + 64 * meta.endpoints.len() + 256
        }
        Fact::DedupCarried { entries } => DEDUP_ENTRY_BYTES * entries.len() + 128,
        Fact::Buried { .. } | Fact::Erased { .. } | Fact::Dropped { .. } => 128,
        _ => 1_024,
    }
}

/// The state of a delivery as callers see it.
pub(super) fn state_of(entry: Option<delivery::Entry>) -> DeliveryState {
    match entry {
        Some(delivery::Entry::Pending(pending)) => DeliveryState::Pending(pending),
        Some(delivery::Entry::Dead(dead)) => DeliveryState::Dead(dead),
        None => DeliveryState::Delivered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::EndpointId;
    use crate::env::SeededEntropy;
    use crate::index::{Home, Meta};

    #[test]
    fn an_event_that_was_dropped_after_the_caller_saw_it_is_not_redriven() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Home::Directory(dir.path().to_owned()).open(1 << 20).unwrap();
        let mut state = State::new(tree, Meta::default());
        let event = EventId::at(1_000, 7);
        state.meta.first_kept = event.successor().as_u128();
        let mut draft = Draft::new(&StoreLimits::default(), 2_000, event, &SeededEntropy::new(1));
        let delivery = DeliveryId { endpoint: EndpointId::MIN, event };
        assert_eq!(draft.redrive(delivery, 1, &state).unwrap(), Redriven::Unknown);
        assert!(draft.facts.is_empty());
    }
}
