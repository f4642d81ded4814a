//! `postrider journal rebuild`: the key space is thrown away and folded from the journal again, as a start does by itself when
//! it finds it missing or wrong.

use serde::Serialize;

use super::{check_store, open_failure};
use crate::cli::exit::{self, Failure};
use crate::cli::input::{StoreArgs, progress_bar};
use crate::cli::out::Out;
use crate::config::{Config, LogLevel};
use crate::store::Store as _;
use crate::store::embedded::{EmbeddedStore, Opening, journal_dir};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider journal rebuild --data /var/lib/postrider
  postrider journal rebuild --data /var/lib/postrider --json

The old key space stays beside the new one as `index.damaged` until the next rebuild. --json prints one object: \
journal_segments, journal_bytes, torn_bytes, pending, dead_letters and dedup_keys.";

/// Arguments of `journal rebuild`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What a rebuild found, and what `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Rebuilt {
    journal_segments: u64,
    journal_bytes: u64,
    torn_bytes: u64,
    pending: u64,
    dead_letters: u64,
    dedup_keys: u64,
}

/// Rebuilds.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let config = args.store.settings()?;
    check_store(&config.data_dir, &journal_dir(&config.data_dir))?;
    let rebuilt = rebuild(&config)?;
    if args.json {
        out.json(&rebuilt)?;
    } else {
        out.line(shown(&rebuilt))?;
    }
    Ok(exit::OK)
}

/// Opens the store with a new key space, which takes its lock, and closes it again.
pub(super) fn rebuild(config: &Config) -> Result<Rebuilt, Failure> {
    crate::cli::log(LogLevel::Error);
    let bar = progress_bar("rebuilding");
    let mut told = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let opening = Opening::of_machine(config.data_dir.clone(), config.limits.store.clone(), &mut told);
    let opened = EmbeddedStore::open(Opening { rebuild: true, ..opening });
    bar.finish_and_clear();
    let store = opened.map_err(|error| open_failure(&error))?;
    let stats = store.stats();
    let torn_bytes = store.opened().journal.torn_bytes;
    store.close();
    Ok(Rebuilt {
        journal_segments: stats.journal_segments,
        journal_bytes: stats.journal_bytes,
        torn_bytes,
        pending: stats.pending,
        dead_letters: stats.dead,
        dedup_keys: stats.dedup_keys,
    })
}

pub(super) fn shown(rebuilt: &Rebuilt) -> String {
    let Rebuilt { journal_segments, journal_bytes, torn_bytes, pending, dead_letters, dedup_keys } = rebuilt;
    let mut text = format!(
        "rebuilt the key space from {journal_segments} segments of {journal_bytes} bytes: {pending} pending deliveries, \
         {dead_letters} dead letters, {dedup_keys} dedup keys"
    );
    if *torn_bytes > 0 {
        text = format!(
            "{text}\ndropped {torn_bytes} bytes of a batch that a crash interrupted; it was never acknowledged"
        );
    }
    text
}
