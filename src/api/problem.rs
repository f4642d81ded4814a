//! Refusals of the management listener: a status, a word for programs and a sentence for people.
//!
//! **Invariant:** a code is a word known here, never text from a request, so that refusals can be counted by it.

use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use crate::http::{self, BodyError, Reply};
use crate::store::{Refusal, StoreError};

/// Seconds after which a request that the store refused may succeed.
const RETRY_AFTER_S: u32 = 5;

/// Seconds after which the writer's queue has moved on.
const QUEUE_RETRY_AFTER_S: u32 = 1;

/// What a handler answers.
pub(super) type Answer = Result<Reply, Problem>;

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
    close: bool,
}

impl Problem {
    /// A refusal with this status.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), header: None, close: false }
    }

    /// 422: one field, parameter or header is not what it should be.
    pub(super) fn invalid(field: &str, expected: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("{field}: {expected}"))
    }

    /// 404 for something that the path or a field names.
    pub(super) fn unknown(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 409: the request contradicts what is stored.
    pub(super) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 405 with the methods that the path has.
    pub(super) fn method_not_allowed(methods: &[&str]) -> Self {
        let list = methods.join(", ");
        let allow = HeaderValue::from_str(&list).expect("methods of the route table are ASCII");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("this path takes {list}"))
            .with(ALLOW, allow)
    }

    /// 401; `challenge` as in [RFC 6750 §3](https://www.rfc-editor.org/rfc/rfc6750#section-3).
    pub(super) fn unauthorized(challenge: &'static str, detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// 503; whether the request took effect is not known.
    pub(super) fn too_slow(timeout_ms: u64) -> Self {
        let detail = format!(
            "no answer within {timeout_ms} ms; the request may still have taken effect: repeat it, a publication under the \
             same idempotency-key"
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_slow", detail).retry_after(RETRY_AFTER_S)
    }

    /// Ends the connection after the answer.
    pub(super) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The word for programs.
    pub(super) const fn code(&self) -> &'static str {
        self.code
    }

    fn retry_after(self, seconds: u32) -> Self {
        self.with(RETRY_AFTER, HeaderValue::from(seconds))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let mut reply = http::problem(problem.status, problem.code, problem.detail);
        if let Some((name, value)) = problem.header {
            reply.headers_mut().insert(name, value);
        }
        if problem.close { http::close(reply) } else { reply }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let unavailable = |code, detail: String| Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        match error {
            StoreError::Refused(refusal) => {
                let seconds = if refusal == Refusal::QueueFull { QUEUE_RETRY_AFTER_S } else { RETRY_AFTER_S };
                unavailable(refusal_code(refusal), refusal.to_string()).retry_after(seconds)
            }
            StoreError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error.to_string()),
            StoreError::Unreadable { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unreadable", error.to_string())
            }
            StoreError::BackupRuns => Self::conflict("backup_runs", error.to_string()),
            StoreError::Unsupported(_) => Self::new(StatusCode::NOT_IMPLEMENTED, "unsupported", error.to_string()),
            StoreError::Failed(why) => {
                // The cause names files of the host: that is for the operator's log, not for clients.
                tracing::error!(error = %why, "the store failed a management request");
                unavailable("store_failed", "the store failed; what was acknowledged is safe".to_owned())
                    .retry_after(RETRY_AFTER_S)
            }
        }
    }
}

const fn refusal_code(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::QueueFull => "queue_full",
        Refusal::JournalFull { .. } => "journal_full",
        Refusal::DiskFull { .. } => "disk_full",
        Refusal::PendingFull { .. } => "pending_full",
        Refusal::Stopping => "stopping",
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let (status, code) = match error {
            BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            BodyError::TimedOut { .. } => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            BodyError::NoMemory => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            BodyError::Broken(_) => (StatusCode::BAD_REQUEST, "broken_body"),
        };
        // The rest of the body would be taken for the next request.
        let problem = Self::new(status, code, error.to_string()).closing();
        if code == "busy" { problem.retry_after(QUEUE_RETRY_AFTER_S) } else { problem }
    }
}
