//! Counting at the start what the ledger keeps count of afterwards.

use std::ops::{Bound, ControlFlow};

use super::read::events_of;
use super::recovery::OpenError;
use crate::core::id::EventId;
use crate::env::Disk;
use crate::index::event::Entry;
use crate::index::{Layered, Ledger, State, dead, due, event};
use crate::journal::Reader;

/// The ledger of a state.
pub(super) fn count(state: &State) -> Result<Ledger, OpenError> {
    let mut ledger = Ledger::of_all();
    let mut carried = Vec::new();
    each(state, event::FAMILY, |key, value| {
        if let (Some(first), Some(Entry { carried: alone, at })) = (event::parse_key(key), event::parse_value(value)) {
            if alone {
                carried.push((first, at.segment));
            } else {
                ledger.event_at(at.segment, first);
            }
        }
    })?;
    // Before the pending are counted, so that each is counted where its event is now.
    carried.into_iter().for_each(|(event, segment)| ledger.carry(event, segment, 0));
    each(state, due::FAMILY, |key, _| {
        if let Some((_, _, event)) = due::parse_key(key) {
            ledger.add_pending(event);
        }
    })?;
    each(state, dead::FAMILY, |_, _| ledger.dead += 1)?;
    Ok(ledger)
}

/// The newest event id that was given out, as far as the journal still knows it.
pub(super) fn last_id<D: Disk>(state: &State, reader: &Reader<D>) -> Result<EventId, OpenError> {
    // Ids below this one may have been given out and dropped.
    let mut highest = EventId::from_u128(state.meta.first_kept);
    let mut last = None;
    let (from, to) = ([event::FAMILY], [event::FAMILY + 1]);
    state.scan(Bound::Included(&from), Bound::Excluded(&to), Layered::Down, |key, value| {
        match (event::parse_key(key), event::parse_value(value)) {
            // The batch that it came in with may hold later events, and may still be there.
            (Some(id), Some(entry)) if entry.carried => highest = highest.max(id),
            (first, entry) => {
                last = first.zip(entry);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    let Some((first, entry)) = last else { return Ok(highest) };
    let frame = reader.frame_at(entry.at.segment, entry.at.offset)?;
    Ok(events_of(&frame).last().map_or(first, |(last, _)| *last).max(highest))
}

fn each(state: &State, family: u8, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), OpenError> {
    let (from, to) = ([family], [family + 1]);
    let scanned = state.scan(Bound::Included(&from), Bound::Excluded(&to), Layered::Up, |key, value| {
        visit(key, value);
        ControlFlow::Continue(())
    });
    Ok(scanned?)
}
