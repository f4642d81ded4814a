//! Copying the journal while it is written: headers, durable frames and footers, byte for byte as they stand in the files,
//! from the oldest segment on.
//!
//! A copy reaches to the end that the journal had when it began, which is between two batches. What was copied is what a
//! power cut right after the last of its frames would have left, so opening it is what opening always is.
//!
//! Invariants:
//! - Segments that are still to be read are pinned: whoever drops segments asks [`Reader::is_pinned`] first, and takes the
//!   pin away with [`Reader::end_copy`] where it can't wait. A copy that lost its pin ends with an error.
//! - Bodies may be erased while the copy is made. Each frame is read whole, before or after that; and a copy that met an
//!   erasure goes on to the end that the journal has by then, so that it holds the record of every erasure whose zeros it
//!   holds, and its last frame has none of them.
//! - What is damaged is not copied: the copy ends with an error that names the place.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::footer::{PAGE_BYTES, Trailer, decode_page};
use super::format::HEADER_BYTES;
use super::frame::{BodyState, Flaw, Frame};
use super::reader::{ReadError, Reader};
use super::scan::read_up_to;
use super::segment::{Index, Shared};
use super::writer::Journal;
use crate::env::Disk;

/// Pages of a footer that are read at once.
const PAGES_AT_ONCE: u64 = 64;

/// What a copy holds back, in the journal's shared state. There is one copy at a time.
#[derive(Debug, Default)]
pub(super) struct Pin(Mutex<Option<Pinned>>);

#[derive(Debug, Clone, Copy)]
struct Pinned {
    /// The lowest segment that is still to be read.
    from: u64,
    /// The copy has to end: the room is needed.
    ended: bool,
}

impl Pin {
    fn lock(&self) -> MutexGuard<'_, Option<Pinned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of the journal, as it stands in its file.
#[derive(Debug)]
pub enum Piece {
    /// A segment's header block.
    Header {
        /// The segment.
        segment: u64,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A frame, all of its bodies intact or erased.
    Frame(Frame),
    /// Part of a segment's footer.
    Footer {
        /// The segment.
        segment: u64,
        /// Where in the file.
        offset: u64,
        /// Its bytes.
        bytes: Bytes,
    },
}

impl Piece {
    /// Segment and offset.
    pub fn place(&self) -> (u64, u64) {
        match self {
            Self::Header { segment, .. } => (*segment, 0),
            Self::Frame(frame) => (frame.at.segment, frame.at.offset),
            Self::Footer { segment, offset, .. } => (*segment, *offset),
        }
    }

    /// The bytes there.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Header { bytes, .. } | Self::Footer { bytes, .. } => bytes,
            Self::Frame(frame) => &frame.data,
        }
    }
}

/// Why a copy is not complete.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The journal needed the room of segments that were still to be read.
    #[error("the journal needed the room of what was still to be copied")]
    Ended,
    /// What is in the journal can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A copy under way; an iterator over its pieces. Dropping it ends it.
pub struct Copy<D: Disk> {
    reader: Reader<D>,
    /// Segment and offset where it ends, as far as is known.
    end: (u64, u64),
    /// Erasures that had begun when the end was set.
    erasures: u64,
    next: Next,
    bytes: u64,
}

/// What comes next.
enum Next {
    Header(u64),
    Frame(u64, u64),
    Footer(Box<Trailer>, u64),
    Nothing,
}

impl<D: Disk> Journal<D> {
    /// Begins a copy of what is durable; `None` while there is another one.
    pub fn copy(&mut self) -> Option<Copy<D>> {
        let shared = &self.shared;
        let table = shared.table();
        let (oldest, newest) = (table.values().next()?, table.values().next_back()?);
        let mut pin = shared.pin.lock();
        if pin.is_some() {
            return None;
        }
        *pin = Some(Pinned { from: oldest.header.segment, ended: false });
        Some(Copy {
            reader: self.reader(),
            end: (newest.header.segment, newest.end),
            erasures: shared.erasures(),
            next: Next::Header(oldest.header.segment),
            bytes: table.values().map(|segment| segment.end).sum(),
        })
    }
}

impl<D: Disk> Reader<D> {
    /// Whether a copy still has to read this segment.
    pub fn is_pinned(&self, segment: u64) -> bool {
        self.shared.pin.lock().is_some_and(|pin| !pin.ended && pin.from <= segment)
    }

    /// Ends the copy that is under way, because the room is needed.
    pub fn end_copy(&self) {
        if let Some(pin) = &mut *self.shared.pin.lock() {
            pin.ended = true;
        }
    }
}

impl<D: Disk> Copy<D> {
    /// Bytes it will have, or somewhat more.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn try_next(&mut self) -> Result<Option<Piece>, CopyError> {
        while !matches!(self.next, Next::Nothing) {
            if self.shared().pin.lock().is_none_or(|pin| pin.ended) {
                return Err(CopyError::Ended);
            }
            match &self.next {
                Next::Header(segment) => return self.header(*segment).map(Some),
                Next::Frame(segment, offset) => {
                    let at = (*segment, *offset);
                    if at >= self.end && !self.goes_on() {
                        self.next = Next::Nothing;
                    } else if let Some(frame) = self.frame(at)? {
                        return Ok(Some(Piece::Frame(frame)));
                    }
                }
                Next::Footer(..) => return self.footer().map(Some),
                Next::Nothing => {}
            }
        }
        Ok(None)
    }

    fn shared(&self) -> &Shared<D> {
        &self.reader.shared
    }

    /// Whether there was an erasure since the end was set; then the end is another one now.
    fn goes_on(&mut self) -> bool {
        // In this order: an erasure is counted when its record is durable, and before its first zero is written.
        let erasures = self.shared().erasures();
        if erasures == self.erasures {
            return false;
        }
        self.erasures = erasures;
        let newest = self.shared().table().values().next_back().map(|newest| (newest.header.segment, newest.end));
        self.end = newest.unwrap_or(self.end);
        true
    }

    fn header(&mut self, segment: u64) -> Result<Piece, CopyError> {
        if let Some(pin) = &mut *self.shared().pin.lock() {
            pin.from = segment;
        }
        let bytes = self.reader.look(segment, |found| found.header.encode())?;
        self.next = Next::Frame(segment, HEADER_BYTES);
        Ok(Piece::Header { segment, bytes: bytes.into() })
    }

    /// The frame at this place; `None` at the end of its segment, after which something else is next.
    fn frame(&mut self, (segment, offset): (u64, u64)) -> Result<Option<Frame>, CopyError> {
        let (end, trailer) = self.reader.look(segment, |found| {
            let trailer = if let Index::Sealed(trailer) = &found.index { Some(trailer.clone()) } else { None };
            (found.end, trailer)
        })?;
        if offset >= end {
            // A segment in which the copy ends gets no footer: a sealed last segment says that one is missing after it.
            self.next = match trailer {
                Some(trailer) if segment < self.end.0 => Next::Footer(Box::new(trailer), 0),
                _ => self.after(segment),
            };
            return Ok(None);
        }
        let frame = self.reader.frame_at(segment, offset)?;
        if frame.records.iter().any(|record| record.state == BodyState::Damaged) {
            return Err(ReadError::Damaged { segment, offset, source: Flaw::Checksum }.into());
        }
        self.next = Next::Frame(segment, frame.at.end());
        Ok(Some(frame))
    }

    /// Some pages of a footer, or its trailer after them.
    fn footer(&mut self) -> Result<Piece, CopyError> {
        let Next::Footer(trailer, page) = std::mem::replace(&mut self.next, Next::Nothing) else {
            return Err(CopyError::Ended);
        };
        let segment = trailer.segment;
        let offset = trailer.frames_end + page * PAGE_BYTES as u64;
        if page >= trailer.pages {
            self.next = self.after(segment);
            return Ok(Piece::Footer { segment, offset, bytes: trailer.encode().into() });
        }
        let pages = PAGES_AT_ONCE.min(trailer.pages - page);
        let len = pages * PAGE_BYTES as u64;
        let bytes = self.reader.checked(segment, offset, |file| read_up_to(file, offset, len))?;
        let whole = |(n, bytes): (u64, &[u8])| decode_page(bytes, segment, page + n).is_some();
        if bytes.len() as u64 != len || !(0..).zip(bytes.chunks(PAGE_BYTES)).all(whole) {
            return Err(ReadError::Damaged { segment, offset, source: Flaw::Checksum }.into());
        }
        self.next = Next::Footer(trailer, page + pages);
        Ok(Piece::Footer { segment, offset, bytes: bytes.into() })
    }

    fn after(&self, segment: u64) -> Next {
        let table = self.shared().table();
        let later = table.range(segment + 1..).next();
        later.map_or(Next::Nothing, |(number, _)| Next::Header(*number))
    }
}

impl<D: Disk> Iterator for Copy<D> {
    type Item = Result<Piece, CopyError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.try_next();
        if next.is_err() {
            self.next = Next::Nothing;
        }
        next.transpose()
    }
}

impl<D: Disk> Drop for Copy<D> {
    fn drop(&mut self) {
        *self.shared().pin.lock() = None;
    }
}
