//! Reading frames from a file that may not hold what it should.
//!
//! [`Walk`] goes through a segment and yields frames, and for each stretch that isn't the frame expected there one
//! [`Step::Bad`] with the place where frames go on, if they do. What that means (a torn end, damage, something to salvage)
//! is for its callers to say.
//!
//! Invariant: an error of the disk is an error here, never an end: a journal must not start shorter because a read failed.

use std::io;

use super::footer::{TRAILER_BYTES, Trailer};
use super::format::HEADER_BYTES;
use super::frame::{ALIGN, FRAME_MAGIC, Flaw, Frame, FrameHead, HEAD_BYTES, meta_crc};
use crate::env::DiskFile;

/// Read first of a frame whose length isn't known; most frames end within it.
const READ_AHEAD_BYTES: u64 = 16 << 10;
/// Read at a time when looking for the next frame.
const SEARCH_BYTES: u64 = 256 << 10;

/// Reads the frame at an offset, which must end before `limit`.
pub(super) fn read_frame<F: DiskFile>(
    file: &F,
    segment: u64,
    offset: u64,
    limit: u64,
) -> io::Result<Result<Frame, Flaw>> {
    let room = limit.saturating_sub(offset);
    let mut bytes = read_up_to(file, offset, room.min(READ_AHEAD_BYTES))?;
    let head = match FrameHead::parse(&bytes) {
        Ok(head) => head,
        Err(flaw) => return Ok(Err(flaw)),
    };
    if u64::from(head.total_len) > room {
        return Ok(Err(Flaw::Short));
    }
    let had = bytes.len();
    bytes.resize(head.total_len as usize, 0);
    if bytes.len() > had && !fill(file, &mut bytes[had..], offset + had as u64)? {
        return Ok(Err(Flaw::Short));
    }
    // Bodies are handed on as slices of this; a small frame must not hold the whole read-ahead for them.
    bytes.shrink_to_fit();
    Ok(Frame::decode(bytes.into(), segment, offset))
}

/// Reads what the file has of these bytes.
pub(super) fn read_up_to<F: DiskFile>(file: &F, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let count = file.read_full_at(&mut bytes, offset)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Fills the buffer; `false` if the file ends first.
fn fill<F: DiskFile>(file: &F, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    Ok(file.read_full_at(buffer, offset)? == buffer.len())
}

/// The trailer of a sealed segment, if the file ends in one that agrees with its length.
pub(super) fn read_trailer<F: DiskFile>(file: &F, segment: u64, incarnation: u64) -> io::Result<Option<Trailer>> {
    let len = file.len()?;
    let Some(at) = len.checked_sub(TRAILER_BYTES as u64) else {
        return Ok(None);
    };
    let bytes = read_up_to(file, at, TRAILER_BYTES as u64)?;
    let trailer = Trailer::decode(&bytes);
    Ok(trailer.filter(|found| {
        let mine = found.segment == segment && found.incarnation == incarnation;
        mine && found.file_bytes() == len && found.totals.frames > 0
    }))
}

/// Which frame belongs at the next offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expect {
    /// The segment's incarnation; unknown if its header is damaged.
    pub incarnation: Option<u64>,
    /// The next sequence.
    pub sequence: u64,
    /// CRC of the frame before. Unknown after a gap; then any later sequence will do, too.
    pub prev_crc: Option<u32>,
}

impl Expect {
    fn admits(&self, head: &FrameHead) -> bool {
        let mine = self.incarnation.is_none_or(|own| own == head.incarnation);
        mine && match self.prev_crc {
            Some(crc) => head.sequence == self.sequence && head.prev_crc == crc,
            None => head.sequence >= self.sequence,
        }
    }

    /// Whether a frame found further on shows that something before it is damaged, not torn.
    fn is_outlived_by(&self, head: &FrameHead) -> bool {
        let mine = self.incarnation.is_none_or(|own| own == head.incarnation);
        mine && head.sequence >= self.sequence
    }
}

/// What a walk finds next.
#[derive(Debug)]
pub(super) enum Step {
    /// The frame that belongs here. Its bodies are for the caller to judge.
    Frame(Frame),
    /// Bytes that aren't.
    Bad {
        /// Where they begin.
        from: u64,
        /// Where a later frame begins; `None` if there is none.
        to: Option<u64>,
        /// What is wrong with the first of them.
        flaw: Flaw,
        /// Bytes of the frame begun here, if its head can be read and belongs here.
        begun_bytes: u64,
    },
}

/// A walk over a segment's frames.
pub(super) struct Walk<'a, F> {
    file: &'a F,
    segment: u64,
    offset: u64,
    limit: u64,
    expect: Expect,
    ended: bool,
}

impl<'a, F: DiskFile> Walk<'a, F> {
    /// Starts after the header block and ends before `limit`.
    pub fn new(file: &'a F, segment: u64, limit: u64, expect: Expect) -> Self {
        Self { file, segment, offset: HEADER_BYTES, limit, expect, ended: false }
    }

    /// The frame that would come next.
    pub fn expect(&self) -> Expect {
        self.expect
    }

    /// Where it would be.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next frame or bad stretch; `None` after the last.
    pub fn step(&mut self) -> io::Result<Option<Step>> {
        if self.ended || self.offset + HEAD_BYTES as u64 > self.limit {
            return Ok(None);
        }
        let read = read_frame(self.file, self.segment, self.offset, self.limit)?;
        let flaw = match read {
            Ok(frame) if self.expect.admits(&frame.head) => {
                self.offset = frame.at.end();
                self.expect.sequence = frame.at.sequence + 1;
                self.expect.prev_crc = Some(frame.at.crc);
                return Ok(Some(Step::Frame(frame)));
            }
            Ok(frame) => Flaw::Foreign { expected: self.expect.sequence, found: frame.at.sequence },
            Err(flaw) => flaw,
        };
        self.bad(flaw).map(Some)
    }

    fn bad(&mut self, flaw: Flaw) -> io::Result<Step> {
        let from = self.offset;
        let begun_bytes = self.begun_bytes()?;
        let expect = self.expect;
        // The frame right here is bad in its chain or its lengths only if one further on says so, too.
        let to = find_frame(self.file, from + ALIGN, self.limit, &|head| expect.is_outlived_by(head))?;
        match to {
            Some(at) => {
                self.offset = at;
                self.expect.prev_crc = None;
            }
            None => self.ended = true,
        }
        Ok(Step::Bad { from, to, flaw, begun_bytes })
    }

    /// Length of a frame that was begun here, as far as its head tells.
    fn begun_bytes(&self) -> io::Result<u64> {
        let bytes = read_up_to(self.file, self.offset, HEAD_BYTES as u64)?;
        Ok(match FrameHead::parse(&bytes) {
            Ok(head) if self.expect.admits(&head) => u64::from(head.total_len),
            _ => 0,
        })
    }
}

/// Finds the first offset at or after `from` where a frame begins whose head and metas are whole and that `accept`s.
pub(super) fn find_frame<F: DiskFile>(
    file: &F,
    from: u64,
    limit: u64,
    accept: &dyn Fn(&FrameHead) -> bool,
) -> io::Result<Option<u64>> {
    let mut at = from.next_multiple_of(ALIGN);
    while at < limit {
        let chunk = read_up_to(file, at, SEARCH_BYTES.min(limit - at))?;
        for (index, word) in chunk.chunks_exact(ALIGN as usize).enumerate() {
            let offset = at + index as u64 * ALIGN;
            if word[..4] == FRAME_MAGIC && is_frame(file, offset, limit, accept)? {
                return Ok(Some(offset));
            }
        }
        if (chunk.len() as u64) < SEARCH_BYTES {
            break;
        }
        at += SEARCH_BYTES;
    }
    Ok(None)
}

/// The cheap checks come first: a payload full of magics must not cost a checksum each.
fn is_frame<F: DiskFile>(file: &F, offset: u64, limit: u64, accept: &dyn Fn(&FrameHead) -> bool) -> io::Result<bool> {
    let bytes = read_up_to(file, offset, (HEAD_BYTES as u64).min(limit - offset))?;
    let Ok(head) = FrameHead::parse(&bytes) else {
        return Ok(false);
    };
    if !accept(&head) || u64::from(head.total_len) > limit - offset {
        return Ok(false);
    }
    let len = HEAD_BYTES as u64 + u64::from(head.meta_len);
    let bytes = read_up_to(file, offset, len)?;
    Ok(bytes.len() as u64 == len && meta_crc(&bytes, head.meta_len) == head.crc)
}
