//! The writer: appends batches, syncs them, starts new segments and drops old ones.
//!
//! Invariants:
//! - A batch is written only after the one before it is synced, so at most the last frame of the journal can be torn.
//! - A segment's name, then its header, are durable before a frame is written to it.
//! - After a failed write or sync nothing more is written: the kernel may have marked the lost pages clean, and only a new
//!   process that copies the last frame elsewhere knows again what is on the medium.

use std::path::PathBuf;
use std::sync::Arc;

use super::Options;
use super::footer::KeyEntry;
use super::format::{HEADER_BYTES, SegmentHeader};
use super::frame::{FrameAt, RecordRef, Stamp, encode_frame, frame_len};
use super::job::{Job, JobDone, Outcome, SealJob, SealTask};
use super::reader::Reader;
use super::segment::{
    Contents, Index, IoFault, MemIndex, Segment, SegmentInfo, Shared, Table, Totals, fault, fault_at, segment_path,
    spare_path,
};
use super::spare::{Pool, Ready, remove};
use crate::env::{Disk, DiskFile};

/// The journal, open for writing. One per directory; whoever opens it makes sure of that.
pub struct Journal<D: Disk> {
    pub(super) shared: Arc<Shared<D>>,
    pub(super) active: Active<D::File>,
    pub(super) pool: Pool<D>,
    options: Options,
    incarnation: u64,
    next_sequence: u64,
    /// CRC of the newest frame.
    last_crc: u32,
    pending: Option<Pending>,
    poisoned: bool,
    /// Segments whose sealing is in a helper's hands, or waits to be.
    unsealed: Vec<Arc<SealTask<D>>>,
    buffer: Vec<u8>,
}

/// The segment that takes frames.
pub(super) struct Active<F> {
    pub number: u64,
    pub file: F,
    /// Offset where the next frame goes, synced or not.
    pub end: u64,
    /// Offset of the newest frame; zero before the first.
    pub last_offset: u64,
}

/// A frame that is written and not synced.
struct Pending {
    at: FrameAt,
    time_ms: u64,
    keys: Vec<KeyEntry>,
    records: usize,
}

/// What opening found, for the writer to go on from.
pub(super) struct Start<D: Disk> {
    pub shared: Arc<Shared<D>>,
    pub active: Active<D::File>,
    pub pool: Pool<D>,
    pub next_sequence: u64,
    pub last_crc: u32,
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The batch exceeds a limit and was not written; split it or refuse it.
    #[error("expected at most {max} {what} in a batch, got {got}; split it")]
    TooLarge {
        /// What is too many.
        what: &'static str,
        /// How many there are.
        got: u64,
        /// How many may be.
        max: u64,
    },
    /// The batch before is not synced yet; call `sync` first.
    #[error("expected the batch before to be synced, it is not; sync it first")]
    NotSynced,
    /// An earlier write or sync failed; stop and open the journal anew.
    #[error("the journal failed before and takes no more; open it anew")]
    Poisoned,
    /// Writing failed; whether the batch is kept is known only at the next open.
    #[error("the batch was not written")]
    Io(#[from] IoFault),
}

/// Why a batch is not known to be durable, or a segment was not dropped. Except for `NotSealed`, this is final.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// An earlier write or sync failed; stop and open the journal anew.
    #[error("the journal failed before and takes no more; open it anew")]
    Poisoned,
    /// The oldest segment is the active one or still being sealed; nothing was dropped.
    #[error("expected a sealed segment, the oldest is not sealed yet; hand its job back first")]
    NotSealed,
    /// The disk failed.
    #[error("the journal could not be made durable")]
    Io(#[from] IoFault),
}

impl<D: Disk> Journal<D> {
    pub(super) fn new(start: Start<D>, options: Options, incarnation: u64) -> Self {
        Self {
            shared: start.shared,
            active: start.active,
            pool: start.pool,
            options,
            incarnation,
            next_sequence: start.next_sequence,
            last_crc: start.last_crc,
            pending: None,
            poisoned: false,
            unsealed: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Writes one batch, with the caller's time. It is durable, and visible to readers, after [`Journal::sync`].
    pub fn append_batch(&mut self, time_ms: u64, records: &[RecordRef<'_>]) -> Result<FrameAt, AppendError> {
        self.append_with(time_ms, records, |index| crc32c::crc32c(records[index].body))
    }

    /// Appends with given body CRCs, so that an erased body is still known as one when it's copied.
    pub(super) fn append_with(
        &mut self,
        time_ms: u64,
        records: &[RecordRef<'_>],
        body_crc: impl Fn(usize) -> u32,
    ) -> Result<FrameAt, AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        if self.pending.is_some() {
            return Err(AppendError::NotSynced);
        }
        let len = self.fits(records)?;
        if self.active.end + len > self.options.segment_bytes {
            self.poisoning(|journal| journal.rotate(time_ms))?;
        }
        let stamp =
            Stamp { incarnation: self.incarnation, sequence: self.next_sequence, time_ms, prev_crc: self.last_crc };
        let crc = encode_frame(&mut self.buffer, stamp, records, body_crc);
        let at = FrameAt {
            segment: self.active.number,
            offset: self.active.end,
            len: self.buffer.len() as u32,
            sequence: self.next_sequence,
            crc,
        };
        self.poisoning(|journal| journal.write_buffer())?;
        self.pending = Some(Pending { at, time_ms, keys: keys_of(at.offset, records), records: records.len() });
        self.active.last_offset = at.offset;
        self.active.end = at.end();
        self.next_sequence += 1;
        self.last_crc = crc;
        Ok(at)
    }

    /// Makes the last batch durable; then readers see it. Without one this does nothing.
    ///
    /// After an error nothing is known of the last batch until the journal is opened anew.
    pub fn sync(&mut self) -> Result<(), WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let Some(pending) = self.pending.take() else {
            return Ok(());
        };
        self.poisoning(|journal| {
            let path = segment_path(&journal.shared.dir, journal.active.number);
            let synced = journal.active.file.sync_data();
            synced.map_err(fault_at("sync", &path, pending.at.offset))
        })?;
        self.publish(pending);
        Ok(())
    }

    /// Goes on without a sync, for a journal that counts only once it is complete: sealing makes each full segment
    /// durable, a last sync the rest.
    pub(super) fn publish_unsynced(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.publish(pending);
        }
    }

    /// A reader of what is durable; any number, on any thread.
    pub fn reader(&self) -> Reader<D> {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.table().values().map(Segment::info).collect()
    }

    /// Bytes of all files, spares and zeros written ahead included.
    pub fn total_bytes(&self) -> u64 {
        self.used_bytes() + self.pool.idle_bytes()
    }

    /// Bytes of all files that are in use, or prepared to be: what a drop lowers also where it keeps the file as a spare.
    pub fn used_bytes(&self) -> u64 {
        let table = self.shared.table();
        let segments = table.values().map(|segment| segment.file_bytes);
        segments.sum::<u64>() + self.pool.prepared_bytes()
    }

    /// Sequence that the next batch gets.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Work for a helper thread, each piece handed out once. Ask after opening and after each append.
    pub fn take_jobs(&mut self) -> Vec<Job<D>> {
        let mut jobs = self.take_seals();
        if !self.poisoned {
            jobs.extend(self.pool.wanted().map(Job::Prepare));
        }
        jobs
    }

    /// Only the sealing of full segments.
    pub(super) fn take_seals(&mut self) -> Vec<Job<D>> {
        let seals = self.unsealed.drain(..).map(SealJob).map(Job::Seal);
        seals.collect()
    }

    /// Takes a finished job back. An error is worth a warning: no data is at risk, and the work is tried again after the
    /// next rotation.
    pub fn done(&mut self, done: JobDone<D>) -> Result<(), IoFault> {
        match done.0 {
            Outcome::Prepared(job, result) => self.pool.done(&job, result),
            Outcome::Sealed(number, result) => {
                let trailer = result?;
                if let Some(segment) = self.shared.table_mut().get_mut(&number) {
                    segment.file_bytes = trailer.file_bytes();
                    segment.dirty_tail = false;
                    segment.index = Index::Sealed(trailer);
                }
                Ok(())
            }
        }
    }

    /// Drops the oldest segment for good; readers get `Gone`. Its file becomes a spare, or is removed.
    pub fn drop_oldest(&mut self) -> Result<(), WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let (number, bytes) = {
            let mut table = self.shared.table_mut();
            let oldest = table.first_entry().filter(|entry| entry.get().info().sealed);
            let segment = oldest.ok_or(WriteError::NotSealed)?.remove();
            (segment.header.segment, segment.file_bytes)
        };
        // Readers that come now get `Gone`; those that already read find out when they look again.
        self.shared.forget_file(number);
        self.poisoning(|journal| journal.release(number, bytes))?;
        Ok(())
    }

    /// Turns a dropped segment's file into a spare, or removes it; durable on return.
    fn release(&mut self, number: u64, bytes: u64) -> Result<(), IoFault> {
        let shared = &self.shared;
        let path = segment_path(&shared.dir, number);
        let spare = self.pool.room();
        match spare {
            Some(id) => {
                let renamed = shared.disk.rename(&path, &spare_path(&shared.dir, id));
                renamed.map_err(fault("rename to a spare", &path))?;
            }
            None => remove(&*shared.disk, &path)?,
        }
        // Only when the name is gone for good may the content change: it would come back as the oldest segment.
        let synced = shared.disk.sync_dir(&shared.dir);
        synced.map_err(fault("sync the directory after dropping", &path))?;
        if let Some(id) = spare {
            self.pool.recycle(id, bytes);
        }
        Ok(())
    }

    /// The frame's length, or the limit it breaks.
    fn fits(&self, records: &[RecordRef<'_>]) -> Result<u64, AppendError> {
        let len = frame_len(records);
        let segment_room = self.options.segment_bytes - HEADER_BYTES;
        let limits = [
            ("records", records.len() as u64, u64::from(self.options.records_max)),
            ("bytes", len, self.options.batch_bytes_max.min(segment_room)),
        ];
        match limits.into_iter().find(|(_, got, max)| got > max) {
            Some((what, got, max)) => Err(AppendError::TooLarge { what, got, max }),
            None => Ok(len),
        }
    }

    /// One write for the whole frame, so that a batch costs one system call and one sync.
    fn write_buffer(&mut self) -> Result<(), IoFault> {
        let path = || segment_path(&self.shared.dir, self.active.number);
        let written = self.active.file.write_all_at(&self.buffer, self.active.end);
        written.map_err(|error| fault_at("append", &path(), self.active.end)(error))
    }

    /// Lets readers see a frame that is durable now.
    fn publish(&mut self, pending: Pending) {
        let at = pending.at;
        let mut table = self.shared.table_mut();
        let segment = table.get_mut(&at.segment).expect("the active segment is never dropped");
        segment.totals.add(at.sequence, at.crc, pending.time_ms, pending.records);
        segment.end = at.end();
        segment.file_bytes = segment.file_bytes.max(at.end());
        if let Index::Active(index) = &mut segment.index {
            for entry in pending.keys {
                index.add(entry);
            }
        }
    }

    /// Starts the next segment and leaves the full one to be sealed.
    fn rotate(&mut self, now_ms: u64) -> Result<(), IoFault> {
        // Every frame so far is synced, or `append_with` would have refused. That this header exists is proof of it.
        let header = SegmentHeader {
            segment: self.active.number + 1,
            incarnation: self.incarnation,
            first_sequence: self.next_sequence,
            prev_crc: self.last_crc,
            created_ms: now_ms,
        };
        let ready = self.pool.take()?;
        let (segment, file) = start_segment(&self.shared, ready, header)?;
        let full = std::mem::replace(
            &mut self.active,
            Active { number: header.segment, file, end: HEADER_BYTES, last_offset: 0 },
        );
        let mut table = self.shared.table_mut();
        freeze(&self.shared, &mut table, full.number, &mut self.unsealed);
        requeue_unsealed(&table, &mut self.unsealed);
        table.insert(header.segment, segment);
        Ok(())
    }

    /// Runs a step whose failure is final.
    pub(super) fn poisoning<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, IoFault>) -> Result<T, IoFault> {
        let result = step(self);
        self.poisoned |= result.is_err();
        result
    }

    /// Whether the journal can be written to and has nothing unsynced.
    pub(super) fn is_settled(&self) -> Result<(), AppendError> {
        match (self.poisoned, &self.pending) {
            (true, _) => Err(AppendError::Poisoned),
            (_, Some(_)) => Err(AppendError::NotSynced),
            _ => Ok(()),
        }
    }
}

/// Turns the active segment's growing index into one that a seal job owns.
fn freeze<D: Disk>(shared: &Shared<D>, table: &mut Table<D>, number: u64, unsealed: &mut Vec<Arc<SealTask<D>>>) {
    let Some(segment) = table.get_mut(&number) else {
        return;
    };
    let Index::Active(index) = &mut segment.index else {
        return;
    };
    let contents = Contents { totals: segment.totals, index: std::mem::take(index), end: segment.end };
    let incarnation = segment.header.incarnation;
    let disk = Arc::clone(&shared.disk);
    let task = Arc::new(SealTask::new(disk, &shared.dir, number, incarnation, contents));
    segment.index = Index::Sealing(Arc::clone(&task));
    unsealed.push(task);
}

/// Hands out again what a helper failed at: a seal that nobody holds any more.
fn requeue_unsealed<D: Disk>(table: &Table<D>, unsealed: &mut Vec<Arc<SealTask<D>>>) {
    for segment in table.values() {
        if let Index::Sealing(task) = &segment.index {
            // One count is the table's; a second means that the queue or a helper has it.
            if Arc::strong_count(task) == 1 {
                unsealed.push(Arc::clone(task));
            }
        }
    }
}

/// Gives a spare its segment's name and header, both durable on return.
pub(super) fn start_segment<D: Disk>(
    shared: &Shared<D>,
    ready: Ready<D::File>,
    header: SegmentHeader,
) -> Result<(Segment<D>, D::File), IoFault> {
    let (disk, dir): (&D, &PathBuf) = (&shared.disk, &shared.dir);
    let path = segment_path(dir, header.segment);
    disk.rename(&spare_path(dir, ready.spare.id), &path).map_err(fault("name a spare", &path))?;
    disk.sync_dir(dir).map_err(fault("sync the directory for", &path))?;
    let write = || {
        ready.file.write_all_at(&header.encode(), 0)?;
        ready.file.sync_data()?;
        ready.file.len()
    };
    let file_bytes = write().map_err(fault_at("start", &path, 0))?;
    let segment = Segment {
        header,
        end: HEADER_BYTES,
        file_bytes,
        totals: Totals::default(),
        index: Index::Active(MemIndex::default()),
        dirty_tail: ready.spare.recycled,
    };
    Ok((segment, ready.file))
}

/// Index entries of records that are about to be durable.
fn keys_of(offset: u64, records: &[RecordRef<'_>]) -> Vec<KeyEntry> {
    let entry = |(index, record): (usize, &RecordRef<'_>)| KeyEntry {
        key: record.key,
        offset,
        index: index as u32,
        kind: record.kind,
    };
    records.iter().enumerate().map(entry).collect()
}
