//! Which events a recorded gateway let go with their segments, and whether it had to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postrider::core::fact::{Fact, kind};
use postrider::core::id::EventId;

use super::record::Record;
use super::session::SEGMENT_BYTES;

/// Segments that are kept free for settles and for carrying.
const RESERVED_SEGMENTS: u64 = 2;

/// Where a frame has its magic, length, count of records, and its table; bytes of an entry there.
const MAGIC: &[u8] = b"PRJF";
const LENGTH_AT: usize = 4;
const COUNT_AT: usize = 36;
const TABLE_AT: usize = 48;
const ENTRY_BYTES: usize = 32;

/// A journal as a record tells of it.
#[derive(Default)]
struct Journal {
    /// Paths by descriptor.
    open: HashMap<i32, String>,
    /// Bytes of segments and spares by path.
    sizes: BTreeMap<String, u64>,
    /// Segments that hold an event, by number.
    homes: BTreeMap<EventId, BTreeSet<u64>>,
    /// A frame that is not complete, and where it ends so far: a short write leaves the rest to the next.
    frame: Vec<u8>,
    frame_end: u64,
    /// The most bytes that there were since a segment's name went.
    most_bytes: u64,
}

/// The events that went with their segments, each with the record from which on it may be gone: the frame that says so.
///
/// An error says which segment goes and is not the oldest, or need not go: no life here is as long as the retention of days,
/// so an event that is done stays until the journal uses more bytes than it may.
pub fn dropped(records: &[Record], retention_bytes: u64) -> Result<BTreeMap<EventId, usize>, String> {
    let (mut journal, mut dropped) = (Journal::default(), BTreeMap::new());
    for (at, record) in records.iter().enumerate() {
        for segment in journal.take(record) {
            let gone = journal.forget(segment);
            // A start writes the last frame once more, and with it what that says.
            if !gone.is_empty() {
                journal.check_must_go(segment, retention_bytes)?;
            }
            dropped.extend(gone.into_iter().map(|event| (event, at)));
        }
    }
    Ok(dropped)
}

impl Journal {
    /// Takes the next record in. Returns the segments that it says are dropped.
    fn take(&mut self, record: &Record) -> Vec<u64> {
        let mut dropped = Vec::new();
        let mut before = self.most_bytes;
        match record {
            Record::Start => self.open.clear(),
            Record::Open { fd, path, made, .. } if path.ends_with(".wal") => {
                if *made {
                    self.sizes.insert(path.clone(), 0);
                }
                self.open.insert(*fd, path.clone());
            }
            Record::Close { fd } => drop(self.open.remove(fd)),
            Record::Write { fd, at, bytes } => {
                self.resize(*fd, |size| size.max(at + bytes.len() as u64));
                dropped = self.write(*fd, *at, bytes);
            }
            Record::Truncate { fd, len } => self.resize(*fd, |_| *len),
            Record::Rename { from: path, .. } | Record::Remove { path } => {
                let size = self.sizes.remove(path);
                if let (Record::Rename { to, .. }, Some(size)) = (record, size) {
                    self.sizes.insert(to.clone(), size);
                    self.open.values_mut().filter(|open| *open == path).for_each(|open| open.clone_from(to));
                }
                if segment_of(path).is_some() {
                    before = 0;
                }
            }
            _ => {}
        }
        self.most_bytes = before.max(self.bytes());
        dropped
    }

    fn resize(&mut self, fd: i32, size: impl FnOnce(u64) -> u64) {
        if let Some(known) = self.open.get(&fd).and_then(|path| self.sizes.get_mut(path)) {
            *known = size(*known);
        }
    }

    /// Notes the events of a frame that is complete now. Returns the segments that it says are dropped.
    fn write(&mut self, fd: i32, at: u64, bytes: &[u8]) -> Vec<u64> {
        let mut dropped = Vec::new();
        let Some(segment) = self.open.get(&fd).and_then(|path| segment_of(path)) else { return dropped };
        if bytes.starts_with(MAGIC) {
            self.frame.clear();
        } else if self.frame.is_empty() || at != self.frame_end {
            return dropped;
        }
        self.frame.extend_from_slice(bytes);
        self.frame_end = at + bytes.len() as u64;
        if self.frame.len() < TABLE_AT || self.frame.len() < number(&self.frame, LENGTH_AT) {
            return dropped;
        }
        for (kind, key, meta) in records_of(&std::mem::take(&mut self.frame)) {
            if matches!(kind, kind::ACCEPTED | kind::CARRIED) {
                self.homes.entry(EventId::from_u128(key)).or_default().insert(segment);
            } else if kind == kind::DROPPED {
                let Ok(Fact::Dropped { segment, .. }) = Fact::decode(kind, meta) else { panic!("no drop: {meta:?}") };
                dropped.push(segment);
            }
        }
        dropped
    }

    /// The events that no other segment holds.
    fn forget(&mut self, segment: u64) -> Vec<EventId> {
        let gone = self.homes.extract_if(.., |_, homes| homes.remove(&segment) && homes.is_empty());
        gone.map(|(event, _)| event).collect()
    }

    /// Bytes of all segments and of the spare that is prepared for the next: it counts before it is there.
    fn bytes(&self) -> u64 {
        let segments = self.sizes.iter().filter(|(path, _)| segment_of(path).is_some());
        SEGMENT_BYTES + segments.map(|(_, bytes)| bytes).sum::<u64>()
    }

    fn check_must_go(&self, segment: u64, retention_bytes: u64) -> Result<(), String> {
        let oldest = self.sizes.keys().find_map(|path| segment_of(path));
        let (bytes, most) = (self.most_bytes, retention_bytes - RESERVED_SEGMENTS * SEGMENT_BYTES);
        if oldest != Some(segment) {
            return Err(format!("segment {segment} goes, and the oldest is {oldest:?}"));
        }
        if bytes <= most {
            return Err(format!("segment {segment} goes, and the journal used {bytes} bytes at most, of {most}"));
        }
        Ok(())
    }
}

/// The number of the segment at a path, if there is one.
fn segment_of(path: &str) -> Option<u64> {
    let (_, name) = path.rsplit_once("/journal/seg-")?;
    Some(u64::from_str_radix(name.strip_suffix(".wal")?, 16).unwrap())
}

/// Kind, key and meta of each record of a frame.
fn records_of(frame: &[u8]) -> impl Iterator<Item = (u8, u128, &[u8])> {
    let count = number(frame, COUNT_AT);
    let mut meta_at = TABLE_AT + count * ENTRY_BYTES;
    frame[TABLE_AT..meta_at].chunks(ENTRY_BYTES).map(move |entry| {
        let meta = &frame[meta_at..meta_at + number(entry, 16)];
        meta_at += meta.len();
        (entry[28], u128::from_le_bytes(entry[..16].try_into().unwrap()), meta)
    })
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}
