//! Which dedup keys the tree may hold, answered from memory. Nearly every key that is looked up is new; without this, each
//! would cost a search in sled only to learn that.
//!
//! A [blocked Bloom filter](https://doi.org/10.1145/1498698.1594230): all bits of a key are in one cache line. It grows by
//! layers, each twice the one before. What is removed from the tree stays in the filter, so one that has outgrown the tree
//! is made anew beside the old one.
//!
//! **Invariants**
//! - "No" is always right: a key is put in before the tree holds it, and taken out never.
//! - Memory is bounded; past that the answer is "maybe", as it is until the tree has been read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::dedup;

/// Bits for each key: about one key in a hundred is taken for known.
const BITS_PER_KEY: u64 = 12;

/// Bits set for a key.
const BITS_SET: u32 = 7;

/// Words of a block: a cache line.
const BLOCK_WORDS: usize = 8;

/// Keys of the first layer, 48 KiB.
const FIRST_KEYS: u64 = 1 << 15;

/// Bytes of all layers of a generation, for some 10 million keys; while one is made anew there are two.
const BYTES_MAX: u64 = 16 << 20;

/// Bytes of a dedup key: family, scope, hash.
const KEY_BYTES: usize = 18;

/// The filter. Any number may ask while one adds.
#[derive(Debug, Default)]
pub(super) struct Known {
    generations: RwLock<Generations>,
    /// Held from the first key of a batch until the tree holds it, so that no generation begins in between: it would not be
    /// given the key, nor find it in the tree.
    adding: Mutex<()>,
}

#[derive(Debug, Default)]
struct Generations {
    /// `None` says "maybe" to everything.
    current: Option<Layers>,
    /// Being made to take its place; it gets everything that is added meanwhile.
    next: Option<Layers>,
}

#[derive(Debug)]
struct Layers(Vec<Layer>);

#[derive(Debug)]
struct Layer {
    words: Box<[AtomicU64]>,
    keys: AtomicU64,
    keys_max: u64,
}

impl Known {
    /// Whether the tree may hold this key. Keys of other families always may.
    pub(super) fn may_hold(&self, key: &[u8]) -> bool {
        let Some(hash) = hash_of(key) else { return true };
        self.read().current.as_ref().is_none_or(|layers| layers.has(hash))
    }

    /// What `search` finds of a key, without a search where the tree can't hold it.
    pub(super) fn look_up<V, E>(
        &self,
        key: &[u8],
        search: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<V>, E> {
        if self.may_hold(key) { search() } else { Ok(None) }
    }

    /// To be held around [`add`](Self::add) until the tree holds the keys.
    pub(super) fn adding(&self) -> MutexGuard<'_, ()> {
        self.adding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the tree will hold this key.
    pub(super) fn add(&self, key: &[u8]) {
        let Some(hash) = hash_of(key) else { return };
        let done = {
            let generations = self.read();
            [&generations.current, &generations.next].into_iter().flatten().all(|layers| layers.set(hash))
        };
        if !done {
            let mut generations = self.write();
            add_growing(&mut generations.current, hash);
            add_growing(&mut generations.next, hash);
        }
    }

    /// Begins a new generation for a tree that holds so many dedup keys, if the current one is worth replacing: each of the
    /// tree's keys must be [added](Self::add_to_next) then. False when it is not.
    pub(super) fn begin(&self, keys: u64) -> bool {
        let _none_under_way = self.adding();
        let mut generations = self.write();
        // The number comes from the disk and may be anything.
        let twice = keys.saturating_mul(2).max(FIRST_KEYS);
        let is_stale = generations.current.as_ref().is_none_or(|layers| layers.keys() > twice);
        let begins = is_stale && bytes_for(twice) <= BYTES_MAX;
        // One that was begun and not finished knows only a part of the tree's keys, and is never gone on with.
        generations.next = begins.then(|| Layers(vec![Layer::new(twice)]));
        begins
    }

    /// Adds a key that the tree holds to the new generation.
    pub(super) fn add_to_next(&self, key: &[u8]) {
        let Some(hash) = hash_of(key) else { return };
        let done = self.read().next.as_ref().is_none_or(|layers| layers.set(hash));
        if !done {
            add_growing(&mut self.write().next, hash);
        }
    }

    /// All keys of the tree are in the new generation: it takes the old one's place.
    pub(super) fn finish(&self) {
        let mut generations = self.write();
        if let Some(next) = generations.next.take() {
            generations.current = Some(next);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Generations> {
        self.generations.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Generations> {
        self.generations.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a key, to a further layer where need be; gives the filter up when that would be too large.
fn add_growing(layers: &mut Option<Layers>, hash: u128) {
    if let Some(some) = layers
        && !some.set(hash)
        && !(some.grow() && some.set(hash))
    {
        *layers = None;
    }
}

impl Layers {
    fn has(&self, hash: u128) -> bool {
        self.0.iter().any(|layer| layer.has(hash))
    }

    /// False when there is no room; then nothing was set.
    fn set(&self, hash: u128) -> bool {
        self.0.last().is_some_and(|layer| layer.set(hash))
    }

    /// False when that would be too large.
    fn grow(&mut self) -> bool {
        let keys_max = self.0.last().map_or(FIRST_KEYS, |layer| 2 * layer.keys_max);
        let bytes = self.0.iter().map(|layer| bytes_for(layer.keys_max)).sum::<u64>() + bytes_for(keys_max);
        if bytes <= BYTES_MAX {
            self.0.push(Layer::new(keys_max));
        }
        bytes <= BYTES_MAX
    }

    fn keys(&self) -> u64 {
        self.0.iter().map(|layer| layer.keys.load(Ordering::Relaxed)).sum()
    }
}

impl Layer {
    fn new(keys_max: u64) -> Self {
        let words = bytes_for(keys_max) / 8;
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect(), keys: AtomicU64::new(0), keys_max }
    }

    fn has(&self, hash: u128) -> bool {
        let block = self.block(hash);
        bits_of(hash).all(|(word, bit)| block[word].load(Ordering::Relaxed) & bit != 0)
    }

    fn set(&self, hash: u128) -> bool {
        if self.keys.load(Ordering::Relaxed) >= self.keys_max {
            return false;
        }
        // Who looks a key up that was added by another thread has taken a lock after it did, so no order is needed here.
        let block = self.block(hash);
        for (word, bit) in bits_of(hash) {
            block[word].fetch_or(bit, Ordering::Relaxed);
        }
        self.keys.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// The low half of the hash chooses the block, the high half the bits in it.
    fn block(&self, hash: u128) -> &[AtomicU64] {
        let blocks = self.words.len() / BLOCK_WORDS;
        let at = (u128::from(hash as u64) * blocks as u128) >> 64;
        &self.words[at as usize * BLOCK_WORDS..][..BLOCK_WORDS]
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

/// Whole blocks for so many keys.
fn bytes_for(keys: u64) -> u64 {
    let block_bytes = 8 * BLOCK_WORDS as u64;
    keys.saturating_mul(BITS_PER_KEY).div_ceil(8 * block_bytes).max(1) * block_bytes
}

/// A dedup key is a hash already; scopes are told apart.
fn hash_of(key: &[u8]) -> Option<u128> {
    let (&[dedup::FAMILY, scope], hash) = key.split_first_chunk()? else { return None };
    let hash: [u8; 16] = hash.try_into().ok()?;
    debug_assert_eq!(key.len(), KEY_BYTES);
    Some(u128::from_be_bytes(hash) ^ u128::from(scope).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::{DedupKey, DedupScope};
    use proptest::prelude::*;

    fn key(n: u64) -> Vec<u8> {
        dedup::key(&DedupKey::new(DedupScope::Inbound, 1, &n.to_string()))
    }

    fn ready() -> Known {
        let known = Known::default();
        assert!(known.begin(0));
        known.finish();
        known
    }

    #[test]
    fn until_it_is_filled_everything_may_be_there() {
        let known = Known::default();
        assert!(known.may_hold(&key(1)));
        assert!(known.begin(1));
        known.add_to_next(&key(1));
        assert!(known.may_hold(&key(2)));
        known.finish();
        assert!(known.may_hold(&key(1)) && !known.may_hold(&key(2)));
        assert!(known.may_hold(b"q"), "other families are not its business");
    }

    #[test]
    fn it_grows_without_losing_a_key_and_seldom_takes_one_for_known() {
        let known = ready();
        let count = 5 * FIRST_KEYS;
        (0..count).for_each(|n| known.add(&key(n)));
        assert!((0..count).all(|n| known.may_hold(&key(n))));
        let wrong = (count..2 * count).filter(|n| known.may_hold(&key(*n))).count() as u64;
        assert!(wrong < count / 20, "{wrong} of {count}");
    }

    #[test]
    fn a_generation_that_outgrew_the_tree_is_replaced() {
        let known = ready();
        (0..2 * FIRST_KEYS).for_each(|n| known.add(&key(n)));
        assert!(!known.begin(FIRST_KEYS), "half of them are still there");
        assert!(known.begin(10));
        (0..10).for_each(|n| known.add_to_next(&key(n)));
        known.add(&key(u64::MAX));
        known.finish();
        assert!((0..10).all(|n| known.may_hold(&key(n))) && known.may_hold(&key(u64::MAX)));
        assert!((10..1_000).filter(|n| known.may_hold(&key(*n))).count() < 50);
    }

    #[test]
    fn a_generation_that_was_given_up_is_never_finished() {
        let known = ready();
        (0..3 * FIRST_KEYS).for_each(|n| known.add(&key(n)));
        assert!(known.begin(0));
        assert!(!known.begin(3 * FIRST_KEYS), "the current one is not stale for so many");
        known.finish();
        assert!((0..3 * FIRST_KEYS).all(|n| known.may_hold(&key(n))));
    }

    #[test]
    fn past_its_bytes_it_says_maybe_until_it_fits_again() {
        let known = ready();
        let full = Layer { keys: AtomicU64::new(1 << 26), keys_max: 1 << 26, ..Layer::new(1) };
        known.write().current = Some(Layers(vec![full]));
        known.add(&key(1));
        assert!(known.may_hold(&key(2)));
        assert!(!known.begin(1 << 26));
        assert!(known.begin(1));
        known.finish();
        assert!(!known.may_hold(&key(2)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_added_is_never_denied(hashes: Vec<u128>, scope in 0..3usize) {
            let known = ready();
            let scope = [DedupScope::Inbound, DedupScope::Idempotency, DedupScope::EventId][scope];
            let keys: Vec<_> = hashes.iter().map(|hash| dedup::key(&DedupKey { scope, hash: *hash })).collect();
            for key in &keys {
                known.add(key);
                prop_assert!(known.may_hold(key));
            }
            prop_assert!(keys.iter().all(|key| known.may_hold(key)));
        }
    }
}
