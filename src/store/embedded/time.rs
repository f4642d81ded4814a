//! Engine time: the wall clock at the start, carried on by the monotonic clock. It never goes back, not even over a
//! restart with a wall clock that is behind the journal's.

use std::sync::Arc;

use crate::env::Clock;

/// Milliseconds of steady running after which a clock that was behind at the start is trusted again.
const TRUST_AFTER_MS: u64 = 3_600_000;

/// The store's clock.
pub(super) struct EngineTime {
    clock: Arc<dyn Clock>,
    base_ms: u64,
    mono_base_ms: u64,
    behind_ms: u64,
}

impl EngineTime {
    /// Starts at the wall clock's time, or at the newest time in the journal where that is later.
    pub(super) fn start(clock: Arc<dyn Clock>, journal_ms: u64) -> Self {
        let (wall_ms, mono_base_ms) = (clock.wall_ms(), clock.mono_ms());
        Self { base_ms: wall_ms.max(journal_ms), mono_base_ms, behind_ms: journal_ms.saturating_sub(wall_ms), clock }
    }

    /// Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.base_ms + self.clock.mono_ms().saturating_sub(self.mono_base_ms)
    }

    /// Microseconds of an arbitrary origin, for durations.
    pub(super) fn mono_us(&self) -> u64 {
        self.clock.mono_us()
    }

    /// How far the wall clock was behind the journal at the start.
    pub(super) const fn behind_ms(&self) -> u64 {
        self.behind_ms
    }

    /// Milliseconds that the wall clock is ahead of engine time now; it steps, engine time does not.
    pub(super) fn wall_ahead_ms(&self) -> i64 {
        self.clock.wall_ms() as i64 - self.now_ms() as i64
    }

    /// Whether events may be dropped for their age: not while the clock may be wrong.
    pub(super) fn is_trusted(&self) -> bool {
        self.behind_ms == 0 || self.clock.mono_ms().saturating_sub(self.mono_base_ms) >= TRUST_AFTER_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::ManualClock;

    #[test]
    fn it_goes_on_from_the_journal_and_ignores_steps_of_the_wall_clock() {
        let clock = Arc::new(ManualClock::at(1_000));
        let time = EngineTime::start(clock.clone(), 5_000);
        assert_eq!((time.now_ms(), time.behind_ms(), time.is_trusted()), (5_000, 4_000, false));
        clock.advance_mono(10);
        clock.set_wall(0);
        assert_eq!(time.now_ms(), 5_010);
        assert_eq!(time.wall_ahead_ms(), -5_010);
        clock.advance_mono(TRUST_AFTER_MS);
        assert!(time.is_trusted());
        let ahead = EngineTime::start(Arc::new(ManualClock::at(9_000)), 5_000);
        assert_eq!((ahead.now_ms(), ahead.behind_ms(), ahead.is_trusted()), (9_000, 0, true));
    }
}
