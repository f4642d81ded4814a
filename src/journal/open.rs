//! Opening: recovery from whatever the last process left, then a new segment to write to.
//!
//! The last frame of the journal is not known to be on the medium: its writer may have died between write and sync, or
//! seen the sync fail. So it's copied as the first frame of the new segment, under the same sequence and CRC, and synced
//! there; only then the old segment is cut off before it. A crash at any point leaves a state that `survey.rs` knows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Options;
use super::erase::{self, RedoError};
use super::format::{HEADER_BYTES, SegmentHeader};
use super::frame::{Frame, FrameAt};
use super::job::SealTask;
use super::layout::{Layout, LayoutError};
use super::salvage;
use super::segment::{
    Contents, Index, IoFault, Segment, Shared, Table, Totals, fault, fault_at, segment_path, spare_path,
};
use super::spare::{Pool, remove};
use super::survey::{Kept, Plan, SurveyError, survey};
use super::writer::{Active, Journal, Start, start_segment};
use crate::env::{Disk, DiskFile};

/// What opening found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The last frame, where it is now, if it was not known to be synced. Its sequence and CRC are as before.
    pub copied: Option<FrameAt>,
    /// Bytes of a batch that was begun and isn't whole; it was never acknowledged and is gone.
    pub torn_bytes: u64,
    /// The newest time any batch was given; zero in an empty journal.
    pub last_time_ms: u64,
    /// Sequence of the next batch.
    pub next_sequence: u64,
    /// Segments, the new one included.
    pub segments: usize,
    /// Segments that got their footers now.
    pub sealed: Vec<u64>,
    /// Whether an erasure that a crash interrupted was finished.
    pub erasure_finished: bool,
}

/// Why the journal was not opened. Nothing was changed, except after `Io`.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An option is out of its range.
    #[error("expected {option} from {min} to {max}, got {got}")]
    Options {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        got: u64,
        /// The least it may be.
        min: u64,
        /// The most it may be.
        max: u64,
    },
    /// A segment was written by another version of the program.
    #[error(
        "segment {segment:016x} has format version {found}, this program reads {supported}; use the one that wrote it"
    )]
    UnknownVersion {
        /// The segment.
        segment: u64,
        /// Its version.
        found: u32,
        /// The version expected.
        supported: u32,
    },
    /// Something that was durable is missing or changed. Run `journal verify`, then `journal salvage`.
    #[error("segment {segment:016x} is damaged at byte {offset}: {what}; run journal verify, then journal salvage")]
    Damaged {
        /// The segment.
        segment: u64,
        /// The byte offset in it.
        offset: u64,
        /// What was expected there and what was found.
        what: String,
    },
    /// The list of an interrupted erasure can't be read. Run `journal salvage`.
    #[error("the list of bytes to erase is damaged; run journal salvage")]
    EraseList,
    /// A salvage was interrupted between its two renames. Run `journal salvage` again.
    #[error("expected the journal's directory, found only {salvaged}; run journal salvage again")]
    SalvageUnfinished {
        /// The directory with the salvaged journal.
        salvaged: String,
    },
    /// The disk failed; try again.
    #[error("the journal could not be opened")]
    Io(#[from] IoFault),
}

impl From<LayoutError> for OpenError {
    fn from(error: LayoutError) -> Self {
        match error {
            LayoutError::UnknownVersion { segment, found } => {
                Self::UnknownVersion { segment, found, supported: LayoutError::SUPPORTED }
            }
            LayoutError::Io(fault) => Self::Io(fault),
        }
    }
}

impl From<SurveyError> for OpenError {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Damaged { segment, offset, what } => Self::Damaged { segment, offset, what },
            SurveyError::Io(fault) => Self::Io(fault),
        }
    }
}

impl From<RedoError> for OpenError {
    fn from(error: RedoError) -> Self {
        match error {
            RedoError::Damaged => Self::EraseList,
            RedoError::Io(fault) => Self::Io(fault),
        }
    }
}

/// How a journal begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// Its first segment has the number after this one.
    pub above: u64,
    /// Sequence of its first frame.
    pub sequence: u64,
    /// CRC of the frame before that.
    pub prev_crc: u32,
}

impl Origin {
    /// Of the first journal in a place.
    pub const FIRST: Self = Self { above: 0, sequence: 1, prev_crc: 0 };
}

impl<D: Disk> Journal<D> {
    /// Opens the journal in a directory, or begins one there.
    ///
    /// `incarnation` tells this start of the process from all others; it should be hard to guess, so that no payload can
    /// hold what looks like a frame of this very segment. The caller makes sure that nobody else has the journal open.
    pub fn open(
        disk: Arc<D>,
        dir: &Path,
        options: Options,
        incarnation: u64,
        now_ms: u64,
    ) -> Result<(Self, Recovery), OpenError> {
        Self::open_from(disk, dir, options, incarnation, now_ms, Origin::FIRST)
    }

    /// Like [`Journal::open`]; a journal that begins here begins as `origin` says.
    pub(super) fn open_from(
        disk: Arc<D>,
        dir: &Path,
        options: Options,
        incarnation: u64,
        now_ms: u64,
        origin: Origin,
    ) -> Result<(Self, Recovery), OpenError> {
        options.check()?;
        make_dir(&*disk, dir)?;
        let erasure_finished = erase::redo(&*disk, dir)?;
        let layout = Layout::read(&*disk, dir)?;
        let plan = survey(&*disk, &layout, (origin.sequence, origin.prev_crc))?;
        let mut recovery = Recovery {
            torn_bytes: plan.torn_bytes,
            next_sequence: plan.next_sequence,
            last_time_ms: last_time_ms(&plan),
            erasure_finished,
            ..Recovery::default()
        };
        // These go first, so that the new segment's number is never taken by one of them.
        remove_all(&*disk, dir, &plan.unused)?;
        renew_headers(&*disk, &plan.emptied)?;
        let highest = layout.segments.last().map_or(origin.above, |file| file.number);
        let header = SegmentHeader {
            segment: highest + 1,
            incarnation,
            first_sequence: plan.copy.as_ref().map_or(plan.next_sequence, |frame| frame.at.sequence),
            prev_crc: plan.copy.as_ref().map_or(plan.last_crc, |frame| frame.head.prev_crc),
            created_ms: now_ms,
        };
        let start = begin(&disk, dir, &options, &layout, header, &plan)?;
        recovery.copied = start.copied;
        let (next_sequence, last_crc) = (plan.next_sequence, plan.last_crc);
        let mut table = keep(&disk, dir, plan, &mut recovery)?;
        recovery.segments = table.len() + 1;
        table.insert(header.segment, start.segment);
        start.shared.table_mut().append(&mut table);
        let start =
            Start { shared: Arc::new(start.shared), active: start.active, pool: start.pool, next_sequence, last_crc };
        Ok((Self::new(start, options, incarnation), recovery))
    }
}

/// The new segment, begun.
struct Begun<D: Disk> {
    shared: Shared<D>,
    pool: Pool<D>,
    segment: Segment<D>,
    active: Active<D::File>,
    copied: Option<FrameAt>,
}

/// Starts the new segment, with the copy in it if there is one to make. All is durable on return.
fn begin<D: Disk>(
    disk: &Arc<D>,
    dir: &Path,
    options: &Options,
    layout: &Layout,
    header: SegmentHeader,
    plan: &Plan<'_>,
) -> Result<Begun<D>, OpenError> {
    let (kept, surplus) = layout.spares.split_at(layout.spares.len().min(options.spares_max));
    let surplus: Vec<PathBuf> = surplus.iter().map(|spare| spare_path(dir, spare.id)).collect();
    remove_all(&**disk, dir, &surplus)?;
    let mut pool =
        Pool::new(Arc::clone(disk), dir.to_owned(), options.segment_bytes, options.spares_max, kept.to_vec());
    let shared = Shared::new(Arc::clone(disk), dir.to_owned(), Table::new());
    let (mut segment, file) = start_segment(&shared, pool.take()?, header)?;
    let mut active = Active { number: header.segment, file, end: HEADER_BYTES, last_offset: 0 };
    let copied = match &plan.copy {
        Some(frame) => Some(copy(&shared, frame, &mut segment, &mut active)?),
        None => None,
    };
    Ok(Begun { shared, pool, segment, active, copied })
}

/// Copies a frame to the start of the new segment and syncs it there.
fn copy<D: Disk>(
    shared: &Shared<D>,
    frame: &Frame,
    segment: &mut Segment<D>,
    active: &mut Active<D::File>,
) -> Result<FrameAt, IoFault> {
    // Only the incarnation differs: what refers to the frame by sequence and CRC stays true.
    let bytes = frame.restamped(segment.header.incarnation);
    let path = segment_path(&shared.dir, active.number);
    let write = || {
        active.file.write_all_at(&bytes, active.end)?;
        active.file.sync_data()
    };
    write().map_err(fault_at("copy the last batch to", &path, active.end))?;
    let at = FrameAt { segment: active.number, offset: active.end, ..frame.at };
    let moved = Frame { at, ..frame.clone() };
    let mut contents = Contents::new();
    contents.add(&moved);
    segment.totals = contents.totals;
    segment.index = Index::Active(contents.index);
    segment.end = at.end();
    segment.file_bytes = segment.file_bytes.max(at.end());
    active.last_offset = at.offset;
    active.end = at.end();
    Ok(at)
}

/// Seals what isn't sealed, removes what is empty, and makes the table of what stays.
fn keep<D: Disk>(disk: &Arc<D>, dir: &Path, plan: Plan<'_>, recovery: &mut Recovery) -> Result<Table<D>, IoFault> {
    let mut table = Table::new();
    let mut emptied = plan.emptied;
    for (file, header, kept) in plan.kept {
        let trailer = match kept {
            Kept::Sealed(trailer) => trailer,
            Kept::Unsealed(contents) if contents.totals.frames == 0 => {
                emptied.push(file.path.clone());
                continue;
            }
            Kept::Unsealed(contents) => {
                recovery.sealed.push(file.number);
                let (disk, incarnation) = (Arc::clone(disk), header.incarnation);
                SealTask::new(disk, dir, file.number, incarnation, contents).run()?
            }
        };
        let segment = Segment {
            header,
            end: trailer.frames_end,
            file_bytes: trailer.file_bytes(),
            totals: trailer.totals,
            index: Index::Sealed(trailer),
            dirty_tail: false,
        };
        table.insert(file.number, segment);
    }
    // Not before the new segment and the footers are durable: an empty segment's header may be the proof that the frame
    // before it was synced, and the reason why a sealed segment isn't the last.
    remove_all(&**disk, dir, &emptied)?;
    Ok(table)
}

/// Writes the headers of empty segments once more. A start whose sync failed leaves one that can be read and is not on the disk;
/// lost after the next segment has its header, it would look like damage.
fn renew_headers<D: Disk>(disk: &D, emptied: &[PathBuf]) -> Result<(), IoFault> {
    for path in emptied {
        let renew = || {
            let file = disk.open(path, true)?;
            let mut header = vec![0; HEADER_BYTES as usize];
            file.read_exact_at(&mut header, 0)?;
            file.write_all_at(&header, 0)?;
            file.sync_data()
        };
        renew().map_err(fault_at("renew the header of", path, 0))?;
    }
    Ok(())
}

/// The newest time in the journal; engine time goes on from there when the wall clock is behind it.
fn last_time_ms(plan: &Plan<'_>) -> u64 {
    let totals = |kept: &Kept| -> Totals {
        match kept {
            Kept::Sealed(trailer) => trailer.totals,
            Kept::Unsealed(contents) => contents.totals,
        }
    };
    let kept = plan.kept.iter().map(|(_, _, kept)| totals(kept).last_time_ms);
    let copied = plan.copy.iter().map(|frame| frame.time_ms);
    kept.chain(copied).max().unwrap_or(0)
}

/// Removes files, durably.
fn remove_all<D: Disk>(disk: &D, dir: &Path, paths: &[PathBuf]) -> Result<(), IoFault> {
    for path in paths {
        remove(disk, path)?;
    }
    if paths.is_empty() {
        return Ok(());
    }
    disk.sync_dir(dir).map_err(fault("sync after removing from", dir))
}

/// Makes the directory with all missing parents, durably; refuses if a salvage has just moved it away.
fn make_dir<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let salvaged = salvage::output_dir(dir);
            if disk.list(&salvaged).is_ok() {
                let salvaged = salvaged.display().to_string();
                return Err(OpenError::SalvageUnfinished { salvaged });
            }
        }
        Err(error) => return Err(fault("list", dir)(error).into()),
        Ok(_) => {}
    }
    Ok(disk.make_dir(dir).map_err(fault("create", dir))?)
}
