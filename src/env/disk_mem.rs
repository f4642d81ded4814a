//! A disk in memory that can lose power.
//!
//! It keeps for each file what is durable beside what is merely written, and for each directory which names are. A power
//! cut ([`MemDisk::crash`]) keeps any subset of the unsynced 512-byte sectors and any prefix of the unsynced name changes:
//! the weakest promises a journalling file system makes. A budget of operations makes everything fail from a chosen
//! moment on; a failed sync forgets what it should have written, as Linux does when it marks the pages clean.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile, Space, parent};

/// The unit in which a power cut tears writes.
const SECTOR_BYTES: usize = 512;

/// Something unsynced, of which a power cut keeps all or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A sector's worth of a write at this offset of some file.
    Sector(u64),
    /// A change of a file's length.
    Length,
    /// A name made, changed or removed. After one that is lost, all later ones are lost too.
    Name,
}

/// A disk in memory. Clones share their content.
#[derive(Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`MemDisk`].
pub struct MemFile {
    disk: MemDisk,
    inode: usize,
}

#[derive(Default, Clone)]
/// Names and inodes as a running system sees them, beside what a power cut would leave.
struct State {
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    inodes: Vec<Inode>,
    operations: u64,
    fail_at: Option<u64>,
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
}

#[derive(Default, Clone)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    sync_failed: bool,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl MemDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// An independent copy of everything, durable or not.
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// How many changing operations (writes, syncs, names) were tried so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Lets `count` more changing operations succeed; the next fails half done, and everything fails after it.
    pub fn fail_after(&self, count: u64) {
        let mut state = self.lock();
        state.fail_at = Some(state.operations + count);
    }

    /// Ends the failing that [`MemDisk::fail_after`] began. What a failed sync should have written stays readable and is
    /// never written.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.fail_at = None;
        for inode in &mut state.inodes {
            if std::mem::take(&mut inode.sync_failed) {
                inode.unsynced.clear();
            }
        }
    }

    /// Cuts the power: of what isn't synced only what `keep` says survives. Also heals the disk.
    pub fn crash(&self, mut keep: impl FnMut(Piece) -> bool) {
        let mut state = self.lock();
        let state = &mut *state;
        state.fail_at = None;
        // A journalling file system replays its log in order, so names are lost from the end only.
        for change in std::mem::take(&mut state.name_changes) {
            if !keep(Piece::Name) {
                break;
            }
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            for change in std::mem::take(&mut inode.unsynced) {
                change.tear(&mut inode.durable, &mut keep);
            }
            inode.content.clone_from(&inode.durable);
            inode.sync_failed = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A path's file, or why there is none.
    fn find(&self, path: &Path) -> io::Result<(MutexGuard<'_, State>, usize)> {
        let state = self.lock();
        state.alive()?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok((state, inode))
    }
}

impl State {
    /// Reading fails, too, once something failed: a test must not go on with a dying disk unnoticed.
    fn alive(&self) -> io::Result<()> {
        match self.fail_at {
            Some(at) if self.operations > at => Err(io::Error::other("the disk was told to fail")),
            _ => Ok(()),
        }
    }

    /// Counts a changing operation; an error is this disk's failure, and the caller leaves the change half done.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        self.alive()
    }

    /// Whether the operation just refused was the first one, which a real disk may have done in part.
    fn just_failed(&self) -> bool {
        self.fail_at.is_some_and(|at| self.operations == at + 1)
    }

    /// Visible at once, durable after the directory's sync.
    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, inode) => {
                // A file has one name here, so a link of a file that has another is a rename, and atomic.
                names.retain(|_, other| other != inode);
                names.insert(path.clone(), *inode);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
        }
    }

    fn dir(&self) -> &Path {
        match self {
            Self::Link(path, _) | Self::Unlink(path) => parent(path),
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        self.tear(content, &mut |_| true);
    }

    /// Applies what `keep` keeps. A length and each sector are kept or lost on their own, in any combination.
    fn tear(&self, content: &mut Vec<u8>, keep: &mut impl FnMut(Piece) -> bool) {
        match self {
            Self::Length(len) if keep(Piece::Length) => content.resize(*len as usize, 0),
            Self::Length(_) => {}
            Self::Write(offset, data) => {
                let mut at = *offset as usize;
                let mut rest = &data[..];
                while !rest.is_empty() {
                    // Sectors are aligned in the file, not in the write.
                    let len = rest.len().min(SECTOR_BYTES - at % SECTOR_BYTES);
                    if keep(Piece::Sector(at as u64)) {
                        content.resize(content.len().max(at + len), 0);
                        content[at..at + len].copy_from_slice(&rest[..len]);
                    }
                    at += len;
                    rest = &rest[len..];
                }
            }
        }
    }
}

impl Disk for MemDisk {
    type File = MemFile;

    fn create_new(&self, path: &Path) -> io::Result<MemFile> {
        let mut state = self.lock();
        state.operate()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.change_name(NameChange::Link(path.to_owned(), inode));
        let disk = self.clone();
        Ok(MemFile { disk, inode })
    }

    fn open(&self, path: &Path, _write: bool) -> io::Result<MemFile> {
        let (_state, inode) = self.find(path)?;
        let disk = self.clone();
        Ok(MemFile { disk, inode })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        state.alive()?;
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let all = state.names.keys().chain(&state.dirs);
        let inside = all.filter(|path| path.parent() == Some(dir));
        let names = inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect())
    }

    /// Directories are renamed too, durably and at once with all they hold.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        if state.dirs.remove(from) {
            state.dirs.insert(to.to_owned());
            let state = &mut *state;
            for names in [&mut state.names, &mut state.durable_names] {
                let old = std::mem::take(names).into_iter();
                *names = old
                    .map(|(path, inode)| match path.strip_prefix(from) {
                        Ok(name) => (to.join(name), inode),
                        Err(_) => (path, inode),
                    })
                    .collect();
            }
            return Ok(());
        }
        let inode = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change_name(NameChange::Link(to.to_owned(), inode));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        let parents = dir.ancestors().filter(|path| !path.as_os_str().is_empty());
        state.dirs.extend(parents.map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        let state = &mut *state;
        let (mine, rest) = std::mem::take(&mut state.name_changes).into_iter().partition(|change| change.dir() == dir);
        state.name_changes = rest;
        let mine: Vec<NameChange> = mine;
        for change in &mine {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: 1 << 40, total_bytes: 1 << 41 })
    }
}

impl MemFile {
    /// Does a change, or, if the disk fails right now, half of it.
    fn change(&self, change: Change, half: Option<Change>) -> io::Result<()> {
        let mut state = self.disk.lock();
        let result = state.operate();
        let change = match result {
            Ok(()) => Some(change),
            Err(_) if state.just_failed() => half,
            Err(_) => None,
        };
        if let Some(change) = change {
            let inode = &mut state.inodes[self.inode];
            change.apply(&mut inode.content);
            inode.unsynced.push(change);
        }
        result
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        state.alive()?;
        let content = &state.inodes[self.inode].content;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let half = Change::Write(offset, buffer[..buffer.len() / 2].to_vec());
        self.change(Change::Write(offset, buffer.to_vec()), Some(half))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let result = state.operate();
        let failed_now = state.just_failed();
        let inode = &mut state.inodes[self.inode];
        inode.sync_failed |= failed_now;
        if result.is_ok() {
            for change in std::mem::take(&mut inode.unsynced) {
                change.apply(&mut inode.durable);
            }
        }
        result
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(len), None)
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        state.alive()?;
        Ok(state.inodes[self.inode].content.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_keeps_what_is_synced_and_the_chosen_sectors() {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("d")).unwrap();
        let file = disk.create_new(Path::new("d/f")).unwrap();
        file.write_all_at(&[1; 1024], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("d")).unwrap();
        file.write_all_at(&[2; 1024], 0).unwrap();
        disk.create_new(Path::new("d/unsynced")).unwrap();
        disk.crash(|piece| piece == Piece::Sector(512));
        let content = disk.read_file(Path::new("d/f")).unwrap();
        assert_eq!((content[511], content[512]), (1, 2));
        assert_eq!(disk.list(Path::new("d")).unwrap(), ["f"]);
    }

    #[test]
    fn a_failed_sync_forgets_what_a_reader_still_sees() {
        let disk = MemDisk::new();
        let file = disk.create_new(Path::new("f")).unwrap();
        disk.sync_dir(Path::new(".")).unwrap();
        file.write_all_at(b"lost", 0).unwrap();
        disk.fail_after(0);
        file.sync_data().unwrap_err();
        disk.heal();
        file.sync_data().unwrap();
        assert_eq!(disk.read_file(Path::new("f")).unwrap(), b"lost");
        disk.crash(|_| true);
        assert_eq!(disk.read_file(Path::new("f")).unwrap(), b"");
    }
}
