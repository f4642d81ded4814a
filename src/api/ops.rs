//! What supervisors and scrapers ask: `/healthz`, `/readyz`, `/metrics`; and the API's own description.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::problem::Answer;
use super::shapes::{HealthShape, ReadyShape};
use super::{Api, Call};
use crate::http::{Content, Reply, json};
use crate::store::{Refusal, Stats, Store};
use crate::telemetry::Gauge;

/// The contract of the management listener ([OpenAPI 3.1](https://spec.openapis.org/oas/v3.1.0)).
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// Figures of other parts of the gateway, asked for at each scrape.
pub type Gauges = Box<dyn Fn() -> Vec<Gauge> + Send + Sync>;

/// How far the gateway's start or stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Recovery runs, or listeners are not up yet.
    #[default]
    Starting,
    /// It takes requests.
    Ready,
    /// It stops: in-flight work ends, nothing new begins.
    Draining,
}

/// What `/readyz` says; told by whoever starts and stops the gateway.
#[derive(Debug, Default)]
pub struct Readiness {
    state: Mutex<(Phase, BTreeMap<&'static str, String>)>,
}

impl Readiness {
    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = phase;
    }

    /// Tells operators something, under a key of which it replaces the earlier note. It does not make the gateway unready.
    pub fn note(&self, key: &'static str, text: impl Into<String>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.insert(key, text.into());
    }

    /// Takes a note back.
    pub fn forget(&self, key: &'static str) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.remove(key);
    }

    fn shape(&self, intake: Result<(), Refusal>) -> ReadyShape {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, reason) = match (state.0, intake) {
            (Phase::Starting, _) => ("starting", Some("the gateway is starting".to_owned())),
            (Phase::Draining, _) => ("draining", Some("the gateway is stopping".to_owned())),
            // A full queue passes in milliseconds; leaving the balancer for that would only move the load.
            (Phase::Ready, Ok(()) | Err(Refusal::QueueFull)) => ("ready", None),
            (Phase::Ready, Err(refusal)) => ("closed", Some(refusal.to_string())),
        };
        ReadyShape { status, reasons: reason.into_iter().collect(), notes: state.1.values().cloned().collect() }
    }
}

impl<S: Store> Api<S> {
    pub(super) fn ready(&self) -> Reply {
        let shape = self.readiness.shape(self.store.intake());
        let status = if shape.reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(status, &shape)
    }

    pub(super) fn metrics_page(&self) -> Reply {
        let mut gauges = store_gauges(&self.store.stats(), self.store.now_ms());
        gauges.extend((self.gauges)());
        text(self.metrics.render(&gauges), "text/plain; version=0.0.4; charset=utf-8")
    }
}

pub(super) fn health() -> Reply {
    json(StatusCode::OK, &HealthShape { status: "ok" })
}

pub(super) fn openapi(call: Call<'_>) -> Answer {
    call.query.finish()?;
    Ok(text(OPENAPI, "application/json"))
}

fn text(body: impl Into<Bytes>, content_type: &'static str) -> Reply {
    let mut reply = Response::new(Content::whole(body));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// The store's figures under their names on the page.
fn store_gauges(stats: &Stats, now_ms: u64) -> Vec<Gauge> {
    let gauge = |name, help, value: f64| Gauge { name, help, kind: "gauge", value };
    let counter = |name, help, value: f64| Gauge { name, help, kind: "counter", value };
    let seconds = |micros: u64| micros as f64 / 1_000_000.0;
    let age_ms = stats.oldest_pending_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest));
    vec![
        gauge("postrider_deliveries_pending", "Deliveries that wait or are attempted.", stats.pending as f64),
        gauge(
            "postrider_oldest_pending_age_seconds",
            "Age of the oldest event with a pending delivery; 0 when there is none.",
            age_ms as f64 / 1_000.0,
        ),
        gauge("postrider_dead_letters", "Deliveries that are dead letters.", stats.dead as f64),
        gauge("postrider_dedup_keys", "Dedup keys held.", stats.dedup_keys as f64),
        counter("postrider_journal_syncs_total", "Batches synced to disk.", stats.syncs as f64),
        counter("postrider_journal_sync_seconds_total", "Seconds spent in syncs.", seconds(stats.sync_us)),
        gauge("postrider_journal_sync_seconds_max", "Longest sync since the start.", seconds(stats.sync_us_max)),
        counter("postrider_journal_records_total", "Records written to the journal.", stats.records as f64),
        gauge("postrider_applier_lag_bytes", "Journal bytes not yet in the key space.", stats.lag_bytes as f64),
        gauge("postrider_applier_lag_records", "Journal records not yet in the key space.", stats.lag_records as f64),
        gauge("postrider_journal_bytes", "Bytes of the journal on disk.", stats.journal_bytes as f64),
        gauge("postrider_journal_segments", "Segments of the journal.", stats.journal_segments as f64),
        gauge("postrider_index_bytes", "Bytes of the key space on disk.", stats.index_bytes as f64),
        gauge("postrider_writer_queue_items", "Items that wait for the writer.", stats.queue_items as f64),
        counter("postrider_stale_settles_total", "Settles that came too late.", stats.stale_settles as f64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_follows_phase_and_intake() {
        let readiness = Readiness::default();
        let status = |intake| readiness.shape(intake).status;
        assert_eq!(status(Ok(())), "starting");
        readiness.enter(Phase::Ready);
        assert_eq!(status(Ok(())), "ready");
        assert_eq!(status(Err(Refusal::QueueFull)), "ready");
        assert_eq!(status(Err(Refusal::DiskFull { floor_bytes: 1 })), "closed");
        readiness.enter(Phase::Draining);
        assert_eq!(status(Err(Refusal::Stopping)), "draining");
    }

    #[test]
    fn notes_are_told_and_taken_back() {
        let readiness = Readiness::default();
        readiness.enter(Phase::Ready);
        readiness.note("clock", "behind");
        readiness.note("clock", "still behind");
        assert_eq!(readiness.shape(Ok(())).notes, ["still behind"]);
        readiness.forget("clock");
        assert!(readiness.shape(Ok(())).notes.is_empty());
    }

    #[test]
    fn the_age_of_the_oldest_pending_event_is_in_seconds_and_never_negative() {
        let age = |oldest_pending_ms, now_ms| {
            let stats = Stats { oldest_pending_ms, ..Stats::default() };
            store_gauges(&stats, now_ms)
                .iter()
                .find(|g| g.name == "postrider_oldest_pending_age_seconds")
                .unwrap()
                .value
        };
        assert_eq!(age(Some(1_000), 3_500), 2.5);
        assert_eq!(age(Some(5_000), 3_500), 0.0);
        assert_eq!(age(None, 3_500), 0.0);
    }
}
