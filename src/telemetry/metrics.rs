//! Counters that cost one atomic addition, and their rendering in the
//! [Prometheus text format](https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format).

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// Upper bounds of the histogram of attempt durations, in milliseconds.
const DURATION_BOUNDS_MS: [u64; 12] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000];

/// A counter with one label whose values are known words, never text from outside: so the number of series is bounded.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    series: RwLock<Vec<(&'static str, AtomicU64)>>,
}

impl Counter {
    const fn new(name: &'static str, help: &'static str, label: &'static str) -> Self {
        Self { name, help, label, series: RwLock::new(Vec::new()) }
    }

    /// Adds one to the series of this label value.
    pub fn inc(&self, value: &'static str) {
        {
            let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, count)) = series.iter().find(|(have, _)| *have == value) {
                count.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        match series.iter().find(|(have, _)| *have == value) {
            Some((_, count)) => {
                count.fetch_add(1, Ordering::Relaxed);
            }
            None => series.push((value, AtomicU64::new(1))),
        }
    }

    /// The count of one series.
    pub fn get(&self, value: &str) -> u64 {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        series.iter().find(|(have, _)| *have == value).map_or(0, |(_, count)| count.load(Ordering::Relaxed))
    }

    fn render(&self, out: &mut String) {
        header(out, self.name, self.help, "counter");
        for (value, count) in self.series.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(out, "{}{{{}=\"{value}\"}} {}", self.name, self.label, count.load(Ordering::Relaxed));
        }
    }
}

/// A figure read at the moment of rendering.
#[derive(Debug, Clone, Copy)]
pub struct Gauge {
    /// The metric's name.
    pub name: &'static str,
    /// What it says, with its unit.
    pub help: &'static str,
    /// `gauge`, or `counter` for a figure that only grows.
    pub kind: &'static str,
    /// The figure.
    pub value: f64,
}

/// Everything that is counted as it happens.
#[derive(Debug)]
pub struct Metrics {
    /// Events stored, by the way they came: `inbound` or `published`.
    pub accepted: Counter,
    /// Events recognised as stored before, by the way they came.
    pub duplicates: Counter,
    /// Duplicates whose body differed from the first one's, by the way they came.
    pub duplicate_other_body: Counter,
    /// Requests refused, by reason.
    pub refused: Counter,
    /// Attempts, by outcome: `delivered`, `retry`, `dead`, `stale`.
    pub attempts: Counter,
    /// Failed attempts, by what failed: a status class such as `5xx`, or a kind such as `timeout`.
    pub failures: Counter,
    duration_buckets: [AtomicU64; DURATION_BOUNDS_MS.len()],
    duration_sum_us: AtomicU64,
    duration_count: AtomicU64,
    /// Attempts in flight now.
    pub in_flight: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            accepted: Counter::new("postrider_events_accepted_total", "Events stored.", "via"),
            duplicates: Counter::new("postrider_events_duplicate_total", "Events recognised as stored before.", "via"),
            duplicate_other_body: Counter::new(
                "postrider_events_duplicate_other_body_total",
                "Duplicates whose body differed from that of the first event under the key.",
                "via",
            ),
            refused: Counter::new("postrider_requests_refused_total", "Requests refused.", "reason"),
            attempts: Counter::new("postrider_attempts_total", "Delivery attempts.", "outcome"),
            failures: Counter::new("postrider_attempt_failures_total", "Failed delivery attempts.", "cause"),
            duration_buckets: Default::default(),
            duration_sum_us: AtomicU64::new(0),
            duration_count: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Counts the duration of an attempt in the histogram.
    pub fn attempt_took(&self, micros: u64) {
        let bucket = DURATION_BOUNDS_MS.iter().position(|bound_ms| micros <= bound_ms * 1_000);
        if let Some(bucket) = bucket {
            self.duration_buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.duration_sum_us.fetch_add(micros, Ordering::Relaxed);
        self.duration_count.fetch_add(1, Ordering::Relaxed);
    }

    /// The page for a scraper: what was counted, then the given gauges.
    pub fn render(&self, gauges: &[Gauge]) -> String {
        let mut out = String::with_capacity(4_096);
        for counter in [
            &self.accepted,
            &self.duplicates,
            &self.duplicate_other_body,
            &self.refused,
            &self.attempts,
            &self.failures,
        ] {
            counter.render(&mut out);
        }
        self.render_durations(&mut out);
        header(&mut out, "postrider_attempts_in_flight", "Delivery attempts in flight.", "gauge");
        let _ = writeln!(out, "postrider_attempts_in_flight {}", self.in_flight.load(Ordering::Relaxed));
        for gauge in gauges {
            header(&mut out, gauge.name, gauge.help, gauge.kind);
            let _ = writeln!(out, "{} {}", gauge.name, gauge.value);
        }
        out
    }

    fn render_durations(&self, out: &mut String) {
        const NAME: &str = "postrider_attempt_duration_seconds";
        header(out, NAME, "Duration of delivery attempts in seconds.", "histogram");
        let mut below = 0;
        for (bound_ms, bucket) in DURATION_BOUNDS_MS.iter().zip(&self.duration_buckets) {
            below += bucket.load(Ordering::Relaxed);
            let _ = writeln!(out, "{NAME}_bucket{{le=\"{}\"}} {below}", *bound_ms as f64 / 1_000.0);
        }
        let count = self.duration_count.load(Ordering::Relaxed);
        let sum_s = self.duration_sum_us.load(Ordering::Relaxed) as f64 / 1_000_000.0;
        let _ = writeln!(out, "{NAME}_bucket{{le=\"+Inf\"}} {count}\n{NAME}_sum {sum_s}\n{NAME}_count {count}");
    }
}

fn header(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_series_histogram_and_gauges() {
        let metrics = Metrics::default();
        metrics.accepted.inc("inbound");
        metrics.accepted.inc("inbound");
        metrics.attempt_took(7_000);
        metrics.attempt_took(31_000_000);
        let gauge = Gauge { name: "postrider_pending", help: "Pending.", kind: "gauge", value: 3.0 };
        let page = metrics.render(&[gauge]);
        assert!(page.contains("postrider_events_accepted_total{via=\"inbound\"} 2\n"));
        assert!(page.contains("postrider_attempt_duration_seconds_bucket{le=\"0.005\"} 0\n"));
        assert!(page.contains("postrider_attempt_duration_seconds_bucket{le=\"0.01\"} 1\n"));
        assert!(page.contains("postrider_attempt_duration_seconds_bucket{le=\"+Inf\"} 2\n"));
        assert!(page.contains("postrider_pending 3\n"));
    }
}
