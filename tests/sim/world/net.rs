//! The network: endpoints with moods, and everything that can come between them and the gateway.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use postrider::core::attempt::{FailureKind, Outcome, Timings};
use postrider::core::headers::Headers;
use postrider::core::id::EndpointId;
use postrider::core::retry::parse_retry_after;
use postrider::engine::{Courier, Job, Report};
use postrider::env::Clock;

use super::coverage::Kind;
use super::model::Model;
use super::stage::{Dice, Stage, lock};

/// How an endpoint is today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Takes everything.
    Good,
    /// Everything happens.
    Mixed,
    /// Never answers well.
    Down,
    /// Refuses for good.
    Rejecting,
    /// Answers 410.
    Gone,
}

/// Carries nothing anywhere and says what came of it.
pub struct SimNet {
    pub stage: Arc<Stage>,
    pub model: Arc<Mutex<Model>>,
    pub clock: Arc<dyn Clock>,
    pub moods: Arc<Mutex<BTreeMap<EndpointId, Mood>>>,
    /// The store's time.
    pub now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// What is going to happen to an attempt.
struct Fate {
    after_ms: u64,
    outcome: Outcome,
}

impl Courier for SimNet {
    async fn attempt(&self, job: Job) -> Report {
        let now_ms = (self.now_ms)();
        let (endpoint, retries) = (job.endpoint.id, job.endpoint.retry.retries());
        self.stage.note(format_args!("{now_ms} attempt {} of {} at {endpoint}", job.number, job.event.meta.id));
        lock(&self.model).attempt_begins(&job, retries, now_ms);
        let mood = lock(&self.moods).get(&endpoint).copied().unwrap_or(Mood::Good);
        let Fate { after_ms, outcome } = self.fate(mood);
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        lock(&self.model).attempt_ends(endpoint);
        let answered = matches!(outcome, Outcome::Answered { .. });
        let bytes = if answered { self.stage.dice().pick(&[0, 0, 20, 1_500]) } else { 0 };
        let mut response_headers = Headers::new();
        if answered {
            response_headers.push("content-type", b"text/plain");
        }
        let timings = Timings { total_us: after_ms * 1_000, ..Timings::default() };
        let response = Bytes::from(vec![b'r'; bytes]);
        let remote = answered.then(|| "192.0.2.1:443".to_owned());
        Report { outcome, timings, remote, response_headers, response, response_truncated: bytes == 1_500 }
    }
}

impl SimNet {
    fn fate(&self, mood: Mood) -> Fate {
        let mut dice = self.stage.dice();
        let after_ms = 1 + dice.below(200);
        let answer = |after_ms, status| Fate { after_ms, outcome: Outcome::Answered { status, retry_after_ms: None } };
        match mood {
            Mood::Good => answer(after_ms, dice.pick(&[200, 201, 202, 204])),
            Mood::Rejecting => answer(after_ms, dice.pick(&[400, 401, 404, 422])),
            Mood::Gone => answer(after_ms, 410),
            Mood::Down => self.trouble(&mut dice, after_ms),
            Mood::Mixed if dice.one_in(2) => answer(after_ms, 200),
            Mood::Mixed if dice.one_in(12) => answer(after_ms, dice.pick(&[400, 404, 409])),
            Mood::Mixed => self.trouble(&mut dice, after_ms),
        }
    }

    fn trouble(&self, dice: &mut Dice, after_ms: u64) -> Fate {
        let failed =
            |after_ms, kind, what: &str| Fate { after_ms, outcome: Outcome::Failed { kind, detail: what.to_owned() } };
        let status =
            |after_ms, status, retry_after_ms| Fate { after_ms, outcome: Outcome::Answered { status, retry_after_ms } };
        let (kind, fate) = match dice.below(14) {
            0 => (Kind::NetTimeout, failed(30_000, FailureKind::Timeout, "no answer in time")),
            1 => (Kind::NetResetBefore, failed(after_ms, FailureKind::Reset, "reset before the request was read")),
            2 => (Kind::NetResetAfter, failed(after_ms, FailureKind::Reset, "reset after the request was read")),
            3 => (Kind::NetSlow, status(29_000, 200, None)),
            4 => (Kind::NetLostAnswer, failed(30_000, FailureKind::Timeout, "received; the answer was lost")),
            5 => (Kind::NetRedirect, status(after_ms, dice.pick(&[301, 302, 307, 308]), None)),
            6 => (Kind::NetGarbage, failed(after_ms, FailureKind::Protocol, "not HTTP")),
            7 => {
                let kind = dice.pick(&[FailureKind::Connect, FailureKind::Dns, FailureKind::Tls, FailureKind::Blocked]);
                (Kind::NetConnect, failed(after_ms, kind, "no connection"))
            }
            8 => (Kind::NetServerError, status(after_ms, dice.pick(&[500, 502, 504, 599, 408, 425]), None)),
            _ => {
                let (kind, value) = self.retry_after(dice);
                let retry_after_ms = parse_retry_after(value.as_bytes(), self.clock.wall_ms());
                (kind, status(after_ms, dice.pick(&[429, 503]), retry_after_ms))
            }
        };
        self.stage.cover(kind);
        fate
    }

    fn retry_after(&self, dice: &mut Dice) -> (Kind, String) {
        let date = |ms: u64| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
        let now_ms = self.clock.wall_ms();
        match dice.below(5) {
            0 => (Kind::NetRetryAfterSeconds, dice.below(7_200).to_string()),
            1 => (Kind::NetRetryAfterDate, date(now_ms + dice.below(7_200_000))),
            2 => (Kind::NetRetryAfterPast, date(now_ms.saturating_sub(1 + dice.below(1 << 40)))),
            3 => (Kind::NetRetryAfterHuge, dice.pick(&["99999999", "18446744073709551616"]).to_owned()),
            _ => (Kind::NetRetryAfterGarbage, dice.pick(&["", "-1", "soon", "1e3", "\u{7f}"]).to_owned()),
        }
    }
}
