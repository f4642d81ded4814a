//! The management listener on a socket, over the store in memory, and a client that believes nothing: every JSON answer is
//! held against the OpenAPI document.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use postrider::api::{Api, Hosts, Phase, Readiness, serve};
use postrider::core::attempt::{Attempt, Outcome, Timings};
use postrider::core::delivery::{DeadReason, DeliveryId, DeliveryState, Next};
use postrider::core::endpoint::{Catalog, Endpoint, Source, app_id, endpoint_id, source_id};
use postrider::core::event::NewEvent;
use postrider::core::headers::Headers;
use postrider::core::id::{AttemptId, EndpointId, EventId};
use postrider::core::limits::{ApiLimits, StoreLimits};
use postrider::core::retry::RetryPolicy;
use postrider::core::secret::Secret;
use postrider::core::signature::{Profile, provider};
use postrider::store::memory::MemoryStore;
use postrider::store::{Accepted, Applied, Settle, Store};
use postrider::telemetry::{Gauge, Metrics};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::schema::Document;

/// The token that the gateway takes.
pub const TOKEN: &str = "test-token";

/// When the store's clock starts: 2026-01-31T12:00:00Z.
pub const NOON_MS: u64 = 1_769_860_800_000;

/// A gateway's management side.
pub struct Gateway {
    pub address: SocketAddr,
    pub store: Arc<MemoryStore>,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    clock: Arc<AtomicU64>,
    document: Document,
    _stop: watch::Sender<bool>,
}

/// An answer, its body complete.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("answers are UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| line.split_once(": ").filter(|(have, _)| have.eq_ignore_ascii_case(name)).is_some();
        self.head.lines().find(|l| line(l)).and_then(|l| l.split_once(": ")).map(|(_, value)| value)
    }

    /// Asserts a refusal with this status and code and returns its detail.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        let json = self.json();
        assert_eq!((self.status, json["code"].as_str()), (status, Some(code)), "{self:?}");
        json["detail"].as_str().expect("a problem has a detail").to_owned()
    }

    /// Asserts the status and returns the JSON.
    #[track_caller]
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

impl Gateway {
    /// A gateway with the default limits.
    pub async fn start() -> Self {
        Self::with_limits(ApiLimits::default()).await
    }

    /// A gateway with a store that holds keys for an hour, so that tests can see them end.
    pub async fn with_limits(limits: ApiLimits) -> Self {
        let clock = Arc::new(AtomicU64::new(NOON_MS));
        let now = Arc::clone(&clock);
        let store_limits = StoreLimits { dedup_ms: 3_600_000, ..StoreLimits::default() };
        let store = Arc::new(MemoryStore::new(move || now.load(Ordering::Relaxed), store_limits));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, readiness) = (Arc::new(Metrics::default()), Arc::new(Readiness::default()));
        readiness.enter(Phase::Ready);
        let api = Api {
            store: Arc::clone(&store),
            catalog: Arc::new(catalog()),
            token_sha256: Sha256::digest(TOKEN.as_bytes()).into(),
            hosts: Hosts::new(address, ["hooks.example".to_owned()]),
            limits,
            metrics: Arc::clone(&metrics),
            gauges: Box::new(|| vec![Gauge { name: "test_extra", help: "Extra.", kind: "gauge", value: 7.0 }]),
            readiness: Arc::clone(&readiness),
        };
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(serve(Arc::new(api), listener, 1_000, stopped));
        let document = Document::fetch(&request(address, "GET", "/api/v1/openapi.json", &[], None).await);
        Self { address, store, metrics, readiness, clock, document, _stop: stop }
    }

    /// Moves the store's clock on.
    pub fn pass_ms(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    /// A request with the token.
    pub async fn call(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        self.send(method, path, &[], body.map(str::as_bytes)).await
    }

    /// A GET with the token.
    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    /// A publication in the application `default`.
    pub async fn publish(&self, body: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("POST", "/api/v1/app/default/msg", headers, Some(body.as_bytes())).await
    }

    /// The id of a message that is published with this type.
    pub async fn published(&self, event_type: &str) -> String {
        let answer = self.publish(&format!(r#"{{"eventType":"{event_type}","payload":{{}}}}"#), &[]).await;
        answer.ok(202)["id"].as_str().unwrap().to_owned()
    }

    /// A request with the token and further headers; the answer is held against the contract.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let answer = request(self.address, method, path, headers, body).await;
        self.document.check(method, path, &answer);
        answer
    }

    /// Stores an event as the source `stripe` would.
    pub async fn receive(&self, body: &[u8], event_type: Option<&str>) -> EventId {
        let new = NewEvent {
            app: app_id("default"),
            source: Some(source_id("stripe")),
            event_type: event_type.map(str::to_owned),
            external_id: Some("evt_1".to_owned()),
            headers: Headers::new(),
            body: Bytes::copy_from_slice(body),
            dedup: Vec::new(),
            fingerprint: 0,
            endpoints: vec![endpoint_id("default", "app")],
        };
        match self.store.accept(new).await.unwrap() {
            Accepted::New { event } => event.meta.id,
            other => panic!("{other:?}"),
        }
    }

    /// Ends an attempt at a pending delivery with this HTTP status, or with a timeout.
    pub async fn settle(&self, message: &str, endpoint: &str, status: Option<u16>, response: &[u8], next: Next) {
        let event: EventId = message.parse().unwrap();
        let delivery = DeliveryId { endpoint: endpoint_of(endpoint), event };
        let deliveries = self.store.deliveries(event).await.unwrap().unwrap();
        let state = deliveries.iter().find(|d| d.id == delivery).unwrap().state;
        let DeliveryState::Pending(was) = state else { panic!("{state:?}") };
        let now_ms = self.store.now_ms();
        let outcome = match status {
            Some(status) => Outcome::Answered { status, retry_after_ms: None },
            None => Outcome::Failed {
                kind: postrider::core::attempt::FailureKind::Timeout,
                detail: "no answer in 30 s".to_owned(),
            },
        };
        let attempt = Attempt {
            id: AttemptId::at(now_ms, u128::from(was.attempts)),
            number: was.attempts + 1,
            started_ms: now_ms,
            ended_ms: now_ms + 5,
            timings: Timings { connect_us: Some(300), first_byte_us: Some(900), total_us: 1_000, ..Timings::default() },
            outcome,
            remote: Some("127.0.0.1:3000".to_owned()),
            response_headers: [("x-a", &b"1"[..]), ("x-b", b"\xff")].into_iter().collect(),
            response_truncated: false,
        };
        let settle = Settle { delivery, was, attempt, response: Bytes::copy_from_slice(response), next };
        assert_eq!(self.store.settle(settle).await.unwrap(), Applied::Ok);
    }

    /// Makes a pending delivery a dead letter.
    pub async fn kill(&self, message: &str, endpoint: &str) {
        let next = Next::Dead { reason: DeadReason::Rejected };
        self.settle(message, endpoint, Some(400), b"no", next).await;
    }
}

/// The id of an endpoint in the application `default`.
pub fn endpoint_of(name: &str) -> EndpointId {
    endpoint_id("default", name)
}

/// A request on a connection of its own. Headers named here replace the usual ones; an empty value leaves one out.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Answer {
    let (host, token) = (address.to_string(), format!("Bearer {TOKEN}"));
    let usual = [("host", host.as_str()), ("authorization", token.as_str()), ("connection", "close")];
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    let replaced = |name: &str| headers.iter().any(|(have, _)| *have == name);
    for (name, value) in usual.iter().filter(|(name, _)| !replaced(name)).chain(headers) {
        if !value.is_empty() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if let Some(body) = body {
        if !replaced("content-type") {
            head.push_str("content-type: application/json\r\n");
        }
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    raw(address, &[head.as_bytes(), body.unwrap_or_default()].concat()).await
}

/// Sends bytes and reads the one answer to them.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A refusal may come, and the connection end, before all is written.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), exchange).await.expect("an answer in time");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: answer[end + 4..].to_vec() }
}

fn catalog() -> Catalog {
    let stripe = Source {
        id: source_id("stripe"),
        name: "stripe".to_owned(),
        app: app_id("default"),
        app_name: "default".to_owned(),
        scheme: provider("stripe").unwrap(),
        secrets: vec![Secret::new("whsec_source_secret")],
        tolerance_s: Some(300),
    };
    let endpoints = vec![
        endpoint("default", "app", "http://127.0.0.1:3000/webhooks?token=hidden#x", &["stripe"], &["order.*"]),
        endpoint("default", "audit", "https://audit.example/in", &[], &["**"]),
        endpoint("acme", "app", "https://acme.example/in", &[], &["order.created"]),
    ];
    Catalog::new(vec![stripe], endpoints)
}

fn endpoint(app: &str, name: &str, url: &str, sources: &[&str], event_types: &[&str]) -> Endpoint {
    Endpoint {
        id: endpoint_id(app, name),
        name: name.to_owned(),
        app: app_id(app),
        app_name: app.to_owned(),
        url: url.to_owned(),
        sources: sources.iter().map(|name| source_id(name)).collect(),
        event_types: event_types.iter().map(|pattern| pattern.parse().unwrap()).collect(),
        secrets: vec![Secret::new("whsec_endpoint_secret")],
        profile: Profile::default(),
        retry: RetryPolicy::default(),
        timeout_ms: 2_500,
        in_flight_max: 4,
    }
}
