//! `postrider journal …`: looking into and mending the journal of a store that no gateway runs on.
//!
//! **Invariant:** every command takes the store's lock first, also those that only read: a journal that is being written
//! looks damaged at its end.

mod dump;
mod facts;
mod rebuild;
mod salvage;
mod verify;

use std::path::{Path, PathBuf};

use super::exit::{self, Failure};
use super::input::StoreArgs;
use super::out::Out;
use crate::config::Config;
use crate::journal::VerifyError;
use crate::store::embedded::{LockError, OpenError, StoreLock, journal_dir};

/// Arguments of `journal`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read everything and say what is damaged
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::Args),
    /// Print every record, one per line
    #[command(after_help = dump::EXAMPLES)]
    Dump(dump::Args),
    /// Build the key space anew from the journal
    #[command(after_help = rebuild::EXAMPLES)]
    Rebuild(rebuild::Args),
    /// Save what is undamaged of a damaged journal, and list what is lost
    #[command(after_help = salvage::EXAMPLES)]
    Salvage(salvage::Args),
}

/// Does what is asked.
pub(super) fn run(command: &Command, out: &mut Out) -> Result<u8, Failure> {
    match command {
        Command::Verify(args) => verify::run(args, out),
        Command::Dump(args) => dump::run(args, out),
        Command::Rebuild(args) => rebuild::run(args, out),
        Command::Salvage(args) => salvage::run(args, out),
    }
}

/// A store that is ours for as long as this lives.
struct Stopped {
    config: Config,
    journal: PathBuf,
    lock: StoreLock,
}

impl Stopped {
    /// Finds the store and locks it.
    fn lock(args: &StoreArgs) -> Result<Self, Failure> {
        let config = args.settings()?;
        let journal = journal_dir(&config.data_dir);
        check_store(&config.data_dir, &journal)?;
        let lock = StoreLock::take(&config.data_dir).map_err(|error| lock_failure(&error))?;
        Ok(Self { config, journal, lock })
    }
}

/// Without this, a mistyped directory would become a store, or read as an empty one.
pub(super) fn check_store(data: &Path, journal: &Path) -> Result<(), Failure> {
    // Between its two renames a salvage leaves the new journal alone; going on with it is for another salvage.
    let salvaged = journal.with_extension("salvaged");
    if journal.is_dir() || salvaged.is_dir() {
        return Ok(());
    }
    Err(Failure::usage(format_args!("there is no store in {}: name its directory with --data", data.display())))
}

pub(super) fn lock_failure(error: &LockError) -> Failure {
    let code = match error {
        LockError::Held { .. } => exit::HELD,
        LockError::Io { .. } => exit::STORAGE,
    };
    Failure::from_error(code, error)
}

/// The failure of a store that can't be opened.
pub(super) fn open_failure(error: &OpenError) -> Failure {
    let code = match error {
        OpenError::Lock(error) => return lock_failure(error),
        error if error.is_damage() => exit::DAMAGED,
        _ => exit::STORAGE,
    };
    Failure::from_error(code, error)
}

fn verify_failure(error: &VerifyError) -> Failure {
    let code = match error {
        VerifyError::UnknownVersion { .. } => exit::DAMAGED,
        VerifyError::Io(_) => exit::STORAGE,
    };
    Failure::from_error(code, error)
}

/// A segment as file names and errors write it.
fn segment_name(segment: u64) -> String {
    format!("{segment:016x}")
}
