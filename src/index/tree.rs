//! The sled tree: opening it without trusting it, applying tables to it, noticing what it lost.
//!
//! What sled 0.34.7 does to a damaged or half-written directory (an error, a panic, or silently fewer keys) is known from
//! measurement; so it is opened inside `catch_unwind`, every key is read and summed at the start, and whatever is wrong
//! makes the caller rebuild the directory from the journal.

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::meta::{self, FORMAT, Meta, Sum, family_slot};
use super::table::Table;
use super::tree_mem::{self, MemTree};

/// sled's own segments; with 8 MiB no value of ours comes near the size that sled puts into files of their own.
const SLED_SEGMENT_BYTES: usize = 8 << 20;

/// How often sled's lock is tried, and how long to wait in between: ten seconds in all.
const LOCK_TRIES: u32 = 1_000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The tree, or its directory, can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// sled says so.
    #[error("the key space failed: {0}")]
    Sled(#[from] sled::Error),
    /// sled panicked, as it does on some damage.
    #[error("the key space is damaged: sled panicked while {0}")]
    Panicked(&'static str),
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
            Self::Directory(dir) => Tree::open(dir, cache_bytes),
            Self::Memory(tree) => {
                tree.begin()?;
                Ok(Tree { keys: Keys::Memory(tree.clone()) })
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
}

fn set_aside(dir: &Path) -> Result<(), TreeError> {
    let aside = dir.with_extension("damaged");
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

/// An open tree.
#[derive(Debug, Clone)]
pub struct Tree {
    keys: Keys,
}

#[derive(Debug, Clone)]
enum Keys {
    Sled(sled::Db),
    Memory(MemTree),
}

/// Keys with their values, in order from either end.
#[allow(clippy::large_enum_variant, reason = "the large one is the usual one")]
pub enum Iter {
    /// Of sled.
    Sled(sled::Iter),
    /// Of a tree in memory.
    Memory(tree_mem::Iter),
}

impl Iterator for Iter {
    type Item = sled::Result<(sled::IVec, sled::IVec)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Sled(iter) => iter.next(),
            Self::Memory(iter) => iter.next(),
        }
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Sled(iter) => iter.next_back(),
            Self::Memory(iter) => iter.next_back(),
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
        Ok(Self { keys: Keys::Sled(db) })
    }

    /// Reads every key and holds the sums against what the tree says of itself.
    pub fn check(&self) -> Result<Meta, TreeError> {
        guarded("reading every key", || self.check_unguarded())?
    }

    fn check_unguarded(&self) -> Result<Meta, TreeError> {
        let mut all = self.range(Bound::Unbounded, Bound::Unbounded);
        let Some(bytes) = self.get(meta::KEY)? else {
            return if all.next().transpose()?.is_none() {
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
        for entry in all {
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
        match &self.keys {
            Keys::Sled(db) => Ok(db.get(key)?),
            Keys::Memory(tree) => Ok(tree.get(key)?),
        }
    }

    /// The keys of a range with their values, in order from either end.
    pub fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Iter {
        match &self.keys {
            Keys::Sled(db) => Iter::Sled(db.range::<&[u8], _>((from, to))),
            Keys::Memory(tree) => Iter::Memory(tree.range(from, to)),
        }
    }

    /// Applies a table and the new meta in one atomic batch. `meta.sums` is brought up to date on the way.
    pub fn apply(&self, table: &Table, meta: &mut Meta) -> Result<(), TreeError> {
        guarded("applying a batch", || {
            let mut batch = sled::Batch::default();
            for (key, value) in table.range(Bound::Unbounded, Bound::Unbounded) {
                let slot = key.first().and_then(|f| family_slot(*f)).ok_or(TreeError::Foreign("a key of no family"))?;
                let old = self.get(key)?;
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
            match &self.keys {
                Keys::Sled(db) => {
                    db.apply_batch(batch)?;
                    db.flush()?;
                }
                Keys::Memory(tree) => tree.apply(table, meta)?,
            }
            Ok(())
        })?
    }

    /// Bytes of the directory.
    pub fn disk_bytes(&self) -> u64 {
        match &self.keys {
            Keys::Sled(db) => db.size_on_disk().unwrap_or(0),
            Keys::Memory(_) => 0,
        }
    }
}

/// Runs `work` and turns a panic inside sled into an error.
fn guarded<T>(doing: &'static str, work: impl FnOnce() -> T) -> Result<T, TreeError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| TreeError::Panicked(doing))
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
        let Keys::Sled(db) = &tree.keys else { panic!("it was opened on a directory") };
        db.remove(b"ka").unwrap();
        let error = tree.check().unwrap_err();
        assert!(matches!(error, TreeError::Incomplete { family: 'k', found: 1, expected: 2 }), "{error}");
    }
}
