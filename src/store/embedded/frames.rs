//! Frames of the journal that were read last, and the events in them. Deliveries fall due in the order they came, but for the
//! jitter of their retries, so what is wanted next is mostly in one of these. It is found by its id, without asking the key
//! space where it is.
//!
//! **Invariant:** no frame is kept that was read before the last [`Frames::forget`]. So what is found here is neither erased
//! nor dropped meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::read::{event_at, events_of};
use crate::core::event::Event;
use crate::core::id::EventId;
use crate::index::event::At;
use crate::journal::Frame;
use crate::store::StoreError;

/// Bytes of frames that are kept, with what is known of their events.
const BYTES_MAX: usize = 8 << 20;

/// Bytes of the journal that are read at once where it is read in order.
const READ_ON_BYTES: u64 = 64 << 10;

/// Among so many frames, the last ones asked for, it is seen whether the journal is read in order.
const IN_ORDER_AMONG: usize = 16;

/// The frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The last one asked for first.
    kept: VecDeque<(At, Arc<Kept>)>,
    bytes: usize,
    /// How often all was forgotten.
    forgotten: u64,
}

/// A frame with its events.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) frame: Frame,
    /// In the order of their ids, each with its place in the frame. Those that were carried are not among them: only the key
    /// space knows which of several copies counts.
    events: Vec<(EventId, usize)>,
    /// Those of them whose content was erased.
    erased: Vec<EventId>,
}

impl Kept {
    pub(super) fn new(frame: Frame, erased: Vec<EventId>) -> Self {
        Self { events: events_of(&frame), frame, erased }
    }

    fn place(&self, id: EventId) -> Option<usize> {
        let found = self.events.binary_search_by_key(&id, |(event, _)| *event).ok()?;
        Some(self.events[found].1)
    }

    fn bytes(&self) -> usize {
        let of_records = size_of_val(&self.frame.records[..]) + size_of_val(&self.events[..]);
        self.frame.at.len as usize + of_records + size_of::<Self>()
    }
}

impl Frames {
    /// The frame at a place, if it is here.
    pub(super) fn get(&self, at: At) -> Option<Arc<Kept>> {
        self.inner().first(|(have, _)| *have == at)
    }

    /// The event, if the frame it came in with is here.
    pub(super) fn event(&self, id: EventId) -> Option<Result<Arc<Event>, StoreError>> {
        let of_it = |kept: &Kept| match (kept.events.first(), kept.events.last()) {
            (Some((first, _)), Some((last, _))) => (*first..=*last).contains(&id),
            _ => false,
        };
        let kept = self.inner().first(|(_, kept)| of_it(kept))?;
        let index = kept.place(id)?;
        Some(event_at(&kept.frame, index, kept.erased.contains(&id)).map(Arc::new))
    }

    /// Up to where the journal is to be read on behind a frame at this place, which was just read: nowhere if the frame is large,
    /// or if those asked for last lie elsewhere. While few events come at a time a frame holds one or two of them, and one read
    /// for each would cost more than its delivery.
    pub(super) fn read_on(&self, at: At, end: u64) -> u64 {
        let just_before = |(have, kept): &(At, Arc<Kept>)| {
            let end = kept.frame.at.end();
            have.segment == at.segment && end <= at.offset && at.offset - end < READ_ON_BYTES
        };
        let in_order = self.inner().kept.iter().take(IN_ORDER_AMONG).any(just_before);
        if in_order { at.offset + READ_ON_BYTES } else { end }
    }

    /// To be given to [`keep`](Self::keep) with what is read from now on.
    pub(super) fn before_reading(&self) -> u64 {
        self.inner().forgotten
    }

    /// Keeps a frame that was read after `before_reading`.
    pub(super) fn keep(&self, before_reading: u64, at: At, kept: Arc<Kept>) {
        let mut inner = self.inner();
        // Two readers may have read it at once.
        if inner.forgotten != before_reading || inner.first(|(have, _)| *have == at).is_some() {
            return;
        }
        inner.bytes += kept.bytes();
        inner.kept.push_front((at, kept));
        while inner.bytes > BYTES_MAX {
            let Some((_, oldest)) = inner.kept.pop_back() else { break };
            inner.bytes -= oldest.bytes();
        }
    }

    /// Nothing that was read so far must be found again.
    pub(super) fn forget(&self) {
        let mut inner = self.inner();
        *inner = Inner { forgotten: inner.forgotten + 1, ..Inner::default() };
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn first(&mut self, is_wanted: impl Fn(&(At, Arc<Kept>)) -> bool) -> Option<Arc<Kept>> {
        let place = self.kept.iter().position(is_wanted)?;
        let found = self.kept.remove(place)?;
        let kept = Arc::clone(&found.1);
        self.kept.push_front(found);
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::core::fact::Fact;
    use crate::core::limits::StoreLimits;
    use crate::env::MemDisk;
    use crate::journal::{Journal, RecordRef};

    fn id(n: usize) -> EventId {
        EventId::from_u128(n as u128)
    }

    fn body(n: usize, bytes: usize) -> Vec<u8> {
        vec![n as u8 + 1; bytes]
    }

    fn fact(n: usize) -> Fact {
        let meta = super::super::recent::tests::meta(id(n), Vec::new());
        Fact::Accepted { meta: meta.into(), dedup: Vec::new(), dedup_expires_ms: 0, fingerprint: 0 }
    }

    /// Frames of two events each, with bodies of so many bytes.
    fn frames(count: usize, bytes: usize) -> Vec<(At, Frame)> {
        let (disk, dir) = (Arc::new(MemDisk::new()), Path::new("/journal"));
        let options = super::super::recovery::journal_options(&StoreLimits::default());
        let mut journal = Journal::open(disk, dir, options, 1, 0).unwrap().0;
        let mut append = |first: usize| {
            let written: Vec<_> = [first, first + 1].map(|n| (fact(n), body(n, bytes))).into();
            let metas: Vec<_> = written
                .iter()
                .map(|(fact, _)| {
                    let mut meta = Vec::new();
                    fact.encode_into(&mut meta);
                    meta
                })
                .collect();
            let records: Vec<_> = written
                .iter()
                .zip(&metas)
                .map(|((fact, body), meta)| RecordRef { kind: fact.kind(), key: fact.key(), meta, body })
                .collect();
            let at = journal.append_batch(0, &records).unwrap();
            journal.sync().unwrap();
            let frame = journal.reader().frame_at(at.segment, at.offset).unwrap();
            (At { segment: at.segment, offset: at.offset }, frame)
        };
        (0..count).map(|n| append(2 * n)).collect()
    }

    fn keep(frames: &Frames, (at, frame): (At, Frame), erased: Vec<EventId>) {
        frames.keep(frames.before_reading(), at, Arc::new(Kept::new(frame, erased)));
    }

    #[test]
    fn an_event_is_found_by_its_id_in_the_frame_it_came_in_with() {
        let kept = Frames::default();
        for read in frames(3, 5) {
            keep(&kept, read, vec![id(4)]);
        }
        for n in 0..6 {
            let event = kept.event(id(n)).unwrap().unwrap();
            assert_eq!((event.meta.id, event.erased), (id(n), n == 4));
            assert_eq!(event.body, if n == 4 { Vec::new() } else { body(n, 5) });
        }
        assert!(kept.event(id(6)).is_none());
    }

    #[test]
    fn what_was_asked_for_last_stays_and_the_bytes_are_bounded() {
        let kept = Frames::default();
        // Three of them fit.
        for read in frames(5, BYTES_MAX / 8) {
            keep(&kept, read, Vec::new());
            assert!(kept.event(id(0)).is_some());
        }
        let found = [0, 2, 4, 6, 8].map(|n| kept.event(id(n)).is_some());
        assert_eq!(found, [true, false, false, true, true]);
        let inner = kept.inner();
        assert_eq!(inner.bytes, inner.kept.iter().map(|(_, kept)| kept.bytes()).sum::<usize>());
        assert!(inner.bytes <= BYTES_MAX);
    }

    #[test]
    fn a_frame_that_was_read_before_all_was_forgotten_is_not_kept() {
        let kept = Frames::default();
        let mut read = frames(2, 5);
        let before = kept.before_reading();
        keep(&kept, read.remove(0), Vec::new());
        kept.forget();
        let (at, frame) = read.remove(0);
        kept.keep(before, at, Arc::new(Kept::new(frame, Vec::new())));
        assert!(kept.event(id(0)).is_none() && kept.event(id(2)).is_none() && kept.get(at).is_none());
    }

    #[test]
    fn what_is_read_in_order_is_read_on() {
        let kept = Frames::default();
        let read = frames(2 * IN_ORDER_AMONG, 5);
        let places: Vec<_> = read.iter().map(|(at, frame)| (*at, frame.at.end())).collect();
        let reads_on = |n: usize| kept.read_on(places[n].0, places[n].1) > places[n].1;
        let mut read = read.into_iter();
        keep(&kept, read.next().unwrap(), Vec::new());
        assert!(!reads_on(0), "there is nothing before it");
        // Between the two there may be frames without events.
        assert!(reads_on(1) && reads_on(3));
        let later = read.skip(IN_ORDER_AMONG - 1);
        later.for_each(|frame| keep(&kept, frame, Vec::new()));
        assert!(!reads_on(1), "others were asked for since");
        assert!(kept.event(id(0)).is_some() && reads_on(1));
    }
}
