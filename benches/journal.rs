//! The journal beside the bare disk, and a lost key space beside sled: `cargo bench --bench journal`.
//!
//! In each round, for several numbers of writers and bytes of a body, one after the other:
//! - `append`: each writer hands its record to one thread, which appends all that wait to a file and syncs it;
//! - `overwrite`: the same, where the file is zero-filled and written over;
//! - `journal`: the same, where they are appended to a journal as one batch. Its segments are recycled: each full one is
//!   sealed and dropped, by the same thread.
//!
//! And for a segment full of events:
//! - `read`: the file is read once, with a CRC32C over all of it, in MB per second;
//! - `open`: a journal is opened that was not closed, which reads its newest segment, in MB of it per second;
//! - `scan`: every frame is read and checked in order, as a rebuild does.
//!
//! And for a store full of events, each with a dedup key and a pending delivery:
//! - `sled`: the entries of its key space are inserted into an empty sled, in order, in entries per second;
//! - `rebuild`: the store is opened without its key space, which is then built from the journal.

#[path = "support/event.rs"]
mod event;
#[path = "support/place.rs"]
mod place;
mod support;

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use postrider::cli::bench::disk;
use postrider::core::event::{DedupKey, DedupScope};
use postrider::core::limits::StoreLimits;
use postrider::env::{Clock, Entropy, RealClock, RealDisk, RealEntropy};
use postrider::index::{Home, Layered};
use postrider::journal::{FrameAt, Journal, Options as Sizes, ReadFrom, RecordRef, segment_path};
use postrider::store::embedded::{EmbeddedStore, Opening};

use event::event;
use place::{beside, scratch};
use support::options::Options;
use support::report::Report;
use support::{Bench, Error, disk_dir, wait};

/// Records of a batch in a segment that is read.
const BATCH: usize = 64;

/// Bytes of a body in it.
const BODY_BYTES: usize = 1_024;

/// Batches of a segment that is read: nearly all that it takes.
const BATCHES: usize = 900;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// Events of a store whose key space is lost.
const EVENTS: u64 = 300_000;

/// Those who fill it.
const PUBLISHERS: usize = 512;

const BENCH: Bench = Bench {
    name: "journal",
    about: "A journal at A writers with bodies of B bytes; reading one; a lost key space. Series: append, overwrite, journal, \
            read, open, scan, sled, rebuild",
    references: &["append", "overwrite", "read", "sled"],
};

fn main() -> ExitCode {
    let mut lost = None;
    BENCH.run(|options, report| {
        for (writers, bytes) in options.points(|_, _| true) {
            appending(options, writers, bytes, report)?;
        }
        if ["read", "open", "scan"].iter().any(|series| options.wants(series)) {
            reading(report)?;
        }
        if ["sled", "rebuild"].iter().any(|series| options.wants(series)) {
            let lost = match &mut lost {
                Some(lost) => lost,
                None => lost.insert(Lost::make(if options.short { EVENTS / 10 } else { EVENTS })?),
            };
            lost.rebuild(report)?;
        }
        Ok(())
    })
}

fn appending(options: &Options, writers: usize, bytes: usize, report: &mut Report) -> Result<(), Error> {
    let (at, dir, lasts) = (format!("{writers} × {bytes} B"), disk_dir(), options.measured);
    if options.wants("append") {
        report.add(&at, "append", wait(disk::append_grouped(dir, writers, bytes, lasts))?);
    }
    if options.wants("overwrite") {
        report.add(&at, "overwrite", wait(disk::overwrite_grouped(dir, writers, bytes, lasts))?);
    }
    if options.wants("journal") {
        let home = scratch()?;
        let mut journal = open(home.path())?;
        let commit = move |group: &[Vec<u8>]| append(&mut journal, group).map(drop).map_err(io::Error::other);
        report.add(&at, "journal", wait(disk::grouped(writers, bytes, lasts, commit))?);
    }
    Ok(())
}

/// Makes a group of records durable, and sees to the segments.
fn append(journal: &mut Journal<RealDisk>, group: &[Vec<u8>]) -> Result<FrameAt, Error> {
    let record = |body| RecordRef { kind: 1, key: 1, meta: &[], body };
    let records: Vec<_> = group.iter().map(|body| record(body)).collect();
    let at = journal.append_batch(1, &records)?;
    journal.sync()?;
    for job in journal.take_jobs() {
        journal.done(job.run())?;
    }
    while journal.segments().len() > 1 {
        journal.drop_oldest()?;
    }
    Ok(at)
}

/// A journal with a spare at hand, as one has that has been open for a moment.
fn open(dir: &Path) -> Result<Journal<RealDisk>, Error> {
    let sizes = Sizes { batch_bytes_max: 16 << 20, ..Sizes::default() };
    let (mut journal, _) = Journal::open(Arc::new(RealDisk), dir, sizes, RealEntropy.next_u64(), 1)?;
    for job in journal.take_jobs() {
        journal.done(job.run())?;
    }
    Ok(journal)
}

/// Writes a segment full of events, and reads it in three ways.
fn reading(report: &mut Report) -> Result<(), Error> {
    let home = scratch()?;
    let mut journal = open(home.path())?;
    let group = vec![vec![b'x'; BODY_BYTES]; BATCH];
    for _ in 1..BATCHES {
        append(&mut journal, &group)?;
    }
    let last = append(&mut journal, &group)?;
    drop(journal);
    let (clock, at) = (RealClock::new(), format!("{} MB", last.end() / 1_000_000));
    let megabytes = last.end() as f64 / 1e6;
    let per_s = |from_us: u64| megabytes * 1e6 / (clock.mono_us() - from_us).max(1) as f64;
    let from_us = clock.mono_us();
    read(&segment_path(home.path(), last.segment), last.end())?;
    report.add(&at, "read", per_s(from_us));
    let from_us = clock.mono_us();
    let (journal, _) = Journal::open(Arc::new(RealDisk), home.path(), Sizes::default(), RealEntropy.next_u64(), 1)?;
    report.add(&at, "open", per_s(from_us));
    let from_us = clock.mono_us();
    // The last one was copied to a segment of its own.
    let scanned = journal.reader().frames(ReadFrom::Oldest).collect::<Result<Vec<_>, _>>()?.len();
    report.add(&at, "scan", per_s(from_us));
    if scanned != BATCHES {
        return Err(format!("expected {BATCHES} frames, found {scanned}").into());
    }
    Ok(())
}

fn read(path: &Path, end: u64) -> Result<u32, Error> {
    use std::os::unix::fs::FileExt;
    let (file, mut buffer, mut crc) = (std::fs::File::open(path)?, vec![0; READ_BYTES], 0);
    for at in (0..end).step_by(READ_BYTES) {
        let piece = &mut buffer[..READ_BYTES.min((end - at) as usize)];
        file.read_exact_at(piece, at)?;
        crc = crc32c::crc32c_append(crc, piece);
    }
    Ok(std::hint::black_box(crc))
}

/// A store whose key space is lost again and again.
struct Lost {
    home: tempfile::TempDir,
    /// What its key space holds, in order.
    entries: Vec<(sled::IVec, sled::IVec)>,
}

impl Lost {
    fn make(events: u64) -> Result<Self, Error> {
        eprintln!("filling a store with {events} events");
        let next = move |n: u64| {
            let dedup = || vec![DedupKey::new(DedupScope::Inbound, 7, &n.to_string())];
            (n < events).then(|| event(Bytes::from_static(&[b'x'; 128]), dedup()))
        };
        let (store, home) = place::store()?;
        place::accept(&store, PUBLISHERS, next)?;
        store.close();
        drop(store);
        let tree = Home::Directory(home.path().join("index")).open(StoreLimits::default().cache_bytes)?;
        let all = tree.range(Bound::Unbounded, Bound::Unbounded, Layered::Up);
        let entries = all.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { home, entries })
    }

    fn rebuild(&self, report: &mut Report) -> Result<(), Error> {
        let (clock, at) = (RealClock::new(), format!("{} entries", self.entries.len()));
        let per_s = |took: Duration| self.entries.len() as f64 / took.as_secs_f64();
        let since = |from_us: u64| Duration::from_micros(clock.mono_us() - from_us);
        let from_us = clock.mono_us();
        let (sled, _beside) = beside()?;
        for (key, value) in &self.entries {
            sled.insert(key, value)?;
        }
        sled.flush()?;
        report.add(&at, "sled", per_s(since(from_us)));
        drop(sled);
        let from_us = clock.mono_us();
        let progress = &mut |_, _| {};
        let opening = Opening::of_machine(self.home.path().to_owned(), StoreLimits::default(), progress);
        let store = EmbeddedStore::open(Opening { rebuild: true, ..opening })?;
        report.add(&at, "rebuild", per_s(since(from_us)));
        store.close();
        Ok(())
    }
}
