//! A data directory made of a backup, all or nothing: it is made beside its place, read back as a start would read it, and
//! then renamed. Whatever interrupts that leaves the place as it was.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{BackupError, Decoder, Kind, Section, Summary};
use crate::core::id::{EndpointId, EventId};
use crate::env::{Disk, DiskFile as _, RealDisk, parent};
use crate::index::{Home, Layered, due};
use crate::journal::segment_path;
use crate::store::embedded::checkpoint::Checkpoint;
use crate::store::embedded::recovery::{self, OpenError, journal_dir};
use crate::store::embedded::{LockError, Opening, StoreLock};

/// Bytes of a checkpoint; more than any has.
const CHECKPOINT_BYTES_MAX: usize = 64 << 20;

/// What a restore made.
#[derive(Debug)]
pub struct Restored {
    /// What the backup says of itself.
    pub summary: Summary,
    /// Deliveries that were pending in the backup: they are attempted again, and may have arrived since it was taken.
    pub pending: Vec<(EndpointId, EventId)>,
    /// Application and name of the endpoints.
    pub endpoints: HashMap<EndpointId, (String, String)>,
}

/// Nothing was restored; the target is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something in the target.
    #[error("{} is not empty; name a directory that does not exist, or an empty one", dir.display())]
    NotEmpty {
        /// The target.
        dir: PathBuf,
    },
    /// Another process has the store in the target.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The target can't be put in place by a rename.
    #[error("{} is a mount point, which no directory can be renamed to; name one in it", dir.display())]
    MountPoint {
        /// The target.
        dir: PathBuf,
    },
    /// The directory that the store is made in is there already.
    #[error("{} is there: another restore is under way, or one was cut short; remove it and try again", dir.display())]
    Begun {
        /// Where the store is made.
        dir: PathBuf,
    },
    /// The file is no whole backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// What was made of it can't be opened.
    #[error("the store made of the backup can't be opened")]
    Open(#[from] OpenError),
    /// What was made of it is not what it says of itself.
    #[error("expected the journal to end at batch {expected}, it ends at {found}")]
    Incomplete {
        /// The last batch, as the backup says.
        expected: u64,
        /// The last one found.
        found: u64,
    },
    /// A directory or file can't be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { path, source }
}

/// Reads a whole backup and says what is in it. `progress` is told of the bytes read.
pub fn check(source: impl Read, progress: &mut dyn FnMut(u64)) -> Result<Summary, BackupError> {
    let mut decoder = Decoder::begin(source)?;
    loop {
        match decoder.next()? {
            Ok(_) => progress(decoder.bytes()),
            Err(summary) => return Ok(summary),
        }
    }
}

/// Makes the data directory that `opening` names of a backup. `progress` is told of the bytes read, that of `opening` of the
/// key space that is built after that.
pub fn restore(
    source: impl Read,
    mut opening: Opening<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, RestoreError> {
    let target = free_place(&opening.data)?;
    let mut making = target.as_os_str().to_owned();
    making.push(".restoring");
    let making = PathBuf::from(making);
    // The rename makes one name durable, and those above it may be new as well.
    RealDisk.make_dir(parent(&target)).map_err(io_at(&target))?;
    fs::create_dir(&making).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => RestoreError::Begun { dir: making.clone() },
        _ => io_at(&making)(error),
    })?;
    let made = allow_whom(&target, &making).and_then(|()| {
        opening.data.clone_from(&making);
        let home = recovery::index_home(&making);
        restore_on(&Arc::new(RealDisk), &home, source, &mut opening, &target, progress)
    });
    if made.is_err() {
        // It is of no use to anybody; if it can't be removed, the next restore says that it is there.
        let _ = fs::remove_dir_all(&making);
    }
    made
}

/// Makes the store in the directory that `opening` names, with its journal on `disk` and its key space at `home`, and gives
/// it `target`'s name when it is complete and durable. Whether the name may be taken is for the caller to know.
pub fn restore_on<D: Disk>(
    disk: &Arc<D>,
    home: &Home,
    source: impl Read,
    opening: &mut Opening<'_>,
    target: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, RestoreError> {
    let summary = unpack(&**disk, source, &opening.data, progress)?;
    let restored = read_back(disk, home, summary, opening)?;
    disk.rename(&opening.data, target).map_err(io_at(target))?;
    disk.sync_dir(parent(target)).map_err(io_at(target))?;
    Ok(restored)
}

/// Whom the empty directory let in, the one that takes its place does.
fn allow_whom(target: &Path, making: &Path) -> Result<(), RestoreError> {
    match fs::metadata(target) {
        Ok(empty) => fs::set_permissions(making, empty.permissions()).map_err(io_at(making)),
        Err(_) => Ok(()),
    }
}

/// The target's own path, when a directory can be put there.
fn free_place(data: &Path) -> Result<PathBuf, RestoreError> {
    let target = match fs::canonicalize(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return std::path::absolute(data).map_err(io_at(data)),
        found => found.map_err(io_at(data))?,
    };
    if fs::read_dir(&target).map_err(io_at(data))?.next().is_some() {
        // Who holds it is the better thing to say first.
        if target.join("LOCK").exists() {
            StoreLock::take(&target)?;
        }
        return Err(RestoreError::NotEmpty { dir: target });
    }
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
    if device(&target).map_err(io_at(data))? != device(parent(&target)).map_err(io_at(data))? {
        return Err(RestoreError::MountPoint { dir: target });
    }
    Ok(target)
}

/// Makes the journal in a data directory, durably.
fn unpack<D: Disk>(
    disk: &D,
    source: impl Read,
    data: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, RestoreError> {
    let dir = journal_dir(data);
    disk.create_dir_all(&dir).map_err(io_at(&dir))?;
    let mut unpacking = Unpacking { disk, dir: &dir, checkpoint: Vec::new(), file: None };
    let mut decoder = Decoder::begin(source)?;
    let summary = loop {
        match decoder.next()? {
            Ok(section) => unpacking.take(&section, decoder.bytes())?,
            Err(summary) => break summary,
        }
        progress(decoder.bytes());
    };
    unpacking.finish()?;
    disk.sync_dir(data).map_err(io_at(data))?;
    Ok(summary)
}

/// The journal's files in the making.
struct Unpacking<'d, D: Disk> {
    disk: &'d D,
    dir: &'d Path,
    checkpoint: Vec<u8>,
    /// The segment that is being written.
    file: Option<(PathBuf, D::File)>,
}

impl<D: Disk> Unpacking<'_, D> {
    fn take(&mut self, section: &Section, at: u64) -> Result<(), RestoreError> {
        let Section { kind, segment, offset, payload } = section;
        if *kind == Kind::Checkpoint {
            self.checkpoint.extend_from_slice(payload);
            if self.checkpoint.len() > CHECKPOINT_BYTES_MAX {
                let what = format!("expected a checkpoint of at most {CHECKPOINT_BYTES_MAX} bytes");
                return Err(BackupError::Damaged { offset: at, what }.into());
            }
            return Ok(());
        }
        if *offset == 0 {
            self.end_segment()?;
            let path = segment_path(self.dir, *segment);
            let file = self.disk.create_new(&path).map_err(io_at(&path))?;
            self.file = Some((path, file));
        }
        // The decoder lets no segment begin elsewhere.
        let Some((path, file)) = &self.file else { return Ok(()) };
        file.write_all_at(payload, *offset).map_err(io_at(path))
    }

    fn end_segment(&mut self) -> Result<(), RestoreError> {
        match self.file.take() {
            Some((path, file)) => file.sync_all().map_err(io_at(&path)),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<(), RestoreError> {
        self.end_segment()?;
        let checkpoint = Checkpoint::decode(&self.checkpoint)
            .ok_or_else(|| BackupError::Damaged { offset: 0, what: "the checkpoint in it can't be read".to_owned() })?;
        checkpoint.write(self.disk, self.dir).map_err(io_at(self.dir))?;
        self.disk.sync_dir(self.dir).map_err(io_at(self.dir))
    }
}

/// Opens the new store as a start does, which builds its key space and finishes erasures, and looks at what is pending.
fn read_back<D: Disk>(
    disk: &Arc<D>,
    home: &Home,
    summary: Summary,
    opening: &mut Opening<'_>,
) -> Result<Restored, RestoreError> {
    let parts = recovery::open(disk, home, opening)?;
    let (expected, found) = (summary.last_sequence, parts.opened.journal.next_sequence - 1);
    if expected != found {
        return Err(RestoreError::Incomplete { expected, found });
    }
    let mut pending = Vec::new();
    let (from, to) = ([due::FAMILY], [due::FAMILY + 1]);
    let scanned = parts.state.scan(Bound::Included(&from), Bound::Excluded(&to), Layered::Up, |key, _| {
        pending.extend(due::parse_key(key).map(|(endpoint, _, event)| (endpoint, event)));
        ControlFlow::Continue(())
    });
    scanned.map_err(OpenError::from)?;
    let notes = crate::store::embedded::read::all_notes(&parts.state).map_err(OpenError::from)?;
    let endpoints = notes.into_iter().map(|note| (note.id, (note.app, note.name))).collect();
    Ok(Restored { summary, pending, endpoints })
}
