//! The housekeeper thread: what must be done and nobody waits for. It prepares and seals journal segments, writes
//! checkpoints, decides which segment may go, sweeps out expired dedup keys, and watches the disk and the wall clock.

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::sync::oneshot;

use super::ballast;
use super::checkpoint::Checkpoint;
use super::queue::{Command, Queue};
use super::retention::{Oldest, bytes_max};
use super::shared::Shared;
use super::writer::Writer;
use crate::core::error::chain;
use crate::env::Disk;
use crate::index::{Layered, dedup};
use crate::journal::{Job, SegmentInfo};
use crate::store::StoreError;

/// How often it looks around without being called.
const ROUND: Duration = Duration::from_secs(10);

/// Dedup keys looked at in one round.
const SWEEP_KEYS: usize = 50_000;

/// Times that dropping a segment is planned anew in one round.
const PLANS_MAX: u32 = 3;

/// Milliseconds that the wall clock may wander before it is worth a word.
const STEP_MS: u64 = 2_000;

/// Something to do.
pub(super) enum Chore<D: Disk> {
    /// A job of the journal.
    Job(Job<D>),
    /// Look around now, and say when that is done if somebody waits.
    Look(Option<oneshot::Sender<()>>),
    /// Nothing comes after this.
    Stop,
}

/// The housekeeper's loop.
pub(super) struct Housekeeper<D: Disk> {
    pub(super) shared: Arc<Shared<D>>,
    pub(super) disk: Arc<D>,
    pub(super) data: PathBuf,
    pub(super) journal_dir: PathBuf,
    pub(super) queue: Queue<D>,
    pub(super) chores: Receiver<Chore<D>>,
    /// The last key that a sweep has looked at, as it is stored.
    pub(super) sweep_from: Option<Vec<u8>>,
    pub(super) wall_ahead_ms: i64,
    /// The writer, where it has no thread of its own and works whenever this one waits for it.
    pub(super) writer: Option<Arc<Mutex<Writer<D>>>>,
}

impl<D: Disk> Housekeeper<D> {
    /// Runs until it is told to stop or the storage fails.
    pub(super) fn run(mut self) {
        loop {
            match self.chores.recv_timeout(ROUND) {
                Ok(Chore::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(chore) => self.carry_out(chore),
                Err(RecvTimeoutError::Timeout) => self.look_around(),
            }
            if self.shared.failure().is_some() {
                return;
            }
        }
    }

    /// Carries out what waits first; false when nothing waits.
    pub(super) fn step(&mut self) -> bool {
        self.chores.try_recv().map(|chore| self.carry_out(chore)).is_ok()
    }

    fn carry_out(&mut self, chore: Chore<D>) {
        match chore {
            Chore::Job(job) => {
                let sealing = matches!(job, Job::Seal(_));
                self.queue.send_waiting(Command::JobDone(job.run()));
                if sealing {
                    self.checkpoint();
                    self.make_room();
                }
            }
            Chore::Look(done) => {
                self.look_around();
                // Whoever waited may have given up.
                let _ = done.map(|done| done.send(()));
            }
            Chore::Stop => {}
        }
    }

    fn look_around(&mut self) {
        self.make_room();
        ballast::take_on(&*self.disk, &self.data, &self.shared.limits);
        self.sweep();
        let ahead_ms = self.shared.time.wall_ahead_ms();
        if ahead_ms.abs_diff(self.wall_ahead_ms) > STEP_MS {
            let by_ms = ahead_ms - self.wall_ahead_ms;
            tracing::warn!(by_ms, "the wall clock stepped; schedules go on by steady time");
            self.wall_ahead_ms = ahead_ms;
        }
    }

    /// Writes what must outlive the segments.
    fn checkpoint(&self) {
        let noted = Checkpoint::of(&self.shared.state());
        match noted {
            Ok(checkpoint) => {
                if let Err(error) = checkpoint.write(&*self.disk, &self.journal_dir) {
                    tracing::warn!(error = %error, "the checkpoint was not written and is tried again at the next seal");
                }
            }
            Err(error) => drop(self.shared.fail(&error)),
        }
    }

    /// Drops segments past retention and says whether intake has room.
    fn make_room(&self) {
        let mut plans = 0;
        let stuck = loop {
            // Whoever stops the gateway should not wait for many segments; they go at the next start.
            if self.shared.is_stopping() {
                return;
            }
            match self.shared.judge_oldest() {
                (Some(oldest), Oldest::Drop) if self.waits_for_backup(&oldest) => break false,
                (Some(oldest), Oldest::Drop) if self.is_checkpointed(oldest.last_sequence) => {
                    match self.drop_oldest(&oldest) {
                        Ok(true) => plans = 0,
                        // The plan was out of date, as a replay came between; or an event can't be carried.
                        Ok(false) if plans < PLANS_MAX => plans += 1,
                        // A damaged segment stays until an operator has looked at it.
                        Ok(false) | Err(StoreError::Unreadable { .. }) => break true,
                        Err(_) => return,
                    }
                }
                (_, verdict) => break verdict == Oldest::Stuck,
            }
        };
        let bytes = self.shared.counts.journal_used_bytes.load(std::sync::atomic::Ordering::Relaxed);
        let journal_full = stuck && bytes > bytes_max(&self.shared.limits);
        self.shared.set_full(journal_full, self.shared.disk_is_full(&self.disk, &self.journal_dir));
    }

    /// Whether a segment that should go stays for a backup that has yet to read it. A backup may use up the room that is
    /// reserved for settles, and not the last of the disk; past that it ends and the segment goes.
    fn waits_for_backup(&self, oldest: &SegmentInfo) -> bool {
        if !self.shared.reader.is_pinned(oldest.number) {
            return false;
        }
        let bytes = self.shared.counts.journal_bytes.load(std::sync::atomic::Ordering::Relaxed);
        let has_room = bytes <= self.shared.limits.retention_bytes;
        if has_room && !self.shared.disk_is_full(&self.disk, &self.journal_dir) {
            return true;
        }
        tracing::warn!(segment = oldest.number, "a backup is given up, since the journal needs the room");
        self.shared.reader.end_copy();
        false
    }

    fn is_checkpointed(&self, sequence: u64) -> bool {
        match Checkpoint::read(&*self.disk, &self.journal_dir) {
            Ok(Some(checkpoint)) if checkpoint.sequence >= sequence => true,
            Ok(_) => {
                self.checkpoint();
                matches!(Checkpoint::read(&*self.disk, &self.journal_dir), Ok(Some(c)) if c.sequence >= sequence)
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the checkpoint can't be read and is written anew");
                self.checkpoint();
                false
            }
        }
    }

    fn drop_oldest(&self, oldest: &SegmentInfo) -> Result<bool, StoreError> {
        let plan = Box::new(self.shared.plan_drop(oldest)?);
        let (reply, answer) = oneshot::channel();
        self.queue.send_waiting(Command::Drop { plan, reply });
        // Without an answer the writer is gone.
        let dropped = self.wait_for(answer).unwrap_or(Ok(false))?;
        if dropped {
            tracing::info!(segment = oldest.number, bytes = oldest.bytes, "dropped the oldest journal segment");
        }
        Ok(dropped)
    }

    fn wait_for<T>(&self, mut answer: oneshot::Receiver<T>) -> Option<T> {
        let Some(writer) = &self.writer else { return answer.blocking_recv().ok() };
        writer.lock().unwrap_or_else(PoisonError::into_inner).work_off();
        answer.try_recv().ok()
    }

    /// Looks at some dedup keys of the tree, the oldest first, and has the expired ones removed.
    fn sweep(&mut self) {
        let now_ms = self.shared.time.now_ms();
        let tree = self.shared.state().tree().clone();
        let from = self.sweep_from.take().unwrap_or_else(|| vec![dedup::FAMILY]);
        let (mut expired, mut last, mut seen) = (Vec::new(), None, 0);
        let to = [dedup::FAMILY + 1];
        for stored in tree.range(Bound::Excluded(&from), Bound::Excluded(&to), Layered::Up).take(SWEEP_KEYS) {
            let (key, value) = match stored {
                Ok(entry) => entry,
                Err(error) => return drop(self.shared.fail(&error)),
            };
            if let (Some(key), Some(entry)) = (dedup::parse_stored(&key), dedup::parse_value(&value)) {
                expired.extend((entry.expires_ms <= now_ms).then_some(key));
            }
            (last, seen) = (Some(key.to_vec()), seen + 1);
        }
        self.sweep_from = last.filter(|_| seen == SWEEP_KEYS);
        if !expired.is_empty() {
            self.queue.send_waiting(Command::Sweep { keys: expired });
        }
    }
}
