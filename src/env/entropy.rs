//! Randomness, passed in.
//!
//! Secrets and ids want the system's generator; jitter and simulations want one that repeats. Both come through the same
//! trait, so that a failing simulation is replayed by its seed alone.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the whole buffer.
    fn fill(&self, buffer: &mut [u8]);

    /// A number in `[0, 1)`, uniform over the 2⁵³ values that a double holds evenly there.
    fn unit(&self) -> f64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        // 53 bits is the precision of a double; more would round some values up to 1.
        (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A uniform 64-bit number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Longest request, in bytes, that is met from what was fetched in advance: ids and jitter, of which every event wants some.
/// Secrets are longer and always fresh.
const SMALL_BYTES_MAX: usize = 16;

/// Bytes fetched in advance by each thread: a system call for some dozen events instead of several for each.
const POOL_BYTES: usize = 512;

/// The operating system's generator, fit for secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealEntropy;

/// Random bytes that were not given out yet, at the end.
struct Pool {
    bytes: [u8; POOL_BYTES],
    used: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL_BYTES], used: POOL_BYTES }) };
}

impl Pool {
    fn take(&mut self, buffer: &mut [u8]) {
        if self.used + buffer.len() > POOL_BYTES {
            ask_the_system(&mut self.bytes);
            self.used = 0;
        }
        buffer.copy_from_slice(&self.bytes[self.used..][..buffer.len()]);
        self.used += buffer.len();
    }
}

impl Entropy for RealEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        if buffer.len() <= SMALL_BYTES_MAX {
            POOL.with_borrow_mut(|pool| pool.take(buffer));
        } else {
            ask_the_system(buffer);
        }
    }
}

/// # Panics
/// When the system has no random source: no secret made after that could be trusted.
#[allow(clippy::disallowed_methods, reason = "the one place that asks the machine for randomness")]
fn ask_the_system(buffer: &mut [u8]) {
    getrandom::getrandom(buffer).expect("the operating system must provide randomness; without it no secret is safe");
}

/// A generator that repeats from its seed (splitmix64). Not fit for secrets.
#[derive(Debug)]
pub struct SeededEntropy {
    state: AtomicU64,
}

impl SeededEntropy {
    /// The same seed gives the same bytes.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// One step of splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
    fn step(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let before = self.state.fetch_add(GAMMA, Ordering::SeqCst);
        let mut z = before.wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.step().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn splitmix64_matches_its_published_first_values() {
        // Reference values for seed 1234567, as the algorithm's test vectors are commonly quoted.
        let entropy = SeededEntropy::new(1_234_567);
        assert_eq!(entropy.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(entropy.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn unit_stays_below_one() {
        let entropy = SeededEntropy::new(7);
        assert!((0..10_000).all(|_| (0.0..1.0).contains(&entropy.unit())));
    }

    #[test]
    fn the_system_gives_different_bytes_each_time() {
        // More than a pool holds, so that it is refilled on the way.
        let small: HashSet<u64> = (0..POOL_BYTES).map(|_| RealEntropy.next_u64()).collect();
        assert_eq!(small.len(), POOL_BYTES);
        let (mut first, mut second) = ([0; 32], [0; 32]);
        RealEntropy.fill(&mut first);
        RealEntropy.fill(&mut second);
        assert_ne!(first, second);
        RealEntropy.fill(&mut []);
    }
}
