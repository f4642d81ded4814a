//! Backups: one file that holds all that the journal has, and a store made of it.
//!
//! | file | owns |
//! |---|---|
//! | `format` | the file's bytes: head, sections, end |
//! | `take` | a running store's backup as a stream |
//! | `restore` | a data directory made of a file, and checking one |
//!
//! A backup holds the journal's files up to a point between two batches, and the checkpoint of that point. It holds neither
//! the key space, which is built from the journal, nor the token, which is a secret of the place that it is used in.

mod format;
mod restore;
mod take;

pub use format::{BackupError, Summary};
pub use restore::{RestoreError, Restored, check, restore, restore_on};
pub(super) use take::Taking;
