//! Reading the store: out of the key space where an event is and how its deliveries stand, out of the journal what it says.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;

use super::draft::state_of;
use super::shared::Shared;
use crate::core::delivery::DeliveryId;
use crate::core::event::{DedupKey, Event};
use crate::core::fact::{DedupEntry, EndpointNote, Fact, kind};
use crate::core::id::{EndpointId, EventId};
use crate::env::Disk;
use crate::index::event::{At, Entry};
use crate::index::{Layered, State, TreeError, dead, dedup, due, entry_of, erased, event, note as notes};
use crate::journal::{BodyState, Frame};
use crate::store::{
    AttemptRecord, Cursor, DeadKey, DeadLetter, DeadQuery, Delivery, Due, DueKey, EventQuery, Page, StoreError,
};

/// Frames that one call of a listing looks through; past it the page is short and says where to go on.
const LIST_FRAMES_MAX: usize = 2_000;

/// Times that an event is looked for again because its segment was dropped between finding and reading it.
const LOOKS_MAX: usize = 8;

/// Dead letters that one call looks through.
const LIST_DEAD_MAX: usize = 100_000;

/// What a dedup key stands for, expired or not.
pub(super) fn dedup(state: &State, key: &DedupKey) -> Result<Option<DedupEntry>, TreeError> {
    let bytes = state.get(&dedup::key(key))?;
    bytes.map(|b| dedup::parse_value(&b).ok_or(TreeError::Foreign("a dedup key that does not decode"))).transpose()
}

/// What is known of an endpoint.
pub(super) fn note(state: &State, endpoint: EndpointId) -> Result<Option<EndpointNote>, TreeError> {
    let bytes = state.get(&notes::key(endpoint))?;
    bytes.map(|b| notes::parse_value(&b).ok_or(TreeError::Foreign("an endpoint that does not decode"))).transpose()
}

/// What is known of every endpoint.
pub(super) fn all_notes(state: &State) -> Result<Vec<EndpointNote>, TreeError> {
    let mut all = Vec::new();
    let (from, to) = ([notes::FAMILY], [notes::FAMILY + 1]);
    state.scan(Bound::Included(&from), Bound::Excluded(&to), Layered::Up, |_, value| {
        all.extend(notes::parse_value(value));
        ControlFlow::Continue(())
    })?;
    Ok(all)
}

/// See [`Store::pending`](crate::store::Store::pending).
pub(super) fn pending(
    state: &State,
    endpoint: EndpointId,
    after: Option<DueKey>,
    limit: usize,
) -> Result<Vec<Due>, TreeError> {
    let mut found = Vec::new();
    let from = after.map_or_else(|| due::key(endpoint, 0, EventId::MIN), |k| due::key(endpoint, k.due_ms, k.event));
    let from = if after.is_some() { Bound::Excluded(&from[..]) } else { Bound::Included(&from[..]) };
    let to = due::key(endpoint, u64::MAX, EventId::MAX);
    state.scan(from, Bound::Included(&to), Layered::Up, |key, value| {
        if found.len() == limit {
            return ControlFlow::Break(());
        }
        if let Some((_, due_ms, event)) = due::parse_key(key)
            && let Some(pending) = due::parse_value(due_ms, value)
        {
            found.push(Due { event, pending });
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Where an event is, if it is anywhere: an entry of its own, or the batch that it came in with.
pub(super) fn locate(state: &State, id: EventId) -> Result<Option<At>, TreeError> {
    let carried = state.get(&event::carried_key(id))?;
    if let Some(entry) = carried.and_then(|bytes| event::parse_value(&bytes)) {
        return Ok(Some(entry.at));
    }
    if id.as_u128() < state.meta.first_kept {
        return Ok(None);
    }
    let mut at = None;
    let (from, to) = (event::key(EventId::MIN), event::key(id));
    state.scan(Bound::Included(&from), Bound::Included(&to), Layered::Down, |_, value| {
        match event::parse_value(value) {
            // Carried events stand between the batches while their old segment is still there.
            Some(Entry { carried: true, .. }) => ControlFlow::Continue(()),
            found => {
                at = found.map(|entry| entry.at);
                ControlFlow::Break(())
            }
        }
    })?;
    Ok(at)
}

/// The events that came in with a frame, in the order of their ids, each with its place in it.
pub(super) fn events_of(frame: &Frame) -> Vec<(EventId, usize)> {
    let records = frame.records.iter().enumerate().filter(|(_, record)| record.kind == kind::ACCEPTED);
    records.map(|(index, record)| (EventId::from_u128(record.key), index)).collect()
}

/// Those of them whose content was erased.
pub(super) fn erased_of(state: &State, frame: &Frame) -> Result<Vec<EventId>, TreeError> {
    let events = events_of(frame);
    let (Some((first, _)), Some((last, _))) = (events.first(), events.last()) else { return Ok(Vec::new()) };
    let (from, to) = (erased::key(*first), erased::key(*last));
    let mut found = Vec::new();
    state.scan(Bound::Included(&from), Bound::Included(&to), Layered::Up, |key, _| {
        found.extend(erased::parse_key(key));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// The event of this id in a frame.
pub(super) fn event_in(frame: &Frame, id: EventId, erased: bool) -> Result<Option<Event>, StoreError> {
    let is_event = |kind: u8| matches!(kind, kind::ACCEPTED | kind::CARRIED);
    let index = frame.records.iter().position(|r| r.key == id.as_u128() && is_event(r.kind));
    index.map(|index| event_at(frame, index, erased)).transpose()
}

/// The event at a place in a frame. The bytes are copied, so that they don't keep the whole frame in memory.
pub(super) fn event_at(frame: &Frame, index: usize, erased: bool) -> Result<Event, StoreError> {
    let Ok(Fact::Accepted { meta, .. } | Fact::Carried { meta, .. }) =
        Fact::decode(frame.records[index].kind, &frame.meta(index))
    else {
        return Err(unreadable(frame.at.segment, frame.at.offset));
    };
    let body = match frame.records[index].state {
        _ if erased => None,
        // The bytes become zeros a moment before the key space knows of the erasure, which is durable by then.
        BodyState::Zeroed => None,
        BodyState::Intact => Some(Bytes::copy_from_slice(&frame.body(index))),
        BodyState::Damaged => return Err(unreadable(frame.at.segment, frame.at.offset)),
    };
    Ok(Event { meta, erased: body.is_none(), body: body.unwrap_or_default() })
}

/// Damage that was found on the way; it is for an operator, and no reason to stop.
pub(super) fn unreadable(segment: u64, offset: u64) -> StoreError {
    let error = StoreError::Unreadable { segment, offset };
    tracing::error!(%error, "damage found");
    error
}

impl<D: Disk> Shared<D> {
    /// See [`Store::event`](crate::store::Store::event).
    pub(super) fn read_event(&self, id: EventId) -> Result<Option<Arc<Event>>, StoreError> {
        if let Some(event) = self.event_in_memory(id) {
            return event.map(Some);
        }
        // Between looking up the place and reading it the segment may be dropped and the event carried elsewhere; then
        // the key space knows the new place.
        for _ in 0..LOOKS_MAX {
            let at = locate(&self.state(), id).map_err(|e| self.fail(&e))?;
            let Some(at) = at else { return Ok(None) };
            if let Some(kept) = self.frame_and_next(at)? {
                return Ok(event_in(&kept.frame, id, self.is_erased(id)?)?.map(Arc::new));
            }
        }
        Ok(None)
    }

    /// The event, if neither key space nor journal need be asked for it.
    pub(super) fn event_in_memory(&self, id: EventId) -> Option<Result<Arc<Event>, StoreError>> {
        self.recent.get(id).map(Ok).or_else(|| self.frames.event(id))
    }

    fn is_erased(&self, id: EventId) -> Result<bool, StoreError> {
        let found = self.state().get(&erased::key(id)).map_err(|e| self.fail(&e))?;
        Ok(found.is_some())
    }

    /// See [`Store::deliveries`](crate::store::Store::deliveries).
    pub(super) fn read_deliveries(&self, id: EventId) -> Result<Option<Vec<Delivery>>, StoreError> {
        let Some(event) = self.read_event(id)? else { return Ok(None) };
        let state = self.state();
        // Dropped meanwhile, its dead letters would seem delivered.
        if locate(&state, id).map_err(|e| self.fail(&e))?.is_none() {
            return Ok(None);
        }
        let deliveries = event.meta.endpoints.iter().map(|endpoint| {
            let id = DeliveryId { endpoint: *endpoint, event: id };
            entry_of(&state, id).map(|entry| Delivery { id, state: state_of(entry) })
        });
        deliveries.collect::<Result<_, _>>().map(Some).map_err(|e| self.fail(&e))
    }

    /// See [`Store::attempts`](crate::store::Store::attempts).
    pub(super) fn read_attempts(&self, id: EventId) -> Result<Option<Vec<AttemptRecord>>, StoreError> {
        let Some(event) = self.read_event(id)? else { return Ok(None) };
        let found = self.reader.find(id.as_u128()).map_err(|e| self.unread(&e))?;
        let mut attempts = Vec::new();
        for place in found.into_iter().filter(|found| found.kind == kind::SETTLED) {
            let Some(kept) = self.frame(At { segment: place.segment, offset: place.offset })? else { continue };
            let frame = &kept.frame;
            let index = place.index as usize;
            let Ok(fact) = Fact::decode(place.kind, &frame.meta(index)) else {
                return Err(unreadable(place.segment, place.offset));
            };
            if let Fact::Settled { delivery, attempt, next, .. } = fact {
                let erased = event.erased || frame.records[index].state == BodyState::Zeroed;
                let response = if erased { Bytes::new() } else { Bytes::copy_from_slice(&frame.body(index)) };
                attempts.push(AttemptRecord { endpoint: delivery.endpoint, attempt, next, response });
            }
        }
        Ok(Some(attempts))
    }

    /// How many attempts of a delivered delivery are on record; 0 for others, whose state says it.
    pub(super) fn attempts_made(&self, id: DeliveryId) -> Result<u32, StoreError> {
        if entry_of(&self.state(), id).map_err(|e| self.fail(&e))?.is_some() {
            return Ok(0);
        }
        let attempts = self.read_attempts(id.event)?.unwrap_or_default();
        let numbers = attempts.iter().filter(|a| a.endpoint == id.endpoint).map(|a| a.attempt.number);
        Ok(numbers.max().unwrap_or(0))
    }

    /// See [`Store::dead`](crate::store::Store::dead).
    pub(super) fn read_dead(&self, query: &DeadQuery) -> Result<Page<DeadLetter, DeadKey>, StoreError> {
        let (mut low, mut high) = (dead::key(query.since_ms.unwrap_or(0), LOWEST), vec![dead::FAMILY + 1]);
        if let Some(until_ms) = query.until_ms {
            high = dead::key(until_ms, LOWEST);
        }
        let (mut after, mut way) = (false, Layered::Down);
        match query.cursor {
            Cursor::Start => {}
            Cursor::OlderThan(key) => high = high.min(dead::key(key.at_ms, key.delivery)),
            Cursor::NewerThan(key) => {
                let key = dead::key(key.at_ms, key.delivery);
                if key >= low {
                    (low, after) = (key, true);
                }
                way = Layered::Up;
            }
        }
        let (mut data, mut looked_at, mut last, mut more) = (Vec::new(), 0, None, false);
        let from = if after { Bound::Excluded(&low[..]) } else { Bound::Included(&low[..]) };
        let scanned = self.state().scan(from, Bound::Excluded(&high), way, |key, value| {
            let Some((at_ms, delivery)) = dead::parse_key(key) else { return ControlFlow::Continue(()) };
            let wanted = query.endpoint.is_none_or(|endpoint| endpoint == delivery.endpoint);
            looked_at += 1;
            // One wanted entry past the page, or too many unwanted ones: there is more to come.
            more = looked_at > LIST_DEAD_MAX || (wanted && data.len() == query.limit);
            if more {
                return ControlFlow::Break(());
            }
            if data.len() < query.limit {
                last = Some(DeadKey { at_ms, delivery });
            }
            if wanted && let Some(dead) = dead::parse_value(at_ms, value) {
                data.push(DeadLetter { delivery, dead });
            }
            ControlFlow::Continue(())
        });
        scanned.map_err(|e| self.fail(&e))?;
        if way == Layered::Up {
            data.reverse();
        }
        Ok(Page { data, next: last.filter(|_| more), unreadable: 0 })
    }

    /// See [`Store::events`](crate::store::Store::events).
    pub(super) fn read_events(&self, query: &EventQuery) -> Result<Page<Arc<Event>, EventId>, StoreError> {
        let mut walk = EventWalk::new(query);
        self.walk(&mut walk)?;
        let more = walk.is_full() && walk.looked_at.is_some() && self.has_events_beyond(&walk);
        let EventWalk { up, mut data, looked_at, unreadable, .. } = walk;
        if up {
            data.reverse();
        }
        Ok(Page { data, next: looked_at.filter(|_| more), unreadable })
    }

    /// Walks until the page is full or nothing is left.
    fn walk(&self, walk: &mut EventWalk<'_>) -> Result<(), StoreError> {
        // A segment that is dropped under the walk leaves its carried events elsewhere: look again from where it is.
        while !walk.is_full() && !self.walk_on(walk)? {}
        Ok(())
    }

    /// Walks as long as what was found in the key space is there; false when it is not.
    fn walk_on(&self, walk: &mut EventWalk<'_>) -> Result<bool, StoreError> {
        for (first, entry) in self.batches(walk.cursor)? {
            if walk.is_full() {
                break;
            }
            if !self.walk_batch(walk, first, entry)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The batches, and carried events, in which the listing may find something, in walking order.
    fn batches(&self, cursor: Cursor<EventId>) -> Result<Vec<(EventId, Entry)>, StoreError> {
        let state = self.state();
        let mut batches = Vec::new();
        let collect = |batches: &mut Vec<_>, key: &[u8], value: &[u8]| {
            if let (Some(first), Some(entry)) = (event::parse_key(key), event::parse_value(value)) {
                // While a carried event's old segment is still there, the batch shows it.
                if !entry.carried || first.as_u128() < state.meta.first_kept {
                    batches.push((first, entry));
                }
            }
            if batches.len() > LIST_FRAMES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (lowest, highest) = (event::key(EventId::MIN), event::key(EventId::MAX));
        let scanned = match cursor {
            Cursor::Start | Cursor::OlderThan(_) => {
                let high = match cursor {
                    Cursor::OlderThan(id) => event::key(id),
                    _ => highest,
                };
                state.scan(Bound::Included(&lowest), Bound::Excluded(&high), Layered::Down, |k, v| {
                    collect(&mut batches, k, v)
                })
            }
            Cursor::NewerThan(id) => {
                // The batch that holds the cursor may hold newer events too.
                let mut start = event::key(id);
                let below =
                    state.scan(Bound::Included(&lowest), Bound::Included(&event::key(id)), Layered::Down, |k, v| {
                        let sparse = event::parse_value(v).is_some_and(|entry| !entry.carried);
                        if sparse {
                            start = k.to_vec();
                            return ControlFlow::Break(());
                        }
                        ControlFlow::Continue(())
                    });
                below.and_then(|()| {
                    state.scan(Bound::Included(&start), Bound::Included(&highest), Layered::Up, |k, v| {
                        collect(&mut batches, k, v)
                    })
                })
            }
        };
        scanned.map_err(|e| self.fail(&e))?;
        Ok(batches)
    }

    /// Takes what is wanted from a batch; false when its segment is gone.
    fn walk_batch(&self, walk: &mut EventWalk<'_>, first: EventId, entry: Entry) -> Result<bool, StoreError> {
        walk.frames += 1;
        let kept = match self.frame(entry.at) {
            Ok(Some(kept)) => kept,
            Ok(None) => return Ok(false),
            Err(StoreError::Unreadable { .. }) => {
                walk.look_at(first);
                walk.unreadable += 1;
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let frame = &kept.frame;
        let came_in = || events_of(frame).into_iter().map(|(id, _)| id).collect();
        let mut ids = if entry.carried { vec![first] } else { came_in() };
        if !walk.up {
            ids.reverse();
        }
        for id in ids {
            if walk.is_full() {
                break;
            }
            if walk.passes_cursor(id) {
                walk.look_at(id);
                match event_in(frame, id, self.is_erased(id)?) {
                    Ok(event) => walk.data.extend(event.filter(|e| matches(walk.query, e)).map(Arc::new)),
                    Err(StoreError::Unreadable { .. }) => walk.unreadable += 1,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(true)
    }

    fn has_events_beyond(&self, walk: &EventWalk<'_>) -> bool {
        let rest = EventQuery { cursor: walk.cursor, limit: 1, ..walk.query.clone() };
        let mut rest = EventWalk::new(&rest);
        // What can't be read is told on the next page.
        self.walk(&mut rest).is_err() || rest.is_full() || rest.unreadable > 0
    }
}

/// The lowest delivery there could be.
const LOWEST: DeliveryId = DeliveryId { endpoint: EndpointId::MIN, event: EventId::MIN };

/// A listing of events on its way.
struct EventWalk<'q> {
    query: &'q EventQuery,
    up: bool,
    /// Where it is: what comes next lies beyond.
    cursor: Cursor<EventId>,
    data: Vec<Arc<Event>>,
    looked_at: Option<EventId>,
    frames: usize,
    unreadable: u64,
}

impl<'q> EventWalk<'q> {
    fn new(query: &'q EventQuery) -> Self {
        let up = matches!(query.cursor, Cursor::NewerThan(_));
        Self { query, up, cursor: query.cursor, data: Vec::new(), looked_at: None, frames: 0, unreadable: 0 }
    }

    fn is_full(&self) -> bool {
        self.data.len() >= self.query.limit || self.frames > LIST_FRAMES_MAX
    }

    fn passes_cursor(&self, id: EventId) -> bool {
        match self.cursor {
            Cursor::Start => true,
            Cursor::OlderThan(cursor) => id < cursor,
            Cursor::NewerThan(cursor) => id > cursor,
        }
    }

    fn look_at(&mut self, id: EventId) {
        self.looked_at = Some(id);
        self.cursor = if self.up { Cursor::NewerThan(id) } else { Cursor::OlderThan(id) };
    }
}

fn matches(query: &EventQuery, event: &Event) -> bool {
    let meta = &event.meta;
    query.app.is_none_or(|app| app == meta.app)
        && query.source.is_none_or(|source| Some(source) == meta.source)
        && query.event_type.as_ref().is_none_or(|t| Some(t) == meta.event_type.as_ref())
        && query.since_ms.is_none_or(|since| meta.accepted_ms >= since)
        && query.until_ms.is_none_or(|until| meta.accepted_ms < until)
}
