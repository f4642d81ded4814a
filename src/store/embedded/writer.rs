//! The writer thread: takes all that waits, commits it as one batch, and lets the next batch form meanwhile.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::applier::Applier;
use super::commit::Committer;
use super::housekeeper::Chore;
use super::queue::Command;
use super::shared::Shared;
use crate::env::Disk;

/// Commands taken into one round; what does not fit into one batch goes into the next.
const ROUND_MAX: usize = 4_096;

/// How long settles wait for company when nothing else does. Nobody waits for their sync.
const LINGER: Duration = Duration::from_millis(3);

/// The writer's loop.
pub(super) struct Writer<D: Disk> {
    pub(super) committer: Committer<D>,
    pub(super) commands: Receiver<Command<D>>,
    pub(super) shared: Arc<Shared<D>>,
    pub(super) applier: Applier,
    pub(super) chores: Sender<Chore<D>>,
}

impl<D: Disk> Writer<D> {
    /// Runs until it is told to stop or the storage fails.
    pub(super) fn run(mut self) {
        self.hand_out_jobs();
        while let Ok(first) = self.commands.recv() {
            let mut round = Vec::with_capacity(64);
            let stop = self.gather(first, &mut round);
            if !self.applier.wait_for_room(&self.shared) || self.committer.run(round).is_err() {
                // Those who wait learn it from their closed channels, and the process from the failure.
                return;
            }
            self.applier.nudge(&self.shared);
            self.hand_out_jobs();
            if stop {
                return;
            }
        }
    }

    /// Takes what waits; true when the order to stop was among it.
    fn gather(&self, first: Command<D>, round: &mut Vec<Command<D>>) -> bool {
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
                None => match self.commands.recv_timeout(LINGER) {
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

    fn hand_out_jobs(&mut self) {
        for job in self.committer.take_jobs() {
            // The housekeeper outlives the writer.
            let _ = self.chores.send(Chore::Job(job));
        }
    }
}
