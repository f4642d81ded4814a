//! The time a provider says it sent a request: where it is, how it is written, and whether it is near enough.
//!
//! Invariants: only the exact spelling is a time (`+5`, ` 5`, `-5` and 10^30 are not), because the text is signed as
//! received and two readings of it would be two messages. Both ends of the tolerance are inside it, as in the SDKs
//! of Stripe and Standard Webhooks. Arithmetic is in `i128` milliseconds, where nothing overflows.

use super::json::{Path, lookup};
use super::reject::Reject;
use super::scheme::Request;
use std::borrow::Cow;

/// Where and how a scheme tells the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampAt {
    /// Where it is.
    pub from: TimestampFrom,
    /// How it is written.
    pub format: TimestampFormat,
    /// How far it may be from the verifier's clock, in seconds. `None` does not judge it, but still requires it.
    pub tolerance_s: Option<u64>,
    /// Whether the tolerance also bounds times ahead of the verifier's clock.
    pub future: Future,
}

/// Where a timestamp is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimestampFrom {
    /// In a header of its own.
    Header(String),
    /// In an element of the signature header's list. When it is there several times the first counts
    /// (stripe-python does so; stripe-node takes the last).
    SigField(String),
    /// In the JSON body.
    Body(Path),
}

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampFormat {
    /// Seconds since 1970-01-01T00:00:00Z, digits only.
    UnixSeconds,
    /// Milliseconds since 1970-01-01T00:00:00Z, digits only.
    UnixMillis,
    /// RFC 3339, such as `2026-01-01T00:00:17.123Z` or with an offset such as `+02:00`.
    Iso8601,
}

/// What to do with a time ahead of the verifier's clock by more than the tolerance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Future {
    /// Accept it, as Stripe's SDKs do: a replay can't be ahead of the first sending.
    Accept,
    /// Reject it.
    #[default]
    Reject,
}

impl TimestampAt {
    /// The timestamp's text. `sig_field` is what the signature header's list holds under the name of
    /// [`TimestampFrom::SigField`].
    pub(super) fn text<'a>(&self, req: &Request<'a>, sig_field: Option<&'a [u8]>) -> Result<Cow<'a, [u8]>, Reject> {
        let missing = || Reject::TimestampMissing { name: self.place() };
        match &self.from {
            TimestampFrom::SigField(_) => sig_field.map(Cow::Borrowed).ok_or_else(missing),
            TimestampFrom::Header(name) => {
                let value = req.headers.one(name).map_err(|how_many| Reject::timestamp(name, how_many))?;
                Ok(Cow::Borrowed(value))
            }
            TimestampFrom::Body(path) => {
                let value = lookup(req.body, &[path]).pop().flatten();
                value.map(|text| Cow::Owned(text.into_bytes())).ok_or_else(missing)
            }
        }
    }

    /// Judges the timestamp `text` against the clock `now_s`.
    pub(super) fn check(&self, text: &[u8], now_s: i64, tolerance_s: Option<u64>) -> Result<(), Reject> {
        let malformed = || Reject::TimestampMalformed { name: self.place(), expected: self.format.expected() };
        let sent_ms = self.format.parse_ms(text).ok_or_else(malformed)?;
        let Some(tolerance_s) = tolerance_s.or(self.tolerance_s) else {
            return Ok(());
        };
        let age_ms = i128::from(now_s) * 1000 - sent_ms;
        let tolerance_ms = i128::from(tolerance_s) * 1000;
        if age_ms > tolerance_ms {
            return Err(Reject::TimestampTooOld { age_s: age_ms / 1000, tolerance_s });
        }
        if -age_ms > tolerance_ms && self.future == Future::Reject {
            return Err(Reject::TimestampTooNew { ahead_s: -age_ms / 1000, tolerance_s });
        }
        Ok(())
    }

    /// The place in words an operator can look up.
    fn place(&self) -> String {
        match &self.from {
            TimestampFrom::Header(name) => name.clone(),
            TimestampFrom::SigField(name) => format!("{name} (in the signature header)"),
            TimestampFrom::Body(path) => format!("{path} (in the JSON body)"),
        }
    }
}

impl TimestampFormat {
    /// Milliseconds since the Unix epoch; `None` when the text is not of this format.
    pub(super) fn parse_ms(self, text: &[u8]) -> Option<i128> {
        match self {
            Self::UnixSeconds => digits(text).map(|s| i128::from(s) * 1000),
            Self::UnixMillis => digits(text).map(i128::from),
            Self::Iso8601 => parse_rfc3339(text),
        }
    }

    /// Writes `now_s`; `None` for what the format can't hold: times before 1970, or after the year 9999.
    pub(super) fn write(self, now_s: i64) -> Option<String> {
        let unix_s = u64::try_from(now_s).ok()?;
        match self {
            Self::UnixSeconds => Some(unix_s.to_string()),
            Self::UnixMillis => {
                unix_s.checked_mul(1000).filter(|ms| i64::try_from(*ms).is_ok()).map(|ms| ms.to_string())
            }
            Self::Iso8601 => write_rfc3339(now_s),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::UnixSeconds => "whole seconds since 1970 in decimal digits",
            Self::UnixMillis => "whole milliseconds since 1970 in decimal digits",
            Self::Iso8601 => "a time such as 2026-01-01T00:00:17Z",
        }
    }
}

/// A number of 1 to 19 decimal digits that fits `i64`.
fn digits(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    text.iter().try_fold(0i64, |sum, digit| sum.checked_mul(10)?.checked_add(i64::from(digit - b'0')))
}

/// A number of exactly `width` digits at `at`.
fn field(text: &[u8], at: usize, width: usize) -> Option<i64> {
    digits(text.get(at..at + width)?)
}

/// Reads `YYYY-MM-DDTHH:MM:SS[.fraction](Z|±HH:MM)` (RFC 3339 §5.6, upper case). Fractions past milliseconds are cut.
fn parse_rfc3339(text: &[u8]) -> Option<i128> {
    let punctuation = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if text.len() > 40 || punctuation.iter().any(|&(at, mark)| text.get(at) != Some(&mark)) {
        return None;
    }
    let (year, month, day) = (field(text, 0, 4)?, field(text, 5, 2)?, field(text, 8, 2)?);
    let (hour, minute, second) = (field(text, 11, 2)?, field(text, 14, 2)?, field(text, 17, 2)?);
    // A leap second is written as :60 (RFC 3339 §5.7) and counts as the first second of the next minute.
    if !(1..=12).contains(&month)
        || !(1..=days_in_month(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let (fraction_ms, zone) = fraction(&text[19..])?;
    let local_s = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(i128::from(local_s - offset_s(zone)?) * 1000 + i128::from(fraction_ms))
}

/// Splits `.123456Z` into milliseconds and the zone.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(after) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let width = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let leading = digits(&after[..width.min(3)])?;
    Some((leading * [100, 10, 1][width.min(3) - 1], &after[width..]))
}

/// Seconds that a zone is ahead of UTC.
fn offset_s(zone: &[u8]) -> Option<i64> {
    let sign = match zone {
        b"Z" => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let (hours, minutes) = (field(zone, 1, 2)?, field(zone, 4, 2)?);
    (zone.len() == 6 && zone[3] == b':' && hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar, by Howard Hinnant's `days_from_civil`
/// (howardhinnant.github.io/date_algorithms.html); years here are 0 to 9999.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Writes whole seconds as `YYYY-MM-DDTHH:MM:SSZ`, by Hinnant's `civil_from_days`.
fn write_rfc3339(unix_s: i64) -> Option<String> {
    let shifted = unix_s.div_euclid(86_400) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let second = unix_s.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    (year <= 9999).then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn iso(text: &str) -> Option<i128> {
        TimestampFormat::Iso8601.parse_ms(text.as_bytes())
    }

    #[test]
    fn unix_times_are_digits_only() {
        let parse = |text: &str| TimestampFormat::UnixSeconds.parse_ms(text.as_bytes());
        assert_eq!(parse("1767225617"), Some(1_767_225_617_000));
        assert_eq!(parse("0"), Some(0));
        let huge = format!("1{}", "0".repeat(30));
        for text in ["", "-5", "+5", " 5", "5 ", "5.0", "1e9", "0x5", "٥", "9223372036854775808", &huge] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(TimestampFormat::UnixMillis.parse_ms(b"1767225617123"), Some(1_767_225_617_123));
    }

    #[test]
    fn iso_times_with_fractions_and_offsets() {
        assert_eq!(iso("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(iso("2026-01-01T00:00:17Z"), Some(1_767_225_617_000));
        assert_eq!(iso("2026-01-01T02:00:17.5+02:00"), Some(1_767_225_617_500));
        assert_eq!(iso("2025-12-31T19:00:17.123456789-05:00"), Some(1_767_225_617_123));
        assert_eq!(iso("2024-02-29T00:00:00Z"), Some(1_709_164_800_000));
        assert_eq!(iso("2016-12-31T23:59:60Z"), iso("2017-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_not_a_time_is_none() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:17",
            "2026-01-01t00:00:17z",
            "2026-01-01 00:00:17Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:17.Z",
            "2026-01-01T00:00:17+0200",
            "2026-01-01T00:00:17+02:00x",
            "2026-01-01T00:00:17ZZ",
            "-026-01-01T00:00:17Z",
            "2026-01-01T00:00:17+2",
        ] {
            assert_eq!(iso(text), None, "{text}");
        }
    }

    #[test]
    fn both_ends_of_the_tolerance_are_inside() {
        let mut at = TimestampAt {
            from: TimestampFrom::SigField("t".to_owned()),
            format: TimestampFormat::UnixSeconds,
            tolerance_s: Some(300),
            future: Future::Reject,
        };
        let code =
            |at: &TimestampAt, ts: &str, tolerance| at.check(ts.as_bytes(), 1000, tolerance).err().map(|r| r.code());
        assert_eq!(code(&at, "700", None), None);
        assert_eq!(code(&at, "699", None), Some("timestamp_too_old"));
        assert_eq!(code(&at, "1300", None), None);
        assert_eq!(code(&at, "1301", None), Some("timestamp_too_new"));
        assert_eq!(code(&at, "999", Some(0)), Some("timestamp_too_old"));
        assert_eq!(code(&at, "1", Some(u64::MAX)), None);
        at.future = Future::Accept;
        assert_eq!(code(&at, "9223372036854775807", None), None);
        at.tolerance_s = None;
        assert_eq!(code(&at, "1", None), None);
        assert_eq!(code(&at, "1", Some(10)), Some("timestamp_too_old"));
        assert_eq!(code(&at, "x", None), Some("timestamp_malformed"));
        assert!(at.check(b"0", i64::MIN, Some(1)).is_ok());
        assert!(at.check(b"0", i64::MAX, Some(1)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn what_is_written_is_read_back(now_s in 0i64..253_402_300_800) {
            for format in [TimestampFormat::UnixSeconds, TimestampFormat::UnixMillis, TimestampFormat::Iso8601] {
                let text = format.write(now_s).unwrap();
                prop_assert_eq!(format.parse_ms(text.as_bytes()), Some(i128::from(now_s) * 1000), "{}", text);
            }
        }

        #[test]
        fn no_text_panics(text in prop_oneof!["[0-9:T.Z+-]{0,30}", "2026-01-01T00:00:[0-9.Z:+-]{0,14}"]) {
            iso(&text);
        }
    }

    #[test]
    fn what_a_format_cannot_hold_is_not_written() {
        assert_eq!(TimestampFormat::UnixSeconds.write(-1), None);
        assert_eq!(TimestampFormat::UnixMillis.write(i64::MAX), None);
        assert_eq!(TimestampFormat::Iso8601.write(253_402_300_800), None);
    }
}
