//! `Retry-After` and RFC 3339: eight bytes of a clock, then the text.

use postrider::core::attempt::Outcome;
use postrider::core::delivery::{Next, next_after};
use postrider::core::retry::{RETRY_AFTER_MAX_MS, RetryPolicy, parse_retry_after};
use postrider::core::time::{TIME_MS_MAX, format_ms, parse_ms};

use super::input::Input;

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let now_ms = input.u64();
    let text = input.rest();
    retry_after(text, now_ms);
    if let Ok(text) = std::str::from_utf8(text) {
        rfc_3339(text);
    }
    written(now_ms);
}

fn retry_after(value: &[u8], now_ms: u64) {
    let wait_ms = parse_retry_after(value, now_ms);
    let text = std::str::from_utf8(value).unwrap_or_default().trim().as_bytes();
    if !text.is_empty() && text.iter().all(u8::is_ascii_digit) {
        let seconds = text.iter().fold(0u64, |n, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
        assert_eq!(wait_ms, Some(seconds.saturating_mul(1_000)));
    } else if wait_ms.is_some() {
        // Every form of a date has a time of day with colons.
        assert!(text.contains(&b':') && wait_ms > Some(0));
    }
    // However long the receiver asks for, the next attempt is neither sooner than the schedule's nor past the limit.
    let (policy, ended_ms) = (RetryPolicy::default(), now_ms.min(TIME_MS_MAX));
    let outcome = Outcome::Answered { status: 503, retry_after_ms: wait_ms };
    let Next::Retry { due_ms } = next_after(&outcome, &policy, 0, ended_ms, 0.0) else { panic!("a 503 is retried") };
    let (least, most) = (policy.delay_ms(1, 0.0).unwrap_or(0), RETRY_AFTER_MAX_MS);
    assert!((least..=most).contains(&(due_ms - ended_ms)), "{wait_ms:?} became {}", due_ms - ended_ms);
}

fn rfc_3339(text: &str) {
    let Ok(ms) = parse_ms(text) else { return };
    assert!(ms <= TIME_MS_MAX);
    assert_eq!(parse_ms(&format_ms(ms)), Ok(ms));
    if let Ok(seconds) = text.parse::<u64>() {
        assert_eq!(ms, seconds * 1_000);
    }
}

/// Texts have one length and sort as times do.
fn written(ms: u64) {
    let ms = ms.min(TIME_MS_MAX - 1);
    let (text, next) = (format_ms(ms), format_ms(ms + 1));
    assert_eq!((text.len(), parse_ms(&text)), (24, Ok(ms)));
    assert!(text < next && next.len() == 24);
}
