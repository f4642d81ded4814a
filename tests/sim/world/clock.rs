//! Time: the runtime's paused time, which jumps to the next timer whenever everybody waits, and a wall clock that steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use postrider::env::Clock;

use super::disk::SimDisk;

/// The clocks of one life.
pub struct SimClock {
    origin: tokio::time::Instant,
    /// The wall clock's time at the start of the life.
    wall_ms: u64,
    disk: SimDisk,
    busy_before_ms: u64,
    step_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// `step_ms` is by how much the wall clock is off; it outlives the process.
    #[allow(clippy::disallowed_methods, reason = "the paused time of the run's runtime")]
    pub fn new(true_ms: u64, disk: SimDisk, step_ms: Arc<AtomicI64>) -> Self {
        let busy_before_ms = disk.busy_ms();
        Self { origin: tokio::time::Instant::now(), wall_ms: true_ms, disk, busy_before_ms, step_ms }
    }

    /// What the time really is.
    pub fn true_ms(&self) -> u64 {
        self.wall_ms + self.mono_ms()
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> u64 {
        self.true_ms().saturating_add_signed(self.step_ms.load(Ordering::Relaxed))
    }

    /// A slow disk takes its time from everybody, as only one thread runs.
    fn mono_ms(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64 + self.disk.busy_ms() - self.busy_before_ms
    }
}

/// The runtime's time. It goes on only when everybody waits, so what happened at an earlier one has been heard by all.
#[allow(clippy::disallowed_methods, reason = "the paused time of the run's runtime")]
pub fn round() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
