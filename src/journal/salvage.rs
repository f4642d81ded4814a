//! Saving what is undamaged of a damaged journal, and listing exactly what is lost.
//!
//! It reads the directory `journal` as far as it can be read, writes all whole frames to `journal.salvaged`, and then swaps
//! the two, keeping the damaged one as `journal.damaged-<n>`. The first frame takes the sequence after its old one, so all
//! have other CRCs under each sequence, and what refers to a frame by both notices and is built anew: also where nothing is
//! lost, frames are in other places now.
//!
//! Invariant: `journal` stays as it is until the new one is durable in full. Between the two renames no `journal` exists;
//! opening refuses then, and another salvage finishes the second rename.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Options;
use super::erase::{self, RedoError};
use super::footer::{PAGE_BYTES, decode_page};
use super::frame::{BodyState, Frame, RecordRef};
use super::layout::{Layout, LayoutError, SegmentFile};
use super::open::{OpenError, Origin};
use super::scan::{Expect, Step, Walk, read_up_to};
use super::segment::{IoFault, fault};
use super::spare::remove;
use super::survey::expect;
use super::writer::{AppendError, Journal, WriteError};
use crate::env::{Disk, parent};

/// A stretch of the journal that could not be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The segment in which it was noticed.
    pub segment: u64,
    /// The bytes of that segment that hold no whole frame; `None` if a file is missing.
    pub bytes: Option<(u64, u64)>,
    /// First lost sequence.
    pub first_sequence: u64,
    /// Last lost sequence.
    pub last_sequence: u64,
    /// How many records with a key were in those bytes, if the footer still says.
    pub keyed_records: Option<u64>,
}

/// One record of a saved frame that could not be saved, because its body is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostRecord {
    /// The segment.
    pub segment: u64,
    /// Offset of its frame.
    pub offset: u64,
    /// Sequence of its frame.
    pub sequence: u64,
    /// Its index in the frame.
    pub index: u32,
    /// Its key.
    pub key: u128,
    /// Its type.
    pub kind: u8,
}

/// A file that the journal's owner keeps beside the segments and that speaks of a frame. It is to be in the salvaged journal
/// too, with the sequence that the frame has there.
pub struct Beside<'b> {
    /// The sequence that it speaks of.
    pub sequence: u64,
    /// Writes it, durably, into this directory. The sequence is that of the last saved frame up to the one it speaks of, or
    /// zero if there is none.
    pub write: &'b dyn Fn(&Path, u64) -> io::Result<()>,
}

/// What was saved and what was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SalvageReport {
    /// Frames saved.
    pub frames: u64,
    /// Records saved in them.
    pub records: u64,
    /// Whole stretches lost.
    pub lost: Vec<Lost>,
    /// Single records lost.
    pub lost_records: Vec<LostRecord>,
    /// Where the damaged journal is now.
    pub damaged_dir: Option<PathBuf>,
}

/// Why nothing was salvaged. The journal is as it was; try again.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// A segment was written by another version of the program.
    #[error("segment {segment:016x} has format version {found}, use the program that wrote it")]
    UnknownVersion {
        /// The segment.
        segment: u64,
        /// Its version.
        found: u32,
    },
    /// The new journal could not be begun.
    #[error("the salvaged journal could not be begun")]
    Open(#[from] OpenError),
    /// A saved batch could not be written, for example because the options allow less than it has.
    #[error("a saved batch could not be written")]
    Append(#[from] AppendError),
    /// The new journal could not be made durable.
    #[error("the salvaged journal could not be made durable")]
    Write(#[from] WriteError),
    /// The disk failed.
    #[error("the journal could not be salvaged")]
    Io(#[from] IoFault),
}

impl From<LayoutError> for SalvageError {
    fn from(error: LayoutError) -> Self {
        match error {
            LayoutError::UnknownVersion { segment, found } => Self::UnknownVersion { segment, found },
            LayoutError::Io(fault) => Self::Io(fault),
        }
    }
}

/// Where the salvaged journal is written.
pub(super) fn output_dir(dir: &Path) -> PathBuf {
    beside(dir, "salvaged")
}

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut path = dir.as_os_str().to_owned();
    path.push(".");
    path.push(suffix);
    path.into()
}

/// Salvages a journal that nobody has open, and what its owner keeps beside the segments. The other arguments are those of
/// [`Journal::open`].
pub fn salvage<D: Disk>(
    disk: &Arc<D>,
    dir: &Path,
    options: Options,
    incarnation: u64,
    now_ms: u64,
    beside: Option<Beside<'_>>,
) -> Result<SalvageReport, SalvageError> {
    let output = output_dir(dir);
    if let Some(report) = finish_swap(&**disk, dir, &output)? {
        return Ok(report);
    }
    match erase::redo(&**disk, dir) {
        // A damaged list of bytes to erase can't be followed; the caller's records still say what is to be erased.
        Ok(_) | Err(RedoError::Damaged) => {}
        Err(RedoError::Io(fault)) => return Err(fault.into()),
    }
    // What an interrupted salvage wrote isn't known to be durable.
    clear(&**disk, &output)?;
    let layout = Layout::read(&**disk, dir)?;
    let mut rescue = Rescue {
        disk,
        output: &output,
        options,
        incarnation,
        now_ms,
        origin: Origin { above: layout.segments.last().map_or(0, |file| file.number), ..Origin::FIRST },
        journal: None,
        held: None,
        last: None,
        bad: None,
        spoken_of: (beside.as_ref().map_or(0, |beside| beside.sequence), 0),
        report: SalvageReport::default(),
    };
    for file in &layout.segments {
        rescue.segment(file)?;
    }
    rescue.spoken_of()?;
    let (mut report, sequence) = rescue.finish()?;
    if let Some(beside) = beside {
        (beside.write)(&output, sequence).map_err(fault("write into", &output))?;
    }
    report.damaged_dir = Some(swap(&**disk, dir, &output)?);
    Ok(report)
}

/// A salvage under way.
struct Rescue<'a, D: Disk> {
    disk: &'a Arc<D>,
    output: &'a Path,
    options: Options,
    incarnation: u64,
    now_ms: u64,
    /// Where the new journal begins if nothing is saved. Its segments have numbers that were never given before: records
    /// speak of the old ones, as of those that were dropped.
    origin: Origin,
    journal: Option<Journal<D>>,
    /// The newest frame: it's written once another follows, since the journal's last one is judged as a torn write.
    held: Option<Frame>,
    /// Sequence of the newest frame found.
    last: Option<u64>,
    /// Bytes without a frame since then, and how many records the footer knows in them.
    bad: Option<Bad>,
    /// The sequence that the file beside the segments speaks of, and what it is in the new journal.
    spoken_of: (u64, u64),
    report: SalvageReport,
}

#[derive(Clone, Copy)]
struct Bad {
    segment: u64,
    bytes: (u64, u64),
    keyed_records: Option<u64>,
}

impl<D: Disk> Rescue<'_, D> {
    fn segment(&mut self, file: &SegmentFile) -> Result<(), SalvageError> {
        let open = self.disk.open(&file.path, false).map_err(fault("open", &file.path))?;
        let limit = file.trailer.as_ref().map_or(file.len, |trailer| trailer.frames_end);
        let after_last = self.last.map_or(0, |last| last + 1);
        let expect = match &file.header {
            Some(header) => expect(header),
            // Old frames in a recycled file have lower sequences than what was found before it.
            None => Expect { incarnation: None, sequence: after_last, prev_crc: None },
        };
        if let Some(header) = &file.header {
            self.last.get_or_insert(header.first_sequence.saturating_sub(1));
            self.missing(file.number, header.first_sequence)?;
        }
        let mut walk = Walk::new(&open, file.number, limit, expect);
        while let Some(step) = walk.step().map_err(fault("read", &file.path))? {
            match step {
                Step::Frame(frame) => self.frame(frame)?,
                Step::Bad { from, to, .. } => {
                    let bytes = (from, to.unwrap_or(limit));
                    let keyed_records = self.keyed_records(file, bytes)?;
                    self.bad = Some(Bad { segment: file.number, bytes, keyed_records });
                }
            }
        }
        // A sealed segment says how far it reached, also where its end can't be read.
        if let Some(trailer) = &file.trailer {
            self.missing(file.number, trailer.totals.last_sequence + 1)?;
        }
        Ok(())
    }

    /// Notes that all frames before this sequence were durable, and lists as lost those that weren't found.
    fn missing(&mut self, segment: u64, next: u64) -> Result<(), SalvageError> {
        let Some(last) = self.last.filter(|last| next > *last) else {
            return Ok(());
        };
        // What is held was followed by something, so it isn't a torn write whatever its bodies look like.
        self.write_held()?;
        self.last = Some(next - 1);
        if next > last + 1 {
            let bad = self.bad.take();
            self.report.lost.push(Lost {
                segment: bad.map_or(segment, |bad| bad.segment),
                bytes: bad.map(|bad| bad.bytes),
                first_sequence: last + 1,
                last_sequence: next - 1,
                keyed_records: bad.and_then(|bad| bad.keyed_records),
            });
        }
        Ok(())
    }

    /// What is spoken of was durable, also where no segment is left to say so.
    fn spoken_of(&mut self) -> Result<(), SalvageError> {
        if self.spoken_of.0 > 0 {
            self.last.get_or_insert(0);
        }
        self.missing(self.origin.above, self.spoken_of.0 + 1)
    }

    fn frame(&mut self, frame: Frame) -> Result<(), SalvageError> {
        // A frame copied by an interrupted open is there twice, alike.
        if self.last.is_some_and(|last| frame.at.sequence <= last) {
            return Ok(());
        }
        self.missing(frame.at.segment, frame.at.sequence)?;
        self.bad = None;
        self.last = Some(frame.at.sequence);
        self.held = Some(frame);
        Ok(())
    }

    /// Writes the frame that waited for a later one to be found.
    fn write_held(&mut self) -> Result<(), SalvageError> {
        match self.held.take() {
            Some(frame) => self.write(&frame),
            None => Ok(()),
        }
    }

    /// Writes a frame without its damaged records.
    fn write(&mut self, frame: &Frame) -> Result<(), SalvageError> {
        let mut kept: Vec<(RecordRef<'_>, u32)> = Vec::with_capacity(frame.records.len());
        for (index, (record, bytes)) in frame.records.iter().zip(frame.refs()).enumerate() {
            if record.state == BodyState::Damaged {
                self.report.lost_records.push(LostRecord {
                    segment: frame.at.segment,
                    offset: frame.at.offset,
                    sequence: frame.at.sequence,
                    index: index as u32,
                    key: record.key,
                    kind: record.kind,
                });
            } else {
                kept.push((bytes, record.body_crc));
            }
        }
        let records: Vec<RecordRef<'_>> = kept.iter().map(|(record, _)| *record).collect();
        let origin = Origin { sequence: frame.at.sequence + 1, prev_crc: frame.head.prev_crc, ..self.origin };
        let journal = self.journal(origin)?;
        // An erased body keeps the CRC of what it was, so that it still reads as erased.
        let at = journal.append_with(frame.time_ms, &records, |index| kept[index].1)?;
        journal.publish_unsynced();
        seal_full(journal)?;
        if frame.at.sequence <= self.spoken_of.0 {
            self.spoken_of.1 = at.sequence;
        }
        self.report.frames += 1;
        self.report.records += records.len() as u64;
        Ok(())
    }

    /// The new journal, begun if it is not there yet.
    fn journal(&mut self, origin: Origin) -> Result<&mut Journal<D>, SalvageError> {
        if self.journal.is_none() {
            let (journal, _) = Journal::open_from(
                Arc::clone(self.disk),
                self.output,
                self.options,
                self.incarnation,
                self.now_ms,
                origin,
            )?;
            self.journal = Some(journal);
        }
        Ok(self.journal.as_mut().expect("it was just set"))
    }

    /// Writes the last frame if it is whole, and makes all durable. Also says what became of the sequence that the file beside
    /// the segments speaks of.
    fn finish(mut self) -> Result<(SalvageReport, u64), SalvageError> {
        if let Some(last) = self.held.take_if(|last| last.is_intact()) {
            self.write(&last)?;
        }
        let journal = self.journal(self.origin)?;
        // An empty frame at the end, so that a saved erased body isn't in the last one, where zeros mean a torn write.
        let now_ms = journal.segments().last().map_or(0, |last| last.last_time_ms);
        journal.append_batch(now_ms, &[])?;
        journal.sync()?;
        seal_full(journal)?;
        Ok((self.report, self.spoken_of.1))
    }

    /// How many records a sealed segment's footer has in these bytes.
    fn keyed_records(&self, file: &SegmentFile, bytes: (u64, u64)) -> Result<Option<u64>, SalvageError> {
        let Some(trailer) = &file.trailer else {
            return Ok(None);
        };
        let open = self.disk.open(&file.path, false).map_err(fault("open", &file.path))?;
        let mut count = 0;
        for index in 0..trailer.pages {
            let at = trailer.frames_end + index * PAGE_BYTES as u64;
            let page = read_up_to(&open, at, PAGE_BYTES as u64).map_err(fault("read", &file.path))?;
            let Some(entries) = decode_page(&page, file.number, index) else {
                return Ok(None);
            };
            let inside = entries.iter().filter(|entry| (bytes.0..bytes.1).contains(&entry.offset));
            count += inside.count() as u64;
        }
        Ok(Some(count))
    }
}

/// Runs the new journal's sealing here; it makes each full segment durable.
fn seal_full<D: Disk>(journal: &mut Journal<D>) -> Result<(), IoFault> {
    for job in journal.take_seals() {
        journal.done(job.run())?;
    }
    Ok(())
}

/// Empties the output directory of an earlier try.
fn clear<D: Disk>(disk: &D, output: &Path) -> Result<(), IoFault> {
    match disk.list(output) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fault("list", output)(error)),
        Ok(names) => {
            for name in names {
                remove(disk, &output.join(name))?;
            }
            disk.sync_dir(output).map_err(fault("sync", output))
        }
    }
}

/// Finishes a swap that was interrupted between its renames.
fn finish_swap<D: Disk>(disk: &D, dir: &Path, output: &Path) -> Result<Option<SalvageReport>, IoFault> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fault("list", dir)(error)),
        Ok(_) => return Ok(None),
    }
    disk.rename(output, dir).map_err(fault("rename", output))?;
    sync_parent(disk, dir)?;
    Ok(Some(SalvageReport::default()))
}

/// Puts the new journal in the damaged one's place, and says where that is now.
fn swap<D: Disk>(disk: &D, dir: &Path, output: &Path) -> Result<PathBuf, IoFault> {
    let mut number = 1;
    let damaged = loop {
        let path = beside(dir, &format!("damaged-{number}"));
        match disk.list(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break path,
            Err(error) => return Err(fault("list", &path)(error)),
            Ok(_) => number += 1,
        }
    };
    disk.rename(dir, &damaged).map_err(fault("rename", dir))?;
    sync_parent(disk, dir)?;
    disk.rename(output, dir).map_err(fault("rename", output))?;
    sync_parent(disk, dir)?;
    Ok(damaged)
}

fn sync_parent<D: Disk>(disk: &D, dir: &Path) -> Result<(), IoFault> {
    disk.sync_dir(parent(dir)).map_err(fault("sync", parent(dir)))
}
