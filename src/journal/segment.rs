//! What is known of each segment while the journal is open, shared by the writer and all readers.
//!
//! Invariants:
//! - `Segment::end` counts durable frames only: it moves after the sync, so that no reader sees what a power cut may take.
//! - A segment's keys are in memory until its footer is durable, then in the footer. It is never without an index.
//! - A segment leaves the table before its file is renamed or removed, so a reader that finds it there after reading has
//!   read it whole.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::copy::Pin;
use super::footer::{KeyEntry, Trailer};
use super::format::{HEADER_BYTES, NUMBER_MAX, SegmentHeader};
use super::frame::Frame;
use super::job::SealTask;
use crate::env::Disk;

/// Files that readers keep open between them.
const OPEN_FILES_MAX: usize = 64;

/// An I/O error, with what was being done to which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}{}", file, offset.map(|at| format!(" at byte {at}")).unwrap_or_default())]
pub struct IoFault {
    /// What was tried.
    pub action: &'static str,
    /// Name of the file or directory.
    pub file: String,
    /// Byte offset in it, where one is meant.
    pub offset: Option<u64>,
    /// What the system said.
    pub source: io::Error,
}

/// Makes an [`IoFault`] of an error, for `map_err`.
pub(super) fn fault(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IoFault {
    let file = path.file_name().unwrap_or(path.as_os_str());
    let file = file.to_string_lossy().into_owned();
    move |source| IoFault { action, file, offset: None, source }
}

/// Like [`fault`], for one place of the file.
pub(super) fn fault_at(action: &'static str, path: &Path, offset: u64) -> impl FnOnce(io::Error) -> IoFault {
    let make = fault(action, path);
    move |source| IoFault { offset: Some(offset), ..make(source) }
}

/// File of a segment.
pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("seg-{number:016x}.wal"))
}

/// The segment number in a file name, if it is a segment's.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    hex_between(name, "seg-")
}

/// File of a spare.
pub(super) fn spare_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("spare-{id:016x}.wal"))
}

/// The spare's number in a file name, if it is a spare's.
pub(super) fn spare_id(name: &str) -> Option<u64> {
    hex_between(name, "spare-")
}

fn hex_between(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(".wal")?;
    let lower = digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let number = u64::from_str_radix(digits, 16).ok().filter(|number| *number <= NUMBER_MAX);
    number.filter(|_| lower && digits.len() == 16)
}

/// Sums over a segment's frames. With no frames, sequences and times are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub records: u64,
    pub frames: u64,
    pub first_sequence: u64,
    pub last_sequence: u64,
    pub first_time_ms: u64,
    pub last_time_ms: u64,
    pub last_crc: u32,
}

impl Totals {
    pub fn add(&mut self, sequence: u64, crc: u32, time_ms: u64, records: usize) {
        if self.frames == 0 {
            self.first_sequence = sequence;
            self.first_time_ms = time_ms;
        }
        self.frames += 1;
        self.records += records as u64;
        self.last_sequence = sequence;
        self.last_time_ms = time_ms;
        self.last_crc = crc;
    }
}

/// Keys of a segment that has no footer yet.
#[derive(Debug, Default)]
pub(super) struct MemIndex {
    entries: Vec<Chained>,
    /// The newest entry of each key; each entry leads to the one before it.
    heads: HashMap<u128, u32>,
}

/// 32 bytes of a record that may itself take little more.
#[derive(Debug)]
struct Chained {
    key: u128,
    offset: u32,
    index: u32,
    previous: u32,
    kind: u8,
}

/// Ends the chain of a key's entries.
const NONE: u32 = u32::MAX;

impl Chained {
    fn entry(&self) -> KeyEntry {
        KeyEntry { key: self.key, offset: u64::from(self.offset), index: self.index, kind: self.kind }
    }
}

impl MemIndex {
    /// Adds a record's key; the key zero is none and isn't added.
    pub fn add(&mut self, entry: KeyEntry) {
        if entry.key == 0 {
            return;
        }
        // A segment is at most 1 GiB and a record at least 32 bytes, so 32 bits hold every offset and count.
        let previous = self.heads.insert(entry.key, self.entries.len() as u32);
        self.entries.push(Chained {
            key: entry.key,
            offset: entry.offset as u32,
            index: entry.index,
            previous: previous.unwrap_or(NONE),
            kind: entry.kind,
        });
    }

    /// All entries with this key, in order of place.
    pub fn find(&self, key: u128) -> Vec<KeyEntry> {
        let mut found = Vec::new();
        let mut next = self.heads.get(&key).copied().unwrap_or(NONE);
        while let Some(chained) = self.entries.get(next as usize) {
            found.push(chained.entry());
            next = chained.previous;
        }
        found.reverse();
        found
    }

    /// All entries as a footer sorts them.
    pub fn sorted(&self) -> Vec<KeyEntry> {
        let mut entries: Vec<KeyEntry> = self.entries.iter().map(Chained::entry).collect();
        entries.sort_unstable();
        entries
    }
}

/// What scanning a segment's frames gathers.
#[derive(Debug)]
pub(super) struct Contents {
    pub totals: Totals,
    pub index: MemIndex,
    /// Offset after the last frame.
    pub end: u64,
}

impl Contents {
    pub fn new() -> Self {
        Self { totals: Totals::default(), index: MemIndex::default(), end: HEADER_BYTES }
    }

    pub fn add(&mut self, frame: &Frame) {
        let records = frame.records.len();
        self.totals.add(frame.at.sequence, frame.at.crc, frame.time_ms, records);
        for entry in keys_of(frame) {
            self.index.add(entry);
        }
        self.end = frame.at.end();
    }
}

/// Index entries of a frame's records, those without a key included.
pub(super) fn keys_of(frame: &Frame) -> impl Iterator<Item = KeyEntry> {
    let records = frame.records.iter().enumerate();
    records.map(|(index, record)| KeyEntry {
        key: record.key,
        offset: frame.at.offset,
        index: index as u32,
        kind: record.kind,
    })
}

/// One segment of the open journal.
pub(super) struct Segment<D: Disk> {
    pub header: SegmentHeader,
    /// Offset after the last durable frame.
    pub end: u64,
    /// Length of the file, zeros written ahead included.
    pub file_bytes: u64,
    pub totals: Totals,
    pub index: Index<D>,
    /// Whether bytes after `end` may be left over from what the file held before.
    pub dirty_tail: bool,
}

/// Where a segment's keys are.
pub(super) enum Index<D: Disk> {
    /// The active segment's, in memory and growing.
    Active(MemIndex),
    /// A full segment's, in memory until the task has made the footer durable.
    Sealing(Arc<SealTask<D>>),
    /// In the file's own footer.
    Sealed(Trailer),
}

/// What the caller may know of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number; later segments have greater ones, not always by one.
    pub number: u64,
    /// Length of its file, zeros written ahead included.
    pub bytes: u64,
    /// Records in its durable frames.
    pub records: u64,
    /// Time of its first frame; when it was started, if it has none.
    pub first_time_ms: u64,
    /// Time of its last frame; when it was started, if it has none.
    pub last_time_ms: u64,
    /// Sequence of its first frame, which may yet have to come.
    pub first_sequence: u64,
    /// Sequence of its last frame; one less than the first if it has none.
    pub last_sequence: u64,
    /// Whether its footer is durable. Only then can it be dropped.
    pub sealed: bool,
}

impl<D: Disk> Segment<D> {
    pub fn info(&self) -> SegmentInfo {
        let (totals, header) = (&self.totals, &self.header);
        let none = totals.frames == 0;
        let pick = |of_frames, of_header| if none { of_header } else { of_frames };
        SegmentInfo {
            number: header.segment,
            bytes: self.file_bytes,
            records: totals.records,
            first_time_ms: pick(totals.first_time_ms, header.created_ms),
            last_time_ms: pick(totals.last_time_ms, header.created_ms),
            first_sequence: header.first_sequence,
            last_sequence: pick(totals.last_sequence, header.first_sequence.saturating_sub(1)),
            sealed: matches!(self.index, Index::Sealed(_)),
        }
    }
}

/// The segments by number, oldest first.
pub(super) type Table<D> = BTreeMap<u64, Segment<D>>;

/// What the writer and all readers have in common.
pub(super) struct Shared<D: Disk> {
    pub disk: Arc<D>,
    pub dir: PathBuf,
    table: RwLock<Table<D>>,
    files: Mutex<VecDeque<(u64, Arc<D::File>)>>,
    /// How many erasures began. Held for writing while a body is overwritten, so that no reader sees half of that and calls
    /// it damage.
    erasing: RwLock<u64>,
    /// The segments that a copy still has to read.
    pub pin: Pin,
}

impl<D: Disk> Shared<D> {
    pub fn new(disk: Arc<D>, dir: PathBuf, table: Table<D>) -> Self {
        Self {
            disk,
            dir,
            table: RwLock::new(table),
            files: Mutex::new(VecDeque::new()),
            erasing: RwLock::new(0),
            pin: Pin::default(),
        }
    }

    /// The segments, for looking. No I/O is done under this lock.
    pub fn table(&self) -> RwLockReadGuard<'_, Table<D>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segments, for changing. No I/O is done under this lock.
    pub fn table_mut(&self) -> RwLockWriteGuard<'_, Table<D>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn hold_off_erasing(&self) -> RwLockReadGuard<'_, u64> {
        self.erasing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For an erasure, which counts from here on.
    pub fn hold_off_reading(&self) -> RwLockWriteGuard<'_, u64> {
        let mut erasing = self.erasing.write().unwrap_or_else(PoisonError::into_inner);
        *erasing += 1;
        erasing
    }

    /// How many erasures began so far.
    pub fn erasures(&self) -> u64 {
        *self.hold_off_erasing()
    }

    /// A segment's file for reading, from the few that are kept open.
    pub fn file(&self, number: u64) -> io::Result<Arc<D::File>> {
        let mut files = self.files();
        if let Some(at) = files.iter().position(|(other, _)| *other == number) {
            let hit = files.remove(at).expect("the position was just found");
            let file = Arc::clone(&hit.1);
            files.push_front(hit);
            return Ok(file);
        }
        drop(files);
        let path = segment_path(&self.dir, number);
        let file = Arc::new(self.disk.open(&path, false)?);
        let mut files = self.files();
        files.push_front((number, Arc::clone(&file)));
        files.truncate(OPEN_FILES_MAX);
        Ok(file)
    }

    /// Lets go of a segment's file, because its name is about to mean something else.
    pub fn forget_file(&self, number: u64) {
        self.files().retain(|(other, _)| *other != number);
    }

    fn files(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<D::File>)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_read_back_and_others_are_ignored() {
        let dir = Path::new("d");
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(segment_number(&name(segment_path(dir, 255))), Some(255));
        assert_eq!(spare_id(&name(spare_path(dir, NUMBER_MAX))), Some(NUMBER_MAX));
        assert_eq!(spare_id(&name(spare_path(dir, NUMBER_MAX + 1))), None);
        for other in [
            "seg-ff.wal",
            "seg-00000000000000FF.wal",
            "seg-00000000000000ff.tmp",
            "spare-00000000000000ff.wal",
            "seg-+0000000000000ff.wal",
            "seg-ffffffffffffffff.wal",
        ] {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }

    #[test]
    fn the_memory_index_finds_all_of_a_key_in_order() {
        let mut index = MemIndex::default();
        let entry = |key, offset| KeyEntry { key, offset, index: 0, kind: 1 };
        for one in [entry(5, 8), entry(0, 16), entry(4, 24), entry(5, 32)] {
            index.add(one);
        }
        assert_eq!(index.find(5), [entry(5, 8), entry(5, 32)]);
        assert_eq!(index.find(0), []);
        assert_eq!(index.sorted(), [entry(4, 24), entry(5, 8), entry(5, 32)]);
    }
}
