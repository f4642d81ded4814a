//! Facts as `journal dump` shows them: every field under its name. Values of headers may hold credentials of others, so they
//! are content and come with the bodies only.

use serde_json::{Map, Value, json};

use crate::core::attempt::{Attempt, Outcome};
use crate::core::delivery::{Dead, DeliveryId, Next, Pending};
use crate::core::event::{DedupKey, DedupScope, EventMeta};
use crate::core::fact::{DedupEntry, EndpointNote, Fact, Standing};
use crate::core::headers::Headers;
use crate::core::time::format_ms;

/// The fields of a fact; with the values of headers if `content`.
pub(super) fn fields(fact: &Fact, content: bool) -> Map<String, Value> {
    match fact {
        Fact::Accepted { meta, dedup, dedup_expires_ms, fingerprint } => {
            let mut fields = event(meta, content);
            fields.insert("dedup".into(), dedup.iter().map(dedup_key).collect());
            fields.insert("dedup_expires".into(), format_ms(*dedup_expires_ms).into());
            fields.insert("fingerprint".into(), format!("{fingerprint:016x}").into());
            fields
        }
        Fact::Settled { delivery, was, attempt, next } => {
            let mut fields = endpoint(delivery);
            fields.insert("was".into(), pending(was));
            fields.insert("attempt".into(), attempt_fields(attempt, content));
            fields.insert("next".into(), next_fields(next));
            fields
        }
        Fact::Redriven { delivery, pending: state } => {
            let mut fields = endpoint(delivery);
            fields.insert("pending".into(), pending(state));
            fields
        }
        Fact::Buried { delivery, dead: state } => {
            let mut fields = endpoint(delivery);
            fields.insert("dead".into(), dead(state));
            fields
        }
        Fact::EndpointNoted(noted) => note(noted),
        Fact::Erased { at_ms, .. } => object(json!({ "at": format_ms(*at_ms) })),
        Fact::DedupCarried { entries } => object(json!({ "entries": entries.iter().map(entry).collect::<Vec<_>>() })),
        Fact::Carried { meta, pending: states, dead: letters } => {
            let mut fields = event(meta, content);
            let state = |(id, state): &(_, Pending)| json!({ "endpoint": id, "state": pending(state) });
            let letter = |(id, letter): &(_, Dead)| json!({ "endpoint": id, "dead": dead(letter) });
            fields.insert("pending".into(), states.iter().map(state).collect());
            fields.insert("dead".into(), letters.iter().map(letter).collect());
            fields
        }
        Fact::Dropped { segment, first_kept } => object(json!({
            "segment": super::segment_name(*segment), "first_kept": first_kept,
        })),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        // Everything here is written as an object.
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

fn event(meta: &EventMeta, content: bool) -> Map<String, Value> {
    object(json!({
        "application": meta.app,
        "source": meta.source,
        "event_type": meta.event_type,
        "event_id": meta.external_id,
        "accepted": format_ms(meta.accepted_ms),
        "headers": headers(&meta.headers, content),
        "endpoints": meta.endpoints,
    }))
}

/// Names alone, or `[name, value]` pairs.
fn headers(headers: &Headers, content: bool) -> Value {
    let shown = |(name, value): (&str, &[u8])| match content {
        true => json!([name, String::from_utf8_lossy(value)]),
        false => json!(name),
    };
    headers.iter().map(shown).collect()
}

fn endpoint(delivery: &DeliveryId) -> Map<String, Value> {
    object(json!({ "endpoint": delivery.endpoint }))
}

fn pending(state: &Pending) -> Value {
    json!({ "due": format_ms(state.due_ms), "attempts": state.attempts, "failures": state.failures })
}

fn dead(state: &Dead) -> Value {
    json!({ "reason": state.reason.as_str(), "at": format_ms(state.at_ms), "attempts": state.attempts })
}

fn next_fields(next: &Next) -> Value {
    match next {
        Next::Delivered => json!({ "state": "delivered" }),
        Next::Retry { due_ms } => json!({ "state": "retry", "due": format_ms(*due_ms) }),
        Next::Dead { reason } => json!({ "state": "dead", "reason": reason.as_str() }),
    }
}

fn attempt_fields(attempt: &Attempt, content: bool) -> Value {
    let (status, error) = match &attempt.outcome {
        Outcome::Answered { status, .. } => (json!(status), Value::Null),
        Outcome::Failed { kind, detail } => (Value::Null, json!({ "kind": kind.as_str(), "detail": detail })),
    };
    json!({
        "id": attempt.id,
        "number": attempt.number,
        "started": format_ms(attempt.started_ms),
        "ended": format_ms(attempt.ended_ms),
        "status": status,
        "error": error,
        "total_us": attempt.timings.total_us,
        "remote": attempt.remote,
        "response_headers": headers(&attempt.response_headers, content),
        "response_truncated": attempt.response_truncated,
    })
}

fn note(note: &EndpointNote) -> Map<String, Value> {
    let since = match note.standing {
        Standing::Enabled => Value::Null,
        Standing::Gone { since_ms } | Standing::Disabled { since_ms } | Standing::Removed { since_ms } => {
            format_ms(since_ms).into()
        }
    };
    object(json!({
        "endpoint": note.id,
        "application": note.app,
        "name": note.name,
        "version": note.version,
        "standing": note.standing.as_str(),
        "since": since,
    }))
}

fn dedup_key(key: &DedupKey) -> Value {
    let scope = match key.scope {
        DedupScope::Inbound => "inbound",
        DedupScope::Idempotency => "idempotency",
        DedupScope::EventId => "event_id",
    };
    json!({ "scope": scope, "hash": format!("{:032x}", key.hash) })
}

fn entry((key, entry): &(DedupKey, DedupEntry)) -> Value {
    json!({ "key": dedup_key(key), "event": entry.event, "expires": format_ms(entry.expires_ms) })
}
