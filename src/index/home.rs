//! Where a key space is kept: opened without trust, moved aside when it is damaged.
//!
//! What sled 0.34.7 does to a damaged or half-written directory (an error, a panic, or silently fewer keys) is known from
//! measurement, so it is opened inside `catch_unwind`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::{Keys, guarded};
use super::tree::{Tree, TreeError};
use super::tree_mem::MemTree;

/// sled's own segments; with 8 MiB no value of ours comes near the size that sled puts into files of their own.
const SLED_SEGMENT_BYTES: usize = 8 << 20;

/// How often sled's lock is tried, and how long to wait in between: ten seconds in all.
const LOCK_TRIES: u32 = 1_000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Where a key space is kept.
#[derive(Debug, Clone)]
pub enum Home {
    /// sled's directory.
    Directory(PathBuf),
    /// Nowhere but in memory, for simulations.
    Memory(MemTree),
}

impl Home {
    /// Whether there is one, in whatever state.
    pub fn exists(&self) -> bool {
        match self {
            Self::Directory(dir) => dir.exists(),
            Self::Memory(tree) => tree.exists(),
        }
    }

    /// Opens the tree, which is made if it is missing. Nothing is checked yet: see [`Tree::check`].
    pub fn open(&self, cache_bytes: u64) -> Result<Tree, TreeError> {
        match self {
            Self::Directory(dir) => Ok(Tree::new(open_sled(dir, cache_bytes)?)),
            Self::Memory(tree) => {
                tree.begin()?;
                Ok(Tree::new(Keys::Memory(tree.clone())))
            }
        }
    }

    /// Keeps one damaged key space for whoever wants to look into it, and makes way for another.
    pub fn set_aside(&self) -> Result<(), TreeError> {
        match self {
            Self::Directory(dir) => set_aside(dir),
            Self::Memory(tree) => {
                tree.lose();
                Ok(())
            }
        }
    }

    /// Removes what [`set_aside`](Self::set_aside) kept; false when there is nothing to be had from that.
    pub fn give_up_damaged(&self) -> bool {
        match self {
            Self::Directory(dir) => fs::remove_dir_all(aside_of(dir)).is_ok(),
            Self::Memory(_) => false,
        }
    }
}

fn open_sled(dir: &Path, cache_bytes: u64) -> Result<Keys, TreeError> {
    let directory = |source| TreeError::Directory { path: dir.to_owned(), source };
    wait_for_the_former_holder(&dir.join("db")).map_err(directory)?;
    remove_half_written_snapshots(dir).map_err(directory)?;
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(cache_bytes)
        .segment_size(SLED_SEGMENT_BYTES)
        .mode(sled::Mode::HighThroughput)
        .use_compression(false)
        .flush_every_ms(None);
    Ok(Keys::sled(guarded("opening", || config.open())??))
}

fn aside_of(dir: &Path) -> PathBuf {
    dir.with_extension("damaged")
}

fn set_aside(dir: &Path) -> Result<(), TreeError> {
    let aside = aside_of(dir);
    let directory = |path: &Path| {
        let path = path.to_owned();
        move |source| TreeError::Directory { path, source }
    };
    // What is in the place of a directory need not be one.
    let removed = match fs::symlink_metadata(&aside) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(&aside),
        Ok(_) => fs::remove_file(&aside),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(directory(&aside))?;
    fs::rename(dir, &aside).map_err(directory(dir))
}

/// sled's own threads may hold its lock for a moment after its last user is gone, and sled does not wait for it: it would
/// seem damaged. Who the store itself belongs to is settled by then, so whoever holds this lock is about to let go.
fn wait_for_the_former_holder(db: &Path) -> io::Result<()> {
    let file = match File::open(db) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
    Ok(())
}

/// A process killed while sled wrote a snapshot leaves `snap.*.generating`, on which every later open fails
/// (spacejam/sled #1527, #1533); without the file sled recovers from its log.
fn remove_half_written_snapshots(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
