//! The tree: entries in order over keys that sled or memory holds. Applying tables to it, noticing what it lost.
//!
//! sled 0.34.7 may answer damage with silently fewer keys (`home.rs` has the rest); so every key is read and summed at the
//! start, and whatever is wrong makes the caller rebuild it from the journal.

use std::collections::VecDeque;
use std::io;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::apply::Applying;
use super::block::{self, Entry, is_packed};
use super::dedup;
use super::keys::{Batch, Keys, WRITE_MAX, guarded};
use super::meta::{self, FORMAT, Meta, Sum, family_slot};
use super::runs::{Learning, Runs, Turnover};
use super::state::Layered;
use super::table::Table;

/// Entries that a walk reads at a time.
const RUN_ENTRIES: usize = 64;

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
    /// sled reads and does not return.
    #[error("a read of the key space did not return; its disk fails or hangs")]
    ReadStalled,
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
    keys: Keys,
    /// A batch moves entries from block to block; who looks for one must not look between.
    whole: Arc<RwLock<()>>,
    runs: Arc<Runs>,
}

/// Walks over the entries of a range. Goes on from the last one's key, so that batches applied meanwhile neither hide an
/// entry from it nor show one twice.
pub struct Range<'t> {
    tree: &'t Tree,
    from: Bound<sled::IVec>,
    to: Bound<sled::IVec>,
    way: Layered,
    run: VecDeque<Entry>,
    ended: bool,
}

impl Iterator for Range<'_> {
    type Item = Result<Entry, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.run.is_empty() && !self.ended {
            match self.tree.run(as_bytes(&self.from), as_bytes(&self.to), self.way) {
                Ok(run) => self.run = run,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
            let beyond = self.run.back().map(|(last, _)| Bound::Excluded(last.clone()));
            match (beyond, self.way) {
                (Some(beyond), Layered::Up) => self.from = beyond,
                (Some(beyond), Layered::Down) => self.to = beyond,
                (None, _) => self.ended = true,
            }
            self.ended |= is_empty(as_bytes(&self.from), as_bytes(&self.to));
        }
        self.run.pop_front().map(Ok)
    }
}

impl Tree {
    /// The tree of these keys. Nothing is checked yet: see [`check`](Self::check).
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, whole: Arc::default(), runs: Arc::default() }
    }

    /// Reads every key and holds the sums against what the tree says of itself.
    pub fn check(&self) -> Result<Meta, TreeError> {
        guarded("reading every key", || self.check_unguarded())?
    }

    fn check_unguarded(&self) -> Result<Meta, TreeError> {
        let mut all = self.keys.range(Bound::Unbounded, Bound::Unbounded);
        let Some(bytes) = self.keys.get(meta::KEY)? else {
            if all.next().transpose()?.is_some() {
                return Err(TreeError::Foreign("keys without a position"));
            }
            self.runs.learnt(Learning::default());
            return Ok(Meta::default());
        };
        let meta = Meta::decode(&bytes).ok_or(TreeError::Foreign("a position that does not decode"))?;
        if meta.format != FORMAT {
            return Err(TreeError::Format(meta.format));
        }
        let mut sums = <[Sum; super::FAMILIES.len()]>::default();
        let mut learning = Learning::default();
        for entry in all {
            let (key, value) = entry?;
            if key != meta::KEY {
                sum_up(&mut sums, &mut learning, &key, &value)?;
            }
        }
        for (slot, (found, expected)) in sums.iter().zip(&meta.sums).enumerate() {
            if found != expected {
                let family = char::from(super::FAMILIES[slot]);
                return Err(TreeError::Incomplete { family, found: found.keys, expected: expected.keys });
            }
        }
        self.runs.learnt(learning);
        Ok(meta)
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, TreeError> {
        if key.first() == Some(&dedup::FAMILY) {
            return self.get_dedup(key);
        }
        if !is_packed(key) {
            return self.keys.get(key);
        }
        let _whole = self.whole();
        self.keys.find(key)
    }

    fn get_dedup(&self, key: &[u8]) -> Result<Option<sled::IVec>, TreeError> {
        // Most are new, and need not wait for a batch.
        if self.runs.holding(key)?.is_empty() {
            return Ok(None);
        }
        let _whole = self.whole();
        Ok(self.runs.look_up(key, |stored| self.keys.find(stored))?.map(|(_, value)| value))
    }

    /// The keys of a range with their values, in order from either end; dedup keys as they are stored, by their runs.
    pub fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, way: Layered) -> Range<'_> {
        let (from, to) = (from.map(sled::IVec::from), to.map(sled::IVec::from));
        Range { tree: self, from, to, way, run: VecDeque::new(), ended: false }
    }

    /// Applies a table and the new meta in one atomic batch. `meta.sums` is brought up to date on the way.
    pub fn apply(&self, table: &Table, meta: &mut Meta) -> Result<(), TreeError> {
        guarded("applying a batch", || {
            let (keys, runs, sums) = (&self.keys, &*self.runs, &mut meta.sums);
            let mut applying = Applying { keys, runs, turnover: Turnover::default(), batch: Batch::new(), sums };
            applying.take(table.range(Bound::Unbounded, Bound::Unbounded))?;
            let Applying { mut batch, turnover, .. } = applying;
            batch.push((meta::KEY.into(), Some(meta.encode().into())));
            self.keys.write(batch, &self.whole)?;
            self.runs.turn_over(&turnover);
            Ok(())
        })?
    }

    /// While it is held no batch changes the blocks.
    fn whole(&self) -> RwLockReadGuard<'_, ()> {
        self.whole.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries from one end of a range, at least one if there is any; all of those between the first and the last.
    fn run(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, way: Layered) -> Result<VecDeque<Entry>, TreeError> {
        let _whole = self.whole();
        let first = match from {
            Bound::Included(key) | Bound::Excluded(key) if is_packed(key) => {
                self.keys.at_or_before(key)?.map(|(first, _)| first)
            }
            _ => None,
        };
        let mut run = VecDeque::new();
        let stored = self.keys.range(first.as_ref().map_or(from, |first| Bound::Included(first)), to);
        let stored: &mut dyn Iterator<Item = _> = match way {
            Layered::Up => &mut { stored },
            Layered::Down => &mut stored.rev(),
        };
        for item in stored {
            let (key, value) = item?;
            let mut entries = if is_packed(&key) { block::unpack(&key, &value)? } else { vec![(key, value)] };
            if way == Layered::Down {
                entries.reverse();
            }
            run.extend(entries.into_iter().filter(|(key, _)| RangeBounds::<[u8]>::contains(&(from, to), &key[..])));
            if run.len() >= RUN_ENTRIES {
                break;
            }
        }
        Ok(run)
    }

    /// Lets a tick pass, for whoever watches that reads return; how many the oldest read under way has seen pass.
    pub fn tick(&self) -> u64 {
        self.keys.tick()
    }

    /// Bytes of the directory.
    pub fn disk_bytes(&self) -> u64 {
        self.keys.disk_bytes()
    }
}

/// Adds what is kept under a key.
fn sum_up(
    sums: &mut [Sum; super::FAMILIES.len()],
    learning: &mut Learning,
    key: &[u8],
    value: &[u8],
) -> Result<(), TreeError> {
    let family = key.first().copied().unwrap_or_default();
    let slot = family_slot(family).ok_or(TreeError::Foreign("a key of no family"))?;
    if !is_packed(key) {
        sums[slot].add(key, value);
        return Ok(());
    }
    block::each(key, value, |key, value| {
        sums[slot].add(key, value);
        learning.take(key);
        ControlFlow::Continue(())
    })
}

fn as_bytes(bound: &Bound<sled::IVec>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}

/// sled, like a map of the standard library, panics on a range that ends before it starts; an empty one is simply empty.
pub(super) fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::home::Home;
    use super::*;
    use crate::core::event::{DedupKey, DedupScope};
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn open(dir: &Path) -> Result<Tree, TreeError> {
        Home::Directory(dir.to_owned()).open(1 << 20)
    }

    #[test]
    fn sums_follow_overwrites_and_removals_over_a_reopen() {
        let dir = tempfile::tempdir().unwrap();
        {
            let tree = open(dir.path()).unwrap();
            let mut meta = tree.check().unwrap();
            tree.apply(&Table::of(&[(b"ka", Some(b"1")), (b"kb", Some(b"2")), (b"q1", Some(b""))]), &mut meta).unwrap();
            tree.apply(&Table::of(&[(b"ka", Some(b"3")), (b"kb", None), (b"kz", None)]), &mut meta).unwrap();
            assert_eq!(tree.check().unwrap(), meta);
        }
        let tree = open(dir.path()).unwrap();
        let meta = tree.check().unwrap();
        assert_eq!(meta.sums.iter().map(|s| s.keys).sum::<u64>(), 2);
    }

    #[test]
    fn a_lock_that_is_about_to_be_freed_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = open(dir.path()).unwrap();
        let path = dir.path().to_owned();
        let (started, waits) = std::sync::mpsc::channel();
        let opening = std::thread::spawn(move || {
            started.send(()).unwrap();
            open(&path).map(drop)
        });
        waits.recv().unwrap();
        drop(held);
        opening.join().unwrap().unwrap();
    }

    #[test]
    fn dedup_keys_are_found_over_a_reopen_and_after_most_have_gone() {
        let key = |n: u64| dedup::key(&DedupKey::new(DedupScope::Inbound, 1, &n.to_string()));
        let found = |tree: &Tree, n: u64| tree.get(&key(n)).unwrap().is_some();
        let dir = tempfile::tempdir().unwrap();
        {
            let tree = open(dir.path()).unwrap();
            let mut meta = tree.check().unwrap();
            for tens in 0..100 {
                let mut table = Table::default();
                (0..10).for_each(|n| table.insert(key(10 * tens + n), b"v".to_vec()));
                tree.apply(&table, &mut meta).unwrap();
            }
            assert!((0..1_000).all(|n| found(&tree, n)) && !found(&tree, 1_000));
        }
        let tree = open(dir.path()).unwrap();
        assert!(tree.get(&key(1)).is_err(), "nothing is known before every key was read");
        let mut meta = tree.check().unwrap();
        assert!((0..1_000).all(|n| found(&tree, n)));
        assert!((1_000..2_000).filter(|n| !tree.runs.holding(&key(*n)).unwrap().is_empty()).count() < 100);
        let mut table = Table::default();
        (10..1_000).for_each(|n| table.remove(key(n)));
        tree.apply(&table, &mut meta).unwrap();
        assert!((0..10).all(|n| found(&tree, n)) && (10..1_000).all(|n| !found(&tree, n)));
        assert_eq!(tree.check().unwrap(), meta);
    }

    #[test]
    fn a_dedup_key_is_never_missed_while_runs_are_taken_into_others() {
        const KEYS: u64 = 3_000;
        let key = |n: u64| dedup::key(&DedupKey::new(DedupScope::Inbound, 1, &n.to_string()));
        let dir = tempfile::tempdir().unwrap();
        let tree = open(dir.path()).unwrap();
        let mut meta = tree.check().unwrap();
        let (applied, asked) = (Arc::new(AtomicU64::new(0)), tree.clone());
        let known = Arc::clone(&applied);
        let asking = std::thread::spawn(move || {
            for n in 0.. {
                let end = known.load(Ordering::Acquire);
                if end > 0 {
                    assert!(asked.get(&key(n % end)).unwrap().is_some(), "{n} of {end}");
                }
                if end == KEYS {
                    break;
                }
            }
        });
        for n in (0..KEYS).step_by(10) {
            let mut table = Table::default();
            (n..n + 10).for_each(|n| table.insert(key(n), b"v".to_vec()));
            tree.apply(&table, &mut meta).unwrap();
            applied.store(n + 10, Ordering::Release);
        }
        asking.join().unwrap();
        assert_eq!(tree.check().unwrap(), meta);
    }

    #[test]
    fn a_dedup_key_that_is_carried_stays_in_its_run() {
        let key = |n: u64| dedup::key(&DedupKey::new(DedupScope::Inbound, 1, &n.to_string()));
        let dir = tempfile::tempdir().unwrap();
        let tree = open(dir.path()).unwrap();
        let mut meta = tree.check().unwrap();
        let table = |value: &[u8]| {
            let mut table = Table::default();
            (0..100).for_each(|n| table.insert(key(n), value.to_vec()));
            table
        };
        tree.apply(&table(b"v"), &mut meta).unwrap();
        let before = tree.keys.blocks_of(&[dedup::FAMILY]).unwrap();
        tree.apply(&table(b"v"), &mut meta).unwrap();
        assert_eq!(tree.keys.blocks_of(&[dedup::FAMILY]).unwrap(), before);
        tree.apply(&table(b"w"), &mut meta).unwrap();
        assert_ne!(tree.keys.blocks_of(&[dedup::FAMILY]).unwrap(), before);
        assert_eq!(tree.get(&key(7)).unwrap().as_deref(), Some(&b"w"[..]));
        assert_eq!(tree.check().unwrap(), meta);
    }

    #[test]
    fn a_tree_of_another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tree = open(dir.path()).unwrap();
        let mut meta = Meta { format: FORMAT - 1, ..tree.check().unwrap() };
        tree.apply(&Table::of(&[(b"ca", Some(b"1"))]), &mut meta).unwrap();
        assert!(matches!(tree.check(), Err(TreeError::Format(old)) if old == FORMAT - 1));
    }

    #[test]
    fn a_key_lost_behind_its_back_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = open(dir.path()).unwrap();
        let mut meta = tree.check().unwrap();
        tree.apply(&Table::of(&[(b"ca", Some(b"1")), (b"cb", Some(b"2"))]), &mut meta).unwrap();
        let Keys::Sled(db) = &tree.keys else { panic!("it was opened on a directory") };
        db.remove(b"ca").unwrap();
        let error = tree.check().unwrap_err();
        assert!(matches!(error, TreeError::Incomplete { family: 'c', found: 1, expected: 2 }), "{error}");
    }

    #[test]
    fn a_walk_misses_nothing_and_repeats_nothing_while_blocks_are_cut_and_joined() {
        const KEYS: u16 = 2_000;
        let key = |n: u16| [&[b'q'][..], &n.to_be_bytes()].concat();
        let dir = tempfile::tempdir().unwrap();
        let tree = open(dir.path()).unwrap();
        let mut meta = tree.check().unwrap();
        // Every tenth key stays; those between come and go.
        let mut all = Table::default();
        (0..KEYS).for_each(|n| all.insert(key(n), vec![0; 17]));
        let mut few = Table::default();
        (0..KEYS).filter(|n| n % 10 != 0).for_each(|n| few.remove(key(n)));
        tree.apply(&all, &mut meta).unwrap();
        let walked = tree.clone();
        let walking = std::thread::spawn(move || {
            for way in [Layered::Up, Layered::Down].repeat(40) {
                let walk = walked.range(Bound::Included(&b"q"[..]), Bound::Excluded(&b"r"[..]), way);
                let mut keys: Vec<_> = walk.map(|entry| entry.unwrap().0.to_vec()).collect();
                if way == Layered::Down {
                    keys.reverse();
                }
                assert!(keys.is_sorted_by(|a, b| a < b));
                let kept = keys.iter().filter(|k| u16::from_be_bytes([k[1], k[2]]) % 10 == 0).count();
                assert_eq!(kept, usize::from(KEYS / 10));
            }
        });
        // sled shows no half of a batch to one look-up; a range takes two, between which one may come.
        let asked = tree.clone();
        let asking = std::thread::spawn(move || {
            for n in (0..KEYS).step_by(10).cycle().take(40_000) {
                let (from, to) = (key(n), key(n + 1));
                let mut walk = asked.range(Bound::Included(&from), Bound::Excluded(&to), Layered::Up);
                assert!(walk.next().transpose().unwrap().is_some(), "{n}");
            }
        });
        while !(walking.is_finished() && asking.is_finished()) {
            tree.apply(&few, &mut meta).unwrap();
            tree.apply(&all, &mut meta).unwrap();
        }
        walking.join().unwrap();
        asking.join().unwrap();
        assert_eq!(tree.check().unwrap(), meta);
    }
}
