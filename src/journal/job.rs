//! Work that the writer hands to a helper thread: sealing a full segment, and preparing the file for a later one.
//!
//! A job owns all it needs, so that it runs anywhere. Its result goes back with [`Journal::done`](super::Journal::done).
//! Losing a job loses no data: what it would have done is done inline, or at the next open.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::footer::{KeyEntry, PAGE_BYTES, Trailer, encode_pages};
use super::segment::{Contents, IoFault, MemIndex, Totals, fault, fault_at, segment_path, spare_path};
use crate::env::{Disk, DiskFile};

/// Zeros written at a time.
const FILL_BYTES: usize = 1 << 20;

/// A piece of work for a helper thread.
pub enum Job<D: Disk> {
    /// Make a file ready to become a later segment.
    Prepare(PrepareJob<D>),
    /// Give a full segment its footer.
    Seal(SealJob<D>),
}

/// The result of a [`Job`], for [`Journal::done`](super::Journal::done).
pub struct JobDone<D: Disk>(pub(super) Outcome<D>);

pub(super) enum Outcome<D: Disk> {
    Prepared(PrepareJob<D>, Result<D::File, IoFault>),
    Sealed(u64, Result<Trailer, IoFault>),
}

impl<D: Disk> Job<D> {
    /// Does the work; takes as long as writing and syncing up to one segment takes.
    pub fn run(self) -> JobDone<D> {
        JobDone(match self {
            Self::Prepare(job) => {
                let result = job.prepare();
                Outcome::Prepared(job, result)
            }
            Self::Seal(SealJob(task)) => Outcome::Sealed(task.number, task.run()),
        })
    }
}

/// See [`Job::Seal`].
pub struct SealJob<D: Disk>(pub(super) Arc<SealTask<D>>);

/// See [`Job::Prepare`].
pub struct PrepareJob<D: Disk> {
    pub(super) disk: Arc<D>,
    pub(super) dir: PathBuf,
    pub(super) id: u64,
    /// Whether the file is there already, with the frames of a dropped segment in it.
    pub(super) recycle: bool,
    pub(super) segment_bytes: u64,
    /// See [`Pool`](super::spare::Pool).
    pub(super) epoch: u64,
}

impl<D: Disk> PrepareJob<D> {
    /// Leaves a file of a segment's length whose blocks are all written, so that a sync of frames carries no metadata.
    ///
    /// A recycled file keeps its old content: its frames have lower sequences than any that will be expected there.
    pub(super) fn prepare(&self) -> Result<D::File, IoFault> {
        let path = spare_path(&self.dir, self.id);
        let file = if self.recycle { self.disk.open(&path, true) } else { self.disk.create_new(&path) };
        let file = file.map_err(fault("open a spare", &path))?;
        let fill = || {
            let len = file.len()?;
            if len > self.segment_bytes {
                file.set_len(self.segment_bytes)?;
            }
            fill_zeros(&file, len, self.segment_bytes)?;
            file.sync_all()
        };
        fill().map_err(fault("fill a spare with zeros", &path))?;
        self.disk.sync_dir(&self.dir).map_err(fault("sync the journal's directory after making", &path))?;
        Ok(file)
    }
}

/// Writes zeros over a range of a file.
pub(super) fn fill_zeros<F: DiskFile>(file: &F, from: u64, to: u64) -> std::io::Result<()> {
    let total = to.saturating_sub(from);
    let zeros = vec![0; total.min(FILL_BYTES as u64) as usize];
    let mut at = from;
    while at < to {
        let len = zeros.len().min((to - at) as usize);
        file.write_all_at(&zeros[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

/// Gives one full segment its footer, once.
pub(super) struct SealTask<D: Disk> {
    disk: Arc<D>,
    path: PathBuf,
    number: u64,
    incarnation: u64,
    frames_end: u64,
    totals: Totals,
    index: MemIndex,
    /// The mutex lets the helper thread and an eraser both want the seal; the second finds it done.
    done: Mutex<Option<Trailer>>,
}

impl<D: Disk> SealTask<D> {
    pub fn new(disk: Arc<D>, dir: &std::path::Path, number: u64, incarnation: u64, contents: Contents) -> Self {
        Self {
            disk,
            path: segment_path(dir, number),
            number,
            incarnation,
            frames_end: contents.end,
            totals: contents.totals,
            index: contents.index,
            done: Mutex::new(None),
        }
    }

    /// Entries with this key, from memory.
    pub fn find(&self, key: u128) -> Vec<KeyEntry> {
        self.index.find(key)
    }

    /// Cuts off all after the last frame and puts the footer there, durably. Also right after a crash within it, or a
    /// failure.
    pub fn run(&self) -> Result<Trailer, IoFault> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trailer) = &*done {
            return Ok(trailer.clone());
        }
        let trailer = self.seal()?;
        *done = Some(trailer.clone());
        Ok(trailer)
    }

    fn seal(&self) -> Result<Trailer, IoFault> {
        let entries = self.index.sorted();
        let (pages, pages_crc) = encode_pages(self.number, &entries);
        let trailer = Trailer {
            segment: self.number,
            incarnation: self.incarnation,
            frames_end: self.frames_end,
            entries: entries.len() as u64,
            pages: (pages.len() / PAGE_BYTES) as u64,
            pages_crc,
            key_min: entries.first().map_or(0, |entry| entry.key),
            key_max: entries.last().map_or(0, |entry| entry.key),
            totals: self.totals,
        };
        let pages_end = self.frames_end + pages.len() as u64;
        let file = self.disk.open(&self.path, true).map_err(fault("open for sealing", &self.path))?;
        let write = || {
            file.write_all_at(&pages, self.frames_end)?;
            file.set_len(pages_end)?;
            // The trailer vouches for the pages without looking at them, so they must be durable before it exists.
            file.sync_all()?;
            file.write_all_at(&trailer.encode(), pages_end)?;
            file.sync_all()
        };
        write().map_err(fault_at("seal", &self.path, self.frames_end))?;
        Ok(trailer)
    }
}
