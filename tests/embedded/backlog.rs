//! A dead endpoint with a huge backlog, in the real store under a running engine: the others are served as if it were not
//! there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postrider::core::attempt::{Outcome, Timings};
use postrider::core::delivery::{Next, Pending};
use postrider::core::endpoint::{Catalog, DEFAULT_APP, Endpoint, app_id};
use postrider::core::headers::Headers;
use postrider::core::id::EndpointId;
use postrider::core::limits::{DeliveryLimits, StoreLimits};
use postrider::core::retry::RetryPolicy;
use postrider::core::signature::Profile;
use postrider::engine::{Courier, Engine, Job, Report, Stop};
use postrider::env::{RealClock, RealEntropy};
use postrider::store::Store;
use postrider::store::embedded::{EmbeddedStore, Opening};
use postrider::telemetry::Metrics;
use tokio::sync::{Notify, watch};

use crate::support::{accept, applied, body_of, delivery, endpoint, event_with, pending_state, settle};

/// The endpoint that never answers; the ones below it do at once.
const DEAD: usize = 3;

/// Events of one measurement.
const ROUND: u64 = 1_500;

/// Calls at once, for filling and for measuring.
const CALLERS: u64 = 256;

/// What the others must keep of their throughput, in at least one of so many pairs of measurements: a machine that does
/// other things meanwhile must not fail the test, and a backlog that costs something fails all of them.
const RATIO_MIN: f64 = 0.7;
const PAIRS: usize = 6;

/// `POSTRIDER_BACKLOG` asks for another backlog than the ordinary one; 200000 is what was promised.
fn backlog_wanted() -> u64 {
    std::env::var("POSTRIDER_BACKLOG").map_or(30_000, |count| count.parse().unwrap())
}

/// Delivers to everyone but the dead one.
#[derive(Default)]
struct Wire {
    delivered: AtomicU64,
    news: Notify,
    hanging: Mutex<HashMap<EndpointId, usize>>,
}

impl Courier for Wire {
    async fn attempt(&self, job: Job) -> Report {
        if job.endpoint.id == endpoint(DEAD) {
            *self.hanging.lock().unwrap().entry(job.endpoint.id).or_default() += 1;
            std::future::pending::<()>().await;
        }
        self.delivered.fetch_add(1, Ordering::SeqCst);
        self.news.notify_one();
        Report {
            outcome: Outcome::Answered { status: 200, retry_after_ms: None },
            timings: Timings::default(),
            remote: None,
            response_headers: Headers::new(),
            response: bytes::Bytes::new(),
            response_truncated: false,
        }
    }
}

fn known_endpoint(n: usize) -> Endpoint {
    Endpoint {
        id: endpoint(n),
        name: format!("endpoint-{n}"),
        app: app_id(DEFAULT_APP),
        app_name: DEFAULT_APP.to_owned(),
        url: format!("http://endpoint-{n}.example/"),
        sources: Vec::new(),
        event_types: Vec::new(),
        secrets: Vec::new(),
        profile: Profile::StandardWebhooks,
        retry: RetryPolicy::default(),
        timeout_ms: 30_000,
        in_flight_max: 64,
    }
}

/// A store on the machine's own clock and disk.
struct Gateway {
    store: Arc<EmbeddedStore>,
    wire: Arc<Wire>,
    _stop: watch::Sender<Stop>,
    _dir: tempfile::TempDir,
}

impl Gateway {
    /// Opens a store, gives the dead endpoint its backlog, and starts the engine.
    async fn with_backlog(count: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let opening = Opening {
            data: dir.path().to_owned(),
            limits: StoreLimits { free_bytes_min: 0, ..StoreLimits::default() },
            clock: Arc::new(RealClock::new()),
            entropy: Arc::new(RealEntropy),
            rebuild: false,
            progress: &mut |_, _| {},
        };
        let store = Arc::new(EmbeddedStore::open(opening).unwrap());
        together(count, |n| {
            let store = Arc::clone(&store);
            async move {
                let event = accept(&*store, event_with(&[DEAD], &body_of(n, 64), &[])).await;
                // Some were tried before and wait for their next time.
                if n % 20 == 0 {
                    let (id, was) = (delivery(DEAD, event.meta.id), Pending::fresh(event.meta.accepted_ms));
                    settle(&*store, id, was, Next::Retry { due_ms: store.now_ms() + 3_600_000 }).await;
                    assert_eq!(pending_state(&*store, id).await.failures, 1);
                }
            }
        })
        .await;
        assert_eq!(store.stats().pending, count);
        applied(&store).await;
        let wire = Arc::new(Wire::default());
        let catalog = Catalog::new(Vec::new(), (0..=DEAD).map(known_endpoint).collect());
        let (metrics, entropy) = (Arc::new(Metrics::default()), Arc::new(RealEntropy));
        let limits = DeliveryLimits::default();
        let engine = Engine::new(Arc::clone(&store), Arc::clone(&wire), Arc::new(catalog), limits, metrics, entropy);
        let (stop, stopped) = watch::channel(Stop::No);
        tokio::spawn(engine.run(stopped));
        Self { store, wire, _stop: stop, _dir: dir }
    }

    /// Accepts a round of events for the others; how long it takes until each has arrived.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    async fn round(&self) -> Duration {
        let begin = Instant::now();
        let before = self.wire.delivered.load(Ordering::SeqCst);
        together(ROUND, |n| {
            let store = Arc::clone(&self.store);
            async move { drop(accept(&*store, event_with(&[n as usize % DEAD], &body_of(n, 1_024), &[])).await) }
        })
        .await;
        let arrived = async {
            while self.wire.delivered.load(Ordering::SeqCst) < before + ROUND {
                self.wire.news.notified().await;
            }
        };
        assert!(tokio::time::timeout(crate::support::PATIENCE, arrived).await.is_ok(), "the others starve");
        begin.elapsed()
    }
}

/// Does a thing so often, by so many callers.
async fn together<F: Future<Output = ()> + Send + 'static>(count: u64, call: impl Fn(u64) -> F) {
    let calls = Arc::new(Mutex::new((0..count).map(call).collect::<Vec<_>>()));
    let callers: Vec<_> = (0..CALLERS.min(count))
        .map(|_| {
            let calls = Arc::clone(&calls);
            tokio::spawn(async move {
                loop {
                    let Some(call) = calls.lock().unwrap().pop() else { return };
                    call.await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_endpoints_backlog_leaves_the_others_throughput_as_it_was() {
    let backlog = backlog_wanted();
    let (free, loaded) = (Gateway::with_backlog(0).await, Gateway::with_backlog(backlog).await);
    let mut ratios = Vec::new();
    // Both have been through everything once before it counts.
    free.round().await;
    loaded.round().await;
    while ratios.len() < PAIRS && ratios.iter().all(|ratio| *ratio < RATIO_MIN) {
        let (without, with) = (free.round().await, loaded.round().await);
        ratios.push(without.as_secs_f64() / with.as_secs_f64());
        eprintln!("{ROUND} events: {without:?} without and {with:?} with a backlog of {backlog}");
    }
    assert!(ratios.iter().any(|ratio| *ratio >= RATIO_MIN), "the backlog costs the others: {ratios:.2?}");
    // The dead one got what one endpoint may have, and not more; its backlog is all there.
    assert_eq!(loaded.wire.hanging.lock().unwrap()[&endpoint(DEAD)], 64);
    crate::support::until("settles", async || free.store.stats().pending == 0).await;
    crate::support::until("settles", async || loaded.store.stats().pending == backlog).await;
}
