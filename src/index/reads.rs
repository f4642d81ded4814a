//! Reads of sled that are under way, so that one which never returns is noticed: after an I/O error sled may wait for ever, and
//! whoever reads holds what all others need.
//!
//! A read costs two atomic operations. Time is counted in ticks, which whoever watches makes: nobody looks at a clock.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Reads that are watched at once. Past it, a read goes unwatched.
const SLOTS: usize = 64;

/// Nothing is read in a slot.
const FREE: u64 = 0;

/// What is being read.
#[derive(Debug)]
pub(super) struct Reads {
    /// The tick in which a slot's read began.
    slots: [AtomicU64; SLOTS],
    tick: AtomicU64,
}

/// A read under way.
#[derive(Debug)]
pub(super) struct Reading<'r> {
    slot: Option<&'r AtomicU64>,
}

impl Default for Reads {
    fn default() -> Self {
        Self { slots: [const { AtomicU64::new(FREE) }; SLOTS], tick: AtomicU64::new(FREE + 1) }
    }
}

impl Reads {
    /// A read begins; it ends with what is returned.
    pub(super) fn begin(&self) -> Reading<'_> {
        let tick = self.tick.load(Ordering::Relaxed);
        let claim = |slot: &&AtomicU64| {
            slot.load(Ordering::Relaxed) == FREE
                && slot.compare_exchange(FREE, tick, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        // Each thread starts at a slot of its own, which is nearly always free.
        let first = SLOT.with(|slot| *slot);
        let mut slots = self.slots[first..].iter().chain(&self.slots[..first]);
        Reading { slot: slots.find(claim) }
    }

    /// Lets a tick pass; how many ticks the oldest read has seen pass.
    pub(super) fn tick(&self) -> u64 {
        let now = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        let begun = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|begun| *begun != FREE);
        begun.min().map_or(0, |oldest| now - oldest)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot.store(FREE, Ordering::Relaxed);
        }
    }
}

thread_local! {
    static SLOT: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_read_counts_until_it_ends() {
        let reads = Reads::default();
        assert_eq!(reads.tick(), 0);
        let first = reads.begin();
        assert_eq!([reads.tick(), reads.tick()], [1, 2]);
        let second = reads.begin();
        assert_eq!(reads.tick(), 3);
        drop(first);
        assert_eq!(reads.tick(), 2);
        drop(second);
        assert_eq!(reads.tick(), 0);
    }

    #[test]
    fn more_reads_than_slots_are_no_harm() {
        let reads = Reads::default();
        let mut many: Vec<_> = (0..SLOTS + 3).map(|_| reads.begin()).collect();
        assert_eq!(reads.tick(), 1);
        // The first alone had a slot of the first tick's; the last had none.
        many.drain(1..);
        assert_eq!(reads.tick(), 2);
        drop(many);
        assert_eq!(reads.tick(), 0);
    }
}
