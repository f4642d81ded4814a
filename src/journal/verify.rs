//! Reads everything and says what is wrong with it. Changes nothing, and needs no journal that can be opened.
//!
//! It goes by the same rules as opening (see `survey.rs`), but goes on after what it finds, and reads what opening takes on
//! trust: every frame and body of the sealed segments, and every footer against its frames.

use std::path::Path;

use super::erase::{self, Range, RedoError};
use super::footer::{KeyEntry, PAGE_BYTES, Trailer, encode_pages};
use super::format::SegmentHeader;
use super::frame::{BodyState, Flaw, Frame};
use super::layout::{Layout, LayoutError, SegmentFile};
use super::scan::{Expect, Step, Walk, read_up_to};
use super::segment::{Contents, IoFault, fault};
use super::survey::{expect, frames_without_header, scan_tail};
use crate::env::Disk;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Something durable is changed or missing. The journal won't open, or won't read whole.
    Damage,
    /// A batch that a crash interrupted; the next open drops it.
    TornTail,
    /// A state that a crash leaves and the next open mends.
    Note,
}

/// One thing that isn't as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The segment.
    pub segment: u64,
    /// Byte offset in its file.
    pub offset: u64,
    /// What was expected and what was found.
    pub what: String,
}

/// A body that is all zeros and wasn't appended so: the caller judges whether it was erased on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZeroedBody {
    /// The record's key.
    pub key: u128,
    /// The record's type.
    pub kind: u8,
    /// The segment.
    pub segment: u64,
    /// Offset of its frame.
    pub offset: u64,
    /// Its index in the frame.
    pub index: u32,
    /// Sequence of its frame.
    pub sequence: u64,
}

/// What verification tells its caller as it goes.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something isn't as it should be.
    Finding(Finding),
    /// A body is erased, or damaged into zeros.
    ZeroedBody(ZeroedBody),
    /// A frame that is where it belongs, damaged bodies and all. In order; a frame may come twice when an open was
    /// interrupted.
    Frame(&'a Frame),
    /// Bytes read of all bytes in segments.
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
}

/// What verification counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Segment files.
    pub segments: u64,
    /// Whole frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of all segment files.
    pub bytes: u64,
    /// Bodies that are zeros and weren't appended so.
    pub zeroed_bodies: u64,
    /// Findings of each severity: damage, torn tails, notes.
    pub damage: u64,
    /// See `damage`.
    pub torn_tails: u64,
    /// See `damage`.
    pub notes: u64,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A segment was written by another version of the program.
    #[error("segment {segment:016x} has format version {found}, use the program that wrote it")]
    UnknownVersion {
        /// The segment.
        segment: u64,
        /// Its version.
        found: u32,
    },
    /// The disk failed.
    #[error("the journal could not be read")]
    Io(#[from] IoFault),
}

impl From<LayoutError> for VerifyError {
    fn from(error: LayoutError) -> Self {
        match error {
            LayoutError::UnknownVersion { segment, found } => Self::UnknownVersion { segment, found },
            LayoutError::Io(fault) => Self::Io(fault),
        }
    }
}

/// Verifies a journal that nobody has open.
pub fn verify<D: Disk>(disk: &D, dir: &Path, on: &mut dyn FnMut(Event<'_>)) -> Result<VerifyReport, VerifyError> {
    let layout = Layout::read(disk, dir)?;
    let mut verifier = Verifier {
        disk,
        on,
        report: VerifyReport {
            segments: layout.segments.len() as u64,
            bytes: layout.segments.iter().map(|file| file.len).sum(),
            ..VerifyReport::default()
        },
        erasing: Vec::new(),
        done_bytes: 0,
    };
    verifier.erase_list(dir)?;
    verifier.segments(&layout)?;
    Ok(verifier.report)
}

/// How far a segment's frames must reach.
#[derive(Clone, Copy)]
enum Until {
    /// To this later segment's first frame.
    Next(SegmentHeader),
    /// The later segment's header is damaged, so nobody knows.
    Unknown,
    /// This is where the journal ends.
    Tail,
}

/// Where the frames that were read end, and how a segment after them may go on. A link is a segment's first sequence with the
/// CRC of the frame before it.
#[derive(Clone, Copy)]
struct End {
    /// With the next frame; or
    next: (u64, u32),
    /// with a copy of the last one, where that isn't known to be synced.
    copy: Option<(u64, u32)>,
}

impl End {
    /// The least sequence of frames that could follow.
    fn sequence(&self) -> u64 {
        self.copy.map_or(self.next.0, |(sequence, _)| sequence)
    }
}

/// A verification under way.
struct Verifier<'a, D> {
    disk: &'a D,
    on: &'a mut dyn FnMut(Event<'_>),
    report: VerifyReport,
    erasing: Vec<Range>,
    done_bytes: u64,
}

impl<D: Disk> Verifier<'_, D> {
    /// Counts a finding and passes it on.
    fn find(&mut self, severity: Severity, segment: u64, offset: u64, what: impl ToString) {
        *match severity {
            Severity::Damage => &mut self.report.damage,
            Severity::TornTail => &mut self.report.torn_tails,
            Severity::Note => &mut self.report.notes,
        } += 1;
        (self.on)(Event::Finding(Finding { severity, segment, offset, what: what.to_string() }));
    }

    fn damage(&mut self, segment: u64, offset: u64, what: impl ToString) {
        self.find(Severity::Damage, segment, offset, what);
    }

    /// An interrupted erasure explains half overwritten bodies, which would be damage otherwise.
    fn erase_list(&mut self, dir: &Path) -> Result<(), VerifyError> {
        match erase::load(self.disk, dir) {
            Ok(None) => {}
            Ok(Some(ranges)) => {
                self.erasing = ranges;
                let what = "an erasure was interrupted, the next open finishes it";
                self.find(Severity::Note, 0, 0, what);
            }
            Err(RedoError::Damaged) => self.damage(0, 0, "the list of bytes to erase is damaged"),
            Err(RedoError::Io(fault)) => return Err(fault.into()),
        }
        Ok(())
    }

    fn segments(&mut self, layout: &Layout) -> Result<(), VerifyError> {
        let (headed, unused) = layout.segments.split_at(layout.headed());
        let tail = self.tail(headed)?;
        let mut end: Option<End> = None;
        for (at, file) in headed.iter().enumerate() {
            let Some(header) = file.header else {
                self.headless(file, end)?;
                continue;
            };
            if tail.is_some_and(|tail| at > tail) {
                self.hollow(file, header, end);
                continue;
            }
            let until = match headed.get(at + 1) {
                // Without any frame in the journal, every segment is an end.
                _ if tail == Some(at) || tail.is_none() => Until::Tail,
                Some(next) => next.header.map_or(Until::Unknown, Until::Next),
                None => Until::Tail,
            };
            let reached = self.segment(file, header, until)?;
            if tail.is_none() {
                // All were begun for one and the same first frame.
                let link = (header.first_sequence, header.prev_crc);
                let begun = *end.get_or_insert(End { next: link, copy: None });
                self.goes_on(file.number, header, begun);
            } else {
                end = reached.or(end);
            }
        }
        for file in unused {
            let expected = end.map_or(0, |end| end.sequence());
            let frames = frames_without_header(self.disk, &file.path, file.len, headed.is_empty(), expected)?;
            if frames {
                self.headless(file, end)?;
            } else {
                let what = "the file was never begun, the next open removes it";
                self.find(Severity::Note, file.number, 0, what);
            }
        }
        Ok(())
    }

    /// Index of the last segment that has a frame; the ones after it were begun and have none.
    fn tail(&mut self, headed: &[SegmentFile]) -> Result<Option<usize>, VerifyError> {
        for (at, file) in headed.iter().enumerate().rev() {
            let Some(header) = &file.header else {
                return Ok(Some(at));
            };
            if file.trailer.is_some() {
                if at + 1 == headed.len() {
                    let what = "expected a segment after this sealed one, it is missing or lost its header";
                    self.damage(file.number, 0, what);
                }
                return Ok(Some(at));
            }
            match scan_tail(self.disk, file, header) {
                Ok(tail) if tail.last.is_none() => {}
                Err(super::survey::SurveyError::Io(fault)) => return Err(fault.into()),
                // Damage is found again, and reported, by the walk.
                _ => return Ok(Some(at)),
            }
        }
        Ok(None)
    }

    /// A segment without frames after the last that has some.
    fn hollow(&mut self, file: &SegmentFile, header: SegmentHeader, end: Option<End>) {
        let what = "the segment was begun and holds no batch, the next open removes it";
        self.find(Severity::Note, file.number, 0, what);
        if let Some(end) = end {
            self.goes_on(file.number, header, end);
        }
    }

    /// A segment without frames must have been begun where the journal ends.
    fn goes_on(&mut self, segment: u64, header: SegmentHeader, end: End) {
        let link = (header.first_sequence, header.prev_crc);
        if link != end.next && Some(link) != end.copy {
            let what = format!("expected the segment to go on at frame {}, it goes on at {}", end.next.0, link.0);
            self.damage(segment, 0, what);
        }
    }

    /// A segment whose header is damaged: its frames are read all the same.
    fn headless(&mut self, file: &SegmentFile, end: Option<End>) -> Result<(), VerifyError> {
        self.damage(file.number, 0, "expected the segment's header, it is damaged");
        let open = self.disk.open(&file.path, false).map_err(fault("open", &file.path))?;
        // It may begin with a copy of the last frame before it.
        let sequence = end.map_or(0, |end| end.next.0.saturating_sub(1));
        let expect = Expect { incarnation: None, sequence, prev_crc: None };
        let mut walk = Walk::new(&open, file.number, file.len, expect);
        while let Some(step) = walk.step().map_err(fault("read", &file.path))? {
            match step {
                Step::Frame(frame) => self.frame(&frame),
                Step::Bad { from, to: Some(_), flaw, .. } => self.damage(file.number, from, flaw),
                Step::Bad { to: None, .. } => {}
            }
        }
        Ok(())
    }

    /// A segment with its header. Returns where its frames end, if it has any.
    fn segment(&mut self, file: &SegmentFile, header: SegmentHeader, until: Until) -> Result<Option<End>, VerifyError> {
        if let Until::Next(next) = until {
            let link = (header.first_sequence, header.prev_crc);
            if file.trailer.is_none() && link == (next.first_sequence, next.prev_crc) {
                let what = "a later segment holds all of this one, the next open removes it";
                self.find(Severity::Note, file.number, 0, what);
                return Ok(None);
            }
        }
        let (contents, copy) = self.walk(file, &header, until)?;
        let totals = &contents.totals;
        let end = (totals.frames > 0).then_some(End { next: (totals.last_sequence + 1, totals.last_crc), copy });
        let reached = end.map_or((header.first_sequence, header.prev_crc), |end| end.next);
        if let Until::Next(next) = until
            && (next.first_sequence, next.prev_crc) != reached
        {
            let what = format!(
                "expected frames to reach to {}, where segment {:016x} goes on, they reach to {}",
                next.first_sequence.saturating_sub(1),
                next.segment,
                reached.0.saturating_sub(1)
            );
            self.damage(file.number, contents.end, what);
        }
        match &file.trailer {
            Some(trailer) => self.footer(file, trailer, &contents)?,
            None if !matches!(until, Until::Tail) => {
                let what = "the segment has no whole footer, the next open makes it";
                self.find(Severity::Note, file.number, contents.end, what);
            }
            None => {}
        }
        self.done_bytes += file.len;
        (self.on)(Event::Progress { done: self.done_bytes, total: self.report.bytes });
        Ok(end)
    }

    /// Goes through a segment's frames, and gathers what its footer should say; and, where the journal may end in it, the link
    /// of a copy of its last whole frame.
    fn walk(
        &mut self,
        file: &SegmentFile,
        header: &SegmentHeader,
        until: Until,
    ) -> Result<(Contents, Option<(u64, u32)>), VerifyError> {
        let open = self.disk.open(&file.path, false).map_err(fault("open", &file.path))?;
        let limit = file.trailer.as_ref().map_or(file.len, |trailer| trailer.frames_end);
        let mut walk = Walk::new(&open, file.number, limit, expect(header));
        // A sealed segment was whole once, even if the journal ends with it.
        let is_tail = matches!(until, Until::Tail) && file.trailer.is_none();
        let (mut contents, mut copy) = (Contents::new(), None);
        // The journal's last frame is judged by another rule, so each is held until the next shows that it isn't that.
        let mut held: Option<Frame> = None;
        loop {
            if matches!(until, Until::Next(next) if walk.expect().sequence >= next.first_sequence) {
                break;
            }
            match walk.step().map_err(fault("read", &file.path))? {
                Some(Step::Frame(frame)) => {
                    if let Some(earlier) = held.replace(frame) {
                        contents.add(&earlier);
                        copy = Some((earlier.at.sequence, earlier.head.prev_crc));
                        self.frame(&earlier);
                    }
                }
                Some(Step::Bad { from, to, flaw, begun_bytes }) => {
                    let torn = to.is_none() && is_tail;
                    if !torn {
                        self.damage(file.number, from, flaw);
                    } else if begun_bytes > 0 {
                        let what = format!("a batch of {begun_bytes} bytes was begun and isn't whole");
                        self.find(Severity::TornTail, file.number, from, what);
                    }
                }
                None => break,
            }
        }
        if let Some(last) = held {
            if is_tail && !last.is_intact() {
                let what = "the last batch isn't whole";
                self.find(Severity::TornTail, file.number, last.at.offset, what);
            } else {
                contents.add(&last);
                copy = Some((last.at.sequence, last.head.prev_crc));
                self.frame(&last);
            }
        }
        Ok((contents, copy.filter(|_| is_tail)))
    }

    /// Judges a frame's bodies and passes it on.
    fn frame(&mut self, frame: &Frame) {
        self.report.frames += 1;
        self.report.records += frame.records.len() as u64;
        for (index, record) in frame.records.iter().enumerate() {
            let body_at = frame.at.offset + record.body.start as u64;
            let is_erased_half = |range: &Range| (range.segment, range.offset) == (frame.at.segment, body_at);
            let half = self.erasing.iter().any(is_erased_half);
            match record.state {
                BodyState::Intact => {}
                BodyState::Damaged if !half => {
                    let what = format!("{}: key {:032x}, kind {}", Flaw::Body, record.key, record.kind);
                    self.damage(frame.at.segment, body_at, what);
                }
                BodyState::Zeroed | BodyState::Damaged => {
                    self.report.zeroed_bodies += 1;
                    (self.on)(Event::ZeroedBody(ZeroedBody {
                        key: record.key,
                        kind: record.kind,
                        segment: frame.at.segment,
                        offset: frame.at.offset,
                        index: index as u32,
                        sequence: frame.at.sequence,
                    }));
                }
            }
        }
        (self.on)(Event::Frame(frame));
    }

    /// Compares a footer with the one that the frames would get now.
    fn footer(&mut self, file: &SegmentFile, trailer: &Trailer, contents: &Contents) -> Result<(), VerifyError> {
        let entries: Vec<KeyEntry> = contents.index.sorted();
        // The footer that sealing would write now is compared as a whole; nothing in it is taken on trust.
        let (pages, pages_crc) = encode_pages(file.number, &entries);
        let agrees = trailer.totals == contents.totals
            && trailer.frames_end == contents.end
            && trailer.pages_crc == pages_crc
            && trailer.entries == entries.len() as u64
            && trailer.key_min == entries.first().map_or(0, |entry| entry.key)
            && trailer.key_max == entries.last().map_or(0, |entry| entry.key);
        if !agrees {
            let what = "the footer's totals are not those of the frames";
            self.damage(file.number, trailer.frames_end, what);
            return Ok(());
        }
        let open = self.disk.open(&file.path, false).map_err(fault("open", &file.path))?;
        let len = pages.len() as u64;
        let found = read_up_to(&open, trailer.frames_end, len).map_err(fault("read", &file.path))?;
        let mut compared = pages.chunks(PAGE_BYTES).zip(found.chunks(PAGE_BYTES));
        if let Some(index) = compared.position(|(right, found)| right != found) {
            let offset = trailer.frames_end + (index * PAGE_BYTES) as u64;
            self.damage(file.number, offset, "a page of the footer is damaged");
        }
        Ok(())
    }
}
