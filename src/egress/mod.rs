//! From the gateway to the endpoints: one HTTP request per attempt, to an address that may be reached, within limits.
//!
//! ```text
//!   Job ─▶ request: headers, signature ─▶ pool: an open connection? ──yes──▶ exchange ─▶ Report
//!                                            │ no, or it broke unanswered        ▲
//!                                            ▼                                  │
//!                            connect: resolve ▶ guard ▶ TCP ▶ TLS ▶ HTTP ───────┘
//! ```
//!
//! **Invariants**
//! - An attempt ends within its endpoint's timeout: one deadline over everything, not one per read.
//! - A socket is opened only to an address that [`Guard`] judged in that attempt. No redirect is followed, no proxy used.
//! - A failing endpoint is a value ([`Report`]), never an error.
//! - A request may be received twice (a connection that broke unanswered is tried again), with the same id each time.

mod connect;
mod connection;
mod exchange;
mod guard;
mod pool;
mod request;
mod tls;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use rustls::pki_types::CertificateDer;

pub use connect::{Resolve, Resolving, SystemResolver};
pub use guard::{DENIED, Denied, Guard};
pub use request::{ATTEMPT, ORIGINAL};
pub use tls::{CaError, ca_from_pem};

use connect::Connector;
use connection::Sender;
use exchange::Answer;
use pool::{Lease, Pool};
use trace::{Failure, Trace};

use crate::core::attempt::{FailureKind, Outcome};
use crate::core::limits::DeliveryLimits;
use crate::core::retry::parse_retry_after;
use crate::core::url::EndpointUrl;
use crate::engine::{Courier, Job, Report};
use crate::env::Clock;

/// Milliseconds to wait for a connection to be ready again after its response. It takes microseconds, unless the endpoint
/// answered before it had read the request; such a connection is closed.
const READY_WAIT_MS: u64 = 100;

/// What deliveries are made with.
#[derive(Debug, Clone)]
pub struct EgressConfig {
    /// How much of a response is read and kept.
    pub limits: DeliveryLimits,
    /// Where deliveries may go.
    pub guard: Guard,
    /// Authorities trusted besides Mozilla's, from [`ca_from_pem`].
    pub extra_ca: Vec<CertificateDer<'static>>,
    /// `User-Agent` of events that bring none along.
    pub user_agent: String,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            limits: DeliveryLimits::default(),
            guard: Guard::default(),
            extra_ca: Vec::new(),
            user_agent: concat!("postrider/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Carries events to endpoints over HTTP.
pub struct Egress {
    connector: Connector,
    pool: Pool,
    clock: Arc<dyn Clock>,
    user_agent: HeaderValue,
}

/// A configuration that no delivery can be made with.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The certificate authorities can't be used.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The user agent can't be the value of a header.
    #[error("expected a user agent of visible ASCII characters, got {0:?}")]
    UserAgent(String),
}

impl Egress {
    /// Prepares deliveries; opens no connection. Names are looked up with the operating system's resolver.
    pub fn new(config: EgressConfig, clock: Arc<dyn Clock>) -> Result<Self, EgressError> {
        Self::with_resolver(config, clock, Arc::new(SystemResolver))
    }

    /// As [`new`](Self::new), with another resolver.
    pub fn with_resolver(
        config: EgressConfig,
        clock: Arc<dyn Clock>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, EgressError> {
        let EgressConfig { limits, guard, extra_ca, user_agent } = config;
        let tls = tls::client_config(&extra_ca)?;
        let user_agent = HeaderValue::from_str(&user_agent).map_err(|_| EgressError::UserAgent(user_agent))?;
        // As many as attempts at once: descriptors are counted on that (`daemon::descriptors`).
        let pool = Pool::new(Arc::clone(&clock), limits.in_flight_max);
        let connector = Connector { guard, resolver, tls, limits };
        Ok(Self { connector, pool, clock, user_agent })
    }

    async fn run(&self, job: &Job, trace: &mut Trace<'_>) -> Result<Answer, Failure> {
        // Configuration has checked the URL and the secrets already; whatever passed it by must not be sent anywhere.
        let url = EndpointUrl::parse(&job.endpoint.url)
            .map_err(|error| Failure::new(FailureKind::Blocked, format!("unusable URL: {error}")))?;
        let unix_s = self.clock.wall_s();
        let outgoing = || {
            request::build(job, &self.user_agent, unix_s)
                .map_err(|error| Failure::new(FailureKind::Blocked, format!("cannot sign the request: {error}")))
        };
        if let Some(lease) = self.pool.take(&url) {
            match self.use_open(lease, &url, outgoing()?, trace).await {
                Err(failure) if failure.may_be_stale => {}
                ended => return ended,
            }
        }
        trace.remote = None;
        let outgoing = outgoing()?;
        // In a box, as it is seldom needed and large: the future of every attempt would have room for it.
        let connection = Box::pin(self.connector.connect(&url, trace)).await?;
        self.exchange(self.pool.lease(&url, connection), &url, outgoing, trace).await
    }

    /// Sends over a connection that an earlier attempt left open. Where it leads was judged when it was opened, and is judged
    /// again.
    async fn use_open(
        &self,
        mut lease: Lease<'_>,
        url: &EndpointUrl,
        outgoing: request::Outgoing,
        trace: &mut Trace<'_>,
    ) -> Result<Answer, Failure> {
        let remote = lease.connection().remote;
        self.connector.judge(url, remote)?;
        trace.remote = Some(remote.to_string());
        self.exchange(lease, url, outgoing, trace).await
    }

    async fn exchange(
        &self,
        mut lease: Lease<'_>,
        url: &EndpointUrl,
        outgoing: request::Outgoing,
        trace: &mut Trace<'_>,
    ) -> Result<Answer, Failure> {
        let limits = &self.connector.limits;
        let answer = exchange::exchange(lease.connection(), url, outgoing, limits, trace).await?;
        trace.end();
        if answer.is_complete && is_ready(&mut lease, trace.remaining_us()).await {
            lease.give_back();
        }
        Ok(answer)
    }

    fn outcome(&self, answer: &Answer) -> Outcome {
        let retry_after = answer.retry_after.as_ref();
        let retry_after_ms = retry_after.and_then(|value| parse_retry_after(value.as_bytes(), self.clock.wall_ms()));
        Outcome::Answered { status: answer.status, retry_after_ms }
    }
}

impl Courier for Egress {
    async fn attempt(&self, job: Job) -> Report {
        let timeout_ms = job.endpoint.timeout_ms;
        let mut trace = Trace::start(&*self.clock, timeout_ms);
        let ended = tokio::time::timeout(Duration::from_millis(timeout_ms), self.run(&job, &mut trace)).await;
        let outcome = match ended.unwrap_or_else(|_| Err(trace.timed_out(timeout_ms))) {
            Ok(answer) => self.outcome(&answer),
            Err(Failure { kind, detail, .. }) => Outcome::Failed { kind, detail },
        };
        trace.report(outcome)
    }
}

/// Waits until the next request could be sent, less than the attempt has left: the answer is there, and must not be lost to
/// the deadline.
async fn is_ready(lease: &mut Lease<'_>, remaining_us: u64) -> bool {
    let wait = Duration::from_micros((remaining_us / 2).min(READY_WAIT_MS * 1_000));
    match &mut lease.connection().sender {
        Sender::H1(sender) => matches!(tokio::time::timeout(wait, sender.ready()).await, Ok(Ok(()))),
        Sender::H2(sender) => sender.is_ready(),
    }
}
