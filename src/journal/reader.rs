//! Readers: any number of them, on any thread, beside the writer.
//!
//! A reader sees durable frames only. It reads first and looks afterwards whether the segment is still there, so a segment
//! dropped meanwhile gives `Gone` and never the bytes of what its file became.

use std::io;
use std::sync::Arc;

use super::footer::{KeyEntry, PAGE_BYTES, decode_page};
use super::format::HEADER_BYTES;
use super::frame::{Flaw, Frame, FrameHead, HEAD_BYTES};
use super::scan::{read_frame, read_up_to};
use super::segment::{Index, IoFault, Segment, SegmentInfo, Shared, fault_at, segment_path};
use crate::env::Disk;

/// Reads the journal. Clones are cheap.
pub struct Reader<D: Disk> {
    pub(super) shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for Reader<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The caller's record type.
    pub kind: u8,
    /// Segment of its frame.
    pub segment: u64,
    /// Offset of its frame.
    pub offset: u64,
    /// Its index in the frame.
    pub index: u32,
}

/// Where to begin reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the oldest frame there is.
    Oldest,
    /// At the frame with this sequence, which may have yet to come.
    Sequence(u64),
    /// At a frame's place, or the end of one.
    At {
        /// Segment number.
        segment: u64,
        /// Offset in it.
        offset: u64,
    },
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The segment was dropped by retention; its records are gone for good.
    #[error("segment {segment:016x} is gone, retention dropped it")]
    Gone {
        /// The segment, or the oldest one left when a sequence before it was asked for.
        segment: u64,
    },
    /// No durable frame is at this place.
    #[error("expected a frame in segment {segment:016x} at byte {offset}, the durable part ends at {end}")]
    OutOfRange {
        /// The segment.
        segment: u64,
        /// The offset asked for.
        offset: u64,
        /// Where its frames end.
        end: u64,
    },
    /// What is there can't be read; run `journal verify`, then `journal salvage`.
    #[error("segment {segment:016x} is damaged at byte {offset}; run journal verify, then journal salvage")]
    Damaged {
        /// The segment.
        segment: u64,
        /// The offset of the frame or footer page.
        offset: u64,
        /// What is wrong.
        source: Flaw,
    },
    /// The disk failed.
    #[error("the journal could not be read")]
    Io(#[from] IoFault),
}

impl<D: Disk> Reader<D> {
    pub(super) fn new(shared: Arc<Shared<D>>) -> Self {
        Self { shared }
    }

    /// The frame at a place that [`FrameAt`](super::FrameAt) or [`Found`] names.
    ///
    /// A body that isn't intact is no error here; look at each record's state.
    pub fn frame_at(&self, segment: u64, offset: u64) -> Result<Frame, ReadError> {
        let (end, incarnation) = self.look(segment, |found| (found.end, found.header.incarnation))?;
        if !(HEADER_BYTES..end).contains(&offset) {
            return Err(ReadError::OutOfRange { segment, offset, end });
        }
        let frame = self.checked(segment, offset, |file| read_frame(file, segment, offset, end))?;
        match frame {
            Ok(frame) if frame.head.incarnation == incarnation => Ok(frame),
            Ok(frame) => Err(Flaw::Foreign { expected: frame.at.sequence, found: frame.at.sequence }),
            Err(flaw) => Err(flaw),
        }
        .map_err(|source| ReadError::Damaged { segment, offset, source })
    }

    /// All frames from a place on, in order, up to the durable end.
    pub fn frames(&self, from: ReadFrom) -> Frames<D> {
        let (position, skip_to) = match from {
            ReadFrom::Oldest => (None, 0),
            ReadFrom::Sequence(sequence) => (None, sequence),
            ReadFrom::At { segment, offset } => (Some((segment, offset)), 0),
        };
        Frames { reader: self.clone(), position, skip_to, failed: false }
    }

    /// All records with a key, oldest first. The key zero finds nothing.
    pub fn find(&self, key: u128) -> Result<Vec<Found>, ReadError> {
        self.find_from(0, key)
    }

    /// Like [`Reader::find`], in this segment and later ones only.
    pub fn find_from(&self, first_segment: u64, key: u128) -> Result<Vec<Found>, ReadError> {
        let mut found = Vec::new();
        for (segment, lookup) in self.lookups(first_segment, key) {
            let entries = match lookup {
                Lookup::Done(entries) => entries,
                Lookup::Footer { at, pages } => match self.search(segment, at, pages, key) {
                    // A segment dropped during the search is one that was never asked.
                    Err(ReadError::Gone { .. }) => continue,
                    entries => entries?,
                },
            };
            found.extend(entries.into_iter().map(|entry| Found {
                kind: entry.kind,
                segment,
                offset: entry.offset,
                index: entry.index,
            }));
        }
        Ok(found)
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.table().values().map(Segment::info).collect()
    }

    /// What is in memory of a key, and which footers have to be asked for the rest.
    fn lookups(&self, first_segment: u64, key: u128) -> Vec<(u64, Lookup)> {
        let table = self.shared.table();
        let segments = table.range(first_segment..);
        let lookup = |(number, segment): (&u64, &Segment<D>)| {
            let lookup = match &segment.index {
                Index::Active(index) => Lookup::Done(index.find(key)),
                Index::Sealing(task) => Lookup::Done(task.find(key)),
                Index::Sealed(trailer) => {
                    let inside = (trailer.key_min..=trailer.key_max).contains(&key);
                    if key == 0 || !inside {
                        return None;
                    }
                    Lookup::Footer { at: trailer.frames_end, pages: trailer.pages }
                }
            };
            Some((*number, lookup))
        };
        segments.filter_map(lookup).collect()
    }

    /// Finds a key in a footer: the first page that may hold it by binary search, then all that do.
    fn search(&self, segment: u64, at: u64, pages: u64, key: u128) -> Result<Vec<KeyEntry>, ReadError> {
        let (mut low, mut high) = (0, pages);
        while low < high {
            let middle = low + (high - low) / 2;
            let page = self.page(segment, at, middle)?;
            if page.last().is_some_and(|entry| entry.key < key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut found = Vec::new();
        for index in low..pages {
            let page = self.page(segment, at, index)?;
            found.extend(page.iter().filter(|entry| entry.key == key));
            if page.last().is_none_or(|entry| entry.key > key) {
                break;
            }
        }
        Ok(found)
    }

    fn page(&self, segment: u64, at: u64, index: u64) -> Result<Vec<KeyEntry>, ReadError> {
        let offset = at + index * PAGE_BYTES as u64;
        let bytes = self.checked(segment, offset, |file| read_up_to(file, offset, PAGE_BYTES as u64))?;
        decode_page(&bytes, segment, index).ok_or(ReadError::Damaged { segment, offset, source: Flaw::Checksum })
    }

    /// Reads from a segment's file and makes sure that it still was that segment's.
    pub(super) fn checked<T>(
        &self,
        segment: u64,
        offset: u64,
        read: impl FnOnce(&D::File) -> io::Result<T>,
    ) -> Result<T, ReadError> {
        let result = {
            let _whole_bodies = self.shared.hold_off_erasing();
            self.shared.file(segment).and_then(|file| read(&file))
        };
        if let Err(gone) = self.look(segment, |_| ()) {
            self.shared.forget_file(segment);
            return Err(gone);
        }
        let path = || segment_path(&self.shared.dir, segment);
        Ok(result.map_err(|error| fault_at("read", &path(), offset)(error))?)
    }

    pub(super) fn look<T>(&self, segment: u64, at: impl FnOnce(&Segment<D>) -> T) -> Result<T, ReadError> {
        let table = self.shared.table();
        let found = table.get(&segment).ok_or(ReadError::Gone { segment })?;
        Ok(at(found))
    }
}

enum Lookup {
    Done(Vec<KeyEntry>),
    Footer { at: u64, pages: u64 },
}

/// Frames in order. `None` means caught up with the writer: ask again after its next sync.
///
/// After an error it ends, so that no loop spins on a damaged frame; begin again at [`Frames::position`] to retry.
pub struct Frames<D: Disk> {
    reader: Reader<D>,
    /// Segment and offset of the next frame; `None` before the first call.
    position: Option<(u64, u64)>,
    /// Frames before this sequence are passed over.
    skip_to: u64,
    failed: bool,
}

impl<D: Disk> Frames<D> {
    /// Segment and offset where the next frame will be looked for; `None` before the first was.
    pub fn position(&self) -> Option<(u64, u64)> {
        self.position
    }

    /// The next frame's place, or `None` at the durable end.
    fn advance(&mut self) -> Result<Option<(u64, u64)>, ReadError> {
        let table = self.reader.shared.table();
        let (segment, offset) = match self.position {
            Some(position) => position,
            None => {
                let before = |segment: &&Segment<D>| segment.header.first_sequence <= self.skip_to;
                let oldest = table.values().next();
                let start = match self.skip_to {
                    0 => oldest,
                    _ => table.values().rev().find(before),
                };
                let gone = || oldest.map_or(0, |segment| segment.header.segment);
                let start = start.ok_or_else(|| ReadError::Gone { segment: gone() })?;
                (start.header.segment, HEADER_BYTES)
            }
        };
        let found = table.get(&segment).ok_or(ReadError::Gone { segment })?;
        let mut next = Some((segment, offset));
        if offset >= found.end {
            let mut later = table.range(segment + 1..);
            // Only the active segment can be without frames, and it is the last.
            next = later.next().map(|(number, _)| (*number, HEADER_BYTES));
        }
        self.position = Some(next.unwrap_or((segment, offset)));
        Ok(next.filter(|(number, at)| table.get(number).is_some_and(|one| *at < one.end)))
    }

    /// Length of a frame to pass over, or `None` if it is wanted.
    fn skipped(&self, segment: u64, offset: u64) -> Result<Option<u64>, ReadError> {
        if self.skip_to == 0 {
            return Ok(None);
        }
        let bytes = self.reader.checked(segment, offset, |file| read_up_to(file, offset, HEAD_BYTES as u64))?;
        // A head that can't be read is left to the full read, which says what is wrong with it.
        Ok(match FrameHead::parse(&bytes) {
            Ok(head) if head.sequence < self.skip_to => Some(u64::from(head.total_len)),
            _ => None,
        })
    }

    fn try_next(&mut self) -> Result<Option<Frame>, ReadError> {
        while let Some((segment, offset)) = self.advance()? {
            if let Some(len) = self.skipped(segment, offset)? {
                self.position = Some((segment, offset + len));
                continue;
            }
            let frame = self.reader.frame_at(segment, offset)?;
            self.skip_to = 0;
            self.position = Some((segment, frame.at.end()));
            return Ok(Some(frame));
        }
        Ok(None)
    }
}

impl<D: Disk> Iterator for Frames<D> {
    type Item = Result<Frame, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.try_next();
        self.failed = next.is_err();
        next.transpose()
    }
}
