//! Time, passed in.
//!
//! Two times exist and neither can stand for the other. The wall clock is what people and signatures mean; it may step in
//! either direction. The monotonic clock measures intervals, never steps, and means nothing in another process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of both times, in milliseconds.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May go backwards.
    fn wall_ms(&self) -> u64;

    /// Seconds since the Unix epoch, as signatures have them. May go backwards.
    fn wall_s(&self) -> i64 {
        // Milliseconds divided by a thousand always fit.
        i64::try_from(self.wall_ms() / 1_000).unwrap_or(i64::MAX)
    }

    /// Milliseconds since an arbitrary start. Never goes backwards.
    fn mono_ms(&self) -> u64;

    /// Microseconds since the same start, as finely as the clock can tell.
    fn mono_us(&self) -> u64 {
        self.mono_ms().saturating_mul(1_000)
    }
}

/// The machine's clocks.
#[derive(Debug, Clone)]
pub struct RealClock {
    origin: Instant,
}

impl RealClock {
    /// A clock whose monotonic time starts at zero now.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn wall_ms(&self) -> u64 {
        // A clock set before 1970 reads as 1970: the engine then continues from the journal's last time.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn mono_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn mono_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A clock that stands still until a test moves it; its two times move independently.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    mono_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows this wall time; its monotonic time starts at zero.
    pub fn at(wall_ms: u64) -> Self {
        Self { wall_ms: AtomicU64::new(wall_ms), mono_ms: AtomicU64::new(0) }
    }

    /// Lets both times pass, as they do in ordinary life.
    pub fn advance(&self, by_ms: u64) {
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
        self.mono_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Steps the wall clock alone, in either direction, as an operator or NTP does.
    pub fn set_wall(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }

    /// Lets monotonic time pass while the wall clock stands still.
    pub fn advance_mono(&self, by_ms: u64) {
        self.mono_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn mono_ms(&self) -> u64 {
        self.mono_ms.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_times_move_independently() {
        let clock = ManualClock::at(1_000);
        clock.advance(5);
        clock.set_wall(10);
        clock.advance_mono(2);
        assert_eq!((clock.wall_ms(), clock.mono_ms()), (10, 7));
    }

    #[test]
    fn the_real_clock_is_past_2020_and_never_runs_backwards() {
        let clock = RealClock::new();
        assert!(clock.wall_ms() > 1_577_836_800_000);
        let first = clock.mono_ms();
        assert!(clock.mono_ms() >= first);
    }
}
