//! The sled tree: opening it without trusting it, applying tables to it, noticing what it lost.
//!
//! What sled 0.34.7 does to a damaged or half-written directory (an error, a panic, or silently fewer keys) is known from
//! measurement; so it is opened inside `catch_unwind`, every key is read and summed at the start, and whatever is wrong
//! makes the caller rebuild the directory from the journal.

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::{Bound, Deref};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

use super::meta::{self, FORMAT, Meta, Sum, family_slot};
use super::table::Table;

/// sled's own segments; with 8 MiB no value of ours comes near the size that sled puts into files of their own.
const SLED_SEGMENT_BYTES: usize = 8 << 20;

/// How often sled's lock is tried, and how long to wait in between: ten seconds in all.
const LOCK_TRIES: u32 = 1_000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// How long one batch may take to be written. It is bounded by what may lag behind the journal, and takes a second or two.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// The tree, or its directory, can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// sled says so.
    #[error("the key space failed: {0}")]
    Sled(#[from] sled::Error),
    /// sled panicked, as it does on some damage.
    #[error("the key space is damaged: sled panicked while {0}")]
    Panicked(&'static str),
    /// sled waits for a write that does not come.
    #[error("the key space did not take a batch within {} s; its disk fails or hangs", WRITE_MAX.as_secs())]
    Stalled,
    /// There is no thread to be had.
    #[error("no thread for writing the key space: {0}")]
    Thread(io::Error),
    /// Its keys do not sum up to what it says of itself.
    #[error("the key space has lost or changed keys of family {family:?}: {found} keys where {expected} were counted")]
    Incomplete {
        /// Which family.
        family: char,
        /// Keys found.
        found: u64,
        /// Keys counted.
        expected: u64,
    },
    /// A key of no family, or a value that does not decode.
    #[error("the key space holds something that is not ours: {0}")]
    Foreign(&'static str),
    /// Another format.
    #[error("the key space has format {0}, this version writes {FORMAT}")]
    Format(u32),
    /// Its directory can't be prepared.
    #[error("{}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An open tree.
#[derive(Debug, Clone)]
pub struct Tree {
    db: Db,
}

/// sled, closed without a panic: at its end it unwraps what a last sync said, and by then nobody depends on that.
#[derive(Debug, Clone)]
struct Db(Option<sled::Db>);

impl Deref for Db {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.0.as_ref().expect("it is taken out by drop only")
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        let db = self.0.take();
        if let Err(error) = guarded("closing", || drop(db)) {
            tracing::warn!(%error, "the next start looks after the key space");
        }
    }
}

impl Tree {
    /// Opens the tree in `dir`, which is made if it is missing. Nothing is checked yet: see [`check`](Self::check).
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, TreeError> {
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
        let db = guarded("opening", || config.open())??;
        Ok(Self { db: Db(Some(db)) })
    }

    /// Reads every key and holds the sums against what the tree says of itself.
    pub fn check(&self) -> Result<Meta, TreeError> {
        guarded("reading every key", || self.check_unguarded())?
    }

    fn check_unguarded(&self) -> Result<Meta, TreeError> {
        let Some(bytes) = self.db.get(meta::KEY)? else {
            return if self.db.is_empty() {
                Ok(Meta::default())
            } else {
                Err(TreeError::Foreign("keys without a position"))
            };
        };
        let meta = Meta::decode(&bytes).ok_or(TreeError::Foreign("a position that does not decode"))?;
        if meta.format != FORMAT {
            return Err(TreeError::Format(meta.format));
        }
        let mut sums = <[Sum; super::FAMILIES.len()]>::default();
        for entry in self.db.iter() {
            let (key, value) = entry?;
            if key == meta::KEY {
                continue;
            }
            let slot = key.first().and_then(|f| family_slot(*f)).ok_or(TreeError::Foreign("a key of no family"))?;
            sums[slot].add(&key, &value);
        }
        for (slot, (found, expected)) in sums.iter().zip(&meta.sums).enumerate() {
            if found != expected {
                let family = char::from(super::FAMILIES[slot]);
                return Err(TreeError::Incomplete { family, found: found.keys, expected: expected.keys });
            }
        }
        Ok(meta)
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, TreeError> {
        Ok(self.db.get(key)?)
    }

    /// The keys of a range with their values, in order from either end.
    pub fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> sled::Iter {
        self.db.range::<&[u8], _>((from, to))
    }

    /// Applies a table and the new meta in one atomic batch. `meta.sums` is brought up to date on the way.
    pub fn apply(&self, table: &Table, meta: &mut Meta) -> Result<(), TreeError> {
        guarded("applying a batch", || {
            let mut batch = sled::Batch::default();
            for (key, value) in table.range(Bound::Unbounded, Bound::Unbounded) {
                let slot = key.first().and_then(|f| family_slot(*f)).ok_or(TreeError::Foreign("a key of no family"))?;
                let old = self.db.get(key)?;
                if let Some(old) = &old {
                    meta.sums[slot].remove(key, old);
                }
                match value {
                    Some(value) => {
                        meta.sums[slot].add(key, value);
                        batch.insert(key, value);
                    }
                    None if old.is_some() => batch.remove(key),
                    None => {}
                }
            }
            batch.insert(meta::KEY, meta.encode());
            write_through(self.db.clone(), batch)
        })?
    }

    /// Bytes of the directory.
    pub fn disk_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }
}

/// Runs `work` and turns a panic inside sled into an error.
fn guarded<T>(doing: &'static str, work: impl FnOnce() -> T) -> Result<T, TreeError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| TreeError::Panicked(doing))
}

/// Applies a batch and flushes it, on a thread of its own: after an I/O error sled may wait for ever for a write that nobody
/// makes any more. Then the thread is left behind, with a handle that keeps sled from being closed, which would hang as well.
fn write_through(db: Db, batch: sled::Batch) -> Result<(), TreeError> {
    let (done, seen) = crossbeam_channel::bounded(1);
    let write = move || {
        let written = db.apply_batch(batch).and_then(|()| db.flush());
        // Let go of before anybody may close it.
        drop(db);
        // Nobody listens once the time is up.
        let _ = done.send(written);
    };
    let spawned = std::thread::Builder::new().name("index-write".to_owned()).spawn(write);
    spawned.map_err(TreeError::Thread)?;
    match seen.recv_timeout(WRITE_MAX) {
        Ok(written) => Ok(written.map(drop)?),
        Err(RecvTimeoutError::Timeout) => Err(TreeError::Stalled),
        Err(RecvTimeoutError::Disconnected) => Err(TreeError::Panicked("applying a batch")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pairs: &[(&[u8], Option<&[u8]>)]) -> Table {
        let mut table = Table::default();
        for (key, value) in pairs {
            match value {
                Some(value) => table.insert(key.to_vec(), value.to_vec()),
                None => table.remove(key.to_vec()),
            }
        }
        table
    }

    #[test]
    fn sums_follow_overwrites_and_removals_over_a_reopen() {
        let dir = tempfile::tempdir().unwrap();
        {
            let tree = Tree::open(dir.path(), 1 << 20).unwrap();
            let mut meta = tree.check().unwrap();
            tree.apply(&table(&[(b"ka", Some(b"1")), (b"kb", Some(b"2")), (b"q1", Some(b""))]), &mut meta).unwrap();
            tree.apply(&table(&[(b"ka", Some(b"3")), (b"kb", None), (b"kz", None)]), &mut meta).unwrap();
            assert_eq!(tree.check().unwrap(), meta);
        }
        let tree = Tree::open(dir.path(), 1 << 20).unwrap();
        let meta = tree.check().unwrap();
        assert_eq!(meta.sums.iter().map(|s| s.keys).sum::<u64>(), 2);
    }

    #[test]
    fn a_lock_that_is_about_to_be_freed_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = Tree::open(dir.path(), 1 << 20).unwrap();
        let path = dir.path().to_owned();
        let (started, waits) = std::sync::mpsc::channel();
        let opening = std::thread::spawn(move || {
            started.send(()).unwrap();
            Tree::open(&path, 1 << 20).map(drop)
        });
        waits.recv().unwrap();
        drop(held);
        opening.join().unwrap().unwrap();
    }

    #[test]
    fn a_key_lost_behind_its_back_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path(), 1 << 20).unwrap();
        let mut meta = tree.check().unwrap();
        tree.apply(&table(&[(b"ka", Some(b"1")), (b"kb", Some(b"2"))]), &mut meta).unwrap();
        tree.db.remove(b"ka").unwrap();
        let error = tree.check().unwrap_err();
        assert!(matches!(error, TreeError::Incomplete { family: 'k', found: 1, expected: 2 }), "{error}");
    }
}
