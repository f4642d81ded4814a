//! When requests of an open loop are planned: arrivals that know nothing of each other, as those of many clients do.

use crate::env::{Entropy as _, SeededEntropy};

/// Times of a Poisson process, in microseconds: the gaps are exponential. The same seed gives the same times.
#[derive(Debug)]
pub struct Schedule {
    entropy: SeededEntropy,
    mean_us: f64,
    at_us: f64,
}

impl Schedule {
    /// Arrivals after `from_us`, `per_s` of them each second on average.
    pub fn new(seed: u64, from_us: u64, per_s: f64) -> Self {
        Self { entropy: SeededEntropy::new(seed), mean_us: 1e6 / per_s, at_us: from_us as f64 }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        // The unit is below 1, so the logarithm is finite.
        self.at_us -= self.mean_us * (1.0 - self.entropy.unit()).ln();
        Some(self.at_us as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential_and_repeat_from_the_seed() {
        const COUNT: usize = 100_000;
        let times: Vec<_> = Schedule::new(7, 5_000, 1_000.0).take(COUNT).collect();
        assert_eq!(times, Schedule::new(7, 5_000, 1_000.0).take(COUNT).collect::<Vec<_>>());
        assert_ne!(times, Schedule::new(8, 5_000, 1_000.0).take(COUNT).collect::<Vec<_>>());
        assert!(times[0] >= 5_000 && times.is_sorted());
        let gaps: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        // Of an exponential distribution both are the mean, and 1 / e of the gaps are longer than it.
        assert!((990.0..1_010.0).contains(&mean), "{mean}");
        assert!((980.0..1_020.0).contains(&deviation), "{deviation}");
        let longer = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((0.36..0.375).contains(&longer), "{longer}");
    }
}
