//! The public listener: `POST /in/{source}` is verified, told apart from what came before, stored, and only then answered.
//!
//! | file | owns |
//! |---|---|
//! | `receive` | the way of one request from its head to the store |
//! | `answer` | what each end of that way is answered with |
//!
//! **Invariants**
//! - 200 means durable. Whatever else is answered, the provider may send again: nothing was stored, or its dedup key says
//!   that it was.
//! - A dedup key is read out of a request only after its signature has been verified, and claimed only together with the
//!   stored event: neither a forgery nor a 503 burns it.
//! - What is verified is the body as it came over the wire; nothing parses or normalises it before.
//! - Headers that any client can set to speak for a proxy (`X-Forwarded-*`, `Forwarded`) change nothing.
//! - No answer and no log line holds a secret, a signature or a byte of a body.

mod answer;
mod receive;

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::core::endpoint::Catalog;
use crate::core::limits::IngressLimits;
use crate::env::Clock;
use crate::http::{self, BodyLimits, MemoryBudget, ProblemCode, Reply, ServerLimits};
use crate::store::Store;
use crate::telemetry::Metrics;

/// Receives webhooks into a store.
pub struct Ingress<S> {
    store: Arc<S>,
    catalog: Arc<Catalog>,
    limits: IngressLimits,
    body_limits: BodyLimits,
    budget: MemoryBudget,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl<S: Store> Ingress<S> {
    /// An ingress for the sources of `catalog`. `clock` gives the wall time that signatures are judged by.
    pub fn new(
        store: Arc<S>,
        catalog: Arc<Catalog>,
        limits: IngressLimits,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let body_limits = BodyLimits {
            bytes_max: limits.body_bytes_max,
            timeout_ms: limits.body_timeout_ms,
            rate_min_bytes_s: limits.body_rate_min_bytes_s,
        };
        let budget = MemoryBudget::new(limits.memory_bytes_max);
        Self { store, catalog, limits, body_limits, budget, metrics, clock }
    }

    /// Answers one request, and counts what becomes of it.
    pub fn handle(self: Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> impl Future<Output = Reply> + Send {
        // Taken apart here, as an `async fn` would hold the request twice, whole and in parts, and it is moved around.
        let (head, body) = request.into_parts();
        async move {
            let reply = self.receive(&head, body).await;
            if let Some(ProblemCode(code)) = reply.extensions().get() {
                self.metrics.refused.inc(code);
                tracing::debug!(%peer, status = reply.status().as_u16(), code, "request refused");
            }
            reply
        }
    }

    /// Serves `listener` until `stop` turns true, then gives running requests `drain_ms` to finish.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, drain_ms: u64, stop: watch::Receiver<bool>) {
        let limits = ServerLimits {
            header_bytes_max: self.limits.header_bytes_max,
            headers_max: self.limits.headers_max,
            header_timeout_ms: self.limits.header_timeout_ms,
            idle_timeout_ms: self.limits.idle_timeout_ms,
            connections_max: self.limits.connections_max,
            drain_ms,
        };
        let handler = move |request, peer| Arc::clone(&self).handle(request, peer);
        http::serve(listener, limits, handler, stop).await;
    }
}
