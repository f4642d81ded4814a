//! Which segment may go, and what must be carried out of it first.
//!
//! Only the oldest segment is ever dropped. What it holds of lasting worth is written again at the end of the journal:
//! events with pending deliveries, with the full state of those; dedup keys whose window is open. Everything else in it
//! is past retention.

use std::sync::Arc;

use bytes::Bytes;

use super::ballast::ballast_bytes;
use super::draft::{DEDUP_ENTRY_BYTES, fact_bytes};
use super::recovery::carried_bytes_max;
use super::shared::Shared;
use crate::core::delivery::{Dead, DeliveryId, Pending};
use crate::core::error::chain;
use crate::core::event::{DedupKey, EventMeta};
use crate::core::fact::{DedupEntry, Fact};
use crate::core::id::{EndpointId, EventId};
use crate::core::limits::StoreLimits;
use crate::env::Disk;
use crate::index::{State, TreeError, delivery, entry_of};
use crate::journal::{BodyState, ReadFrom, SegmentInfo};
use crate::store::StoreError;

/// Dedup keys of one record, if a batch has room for them.
const CARRIED_KEYS_MAX: usize = 20_000;

/// Segments kept free of events, for settles and for carrying.
const RESERVED_SEGMENTS: u64 = 2;

/// What is to be carried out of a segment.
pub(super) struct DropPlan {
    /// The segment.
    pub(super) segment: u64,
    events: Vec<(Arc<EventMeta>, Bytes)>,
    keys: Vec<(DedupKey, DedupEntry)>,
}

/// What to do about the oldest segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oldest {
    /// Nothing: it is within retention.
    Keep,
    /// It goes.
    Drop,
    /// It should go, but too much of it is pending.
    Stuck,
}

/// Pending deliveries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live {
    /// Of the events in the oldest segment.
    pub(super) oldest: u64,
    /// Of all events.
    pub(super) all: u64,
}

/// Judges the oldest of these segments.
pub(super) fn judge(
    segments: &[SegmentInfo],
    used_bytes: u64,
    live: Live,
    limits: &StoreLimits,
    now_ms: Option<u64>,
) -> Oldest {
    // One segment is being written and never goes.
    let (Some(oldest), true) = (segments.first(), segments.len() > 1) else { return Oldest::Keep };
    let too_old = now_ms.is_some_and(|now| oldest.last_time_ms.saturating_add(limits.retention_ms) < now);
    let too_much = used_bytes > bytes_max(limits);
    if !oldest.sealed || !(too_old || too_much) {
        return Oldest::Keep;
    }
    // Under a quarter live it is worth carrying; above it the copy would cost more than the drop gains. But all that come
    // after it wait for it, so it is carried as well where that costs little or where they make up for it.
    let is_small = oldest.bytes.saturating_mul(4) <= limits.segment_bytes;
    let records: u64 = segments.iter().map(|segment| segment.records).sum();
    let pays = live.oldest * 4 <= oldest.records || is_small || live.all * 4 <= records;
    if pays { Oldest::Drop } else { Oldest::Stuck }
}

/// Journal bytes past which events must go, or intake closes. The file of a dropped segment that is kept for a later one
/// does not count: no event goes to make room for it, and taking it up again needs none.
pub(super) fn bytes_max(limits: &StoreLimits) -> u64 {
    limits.retention_bytes.saturating_sub(RESERVED_SEGMENTS * limits.segment_bytes).max(limits.segment_bytes)
}

/// Dedup keys that are remembered when segments are dropped. Half of what is left beside the segment that is written and
/// the two prepared ones: more, and dropping a segment would free no more than carrying its keys takes, for ever.
fn dedup_keys_max(limits: &StoreLimits) -> u64 {
    let room = bytes_max(limits).saturating_sub(3 * limits.segment_bytes).max(limits.segment_bytes);
    room / 2 / DEDUP_ENTRY_BYTES as u64
}

impl<D: Disk> Shared<D> {
    /// Reads a sealed segment for what must be carried out of it. One that can't be read whole is
    /// [`StoreError::Unreadable`]: what is damaged may be pending.
    pub(super) fn plan_drop(&self, segment: &SegmentInfo) -> Result<DropPlan, StoreError> {
        let mut plan = DropPlan { segment: segment.number, events: Vec::new(), keys: Vec::new() };
        let now_ms = self.time.now_ms();
        let live = self.state().ledger.live_in(segment.number) > 0;
        // Their windows may be longer than those of today, so the keys themselves say whether they hold.
        let has_keys = self.state().dedup_keys() > 0;
        if !live && !has_keys {
            return Ok(plan);
        }
        for frame in self.reader.frames(ReadFrom::Sequence(segment.first_sequence)) {
            let frame = frame.map_err(|e| self.unread(&e))?;
            if frame.at.segment != segment.number {
                break;
            }
            for (index, record) in frame.records.iter().enumerate() {
                let Ok(fact) = Fact::decode(record.kind, &frame.meta(index)) else {
                    return Err(super::read::unreadable(frame.at.segment, frame.at.offset));
                };
                let body = (record.state == BodyState::Intact).then(|| frame.body(index));
                plan.consider(&self.state(), fact, body, now_ms).map_err(|e| self.fail(&e))?;
            }
        }
        Ok(plan)
    }

    /// The segments and the judgement over the oldest.
    pub(super) fn judge_oldest(&self) -> (Option<SegmentInfo>, Oldest) {
        let segments = self.reader.segments();
        let live = {
            let ledger = &self.state().ledger;
            Live { oldest: segments.first().map_or(0, |s| ledger.live_in(s.number)), all: ledger.pending }
        };
        let now_ms = self.time.is_trusted().then(|| self.time.now_ms());
        let used_bytes = self.counts.journal_used_bytes.load(std::sync::atomic::Ordering::Relaxed);
        (segments.first().copied(), judge(&segments, used_bytes, live, &self.limits, now_ms))
    }

    /// Whether the file system has less room than it must.
    pub(super) fn disk_is_full(&self, disk: &D, dir: &std::path::Path) -> bool {
        match disk.space(dir) {
            // Five per cent of a small disk is a fairer floor than the configured bytes; but the next segment must fit, and what
            // the key space writes meanwhile.
            Ok(space) => {
                let floor = self.limits.free_bytes_min.min(space.total_bytes / 20);
                space.free_bytes < floor.max(ballast_bytes(&self.limits))
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the free space of the data directory can't be read");
                false
            }
        }
    }
}

impl DropPlan {
    fn consider(&mut self, state: &State, fact: Fact, body: Option<Bytes>, now_ms: u64) -> Result<(), TreeError> {
        match fact {
            Fact::Accepted { meta, dedup, .. } => {
                for key in dedup {
                    self.consider_key(state, key, meta.id, now_ms)?;
                }
                self.consider_event(state, meta, body)
            }
            Fact::Carried { meta, .. } => self.consider_event(state, meta, body),
            Fact::DedupCarried { entries } => {
                for (key, entry) in entries {
                    self.consider_key(state, key, entry.event, now_ms)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A key is carried while it holds and still stands for this event.
    fn consider_key(&mut self, state: &State, key: DedupKey, event: EventId, now_ms: u64) -> Result<(), TreeError> {
        let known = super::read::dedup(state, &key)?;
        self.keys.extend(known.filter(|e| e.event == event && now_ms < e.expires_ms).map(|entry| (key, entry)));
        Ok(())
    }

    fn consider_event(&mut self, state: &State, meta: Arc<EventMeta>, body: Option<Bytes>) -> Result<(), TreeError> {
        // An event that was carried on already is another segment's concern. One that was erased has nothing pending.
        let here = super::read::locate(state, meta.id)?.is_some_and(|at| at.segment == self.segment);
        if let (true, Some(body)) = (here, body)
            && !states_of(state, &meta)?.pending.is_empty()
        {
            self.events.push((meta, Bytes::copy_from_slice(&body)));
        }
        Ok(())
    }

    /// What must be done before the segment can be dropped; `None` when the plan is out of date, or when a fact does not
    /// fit into a batch.
    pub(super) fn carry(&self, state: &State, limits: &StoreLimits, now_ms: u64) -> Result<Option<Carry>, TreeError> {
        let mut facts = Vec::new();
        let mut keys = Vec::new();
        for (key, entry) in &self.keys {
            // One that ended since the plan was made may be another event's by now.
            if now_ms < entry.expires_ms && super::read::dedup(state, key)? == Some(*entry) {
                keys.push((*key, *entry));
            }
        }
        // The oldest stand in front: carried ones before those that were claimed here.
        let excess = usize::try_from(state.dedup_keys().saturating_sub(dedup_keys_max(limits))).unwrap_or(usize::MAX);
        let forgotten: Vec<_> = keys.drain(..excess.min(keys.len())).map(|(key, _)| key).collect();
        let keys_max = (limits.batch_bytes_max / DEDUP_ENTRY_BYTES / 2).clamp(1, CARRIED_KEYS_MAX);
        for entries in keys.chunks(keys_max) {
            facts.push((Fact::DedupCarried { entries: entries.to_vec() }, Bytes::new()));
        }
        let mut carried = 0;
        for (meta, body) in &self.events {
            let States { pending, dead } = states_of(state, meta)?;
            if !pending.is_empty() {
                carried += pending.len() as u64;
                facts.push((Fact::Carried { meta: Arc::clone(meta), pending, dead }, body.clone()));
            }
        }
        // An event of a time when batches were larger waits until it is delivered.
        if facts.iter().any(|(fact, body)| fact_bytes(fact) + body.len() > carried_bytes_max(limits)) {
            tracing::warn!(segment = self.segment, "an event is larger than a batch may be now; its segment stays");
            return Ok(None);
        }
        // A replay since the plan was made can only have made more pending than it carries.
        Ok((carried == state.ledger.live_in(self.segment)).then_some(Carry { facts, forgotten }))
    }
}

/// What a plan comes to.
pub(super) struct Carry {
    /// Facts that carry what must stay.
    pub(super) facts: Vec<(Fact, Bytes)>,
    /// Dedup keys that go before their time, as there are too many.
    pub(super) forgotten: Vec<DedupKey>,
}

/// How the deliveries of an event stand that did not arrive.
struct States {
    pending: Vec<(EndpointId, Pending)>,
    dead: Vec<(EndpointId, Dead)>,
}

fn states_of(state: &State, meta: &EventMeta) -> Result<States, TreeError> {
    let (mut pending, mut dead) = (Vec::new(), Vec::new());
    for endpoint in &meta.endpoints {
        match entry_of(state, DeliveryId { endpoint: *endpoint, event: meta.id })? {
            Some(delivery::Entry::Pending(entry)) => pending.push((*endpoint, entry)),
            Some(delivery::Entry::Dead(entry)) => dead.push((*endpoint, entry)),
            None => {}
        }
    }
    Ok(States { pending, dead })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::DedupScope;
    use crate::core::id::EventId;
    use crate::index::{Home, Meta, dedup};

    fn segment(number: u64, last_time_ms: u64, records: u64) -> SegmentInfo {
        SegmentInfo {
            number,
            bytes: 100,
            records,
            first_time_ms: last_time_ms,
            last_time_ms,
            first_sequence: number,
            last_sequence: number,
            sealed: true,
        }
    }

    #[test]
    fn the_oldest_goes_for_its_age_or_for_want_of_room_unless_much_of_it_is_pending() {
        let limits =
            StoreLimits { segment_bytes: 100, retention_bytes: 1_000, retention_ms: 500, ..StoreLimits::default() };
        let segments = [segment(1, 1_000, 40), segment(2, 2_000, 40)];
        let judge = |bytes, oldest, now| judge(&segments, bytes, Live { oldest, all: 80 }, &limits, now);
        assert_eq!(judge(200, 0, Some(1_400)), Oldest::Keep);
        assert_eq!(judge(200, 0, Some(1_501)), Oldest::Drop);
        assert_eq!(judge(200, 0, None), Oldest::Keep, "an untrusted clock drops nothing");
        assert_eq!(judge(801, 0, None), Oldest::Drop);
        assert_eq!(judge(801, 10, None), Oldest::Drop);
        assert_eq!(judge(801, 11, None), Oldest::Stuck);
        let none = Live { oldest: 0, all: 0 };
        assert_eq!(super::judge(&segments[..1], 9_999, none, &limits, Some(9_999)), Oldest::Keep);
        let unsealed = [SegmentInfo { sealed: false, ..segments[0] }, segments[1]];
        assert_eq!(super::judge(&unsealed, 9_999, none, &limits, None), Oldest::Keep);
    }

    #[test]
    fn a_key_that_was_claimed_anew_since_the_plan_was_made_is_not_carried() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Home::Directory(dir.path().to_owned()).open(1 << 20).unwrap();
        let mut state = State::new(tree, Meta::default());
        let key = |n| DedupKey { scope: DedupScope::Inbound, hash: n };
        let entry = |n, expires_ms| DedupEntry { event: EventId::from_u128(n), fingerprint: 0, expires_ms };
        let plan = DropPlan {
            segment: 1,
            events: Vec::new(),
            keys: vec![(key(1), entry(1, 50)), (key(2), entry(2, 200)), (key(3), entry(3, 200))],
        };
        // The first has ended, the second belongs to another by now, the third is as it was.
        for (key, entry) in [(key(1), entry(1, 50)), (key(2), entry(9, 300)), (key(3), entry(3, 200))] {
            state.table().insert(dedup::key(&key), dedup::value(&entry));
        }
        let carry = plan.carry(&state, &StoreLimits::default(), 100).unwrap().unwrap();
        let facts: Vec<_> = carry.facts.into_iter().map(|(fact, _)| fact).collect();
        assert_eq!(facts, [Fact::DedupCarried { entries: vec![(key(3), entry(3, 200))] }]);
    }

    #[test]
    fn a_live_segment_holds_back_the_others_only_while_they_are_as_live() {
        let limits = StoreLimits { segment_bytes: 100, retention_bytes: 1_000, ..StoreLimits::default() };
        let mut segments = [segment(1, 1_000, 40), segment(2, 2_000, 40), segment(3, 3_000, 40)];
        let judge = |segments: &[SegmentInfo], all| judge(segments, 801, Live { oldest: 40, all }, &limits, None);
        assert_eq!(judge(&segments, 31), Oldest::Stuck);
        assert_eq!(judge(&segments, 30), Oldest::Drop, "what follows makes up for it");
        segments[0].bytes = 25;
        assert_eq!(judge(&segments, 120), Oldest::Drop, "it costs little");
        segments[0].bytes = 26;
        assert_eq!(judge(&segments, 120), Oldest::Stuck);
    }
}
