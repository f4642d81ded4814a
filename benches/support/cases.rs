//! The pure parts, each as something that can be done again and again: what `micro` times and `counted` counts. Each runs at
//! least once per event or attempt, so their sum is the least that the gateway's own code costs.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use postrider::core::attempt::Outcome;
use postrider::core::delivery::{DeliveryId, Next, Pending, next_after};
use postrider::core::endpoint::{Catalog, Endpoint, app_id, endpoint_id};
use postrider::core::event::{DedupKey, DedupScope, EventMeta, body_fingerprint};
use postrider::core::fact::{DedupEntry, Fact};
use postrider::core::headers::Headers;
use postrider::core::id::EventId;
use postrider::core::pattern::Pattern;
use postrider::core::retry::RetryPolicy;
use postrider::core::secret::Secret;
use postrider::core::signature::{self, Profile, Request};
use postrider::index;
use postrider::journal::{Journal, Options, RecordRef};

use super::attempt::attempt;
use super::nowhere::NoDisk;

/// Bytes of a body, as in the gateway's bench.
const BODY_BYTES: usize = 1_024;

/// Records of a batch: what 64 connections bring at once.
const BATCH: usize = 64;

/// Batches of one journal, which then fill less than a segment.
const BATCHES: u64 = 512;

/// Endpoints of the application whose events are matched.
const ENDPOINTS: usize = 100;

/// The time that is signed.
const UNIX_S: i64 = 1_700_000_000;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Something that can be done again and again.
pub struct Case {
    /// What it belongs to, and what it is.
    pub name: String,
    /// Does it once.
    pub run: Box<dyn FnMut()>,
}

/// Keeps the compiler from leaving out what nobody looks at.
fn case<T>(name: impl Into<String>, mut run: impl FnMut() -> T + 'static) -> Case {
    let run = move || drop(black_box(run()));
    Case { name: name.into(), run: Box::new(run) }
}

/// All of them.
pub fn all() -> Vec<Case> {
    [signing(), verifying(), facts(), keys(), matching(), schedule(), frames()].into_iter().flatten().collect()
}

fn body() -> Vec<u8> {
    let start = r#"{"id":"evt_000000000001","type":"invoice.paid","data":""#;
    format!("{start}{}\"}}", "x".repeat(BODY_BYTES - start.len() - 2)).into_bytes()
}

fn event_id() -> EventId {
    EventId::at(1_700_000_000_000, 7)
}

fn delivery() -> DeliveryId {
    DeliveryId { endpoint: endpoint_id("default", "app"), event: event_id() }
}

fn dedup_key() -> DedupKey {
    DedupKey::new(DedupScope::Inbound, 7, "evt_000000000001")
}

fn signed(profile: Profile, body: &[u8]) -> Headers {
    let mut headers: Headers = [("host", "hooks.example"), ("user-agent", "x")].into_iter().collect();
    for (name, value) in profile.headers(&[Secret::new(SECRET)], &event_id().to_string(), UNIX_S, body).unwrap() {
        headers.push(name, value.as_bytes());
    }
    headers
}

fn signing() -> Vec<Case> {
    let sign = |profile: Profile| {
        let (body, secrets, id) = (body(), [Secret::new(SECRET)], event_id().to_string());
        case(format!("signature/sign {}", profile.name()), move || {
            profile.headers(&secrets, &id, UNIX_S, black_box(&body)).unwrap()
        })
    };
    [Profile::StandardWebhooks, Profile::Stripe, Profile::GitHub].map(sign).into()
}

fn verifying() -> Vec<Case> {
    let mut cases = Vec::new();
    for (provider, profile) in
        [("standard_webhooks", Profile::StandardWebhooks), ("stripe", Profile::Stripe), ("github", Profile::GitHub)]
    {
        // What a case looks at lives as long as the case does.
        let (body, secrets) = (body(), [Secret::new(SECRET)]);
        let headers = signed(profile, &body);
        let scheme = Arc::new(signature::provider(provider).unwrap());
        let (same_scheme, same_headers, same_body) = (Arc::clone(&scheme), headers.clone(), body.clone());
        cases.push(case(format!("signature/verify {provider}"), move || {
            scheme.verify(&secrets, &request(&headers, black_box(&body)), UNIX_S, None).unwrap();
        }));
        cases.push(case(format!("signature/identity {provider}"), move || {
            same_scheme.identity(&request(&same_headers, black_box(&same_body)))
        }));
    }
    let body = body();
    cases.push(case("signature/fingerprint", move || body_fingerprint(black_box(&body))));
    cases.push(case("signature/dedup key", dedup_key));
    cases
}

fn request<'a>(headers: &'a Headers, body: &'a [u8]) -> Request<'a> {
    Request { method: "POST", url: "https://hooks.example/in/x", headers, body }
}

fn accepted() -> Fact {
    let fields = [("content-type", "application/json"), ("user-agent", "Stripe/1.0"), ("stripe-signature", SECRET)];
    let meta = EventMeta {
        id: event_id(),
        app: app_id("default"),
        source: None,
        event_type: Some("invoice.paid".into()),
        external_id: Some("evt_000000000001".into()),
        accepted_ms: event_id().ms(),
        headers: fields.into_iter().collect(),
        endpoints: vec![endpoint_id("default", "app")],
    };
    Fact::Accepted {
        meta: meta.into(),
        dedup: vec![dedup_key()],
        dedup_expires_ms: event_id().ms() + 1,
        fingerprint: 7,
    }
}

fn settled() -> Fact {
    let at_ms = event_id().ms();
    Fact::Settled { delivery: delivery(), was: Pending::fresh(at_ms), attempt: attempt(at_ms), next: Next::Delivered }
}

fn facts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, fact) in [("accepted", accepted()), ("settled", settled())] {
        let (kind, mut bytes) = (fact.kind(), Vec::new());
        fact.encode_into(&mut bytes);
        let mut buffer = Vec::new();
        cases.push(case(format!("record/encode {name}"), move || {
            buffer.clear();
            black_box(&fact).encode_into(&mut buffer);
        }));
        cases.push(case(format!("record/decode {name}"), move || Fact::decode(kind, black_box(&bytes)).unwrap()));
    }
    cases
}

fn keys() -> Vec<Case> {
    let (id, pending) = (delivery(), Pending { due_ms: 1_700_000_060_000, attempts: 1, failures: 1 });
    let (due_key, due_value) = (index::due::key(id.endpoint, pending.due_ms, id.event), index::due::value(&pending));
    let (dedup, entry) = (dedup_key(), DedupEntry { event: id.event, fingerprint: 7, expires_ms: 9 });
    let (dedup_key, dedup_value) = (index::dedup::key(&dedup), index::dedup::value(&entry));
    vec![
        case("key/encode due", move || {
            (index::due::key(id.endpoint, pending.due_ms, black_box(id.event)), index::due::value(&pending))
        }),
        case("key/decode due", move || {
            (index::due::parse_key(black_box(&due_key)), index::due::parse_value(pending.due_ms, black_box(&due_value)))
        }),
        case("key/encode dedup", move || (index::dedup::key(black_box(&dedup)), index::dedup::value(&entry))),
        case("key/decode dedup", move || {
            (index::dedup::parse_key(black_box(&dedup_key)), index::dedup::parse_value(black_box(&dedup_value)))
        }),
    ]
}

fn matching() -> Vec<Case> {
    let pattern = |text: &str| {
        let parsed: Pattern = text.parse().unwrap();
        case(format!("matching/{text}"), move || parsed.matches(black_box("invoice.paid")))
    };
    let mut cases: Vec<_> = ["invoice.paid", "invoice.*", "**", "*.*.failed"].map(pattern).into();
    let catalog = Catalog::new(Vec::new(), (0..ENDPOINTS).map(endpoint).collect());
    let app = app_id("default");
    cases.push(case(format!("matching/{ENDPOINTS} endpoints"), move || {
        catalog.takers_of_type(app, black_box("invoice.paid"))
    }));
    cases
}

/// One in ten takes what is matched.
fn endpoint(n: usize) -> Endpoint {
    let (name, takes) =
        (format!("endpoint-{n}"), if n.is_multiple_of(10) { "invoice.*" } else { "customer.*.created" });
    Endpoint {
        id: endpoint_id("default", &name),
        name,
        app: app_id("default"),
        app_name: "default".into(),
        url: "https://hooks.example/".into(),
        sources: Vec::new(),
        event_types: vec![takes.parse().unwrap()],
        secrets: Vec::new(),
        profile: Profile::StandardWebhooks,
        retry: RetryPolicy::default(),
        timeout_ms: 15_000,
        in_flight_max: 64,
    }
}

fn schedule() -> Vec<Case> {
    let (policy, same_policy) = (RetryPolicy::default(), RetryPolicy::default());
    let failed = Outcome::Answered { status: 503, retry_after_ms: None };
    vec![
        case("schedule/delay", move || policy.delay_ms(black_box(3), 0.5)),
        case("schedule/next after a failure", move || {
            next_after(black_box(&failed), &same_policy, black_box(3), 1_700_000_000_000, 0.5)
        }),
        case("schedule/event id as text", || black_box(event_id()).to_string()),
    ]
}

fn frames() -> Vec<Case> {
    let (fact, body, mut meta) = (accepted(), body(), Vec::new());
    fact.encode_into(&mut meta);
    let open = || Journal::open(Arc::new(NoDisk), Path::new("none"), Options::default(), 1, 1).unwrap().0;
    let mut journal = open();
    vec![case(format!("journal/frame of {BATCH} records"), move || {
        if journal.next_sequence() > BATCHES {
            journal = open();
        }
        let record = RecordRef { kind: fact.kind(), key: fact.key(), meta: &meta, body: &body };
        journal.append_batch(1, black_box(&[record; BATCH])).unwrap();
        journal.sync().unwrap();
    })]
}
