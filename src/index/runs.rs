//! Runs of dedup keys: where one goes, and which may hold one, answered from memory.
//!
//! Dedup keys are hashes: in the order of hashes no two that are written together are neighbours. So they are kept by time
//! first: a table's keys become a *run*, in the order of hashes within it, and share blocks like any other entries. A new run
//! takes in the last ones while they are at most twice as large, so that each is over twice the next one, and there are few.
//! A key is searched for only in runs whose filter knows it: nearly every key that is looked up is new, and in none.
//!
//! A filter is a [blocked Bloom filter](https://doi.org/10.1145/1498698.1594230): all bits of a key are in one cache line.
//!
//! **Invariants**
//! - "No" is always right: a run is listed before the tree holds it, and until the tree does not.
//! - A key is in one run at most.
//! - Memory is bounded; past that runs have no filter, and are searched.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::dedup;
use super::tree::TreeError;

/// Keys past which a run is not taken into another: its blocks would be written again too often, in too large a batch.
const RUN_KEYS: u64 = 1 << 18;

/// Bits for each key: about one key in a hundred is taken for known.
const BITS_PER_KEY: u64 = 12;

/// Bits set for a key.
const BITS_SET: u32 = 7;

/// Words of a filter's block: a cache line.
const BLOCK_WORDS: usize = 8;

/// Bytes of all filters, for some 40 million keys.
const BYTES_MAX: usize = 64 << 20;

/// The runs of a tree. Any number may ask while one changes them.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// From the oldest to the newest. `None` until the tree has been read.
    list: RwLock<Option<Vec<Run>>>,
}

#[derive(Debug)]
struct Run {
    number: u32,
    /// How many there are, less those that have gone.
    keys: u64,
    filter: Option<Filter>,
}

/// What a batch does to the runs.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    /// Runs whose keys are in the new one.
    pub(super) absorbed: Vec<u32>,
    /// Of other runs, how many keys have gone.
    pub(super) gone: BTreeMap<u32, u64>,
}

impl Runs {
    /// The run that holds a key, and what `search` finds there of its entry.
    pub(super) fn look_up<V>(
        &self,
        key: &[u8],
        mut search: impl FnMut(&[u8]) -> Result<Option<V>, TreeError>,
    ) -> Result<Option<(u32, V)>, TreeError> {
        for run in self.holding(key)? {
            if let Some(found) = search(&dedup::stored_key(run, key))? {
                return Ok(Some((run, found)));
            }
        }
        Ok(None)
    }

    /// The runs that may hold a key, the newest first.
    pub(super) fn holding(&self, key: &[u8]) -> Result<Vec<u32>, TreeError> {
        let hash = hash_of(&key[1..]);
        let list = self.read();
        let runs = list.as_ref().ok_or(TreeError::Foreign("dedup keys that were not read"))?;
        let may = |run: &&Run| match (&run.filter, hash) {
            (Some(filter), Some(hash)) => filter.has(hash),
            _ => true,
        };
        Ok(runs.iter().rev().filter(may).map(|run| run.number).collect())
    }

    /// The number of a new run of so many keys, and the runs that it takes in.
    pub(super) fn next(&self, keys: u64) -> Result<(u32, Vec<u32>), TreeError> {
        let list = self.read();
        let runs = list.as_deref().unwrap_or_default();
        let number = match runs.last() {
            Some(last) => last.number.checked_add(1).ok_or(TreeError::Foreign("a run with the last number of all"))?,
            None => 0,
        };
        let mut sum = keys;
        let small = runs.iter().rev().take_while(|run| {
            let takes = run.keys <= 2 * sum && sum + run.keys <= RUN_KEYS;
            sum += run.keys;
            takes
        });
        Ok((number, small.map(|run| run.number).collect()))
    }

    /// Says that the tree will hold a new run.
    pub(super) fn announce(&self, learning: Learning) {
        if let Some(runs) = &mut *self.write() {
            runs.extend(learning.done());
            bound(runs);
        }
    }

    /// A batch is in the tree.
    pub(super) fn turn_over(&self, turnover: &Turnover) {
        if let Some(runs) = &mut *self.write() {
            for run in runs.iter_mut() {
                run.keys = run.keys.saturating_sub(turnover.gone.get(&run.number).copied().unwrap_or(0));
            }
            runs.retain(|run| run.keys > 0 && !turnover.absorbed.contains(&run.number));
        }
    }

    /// Takes what reading the tree has found.
    pub(super) fn learnt(&self, learning: Learning) {
        let mut runs = learning.done();
        bound(&mut runs);
        *self.write() = Some(runs);
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Vec<Run>>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Vec<Run>>> {
        self.list.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs that are being read, in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Learning {
    runs: Vec<Run>,
    number: u32,
    hashes: Vec<Option<u128>>,
}

impl Learning {
    /// Takes the next key of the tree, if it is a dedup key.
    pub(super) fn take(&mut self, stored: &[u8]) {
        let Some((number, tail)) = dedup::split_stored(stored) else { return };
        if number != self.number {
            self.end_run();
            self.number = number;
        }
        self.hashes.push(hash_of(tail));
    }

    fn end_run(&mut self) {
        if !self.hashes.is_empty() {
            let keys = self.hashes.len() as u64;
            let hashes: Option<Vec<u128>> = self.hashes.drain(..).collect();
            let filter = hashes.map(|hashes| Filter::of(&hashes));
            self.runs.push(Run { number: self.number, keys, filter });
        }
    }

    fn done(mut self) -> Vec<Run> {
        self.end_run();
        self.runs
    }
}

/// Takes the filters of the newest runs away where all have more memory than they may.
fn bound(runs: &mut [Run]) {
    let mut bytes = 0;
    for run in runs {
        bytes += run.filter.as_ref().map_or(0, Filter::bytes);
        run.filter.take_if(|_| bytes > BYTES_MAX);
    }
}

/// What a run may hold.
#[derive(Debug)]
struct Filter {
    words: Box<[u64]>,
}

impl Filter {
    fn of(hashes: &[u128]) -> Self {
        let mut filter = Self { words: vec![0; Self::bytes_for(hashes.len()) / 8].into() };
        for hash in hashes {
            let at = filter.block_at(*hash);
            for (word, bit) in bits_of(*hash) {
                filter.words[at + word] |= bit;
            }
        }
        filter
    }

    fn has(&self, hash: u128) -> bool {
        let at = self.block_at(hash);
        bits_of(hash).all(|(word, bit)| self.words[at + word] & bit != 0)
    }

    /// The low half of the hash chooses the block, the high half the bits in it.
    fn block_at(&self, hash: u128) -> usize {
        let blocks = self.words.len() / BLOCK_WORDS;
        ((u128::from(hash as u64) * blocks as u128) >> 64) as usize * BLOCK_WORDS
    }

    fn bytes(&self) -> usize {
        8 * self.words.len()
    }

    /// Whole blocks for so many keys.
    fn bytes_for(keys: usize) -> usize {
        let block_bytes = 8 * BLOCK_WORDS;
        (keys * BITS_PER_KEY as usize).div_ceil(8 * block_bytes).max(1) * block_bytes
    }
}

/// Words in the block, and the bit in each.
fn bits_of(hash: u128) -> impl Iterator<Item = (usize, u64)> {
    let high = (hash >> 64) as u64;
    (0..BITS_SET).map(move |n| {
        let at = (high >> (9 * n)) & 511;
        ((at / 64) as usize, 1 << (at % 64))
    })
}

/// Of a dedup key's scope and hash. The hash needs no other; scopes are told apart. `None` for what is neither.
fn hash_of(tail: &[u8]) -> Option<u128> {
    let (scope, hash) = tail.split_first()?;
    let (scope, hash) = (*scope, hash.try_into().ok()?);
    Some(u128::from_be_bytes(hash) ^ u128::from(scope).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(hash: u128) -> Vec<u8> {
        [&[dedup::FAMILY, 0][..], &hash.to_be_bytes()].concat()
    }

    /// Some hash for each number.
    fn spread(n: u64) -> u128 {
        let part = |n: u64| u128::from((n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n << 7));
        (part(n.wrapping_mul(0xbf58_476d_1ce4_e5b9)) << 64) | part(n.wrapping_mul(0x94d0_49bb_1331_11eb) ^ 77)
    }

    fn read() -> Runs {
        let runs = Runs::default();
        runs.learnt(Learning::default());
        runs
    }

    /// Adds a run of these keys as a batch does; how many runs there are then.
    fn add(runs: &Runs, hashes: impl Iterator<Item = u128> + Clone, held: &mut BTreeMap<u32, Vec<u128>>) -> usize {
        let (number, absorbed) = runs.next(hashes.clone().count() as u64).unwrap();
        let taken_in = absorbed.iter().flat_map(|run| held.remove(run).unwrap());
        let mut all: Vec<_> = hashes.chain(taken_in).collect();
        all.sort_unstable();
        let mut learning = Learning::default();
        all.iter().for_each(|hash| learning.take(&dedup::stored_key(number, &key(*hash))));
        held.insert(number, all);
        runs.announce(learning);
        runs.turn_over(&Turnover { absorbed, gone: BTreeMap::new() });
        runs.read().as_ref().unwrap().len()
    }

    #[test]
    fn before_the_tree_was_read_nothing_is_denied() {
        assert!(Runs::default().holding(&key(1)).is_err());
        assert!(read().holding(&key(1)).unwrap().is_empty());
    }

    #[test]
    fn runs_stay_few_and_seldom_take_a_key_for_known() {
        let (runs, mut held, mut most) = (read(), BTreeMap::new(), 0);
        for table in 0..2_000 {
            most = most.max(add(&runs, (10 * table..10 * table + 10).map(spread), &mut held));
        }
        assert!(most <= 12, "{most} runs of 20,000 keys");
        assert!((0..20_000).all(|n| !runs.holding(&key(spread(n))).unwrap().is_empty()));
        let wrong = (20_000..40_000).filter(|n| !runs.holding(&key(spread(*n))).unwrap().is_empty()).count();
        assert!(wrong < 20_000 / 10, "{wrong}");
        let searched: usize = (0..20_000).map(|n| runs.holding(&key(spread(n))).unwrap().len()).sum();
        assert!(searched < 22_000, "{searched}");
    }

    #[test]
    fn a_run_that_is_large_or_larger_than_the_next_is_left_alone() {
        let (runs, mut held) = (read(), BTreeMap::new());
        assert_eq!(add(&runs, (0..RUN_KEYS).map(spread), &mut held), 1);
        assert_eq!(add(&runs, (0..RUN_KEYS).map(|n| spread(n + RUN_KEYS)), &mut held), 2, "both are large");
        let many = 2 * RUN_KEYS;
        assert_eq!(add(&runs, (0..20).map(|n| spread(n + many)), &mut held), 3);
        assert_eq!(add(&runs, (20..29).map(|n| spread(n + many)), &mut held), 4, "over twice as many");
        assert_eq!(add(&runs, (29..31).map(|n| spread(n + many)), &mut held), 5);
        assert_eq!(add(&runs, (31..40).map(|n| spread(n + many)), &mut held), 3, "all that are small");
    }

    #[test]
    fn a_run_ends_with_its_last_key() {
        let (runs, mut held) = (read(), BTreeMap::new());
        add(&runs, [1, 2].into_iter(), &mut held);
        let gone = |keys| Turnover { absorbed: Vec::new(), gone: BTreeMap::from([(0, keys)]) };
        runs.turn_over(&gone(1));
        assert_eq!(runs.holding(&key(2)).unwrap(), [0]);
        runs.turn_over(&gone(1));
        assert!(runs.holding(&key(2)).unwrap().is_empty());
        assert_eq!(add(&runs, [3].into_iter(), &mut held), 1);
    }

    #[test]
    fn past_their_bytes_runs_are_searched() {
        let runs = read();
        let large = || Some(Filter { words: vec![0; BYTES_MAX / 8 / 2 + 8].into() });
        let mut list: Vec<_> = (0..2).map(|number| Run { number, keys: RUN_KEYS, filter: large() }).collect();
        bound(&mut list);
        *runs.write() = Some(list);
        assert_eq!(runs.holding(&key(1)).unwrap(), [1], "the first one's filter says no");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_a_run_holds_is_never_denied(tables in prop::collection::vec(prop::collection::btree_set(any::<u128>(), 1..50), 1..20)) {
            let (runs, mut held) = (read(), BTreeMap::new());
            for table in &tables {
                add(&runs, table.iter().copied(), &mut held);
                for (run, hashes) in &held {
                    for hash in hashes {
                        prop_assert!(runs.holding(&key(*hash)).unwrap().contains(run));
                    }
                }
            }
        }
    }
}
