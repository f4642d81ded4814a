//! What is known of an attempt while it runs, kept outside of the future that makes it: when the deadline drops that future,
//! the report still says how far it came.

use bytes::{Bytes, BytesMut};

use crate::core::attempt::{FailureKind, Outcome, Timings};
use crate::core::headers::Headers;
use crate::engine::Report;
use crate::env::Clock;

/// A step of an attempt. Only one is under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Dns,
    Connect,
    Tls,
    /// Sending the request and waiting for the head of the response.
    Head,
    /// Reading the response's body.
    Body,
}

impl Phase {
    /// Completes "the deadline passed while …".
    const fn doing(self) -> &'static str {
        match self {
            Self::Dns => "looking up the host name",
            Self::Connect => "connecting",
            Self::Tls => "shaking hands for TLS",
            Self::Head => "waiting for the head of the response",
            Self::Body => "reading the body of the response",
        }
    }
}

/// Why an attempt ended without an answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// For people; no secrets.
    pub(super) detail: String,
    /// The connection broke before the head of a response, as one does that the other side closed while it was idle.
    pub(super) may_be_stale: bool,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), may_be_stale: false }
    }
}

/// The record of one attempt. All times are monotonic microseconds.
pub(super) struct Trace<'c> {
    clock: &'c dyn Clock,
    started_us: u64,
    deadline_us: u64,
    open: Option<(Phase, u64)>,
    timings: Timings,
    /// The address connected to.
    pub(super) remote: Option<String>,
    /// What was kept of the response's head.
    pub(super) response_headers: Headers,
    /// What was kept of the response's body.
    pub(super) response: BytesMut,
    /// More of the body came than was kept.
    pub(super) truncated: bool,
}

impl<'c> Trace<'c> {
    /// Starts the record of an attempt that may take `timeout_ms`.
    pub(super) fn start(clock: &'c dyn Clock, timeout_ms: u64) -> Self {
        let started_us = clock.mono_us();
        Self {
            clock,
            started_us,
            deadline_us: started_us.saturating_add(timeout_ms.saturating_mul(1_000)),
            open: None,
            timings: Timings::default(),
            remote: None,
            response_headers: Headers::new(),
            response: BytesMut::new(),
            truncated: false,
        }
    }

    /// Ends the phase under way and begins another.
    pub(super) fn begin(&mut self, phase: Phase) {
        let now_us = self.clock.mono_us();
        self.end_at(now_us);
        self.open = Some((phase, now_us));
    }

    /// Ends the phase under way.
    pub(super) fn end(&mut self) {
        self.end_at(self.clock.mono_us());
    }

    /// Notes that the head of the response came, and that its body is read from here on.
    pub(super) fn head_came(&mut self) {
        if let Some((Phase::Head, since_us)) = self.open {
            self.timings.first_byte_us = Some(self.clock.mono_us().saturating_sub(since_us));
        }
        self.begin(Phase::Body);
    }

    /// Microseconds left until the deadline.
    pub(super) fn remaining_us(&self) -> u64 {
        self.deadline_us.saturating_sub(self.clock.mono_us())
    }

    /// What to say when the deadline has passed.
    pub(super) fn timed_out(&self, timeout_ms: u64) -> Failure {
        let doing = self.open.map_or("preparing the request", |(phase, _)| phase.doing());
        Failure::new(FailureKind::Timeout, format!("the deadline of {timeout_ms} ms passed while {doing}"))
    }

    /// Closes the record.
    pub(super) fn report(mut self, outcome: Outcome) -> Report {
        let now_us = self.clock.mono_us();
        self.end_at(now_us);
        self.timings.total_us = now_us.saturating_sub(self.started_us);
        Report {
            outcome,
            timings: self.timings,
            remote: self.remote,
            response_headers: self.response_headers,
            response: Bytes::from(self.response),
            response_truncated: self.truncated,
        }
    }

    /// A phase that fails or is cut off took its time too; only the first byte is noted when it comes.
    fn end_at(&mut self, now_us: u64) {
        let Some((phase, since_us)) = self.open.take() else { return };
        let took_us = Some(now_us.saturating_sub(since_us));
        match phase {
            Phase::Dns => self.timings.dns_us = took_us,
            Phase::Connect => self.timings.connect_us = took_us,
            Phase::Tls => self.timings.tls_us = took_us,
            Phase::Head | Phase::Body => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::ManualClock;

    #[test]
    fn phases_are_timed_apart_and_a_cut_off_one_counts() {
        let clock = ManualClock::at(0);
        let mut trace = Trace::start(&clock, 30);
        trace.begin(Phase::Dns);
        clock.advance(3);
        trace.begin(Phase::Connect);
        clock.advance(4);
        trace.end();
        clock.advance(1);
        trace.begin(Phase::Head);
        clock.advance(5);
        assert_eq!(trace.remaining_us(), 17_000);
        trace.head_came();
        clock.advance(20);
        assert_eq!(trace.remaining_us(), 0);
        let failure = trace.timed_out(30);
        assert_eq!(failure.detail, "the deadline of 30 ms passed while reading the body of the response");
        let outcome = Outcome::Failed { kind: failure.kind, detail: failure.detail };
        let expected = Timings {
            dns_us: Some(3_000),
            connect_us: Some(4_000),
            tls_us: None,
            first_byte_us: Some(5_000),
            total_us: 33_000,
        };
        assert_eq!(trace.report(outcome).timings, expected);
    }
}
