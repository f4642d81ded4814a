//! `postrider journal salvage`: saves what is undamaged, says exactly what is not, and builds the key space anew.

use std::sync::Arc;

use serde::Serialize;

use super::rebuild::{self, Rebuilt};
use super::{Stopped, segment_name};
use crate::cli::exit::{self, Failure};
use crate::cli::input::StoreArgs;
use crate::cli::out::Out;
use crate::core::fact::kind;
use crate::core::id::EventId;
use crate::env::{Clock as _, Entropy as _, RealClock, RealDisk, RealEntropy};
use crate::journal::{Lost, LostRecord, SalvageError};
use crate::store::embedded::{Salvaged, salvage};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider journal salvage --data /var/lib/postrider
  postrider journal salvage --data /var/lib/postrider --json > lost.json

The damaged journal is kept beside the new one as `journal.damaged-<n>`. Exits with 1 when something was lost. --json prints \
one object: frames, records, lost (segment, bytes, first_sequence, last_sequence, keyed_records), lost_records (segment, \
offset, sequence, index, kind, key), checkpoint_lost, damaged_dir, and rebuilt as `journal rebuild` prints it.";

/// Arguments of `journal salvage`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Line {
    frames: u64,
    records: u64,
    lost: Vec<LostLine>,
    lost_records: Vec<LostRecordLine>,
    checkpoint_lost: bool,
    damaged_dir: Option<String>,
    rebuilt: Rebuilt,
}

#[derive(Debug, Serialize)]
struct LostLine {
    segment: String,
    bytes: Option<[u64; 2]>,
    first_sequence: u64,
    last_sequence: u64,
    keyed_records: Option<u64>,
}

#[derive(Debug, Serialize)]
struct LostRecordLine {
    segment: String,
    offset: u64,
    sequence: u64,
    index: u32,
    kind: &'static str,
    key: Option<EventId>,
}

/// Salvages.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let Stopped { config, lock, .. } = Stopped::lock(&args.store)?;
    let (incarnation, now_ms) = (RealEntropy.next_u64(), RealClock::new().wall_ms());
    let salvaged = salvage(&Arc::new(RealDisk), &config.data_dir, &config.limits.store, incarnation, now_ms);
    let salvaged = salvaged.map_err(|error| failure(&error))?;
    // What follows takes the lock itself, as it is what a start does.
    drop(lock);
    if !args.json {
        print(&salvaged, out)?;
        // A key space that can't be built must not hide what was lost.
        out.flush()?;
    }
    let rebuilt = rebuild::rebuild(&config)?;
    if args.json {
        out.json(&line(&salvaged, rebuilt))?;
    } else {
        out.line(rebuild::shown(&rebuilt))?;
    }
    Ok(if salvaged.has_losses() { exit::NEGATIVE } else { exit::OK })
}

fn failure(error: &SalvageError) -> Failure {
    let code = match error {
        SalvageError::UnknownVersion { .. } => exit::DAMAGED,
        // A limit that is lower than when the batch was written.
        SalvageError::Append(_) => exit::CONFIG,
        SalvageError::Open(_) | SalvageError::Write(_) | SalvageError::Io(_) => exit::STORAGE,
    };
    Failure::from_error(code, error)
}

fn line(Salvaged { journal: report, checkpoint_lost }: &Salvaged, rebuilt: Rebuilt) -> Line {
    Line {
        frames: report.frames,
        records: report.records,
        lost: report.lost.iter().map(LostLine::from).collect(),
        lost_records: report.lost_records.iter().map(LostRecordLine::from).collect(),
        checkpoint_lost: *checkpoint_lost,
        damaged_dir: report.damaged_dir.as_ref().map(|dir| dir.display().to_string()),
        rebuilt,
    }
}

impl From<&Lost> for LostLine {
    fn from(lost: &Lost) -> Self {
        Self {
            segment: segment_name(lost.segment),
            bytes: lost.bytes.map(|(from, to)| [from, to]),
            first_sequence: lost.first_sequence,
            last_sequence: lost.last_sequence,
            keyed_records: lost.keyed_records,
        }
    }
}

impl From<&LostRecord> for LostRecordLine {
    fn from(lost: &LostRecord) -> Self {
        Self {
            segment: segment_name(lost.segment),
            offset: lost.offset,
            sequence: lost.sequence,
            index: lost.index,
            kind: kind::name(lost.kind),
            key: (lost.key != 0).then(|| EventId::from_u128(lost.key)),
        }
    }
}

fn print(Salvaged { journal: report, checkpoint_lost }: &Salvaged, out: &mut Out) -> Result<(), Failure> {
    for lost in report.lost.iter().map(LostLine::from) {
        let LostLine { segment, bytes, first_sequence, last_sequence, keyed_records } = lost;
        let place = bytes.map_or_else(|| "a missing file".to_owned(), |[from, to]| format!("bytes {from} to {to}"));
        let records = keyed_records.map_or_else(|| "an unknown number of".to_owned(), |n| n.to_string());
        out.line(format_args!(
            "lost: batches {first_sequence} to {last_sequence}, {place} of segment {segment}, {records} records of events"
        ))?;
    }
    for lost in report.lost_records.iter().map(LostRecordLine::from) {
        let LostRecordLine { segment, offset, sequence, index, kind, key } = lost;
        let key = key.map_or_else(String::new, |key| format!(" of {key}"));
        out.line(format_args!(
            "lost: record {index} of batch {sequence} ({kind}{key}), its body is damaged; segment {segment} byte {offset}"
        ))?;
    }
    if *checkpoint_lost {
        out.line(
            "lost: the checkpoint, it is damaged; endpoints that were disabled long ago, by an operator or by a 410, may take \
             deliveries again",
        )?;
    }
    out.line(format_args!("saved {} records in {} batches", report.records, report.frames))?;
    if let Some(dir) = &report.damaged_dir {
        out.line(format_args!("the damaged journal is kept in {}", dir.display()))?;
    }
    Ok(())
}
