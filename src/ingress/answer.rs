//! What a provider is answered.
//!
//! The public side learns what it did wrong or that it should come back; figures and advice for the operator (how full the
//! disk is, which limit to raise) stay in metrics and logs.

use hyper::StatusCode;
use serde::Serialize;

use crate::core::id::EventId;
use crate::core::signature::Reject;
use crate::http::{BodyError, Reply, close, json, problem, with_allow, with_retry_after};
use crate::store::{Refusal, StoreError};

/// The methods of `/in/{source}`.
pub(super) const ALLOW: &str = "POST";

/// Seconds after which to come back when something drains by itself: a queue, or bodies in memory.
const RETRY_SOON_S: u32 = 1;

/// Seconds after which to come back when the store is slow.
const RETRY_SLOW_S: u32 = 2;

/// Seconds after which to come back when someone has to do something first.
const RETRY_LATER_S: u32 = 5;

#[derive(Serialize)]
struct Received {
    /// Always true: whoever reads only this knows that it need not send again.
    received: bool,
    /// The event; of a duplicate, the first one.
    id: EventId,
    /// The event was there before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

pub(super) fn received(id: EventId) -> Reply {
    json(StatusCode::OK, &Received { received: true, id, duplicate: false })
}

pub(super) fn duplicate(id: EventId) -> Reply {
    json(StatusCode::OK, &Received { received: true, id, duplicate: true })
}

pub(super) fn not_found() -> Reply {
    problem(StatusCode::NOT_FOUND, "not_found", "expected POST /in/{source}")
}

pub(super) fn unknown_source() -> Reply {
    problem(StatusCode::NOT_FOUND, "unknown_source", "no source of this name is configured")
}

pub(super) fn method_not_allowed() -> Reply {
    let reply = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "expected POST");
    with_allow(reply, ALLOW)
}

/// A request that is not proven to come from the provider.
pub(super) fn rejected(reject: &Reject) -> Reply {
    problem(StatusCode::UNAUTHORIZED, reject.code(), reject.to_string())
}

/// A body that was not read to its end, so the connection can't be used again.
pub(super) fn body_refused(error: &BodyError) -> Reply {
    let (status, code) = match error {
        BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        BodyError::TimedOut { .. } => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
        BodyError::NoMemory => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        BodyError::Broken(_) => (StatusCode::BAD_REQUEST, "bad_body"),
    };
    let reply = close(problem(status, code, error.to_string()));
    if *error == BodyError::NoMemory { with_retry_after(reply, RETRY_SOON_S) } else { reply }
}

/// The store did not answer in time. The event may be stored after all; its dedup key covers the retry.
pub(super) fn store_slow() -> Reply {
    unavailable("store_slow", "the event could not be stored in time; send it again", RETRY_SLOW_S)
}

pub(super) fn store_failed(error: &StoreError) -> Reply {
    match error {
        StoreError::Refused(refusal) => intake_closed(*refusal),
        StoreError::TooLarge { .. } => problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "the event with its headers is longer than the store takes",
        ),
        // Reading is no part of receiving, so the former does not happen here.
        StoreError::Unreadable { .. } | StoreError::BackupRuns | StoreError::Unsupported(_) | StoreError::Failed(_) => {
            unavailable("store_failed", "the event could not be stored; send it again", RETRY_LATER_S)
        }
    }
}

pub(super) fn intake_closed(refusal: Refusal) -> Reply {
    let (code, seconds) = match refusal {
        Refusal::QueueFull => ("queue_full", RETRY_SOON_S),
        Refusal::JournalFull { .. } => ("journal_full", RETRY_LATER_S),
        Refusal::DiskFull { .. } => ("disk_full", RETRY_LATER_S),
        Refusal::PendingFull { .. } => ("pending_full", RETRY_LATER_S),
        Refusal::Stopping => ("stopping", RETRY_LATER_S),
    };
    unavailable(code, "the gateway takes no events at the moment; send it again", seconds)
}

fn unavailable(code: &'static str, detail: &str, retry_after_s: u32) -> Reply {
    with_retry_after(problem(StatusCode::SERVICE_UNAVAILABLE, code, detail), retry_after_s)
}
