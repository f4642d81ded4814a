//! When to try again: schedules with jitter, and how far a receiver's `Retry-After` is honoured.
//!
//! A schedule is a list of delays, each counted from the *end* of the failed attempt before it. Pure: the random number is
//! passed in.

use std::time::SystemTime;

/// Seconds of the default schedule; after the last one a delivery is a dead letter.
pub const DEFAULT_SCHEDULE_S: [u64; 6] = [60, 300, 900, 3_600, 14_400, 43_200];

/// Seconds of the schedule that the [Standard Webhooks specification](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md)
/// recommends: at once, 5 s, 5 m, 30 m, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h. The first is the first attempt itself.
const STANDARD_WEBHOOKS_S: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// Seconds of Svix's documented schedule (<https://docs.svix.com/retries>): 5 s, 5 m, 30 m, 2 h, 5 h, 10 h, 10 h.
const SVIX_S: [u64; 7] = [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000];

/// The longest that a `Retry-After` can put off a retry: 12 hours, the longest default delay.
pub const RETRY_AFTER_MAX_MS: u64 = 43_200_000;

/// The longest single delay of a schedule: 30 days.
pub const DELAY_MAX_S: u64 = 2_592_000;

/// The most retries of a schedule.
pub const RETRIES_MAX: usize = 100;

/// When failed deliveries are tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    delays_ms: Vec<u64>,
    jitter: f64,
}

/// A schedule that can't be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RetryError {
    /// Jitter outside 0 to 1.
    #[error("expected jitter between 0 and 1, got {0}")]
    Jitter(f64),
    /// Too many retries.
    #[error("expected at most {RETRIES_MAX} retries, got {0}")]
    TooMany(usize),
    /// A delay past the longest.
    #[error("expected delays of at most {DELAY_MAX_S} seconds (30 days), got {0}")]
    TooLong(u64),
    /// A factor below one or not a number.
    #[error("expected a factor between 1 and 100, got {0}")]
    Factor(f64),
    /// A preset nobody knows.
    #[error("expected the preset \"default\", \"standard-webhooks\" or \"svix\", got {0:?}")]
    Preset(String),
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { delays_ms: DEFAULT_SCHEDULE_S.iter().map(|s| s * 1_000).collect(), jitter: 0.1 }
    }
}

impl RetryPolicy {
    /// A schedule of delays in seconds, each lengthened by up to the share `jitter`.
    pub fn list(delays_s: &[u64], jitter: f64) -> Result<Self, RetryError> {
        if !(0.0..=1.0).contains(&jitter) {
            return Err(RetryError::Jitter(jitter));
        }
        if delays_s.len() > RETRIES_MAX {
            return Err(RetryError::TooMany(delays_s.len()));
        }
        if let Some(delay) = delays_s.iter().find(|s| **s > DELAY_MAX_S) {
            return Err(RetryError::TooLong(*delay));
        }
        Ok(Self { delays_ms: delays_s.iter().map(|s| s * 1_000).collect(), jitter })
    }

    /// `retries` delays that start at `base_s` seconds and grow by `factor` up to `cap_s`.
    pub fn exponential(base_s: u64, factor: f64, cap_s: u64, retries: usize, jitter: f64) -> Result<Self, RetryError> {
        if !(1.0..=100.0).contains(&factor) {
            return Err(RetryError::Factor(factor));
        }
        if retries > RETRIES_MAX {
            return Err(RetryError::TooMany(retries));
        }
        let delay = |i: usize| ((base_s as f64) * factor.powi(i as i32)).min(cap_s as f64) as u64;
        Self::list(&(0..retries).map(delay).collect::<Vec<_>>(), jitter)
    }

    /// A schedule by its name.
    pub fn preset(name: &str, jitter: Option<f64>) -> Result<Self, RetryError> {
        let (delays, usual_jitter): (&[u64], f64) = match name {
            "default" => (&DEFAULT_SCHEDULE_S, 0.1),
            "standard-webhooks" => (&STANDARD_WEBHOOKS_S, 0.1),
            "svix" => (&SVIX_S, 0.2),
            other => return Err(RetryError::Preset(other.to_owned())),
        };
        Self::list(delays, jitter.unwrap_or(usual_jitter))
    }

    /// How many retries follow the first attempt.
    pub fn retries(&self) -> usize {
        self.delays_ms.len()
    }

    /// Milliseconds to wait after the `failures`-th failure in a row (1 for the first), or `None` when no retry is left.
    /// `unit` is a random number in `[0, 1)`.
    pub fn delay_ms(&self, failures: u32, unit: f64) -> Option<u64> {
        let base = *self.delays_ms.get(failures.checked_sub(1)? as usize)?;
        Some((base as f64 * (1.0 + self.jitter * unit)) as u64)
    }
}

/// What a `Retry-After` field asks for, in milliseconds after `now_ms` (unix): delta-seconds or an HTTP date
/// ([RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)). Garbage, negative numbers and dates that
/// have passed ask for nothing. Not clamped: that is the policy's part.
pub fn parse_retry_after(value: &[u8], now_ms: u64) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // A number past u64 asks for "very long", which the clamp turns into its limit.
        let seconds = text.parse::<u64>().unwrap_or(u64::MAX);
        return Some(seconds.saturating_mul(1_000));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let at_ms = date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis();
    u64::try_from(at_ms).ok()?.checked_sub(now_ms).filter(|wait| *wait > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_is_the_seed_schedule() {
        let policy = RetryPolicy::default();
        let delays: Vec<_> = (1..=7).map(|n| policy.delay_ms(n, 0.0)).collect();
        let expected = [60, 300, 900, 3_600, 14_400, 43_200].map(|s: u64| Some(s * 1_000));
        assert_eq!(delays[..6], expected);
        assert_eq!(delays[6], None);
        assert_eq!(policy.delay_ms(0, 0.0), None);
    }

    #[test]
    fn exponential_grows_to_its_cap() {
        let policy = RetryPolicy::exponential(10, 2.0, 60, 5, 0.0).unwrap();
        let delays: Vec<_> = (1..=6).map(|n| policy.delay_ms(n, 0.9)).collect();
        assert_eq!(delays, [Some(10_000), Some(20_000), Some(40_000), Some(60_000), Some(60_000), None]);
        assert!(RetryPolicy::exponential(10, f64::NAN, 60, 5, 0.0).is_err());
    }

    #[test]
    fn retry_after_of_every_kind() {
        let now_ms = 1_445_412_480_000; // Wed, 21 Oct 2015 07:28:00 GMT
        assert_eq!(parse_retry_after(b"120", now_ms), Some(120_000));
        assert_eq!(parse_retry_after(b"0", now_ms), Some(0));
        assert_eq!(parse_retry_after(b"Wed, 21 Oct 2015 07:28:30 GMT", now_ms), Some(30_000));
        assert_eq!(parse_retry_after(b"Wed, 21 Oct 2015 07:27:30 GMT", now_ms), None);
        assert_eq!(parse_retry_after(b"99999999999999999999999", now_ms), Some(u64::MAX));
        for garbage in [&b"-5"[..], b"+5", b"1.5", b"", b"soon", b"\xff\xff", b"0x10"] {
            assert_eq!(parse_retry_after(garbage, now_ms), None, "{garbage:?}");
        }
    }

    #[test]
    fn bad_schedules_are_refused() {
        assert!(RetryPolicy::list(&[1], -0.1).is_err());
        assert!(RetryPolicy::list(&[1], f64::NAN).is_err());
        assert!(RetryPolicy::list(&[DELAY_MAX_S + 1], 0.1).is_err());
        assert!(RetryPolicy::list(&[1; RETRIES_MAX + 1], 0.1).is_err());
        assert!(RetryPolicy::preset("unknown", None).is_err());
    }

    proptest! {
        #[test]
        fn jitter_only_lengthens_and_stays_in_its_share(failures in 1u32..=6, unit in 0.0f64..1.0, jitter in 0.0f64..=1.0) {
            let policy = RetryPolicy::list(&DEFAULT_SCHEDULE_S, jitter).unwrap();
            let base = DEFAULT_SCHEDULE_S[failures as usize - 1] * 1_000;
            let delay = policy.delay_ms(failures, unit).unwrap();
            prop_assert!(delay >= base && delay as f64 <= base as f64 * (1.0 + jitter));
        }

        #[test]
        fn any_retry_after_is_read_without_panic(value: Vec<u8>, now_ms: u64) {
            let _ = parse_retry_after(&value, now_ms);
        }
    }
}
