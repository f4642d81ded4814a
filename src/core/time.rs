//! Unix milliseconds as text and back: [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339), UTC, three digits of a second.
//!
//! Pure arithmetic on the proleptic Gregorian calendar; nothing here asks what time it is.
//!
//! **Invariants:** what [`format_ms`] writes has one length for every time, so that texts sort as times do, and
//! [`parse_ms`] reads it back to the same number.

/// The last millisecond that four digits of a year can name: 9999-12-31T23:59:59.999Z.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

const DAY_S: u64 = 86_400;

/// A text that is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a time such as 2026-01-31T12:00:00Z (RFC 3339, 1970 or later) or unix seconds, got {got:?}; \
     in a URL write the + of an offset as %2B"
)]
pub struct TimeError {
    got: String,
}

impl TimeError {
    /// The error for this text.
    pub fn new(got: &str) -> Self {
        Self { got: got.chars().take(64).collect() }
    }
}

/// Writes unix milliseconds as `2026-01-31T12:00:00.000Z`. Times past [`TIME_MS_MAX`] are written as that.
pub fn format_ms(ms: u64) -> String {
    let ms = ms.min(TIME_MS_MAX);
    let (days, second) = (ms / 1_000 / DAY_S, ms / 1_000 % DAY_S);
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    for (at, digits, number) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, second / 3_600),
        (14, 2, second / 60 % 60),
        (17, 2, second % 60),
        (20, 3, ms % 1_000),
    ] {
        write_digits(number, &mut text[at..][..digits]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The last digits of a number, with leading zeros.
fn write_digits(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Reads an RFC 3339 time with any offset, or whole unix seconds, as unix milliseconds. Digits past the millisecond are cut
/// off; a leap second is read as the second that follows it.
///
/// # Errors
/// [`TimeError`] for anything else, and for times before 1970 or past [`TIME_MS_MAX`].
pub fn parse_ms(text: &str) -> Result<u64, TimeError> {
    let ms = if is_digits(text) { text.parse::<u64>().ok().and_then(|s| s.checked_mul(1_000)) } else { rfc_3339(text) };
    ms.filter(|ms| *ms <= TIME_MS_MAX).ok_or_else(|| TimeError::new(text))
}

fn rfc_3339(text: &str) -> Option<u64> {
    let mut rest = text;
    let (year, month, day) = (digits(&mut rest, 4)?, after(&mut rest, "-", 2)?, after(&mut rest, "-", 2)?);
    // RFC 3339 §5.6 allows lower case, and a space for readability.
    rest = rest.strip_prefix(['T', 't', ' '])?;
    let (hour, minute, second) = (digits(&mut rest, 2)?, after(&mut rest, ":", 2)?, after(&mut rest, ":", 2)?);
    let fraction_ms = match rest.strip_prefix('.') {
        None => 0,
        Some(fraction) => {
            let len = fraction.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, after) = fraction.split_at(len);
            rest = after;
            milliseconds(fraction)?
        }
    };
    let offset_s = offset(rest)?;
    let fine = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !fine {
        return None;
    }
    let local_s = days_from_civil(year, month, day) * DAY_S as i64 + (hour * 3_600 + minute * 60 + second) as i64;
    u64::try_from(local_s - offset_s).ok().map(|s| s * 1_000 + fraction_ms)
}

/// The first three digits of a fraction; `None` when there is no digit.
fn milliseconds(fraction: &str) -> Option<u64> {
    if fraction.is_empty() {
        return None;
    }
    let kept = &fraction[..fraction.len().min(3)];
    kept.parse::<u64>().ok().map(|n| n * 10u64.pow(3 - kept.len() as u32))
}

/// `Z` or `±hh:mm`, in seconds.
fn offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (sign, mut rest) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let (hours, minutes) = (digits(&mut rest, 2)?, after(&mut rest, ":", 2)?);
    (hours < 24 && minutes < 60 && rest.is_empty()).then_some(sign * (hours * 3_600 + minutes * 60) as i64)
}

fn after(rest: &mut &str, separator: &str, count: usize) -> Option<u64> {
    *rest = rest.strip_prefix(separator)?;
    digits(rest, count)
}

fn digits(rest: &mut &str, count: usize) -> Option<u64> {
    let (number, left) = rest.split_at_checked(count)?;
    *rest = left;
    // `parse` alone would take a sign.
    if is_digits(number) { number.parse().ok() } else { None }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

const fn is_leap(year: u64) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

const fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month and day of a day counted from 1970-01-01: `civil_from_days` of
/// [Hinnant's algorithms](https://howardhinnant.github.io/date_algorithms.html#civil_from_days). Years start in March there,
/// so that the leap day is the last of its year.
const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// The inverse of [`civil_from_days`]; negative before 1970.
const fn days_from_civil(year: u64, month: u64, day: u64) -> i64 {
    // Four centuries on keep the subtraction of January and February above zero in the year 0000.
    let year = year + 400 - if month <= 2 { 1 } else { 0 };
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era) as i64 - 719_468 - 146_097
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_445_412_480_000, "2015-10-21T07:28:00.000Z"),
            (4_107_542_400_001, "2100-03-01T00:00:00.001Z"),
            (TIME_MS_MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(format_ms(ms), text);
            assert_eq!(parse_ms(text), Ok(ms));
        }
        assert_eq!(format_ms(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn every_form_of_the_rfc_is_read() {
        let noon = 1_769_860_800_000; // 2026-01-31T12:00:00Z
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31t12:00:00z",
            "2026-01-31 12:00:00.0Z",
            "2026-01-31T14:30:00+02:30",
            "2026-01-30T22:00:00-14:00",
            "2026-01-31T12:00:00-00:00",
            "2026-01-31T12:00:00.0009999999999999999999Z",
            "2026-01-31T11:59:60Z",
            "1769860800",
        ] {
            assert_eq!(parse_ms(text), Ok(noon), "{text}");
        }
        assert_eq!(parse_ms("2026-01-31T12:00:00.12Z"), Ok(noon + 120));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "-1",
            "+1",
            "1.5",
            "1769860800000",
            "99999999999999999999999",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00:00 02:00",
            "2026-01-31T12:00:00+0200",
            "2026-01-31T12:00Z",
            "2026-01-31T12:00:00.Z",
            "2026-1-31T12:00:00Z",
            "2026-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:61Z",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00Zjunk",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "0000-01-01T00:00:00Z",
            "+026-01-31T12:00:00Z",
            "２026-01-31T12:00:00Z",
        ] {
            assert_eq!(parse_ms(text), Err(TimeError::new(text)), "{text}");
        }
        assert!(parse_ms("now").unwrap_err().to_string().contains("%2B"));
    }

    #[test]
    fn days_follow_each_other_through_a_whole_cycle_of_leap_years() {
        let mut expected = (1970, 1, 1);
        for day in 0..146_097 + 366 {
            assert_eq!(civil_from_days(day), expected);
            let (y, m, d) = expected;
            assert_eq!(days_from_civil(y, m, d), day as i64);
            expected = match (m, d == days_in_month(y, m)) {
                (12, true) => (y + 1, 1, 1),
                (_, true) => (y, m + 1, 1),
                (_, false) => (y, m, d + 1),
            };
        }
    }

    proptest! {
        #[test]
        fn written_times_are_read_back_and_sort_as_numbers(a in 0..=TIME_MS_MAX, b in 0..=TIME_MS_MAX) {
            prop_assert_eq!(parse_ms(&format_ms(a)), Ok(a));
            prop_assert_eq!(a.cmp(&b), format_ms(a).cmp(&format_ms(b)));
        }

        #[test]
        fn an_offset_shifts_by_itself(ms in 86_400_000..TIME_MS_MAX - 86_400_000, minutes in 0u64..1_440) {
            let text = format_ms(ms);
            let shifted = text.replace('Z', &format!("+{:02}:{:02}", minutes / 60, minutes % 60));
            prop_assert_eq!(parse_ms(&shifted), Ok(ms - minutes * 60_000));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,40}", near in "[0-9TZtz:. +-]{0,32}") {
            let _ = parse_ms(&text);
            let _ = parse_ms(&near);
        }
    }
}
