//! Files waiting to become segments.
//!
//! A spare is a file `spare-<id>.wal`, outside the segments' names, so that a half-made one is never mistaken for a
//! damaged segment. It gets a segment's name at rotation, before the header that makes it one.
//!
//! A recycled spare still holds frames of a dropped segment, harmless to readers but not to erasure: `forget_recycled`
//! removes them all, and raises the epoch so that one in a helper's hands isn't taken back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::job::PrepareJob;
use super::segment::{IoFault, fault, spare_id, spare_path};
use crate::env::Disk;

/// A spare as it lies in the directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spare {
    pub id: u64,
    pub bytes: u64,
    pub recycled: bool,
}

/// A spare that is ready to take frames.
pub(super) struct Ready<F> {
    pub spare: Spare,
    pub file: F,
}

/// All spares of a journal.
pub(super) struct Pool<D: Disk> {
    disk: Arc<D>,
    dir: PathBuf,
    segment_bytes: u64,
    spares_max: usize,
    idle: Vec<Spare>,
    ready: Option<Ready<D::File>>,
    in_flight: Option<Spare>,
    next_id: u64,
    epoch: u64,
    /// Set by a failed preparation until the next rotation, so that a full disk isn't tried in a loop.
    paused: bool,
}

impl<D: Disk> Pool<D> {
    /// A pool of the spares found at open. Their content is unknown.
    pub fn new(disk: Arc<D>, dir: PathBuf, segment_bytes: u64, spares_max: usize, found: Vec<Spare>) -> Self {
        let next_id = found.iter().map(|spare| spare.id + 1).max().unwrap_or(1);
        Self {
            disk,
            dir,
            segment_bytes,
            spares_max,
            idle: found,
            ready: None,
            in_flight: None,
            next_id,
            epoch: 0,
            paused: false,
        }
    }

    /// Bytes of the spares that are prepared, or about to be.
    pub fn prepared_bytes(&self) -> u64 {
        let ready = self.ready.as_ref().map_or(0, |ready| ready.spare.bytes);
        ready + self.in_flight.map_or(0, |spare| spare.bytes)
    }

    /// Bytes of the spares that wait until they are.
    pub fn idle_bytes(&self) -> u64 {
        self.idle.iter().map(|spare| spare.bytes).sum()
    }

    /// Spares there are, wherever they are in their life.
    fn count(&self) -> usize {
        let ready = usize::from(self.ready.is_some());
        self.idle.len() + ready + usize::from(self.in_flight.is_some())
    }

    /// A number for a dropped segment's file to be kept under, if there is room for one more.
    pub fn room(&mut self) -> Option<u64> {
        (self.count() < self.spares_max).then(|| self.take_id())
    }

    /// Takes in a dropped segment's file, already renamed.
    pub fn recycle(&mut self, id: u64, bytes: u64) {
        self.idle.push(Spare { id, bytes, recycled: true });
    }

    /// The preparation to hand to a helper, if one is due.
    pub fn wanted(&mut self) -> Option<PrepareJob<D>> {
        if self.ready.is_some() || self.in_flight.is_some() || self.paused {
            return None;
        }
        let job = self.job();
        self.in_flight = Some(Spare { id: job.id, bytes: self.segment_bytes, recycled: job.recycle });
        Some(job)
    }

    /// Takes a finished preparation back.
    pub fn done(&mut self, job: &PrepareJob<D>, result: Result<D::File, IoFault>) -> Result<(), IoFault> {
        if job.recycle && job.epoch != self.epoch {
            // Its file was removed for an erasure meanwhile, so success and failure mean nothing.
            return Ok(());
        }
        self.in_flight = None;
        let spare = Spare { id: job.id, bytes: self.segment_bytes, recycled: job.recycle };
        match result {
            Ok(file) if self.ready.is_none() => self.ready = Some(Ready { spare, file }),
            Ok(_) => self.idle.push(spare),
            Err(fault) => {
                self.paused = true;
                // Room comes first on a full disk; if removing fails too, the next open or erasure finds the file.
                remove(&*self.disk, &spare_path(&self.dir, spare.id)).ok();
                return Err(fault);
            }
        }
        Ok(())
    }

    /// A file to start a segment in: the one made ready, or one made now.
    pub fn take(&mut self) -> Result<Ready<D::File>, IoFault> {
        // One in a helper's hands isn't waited for; it will serve the rotation after this one.
        self.paused = false;
        if let Some(ready) = self.ready.take() {
            return Ok(ready);
        }
        let job = self.job();
        let file = job.prepare()?;
        let spare = Spare { id: job.id, bytes: self.segment_bytes, recycled: job.recycle };
        Ok(Ready { spare, file })
    }

    /// Removes every spare that may hold a dropped segment's bytes, durably.
    pub fn forget_recycled(&mut self) -> Result<(), IoFault> {
        let names = self.disk.list(&self.dir);
        let names = names.map_err(fault("list for spares", &self.dir))?;
        let ready = self.ready.as_ref().map(|ready| ready.spare);
        let known = self.idle.iter().copied().chain(ready).chain(self.in_flight);
        let fresh: Vec<u64> = known.filter(|one| !one.recycled).map(|one| one.id).collect();
        // The directory is asked, not only the pool: a failed preparation may have left a file that nothing refers to.
        for id in names.iter().filter_map(|name| spare_id(name)) {
            if !fresh.contains(&id) {
                remove(&*self.disk, &spare_path(&self.dir, id))?;
            }
        }
        self.idle.retain(|spare| !spare.recycled);
        self.ready.take_if(|ready| ready.spare.recycled);
        if self.in_flight.take_if(|spare| spare.recycled).is_some() {
            self.epoch += 1;
        }
        self.disk.sync_dir(&self.dir).map_err(fault("sync after removing spares", &self.dir))
    }

    /// A recycled file first: filling a new one with zeros costs a segment's worth of writing.
    fn job(&mut self) -> PrepareJob<D> {
        let reused = self.idle.pop();
        PrepareJob {
            disk: Arc::clone(&self.disk),
            dir: self.dir.clone(),
            id: reused.map_or_else(|| self.take_id(), |spare| spare.id),
            recycle: reused.is_some(),
            segment_bytes: self.segment_bytes,
            epoch: self.epoch,
        }
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }
}

/// Removes a file; one that is gone already is no error.
pub(super) fn remove<D: Disk>(disk: &D, path: &Path) -> Result<(), IoFault> {
    match disk.unlink(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(fault("remove", path)),
    }
}
