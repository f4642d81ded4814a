//! A key space in memory, for simulations: it forgets what a crash may make sled forget, and fails when it is told to.
//!
//! sled keeps some prefix of what was applied to it, or nothing, or something damaged. So this one remembers what it was
//! after each of the last batches, and can be taken back there.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::keys::Batch;
use super::tree::is_empty;

/// Batches that it can be taken back.
const HISTORY: usize = 4;

/// All keys with their values.
type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A key space in memory. Clones share their content.
#[derive(Debug, Clone, Default)]
pub struct MemTree {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None` where nothing was ever opened.
    keys: Option<Arc<Map>>,
    before: VecDeque<Arc<Map>>,
    fault: Option<io::ErrorKind>,
}

impl MemTree {
    /// A place where no key space is yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is one.
    pub fn exists(&self) -> bool {
        self.lock().keys.is_some()
    }

    /// Takes it back to what it was so many batches ago, as far as that is remembered.
    pub fn rewind(&self, batches: usize) {
        let mut inner = self.lock();
        for _ in 0..batches {
            if let Some(before) = inner.before.pop_back() {
                inner.keys = Some(before);
            }
        }
    }

    /// It is gone.
    pub fn lose(&self) {
        let mut inner = self.lock();
        (inner.keys, inner.before) = (None, VecDeque::new());
    }

    /// Changes what is in it behind its back.
    pub fn damage(&self, change: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>)) {
        if let Some(keys) = &mut self.lock().keys {
            change(Arc::make_mut(keys));
        }
    }

    /// The next batch, or the next opening, fails with this error.
    pub fn fail_next(&self, kind: io::ErrorKind) {
        self.lock().fault = Some(kind);
    }

    /// Ends what [`fail_next`](Self::fail_next) began, if it has not happened yet.
    pub fn heal(&self) {
        self.lock().fault = None;
    }

    /// Opens it, and makes it if it is missing.
    pub(super) fn begin(&self) -> sled::Result<()> {
        let mut inner = self.lock();
        inner.meet_fault()?;
        inner.keys.get_or_insert_default();
        Ok(())
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<sled::IVec> {
        self.lock().keys.as_ref().and_then(|keys| keys.get(key)).map(|value| value.as_slice().into())
    }

    pub(super) fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Iter {
        let keys = self.lock().keys.clone().unwrap_or_default();
        Iter { keys, from: from.map(<[u8]>::to_vec), to: to.map(<[u8]>::to_vec) }
    }

    pub(super) fn write(&self, batch: Batch) -> sled::Result<()> {
        let mut inner = self.lock();
        inner.meet_fault()?;
        let before = Arc::clone(inner.keys.get_or_insert_default());
        let mut keys = Map::clone(&before);
        for (key, value) in batch {
            match value {
                Some(value) => drop(keys.insert(key.to_vec(), value.to_vec())),
                None => drop(keys.remove(&key[..])),
            }
        }
        inner.before.push_back(before);
        if inner.before.len() > HISTORY {
            inner.before.pop_front();
        }
        inner.keys = Some(Arc::new(keys));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn meet_fault(&mut self) -> sled::Result<()> {
        self.fault.take().map_or(Ok(()), |kind| Err(sled::Error::Io(kind.into())))
    }
}

/// The keys of a range as they were when it was asked for.
#[derive(Debug)]
pub struct Iter {
    keys: Arc<Map>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
}

impl Iter {
    fn step(&mut self, last: bool) -> Option<(sled::IVec, sled::IVec)> {
        let bounds = (self.from.as_ref().map(Vec::as_slice), self.to.as_ref().map(Vec::as_slice));
        if is_empty(bounds.0, bounds.1) {
            return None;
        }
        let mut range = self.keys.range::<[u8], _>(bounds);
        let (key, value) = if last { range.next_back() } else { range.next() }?;
        let bound = if last { &mut self.to } else { &mut self.from };
        *bound = Bound::Excluded(key.clone());
        Some((key.as_slice().into(), value.as_slice().into()))
    }
}

impl Iterator for Iter {
    type Item = (sled::IVec, sled::IVec);

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::home::Home;
    use super::super::table::Table;
    use super::super::tree::TreeError;
    use super::*;

    #[test]
    fn it_goes_back_by_batches_and_a_key_lost_is_noticed() {
        let memory = MemTree::new();
        let home = Home::Memory(memory.clone());
        assert!(!home.exists());
        let tree = home.open(0).unwrap();
        let mut meta = tree.check().unwrap();
        tree.apply(&Table::of(&[(b"ca", Some(b"1")), (b"cb", Some(b"2"))]), &mut meta).unwrap();
        let first = meta.clone();
        tree.apply(&Table::of(&[(b"ca", None), (b"q1", Some(b""))]), &mut meta).unwrap();
        assert_eq!(tree.check().unwrap(), meta);
        memory.rewind(1);
        assert_eq!(tree.check().unwrap(), first);
        memory.damage(|keys| drop(keys.remove(&b"cb"[..])));
        assert!(matches!(tree.check(), Err(TreeError::Incomplete { family: 'c', found: 1, expected: 2 })));
        memory.fail_next(io::ErrorKind::StorageFull);
        assert!(tree.apply(&Table::of(&[]), &mut meta).is_err());
        home.set_aside().unwrap();
        assert!(!home.exists());
    }

    #[test]
    fn a_range_is_walked_from_both_ends_until_they_meet() {
        let memory = MemTree::new();
        let batch = (b'a'..b'f').map(|n| (vec![b'k', n].into(), Some(vec![n].into()))).collect();
        memory.write(batch).unwrap();
        let mut range = memory.range(Bound::Excluded(b"ka"), Bound::Included(b"ke"));
        let mut key = |last: bool| {
            let found = if last { range.next_back() } else { range.next() };
            found.map(|entry| entry.0[1])
        };
        assert_eq!([key(false), key(true), key(true), key(false)], [Some(b'b'), Some(b'e'), Some(b'd'), Some(b'c')]);
        assert_eq!([key(false), key(true)], [None, None]);
    }
}
