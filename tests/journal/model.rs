//! What every test of the journal needs: batches to append, and a way to read all of them back.

use std::path::Path;
use std::sync::Arc;

use postrider::env::{Disk, DiskFile, Entropy, MemDisk, Piece, SeededEntropy};
use postrider::journal::{
    Frame, FrameAt, Journal, OpenError, Options, ReadError, ReadFrom, Reader, RecordRef, Recovery,
};

pub const DIR: &str = "data/journal";
pub const OPTIONS: Options =
    Options { segment_bytes: 64 << 10, batch_bytes_max: 8 << 20, records_max: 4096, spares_max: 2 };

/// A record that a test owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rec {
    pub kind: u8,
    pub key: u128,
    pub meta: Vec<u8>,
    pub body: Vec<u8>,
}

/// A batch and where it went in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub sequence: u64,
    pub time_ms: u64,
    pub records: Vec<Rec>,
}

pub fn dir() -> &'static Path {
    Path::new(DIR)
}

/// A batch that differs from all others and is about `bytes` long.
pub fn batch(number: u64, bytes: usize) -> Vec<Rec> {
    let one = |at: usize| Rec {
        kind: 1 + at as u8,
        key: u128::from(number) * 10 + at as u128,
        meta: format!("meta {number} {at}").into_bytes(),
        body: format!("body-{number}-{at};").into_bytes().into_iter().cycle().take(bytes / 2).collect(),
    };
    vec![one(1), one(2)]
}

pub fn refs(records: &[Rec]) -> Vec<RecordRef<'_>> {
    let mut refs = Vec::new();
    for record in records {
        refs.push(RecordRef { kind: record.kind, key: record.key, meta: &record.meta, body: &record.body });
    }
    refs
}

pub fn try_open<D: Disk>(disk: &Arc<D>, incarnation: u64) -> Result<(Journal<D>, Recovery), OpenError> {
    Journal::open(Arc::clone(disk), dir(), OPTIONS, incarnation, 5)
}

pub fn open(disk: &Arc<MemDisk>, incarnation: u64) -> Journal<MemDisk> {
    try_open(disk, incarnation).unwrap().0
}

/// Appends and syncs one batch whose time is ten times its sequence.
pub fn put<D: Disk>(journal: &mut Journal<D>, records: &[Rec]) -> FrameAt {
    let time_ms = journal.next_sequence() * 10;
    let at = journal.append_batch(time_ms, &refs(records)).unwrap();
    journal.sync().unwrap();
    at
}

pub fn run_jobs<D: Disk>(journal: &mut Journal<D>) {
    for job in journal.take_jobs() {
        journal.done(job.run()).unwrap();
    }
}

pub fn to_batch(frame: &Frame) -> Batch {
    let records = frame.refs().map(|record| Rec {
        kind: record.kind,
        key: record.key,
        meta: record.meta.to_vec(),
        body: record.body.to_vec(),
    });
    Batch { sequence: frame.at.sequence, time_ms: frame.time_ms, records: records.collect() }
}

/// All batches, or those before the first that can't be read, and why.
pub fn read_all<D: Disk>(reader: &Reader<D>) -> (Vec<Batch>, Option<ReadError>) {
    let mut batches = Vec::new();
    for frame in reader.frames(ReadFrom::Oldest) {
        match frame {
            Ok(frame) => batches.push(to_batch(&frame)),
            Err(error) => return (batches, Some(error)),
        }
    }
    (batches, None)
}

pub fn batches<D: Disk>(journal: &Journal<D>) -> Vec<Batch> {
    let (batches, error) = read_all(&journal.reader());
    assert!(error.is_none(), "{error:?}");
    batches
}

/// What a power cut keeps: nothing, everything, or by chance of a seed.
pub fn keeper(seed: u64) -> impl FnMut(Piece) -> bool {
    let entropy = SeededEntropy::new(seed);
    move |_| match seed {
        0 => false,
        1 => true,
        _ => entropy.unit() < 0.5,
    }
}

/// Changes bytes of a file behind the journal's back, durably.
pub fn patch<D: Disk>(disk: &D, name: &str, offset: u64, change: impl FnOnce(&mut Vec<u8>), len: usize) {
    let file = disk.open(&dir().join(name), true).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).unwrap();
    change(&mut bytes);
    file.write_all_at(&bytes, offset).unwrap();
    file.sync_all().unwrap();
}

pub fn flip<D: Disk>(disk: &D, name: &str, offset: u64, bit: u8) {
    patch(disk, name, offset, |bytes| bytes[0] ^= 1 << bit, 1);
}

/// All files of the journal with their contents.
pub fn files<D: Disk>(disk: &D) -> Vec<(String, Vec<u8>)> {
    let mut names = disk.list(dir()).unwrap();
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let content = disk.read_file(&dir().join(&name)).unwrap();
            (name, content)
        })
        .collect()
}

pub fn segment_name(number: u64) -> String {
    format!("seg-{number:016x}.wal")
}
