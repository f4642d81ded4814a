//! One try of one delivery, and what came of it. A failing endpoint is a value here, never an error.

use bincode::{Decode, Encode};

use super::headers::Headers;
use super::id::AttemptId;

/// What happened in one try. The kept part of the response body travels beside it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attempt {
    /// Time-ordered and unique.
    pub id: AttemptId,
    /// 1 for the first try of a delivery, counted on over replays.
    pub number: u32,
    /// Unix milliseconds (engine time) of the start.
    pub started_ms: u64,
    /// Unix milliseconds (engine time) of the end; a retry is counted from here.
    pub ended_ms: u64,
    /// Where the time went.
    pub timings: Timings,
    /// How it ended.
    pub outcome: Outcome,
    /// The address that was connected to, `ip:port`.
    pub remote: Option<String>,
    /// Headers of the response, as far as the limits allow.
    pub response_headers: Headers,
    /// More response bytes came than were kept.
    pub response_truncated: bool,
}

/// Where the time of an attempt went, in microseconds from its start; `None` for a phase that did not happen, such as
/// connecting when a pooled connection was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Timings {
    /// Name resolution.
    pub dns_us: Option<u64>,
    /// TCP connect.
    pub connect_us: Option<u64>,
    /// TLS handshake.
    pub tls_us: Option<u64>,
    /// From the request's start to the response's head.
    pub first_byte_us: Option<u64>,
    /// The whole attempt.
    pub total_us: u64,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// A response came.
    Answered {
        /// The HTTP status.
        status: u16,
        /// What `Retry-After` asked for, in milliseconds from the end of the attempt, not yet clamped.
        retry_after_ms: Option<u64>,
    },
    /// No response came.
    Failed {
        /// Why, for metrics and policy.
        kind: FailureKind,
        /// Why, for people; never a secret or a URL's userinfo.
        detail: String,
    },
}

/// Why no response came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum FailureKind {
    /// The name did not resolve.
    Dns,
    /// The address is one that deliveries may not go to.
    Blocked,
    /// No TCP connection.
    Connect,
    /// The TLS handshake failed, including certificates that don't verify.
    Tls,
    /// The total deadline passed.
    Timeout,
    /// The connection broke before the response was complete.
    Reset,
    /// What came is not HTTP, or past the limits on a response's head.
    Protocol,
    /// The event's bytes are damaged on this machine's disk; nothing was sent.
    Unreadable,
}

impl FailureKind {
    /// Every kind, for tables and metrics.
    pub const ALL: [Self; 8] = [
        Self::Dns,
        Self::Blocked,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Reset,
        Self::Protocol,
        Self::Unreadable,
    ];

    /// The word for it in JSON, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Blocked => "blocked",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Outcome {
    /// The endpoint took the event.
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }
}
