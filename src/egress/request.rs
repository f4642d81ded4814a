//! What is sent: the event's bytes as they came, the provider's headers that may pass, and the gateway's own.
//!
//! **Invariant:** no header of the event decides where the request goes, how it is framed, or who it claims to be; those are
//! dropped. None takes the place of one of the gateway's: those arrive under [`ORIGINAL`], so nothing is lost and nothing can
//! pose as the gateway.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use crate::core::headers::Headers;
use crate::core::passing::passing;
use crate::core::signature::{Profile, SignError};
use crate::engine::Job;

/// Goes before the name of a provider's header that one of the gateway's takes the place of.
pub const ORIGINAL: &str = "postrider-original-";

/// Says which attempt this is, 1 for the first.
pub const ATTEMPT: &str = "postrider-attempt";

/// Every header of the gateway's own begins so.
const OWN_PREFIX: &str = "postrider-";

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
    // Filtered when it came in already; an older gateway may have known fewer.
    for (name, value) in passing(event_headers) {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::endpoint::{Endpoint, app_id, endpoint_id, source_id};
    use crate::core::event::{Event, EventMeta};
    use crate::core::id::EventId;
    use crate::core::retry::RetryPolicy;
    use crate::core::secret::Secret;
    use crate::core::signature::{Request, provider};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn job(profile: Profile, secret: Option<&str>, inbound: bool, fields: &[(&str, &[u8])]) -> Job {
        let endpoint = Endpoint {
            id: endpoint_id("default", "app"),
            name: "app".to_owned(),
            app: app_id("default"),
            app_name: "default".to_owned(),
            url: "http://127.0.0.1/".to_owned(),
            sources: vec![],
            event_types: vec![],
            secrets: secret.map(Secret::new).into_iter().collect(),
            profile,
            retry: RetryPolicy::default(),
            timeout_ms: 1_000,
            in_flight_max: 1,
        };
        let meta = EventMeta {
            id: EventId::from_u128(7),
            app: app_id("default"),
            source: inbound.then(|| source_id("stripe")),
            event_type: None,
            external_id: None,
            accepted_ms: 0,
            headers: fields.iter().copied().collect(),
            endpoints: vec![],
        };
        let event = Event { meta: meta.into(), body: Bytes::from_static(b"{\"a\": 1}\r\n\xff"), erased: false };
        Job { endpoint: Arc::new(endpoint), event: Arc::new(event), number: 3 }
    }

    fn built(job: &Job) -> Headers {
        let outgoing = build(job, &HeaderValue::from_static("postrider/test"), 1_614_265_330).unwrap();
        assert_eq!(outgoing.body, job.event.body);
        outgoing.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    #[test]
    fn what_is_sent_verifies() {
        for (profile, scheme) in
            [(Profile::StandardWebhooks, "standard_webhooks"), (Profile::Stripe, "stripe"), (Profile::GitHub, "github")]
        {
            let job =
                job(profile, Some(SECRET), true, &[("webhook-signature", b"v1,forged"), ("stripe-signature", b"t=1")]);
            let headers = built(&job);
            let request = Request { method: "POST", url: "", headers: &headers, body: &job.event.body };
            let secrets = [Secret::new(SECRET)];
            assert_eq!(provider(scheme).unwrap().verify(&secrets, &request, 1_614_265_330, None), Ok(()), "{scheme}");
        }
    }

    #[test]
    fn a_published_event_is_json_from_postrider() {
        let headers = built(&job(Profile::StandardWebhooks, Some(SECRET), false, &[]));
        assert_eq!(headers.one("content-type"), Ok(&b"application/json"[..]));
        assert_eq!(headers.one("user-agent"), Ok(&b"postrider/test"[..]));
        assert_eq!(headers.one("webhook-id"), Ok(EventId::from_u128(7).to_string().as_bytes()));
        assert_eq!(headers.one("webhook-timestamp"), Ok(&b"1614265330"[..]));
        assert_eq!(headers.one(ATTEMPT), Ok(&b"3"[..]));
        let text = built(&job(Profile::StandardWebhooks, Some(SECRET), false, &[("content-type", b"text/plain")]));
        assert_eq!(text.one("content-type"), Ok(&b"text/plain"[..]));
    }

    #[test]
    fn a_received_event_keeps_its_headers_but_those_that_must_not_pass() {
        let fields: [(&str, &[u8]); 15] = [
            ("content-type", b"application/json; charset=utf-8"),
            ("user-agent", b"Stripe/1.0"),
            ("x-twice", b"a"),
            ("x-twice", b" b,\tc"),
            ("x-raw", b"caf\xe9"),
            ("accept-encoding", b"gzip"),
            ("host", b"gateway"),
            ("authorization", b"Bearer x"),
            ("cookie", b"a=b"),
            ("content-length", b"999"),
            ("transfer-encoding", b"chunked"),
            ("connection", b"close, X-Hop"),
            ("connection", b"x-hop-2"),
            ("x-hop", b"1"),
            ("x-hop-2", b"1"),
        ];
        let headers = built(&job(Profile::StandardWebhooks, None, true, &fields));
        let names: Vec<_> = headers.iter().map(|(name, _)| name).collect();
        let expected = [
            "content-type",
            "user-agent",
            "x-twice",
            "x-twice",
            "x-raw",
            "accept-encoding",
            "webhook-id",
            "webhook-timestamp",
            "postrider-attempt",
        ];
        assert_eq!(names, expected);
        for (name, value) in &fields[..6] {
            assert!(headers.get_all(name).any(|have| have == *value), "{name}");
        }
    }

    #[test]
    fn a_received_event_without_content_type_or_agent_gets_no_content_type() {
        let headers = built(&job(Profile::StandardWebhooks, None, true, &[]));
        assert!(headers.one("content-type").is_err());
        assert_eq!(headers.one("user-agent"), Ok(&b"postrider/test"[..]));
    }

    #[test]
    fn colliding_headers_arrive_as_originals() {
        let fields: [(&str, &[u8]); 6] = [
            ("Webhook-Id", b"evt_1"),
            ("webhook-timestamp", b"1"),
            ("webhook-signature", b"v1,x"),
            ("postrider-attempt", b"99"),
            ("x-webhook-id", b"theirs"),
            ("postrider-original-webhook-id", b"forged"),
        ];
        for secret in [None, Some(SECRET)] {
            let headers = built(&job(Profile::XWebhook, secret, true, &fields));
            for (name, value) in fields {
                assert_eq!(headers.one(&format!("{ORIGINAL}{name}")), Ok(value), "{name}");
            }
            assert_eq!(headers.one(ATTEMPT), Ok(&b"3"[..]));
            assert!(headers.one("webhook-id").is_err());
            assert_eq!(headers.one("x-webhook-id"), Ok(EventId::from_u128(7).to_string().as_bytes()));
            assert_eq!(headers.one("x-webhook-signature").is_ok(), secret.is_some());
        }
    }
}
