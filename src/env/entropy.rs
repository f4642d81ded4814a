//! Randomness, passed in.
//!
//! Secrets and ids want the system's generator; jitter and simulations want one that repeats. Both come through the same
//! trait, so that a failing simulation is replayed by its seed alone.

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

/// The operating system's generator, fit for secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealEntropy;

impl Entropy for RealEntropy {
    /// # Panics
    /// When the system has no random source: no secret made after that could be trusted.
    #[allow(clippy::disallowed_methods, reason = "the one place that asks the machine for randomness")]
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::getrandom(buffer)
            .expect("the operating system must provide randomness; without it no secret is safe");
    }
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
    fn the_system_gives_different_bytes_twice() {
        assert_ne!(RealEntropy.next_u64(), RealEntropy.next_u64());
    }
}
