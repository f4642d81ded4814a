//! Keys with their values as they are kept: by sled, or in memory for simulations.
//!
//! **Invariants**
//! - A panic inside sled becomes an error, also when it is closed.
//! - No write takes longer than [`WRITE_MAX`]: after an I/O error sled may wait for ever. Reads are watched (`reads.rs`), as
//!   nobody can give up waiting for one.

use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow, Deref};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

use super::block::{self, Entry};
use super::reads::Reads;
use super::tree::TreeError;
use super::tree_mem::{self, MemTree};

/// How long one batch may take to be written. It is bounded by what may lag behind the journal, and takes a second or two.
pub(super) const WRITE_MAX: Duration = Duration::from_secs(30);

/// Changes that are made all or none: a key's new value, or its removal. Of two for one key the later counts.
pub(super) type Batch = Vec<(sled::IVec, Option<sled::IVec>)>;

/// Keys with their values.
#[derive(Debug, Clone)]
pub(super) enum Keys {
    /// Kept by sled.
    Sled(Db),
    /// Kept nowhere.
    Memory(MemTree),
}

/// sled, closed without a panic: at its end it unwraps what a last sync said, and by then nobody depends on that.
#[derive(Debug, Clone)]
pub(super) struct Db(Option<sled::Db>, Arc<Reads>);

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

impl Keys {
    pub(super) fn sled(db: sled::Db) -> Self {
        Self::Sled(Db(Some(db), Arc::default()))
    }

    /// Lets a tick pass; how many the oldest read has seen pass that is still under way.
    pub(super) fn tick(&self) -> u64 {
        match self {
            Self::Sled(Db(_, reads)) => reads.tick(),
            Self::Memory(_) => 0,
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, TreeError> {
        match self {
            Self::Sled(db) => {
                let _reading = db.1.begin();
                Ok(db.get(key)?)
            }
            Self::Memory(tree) => Ok(tree.get(key)),
        }
    }

    /// The keys of a range with their values, in order from either end.
    pub(super) fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Iter {
        match self {
            Self::Sled(db) => Iter::Sled(db.range::<&[u8], _>((from, to)), Arc::clone(&db.1)),
            Self::Memory(tree) => Iter::Memory(tree.range(from, to)),
        }
    }

    /// Of the keys of the same scope, this one or the last before it.
    pub(super) fn at_or_before(&self, key: &[u8]) -> Result<Option<Entry>, TreeError> {
        Ok(self.range(Bound::Included(block::scope(key)), Bound::Included(key)).next_back().transpose()?)
    }

    /// The value of an entry of a packed family.
    pub(super) fn find(&self, key: &[u8]) -> Result<Option<sled::IVec>, TreeError> {
        let Some((first, bytes)) = self.at_or_before(key)? else { return Ok(None) };
        let mut found = None;
        block::each(&first, &bytes, |k, value| match k.cmp(key) {
            Ordering::Less => ControlFlow::Continue(()),
            Ordering::Equal => {
                found = Some(value.into());
                ControlFlow::Break(())
            }
            Ordering::Greater => ControlFlow::Break(()),
        })?;
        Ok(found)
    }

    /// The blocks of a scope.
    pub(super) fn blocks_of(&self, scope: &[u8]) -> Result<Vec<Entry>, TreeError> {
        Ok(self.range(Bound::Included(scope), Bound::Excluded(&block::after(scope))).collect::<Result<_, _>>()?)
    }

    /// Writes a batch, and has sled hand it to the system. Nobody who holds `whole` sees half of it.
    pub(super) fn write(&self, batch: Batch, whole: &Arc<RwLock<()>>) -> Result<(), TreeError> {
        match self {
            Self::Sled(db) => write_through(db.clone(), batch, Arc::clone(whole)),
            Self::Memory(tree) => Ok(tree.write(batch)?),
        }
    }

    /// Bytes on the disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        match self {
            Self::Sled(db) => db.size_on_disk().unwrap_or(0),
            Self::Memory(_) => 0,
        }
    }
}

/// Keys with their values, in order from either end.
#[expect(clippy::large_enum_variant, reason = "the large one is the one that is used")]
pub(super) enum Iter {
    Sled(sled::Iter, Arc<Reads>),
    Memory(tree_mem::Iter),
}

impl Iterator for Iter {
    type Item = sled::Result<(sled::IVec, sled::IVec)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Sled(iter, reads) => {
                let _reading = reads.begin();
                iter.next()
            }
            Self::Memory(iter) => iter.next().map(Ok),
        }
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Sled(iter, reads) => {
                let _reading = reads.begin();
                iter.next_back()
            }
            Self::Memory(iter) => iter.next_back().map(Ok),
        }
    }
}

/// Runs `work` and turns a panic inside sled into an error.
pub(super) fn guarded<T>(doing: &'static str, work: impl FnOnce() -> T) -> Result<T, TreeError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| TreeError::Panicked(doing))
}

/// Applies a batch and flushes it, on a thread of its own: after an I/O error sled may wait for ever for a write that nobody
/// makes any more. Then the thread is left behind, with a handle that keeps sled from being closed, which would hang as well.
fn write_through(db: Db, changes: Batch, whole: Arc<RwLock<()>>) -> Result<(), TreeError> {
    let (done, seen) = crossbeam_channel::bounded(1);
    let write = move || {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        let alone = whole.write().unwrap_or_else(PoisonError::into_inner);
        let applied = db.apply_batch(batch);
        drop(alone);
        let written = applied.and_then(|()| db.flush());
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
