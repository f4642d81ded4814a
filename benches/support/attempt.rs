//! The attempt that most deliveries take: the first, answered with 204.

use postrider::core::attempt::{Attempt, Outcome, Timings};
use postrider::core::id::AttemptId;

/// Such an attempt, made at this time.
pub fn attempt(started_ms: u64) -> Attempt {
    let fields = [("date", "Thu, 01 Jan 2026 00:00:00 GMT"), ("content-length", "0")];
    Attempt {
        id: AttemptId::at(started_ms, 9),
        number: 1,
        started_ms,
        ended_ms: started_ms + 2,
        timings: Timings { first_byte_us: Some(900), total_us: 1_000, ..Timings::default() },
        outcome: Outcome::Answered { status: 204, retry_after_ms: None },
        remote: Some("127.0.0.1:3000".into()),
        response_headers: fields.into_iter().collect(),
        response_truncated: false,
    }
}
