//! Counts that are kept as things change, so that metrics and retention never scan: pending deliveries in all, by the age of
//! their event and by segment, and dead letters.

use std::collections::{BTreeMap, HashMap};

use crate::core::id::EventId;

/// What is kept count of.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Pending deliveries.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Pending deliveries by the millisecond of their event.
    ages: BTreeMap<u64, u32>,
    /// First event of each segment that has one → number of the segment.
    starts: BTreeMap<EventId, u64>,
    /// Events that were carried → the segment they are in now.
    carried: HashMap<EventId, u64>,
    /// Pending deliveries by the segment of their event.
    live: HashMap<u64, u64>,
    /// Whether it was told of every event that there is.
    is_whole: bool,
}

impl Ledger {
    /// One that is told of every event that there is, and not only of those since some moment.
    pub fn of_all() -> Self {
        Self { is_whole: true, ..Self::default() }
    }

    /// A frame in `segment` starts with this event; only the first of a segment counts.
    pub fn event_at(&mut self, segment: u64, first: EventId) {
        if self.starts.last_key_value().is_none_or(|(_, last)| *last < segment) {
            self.starts.insert(first, segment);
        }
    }

    /// A delivery of this event became pending.
    pub fn add_pending(&mut self, event: EventId) {
        self.pending += 1;
        *self.ages.entry(event.ms()).or_default() += 1;
        if let Some(segment) = self.segment_of(event) {
            *self.live.entry(segment).or_default() += 1;
        }
    }

    /// A delivery of this event is no longer pending.
    pub fn remove_pending(&mut self, event: EventId) {
        self.pending = self.pending.saturating_sub(1);
        if let Some(count) = self.ages.get_mut(&event.ms()) {
            *count -= 1;
            if *count == 0 {
                self.ages.remove(&event.ms());
            }
        }
        if let Some(segment) = self.segment_of(event) {
            self.remove_live(segment, 1);
        }
    }

    /// The event was carried into `segment` with so many pending deliveries.
    pub fn carry(&mut self, event: EventId, segment: u64, pending: u64) {
        if let Some(old) = self.segment_of(event) {
            self.remove_live(old, pending);
        }
        self.carried.insert(event, segment);
        *self.live.entry(segment).or_default() += pending;
    }

    /// A segment is gone; so is every event in it that was not carried.
    pub fn drop_segment(&mut self, segment: u64) {
        self.starts.retain(|_, number| *number > segment);
        self.carried.retain(|_, number| *number > segment);
        self.live.remove(&segment);
    }

    /// Where to look for what goes with the segments up to this one: ranges of ids, each from the first up to but not with the
    /// second. `first_kept` is the first id that came in after them. Of what was carried before, only that counts which was
    /// carried into these segments.
    pub fn spans_through(&self, segment: u64, first_kept: EventId) -> Vec<(EventId, EventId)> {
        if !self.is_whole {
            return vec![(EventId::MIN, first_kept)];
        }
        let came_in = self.starts.iter().find(|(_, number)| **number <= segment);
        let came_in = came_in.map(|(first, _)| (*first, first_kept));
        let carried = self.carried.iter().filter(|(_, number)| **number <= segment).map(|(event, _)| *event);
        let carried = carried.fold(None, |span: Option<(EventId, EventId)>, event| {
            let (low, high) = span.unwrap_or((event, event));
            Some((low.min(event), high.max(event)))
        });
        let carried = carried.map(|(low, high)| (low, high.successor().min(first_kept)));
        came_in.into_iter().chain(carried).collect()
    }

    /// Pending deliveries of the events in a segment.
    pub fn live_in(&self, segment: u64) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// The first event of the first segment above `segment` that has one.
    pub fn first_after(&self, segment: u64) -> Option<EventId> {
        self.starts.iter().find(|(_, number)| **number > segment).map(|(first, _)| *first)
    }

    /// Unix milliseconds of the oldest event with a pending delivery.
    pub fn oldest_pending_ms(&self) -> Option<u64> {
        self.ages.first_key_value().map(|(ms, _)| *ms)
    }

    fn segment_of(&self, event: EventId) -> Option<u64> {
        let carried = self.carried.get(&event).copied();
        carried.or_else(|| self.starts.range(..=event).next_back().map(|(_, segment)| *segment))
    }

    fn remove_live(&mut self, segment: u64, count: u64) {
        if let Some(live) = self.live.get_mut(&segment) {
            *live = live.saturating_sub(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_age_and_segment_and_moves_with_a_carried_event() {
        let id = |ms: u64, n: u128| EventId::at(ms, n);
        let mut ledger = Ledger::default();
        ledger.event_at(1, id(1_000, 0));
        ledger.event_at(1, id(2_000, 0));
        ledger.event_at(2, id(5_000, 0));
        ledger.add_pending(id(1_000, 3));
        ledger.add_pending(id(2_500, 0));
        ledger.add_pending(id(5_000, 0));
        assert_eq!((ledger.live_in(1), ledger.live_in(2)), (2, 1));
        assert_eq!(ledger.oldest_pending_ms(), Some(1_000));
        ledger.carry(id(1_000, 3), 2, 1);
        assert_eq!((ledger.live_in(1), ledger.live_in(2)), (1, 2));
        ledger.remove_pending(id(2_500, 0));
        ledger.drop_segment(1);
        assert_eq!((ledger.pending, ledger.live_in(2)), (2, 2));
        ledger.remove_pending(id(1_000, 3));
        assert_eq!(ledger.live_in(2), 1);
        assert_eq!(ledger.oldest_pending_ms(), Some(5_000));
        assert_eq!(ledger.first_after(1), Some(id(5_000, 0)));
    }

    #[test]
    fn what_goes_with_a_segment_is_not_looked_for_among_all_that_was_ever_carried() {
        let id = |n: u128| EventId::at(1_000, n);
        let mut ledger = Ledger::of_all();
        (1..=4).for_each(|segment| ledger.event_at(segment, id(u128::from(segment) * 100)));
        for (event, segment) in [(110, 4), (120, 4), (210, 5), (310, 5)] {
            ledger.carry(id(event), segment, 1);
        }
        assert_eq!(ledger.spans_through(1, id(200)), [(id(100), id(200))]);
        (1..=3).for_each(|segment| ledger.drop_segment(segment));
        assert_eq!(ledger.spans_through(4, id(500)), [(id(400), id(500)), (id(110), id(121))]);
        ledger.drop_segment(4);
        assert_eq!(ledger.spans_through(5, id(500)), [(id(210), id(311))]);
        assert_eq!(Ledger::default().spans_through(5, id(500)), [(EventId::MIN, id(500))], "it may be anything");
    }
}
