//! Erasing bodies: overwriting them with zeros so that no copy of them is left in the directory.
//!
//! An erasure is written down (`erase.todo`: which bytes of which segments) before the first body is touched, and finished
//! at the next open if a crash interrupts it. Without that a half overwritten body would look like damage.
//!
//! Invariants:
//! - The journal's last frame is never erased from: an empty frame is appended after it first. So zeros in the last frame
//!   are always a torn write, never an erasure.
//! - Recycled files and the part of the active segment that isn't written yet may hold a dropped segment's bytes. They go,
//!   whatever the key, since no index says any more what is in them.

use std::io;
use std::path::{Path, PathBuf};

use super::format::{HEADER_BYTES, u32_at, u64_at};
use super::frame::BodyState;
use super::job::fill_zeros;
use super::reader::ReadError;
use super::segment::{Index, IoFault, fault, fault_at, segment_path, spare_id};
use super::spare::remove;
use super::writer::{AppendError, Journal, WriteError};
use crate::env::{Disk, DiskFile};

const FILE_NAME: &str = "erase.todo";
const MAGIC: [u8; 4] = *b"PRJX";
const HEAD_BYTES: usize = 8;
const RANGE_BYTES: usize = 24;

/// How much was erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErasedCount {
    /// Bodies overwritten now; those that were erased before don't count.
    pub bodies: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why an erasure is not complete. The journal takes nothing more; the next open finishes what was begun.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The journal can't be written to now; nothing was erased.
    #[error("the journal can't erase now")]
    Append(#[from] AppendError),
    /// The frame that protects the last one could not be made durable; nothing was erased.
    #[error("the journal can't erase now")]
    Write(#[from] WriteError),
    /// A body could not be found or read; nothing was erased.
    #[error("the bodies to erase could not be read")]
    Read(#[from] ReadError),
    /// The disk failed.
    #[error("the erasure was not finished; the next open finishes it")]
    Io(#[from] IoFault),
}

/// One body's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub segment: u64,
    pub offset: u64,
    pub len: u64,
}

impl<D: Disk> Journal<D> {
    /// Overwrites the bodies of all records with this key whose kind is wanted, durably, and removes every older copy of
    /// dropped segments. Kinds, keys and metas stay.
    pub fn erase(&mut self, key: u128, kinds: &dyn Fn(u8) -> bool) -> Result<ErasedCount, EraseError> {
        self.is_settled()?;
        let (ranges, in_last_frame) = self.bodies(key, kinds)?;
        // Zeros in the journal's last frame would be taken for a torn write, and the frame dropped.
        if in_last_frame {
            let now_ms = self.segments().last().map_or(0, |last| last.last_time_ms);
            self.append_batch(now_ms, &[])?;
            self.sync()?;
        }
        self.poisoning(|journal| journal.erase_ranges(&ranges))?;
        Ok(ErasedCount { bodies: ranges.len() as u64, bytes: ranges.iter().map(|range| range.len).sum() })
    }

    /// The bodies that aren't zeros yet, and whether one of them is in the last frame.
    fn bodies(&self, key: u128, kinds: &dyn Fn(u8) -> bool) -> Result<(Vec<Range>, bool), ReadError> {
        let reader = self.reader();
        let mut ranges = Vec::new();
        let mut in_last_frame = false;
        for found in reader.find(key)? {
            if !kinds(found.kind) {
                continue;
            }
            let frame = reader.frame_at(found.segment, found.offset)?;
            let body = frame.body(found.index as usize);
            let record = &frame.records[found.index as usize];
            // A damaged body counts: most of it may still be readable.
            if record.state == BodyState::Zeroed || body.iter().all(|&byte| byte == 0) {
                continue;
            }
            let active = &self.active;
            in_last_frame |= (found.segment, found.offset) == (active.number, active.last_offset);
            ranges.push(Range {
                segment: found.segment,
                offset: found.offset + record.body.start as u64,
                len: body.len() as u64,
            });
        }
        Ok((ranges, in_last_frame))
    }

    fn erase_ranges(&mut self, ranges: &[Range]) -> Result<(), IoFault> {
        let shared = std::sync::Arc::clone(&self.shared);
        let disk = &*shared.disk;
        let todo = todo_path(&shared.dir);
        // Written even without bodies: what else has to go must be finished after a crash, too.
        disk.replace_file(&todo, &encode(ranges)).map_err(fault("write", &todo))?;
        // A reader between two writes would see a body that is neither whole nor zeros.
        {
            let _no_reader = shared.hold_off_reading();
            zero(disk, &shared.dir, ranges)?;
        }
        self.cut_tails()?;
        self.pool.forget_recycled()?;
        finish(disk, &shared.dir)
    }

    /// Removes what files held before they became the segments they are, after the ends of those.
    fn cut_tails(&mut self) -> Result<(), IoFault> {
        let mut seals = Vec::new();
        let mut dirty_active = None;
        for (number, segment) in &*self.shared.table() {
            match &segment.index {
                Index::Sealing(task) => seals.push(std::sync::Arc::clone(task)),
                Index::Active(_) if segment.dirty_tail => dirty_active = Some(*number),
                _ => {}
            }
        }
        // Sealing cuts the file off; the helper that has the same task finds it done.
        for task in seals {
            task.run()?;
        }
        let Some(number) = dirty_active else {
            return Ok(());
        };
        let (file, end) = (&self.active.file, self.active.end);
        let clear = || {
            fill_zeros(file, end, file.len()?)?;
            file.sync_data()
        };
        let path = segment_path(&self.shared.dir, number);
        clear().map_err(fault_at("clear the rest of", &path, end))?;
        if let Some(segment) = self.shared.table_mut().get_mut(&number) {
            segment.dirty_tail = false;
        }
        Ok(())
    }
}

/// Finishes an erasure that a crash interrupted, and says whether there was one.
///
/// The old active segment's tail, the other place where old bytes may be, is cut off by every open anyway.
pub(super) fn redo<D: Disk>(disk: &D, dir: &Path) -> Result<bool, RedoError> {
    let Some(ranges) = load(disk, dir)? else {
        return Ok(false);
    };
    // The process that wrote the list may have been killed, or failed, before its name was durable. Half overwritten bodies
    // without the list would look like damage.
    disk.sync_dir(dir).map_err(fault("sync before erasing", dir))?;
    zero(disk, dir, &ranges)?;
    let names = disk.list(dir).map_err(fault("list", dir))?;
    for name in names.iter().filter(|name| spare_id(name).is_some()) {
        remove(disk, &dir.join(name))?;
    }
    finish(disk, dir)?;
    Ok(true)
}

/// Why an interrupted erasure could not be finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum RedoError {
    #[error("expected a list of bytes to erase, the file is damaged")]
    Damaged,
    #[error("the erasure was not finished")]
    Io(#[from] IoFault),
}

/// The bytes that an unfinished erasure meant, if there is one.
pub(super) fn load<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Vec<Range>>, RedoError> {
    let todo = todo_path(dir);
    match disk.read_file(&todo) {
        Ok(bytes) => decode(&bytes).map(Some).ok_or(RedoError::Damaged),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault("read", &todo)(error).into()),
    }
}

fn todo_path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

/// Overwrites ranges, sorted by segment, and syncs each file. A segment that is gone needs nothing.
fn zero<D: Disk>(disk: &D, dir: &Path, ranges: &[Range]) -> Result<(), IoFault> {
    for group in ranges.chunk_by(|one, other| one.segment == other.segment) {
        let path = segment_path(dir, group[0].segment);
        let file = match disk.open(&path, true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(fault("open for erasing", &path))?,
        };
        let erase = || {
            let len = file.len()?;
            for range in group {
                // Bounded by the file, so that nothing here can make it grow.
                let end = range.offset.saturating_add(range.len).min(len);
                fill_zeros(&file, range.offset.max(HEADER_BYTES), end)?;
            }
            file.sync_data()
        };
        erase().map_err(fault_at("erase in", &path, group[0].offset))?;
    }
    Ok(())
}

/// Forgets the list, once nothing in it is left to do.
fn finish<D: Disk>(disk: &D, dir: &Path) -> Result<(), IoFault> {
    remove(disk, &todo_path(dir))?;
    disk.sync_dir(dir).map_err(fault("sync after erasing", dir))
}

fn encode(ranges: &[Range]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + ranges.len() * RANGE_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 4]);
    for range in ranges {
        for number in [range.segment, range.offset, range.len] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    let crc = crc32c::crc32c(&bytes).to_le_bytes();
    bytes[4..8].copy_from_slice(&crc);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<Range>> {
    let ranges = bytes.get(HEAD_BYTES..)?;
    let mut blank = bytes.to_vec();
    blank[4..8].fill(0);
    let whole = bytes[..4] == MAGIC && crc32c::crc32c(&blank) == u32_at(bytes, 4);
    if !whole || !ranges.len().is_multiple_of(RANGE_BYTES) {
        return None;
    }
    let decoded = ranges.chunks(RANGE_BYTES).map(|range| Range {
        segment: u64_at(range, 0),
        offset: u64_at(range, 8),
        len: u64_at(range, 16),
    });
    Some(decoded.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_bytes_reads_back_and_any_flip_is_noticed() {
        let range = |segment| Range { segment, offset: 5000, len: 17 };
        let ranges = vec![range(1), range(2)];
        let bytes = encode(&ranges);
        assert_eq!(decode(&bytes), Some(ranges));
        assert_eq!(decode(&encode(&[])), Some(Vec::new()));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), None);
        }
    }
}
