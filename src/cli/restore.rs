//! `postrider restore`: a data directory made of a backup.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::backup::{Shown, backup_failure, open, verify};
use super::exit::{self, Failure};
use super::input::{StoreArgs, progress_bar};
use super::journal::{lock_failure, open_failure};
use super::out::{Out, Table};
use crate::config::LogLevel;
use crate::core::id::{EndpointId, EventId};
use crate::store::embedded::{Opening, RestoreError, Restored, restore};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider restore --from today.backup --data /var/lib/postrider
  postrider restore --from today.backup --data /var/lib/postrider --json | jq '.may_repeat[]'
  postrider restore --from today.backup --check

The data directory must not exist, or be empty. It is made as DIR.restoring and renamed when it is complete; a restore that \
was cut short leaves that behind, for you to remove. The first start makes a new API token. Deliveries that were pending in \
the backup are attempted again, and those that arrived since it was taken are repeated, under the same webhook-id: \
may_repeat lists them. --json prints one object: backup (what it holds), data, pending (endpoint, endpoint_id, application, \
deliveries) and may_repeat (message_id, endpoint_id).";

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The backup
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Only verify the backup and say what is in it
    #[arg(long)]
    check: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Made {
    backup: Shown,
    data: String,
    pending: Vec<PendingLine>,
    may_repeat: Vec<RepeatLine>,
}

/// Pending deliveries of one endpoint.
#[derive(Debug, Serialize)]
struct PendingLine {
    endpoint: Option<String>,
    endpoint_id: EndpointId,
    application: Option<String>,
    deliveries: u64,
}

/// One pending delivery.
#[derive(Debug, Serialize)]
struct RepeatLine {
    message_id: EventId,
    endpoint_id: EndpointId,
}

/// Restores, or only verifies.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    if args.check {
        let shown = Shown::new(&args.from, &verify(&args.from)?);
        if args.json {
            out.json(&shown)?;
        } else {
            out.line(shown.text())?;
            out.line("ok")?;
        }
        return Ok(exit::OK);
    }
    let (data, restored) = make(args)?;
    let made = Made {
        backup: Shown::new(&args.from, &restored.summary),
        data: data.display().to_string(),
        pending: pending_lines(&restored),
        may_repeat: restored
            .pending
            .iter()
            .map(|(endpoint_id, message_id)| RepeatLine { message_id: *message_id, endpoint_id: *endpoint_id })
            .collect(),
    };
    if args.json {
        out.json(&made)?;
    } else {
        print(&made, out)?;
    }
    Ok(exit::OK)
}

fn make(args: &Args) -> Result<(PathBuf, Restored), Failure> {
    let config = args.store.settings()?;
    super::log(LogLevel::Error);
    let (source, length) = open(&args.from)?;
    let (reading, rebuilding) = (progress_bar("restoring"), progress_bar("building the key space"));
    reading.set_length(length);
    let mut rebuilt = |done, total| {
        rebuilding.set_length(total);
        rebuilding.set_position(done);
    };
    let opening = Opening::of_machine(config.data_dir.clone(), config.limits.store, &mut rebuilt);
    let restored = restore(source, opening, &mut |bytes| reading.set_position(bytes));
    reading.finish_and_clear();
    rebuilding.finish_and_clear();
    restored.map(|restored| (config.data_dir, restored)).map_err(|error| failure(&args.from, &error))
}

fn failure(from: &Path, error: &RestoreError) -> Failure {
    match error {
        RestoreError::NotEmpty { .. } | RestoreError::MountPoint { .. } | RestoreError::Begun { .. } => {
            Failure::usage(error)
        }
        RestoreError::Lock(error) => lock_failure(error),
        RestoreError::Backup(error) => backup_failure(from, error),
        RestoreError::Open(error) => open_failure(error),
        RestoreError::Incomplete { .. } => Failure::from_error(exit::NEGATIVE, error),
        RestoreError::Io { .. } => Failure::from_error(exit::STORAGE, error),
    }
}

fn pending_lines(restored: &Restored) -> Vec<PendingLine> {
    let mut counts = BTreeMap::new();
    for (endpoint, _) in &restored.pending {
        *counts.entry(*endpoint).or_insert(0) += 1;
    }
    let line = |(endpoint_id, deliveries)| {
        let (application, endpoint) = restored.endpoints.get(&endpoint_id).cloned().unzip();
        PendingLine { endpoint, endpoint_id, application, deliveries }
    };
    counts.into_iter().map(line).collect()
}

fn print(made: &Made, out: &mut Out) -> Result<(), Failure> {
    let Made { backup, data, pending, may_repeat } = made;
    out.line(format_args!("restored {data}: {}", backup.text()))?;
    if may_repeat.is_empty() {
        return out.line("no delivery was pending");
    }
    out.line(format_args!(
        "{} deliveries were pending: each is attempted again, and is a repetition where it arrived after {}; --json lists them",
        may_repeat.len(),
        backup.created()
    ))?;
    let mut table = Table::new(&["APPLICATION", "ENDPOINT", "PENDING"]);
    for PendingLine { endpoint, endpoint_id, application, deliveries } in pending {
        let endpoint = endpoint.clone().unwrap_or_else(|| endpoint_id.to_string());
        table.row([application.clone().unwrap_or_default(), endpoint, deliveries.to_string()]);
    }
    table.print(out)
}
