//! The applier: moves what was folded into the tree, a table at a time, behind the writer's back.
//!
//! It waits a second before it applies, so that deliveries which settle meanwhile cancel out and never reach sled; less when
//! much waits. When it cannot keep up the writer waits for it: the lag is bounded in bytes and in time, and by it the time
//! that a restart needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::shared::Shared;
use crate::env::Disk;
use crate::store::StoreError;

/// How long folded changes wait for those that undo them.
const SETTLE_TIME: Duration = Duration::from_millis(1_000);

/// Keys past which a table is applied without waiting.
const KEYS_SOON: usize = 50_000;

/// The writer's end of the applier.
#[derive(Debug, Clone)]
pub(super) struct Applier {
    nudges: Sender<Nudge>,
    done: Receiver<()>,
    told: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nudge {
    /// Something was folded.
    Work,
    /// Apply now.
    Now,
    /// Apply all and end.
    Stop,
}

/// The thread's end.
pub(super) struct Applying {
    nudges: Receiver<Nudge>,
    done: Sender<()>,
    /// It knows that there is work and has not begun with it. Waking it for every batch would cost as much as the batch.
    told: Arc<AtomicBool>,
}

impl Applier {
    pub(super) fn new() -> (Self, Applying) {
        let (nudges, wanted) = bounded(4);
        let (done, seen) = bounded(1);
        let told = Arc::<AtomicBool>::default();
        (Self { nudges, done: seen, told: Arc::clone(&told) }, Applying { nudges: wanted, done, told })
    }

    /// Says that something was folded; never waits.
    pub(super) fn nudge<D: Disk>(&self, shared: &Shared<D>) {
        let soon = shared.state().waiting() > KEYS_SOON
            || shared.lag.bytes.load(Ordering::Relaxed) > shared.limits.lag_bytes_max / 2;
        if !self.told.swap(true, Ordering::AcqRel) || soon {
            // A full channel means that it has been nudged enough.
            let _ = self.nudges.try_send(if soon { Nudge::Now } else { Nudge::Work });
        }
    }

    /// Waits until the lag is within its limit; false when the storage has failed.
    pub(super) fn wait_for_room<D: Disk>(&self, shared: &Shared<D>) -> bool {
        while lags_too_much(shared) {
            if shared.failure().is_some() {
                return false;
            }
            let _ = self.nudges.try_send(Nudge::Now);
            // Its end is either a table applied or the thread gone; the latter leaves a failure behind.
            let _ = self.done.recv_timeout(SETTLE_TIME);
        }
        shared.failure().is_none()
    }

    /// Tells the thread to apply all and end.
    pub(super) fn stop(&self) {
        let _ = self.nudges.send(Nudge::Stop);
    }
}

impl Applying {
    /// Runs until it is told to stop or the key space fails.
    pub(super) fn run<D: Disk>(self, shared: &Arc<Shared<D>>) {
        while let Ok(nudge) = self.nudges.recv() {
            // Half of the lag that is allowed; the other half is for applying.
            let settle_time = SETTLE_TIME.min(Duration::from_millis(shared.limits.lag_ms_max / 2));
            let stop = nudge == Nudge::Stop || (nudge == Nudge::Work && self.linger(settle_time) == Nudge::Stop);
            // Before the table is taken: what is folded into the next one is told anew.
            self.told.swap(false, Ordering::AcqRel);
            if apply(shared).is_err() {
                return;
            }
            let _ = self.done.try_send(());
            if stop {
                return;
            }
        }
    }

    /// Lets changes settle; cut short by a nudge that can't wait.
    fn linger(&self, time: Duration) -> Nudge {
        let deadline = crossbeam_channel::after(time);
        loop {
            crossbeam_channel::select! {
                recv(self.nudges) -> nudge => match nudge {
                    Ok(Nudge::Work) => {}
                    Ok(urgent) => return urgent,
                    Err(_) => return Nudge::Stop,
                },
                recv(deadline) -> _ => return Nudge::Work,
            }
        }
    }
}

/// Whether the writer must wait.
pub(super) fn lags_too_much<D: Disk>(shared: &Shared<D>) -> bool {
    let (lag, limits) = (&shared.lag, &shared.limits);
    lag.bytes.load(Ordering::Relaxed) > limits.lag_bytes_max || lag.age_ms(shared.time.mono_us()) > limits.lag_ms_max
}

/// Applies what is folded now.
pub(super) fn apply<D: Disk>(shared: &Shared<D>) -> Result<(), StoreError> {
    let (lag, (table, mut meta), tree) = {
        let mut state = shared.state_mut();
        // Nobody else sets tables aside.
        let Some(aside) = state.set_aside() else { return Ok(()) };
        (shared.lag.set_aside(), aside, state.tree().clone())
    };
    tree.apply(&table, &mut meta).map_err(|e| shared.fail(&e))?;
    shared.state_mut().applied(&meta);
    shared.lag.applied(lag);
    Ok(())
}
