//! `postrider backup`: all that a gateway has, in one file.
//!
//! **Invariant:** the file has its name only when it is whole, on disk, and was read back: until then it is FILE.partial.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::client::{ServerArgs, Take, Target};
use super::exit::{self, Failure};
use super::input::progress_bar;
use super::journal::{check_store, open_failure};
use super::out::Out;
use crate::config::{Config, LogLevel};
use crate::core::time::format_ms;
use crate::env::{Disk as _, RealDisk, parent};
use crate::store::Store as _;
use crate::store::embedded::{BackupError, EmbeddedStore, Opening, Summary, check, journal_dir};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider backup --to /backups/postrider-2026-11-24.backup
  postrider backup --to today.backup --server http://127.0.0.1:8081 --token-file /var/lib/postrider/token
  postrider backup --to today.backup --offline --data /var/lib/postrider

The file holds every event with its content, readable for its owner only; the API token and the configuration are not in \
it. It is FILE.partial until it is complete and was read back. --json prints one object: file, bytes, created, segments, \
batches, records, events, first and last (times of the first and the last batch).";

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File to write
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
    /// No gateway runs: open the store in the data directory, as a start does
    #[arg(long, conflicts_with_all = ["server", "token_file"])]
    offline: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// What a backup holds, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    file: String,
    bytes: u64,
    created: String,
    segments: u64,
    batches: u64,
    records: u64,
    events: u64,
    first: Option<String>,
    last: Option<String>,
}

impl Shown {
    pub(super) fn new(file: &Path, summary: &Summary) -> Self {
        let Summary { created_ms, bytes, segments, frames, records, events, first_ms, last_ms, .. } = *summary;
        let time = |ms| (frames > 0).then(|| format_ms(ms));
        Self {
            file: file.display().to_string(),
            bytes,
            created: format_ms(created_ms),
            segments,
            batches: frames,
            records,
            events,
            first: time(first_ms),
            last: time(last_ms),
        }
    }

    /// When it was begun.
    pub(super) fn created(&self) -> &str {
        &self.created
    }

    /// The same for people.
    pub(super) fn text(&self) -> String {
        let Self { bytes, created, segments, records, events, first, last, .. } = self;
        let times = match (first, last) {
            (Some(first), Some(last)) => format!(" of {first} to {last}"),
            _ => String::new(),
        };
        format!("{events} events, {records} records{times}; {segments} segments, {bytes} bytes; begun at {created}")
    }
}

/// Takes a backup.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    if args.to.exists() && !args.force {
        let file = args.to.display();
        return Err(Failure::usage(format_args!("{file} exists: name another file, or replace it with --force")));
    }
    let mut partial = args.to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file = begin(&partial)?;
    let summary = write(args, &file, &partial).and_then(|summary| name(&partial, &args.to).map(|()| summary));
    let summary = summary.inspect_err(|_| {
        // What is left of it is no backup; one that can't be removed is overwritten by the next.
        let _ = fs::remove_file(&partial);
    })?;
    let shown = Shown::new(&args.to, &summary);
    if args.json {
        out.json(&shown)?;
    } else {
        out.line(format_args!("wrote {}: {}", shown.file, shown.text()))?;
    }
    Ok(exit::OK)
}

/// An empty file for the owner alone, which is this process's until it ends; what a process left that was killed is
/// overwritten.
fn begin(path: &Path) -> Result<File, Failure> {
    let failed = |error| Failure::new(exit::STORAGE, format_args!("{}: {error}", path.display()));
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = opened.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => file.set_len(0).map_err(failed)?,
        Err(TryLockError::WouldBlock) => {
            return Err(Failure::usage(format_args!("another process is writing {}", path.display())));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    Ok(file)
}

/// Writes the whole backup to `file`, durably, and reads it back.
fn write(args: &Args, mut file: &File, path: &Path) -> Result<Summary, Failure> {
    let failed = |error| Failure::new(exit::STORAGE, format_args!("{}: {error}", path.display()));
    let bar = progress_bar("taking the backup");
    let mut take = |bytes: &[u8], length: Option<u64>| {
        bar.set_length(length.unwrap_or(0));
        bar.inc(bytes.len() as u64);
        file.write_all(bytes).map_err(failed)
    };
    if args.offline {
        offline(&args.server.settings()?, &mut take)?;
    } else {
        args.server.client()?.download(&Target::new(&["backup"]), &mut take)?;
    }
    bar.finish_and_clear();
    file.sync_all().map_err(failed)?;
    verify(path)
}

/// A stopped store's backup is that of a store that was started for it.
fn offline(config: &Config, take: Take<'_>) -> Result<(), Failure> {
    check_store(&config.data_dir, &journal_dir(&config.data_dir))?;
    super::log(LogLevel::Error);
    let mut untold = |_, _| {};
    let opening = Opening::of_machine(config.data_dir.clone(), config.limits.store.clone(), &mut untold);
    let store = EmbeddedStore::open(opening).map_err(|error| open_failure(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| Failure::from_error(exit::STORAGE, &error))?;
    let mut begun = runtime.block_on(store.backup()).map_err(|error| Failure::from_error(exit::STORAGE, &error))?;
    let taken = begun.chunks.try_for_each(|chunk| take(&chunk, Some(begun.bytes)));
    store.close();
    taken
}

/// Reads a whole backup.
pub(super) fn verify(path: &Path) -> Result<Summary, Failure> {
    let (source, length) = open(path)?;
    let bar = progress_bar("verifying");
    bar.set_length(length);
    let summary = check(source, &mut |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    summary.map_err(|error| backup_failure(path, &error))
}

/// A backup to read, and its length.
pub(super) fn open(path: &Path) -> Result<(BufReader<File>, u64), Failure> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|found| (file, found.len())));
    let (file, length) = opened
        .map_err(|error| Failure::new(exit::STORAGE, format_args!("{} can't be read: {error}", path.display())))?;
    Ok((BufReader::with_capacity(READ_BYTES, file), length))
}

/// The failure of a file that is no whole backup.
pub(super) fn backup_failure(path: &Path, error: &BackupError) -> Failure {
    let code = if matches!(error, BackupError::Io(_)) { exit::STORAGE } else { exit::NEGATIVE };
    Failure::new(code, format_args!("{}: {error}", path.display()))
}

/// Gives a complete file its name, durably.
fn name(partial: &Path, path: &Path) -> Result<(), Failure> {
    let named = RealDisk.rename(partial, path).and_then(|()| RealDisk.sync_dir(parent(path)));
    named.map_err(|error| Failure::new(exit::STORAGE, format_args!("{}: {error}", path.display())))
}
