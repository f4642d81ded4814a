//! Which events a recorded gateway let go with their segments, and whether it had to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::record::Record;
use super::session::SEGMENT_BYTES;

/// What a frame begins with.
const FRAME: &[u8] = b"PRJF";

/// What stands in front of an event's key in its body.
const KEY: &[u8] = b"{\"key\": \"";

/// Segments that are kept free for settles and for carrying.
const RESERVED_SEGMENTS: u64 = 2;

/// A journal as a record tells of it.
#[derive(Default)]
struct Journal {
    /// Paths by descriptor.
    open: HashMap<i32, String>,
    /// Bytes of segments and spares by path.
    sizes: BTreeMap<String, u64>,
    /// Segments that hold an event, by its key.
    homes: BTreeMap<String, BTreeSet<String>>,
    /// The frame that was written last, and where it ends.
    frame: (Vec<u8>, u64),
    /// The most bytes that there were since the last drop.
    most_bytes: u64,
}

/// Keys of the events that went with their segments, each with the record from which on it may be gone: the frame that
/// says so, which is the last before the segment's name goes.
///
/// # Panics
/// When a segment goes that is not the oldest, or that need not: within the retention of days, which none outlives here,
/// an event that is done stays until the journal has more bytes than it may.
pub fn dropped(records: &[Record], retention_bytes: u64) -> BTreeMap<String, usize> {
    let (mut journal, mut dropped, mut last_frame) = (Journal::default(), BTreeMap::new(), 0);
    for (at, record) in records.iter().enumerate() {
        if let Record::Write { fd, at: offset, bytes } = record
            && journal.is_of_frame(*fd, *offset, bytes)
        {
            last_frame = at;
        }
        if let Some(segment) = leaving(record) {
            let gone = journal.forget(segment);
            if !gone.is_empty() {
                journal.assert_must_go(segment, retention_bytes);
            }
            dropped.extend(gone.into_iter().map(|key| (key, last_frame)));
        }
        journal.take(record);
    }
    dropped
}

/// The segment whose name a record takes away.
fn leaving(record: &Record) -> Option<&str> {
    let path = match record {
        Record::Rename { from, .. } => from,
        Record::Remove { path } => path,
        _ => return None,
    };
    path.contains("/journal/seg-").then_some(path)
}

/// Keys of the events whose bodies are among these bytes.
fn keys_in(bytes: &[u8]) -> impl Iterator<Item = String> {
    let starts = bytes.windows(KEY.len()).enumerate().filter(|(_, window)| *window == KEY);
    starts.filter_map(|(at, _)| {
        let text = &bytes[at + KEY.len()..];
        // A short write may end here; the next one brings the rest.
        let end = text.iter().position(|byte| *byte == b'"')?;
        Some(String::from_utf8(text[..end].to_vec()).unwrap())
    })
}

impl Journal {
    /// Whether that is a frame, or the rest of one. Notes the events in it.
    fn is_of_frame(&mut self, fd: i32, at: u64, bytes: &[u8]) -> bool {
        let Some(segment) = self.open.get(&fd).filter(|path| path.contains("/seg-")) else { return false };
        let (frame, end) = &mut self.frame;
        if bytes.starts_with(FRAME) {
            frame.clear();
        } else if at != *end {
            return false;
        }
        frame.extend_from_slice(bytes);
        *end = at + bytes.len() as u64;
        for key in keys_in(frame) {
            self.homes.entry(key).or_default().insert(segment.clone());
        }
        true
    }

    /// Keys of the events that no other segment holds.
    fn forget(&mut self, segment: &str) -> Vec<String> {
        let gone = self.homes.extract_if(.., |_, homes| homes.remove(segment) && homes.is_empty());
        gone.map(|(key, _)| key).collect()
    }

    fn take(&mut self, record: &Record) {
        match record {
            Record::Start => self.open.clear(),
            Record::Open { fd, path, made, .. } if path.ends_with(".wal") => {
                if *made {
                    self.sizes.insert(path.clone(), 0);
                }
                self.open.insert(*fd, path.clone());
            }
            Record::Close { fd } => drop(self.open.remove(fd)),
            Record::Write { fd, at, bytes } => self.resize(*fd, |size| size.max(at + bytes.len() as u64)),
            Record::Truncate { fd, len } => self.resize(*fd, |_| *len),
            Record::Rename { from, to } => {
                if let Some(size) = self.sizes.remove(from) {
                    self.sizes.insert(to.clone(), size);
                    self.open.values_mut().filter(|path| *path == from).for_each(|path| path.clone_from(to));
                }
            }
            Record::Remove { path } => drop(self.sizes.remove(path)),
            _ => {}
        }
        self.most_bytes = self.bytes().max(if leaving(record).is_some() { 0 } else { self.most_bytes });
    }

    fn resize(&mut self, fd: i32, size: impl FnOnce(u64) -> u64) {
        if let Some(known) = self.open.get(&fd).and_then(|path| self.sizes.get_mut(path)) {
            *known = size(*known);
        }
    }

    /// Bytes of all segments and of the spare that is prepared for the next: it counts before it is there.
    fn bytes(&self) -> u64 {
        let segments = self.sizes.iter().filter(|(path, _)| path.contains("/seg-"));
        SEGMENT_BYTES + segments.map(|(_, bytes)| bytes).sum::<u64>()
    }

    fn assert_must_go(&self, segment: &str, retention_bytes: u64) {
        let oldest = self.sizes.keys().find(|path| path.contains("/seg-"));
        assert_eq!(oldest.map(|path| &**path), Some(segment), "the oldest segment goes first");
        let (bytes, most) = (self.most_bytes, retention_bytes - RESERVED_SEGMENTS * SEGMENT_BYTES);
        assert!(bytes > most, "{segment} goes, and the journal has had {bytes} bytes at most, of {most} that it may");
    }
}
