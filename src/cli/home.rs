//! A directory that goes when the command ends.

use std::path::{Path, PathBuf};

use super::exit::{self, Failure};
use super::out::note;
use crate::env::{Entropy as _, RealEntropy};

/// A directory for one run of a command.
pub(super) struct Home {
    /// Where it is.
    pub(super) path: PathBuf,
    keep: bool,
}

impl Home {
    /// Makes one in `parent`, for this user alone: secrets are in it. With `keep` it stays, and its place is told.
    pub(super) fn make(parent: &Path, command: &str, keep: bool) -> Result<Self, Failure> {
        let path = parent.join(format!("postrider-{command}-{:016x}", RealEntropy.next_u64()));
        let failure = |error| Failure::new(exit::STORAGE, format_args!("{}: {error}", path.display()));
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).map_err(failure)?;
        Ok(Self { path, keep })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.keep {
            note(format_args!("kept {}", self.path.display()));
        } else {
            // What can't be removed from a directory for temporary files is of no interest any more.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
