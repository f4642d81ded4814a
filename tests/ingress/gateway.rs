//! A listener to talk to, and a client that writes what it is told to, however wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postrider::core::endpoint::{Catalog, DEFAULT_APP, Endpoint, Source, app_id, endpoint_id, source_id};
use postrider::core::event::Event;
use postrider::core::headers::Headers;
use postrider::core::limits::{IngressLimits, StoreLimits};
use postrider::core::retry::RetryPolicy;
use postrider::core::secret::Secret;
use postrider::core::signature::{HmacConfig, Profile, Request, Scheme, provider};
use postrider::env::{Clock, ManualClock};
use postrider::ingress::Ingress;
use postrider::store::memory::MemoryStore;
use postrider::store::{EventQuery, Store};
use postrider::telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a test waits for what must come; far more than it takes, and an error when it passes.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const SECRET: &str = "whsec_kept_to_ourselves";
const NOW_MS: u64 = 1_700_000_000_000;

/// A running listener.
pub struct Gateway {
    pub addr: SocketAddr,
    pub store: Arc<MemoryStore>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<ManualClock>,
    pub stop: watch::Sender<bool>,
    pub served: JoinHandle<()>,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::with(IngressLimits::default()).await
    }

    pub async fn with(limits: IngressLimits) -> Self {
        Self::draining(limits, 20_000).await
    }

    /// With so many milliseconds for running requests when it is stopped.
    pub async fn draining(limits: IngressLimits, drain_ms: u64) -> Self {
        let clock = Arc::new(ManualClock::at(NOW_MS));
        let store_clock = Arc::clone(&clock);
        let store_limits = StoreLimits { batch_bytes_max: 600_000, ..StoreLimits::default() };
        let store = Arc::new(MemoryStore::new(move || store_clock.wall_ms(), store_limits));
        let metrics = Arc::new(Metrics::default());
        let (stop, stopped) = watch::channel(false);
        let ingress = Arc::new(Ingress::new(
            Arc::clone(&store),
            Arc::new(catalog()),
            limits,
            Arc::clone(&metrics),
            Arc::clone(&clock) as Arc<dyn Clock>,
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let served = tokio::spawn(ingress.serve(listener, drain_ms, stopped));
        Self { addr, store, metrics, clock, stop, served }
    }

    pub async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.addr).await.unwrap(), buffer: Vec::new() }
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    /// The signature's header lines for `body` sent to a source, as of now.
    pub fn signed(&self, source: &str, body: &[u8]) -> String {
        self.signed_for(source, "", body)
    }

    /// The same for a provider that was given this URL.
    pub fn signed_for(&self, source: &str, url: &str, body: &[u8]) -> String {
        let request = Request { method: "POST", url, headers: &Headers::new(), body };
        let now_s = (self.clock.wall_ms() / 1_000) as i64;
        let fields = scheme(source).sign(&Secret::new(SECRET), &request, now_s).unwrap();
        fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
    }

    /// A whole signed request to `/in/stripe`.
    pub fn request(&self, body: &[u8]) -> Vec<u8> {
        request("stripe", &self.signed("stripe", body), body)
    }

    /// All that was stored, newest first.
    pub async fn stored(&self) -> Vec<Arc<Event>> {
        self.store.events(EventQuery { limit: 1_000, ..EventQuery::default() }).await.unwrap().data
    }
}

/// A whole request to a source with the given header lines.
pub fn request(source: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST /in/{source} HTTP/1.1\r\nHost: gateway\r\n{fields}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn scheme(source: &str) -> Scheme {
    let by_url = r#"
        header = "x-signature"
        message = "{url}|{body}"
        id = { header = "x-id" }
    "#;
    match provider(source) {
        Some(scheme) => scheme,
        None => Scheme::try_from(toml::from_str::<HmacConfig>(by_url).unwrap()).unwrap(),
    }
}

fn catalog() -> Catalog {
    let source = |name: &str| Source {
        id: source_id(name),
        name: name.to_owned(),
        app: app_id(DEFAULT_APP),
        app_name: DEFAULT_APP.to_owned(),
        scheme: scheme(name),
        secrets: vec![Secret::new(SECRET)],
        tolerance_s: None,
    };
    let endpoint = Endpoint {
        id: endpoint_id(DEFAULT_APP, "app"),
        name: "app".to_owned(),
        app: app_id(DEFAULT_APP),
        app_name: DEFAULT_APP.to_owned(),
        url: "http://127.0.0.1:3000/".to_owned(),
        sources: vec![source_id("stripe")],
        event_types: vec![],
        secrets: vec![],
        profile: Profile::StandardWebhooks,
        retry: RetryPolicy::default(),
        timeout_ms: 1_000,
        in_flight_max: 1,
    };
    let sources = ["stripe", "github", "by-url"].map(source).into();
    Catalog::new(sources, vec![endpoint])
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header; the server writes names in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// A field of the JSON body.
    pub fn field(&self, name: &str) -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(&self.body).unwrap_or_default()[name].clone()
    }

    pub fn code(&self) -> String {
        self.field("code").as_str().unwrap_or_default().to_owned()
    }

    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl Client {
    /// Sends bytes; a server that has closed already is what some tests are about.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("the server reads").is_ok()
    }

    /// Closes the sending side.
    pub async fn finish_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The next answer; interim ones (1xx) are answers too.
    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer before the end of the connection")
    }

    /// The next answer, or `None` when the connection ended without one.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        let end = loop {
            match self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None if self.more().await => {}
                None => return None,
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.buffer.len() < length {
            assert!(self.more().await, "the body ends early: {answer:?}");
        }
        answer.body = String::from_utf8(self.buffer.drain(..length).collect()).unwrap();
        Some(answer)
    }

    /// Waits for the server to close; false when it sends something instead.
    pub async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        read.expect("the server answers or closes in time").unwrap_or(0) > 0
    }
}
