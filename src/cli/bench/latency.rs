//! How long things took: a histogram that many tasks record into, and what is told of it.

use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time that is told apart, in microseconds: an hour, as long as a run may last.
const US_MAX: u64 = 3_600_000_000;

/// Decimal digits that a figure is right to. With [`US_MAX`] a histogram takes about 190 KB, however much it counts.
const DIGITS: u8 = 3;

/// A histogram of microseconds.
#[derive(Debug)]
pub struct Latency(Mutex<Histogram<u64>>);

/// What is told of a histogram, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Half of all took this at most.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// All of them.
    pub max: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self(Mutex::new(
            Histogram::new_with_max(US_MAX, DIGITS).expect("a maximum of an hour and 3 digits are allowed"),
        ))
    }
}

impl Latency {
    /// Counts one that took `us`; longer than an hour counts as an hour.
    pub fn record(&self, us: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(us);
    }

    /// What was counted; `None` if nothing was.
    pub fn quantiles(&self) -> Option<Quantiles> {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| histogram.value_at_quantile(quantile);
        (!histogram.is_empty()).then(|| Quantiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let latency = Latency::default();
        assert_eq!(latency.quantiles(), None);
        (1..=100_000).for_each(|us| latency.record(us));
        let told = latency.quantiles().unwrap();
        let near = |told: u64, true_us: u64| told.abs_diff(true_us) * 1_000 <= true_us;
        assert!(near(told.p50, 50_000) && near(told.p90, 90_000), "{told:?}");
        assert!(near(told.p99, 99_000) && near(told.p999, 99_900) && near(told.max, 100_000), "{told:?}");
    }

    #[test]
    fn what_takes_longer_than_an_hour_is_still_counted() {
        let latency = Latency::default();
        latency.record(u64::MAX);
        let told = latency.quantiles().unwrap();
        assert!(told.max >= US_MAX && told.p50 >= US_MAX, "{told:?}");
    }
}
