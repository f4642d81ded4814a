//! `postrider journal dump`: every record in the order of the journal, one per line.
//!
//! A thread of its own reads, so that a reader of the output who has seen enough (`| head`) ends the command at once, however
//! long the journal is.

use std::sync::mpsc::{Receiver, sync_channel};

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Stopped, facts, segment_name, verify_failure};
use crate::cli::exit::{self, Failure};
use crate::cli::input::StoreArgs;
use crate::cli::out::{Out, note, printable};
use crate::core::error::chain;
use crate::core::fact::{Fact, kind};
use crate::core::id::EventId;
use crate::core::time::format_ms;
use crate::env::RealDisk;
use crate::journal::{BodyState, Event, Finding, Frame, Severity, VerifyError, verify};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider journal dump --data /var/lib/postrider | less -S
  postrider journal dump --data /var/lib/postrider --event msg_01jdx4m0qv9k3m5w2r8t6y7z1a --bodies
  postrider journal dump --json | jq -c 'select(.kind == \"settled\") | .fact.attempt.status'

Changes nothing. Bodies and the values of headers are shown with --bodies only; secrets are not in the journal. --json prints \
one object per line: segment, offset, sequence, index, time, kind, key, meta_bytes, body_bytes, body_state (intact, zeroed or \
damaged), fact, and with --bodies body or body_base64.";

/// Frames that are read ahead of the output.
const FRAMES_AHEAD: usize = 16;

/// Arguments of `journal dump`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Only records of this event
    #[arg(long, value_name = "MSG_ID")]
    event: Option<EventId>,
    /// Show bodies, and the values of headers
    #[arg(long)]
    bodies: bool,
    /// Print records as JSON
    #[arg(long)]
    json: bool,
}

/// One record as `--json` prints it.
#[derive(Debug, Serialize)]
struct Line {
    segment: String,
    offset: u64,
    sequence: u64,
    index: usize,
    time: String,
    kind: &'static str,
    key: Option<EventId>,
    meta_bytes: usize,
    body_bytes: usize,
    body_state: &'static str,
    /// Null when the record is not one of this version.
    fact: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

/// What the reading thread hands over.
enum Item {
    Frame(Frame),
    Finding(Finding),
    End(Result<(), VerifyError>),
}

/// Dumps.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let stopped = Stopped::lock(&args.store)?;
    let mut damaged = false;
    let mut last_sequence = 0;
    for item in read(stopped.journal.clone()) {
        match item {
            // A frame that an interrupted open copied comes twice.
            Item::Frame(frame) if frame.at.sequence > last_sequence => {
                last_sequence = frame.at.sequence;
                damaged |= !dump(args, &frame, out)?;
            }
            Item::Frame(_) => {}
            Item::Finding(Finding { severity, segment, offset, what }) => {
                damaged |= severity == Severity::Damage;
                note(format_args!("segment {} byte {offset}: {what}", segment_name(segment)));
            }
            Item::End(result) => result.map_err(|error| verify_failure(&error))?,
        }
    }
    Ok(if damaged { exit::NEGATIVE } else { exit::OK })
}

/// Starts reading; the last item is the end.
fn read(journal: std::path::PathBuf) -> Receiver<Item> {
    let (items, received) = sync_channel(FRAMES_AHEAD);
    std::thread::spawn(move || {
        // Nobody listens any more once the process is about to end.
        let report = verify(&RealDisk, &journal, &mut |event| match event {
            Event::Frame(frame) => drop(items.send(Item::Frame(frame.clone()))),
            Event::Finding(finding) => drop(items.send(Item::Finding(finding))),
            Event::ZeroedBody(_) | Event::Progress { .. } => {}
        });
        drop(items.send(Item::End(report.map(drop))));
    });
    received
}

/// Prints the records of a frame; false when one of them can't be read.
fn dump(args: &Args, frame: &Frame, out: &mut Out) -> Result<bool, Failure> {
    let mut readable = true;
    for (index, record) in frame.records.iter().enumerate() {
        if args.event.is_some_and(|event| event.as_u128() != record.key) {
            continue;
        }
        let fact = Fact::decode(record.kind, &frame.meta(index));
        if let Err(error) = &fact {
            readable = false;
            let segment = segment_name(frame.at.segment);
            note(format_args!("segment {segment} byte {}: record {index}: {}", frame.at.offset, chain(error)));
        }
        let line = line(args, frame, index, fact.ok().as_ref());
        if args.json {
            out.json(&line)?;
        } else {
            out.line(shown(&line))?;
        }
    }
    Ok(readable)
}

fn line(args: &Args, frame: &Frame, index: usize, fact: Option<&Fact>) -> Line {
    let record = &frame.records[index];
    let body = frame.body(index);
    let shows_body = args.bodies && record.state == BodyState::Intact && !body.is_empty();
    let text = std::str::from_utf8(&body).ok().filter(|_| shows_body).map(str::to_owned);
    Line {
        segment: segment_name(frame.at.segment),
        offset: frame.at.offset,
        sequence: frame.at.sequence,
        index,
        time: format_ms(frame.time_ms),
        kind: kind::name(record.kind),
        key: (record.key != 0).then(|| EventId::from_u128(record.key)),
        meta_bytes: frame.meta(index).len(),
        body_bytes: body.len(),
        body_state: match record.state {
            BodyState::Intact => "intact",
            BodyState::Zeroed => "zeroed",
            BodyState::Damaged => "damaged",
        },
        fact: fact.map(|fact| facts::fields(fact, args.bodies)),
        body_base64: (shows_body && text.is_none()).then(|| BASE64.encode(&body)),
        body: text,
    }
}

/// The record for people: where, when, what, then the fields of the fact.
fn shown(line: &Line) -> String {
    let key = line.key.map_or_else(|| "-".to_owned(), |key| key.to_string());
    let mut text = format!(
        "{}:{} #{}.{} {} {} {key} meta={} body={}",
        line.segment, line.offset, line.sequence, line.index, line.time, line.kind, line.meta_bytes, line.body_bytes
    );
    if line.body_state != "intact" {
        text = format!("{text} ({})", line.body_state);
    }
    for (name, value) in line.fact.iter().flatten().filter(|(_, value)| !is_empty(value)) {
        text = format!("{text} {name}={value}");
    }
    if let Some(body) = line.body.as_ref().or(line.body_base64.as_ref()) {
        text = format!("{text} {body:?}");
    }
    printable(&text)
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}
