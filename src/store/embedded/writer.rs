//! The writer thread: takes all that waits, commits it as one batch, and lets the next batch form meanwhile.
//!
//! **Invariant:** every command is answered or dropped, whatever happens to the storage; a channel does not drop what is
//! in it when its receiver goes, and whoever waits for the answer would wait for ever. So the thread takes commands until
//! it is told to stop and nobody can send another.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::Panicked;
use super::applier::{self, Applier};
use super::commit::Committer;
use super::housekeeper::Chore;
use super::queue::{Command, Queue};
use super::shared::Shared;
use crate::env::Disk;

/// Commands taken into one round; what does not fit into one batch goes into the next.
const ROUND_MAX: usize = 4_096;

/// How long settles wait for company when nothing else does. Nobody waits for their sync.
const LINGER: Duration = Duration::from_millis(3);

/// Pauses of a millisecond in which those who have room in the queue hand their command over or give up.
const LAST_PAUSES: u32 = 1_000;

/// The writer's loop.
pub(super) struct Writer<D: Disk> {
    pub(super) committer: Committer<D>,
    pub(super) commands: Receiver<Command<D>>,
    pub(super) queue: Queue<D>,
    pub(super) shared: Arc<Shared<D>>,
    pub(super) applier: Applier,
    pub(super) chores: Sender<Chore<D>>,
}

impl<D: Disk> Writer<D> {
    /// Runs until it is told to stop.
    pub(super) fn run(self) {
        let (commands, queue, shared) = (self.commands.clone(), self.queue.clone(), Arc::clone(&self.shared));
        let stopped = catch_unwind(AssertUnwindSafe(|| self.work())).unwrap_or_else(|_| {
            shared.fail(&Panicked("writer"));
            false
        });
        // Those who wait learn from their closed channels that the storage failed, and the process from the failure.
        if !stopped {
            while !matches!(commands.recv(), Ok(Command::Stop) | Err(_)) {}
        }
        for _ in 0..LAST_PAUSES {
            while commands.try_recv().is_ok() {}
            if queue.is_idle() {
                break;
            }
            // Between the room and the command nobody waits for anything, so this ends at once.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Works until it is told to stop; false when the storage fails.
    fn work(mut self) -> bool {
        self.hand_out_jobs();
        while let Ok(first) = self.commands.recv() {
            if let ControlFlow::Break(stopped) = self.round(first, LINGER) {
                return stopped;
            }
        }
        true
    }

    /// Commits what waits, without waiting for more; false when the storage has failed.
    pub(super) fn work_off(&mut self) -> bool {
        while let Ok(first) = self.commands.try_recv() {
            // Nobody else would make the room that it waits for. A failure is met there.
            if applier::lags_too_much(&self.shared) {
                let _ = applier::apply(&self.shared);
            }
            if self.round(first, Duration::ZERO).is_break() {
                // Those who wait learn it from their closed channels.
                while self.commands.try_recv().is_ok() {}
                return false;
            }
        }
        true
    }

    /// One batch, or as many as what waits needs. Ends with true when told to stop, with false when the storage failed.
    fn round(&mut self, first: Command<D>, linger: Duration) -> ControlFlow<bool> {
        let mut round = Vec::with_capacity(64);
        let stop = self.gather(first, linger, &mut round);
        let done = self.applier.wait_for_room(&self.shared) && self.committer.run(round).is_ok();
        if stop || !done {
            return ControlFlow::Break(stop);
        }
        self.applier.nudge(&self.shared);
        self.hand_out_jobs();
        ControlFlow::Continue(())
    }

    /// Takes what waits; true when the order to stop was among it.
    fn gather(&self, first: Command<D>, linger: Duration, round: &mut Vec<Command<D>>) -> bool {
        let mut urgent = first.is_urgent();
        let mut next = Some(first);
        loop {
            match next.take() {
                Some(Command::Stop) => return true,
                Some(command) => {
                    urgent |= command.is_urgent();
                    round.push(command);
                }
                None if urgent => return false,
                None => match self.commands.recv_timeout(linger) {
                    Ok(command) => {
                        // The first to come ends the wait, urgent or not: it was long enough for company.
                        urgent = true;
                        next = Some(command);
                        continue;
                    }
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
                },
            }
            if round.len() >= ROUND_MAX {
                return false;
            }
            next = self.commands.try_recv().ok();
        }
    }

    pub(super) fn hand_out_jobs(&mut self) {
        for job in self.committer.take_jobs() {
            // When the store is closing nobody does it any more; the next start will.
            let _ = self.chores.send(Chore::Job(job));
        }
    }
}
