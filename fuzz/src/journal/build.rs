//! The small journal that damage is done to.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use postrider::env::{Disk, MemDisk};
use postrider::journal::{Frame, Journal, Options, ReadFrom, RecordRef};

pub const DIR: &str = "data/journal";
pub const OPTIONS: Options =
    Options { segment_bytes: Options::SEGMENT_BYTES_MIN, batch_bytes_max: 32 << 10, records_max: 4096, spares_max: 1 };

/// A journal, and what is in it.
pub struct Base {
    pub disk: MemDisk,
    pub batches: Vec<Batch>,
}

/// A batch as it reads back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub sequence: u64,
    pub time_ms: u64,
    pub records: Vec<Record>,
}

/// A record as it reads back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kind: u8,
    pub key: u128,
    pub meta: Vec<u8>,
    pub body: Vec<u8>,
}

pub fn dir() -> &'static Path {
    Path::new(DIR)
}

/// Three sealed segments and an active one, three batches each; one body is erased.
pub fn small() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let disk = Arc::new(MemDisk::new());
        for incarnation in 1..=4 {
            let (mut journal, _) = Journal::open(Arc::clone(&disk), dir(), OPTIONS, incarnation, 5).expect("it opens");
            for step in 0..3 {
                put(&mut journal, incarnation * 10 + step);
            }
            if incarnation == 3 {
                journal.erase(110, &|_| true).expect("a body is erased");
            }
        }
        let again = Arc::new(disk.fork());
        let (journal, _) = Journal::open(again, dir(), OPTIONS, 5, 5).expect("it opens again");
        let frames = journal.reader().frames(ReadFrom::Oldest);
        let batches = frames.map(|frame| to_batch(&frame.expect("a sound journal reads"))).collect();
        Base { disk: disk.fork(), batches }
    })
}

/// A directory with nothing in it.
pub fn empty() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let disk = MemDisk::new();
        disk.create_dir_all(dir()).expect("a directory");
        Base { disk, batches: Vec::new() }
    })
}

fn put(journal: &mut Journal<MemDisk>, number: u64) {
    let (meta, body) = (format!("meta {number}"), format!("body {number}").repeat(4));
    let record = |index: u8| RecordRef {
        kind: 1 + index,
        key: u128::from(number) * 10 + u128::from(index),
        meta: meta.as_bytes(),
        body: body.as_bytes(),
    };
    journal.append_batch(number, &[record(0), record(1)]).expect("there is room");
    journal.sync().expect("it syncs");
}

pub fn to_batch(frame: &Frame) -> Batch {
    let record = |record: RecordRef<'_>| Record {
        kind: record.kind,
        key: record.key,
        meta: record.meta.to_vec(),
        body: record.body.to_vec(),
    };
    Batch { sequence: frame.at.sequence, time_ms: frame.time_ms, records: frame.refs().map(record).collect() }
}
