//! The endpoints of the demo: a small HTTP server that notes every request and answers by the endpoint's character.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::cli::exit::{self, Failure};
use crate::core::headers::Headers;
use crate::core::secret::Secret;
use crate::core::signature::{self, Scheme, provider};
use crate::env::{Clock as _, RealClock};
use crate::http::{self, BodyLimits, Reply, ServerLimits};

/// Takes what Stripe sent, at once.
pub(super) const APP: &str = "app";
/// Takes every event at once.
pub(super) const STEADY: &str = "steady";
/// Fails twice, then takes.
pub(super) const FLAKY: &str = "flaky";
/// Fails until it is mended.
pub(super) const BROKEN: &str = "broken";

/// Requests that [`FLAKY`] fails.
const FLAKY_FAILURES: usize = 2;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Received {
    /// The endpoint's name.
    pub(super) endpoint: String,
    /// The gateway's id of the message.
    pub(super) id: String,
    pub(super) body: Bytes,
    /// The gateway's signature is right.
    pub(super) signed: bool,
    /// The provider's own signature, passed through, is right.
    pub(super) signed_by_provider: bool,
}

/// The server.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    port: u16,
    /// Serves in the background for as long as it is held.
    _runtime: Runtime,
    _stop: watch::Sender<bool>,
}

struct Shared {
    received: Mutex<Vec<Received>>,
    flaky: AtomicUsize,
    mended: AtomicBool,
    scheme: Scheme,
    secret: Secret,
    provider: Scheme,
    provider_secret: Secret,
    clock: RealClock,
}

impl Receiver {
    /// Listens on a free port; `secret` is what the gateway signs with, `provider_secret` what Stripe does.
    pub(super) fn start(secret: Secret, provider_secret: Secret) -> Result<Self, Failure> {
        let io = |error: std::io::Error| Failure::new(exit::BIND, format_args!("starting the receiver: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(io)?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).map_err(io)?;
        let port = listener.local_addr().map_err(io)?.port();
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            flaky: AtomicUsize::new(0),
            mended: AtomicBool::new(false),
            scheme: scheme("standard_webhooks"),
            secret,
            provider: scheme("stripe"),
            provider_secret,
            clock: RealClock::new(),
        });
        let (stop, stopped) = watch::channel(false);
        let handler = {
            let shared = Arc::clone(&shared);
            move |request, _| {
                let shared = Arc::clone(&shared);
                async move { shared.answer(request).await }
            }
        };
        runtime.spawn(http::serve(listener, ServerLimits::default(), handler, stopped));
        Ok(Self { shared, port, _runtime: runtime, _stop: stop })
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// What came so far, in order.
    pub(super) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on [`BROKEN`] takes what comes.
    pub(super) fn mend(&self) {
        self.shared.mended.store(true, Ordering::SeqCst);
    }
}

fn scheme(id: &str) -> Scheme {
    provider(id).expect("it is a row of the table of built-in providers")
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let limits = BodyLimits { bytes_max: 1 << 20, timeout_ms: 10_000, rate_min_bytes_s: 0 };
        let body = match http::read_body(body, &limits).await {
            Ok(body) => body,
            Err(error) => return http::problem(StatusCode::BAD_REQUEST, "bad_body", error.to_string()),
        };
        let headers: Headers = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let endpoint = head.uri.path().trim_start_matches('/').to_owned();
        let id = headers.one("webhook-id").map(|id| String::from_utf8_lossy(id).into_owned()).unwrap_or_default();
        let signed = self.is_signed(&self.scheme, &self.secret, &headers, &body);
        let signed_by_provider = self.is_signed(&self.provider, &self.provider_secret, &headers, &body);
        let takes = match endpoint.as_str() {
            FLAKY => self.flaky.fetch_add(1, Ordering::SeqCst) >= FLAKY_FAILURES,
            BROKEN => self.mended.load(Ordering::SeqCst),
            _ => true,
        };
        let received = Received { endpoint, id, body, signed, signed_by_provider };
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
        if takes {
            http::json(StatusCode::OK, &json!({ "taken": true }))
        } else {
            http::problem(StatusCode::INTERNAL_SERVER_ERROR, "out_of_order", "try again later")
        }
    }

    fn is_signed(&self, scheme: &Scheme, secret: &Secret, headers: &Headers, body: &[u8]) -> bool {
        let request = signature::Request { method: "POST", url: "", headers, body };
        scheme.verify(std::slice::from_ref(secret), &request, self.clock.wall_s(), None).is_ok()
    }
}
