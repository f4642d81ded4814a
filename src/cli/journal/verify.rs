//! `postrider journal verify`: frames, bodies and footers by the journal's own rules, and whether every record says something.
//!
//! The journal alone can't tell a body that was erased on purpose from one that became zeros: the records can, so both are
//! read before anything is judged.

use std::collections::HashSet;

use serde::Serialize;

use super::{Stopped, segment_name, verify_failure};
use crate::cli::exit::{self, Failure};
use crate::cli::input::{StoreArgs, progress_bar};
use crate::cli::out::Out;
use crate::core::error::chain;
use crate::core::fact::{Fact, kind};
use crate::core::id::EventId;
use crate::env::RealDisk;
use crate::journal::{Event, Finding, Frame, Severity, VerifyReport, ZeroedBody, verify};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider journal verify --data /var/lib/postrider
  postrider journal verify --data /var/lib/postrider --json | jq '.findings[] | select(.severity == \"damage\")'

Changes nothing. Exits with 1 when something durable is damaged or missing; a batch that a crash interrupted (torn_tail) and \
what the next start mends (note) are none. --json prints one object: ok, segments, frames, records, bytes, erased_bodies, \
damage, torn_tails, notes, and findings with severity, segment, offset and what.";

/// Arguments of `journal verify`.
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
struct Verified {
    ok: bool,
    segments: u64,
    frames: u64,
    records: u64,
    bytes: u64,
    erased_bodies: u64,
    damage: u64,
    torn_tails: u64,
    notes: u64,
    findings: Vec<FindingLine>,
}

#[derive(Debug, Serialize)]
struct FindingLine {
    severity: &'static str,
    segment: String,
    offset: u64,
    what: String,
}

/// Everything that verification told.
#[derive(Default)]
struct Told {
    findings: Vec<Finding>,
    zeroed: Vec<ZeroedBody>,
    /// Events that a record says were erased.
    erased: HashSet<u128>,
    last_sequence: u64,
}

/// Verifies.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let stopped = Stopped::lock(&args.store)?;
    let bar = progress_bar("verifying");
    let mut told = Told::default();
    let report = verify(&RealDisk, &stopped.journal, &mut |event| match event {
        Event::Finding(finding) => told.findings.push(finding),
        Event::ZeroedBody(body) => told.zeroed.push(body),
        Event::Frame(frame) => told.read(frame),
        Event::Progress { done, total } => {
            bar.set_length(total);
            bar.set_position(done);
        }
    });
    bar.finish_and_clear();
    let verified = told.judge(&report.map_err(|error| verify_failure(&error))?);
    if args.json {
        out.json(&verified)?;
    } else {
        print(&verified, out)?;
    }
    Ok(if verified.ok { exit::OK } else { exit::NEGATIVE })
}

impl Told {
    /// Reads what the records of a frame say.
    fn read(&mut self, frame: &Frame) {
        // A frame that an interrupted open copied comes twice.
        if frame.at.sequence <= self.last_sequence {
            return;
        }
        self.last_sequence = frame.at.sequence;
        for (index, record) in frame.records.iter().enumerate() {
            let what = match Fact::decode(record.kind, &frame.meta(index)) {
                Ok(Fact::Erased { event, .. }) => {
                    self.erased.insert(event.as_u128());
                    continue;
                }
                Ok(fact) if fact.kind() == record.kind && fact.key() == record.key => continue,
                Ok(fact) => format!(
                    "record {index}: expected kind {} as its table says, got {}, or one of another event",
                    kind::name(record.kind),
                    kind::name(fact.kind())
                ),
                Err(error) => format!("record {index}: {}", chain(&error)),
            };
            let (segment, offset) = (frame.at.segment, frame.at.offset);
            self.findings.push(Finding { severity: Severity::Damage, segment, offset, what });
        }
    }

    /// Judges the zeroed bodies, now that all records are read.
    fn judge(mut self, report: &VerifyReport) -> Verified {
        let mut erased_bodies = 0;
        for body in &self.zeroed {
            let ZeroedBody { key, segment, offset, index, .. } = *body;
            let event = EventId::from_u128(key);
            let on_purpose = self.erased.contains(&key) && kind::has_content(body.kind);
            let (severity, what) = if on_purpose {
                erased_bodies += 1;
                (Severity::Note, format!("record {index}: the body was erased, as a record says of {event}"))
            } else {
                let what = format!("record {index}: the body is all zeros, and no record says that {event} was erased");
                (Severity::Damage, what)
            };
            self.findings.push(Finding { severity, segment, offset, what });
        }
        self.findings.sort_by_key(|finding| (finding.segment, finding.offset));
        let count = |severity| self.findings.iter().filter(|f| f.severity == severity).count() as u64;
        let damage = count(Severity::Damage);
        Verified {
            ok: damage == 0,
            segments: report.segments,
            frames: report.frames,
            records: report.records,
            bytes: report.bytes,
            erased_bodies,
            damage,
            torn_tails: count(Severity::TornTail),
            notes: count(Severity::Note),
            findings: self.findings.iter().map(FindingLine::from).collect(),
        }
    }
}

impl From<&Finding> for FindingLine {
    fn from(finding: &Finding) -> Self {
        let severity = match finding.severity {
            Severity::Damage => "damage",
            Severity::TornTail => "torn_tail",
            Severity::Note => "note",
        };
        let (segment, offset) = (segment_name(finding.segment), finding.offset);
        Self { severity, segment, offset, what: finding.what.clone() }
    }
}

fn print(verified: &Verified, out: &mut Out) -> Result<(), Failure> {
    for finding in &verified.findings {
        let FindingLine { severity, segment, offset, what } = finding;
        out.line(format_args!("{severity:9} segment {segment} byte {offset}: {what}"))?;
    }
    let Verified { segments, frames, records, bytes, damage, torn_tails, notes, .. } = verified;
    out.line(format_args!("{segments} segments, {frames} frames, {records} records, {bytes} bytes"))?;
    out.line(format_args!("{damage} damaged, {torn_tails} torn tails, {notes} notes"))?;
    out.line(if verified.ok { "ok" } else { "damage found; `postrider journal salvage` saves the rest" })
}
