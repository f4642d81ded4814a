//! The delivery state machine: pure, told what happened, answering what comes next.
//!
//! ```text
//!               accept                     2xx
//!   (event × endpoint) ──▶ Pending ──────────────────────▶ Delivered
//!                          ▲  │ ▲                              │
//!                          │  │ └─ retry: 3xx, 5xx, 408, 425,  │ replay
//!                   replay │  │    429, no answer; schedule    │
//!                          │  ▼    not used up                 │
//!                          Dead ◀── 4xx, 410, schedule used up │
//!                          ▲                                   │
//!                          └── (replayed: Pending again) ◀─────┘
//! ```

use bincode::{Decode, Encode};

use super::attempt::Outcome;
use super::id::{EndpointId, EventId};
use super::retry::{RETRY_AFTER_MAX_MS, RetryPolicy};

/// Names a delivery: an event on its way to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct DeliveryId {
    /// The endpoint it goes to.
    pub endpoint: EndpointId,
    /// The event it carries.
    pub event: EventId,
}

/// A delivery that waits for its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Pending {
    /// Unix milliseconds (engine time) of the next attempt.
    pub due_ms: u64,
    /// Attempts made so far, over all replays; the next one has the number after it.
    pub attempts: u32,
    /// Failures in a row since it was accepted or replayed: what the schedule counts.
    pub failures: u32,
}

impl Pending {
    /// A delivery that has not been tried.
    pub const fn fresh(due_ms: u64) -> Self {
        Self { due_ms, attempts: 0, failures: 0 }
    }
}

/// A delivery that will not be tried again on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Dead {
    /// Why.
    pub reason: DeadReason,
    /// Unix milliseconds (engine time) when it died.
    pub at_ms: u64,
    /// Attempts made.
    pub attempts: u32,
}

/// Why a delivery is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum DeadReason {
    /// Every retry of the schedule failed.
    MaxRetries,
    /// The endpoint answered with a 4xx status that is not retried.
    Rejected,
    /// The endpoint answered 410 Gone, which also disables it.
    Gone,
    /// The endpoint is no longer configured.
    EndpointRemoved,
    /// The event's content was erased before it could be delivered.
    ContentErased,
}

impl DeadReason {
    /// The word for it in JSON, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxRetries => "max_retries",
            Self::Rejected => "rejected",
            Self::Gone => "gone",
            Self::EndpointRemoved => "endpoint_removed",
            Self::ContentErased => "content_erased",
        }
    }
}

/// What becomes of a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Next {
    /// It arrived.
    Delivered,
    /// It is tried again.
    Retry {
        /// Unix milliseconds (engine time).
        due_ms: u64,
    },
    /// It is a dead letter.
    Dead {
        /// Why.
        reason: DeadReason,
    },
}

/// What state a delivery is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// Waiting for an attempt, or in the middle of one.
    Pending(Pending),
    /// Not tried again unless replayed.
    Dead(Dead),
    /// A 2xx was received.
    Delivered,
}

impl DeliveryState {
    /// The word for it in JSON and filters.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending(_) => "pending",
            Self::Dead(_) => "dead",
            Self::Delivered => "delivered",
        }
    }
}

/// Decides what follows an attempt that ended at `ended_ms` after `failures` earlier failures in a row.
///
/// 2xx delivers. 408, 425, 429, every 3xx (never followed) and 5xx, and every failure without an answer retry on the
/// schedule, or as late as `Retry-After` asks where that is later, up to [`RETRY_AFTER_MAX_MS`]. 410 is a dead letter
/// and disables the endpoint ([RFC 9110 §15.5.11](https://www.rfc-editor.org/rfc/rfc9110#section-15.5.11)); every other
/// 4xx is a dead letter at once, since the same bytes will not fare better. `unit` is a random number in `[0, 1)`.
pub fn next_after(outcome: &Outcome, policy: &RetryPolicy, failures: u32, ended_ms: u64, unit: f64) -> Next {
    let retry_after_ms = match outcome {
        Outcome::Answered { status: 200..=299, .. } => return Next::Delivered,
        Outcome::Answered { status: 410, .. } => return Next::Dead { reason: DeadReason::Gone },
        Outcome::Answered { status, retry_after_ms } if is_retried(*status) => retry_after_ms.unwrap_or(0),
        Outcome::Answered { .. } => return Next::Dead { reason: DeadReason::Rejected },
        Outcome::Failed { .. } => 0,
    };
    match policy.delay_ms(failures.saturating_add(1), unit) {
        Some(delay_ms) => {
            let wait_ms = delay_ms.max(retry_after_ms.min(RETRY_AFTER_MAX_MS));
            Next::Retry { due_ms: ended_ms.saturating_add(wait_ms) }
        }
        None => Next::Dead { reason: DeadReason::MaxRetries },
    }
}

const fn is_retried(status: u16) -> bool {
    !matches!(status, 400..=499) || matches!(status, 408 | 425 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::attempt::FailureKind;
    use proptest::prelude::*;

    fn answered(status: u16, retry_after_ms: Option<u64>) -> Outcome {
        Outcome::Answered { status, retry_after_ms }
    }

    fn next(outcome: &Outcome, failures: u32) -> Next {
        next_after(outcome, &RetryPolicy::default(), failures, 1_000, 0.0)
    }

    #[test]
    fn the_status_policy() {
        assert_eq!(next(&answered(200, None), 0), Next::Delivered);
        assert_eq!(next(&answered(299, None), 6), Next::Delivered);
        assert_eq!(next(&answered(410, None), 0), Next::Dead { reason: DeadReason::Gone });
        for status in [400, 401, 403, 404, 405, 409, 413, 422, 451] {
            assert_eq!(next(&answered(status, None), 0), Next::Dead { reason: DeadReason::Rejected }, "{status}");
        }
        for status in [301, 302, 304, 307, 408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(next(&answered(status, None), 0), Next::Retry { due_ms: 61_000 }, "{status}");
        }
        for kind in FailureKind::ALL {
            let failed = Outcome::Failed { kind, detail: String::new() };
            assert_eq!(next(&failed, 1), Next::Retry { due_ms: 301_000 });
            assert_eq!(next(&failed, 6), Next::Dead { reason: DeadReason::MaxRetries });
        }
    }

    #[test]
    fn retry_after_puts_off_but_never_hastens_and_is_clamped() {
        assert_eq!(next(&answered(429, Some(120_000)), 0), Next::Retry { due_ms: 121_000 });
        assert_eq!(next(&answered(503, Some(1_000)), 0), Next::Retry { due_ms: 61_000 });
        assert_eq!(next(&answered(503, Some(u64::MAX)), 0), Next::Retry { due_ms: 1_000 + RETRY_AFTER_MAX_MS });
        // A receiver's wish does not add retries.
        assert_eq!(next(&answered(429, Some(120_000)), 6), Next::Dead { reason: DeadReason::MaxRetries });
    }

    proptest! {
        #[test]
        fn a_delivery_that_always_fails_is_dead_after_the_schedule(status in prop::sample::select(vec![500u16, 503, 429, 302]), unit in 0.0f64..1.0) {
            let policy = RetryPolicy::default();
            let (mut failures, mut now_ms) = (0, 0);
            while let Next::Retry { due_ms } = next_after(&answered(status, None), &policy, failures, now_ms, unit) {
                prop_assert!(due_ms > now_ms);
                (failures, now_ms) = (failures + 1, due_ms);
            }
            prop_assert_eq!(failures as usize, policy.retries());
        }
    }
}
