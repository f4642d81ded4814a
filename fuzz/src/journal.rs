//! A journal's directory after something was done to its files: read, verified, opened, salvaged.
//!
//! The input is a byte of flags and operations on the files of a small journal (sealed segments with footers, one with an
//! erased body, an active one) or on an empty directory. With the flag [`RESEALED`] checksums are made right again, so that
//! what stands behind them is reached, too.

mod build;
mod damage;

use std::sync::Arc;

use postrider::env::MemDisk;
use postrider::journal::{
    BodyState, Event, Journal, OpenError, ReadFrom, SalvageError, Severity, VerifyError, VerifyReport, salvage, verify,
};

use self::build::{Batch, DIR, OPTIONS, dir, to_batch};
use self::damage::Damage;

/// Flag: begin with nothing instead of the small journal.
const EMPTY: u8 = 1;
/// Flag: make the checksums of segments right afterwards.
const RESEALED: u8 = 2;

/// An incarnation that no file has.
const INCARNATION: u64 = 77;

pub fn run(bytes: &[u8]) {
    let Some((flags, operations)) = bytes.split_first() else { return };
    let base = if flags & EMPTY == 0 { build::small() } else { build::empty() };
    let disk = base.disk.fork();
    let mut damage = damage::apply(&disk, operations);
    if flags & RESEALED != 0 {
        damage::reseal(&disk);
        damage = Damage::Forged;
    }
    check(&base.batches, Arc::new(disk), damage);
}

fn check(written: &[Batch], disk: Arc<MemDisk>, damage: Damage) {
    let verdict = verify(&*disk, dir(), &mut |event| drop(label(&event)));
    let (opened, damaged) = (Arc::new(disk.fork()), Arc::new(disk.fork()));
    match open(&opened) {
        Ok(journal) => {
            let read = read_all(&journal);
            if let Ok(report) = &verdict
                && report.damage == 0
            {
                assert!(read.is_ok(), "sound by verify, but {:?}", read.err());
            }
            if let (Damage::Flips(count), Ok(read)) = (damage, &read) {
                assert_original(written, read, count);
            }
            find(&journal, written);
        }
        Err(error) => {
            assert!(!matches!(error, OpenError::Options { .. }));
            let sound = matches!(&verdict, Ok(report) if report.damage == 0);
            assert!(!sound, "sound by verify, but it does not open: {error}");
            let is_other_version = matches!(verdict, Err(VerifyError::UnknownVersion { .. }));
            assert!(is_other_version || !matches!(error, OpenError::UnknownVersion { .. }), "verify says {verdict:?}");
        }
    }
    salvaged(written, &damaged, damage);
}

/// Salvage leaves a journal that is sound and has what it says; of damage that checksums notice nothing changed is in it.
fn salvaged(written: &[Batch], disk: &Arc<MemDisk>, damage: Damage) {
    let report = match salvage(disk, dir(), OPTIONS, INCARNATION, 5, None) {
        Ok(report) => report,
        Err(SalvageError::UnknownVersion { .. }) => return,
        // Lengths that were made up may well be past what a batch may be.
        Err(SalvageError::Append(_)) if matches!(damage, Damage::Forged) => return,
        Err(error) => panic!("not salvaged: {error}"),
    };
    let verdict = sound(disk);
    assert_eq!((verdict.damage, verdict.torn_tails), (0, 0), "salvaged, but unsound");
    let journal = open(disk).unwrap_or_else(|error| panic!("salvaged, but it does not open: {error}"));
    let read = read_all(&journal).unwrap_or_else(|error| panic!("salvaged, but it does not read: {error}"));
    let records: usize = read.iter().map(|batch| batch.records.len()).sum();
    assert_eq!(records as u64, report.records, "records kept and records told of");
    if matches!(damage, Damage::Flips(_)) {
        for record in read.iter().flat_map(|batch| &batch.records) {
            let is_written = written.iter().any(|batch| batch.records.contains(record));
            assert!(is_written, "salvage kept what was never written: {record:?}");
        }
    }
}

fn sound(disk: &Arc<MemDisk>) -> VerifyReport {
    verify(&**disk, dir(), &mut |event| drop(label(&event))).expect("what was salvaged can be verified")
}

/// Everything that verification tells can be told on.
fn label(event: &Event<'_>) -> String {
    match event {
        Event::Finding(finding) => {
            assert!(!finding.what.is_empty());
            format!("{:?}", finding.severity == Severity::Damage)
        }
        other => format!("{other:?}"),
    }
}

fn open(disk: &Arc<MemDisk>) -> Result<Journal<MemDisk>, OpenError> {
    Journal::open(Arc::clone(disk), dir(), OPTIONS, INCARNATION + 1, 5).map(|(journal, _)| journal)
}

/// All batches; an error also where a body is not what was written.
fn read_all(journal: &Journal<MemDisk>) -> Result<Vec<Batch>, String> {
    let mut read = Vec::new();
    for frame in journal.reader().frames(ReadFrom::Oldest) {
        let frame = frame.map_err(|error| error.to_string())?;
        if frame.records.iter().any(|record| record.state == BodyState::Damaged) {
            return Err(format!("a body in {DIR} is damaged"));
        }
        read.push(to_batch(&frame));
    }
    Ok(read)
}

/// Fewer flips than the checksum's distance, and yet everything reads: then it is what was written, up to the very last
/// batches, each of which takes a flip of its own to look like a torn write.
fn assert_original(written: &[Batch], read: &[Batch], flips: usize) {
    assert!(read.len() <= written.len() && written.len() - read.len() <= flips, "{} of {}", read.len(), written.len());
    assert_eq!(read, &written[..read.len()], "changed without an error");
}

/// Looking up by key finds what it should or says what is wrong; it never finds another key.
fn find(journal: &Journal<MemDisk>, written: &[Batch]) {
    let reader = journal.reader();
    for key in written.iter().flat_map(|batch| &batch.records).map(|record| record.key).chain([0, 1, u128::MAX]) {
        for found in reader.find(key).into_iter().flatten() {
            let Ok(frame) = reader.frame_at(found.segment, found.offset) else { continue };
            if let Some(record) = frame.records.get(found.index as usize) {
                let _ = (record.key, frame.meta(found.index as usize));
            }
        }
    }
}
