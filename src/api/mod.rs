//! The management listener: publishing, looking things up, replaying, health and metrics.
//!
//! | file | owns |
//! |---|---|
//! | `route` | the table of methods and paths |
//! | `auth` | Host names, the token, requests from foreign pages |
//! | `input` | query parameters and JSON fields, each taken by name |
//! | `paging` | iterators and pages |
//! | `problem` | refusals |
//! | `shapes` | every JSON answer |
//! | `publish`, `messages`, `dead`, `replay`, `endpoints`, `backup`, `ops` | the handlers |
//! | `openapi.json` | the contract, which a test holds against the table |
//!
//! **Invariants**
//! - Wire names are made in `shapes` and read in the handlers, nowhere else. They are Svix's where the API speaks Svix's.
//! - Everything under `/api/` wants the token; an unauthenticated request learns not even which paths exist.
//! - What a request holds is honoured or refused by name, never ignored.

mod auth;
mod backup;
mod dead;
mod endpoints;
mod input;
mod messages;
mod ops;
mod paging;
mod problem;
mod publish;
mod replay;
mod route;
mod shapes;

pub use auth::Hosts;
pub use backup::BACKUP_BYTES;
pub use ops::{Gauges, Phase, Readiness};

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::input::Query;
use self::problem::{Answer, Problem};
use self::route::{Found, Target};
use crate::core::endpoint::Catalog;
use crate::core::id::AppId;
use crate::core::limits::ApiLimits;
use crate::http::{self, BodyLimits, Reply, ServerLimits};
use crate::store::Store;
use crate::telemetry::Metrics;

/// Milliseconds for a body to arrive.
const BODY_TIMEOUT_MS: u64 = 10_000;

/// Bytes per second below which a body is too slow.
const BODY_RATE_MIN_BYTES_S: u64 = 1 << 10;

/// Methods that some path has, for a 405 about a method that none has.
const METHODS: &str = "GET, HEAD, POST, DELETE";

/// Answers requests on the management listener.
pub struct Api<S> {
    /// Where events are.
    pub store: Arc<S>,
    /// Sources, endpoints and applications.
    pub catalog: Arc<Catalog>,
    /// SHA-256 of the token.
    pub token_sha256: [u8; 32],
    /// The Host names it answers to.
    pub hosts: Hosts,
    /// Its limits.
    pub limits: ApiLimits,
    /// Where it counts, and what `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Figures of other parts of the gateway for `/metrics`.
    pub gauges: Gauges,
    /// What `/readyz` says.
    pub readiness: Arc<Readiness>,
}

/// A request that has been let in. All but the body is borrowed from its head, which stays where it is.
struct Call<'a> {
    parameters: Vec<Cow<'a, str>>,
    query: Query<'a>,
    headers: &'a HeaderMap,
    body: Incoming,
}

impl Call<'_> {
    /// The `n`-th parameter of the path.
    fn parameter(&self, n: usize) -> &str {
        // The table's pattern decides how many there are, and the handler is chosen by the table.
        self.parameters.get(n).map_or("", AsRef::as_ref)
    }
}

/// Serves `api` on `listener` until `stop` turns true; requests that run then get `drain_ms`.
pub async fn serve<S: Store>(api: Arc<Api<S>>, listener: TcpListener, drain_ms: u64, stop: watch::Receiver<bool>) {
    let limits = ServerLimits { connections_max: api.limits.connections_max, drain_ms, ..ServerLimits::default() };
    let handler = move |request, _| Arc::clone(&api).handle(request);
    http::serve(listener, limits, handler, stop).await;
}

impl<S: Store> Api<S> {
    /// Answers one request, within [`request_timeout_ms`](ApiLimits::request_timeout_ms).
    pub fn handle(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Reply> + Send {
        // Taken apart here, as an `async fn` would hold the request twice, whole and in parts, and it is moved around.
        let (head, body) = request.into_parts();
        async move {
            let reply = match http::check_head(&head, ServerLimits::default().header_bytes_max) {
                Ok(()) => self.answer(&head, body).await.unwrap_or_else(|problem| {
                    self.metrics.refused.inc(problem.code());
                    problem.into()
                }),
                Err(error) => {
                    self.metrics.refused.inc(error.code());
                    error.reply(METHODS)
                }
            };
            guarded(reply)
        }
    }

    async fn answer(&self, head: &Parts, body: Incoming) -> Answer {
        let (target, call) = self.admit(head, body)?;
        let timeout_ms = self.limits.request_timeout_ms;
        tokio::time::timeout(Duration::from_millis(timeout_ms), self.dispatch(target, call))
            .await
            .unwrap_or_else(|_| Err(Problem::too_slow(timeout_ms)))
    }

    /// Who asks, and for what.
    fn admit<'a>(&self, head: &'a Parts, body: Incoming) -> Result<(Target, Call<'a>), Problem> {
        auth::check_host(&self.hosts, &head.headers)?;
        let found = route::find(&head.method, head.uri.path());
        if !matches!(found, Found::Target(target, _) if target.is_public()) {
            auth::check_token(&self.token_sha256, &head.headers)?;
        }
        auth::check_origin(&head.method, &head.headers)?;
        let (target, parameters) = match found {
            Found::Target(target, parameters) => (target, parameters),
            Found::OtherMethods(methods) => return Err(Problem::method_not_allowed(&methods)),
            Found::Nothing => return Err(Problem::unknown("not_found", "there is nothing at this path")),
        };
        // Probes and scrapers may add parameters of their own; everyone else is told of them.
        let query = Query::parse(head.uri.query().filter(|_| !target.is_public()))?;
        Ok((target, Call { parameters, query, headers: &head.headers, body }))
    }

    async fn dispatch(&self, target: Target, call: Call<'_>) -> Answer {
        // Boxed but for a publication, as its future, which is moved a few times, would be as large as the largest of them.
        match target {
            Target::Health => Ok(ops::health()),
            Target::Ready => Ok(self.ready()),
            Target::Metrics => Ok(self.metrics_page()),
            Target::OpenApi => ops::openapi(call),
            Target::Publish => self.publish(call).await,
            Target::Messages => Box::pin(self.list_messages(call)).await,
            Target::Message => Box::pin(self.show_message(call)).await,
            Target::Deliveries => Box::pin(self.list_deliveries(call)).await,
            Target::Attempts => Box::pin(self.list_attempts(call)).await,
            Target::Erase => Box::pin(self.erase(call)).await,
            Target::DeadLetters => Box::pin(self.list_dead(call)).await,
            Target::Replay => Box::pin(self.replay(call)).await,
            Target::Endpoints => self.list_endpoints(call),
            Target::Enable => Box::pin(self.set_enabled(call, true)).await,
            Target::Disable => Box::pin(self.set_enabled(call, false)).await,
            Target::Backup => Box::pin(self.backup(call)).await,
            Target::Sources => self.list_sources(call),
        }
    }

    /// The application of a path, by name or id.
    fn app(&self, text: &str) -> Result<AppId, Problem> {
        self.catalog.app(text).ok_or_else(|| {
            let detail =
                format!("there is no application {:?}; it exists once an endpoint names it", input::shown(text));
            Problem::unknown("unknown_application", detail)
        })
    }

    /// The body of a request that must be JSON.
    async fn read_json(&self, headers: &HeaderMap, body: Incoming) -> Result<Bytes, Problem> {
        check_content_type(headers)?;
        let limits = BodyLimits {
            bytes_max: self.limits.body_bytes_max,
            // Half of the request's time, so that a slow body is told from a slow store.
            timeout_ms: BODY_TIMEOUT_MS.min(self.limits.request_timeout_ms / 2),
            rate_min_bytes_s: BODY_RATE_MIN_BYTES_S,
        };
        Ok(http::read_body(body, &limits).await?)
    }
}

/// Only what is JSON is read as JSON. None is taken for it, as the smallest clients send none.
fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let is_json = |value: &HeaderValue| {
        if value == "application/json" {
            return true;
        }
        let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    };
    if headers.get_all(CONTENT_TYPE).iter().all(is_json) {
        return Ok(());
    }
    let detail = "expected the content-type application/json";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}

/// What every answer says to browsers: nothing here is to be kept, or taken for something that it does not say it is.
fn guarded(mut reply: Reply) -> Reply {
    let headers = reply.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// The publisher's key for repeating a request safely.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
