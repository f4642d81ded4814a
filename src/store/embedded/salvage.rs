//! Salvage of a store: the journal as far as it is undamaged, and the checkpoint, which says what dropped segments said.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{self, Checkpoint};
use super::recovery::{journal_dir, journal_options};
use crate::core::limits::StoreLimits;
use crate::env::Disk;
use crate::journal::{self, Beside, IoFault, SalvageError, SalvageReport};

/// What was saved of a store and what was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Of the journal.
    pub journal: SalvageReport,
    /// Whether the checkpoint is damaged: where it alone knew that an endpoint takes no deliveries, that is lost.
    pub checkpoint_lost: bool,
}

impl Salvaged {
    /// Whether anything was lost.
    pub const fn has_losses(&self) -> bool {
        self.checkpoint_lost || !(self.journal.lost.is_empty() && self.journal.lost_records.is_empty())
    }
}

/// Salvages the store under `data`, which nobody has open. Its key space is built anew at the next start.
pub fn salvage<D: Disk>(
    disk: &Arc<D>,
    data: &Path,
    limits: &StoreLimits,
    incarnation: u64,
    now_ms: u64,
) -> Result<Salvaged, SalvageError> {
    let dir = journal_dir(data);
    let (checkpoint, checkpoint_lost) = match Checkpoint::read(&**disk, &dir) {
        Ok(checkpoint) => (checkpoint, false),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => (None, true),
        Err(source) => {
            let file = checkpoint::FILE.to_owned();
            return Err(IoFault { action: "read", file, offset: None, source }.into());
        }
    };
    let write = |output: &Path, sequence| {
        let notes = checkpoint.iter().flat_map(|checkpoint| checkpoint.notes.clone()).collect();
        Checkpoint { sequence, notes }.write(&**disk, output)
    };
    let beside = checkpoint.as_ref().map(|checkpoint| Beside { sequence: checkpoint.sequence, write: &write });
    let journal = journal::salvage(disk, &dir, journal_options(limits), incarnation, now_ms, beside)?;
    Ok(Salvaged { journal, checkpoint_lost })
}
