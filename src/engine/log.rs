//! What operators see of an attempt: one line and a few counts.
//!
//! **Invariant:** the fields are fixed, and none holds a body, a secret or a URL.

use crate::core::attempt::Outcome;
use crate::core::delivery::{DeadReason, DeliveryId, Next};
use crate::core::endpoint::Endpoint;
use crate::core::id::AttemptId;
use crate::engine::lane::Release;
use crate::store::{Applied, Settle};
use crate::telemetry::Metrics;

/// What remains of a settle for the line about it.
#[derive(Debug)]
pub(super) struct Line<'e> {
    endpoint: &'e Endpoint,
    delivery: DeliveryId,
    attempt: AttemptId,
    number: u32,
    next: Next,
    status: Option<u16>,
    /// What failed, as the metrics name it.
    cause: Option<&'static str>,
    detail: Option<String>,
    took_ms: u64,
    took_us: u64,
}

impl<'e> Line<'e> {
    pub(super) fn new(endpoint: &'e Endpoint, settle: &Settle) -> Self {
        let attempt = &settle.attempt;
        let (status, cause, detail) = match &attempt.outcome {
            Outcome::Answered { status, .. } => (Some(*status), status_class(*status), None),
            Outcome::Failed { kind, detail } => (None, Some(kind.as_str()), Some(detail.clone())),
        };
        Self {
            endpoint,
            delivery: settle.delivery,
            attempt: attempt.id,
            number: attempt.number,
            next: settle.next,
            status,
            cause,
            detail,
            took_ms: attempt.ended_ms.saturating_sub(attempt.started_ms),
            took_us: attempt.timings.total_us,
        }
    }
}

/// The class of a status that is no success.
const fn status_class(status: u16) -> Option<&'static str> {
    match status / 100 {
        2 => None,
        1 => Some("1xx"),
        3 => Some("3xx"),
        4 => Some("4xx"),
        5 => Some("5xx"),
        _ => Some("other"),
    }
}

/// Counts and logs an attempt whose settle was answered, and says how its lease ends.
pub(super) fn record(metrics: &Metrics, line: &Line<'_>, applied: Applied) -> Release {
    let outcome = match (applied, line.next) {
        (Applied::Stale, _) => "stale",
        (Applied::Ok, Next::Delivered) => "delivered",
        (Applied::Ok, Next::Retry { .. }) => "retry",
        (Applied::Ok, Next::Dead { .. }) => "dead",
    };
    metrics.attempts.inc(outcome);
    metrics.attempt_took(line.took_us);
    if let Some(cause) = line.cause {
        metrics.failures.inc(cause);
    }
    write(line, outcome);
    match applied {
        Applied::Ok => Release::Settled,
        Applied::Stale => Release::Stale,
    }
}

fn write(line: &Line<'_>, outcome: &'static str) {
    let (next_due_ms, dead) = match line.next {
        Next::Retry { due_ms } => (Some(due_ms), None),
        Next::Dead { reason } => (None, Some(reason)),
        Next::Delivered => (None, None),
    };
    // The level of an event must be a constant, hence one text for two levels.
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                outcome,
                event = %line.delivery.event,
                app = line.endpoint.app_name,
                endpoint = line.endpoint.name,
                endpoint_id = %line.delivery.endpoint,
                attempt = %line.attempt,
                number = line.number,
                status = line.status,
                cause = line.cause,
                detail = line.detail,
                took_ms = line.took_ms,
                next_due_ms,
                dead = dead.map(DeadReason::as_str),
                "attempt"
            )
        };
    }
    // What everybody expects to see is not worth a line at the usual level.
    if outcome == "delivered" && line.number == 1 { line!(debug) } else { line!(info) }
}
