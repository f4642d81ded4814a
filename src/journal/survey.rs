//! What a directory's segments amount to: where the journal ends, and what opening has to do. Reads only.
//!
//! Sequences are contiguous over the whole journal and every frame names the CRC of the one before, so each segment must
//! reach exactly to the first frame of the next:
//!
//! ```text
//!    seg 4 (sealed)      seg 5 (was active)         seg 6 (header only)
//!    first 10, last 14   first 15, …, 19, torn 20   first 20: a rotation, 19 is known to be synced
//!                                                   first 19: an open that died before its copy of 19 was there
//! ```
//!
//! Rules, and why they hold:
//! - A frame is written after the one before it is synced, so an invalid frame with a valid later one is damage.
//! - A segment's header is synced before its frames, so a bad header with frames after it is damage.
//! - A segment is sealed after the header of a later one is synced, so a sealed last segment means that one is missing.
//! - Zeros for a body in the very last frame are a torn write: erasure stays away from it (see `erase.rs`).

use std::path::{Path, PathBuf};

use super::footer::Trailer;
use super::format::{HEADER_BYTES, SegmentHeader};
use super::frame::{BodyState, Flaw, Frame};
use super::layout::{Layout, SegmentFile};
use super::scan::{Expect, Step, Walk, find_frame, read_up_to};
use super::segment::{Contents, IoFault, fault};
use crate::env::Disk;

/// Read at a time when looking for anything but zeros.
const BLANK_BYTES: u64 = 256 << 10;

/// What opening has to do, and where the journal goes on.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// Segments that stay, in order.
    pub kept: Vec<(&'a SegmentFile, SegmentHeader, Kept)>,
    /// The last frame, if it isn't known to be synced: it's copied, and only then cut off where it is.
    pub copy: Option<Frame>,
    /// Files without a header of their own and without frames: removed before a new segment is started.
    pub unused: Vec<PathBuf>,
    /// Segments whose frames are all in later ones: removed after the copy is synced.
    pub emptied: Vec<PathBuf>,
    /// Sequence of the next frame to append.
    pub next_sequence: u64,
    /// CRC of the frame before that.
    pub last_crc: u32,
    /// Bytes of a batch that was begun and isn't whole, as far as its head was written.
    pub torn_bytes: u64,
}

/// How a segment that stays is found.
#[derive(Debug)]
pub(super) enum Kept {
    /// With a valid trailer.
    Sealed(Trailer),
    /// Without; the footer is to be made of this.
    Unsealed(Contents),
}

/// Why no journal can be opened here.
#[derive(Debug, thiserror::Error)]
pub(super) enum SurveyError {
    #[error("damaged: {what}")]
    Damaged { segment: u64, offset: u64, what: String },
    #[error("the journal could not be read")]
    Io(#[from] IoFault),
}

fn damaged(segment: u64, offset: u64, what: impl ToString) -> SurveyError {
    SurveyError::Damaged { segment, offset, what: what.to_string() }
}

/// The last segment with frames, and how it ends.
enum End<'a> {
    /// No segment has any.
    Nowhere,
    Sealed(usize, &'a Trailer),
    Open(usize, Box<Tail>),
}

/// What scanning a segment that may end torn found.
pub(super) struct Tail {
    /// All frames but the last.
    pub before: Contents,
    /// The last one.
    pub last: Option<Frame>,
    pub torn_bytes: u64,
}

/// Works out the plan. `origin` is the next sequence and last CRC of a journal that has no segment yet.
pub(super) fn survey<'a, D: Disk>(disk: &D, layout: &'a Layout, origin: (u64, u32)) -> Result<Plan<'a>, SurveyError> {
    let (headed, unused) = layout.segments.split_at(layout.headed());
    let mut files = Vec::new();
    // A header is durable before the next segment is begun, so a bad one with a good one after it is no crash.
    for file in headed {
        let header = file.header.ok_or_else(|| {
            let what = "expected the segment's header, it is damaged; later segments have theirs";
            damaged(file.number, 0, what)
        })?;
        files.push((file, header));
    }
    let mut plan = Plan {
        kept: Vec::new(),
        copy: None,
        unused: unused.iter().map(|file| file.path.clone()).collect(),
        emptied: Vec::new(),
        next_sequence: origin.0,
        last_crc: origin.1,
        torn_bytes: 0,
    };
    let end = find_end(disk, &files, &mut plan)?;
    let expected = settle_end(end, &files, &mut plan)?;
    // The last segment with frames is known now; those before it go in front of it.
    if let Some(last) = plan.kept.pop() {
        let until_last = |pair: &&[(&SegmentFile, SegmentHeader)]| pair[1].0.number <= last.0.number;
        for pair in files.windows(2).take_while(until_last) {
            check_middle(disk, pair[0], pair[1].1, &mut plan)?;
        }
        plan.kept.push(last);
    }
    for file in unused {
        check_unused(disk, file, files.is_empty(), expected)?;
    }
    Ok(plan)
}

/// Goes down from the newest segment to the last one that has a frame.
fn find_end<'a, D: Disk>(
    disk: &D,
    files: &[(&'a SegmentFile, SegmentHeader)],
    plan: &mut Plan<'a>,
) -> Result<End<'a>, SurveyError> {
    for (at, (file, header)) in files.iter().enumerate().rev() {
        if let Some(trailer) = &file.trailer {
            if at + 1 == files.len() {
                let what = "expected a segment after this sealed one, it is missing or lost its header";
                return Err(damaged(file.number, 0, what));
            }
            return Ok(End::Sealed(at, trailer));
        }
        let tail = scan_tail(disk, file, header)?;
        plan.torn_bytes += tail.torn_bytes;
        if tail.last.is_some() {
            return Ok(End::Open(at, Box::new(tail)));
        }
    }
    Ok(End::Nowhere)
}

/// Sets where the journal goes on, and returns the least sequence that a frame after that could have.
fn settle_end<'a>(
    end: End<'a>,
    files: &[(&'a SegmentFile, SegmentHeader)],
    plan: &mut Plan<'a>,
) -> Result<u64, SurveyError> {
    match end {
        End::Nowhere => {
            let Some((_, oldest)) = files.first() else {
                return Ok(plan.next_sequence);
            };
            check_hollow(files, oldest.first_sequence, oldest.prev_crc, None)?;
            plan.next_sequence = oldest.first_sequence;
            plan.last_crc = oldest.prev_crc;
            plan.emptied.extend(files.iter().map(|(file, _)| file.path.clone()));
            Ok(plan.next_sequence)
        }
        End::Sealed(at, trailer) => {
            // Sealing comes after the sync of all frames, so nothing has to be copied.
            let next = trailer.totals.last_sequence + 1;
            check_first(files[at], trailer)?;
            check_hollow(&files[at + 1..], next, trailer.totals.last_crc, None)?;
            plan.next_sequence = next;
            plan.last_crc = trailer.totals.last_crc;
            let (file, header) = files[at];
            plan.kept.push((file, header, Kept::Sealed(trailer.clone())));
            plan.emptied.extend(files[at + 1..].iter().map(|(file, _)| file.path.clone()));
            Ok(next)
        }
        End::Open(at, tail) => settle_open_end(files, at, *tail, plan),
    }
}

/// The same for a last segment that isn't sealed: its last frame may be known to a crashed process only.
fn settle_open_end<'a>(
    files: &[(&'a SegmentFile, SegmentHeader)],
    at: usize,
    tail: Tail,
    plan: &mut Plan<'a>,
) -> Result<u64, SurveyError> {
    let last = tail.last.expect("an open end has a last frame");
    let (hollow, mut contents) = (&files[at + 1..], tail.before);
    let (sequence, crc) = (last.at.sequence, last.at.crc);
    check_hollow(hollow, sequence + 1, crc, Some((sequence, last.head.prev_crc)))?;
    plan.next_sequence = sequence + 1;
    plan.last_crc = crc;
    plan.emptied.extend(hollow.iter().map(|(file, _)| file.path.clone()));
    // A later segment begun for the next sequence proves that this one was synced; anything else doesn't.
    let proven = !hollow.is_empty() && hollow.iter().all(|(_, header)| header.first_sequence > sequence);
    if proven {
        contents.add(&last);
    } else {
        plan.copy = Some(last);
    }
    let (file, header) = files[at];
    // Also with no frames left, for the caller of this to know where the middle ends; opening removes it then.
    plan.kept.push((file, header, Kept::Unsealed(contents)));
    Ok(sequence)
}

/// Checks that segments without frames were begun where the journal ends: at `next`, or as a copy of the last frame.
fn check_hollow(
    hollow: &[(&SegmentFile, SegmentHeader)],
    next: u64,
    last_crc: u32,
    copy: Option<(u64, u32)>,
) -> Result<(), SurveyError> {
    for (file, header) in hollow {
        let link = (header.first_sequence, header.prev_crc);
        if link != (next, last_crc) && Some(link) != copy {
            let first = header.first_sequence;
            let what = format!("expected the segment to go on at frame {next}, it goes on at {first}");
            return Err(damaged(file.number, 0, what));
        }
    }
    Ok(())
}

/// Checks a segment that has a later one, and keeps it unless the later one holds all it held.
fn check_middle<'a, D: Disk>(
    disk: &D,
    (file, header): (&'a SegmentFile, SegmentHeader),
    next: SegmentHeader,
    plan: &mut Plan<'a>,
) -> Result<(), SurveyError> {
    let link = (next.first_sequence, next.prev_crc);
    let (reached, kept) = match &file.trailer {
        Some(trailer) => {
            check_first((file, header), trailer)?;
            let totals = &trailer.totals;
            let reached = (totals.last_sequence + 1, totals.last_crc);
            (reached, Kept::Sealed(trailer.clone()))
        }
        // The later segment begins with a copy of this one's only frame, or this one never had any.
        None if link == (header.first_sequence, header.prev_crc) => {
            plan.emptied.push(file.path.clone());
            return Ok(());
        }
        None => {
            let contents = scan_until(disk, file, &header, next.first_sequence)?;
            let totals = &contents.totals;
            let reached = (totals.last_sequence + 1, totals.last_crc);
            (reached, Kept::Unsealed(contents))
        }
    };
    if reached != link {
        let what = format!(
            "expected segment {:016x} to go on at frame {}, it goes on at {}; what is between is missing",
            next.segment, reached.0, link.0
        );
        return Err(damaged(file.number, 0, what));
    }
    plan.kept.push((file, header, kept));
    Ok(())
}

/// Checks that a footer describes the frames which its own header announces.
fn check_first((file, header): (&SegmentFile, SegmentHeader), trailer: &Trailer) -> Result<(), SurveyError> {
    if trailer.totals.first_sequence == header.first_sequence {
        return Ok(());
    }
    let what = "the footer's first sequence is not the header's";
    Err(damaged(file.number, trailer.frames_end, what))
}

/// Reads all frames of an unsealed segment up to the one that its successor begins with. All must be whole.
fn scan_until<D: Disk>(
    disk: &D,
    file: &SegmentFile,
    header: &SegmentHeader,
    stop: u64,
) -> Result<Contents, SurveyError> {
    let open = disk.open(&file.path, false).map_err(fault("open", &file.path))?;
    let mut walk = Walk::new(&open, file.number, file.len, expect(header));
    let mut contents = Contents::new();
    while walk.expect().sequence < stop {
        let offset = walk.offset();
        match walk.step().map_err(fault("read", &file.path))? {
            Some(Step::Frame(frame)) => {
                check_bodies(&frame)?;
                contents.add(&frame);
            }
            Some(Step::Bad { from, flaw, .. }) => return Err(damaged(file.number, from, flaw)),
            None => return Err(damaged(file.number, offset, Flaw::Short)),
        }
    }
    Ok(contents)
}

/// Reads all frames of a segment that may end torn.
pub(super) fn scan_tail<D: Disk>(disk: &D, file: &SegmentFile, header: &SegmentHeader) -> Result<Tail, SurveyError> {
    let open = disk.open(&file.path, false).map_err(fault("open", &file.path))?;
    let mut walk = Walk::new(&open, file.number, file.len, expect(header));
    let mut before = Contents::new();
    let (mut last, mut second): (Option<Frame>, Option<Frame>) = (None, None);
    let mut torn_bytes = 0;
    while let Some(step) = walk.step().map_err(fault("read", &file.path))? {
        match step {
            Step::Frame(frame) => {
                // That a later frame exists proves these were synced, so their bodies count now.
                if let Some(last) = &last {
                    check_bodies(last)?;
                }
                if let Some(second) = second.take() {
                    before.add(&second);
                }
                second = last.replace(frame);
            }
            Step::Bad { from, to, flaw, begun_bytes } => match to {
                Some(_) => return Err(damaged(file.number, from, flaw)),
                None => torn_bytes = begun_bytes,
            },
        }
    }
    // The sync never returned for a frame whose bodies aren't all there. Its predecessor's did, or this wasn't written.
    if let Some(torn) = last.take_if(|last| !last.is_intact()) {
        torn_bytes += u64::from(torn.at.len);
        last = second.take();
    }
    if let Some(second) = &second {
        before.add(second);
    }
    Ok(Tail { before, last, torn_bytes })
}

/// A frame with a later one after it was synced: its bodies are whole or erased.
fn check_bodies(frame: &Frame) -> Result<(), SurveyError> {
    let mut states = frame.records.iter().map(|record| record.state);
    if states.any(|state| state == BodyState::Damaged) {
        return Err(damaged(frame.at.segment, frame.at.offset, Flaw::Body));
    }
    Ok(())
}

/// The first frame that belongs in a segment.
pub(super) fn expect(header: &SegmentHeader) -> Expect {
    Expect { incarnation: Some(header.incarnation), sequence: header.first_sequence, prev_crc: Some(header.prev_crc) }
}

/// Makes sure that a file without a header never held the journal's frames.
fn check_unused<D: Disk>(disk: &D, file: &SegmentFile, is_alone: bool, expected: u64) -> Result<(), SurveyError> {
    if frames_without_header(disk, &file.path, file.len, is_alone, expected)? {
        let what = "expected the segment's header, it is damaged and there are frames after it";
        return Err(damaged(file.number, 0, what));
    }
    Ok(())
}

/// Whether frames that could be the journal's follow where no header is. With no other segment to tell which sequences
/// those would have, anything but zeros counts.
pub(super) fn frames_without_header<D: Disk>(
    disk: &D,
    path: &Path,
    len: u64,
    is_alone: bool,
    expected: u64,
) -> Result<bool, IoFault> {
    let open = disk.open(path, false).map_err(fault("open", path))?;
    if !is_alone {
        // A recycled file's old frames all have lower sequences.
        let found = find_frame(&open, HEADER_BYTES, len, &|head| head.sequence >= expected);
        return Ok(found.map_err(fault("read", path))?.is_some());
    }
    let mut at = HEADER_BYTES;
    while at < len {
        let bytes = read_up_to(&open, at, BLANK_BYTES.min(len - at)).map_err(fault("read", path))?;
        if bytes.is_empty() || bytes.iter().any(|&byte| byte != 0) {
            return Ok(!bytes.is_empty());
        }
        at += bytes.len() as u64;
    }
    Ok(false)
}
