//! What the engine asks of whoever carries an event to an endpoint.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use crate::core::attempt::{FailureKind, Outcome, Timings};
use crate::core::endpoint::Endpoint;
use crate::core::event::Event;
use crate::core::headers::Headers;

/// One attempt to make.
#[derive(Debug, Clone)]
pub struct Job {
    /// Where to.
    pub endpoint: Arc<Endpoint>,
    /// What.
    pub event: Arc<Event>,
    /// 1 for the first try.
    pub number: u32,
}

/// What came of it. A failing endpoint is a value here, not an error.
#[derive(Debug, Clone)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// Where the time went.
    pub timings: Timings,
    /// The address connected to, `ip:port`.
    pub remote: Option<String>,
    /// Headers of the response, as far as the limits allow.
    pub response_headers: Headers,
    /// The first bytes of the response's body.
    pub response: Bytes,
    /// More bytes came than are kept.
    pub response_truncated: bool,
}

impl Report {
    /// An attempt that sent nothing and got nothing.
    pub fn failed(kind: FailureKind, detail: String) -> Self {
        Self {
            outcome: Outcome::Failed { kind, detail },
            timings: Timings::default(),
            remote: None,
            response_headers: Headers::new(),
            response: Bytes::new(),
            response_truncated: false,
        }
    }
}

/// Carries events to endpoints.
pub trait Courier: Send + Sync + 'static {
    /// Makes one attempt. Ends within the endpoint's timeout, whatever the endpoint does.
    fn attempt(&self, job: Job) -> impl Future<Output = Report> + Send;
}
