//! A gateway without sockets or disks for tests of the engine: the store in memory, a courier that follows a script, and
//! time that jumps to the next timer whenever every task waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use postrider::core::attempt::{FailureKind, Outcome, Timings};
use postrider::core::delivery::{DeliveryId, DeliveryState};
use postrider::core::endpoint::{Catalog, DEFAULT_APP, Endpoint, app_id, endpoint_id};
use postrider::core::event::{NewEvent, body_fingerprint};
use postrider::core::headers::Headers;
use postrider::core::id::{EndpointId, EventId};
use postrider::core::limits::{DeliveryLimits, StoreLimits};
use postrider::core::retry::RetryPolicy;
use postrider::core::signature::Profile;
use postrider::engine::{Courier, Drained, Engine, EngineError, Job, Report, Stop};
use postrider::env::{Clock, Entropy, SeededEntropy};
use postrider::store::memory::MemoryStore;
use postrider::store::{Accepted, Store};
use postrider::telemetry::Metrics;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Unix milliseconds at which every test starts.
pub const START_MS: u64 = 1_700_000_000_000;

/// A clock on the runtime's paused time, whose wall can be stepped.
pub struct PausedClock {
    origin: tokio::time::Instant,
    wall_offset_ms: Mutex<i64>,
}

impl PausedClock {
    #[allow(clippy::disallowed_methods, reason = "the paused time of the test's runtime")]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { origin: tokio::time::Instant::now(), wall_offset_ms: Mutex::new(0) })
    }

    /// Steps the wall clock alone.
    pub fn step_wall(&self, by_ms: i64) {
        *self.wall_offset_ms.lock().unwrap() += by_ms;
    }
}

impl Clock for PausedClock {
    fn wall_ms(&self) -> u64 {
        (START_MS + self.mono_ms()).saturating_add_signed(*self.wall_offset_ms.lock().unwrap())
    }

    fn mono_ms(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }
}

/// Engine time as the gateway keeps it: the wall clock at the start, and the monotonic one from there.
fn engine_time(clock: Arc<dyn Clock>) -> impl Fn() -> u64 + Send + Sync {
    let (wall_ms, mono_ms) = (clock.wall_ms(), clock.mono_ms());
    move || wall_ms + clock.mono_ms() - mono_ms
}

/// What an endpoint does with an attempt.
pub enum Answer {
    /// Answers with this status after so many milliseconds.
    Status(u64, u16),
    /// Does not answer within so many milliseconds.
    Timeout(u64),
    /// The courier has a bug.
    Panic,
}

/// An attempt as the courier saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    pub endpoint: EndpointId,
    pub event: EventId,
    pub number: u32,
    pub at_ms: u64,
}

/// A courier that follows a script and takes notes.
pub struct Scripted {
    now: Box<dyn Fn() -> u64 + Send + Sync>,
    script: Box<dyn Fn(&Job) -> Answer + Send + Sync>,
    tried: Mutex<Vec<Tried>>,
    in_flight: Mutex<HashMap<EndpointId, usize>>,
    /// The most attempts at once: over all endpoints, and at one endpoint.
    most: Mutex<(usize, usize)>,
}

impl Scripted {
    pub fn tried(&self) -> Vec<Tried> {
        self.tried.lock().unwrap().clone()
    }

    pub fn most_in_flight(&self) -> (usize, usize) {
        *self.most.lock().unwrap()
    }

    fn begin(&self, job: &Job) {
        let (endpoint, event, number) = (job.endpoint.id, job.event.meta.id, job.number);
        self.tried.lock().unwrap().push(Tried { endpoint, event, number, at_ms: (self.now)() });
        let mut in_flight = self.in_flight.lock().unwrap();
        *in_flight.entry(endpoint).or_default() += 1;
        let mut most = self.most.lock().unwrap();
        most.0 = most.0.max(in_flight.values().sum());
        most.1 = most.1.max(in_flight[&endpoint]);
    }
}

impl Courier for Scripted {
    async fn attempt(&self, job: Job) -> Report {
        self.begin(&job);
        let outcome = match (self.script)(&job) {
            Answer::Status(after_ms, status) => {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                Outcome::Answered { status, retry_after_ms: None }
            }
            Answer::Timeout(after_ms) => {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                Outcome::Failed { kind: FailureKind::Timeout, detail: "no answer in time".to_owned() }
            }
            Answer::Panic => panic!("the script says so"),
        };
        *self.in_flight.lock().unwrap().get_mut(&job.endpoint.id).unwrap() -= 1;
        let (response_headers, response) = (Headers::new(), Bytes::new());
        let timings = Timings { total_us: 1_000, ..Timings::default() };
        Report { outcome, timings, remote: None, response_headers, response, response_truncated: false }
    }
}

pub fn ep(name: &str) -> EndpointId {
    endpoint_id(DEFAULT_APP, name)
}

/// An endpoint with the default schedule and limits.
pub fn endpoint(name: &str) -> Endpoint {
    Endpoint {
        id: ep(name),
        name: name.to_owned(),
        app: app_id(DEFAULT_APP),
        app_name: DEFAULT_APP.to_owned(),
        url: format!("http://{name}.example/"),
        sources: Vec::new(),
        event_types: Vec::new(),
        secrets: Vec::new(),
        profile: Profile::StandardWebhooks,
        retry: RetryPolicy::default(),
        timeout_ms: 30_000,
        in_flight_max: 64,
    }
}

/// A store, a courier and, once started, an engine between them.
pub struct World {
    pub store: Arc<MemoryStore>,
    pub courier: Arc<Scripted>,
    pub metrics: Arc<Metrics>,
    pub entropy: Arc<dyn Entropy>,
    pub limits: DeliveryLimits,
    catalog: Arc<Catalog>,
    looks: Arc<AtomicUsize>,
}

/// An engine that runs.
pub struct Running {
    stop: watch::Sender<Stop>,
    engine: JoinHandle<Result<Drained, EngineError>>,
}

impl World {
    pub fn new(
        clock: Arc<dyn Clock>,
        endpoints: Vec<Endpoint>,
        script: impl Fn(&Job) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let now = Box::new(engine_time(Arc::clone(&clock)));
        let looks = Arc::new(AtomicUsize::new(0));
        let (store_time, counted) = (engine_time(clock), Arc::clone(&looks));
        let store_time = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            store_time()
        };
        let (tried, in_flight, most) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self {
            store: Arc::new(MemoryStore::new(store_time, StoreLimits::default())),
            courier: Arc::new(Scripted { now, script: Box::new(script), tried, in_flight, most }),
            metrics: Arc::default(),
            entropy: Arc::new(SeededEntropy::new(7)),
            limits: DeliveryLimits::default(),
            catalog: Arc::new(Catalog::new(Vec::new(), endpoints)),
            looks,
        }
    }

    /// How often the store was asked for the time.
    pub fn looks(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }

    pub fn start(&self) -> Running {
        let (store, courier, catalog) = (Arc::clone(&self.store), Arc::clone(&self.courier), Arc::clone(&self.catalog));
        let (metrics, entropy) = (Arc::clone(&self.metrics), Arc::clone(&self.entropy));
        let engine = Engine::new(store, courier, catalog, self.limits.clone(), metrics, entropy);
        let (stop, stopped) = watch::channel(Stop::No);
        Running { stop, engine: tokio::spawn(engine.run(stopped)) }
    }

    /// An event for these endpoints.
    pub async fn accept(&self, endpoints: &[&str]) -> EventId {
        let event = NewEvent {
            app: app_id(DEFAULT_APP),
            source: None,
            event_type: Some("order.created".to_owned()),
            external_id: None,
            headers: Headers::new(),
            body: Bytes::from_static(b"{}"),
            fingerprint: body_fingerprint(b"{}"),
            dedup: Vec::new(),
            endpoints: endpoints.iter().map(|name| ep(name)).collect(),
        };
        match self.store.accept(event).await.unwrap() {
            Accepted::New { event } => event.meta.id,
            Accepted::Duplicate { .. } => panic!("no dedup key was given"),
        }
    }

    pub async fn state(&self, event: EventId, endpoint: &str) -> DeliveryState {
        let id = DeliveryId { endpoint: ep(endpoint), event };
        let deliveries = self.store.deliveries(event).await.unwrap().unwrap();
        deliveries.into_iter().find(|delivery| delivery.id == id).unwrap().state
    }
}

impl Running {
    pub fn say(&self, stop: Stop) {
        self.stop.send_replace(stop);
    }

    pub async fn end(self) -> Result<Drained, EngineError> {
        self.engine.await.unwrap()
    }
}

/// Lets so much time pass; everything that is due meanwhile happens.
pub async fn pass_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
