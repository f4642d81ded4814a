//! Folding a fact into the key space. Unconditional: whether the fact may be was decided when it was written.

use std::ops::{Bound, ControlFlow};

use super::event::At;
use super::state::{Layered, State};
use super::tree::TreeError;
use super::{dead, dedup, delivery, due, erased, event, note};
use crate::core::delivery::{Dead, DeadReason, DeliveryId, Next, Pending};
use crate::core::event::{DedupKey, EventMeta};
use crate::core::fact::{DedupEntry, EndpointNote, Fact, Standing};
use crate::core::id::{EndpointId, EventId};

/// Where the facts of one frame stand.
#[derive(Debug)]
pub struct Place {
    at: At,
    first_event_seen: bool,
}

impl Place {
    /// The place of a frame; facts of the frame are folded with the same one.
    pub const fn new(at: At) -> Self {
        Self { at, first_event_seen: false }
    }
}

/// What the engine should hear of.
#[derive(Debug, Default)]
pub struct Effects {
    /// Deliveries that became pending or changed their due time.
    pub pending: Vec<(EndpointId, EventId, Pending)>,
    /// Endpoints whose standing changed.
    pub standing: Vec<EndpointId>,
}

/// Folds one fact.
pub fn fold(state: &mut State, fact: &Fact, place: &mut Place, effects: &mut Effects) -> Result<(), TreeError> {
    match fact {
        Fact::Accepted { meta, dedup, dedup_expires_ms, fingerprint } => {
            accepted(state, meta, place, effects);
            let entry = DedupEntry { event: meta.id, fingerprint: *fingerprint, expires_ms: *dedup_expires_ms };
            dedup.iter().for_each(|key| claim(state, key, &entry));
        }
        Fact::Settled { delivery, was, attempt, next } => {
            let attempts = was.attempts.saturating_add(1);
            leave_pending(state, *delivery, was);
            match next {
                Next::Delivered if is_fresh(*delivery, was) => {}
                Next::Delivered => state.table().remove(delivery::key(*delivery)),
                Next::Retry { due_ms } => {
                    let failures = was.failures.saturating_add(1);
                    let pending = Pending { due_ms: *due_ms, attempts, failures };
                    enter_pending(state, *delivery, pending, effects);
                }
                Next::Dead { reason } => {
                    bury(state, *delivery, &Dead { reason: *reason, at_ms: attempt.ended_ms, attempts });
                    if *reason == DeadReason::Gone {
                        gone(state, delivery.endpoint, attempt.ended_ms, effects)?;
                    }
                }
            }
        }
        Fact::Redriven { delivery, pending } => {
            leave_any(state, *delivery)?;
            enter_pending(state, *delivery, *pending, effects);
        }
        Fact::Buried { delivery, dead } => {
            leave_any(state, *delivery)?;
            bury(state, *delivery, dead);
        }
        Fact::EndpointNoted(note) => noted(state, note, effects)?,
        // The bytes are zeros by now; the key space never held them.
        Fact::Erased { event, .. } => state.table().insert(erased::key(*event), Vec::new()),
        // Known already, but in a rebuild; so they don't count as claimed.
        Fact::DedupCarried { entries } => {
            entries.iter().for_each(|(key, entry)| state.table().insert(dedup::key(key), dedup::value(entry)));
        }
        Fact::Carried { meta, pending, dead } => carried(state, meta.id, pending, dead, place.at)?,
        Fact::Dropped { segment, first_kept } => dropped(state, *segment, *first_kept)?,
    }
    Ok(())
}

/// A delivery that waits for its first attempt has no entry of its own: its due time is its event's.
pub fn is_fresh(delivery: DeliveryId, pending: &Pending) -> bool {
    pending.attempts == 0 && pending.due_ms == delivery.event.ms()
}

/// The state of a delivery that was made; `None` for delivered.
pub fn entry_of(state: &State, id: DeliveryId) -> Result<Option<delivery::Entry>, TreeError> {
    if let Some(bytes) = state.get(&delivery::key(id))? {
        return delivery::parse_value(&bytes).map(Some).ok_or(TreeError::Foreign("a delivery that does not decode"));
    }
    let due_ms = id.event.ms();
    let fresh = state.get(&due::key(id.endpoint, due_ms, id.event))?;
    Ok(fresh.and_then(|bytes| due::parse_value(due_ms, &bytes)).map(delivery::Entry::Pending))
}

fn accepted(state: &mut State, meta: &EventMeta, place: &mut Place, effects: &mut Effects) {
    if !place.first_event_seen {
        place.first_event_seen = true;
        state.ledger.event_at(place.at.segment, meta.id);
        state.table().insert(event::key(meta.id), event::value(event::Entry { carried: false, at: place.at }));
    }
    for endpoint in &meta.endpoints {
        let pending = Pending::fresh(meta.accepted_ms);
        state.table().insert_new(due::key(*endpoint, pending.due_ms, meta.id), due::value(&pending));
        state.ledger.add_pending(meta.id);
        effects.pending.push((*endpoint, meta.id, pending));
    }
}

fn claim(state: &mut State, key: &DedupKey, entry: &DedupEntry) {
    state.table().insert(dedup::key(key), dedup::value(entry));
    state.claimed();
}

fn enter_pending(state: &mut State, id: DeliveryId, pending: Pending, effects: &mut Effects) {
    state.table().insert(due::key(id.endpoint, pending.due_ms, id.event), due::value(&pending));
    if is_fresh(id, &pending) {
        state.table().remove(delivery::key(id));
    } else {
        state.table().insert(delivery::key(id), delivery::value(&delivery::Entry::Pending(pending)));
    }
    state.ledger.add_pending(id.event);
    effects.pending.push((id.endpoint, id.event, pending));
}

fn leave_pending(state: &mut State, id: DeliveryId, pending: &Pending) {
    state.table().remove(due::key(id.endpoint, pending.due_ms, id.event));
    state.ledger.remove_pending(id.event);
}

fn bury(state: &mut State, id: DeliveryId, dead: &Dead) {
    state.table().insert(delivery::key(id), delivery::value(&delivery::Entry::Dead(*dead)));
    state.table().insert(dead::key(dead.at_ms, id), dead::value(dead));
    state.ledger.dead += 1;
}

fn exhume(state: &mut State, id: DeliveryId, dead: &Dead) {
    state.table().remove(dead::key(dead.at_ms, id));
    state.ledger.dead = state.ledger.dead.saturating_sub(1);
}

/// Takes a delivery out of whatever state it is in.
fn leave_any(state: &mut State, id: DeliveryId) -> Result<(), TreeError> {
    match entry_of(state, id)? {
        Some(delivery::Entry::Pending(pending)) => leave_pending(state, id, &pending),
        Some(delivery::Entry::Dead(dead)) => exhume(state, id, &dead),
        None => {}
    }
    Ok(())
}

fn read_note(state: &State, endpoint: EndpointId) -> Result<Option<EndpointNote>, TreeError> {
    let bytes = state.get(&note::key(endpoint))?;
    bytes.map(|b| note::parse_value(&b).ok_or(TreeError::Foreign("an endpoint that does not decode"))).transpose()
}

fn gone(state: &mut State, endpoint: EndpointId, since_ms: u64, effects: &mut Effects) -> Result<(), TreeError> {
    if let Some(known) = read_note(state, endpoint)?.filter(|n| n.standing.is_enabled()) {
        let standing = Standing::Gone { since_ms };
        let changed = EndpointNote { version: known.version + 1, standing, ..known };
        state.table().insert(note::key(endpoint), note::value(&changed));
        effects.standing.push(endpoint);
    }
    Ok(())
}

fn noted(state: &mut State, new: &EndpointNote, effects: &mut Effects) -> Result<(), TreeError> {
    if read_note(state, new.id)?.is_none_or(|known| known.version < new.version) {
        state.table().insert(note::key(new.id), note::value(new));
        effects.standing.push(new.id);
    }
    Ok(())
}

/// The event has a place of its own now. In a rebuild its acceptance and its settles may be gone, so the state of its
/// deliveries comes from here.
fn carried(
    state: &mut State,
    id: EventId,
    pending: &[(EndpointId, Pending)],
    dead: &[(EndpointId, Dead)],
    at: At,
) -> Result<(), TreeError> {
    let pending_states = pending.iter().map(|(endpoint, pending)| (*endpoint, delivery::Entry::Pending(*pending)));
    let dead_states = dead.iter().map(|(endpoint, dead)| (*endpoint, delivery::Entry::Dead(*dead)));
    for (endpoint, entry) in pending_states.chain(dead_states) {
        let id = DeliveryId { endpoint, event: id };
        if entry_of(state, id)? == Some(entry) {
            continue;
        }
        leave_any(state, id)?;
        match entry {
            // Nobody listens: what is carried is news only in a rebuild.
            delivery::Entry::Pending(pending) => enter_pending(state, id, pending, &mut Effects::default()),
            delivery::Entry::Dead(dead) => bury(state, id, &dead),
        }
    }
    state.ledger.carry(id, at.segment, pending.len() as u64);
    state.table().insert(event::carried_key(id), event::value(event::Entry { carried: true, at }));
    Ok(())
}

/// What the segment held and was not carried is forgotten: its events, that they were erased, their dead letters. Whatever
/// is below `first_kept` was in this segment or an earlier one, so what has no carried entry now is gone. In a rebuild that
/// includes what was said of events whose segments went long ago.
fn dropped(state: &mut State, segment: u64, first_kept: EventId) -> Result<(), TreeError> {
    for (from, to) in state.ledger.spans_through(segment, first_kept) {
        forget_places(state, segment, from, to)?;
        forget_erased(state, from, to)?;
        for endpoint in endpoints(state)? {
            forget_dead(state, endpoint, from, to)?;
        }
    }
    state.ledger.drop_segment(segment);
    state.meta.first_kept = first_kept.as_u128().max(state.meta.first_kept);
    state.meta.dropped_through = state.meta.dropped_through.max(Some(segment));
    Ok(())
}

fn forget_places(state: &mut State, segment: u64, from: EventId, to: EventId) -> Result<(), TreeError> {
    let mut gone = Vec::new();
    let (from, to) = (event::key(from), event::key(to));
    state.scan(Bound::Included(&from), Bound::Excluded(&to), Layered::Up, |key, value| {
        if event::parse_value(value).is_some_and(|entry| entry.at.segment <= segment) {
            gone.push(key.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    gone.into_iter().for_each(|key| state.table().remove(key));
    Ok(())
}

fn forget_erased(state: &mut State, from: EventId, to: EventId) -> Result<(), TreeError> {
    let mut erased = Vec::new();
    let (from, to) = (erased::key(from), erased::key(to));
    state.scan(Bound::Included(&from), Bound::Excluded(&to), Layered::Up, |key, _| {
        erased.extend(erased::parse_key(key));
        ControlFlow::Continue(())
    })?;
    for event in erased {
        // An event that was carried and then erased is still there.
        if state.get(&event::carried_key(event))?.is_none() {
            state.table().remove(erased::key(event));
        }
    }
    Ok(())
}

fn forget_dead(state: &mut State, endpoint: EndpointId, from: EventId, to: EventId) -> Result<(), TreeError> {
    let mut dead = Vec::new();
    let key = |event| delivery::key(DeliveryId { endpoint, event });
    let (from, to) = (key(from), key(to));
    state.scan(Bound::Included(&from), Bound::Excluded(&to), Layered::Up, |key, value| {
        if let (Some(id), Some(delivery::Entry::Dead(entry))) = (delivery::parse_key(key), delivery::parse_value(value))
        {
            dead.push((id, entry));
        }
        ControlFlow::Continue(())
    })?;
    for (id, dead) in dead {
        // A dead letter of an event that was carried for another endpoint's sake keeps its event and stays.
        if state.get(&event::carried_key(id.event))?.is_none() {
            exhume(state, id, &dead);
            state.table().remove(delivery::key(id));
        }
    }
    Ok(())
}

/// Every endpoint of which a delivery is remembered, whether the store was told of the endpoint or not. Leaps from one to
/// the next, so it costs little however many deliveries each has.
fn endpoints(state: &State) -> Result<Vec<EndpointId>, TreeError> {
    let mut ids: Vec<EndpointId> = Vec::new();
    loop {
        let last = ids.last().map(|endpoint| delivery::key(DeliveryId { endpoint: *endpoint, event: EventId::MAX }));
        let from = last.as_ref().map_or(Bound::Included(&[delivery::FAMILY][..]), |last| Bound::Excluded(&last[..]));
        let mut next = None;
        state.scan(from, Bound::Excluded(&[delivery::FAMILY + 1]), Layered::Up, |key, _| {
            next = delivery::parse_key(key);
            ControlFlow::Break(())
        })?;
        match next {
            Some(id) => ids.push(id.endpoint),
            None => return Ok(ids),
        }
    }
}
