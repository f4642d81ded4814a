//! A disk that keeps what was synced and little more, and fails when the dice say so.
//!
//! Each file is what a running system sees beside what is durable, with the changes between the two; each name likewise.
//! A power cut keeps any subset of the unsynced sectors (of 512 bytes or of 4 KiB), so writes are lost, torn and reordered,
//! and any prefix of the unsynced changes of names. A killed process loses nothing that it wrote. A failed sync drops its
//! pages: a reader still sees them, and they are never written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use postrider::env::{Disk, DiskFile, Space};
use tokio::sync::Notify;

use super::coverage::Kind;
use super::inode::{Change, Inode};
use super::names::{NameChange, Names};
use super::stage::{Stage, lock};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power goes.
    PowerCut,
    /// The process dies; what it wrote stays with the operating system.
    Kill,
    /// The operation fails once.
    Error,
    /// The operation and all after it fail.
    Broken,
}

/// When it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Armed {
    /// At the changing operation of this number.
    Change(u64, Fault),
    /// At the read of this number.
    Read(u64),
}

#[derive(Clone)]
pub struct SimDisk {
    stage: Arc<Stage>,
    state: Arc<Mutex<State>>,
    died: Arc<Notify>,
}

pub struct SimFile {
    disk: SimDisk,
    inode: Arc<Mutex<Inode>>,
    name: String,
}

#[derive(Default)]
struct State {
    names: Names,
    durable_names: Names,
    name_changes: Vec<NameChange>,
    changes: u64,
    reads: u64,
    armed: Option<Armed>,
    /// The process is dead, by this fault; nothing works any more.
    dead: Option<Fault>,
    broken: bool,
    /// Whether any fault has struck since the last heal.
    struck: bool,
    capacity: u64,
    /// Milliseconds that a sync takes; the clock hears of them.
    sync_ms: u64,
    busy_ms: u64,
}

impl SimDisk {
    /// An empty disk, on which `home` is a directory.
    pub fn new(stage: Arc<Stage>, home: &Path) -> Self {
        let disk = Self { stage, state: Arc::default(), died: Arc::default() };
        disk.replace(home);
        disk
    }

    /// Puts an empty disk in the place of this one. It has the time that this one had.
    pub fn replace(&self, home: &Path) {
        let mut state = lock(&self.state);
        let (names, durable_names, busy_ms) = (Names::below(home), Names::below(home), state.busy_ms);
        *state = State { names, durable_names, busy_ms, capacity: u64::MAX / 2, ..State::default() };
    }

    /// Lets `after` more changing operations succeed before the fault strikes.
    pub fn arm(&self, after: u64, fault: Fault) {
        let mut state = lock(&self.state);
        state.armed = Some(Armed::Change(state.changes + after, fault));
    }

    /// Lets `after` more reads succeed before one fails.
    pub fn arm_read(&self, after: u64) {
        let mut state = lock(&self.state);
        state.armed = Some(Armed::Read(state.reads + after));
    }

    /// The disk has room for so many bytes more than are on it.
    pub fn leave_room(&self, bytes: Option<u64>) {
        let mut state = lock(&self.state);
        state.capacity = bytes.map_or(u64::MAX / 2, |bytes| state.used() + bytes);
    }

    pub fn slow_down(&self, sync_ms: u64) {
        lock(&self.state).sync_ms = sync_ms;
    }

    /// Changing operations so far.
    pub fn changes(&self) -> u64 {
        lock(&self.state).changes
    }

    /// Milliseconds that syncs have taken.
    pub fn busy_ms(&self) -> u64 {
        lock(&self.state).busy_ms
    }

    /// Whether the fault that was armed last has killed the process.
    pub fn dead(&self) -> Option<Fault> {
        lock(&self.state).dead
    }

    /// Resolves when the process has been killed by a fault.
    pub async fn death(&self) {
        while self.dead().is_none() {
            self.died.notified().await;
        }
    }

    /// Whether a fault has struck that the store may speak of as an error.
    pub fn has_struck(&self) -> bool {
        let state = lock(&self.state);
        state.struck || state.capacity < u64::MAX / 2
    }

    /// The process is gone, and with it what was wrong.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        (state.armed, state.dead, state.broken, state.struck) = (None, None, false, false);
        // Pages that were never written stay readable until the system wants their memory.
        for inode in state.names.files.values() {
            let mut inode = lock(inode);
            if std::mem::take(&mut inode.sync_failed) && self.stage.dice().one_in(2) {
                inode.forget_pages();
            }
        }
    }

    /// Of what isn't synced only what the dice say survives.
    pub fn cut_power(&self) {
        let mut dice = self.stage.dice();
        let (sector, keep) = (dice.pick(&[512, 4096]), dice.pick(&[0, 128, 200, 256]));
        let mut state = lock(&self.state);
        let changes = std::mem::take(&mut state.name_changes);
        let kept = dice.below(changes.len() as u64 + 1) as usize;
        if kept < changes.len() {
            self.stage.cover(Kind::NameLost);
        }
        changes.iter().take(kept).for_each(|change| change.apply(&mut state.durable_names));
        state.durable_names.forget_orphans();
        state.names = state.durable_names.clone();
        for inode in state.names.files.values() {
            lock(inode).cut_power(&self.stage, &mut dice, sector, keep);
        }
    }

    /// Files of a directory with their lengths, in order.
    pub fn files(&self, dir: &Path) -> Vec<(PathBuf, u64)> {
        let state = lock(&self.state);
        let inside = state.names.files.iter().filter(|(path, _)| path.parent() == Some(dir));
        inside.map(|(path, inode)| (path.clone(), lock(inode).content.len() as u64)).collect()
    }

    pub fn is_dir(&self, path: &Path) -> bool {
        lock(&self.state).names.dirs.contains(path)
    }

    /// A file that holds these bytes, or would after a power cut.
    pub fn find(&self, bytes: &[u8]) -> Option<String> {
        let state = lock(&self.state);
        let holds = |content: &[u8]| content.windows(bytes.len()).any(|window| window == bytes);
        let mut all = state.names.files.iter().chain(&state.durable_names.files);
        let found = all.find(|(_, inode)| {
            let inode = lock(inode);
            holds(&inode.content) || holds(&inode.durable)
        });
        found.map(|(path, _)| name_of(path).to_owned())
    }

    /// Flips one bit of a file, for readers and for good.
    pub fn flip(&self, path: &Path, offset: u64, bit: u8) {
        let state = lock(&self.state);
        let mut inode = lock(&state.names.files[path]);
        let inode = &mut *inode;
        for bytes in [&mut inode.content, &mut inode.durable] {
            if let Some(byte) = bytes.get_mut(offset as usize) {
                *byte ^= 1 << bit;
            }
        }
    }

    fn note(&self, what: &str, name: &str, at: u64, len: usize) {
        self.stage.note(format_args!("disk {what} {name} {at} {len}"));
    }

    /// Counts a changing operation and says whether it fails; `Err(true)` when it may be done in part.
    fn change(&self, what: &str, name: &str, at: u64, len: usize) -> Result<(), bool> {
        self.note(what, name, at, len);
        let mut state = lock(&self.state);
        if state.dead.is_some() || state.broken {
            return Err(false);
        }
        state.changes += 1;
        match state.armed {
            Some(Armed::Change(number, fault)) if state.changes > number => {
                state.armed = None;
                state.struck = true;
                match fault {
                    Fault::PowerCut | Fault::Kill => {
                        state.dead = Some(fault);
                        self.died.notify_one();
                    }
                    Fault::Broken => {
                        state.broken = true;
                        self.stage.cover(Kind::StaysBroken);
                    }
                    Fault::Error => {}
                }
                self.stage.note(format_args!("disk fault {fault:?} at {what} {name}"));
                Err(true)
            }
            _ => Ok(()),
        }
    }

    /// A change of a name, which happens or not.
    fn change_name(&self, what: &str, path: &Path, make: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        match self.change(what, name_of(path), 0, 0) {
            Ok(()) => make(&mut lock(&self.state)),
            Err(midway) => {
                if midway {
                    self.stage.cover(Kind::NameFailed);
                    if lock(&self.state).dead.is_some() && self.stage.dice().one_in(2) {
                        make(&mut lock(&self.state))?;
                    }
                }
                Err(io::Error::other("simulated I/O error"))
            }
        }
    }

    fn read(&self, name: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.dead.is_some() || state.broken {
            return Err(io::Error::other("simulated I/O error"));
        }
        state.reads += 1;
        if matches!(state.armed, Some(Armed::Read(number)) if state.reads > number) {
            state.armed = None;
            state.struck = true;
            self.stage.cover(Kind::ReadFailed);
            self.stage.note(format_args!("disk fault at a read of {name}"));
            return Err(io::Error::other("simulated read error"));
        }
        Ok(())
    }

    fn file(&self, path: &Path, inode: &Arc<Mutex<Inode>>) -> SimFile {
        SimFile { disk: self.clone(), inode: Arc::clone(inode), name: name_of(path).to_owned() }
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names.files.values().map(|inode| lock(inode).content.len() as u64).sum()
    }

    fn relink(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or("?")
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create_new(&self, path: &Path) -> io::Result<SimFile> {
        let inode = Arc::new(Mutex::new(Inode::default()));
        self.change_name("create", path, |state| {
            if state.names.files.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.relink(NameChange::Link(path.to_owned(), Arc::clone(&inode)));
            Ok(())
        })?;
        Ok(self.file(path, &inode))
    }

    fn open(&self, path: &Path, _write: bool) -> io::Result<SimFile> {
        self.read(name_of(path))?;
        let inode = lock(&self.state).names.files.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(path, &inode))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.read(name_of(dir))?;
        let state = lock(&self.state);
        if !state.names.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.files.keys().chain(&state.names.dirs).filter(|path| path.parent() == Some(dir));
        let mut names: Vec<_> = inside.map(|path| name_of(path).to_owned()).collect();
        // A directory has no order of its own.
        if self.stage.dice().one_in(2) {
            names.reverse();
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change_name("rename", to, |state| {
            if state.names.dirs.contains(from) {
                state.relink(NameChange::MoveDir(from.to_owned(), to.to_owned()));
                return Ok(());
            }
            let inode = state.names.files.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
            state.relink(NameChange::Link(to.to_owned(), inode));
            Ok(())
        })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.change_name("unlink", path, |state| {
            if !state.names.files.contains_key(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.relink(NameChange::Unlink(path.to_owned()));
            Ok(())
        })
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let is_missing = |path: &&Path| !lock(&self.state).names.dirs.contains(*path);
        let mut missing: Vec<_> = dir.ancestors().take_while(is_missing).collect();
        missing.reverse();
        missing.into_iter().try_for_each(|path| {
            self.change_name("make directory", path, |state| {
                state.relink(NameChange::MakeDir(path.to_owned()));
                Ok(())
            })
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change_name("sync names", dir, |state| {
            let changes = std::mem::take(&mut state.name_changes);
            let (mine, mut others): (Vec<_>, Vec<_>) =
                changes.into_iter().partition(|change| change.dir() == Some(dir));
            for change in mine {
                change.apply(&mut state.durable_names);
                others.iter_mut().for_each(|other| other.follow(&change));
            }
            state.name_changes = others;
            Ok(())
        })
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let state = lock(&self.state);
        let free_bytes = state.capacity.saturating_sub(state.used());
        Ok(Space { free_bytes, total_bytes: state.capacity })
    }
}

impl SimFile {
    fn apply(&self, change: Change) {
        let mut inode = lock(&self.inode);
        change.apply(&mut inode.content);
        inode.unsynced.push(change);
    }

    /// Bytes of this write that the disk has room for.
    fn room_for(&self, offset: u64, len: usize) -> usize {
        let state = lock(&self.disk.state);
        let now = lock(&self.inode).content.len() as u64;
        let grows = (offset + len as u64).saturating_sub(now);
        if grows == 0 || state.capacity >= u64::MAX / 2 {
            return len;
        }
        let free = state.capacity.saturating_sub(state.used());
        len - (grows.saturating_sub(free) as usize).min(len)
    }

    fn sync(&self, what: &str) -> io::Result<()> {
        let result = self.disk.change(what, &self.name, 0, 0);
        let mut inode = lock(&self.inode);
        match result {
            Ok(()) => {
                inode.sync();
                let mut state = lock(&self.disk.state);
                state.busy_ms += state.sync_ms;
                Ok(())
            }
            Err(midway) => {
                let dead = lock(&self.disk.state).dead.is_some();
                if midway && dead && self.disk.stage.dice().one_in(2) {
                    // Done, and nobody hears of it.
                    inode.sync();
                } else if midway && !dead {
                    self.disk.stage.cover(Kind::SyncFailed);
                    inode.unsynced.clear();
                    inode.sync_failed = true;
                }
                Err(io::Error::other("simulated sync error"))
            }
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.read(&self.name)?;
        let inode = lock(&self.inode);
        let rest = inode.content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        if let Err(midway) = self.disk.change("write", &self.name, offset, buffer.len()) {
            if midway {
                let done = self.disk.stage.dice().below(buffer.len() as u64 + 1) as usize;
                self.disk.stage.cover(if done == 0 { Kind::WriteFailed } else { Kind::WriteShort });
                self.apply(Change::Write(offset, buffer[..done].to_vec()));
            }
            return Err(io::Error::other("simulated write error"));
        }
        let room = self.room_for(offset, buffer.len());
        self.apply(Change::Write(offset, buffer[..room].to_vec()));
        if room < buffer.len() {
            self.disk.stage.cover(Kind::NoSpace);
            self.disk.note("full", &self.name, offset, room);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync("sync")
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync("sync")
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.disk.change("length", &self.name, len, 0) {
            Ok(()) => {
                self.apply(Change::Length(len));
                Ok(())
            }
            Err(_) => Err(io::Error::other("simulated I/O error")),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.read(&self.name)?;
        Ok(lock(&self.inode).content.len() as u64)
    }
}
