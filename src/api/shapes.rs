//! Every JSON answer of the management listener. `openapi.json` says the same for clients.
//!
//! **Invariants:** names are camelCase; a time is RFC 3339 in UTC with three digits of a second; a field that has no value
//! is `null`, not absent, except where its absence says something (`payload`, `body` and their base64 twins; `unreadable`).

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::core::attempt::{Attempt, Outcome, Timings};
use crate::core::delivery::{DeliveryState, Next};
use crate::core::event::Event;
use crate::core::id::{AppId, AttemptId, EndpointId, EventId, SourceId};
use crate::core::time::format_ms;
use crate::store::{AttemptRecord, DeadLetter, Delivery};

/// One page of a list, newest first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageShape<T> {
    /// The entries.
    pub(super) data: Vec<T>,
    /// Nothing is left in the direction of the walk.
    pub(super) done: bool,
    /// Leads to the older page.
    pub(super) iterator: Option<String>,
    /// Leads to the newer page.
    pub(super) prev_iterator: Option<String>,
    /// Places on the way that are damaged, each an entry or a batch of them; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unreadable: Option<u64>,
}

/// A list that comes as a whole.
#[derive(Debug, Serialize)]
pub(super) struct ListShape<T> {
    /// The entries.
    pub(super) data: Vec<T>,
}

/// The answer to a publication.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PublishedShape<'a> {
    /// The message's id.
    pub(super) id: EventId,
    /// As published.
    pub(super) event_type: &'a str,
    /// As published; null when there was none.
    pub(super) event_id: Option<&'a str>,
    /// The bytes that are delivered; absent when they are not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload: Option<&'a RawValue>,
    /// When it was stored.
    pub(super) timestamp: String,
}

/// A message, published or received.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageShape<'a> {
    /// Its id.
    id: EventId,
    /// Null where a provider names none.
    event_type: Option<&'a str>,
    /// The publisher's `eventId`, or the provider's id.
    event_id: Option<&'a str>,
    /// The source that received it; null when it was published.
    source: Option<String>,
    /// When it was stored.
    timestamp: String,
    /// Its content was erased on request.
    erased: bool,
    /// The content, when it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    /// The content, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> MessageShape<'a> {
    /// `source` is the name of the event's source, if it has one.
    pub(super) fn new(event: &'a Event, source: Option<String>, with_content: bool) -> Self {
        let shown = with_content && !event.erased;
        let payload = if shown { json_of(&event.body) } else { None };
        Self {
            id: event.meta.id,
            event_type: event.meta.event_type.as_deref(),
            event_id: event.meta.external_id.as_deref(),
            source,
            timestamp: format_ms(event.meta.accepted_ms),
            erased: event.erased,
            payload_base64: (shown && payload.is_none()).then(|| BASE64.encode(&event.body)),
            payload,
        }
    }
}

/// The JSON value that these bytes are, white space around it left out.
fn json_of(body: &[u8]) -> Option<&RawValue> {
    std::str::from_utf8(body).ok().and_then(|text| serde_json::from_str(text).ok())
}

/// A message on its way to one endpoint.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryShape {
    /// Where to.
    endpoint_id: EndpointId,
    /// Its name, when it is known.
    endpoint_name: Option<String>,
    /// `pending`, `delivered` or `dead`.
    status: &'static str,
    /// When the next attempt is due; null unless pending.
    next_attempt: Option<String>,
    /// Attempts made, over all replays; of a delivered one, as far as they are retained.
    attempts: u32,
    /// Why it is dead.
    reason: Option<&'static str>,
}

impl DeliveryShape {
    /// `recorded` are the attempts on record, for a delivery whose state does not count them.
    pub(super) fn new(delivery: &Delivery, endpoint_name: Option<String>, recorded: u32) -> Self {
        let (next_attempt, attempts, reason) = match delivery.state {
            DeliveryState::Pending(pending) => (Some(format_ms(pending.due_ms)), pending.attempts, None),
            DeliveryState::Dead(dead) => (None, dead.attempts, Some(dead.reason.as_str())),
            DeliveryState::Delivered => (None, recorded, None),
        };
        let status = delivery.state.as_str();
        Self { endpoint_id: delivery.id.endpoint, endpoint_name, status, next_attempt, attempts, reason }
    }
}

/// One try.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AttemptShape {
    /// Its id.
    id: AttemptId,
    /// Where it went.
    endpoint_id: EndpointId,
    /// Its name, when it is known.
    endpoint_name: Option<String>,
    /// 1 for the first try of a delivery, counted on over replays.
    number: u32,
    /// The HTTP status; null when no response came.
    status: Option<u16>,
    /// `delivered` (2xx), `refused` (another status) or `failed` (no response).
    outcome: &'static str,
    /// Why no response came.
    error: Option<ErrorShape>,
    /// When it began.
    started_at: String,
    /// When it ended; a retry is counted from here.
    ended_at: String,
    /// Where the time went.
    timings: TimingsShape,
    /// `ip:port` that was connected to.
    remote: Option<String>,
    /// Null when none came.
    response: Option<ResponseShape>,
    /// What became of the delivery.
    next: NextShape,
}

#[derive(Debug, Serialize)]
struct ErrorShape {
    /// A word of a fixed list, such as `timeout`.
    kind: &'static str,
    /// For people.
    detail: String,
}

/// Microseconds from the attempt's start; null for a phase that did not happen.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TimingsShape {
    /// Name resolution.
    dns_us: Option<u64>,
    /// TCP connect.
    connect_us: Option<u64>,
    /// TLS handshake.
    tls_us: Option<u64>,
    /// Until the response's head.
    first_byte_us: Option<u64>,
    /// The whole attempt.
    total_us: u64,
}

/// The kept part of a response.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseShape {
    /// In the order received.
    headers: Vec<HeaderShape>,
    /// The body, when it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// The body, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    /// More came than was kept.
    truncated: bool,
}

#[derive(Debug, Serialize)]
struct HeaderShape {
    /// In lower case.
    name: String,
    /// Bytes that are not UTF-8 are shown as U+FFFD.
    value: String,
}

#[derive(Debug, Serialize)]
struct NextShape {
    /// `delivered`, `retry` or `dead`.
    state: &'static str,
    /// When the retry is due.
    due: Option<String>,
    /// Why it is dead.
    reason: Option<&'static str>,
}

impl AttemptShape {
    /// The attempt of `record`.
    pub(super) fn new(record: &AttemptRecord, endpoint_name: Option<String>) -> Self {
        let attempt = &record.attempt;
        let (status, error) = match &attempt.outcome {
            Outcome::Answered { status, .. } => (Some(*status), None),
            Outcome::Failed { kind, detail } => {
                (None, Some(ErrorShape { kind: kind.as_str(), detail: detail.clone() }))
            }
        };
        Self {
            id: attempt.id,
            endpoint_id: record.endpoint,
            endpoint_name,
            number: attempt.number,
            status,
            outcome: match status {
                _ if attempt.outcome.is_success() => "delivered",
                Some(_) => "refused",
                None => "failed",
            },
            error,
            started_at: format_ms(attempt.started_ms),
            ended_at: format_ms(attempt.ended_ms),
            timings: TimingsShape::from(&attempt.timings),
            remote: attempt.remote.clone(),
            response: status.map(|_| ResponseShape::new(attempt, &record.response)),
            next: NextShape::from(&record.next),
        }
    }
}

impl From<&Timings> for TimingsShape {
    fn from(timings: &Timings) -> Self {
        let Timings { dns_us, connect_us, tls_us, first_byte_us, total_us } = *timings;
        Self { dns_us, connect_us, tls_us, first_byte_us, total_us }
    }
}

impl ResponseShape {
    fn new(attempt: &Attempt, body: &[u8]) -> Self {
        let header = |(name, value): (&str, &[u8])| HeaderShape {
            name: name.to_owned(),
            value: String::from_utf8_lossy(value).into_owned(),
        };
        let text = std::str::from_utf8(body).ok().map(str::to_owned);
        Self {
            headers: attempt.response_headers.iter().map(header).collect(),
            body_base64: text.is_none().then(|| BASE64.encode(body)),
            body: text,
            truncated: attempt.response_truncated,
        }
    }
}

impl From<&Next> for NextShape {
    fn from(next: &Next) -> Self {
        match next {
            Next::Delivered => Self { state: "delivered", due: None, reason: None },
            Next::Retry { due_ms } => Self { state: "retry", due: Some(format_ms(*due_ms)), reason: None },
            Next::Dead { reason } => Self { state: "dead", due: None, reason: Some(reason.as_str()) },
        }
    }
}

/// A dead letter.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadShape {
    /// The message that did not arrive.
    message_id: EventId,
    /// Where it did not arrive.
    endpoint_id: EndpointId,
    /// Null when the endpoint is not known any more.
    endpoint_name: Option<String>,
    /// Null where a provider names none, or when the message is past retention.
    event_type: Option<String>,
    /// Why it died.
    reason: &'static str,
    /// When it died.
    at: String,
    /// Attempts made.
    attempts: u32,
}

impl DeadShape {
    /// A dead letter and what is known of its endpoint and message.
    pub(super) fn new(letter: &DeadLetter, endpoint_name: Option<String>, event_type: Option<String>) -> Self {
        Self {
            message_id: letter.delivery.event,
            endpoint_id: letter.delivery.endpoint,
            endpoint_name,
            event_type,
            reason: letter.dead.reason.as_str(),
            at: format_ms(letter.dead.at_ms),
            attempts: letter.dead.attempts,
        }
    }
}

/// What a replay did.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplayShape {
    /// Deliveries that are due now.
    pub(super) replayed: u64,
    /// Deliveries that were due already, perhaps in the middle of an attempt.
    pub(super) already_due: u64,
    /// Deliveries that could not be replayed: the sum of `reasons`.
    pub(super) skipped: u64,
    /// Why not.
    pub(super) reasons: SkippedShape,
    /// There may be more that match; repeat the request with `iterator`.
    pub(super) more: bool,
    /// Where to go on.
    pub(super) iterator: Option<String>,
}

/// Deliveries that were not replayed, by reason.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SkippedShape {
    /// The message is past retention, or never went to the endpoint.
    pub(super) unknown: u64,
    /// The message's content was erased.
    pub(super) erased: u64,
    /// The endpoint is no longer configured.
    pub(super) endpoint_removed: u64,
    /// The message is damaged, or a batch of messages, in which something may be that was asked for.
    pub(super) unreadable: u64,
}

/// An endpoint, without its secrets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointShape {
    /// Derived from application and name.
    pub(super) id: EndpointId,
    /// Unique within its application.
    pub(super) name: String,
    /// The application's name.
    pub(super) application: String,
    /// Without query and fragment, which may hold credentials; null when the endpoint is no longer configured.
    pub(super) url: Option<String>,
    /// `enabled`, `disabled`, `gone` or `removed`.
    pub(super) standing: &'static str,
    /// Since when it is not enabled.
    pub(super) since: Option<String>,
    /// Names of the inbound sources it takes.
    pub(super) sources: Vec<String>,
    /// Patterns of the published event types it takes.
    pub(super) event_types: Vec<String>,
    /// Seconds that one attempt may take; null when the endpoint is no longer configured.
    pub(super) timeout_s: Option<f64>,
}

/// A source, without its secrets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SourceShape {
    /// Derived from the name.
    pub(super) id: SourceId,
    /// The last part of its path.
    pub(super) name: String,
    /// The application that its events belong to.
    pub(super) application_id: AppId,
    /// Its path on the public listener.
    pub(super) path: String,
    /// Seconds that a timestamp may be off, where the configuration says; null takes the provider's.
    pub(super) tolerance_s: Option<u64>,
}

/// The answer of `/healthz`.
#[derive(Debug, Serialize)]
pub(super) struct HealthShape {
    /// Always `ok`: the process answers.
    pub(super) status: &'static str,
}

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
pub(super) struct ReadyShape {
    /// `ready`, `starting`, `draining` or `closed` (intake is refused; deliveries go on).
    pub(super) status: &'static str,
    /// Why it is not ready.
    pub(super) reasons: Vec<String>,
    /// What operators should know although it is ready.
    pub(super) notes: Vec<String>,
}
