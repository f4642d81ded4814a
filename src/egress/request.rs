//! What is sent: the event's bytes as they came, the provider's headers that may pass, and the gateway's own.
//!
//! **Invariant:** no header of the event decides where the request goes, how it is framed, or who it claims to be; those are
//! dropped. None takes the place of one of the gateway's: those arrive under [`ORIGINAL`], so nothing is lost and nothing can
//! pose as the gateway.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use crate::core::headers::Headers;
use crate::core::signature::{Profile, SignError};
use crate::engine::Job;

/// Goes before the name of a provider's header that one of the gateway's takes the place of.
pub const ORIGINAL: &str = "postrider-original-";

/// Says which attempt this is, 1 for the first.
pub const ATTEMPT: &str = "postrider-attempt";

/// Every header of the gateway's own begins so.
const OWN_PREFIX: &str = "postrider-";

/// Headers that end with the connection they came on ([RFC 9110 §7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1)),
/// that frame or route the request, or that hold credentials meant for the gateway.
const DROPPED: [&str; 16] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// Reserved on every delivery, so that a receiver who reads them never reads a provider's.
const STANDARD: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// Headers and body of a request; the address line is the connection's business.
pub(super) struct Outgoing {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Builds the request of one attempt. `unix_s` is the time that is signed: fresh for every attempt, while id and body stay.
pub(super) fn build(job: &Job, user_agent: &HeaderValue, unix_s: i64) -> Result<Outgoing, SignError> {
    let (event, endpoint) = (&job.event, &job.endpoint);
    let mut headers = HeaderMap::with_capacity(event.meta.headers.len() + 8);
    pass_on(&event.meta.headers, endpoint.profile, &mut headers);
    if !headers.contains_key(USER_AGENT) {
        headers.insert(USER_AGENT, user_agent.clone());
    }
    if event.meta.source.is_none() {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    let id = event.meta.id.to_string();
    let signed = if endpoint.secrets.is_empty() {
        unsigned(endpoint.profile, id, unix_s)
    } else {
        endpoint.profile.headers(&endpoint.secrets, &id, unix_s, &event.body)?
    };
    for (name, value) in signed {
        // Ids, numbers, hexadecimal and base64 are always fit for a header.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
    headers.insert(ATTEMPT, HeaderValue::from(job.number));
    Ok(Outgoing { headers, body: event.body.clone() })
}

/// Copies the headers that may pass, values byte for byte.
fn pass_on(event_headers: &Headers, profile: Profile, to: &mut HeaderMap) {
    // `Connection` names further headers that end with it.
    let connection: Vec<_> = event_headers.get_all("connection").map(String::from_utf8_lossy).collect();
    let is_dropped = |name: &str| {
        let is_named = |value: &str| value.split(',').any(|option| option.trim().eq_ignore_ascii_case(name));
        DROPPED.contains(&name) || connection.iter().any(|value| is_named(value))
    };
    for (name, value) in event_headers.iter().filter(|(name, _)| !is_dropped(name)) {
        let name = if is_reserved(name, profile) { format!("{ORIGINAL}{name}") } else { name.to_owned() };
        // What can't be sent at all could not have been received either.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            to.append(name, value);
        }
    }
}

/// Whether the gateway sends a header of this name itself, or would in another configuration of the endpoint's secrets.
fn is_reserved(name: &str, profile: Profile) -> bool {
    let of_profile: &[&str] = match profile {
        Profile::StandardWebhooks => &[],
        Profile::XWebhook => &["x-webhook-id", "x-webhook-timestamp", "x-webhook-signature"],
        Profile::Stripe => &["x-webhook-id", "stripe-signature"],
        Profile::GitHub => &["x-github-delivery", "x-hub-signature-256"],
    };
    STANDARD.contains(&name) || of_profile.contains(&name) || name.starts_with(OWN_PREFIX)
}

/// An endpoint without a secret still learns which event it got and when it was sent.
fn unsigned(profile: Profile, id: String, unix_s: i64) -> Vec<(&'static str, String)> {
    let time = unix_s.to_string();
    match profile {
        Profile::StandardWebhooks => vec![("webhook-id", id), ("webhook-timestamp", time)],
        Profile::XWebhook => vec![("x-webhook-id", id), ("x-webhook-timestamp", time)],
        Profile::Stripe => vec![("x-webhook-id", id)],
        Profile::GitHub => vec![("x-github-delivery", id)],
    }
}
