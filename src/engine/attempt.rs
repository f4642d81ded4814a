//! One attempt from lease to settle, as a task of its own.
//!
//! **Invariant:** every task tells the engine exactly once how its lease ended, also when it panics.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use super::courier::{Courier, Job, Report};
use super::horizon::Horizon;
use super::lane::{Load, Release};
use super::log::{Line, record};
use super::pace::Health;
use crate::core::attempt::{Attempt, FailureKind};
use crate::core::delivery::{DeadReason, DeliveryId, Next, next_after};
use crate::core::endpoint::Endpoint;
use crate::core::id::{AttemptId, EndpointId};
use crate::env::Entropy;
use crate::store::{Due, Settle, Store, StoreError};
use crate::telemetry::Metrics;

/// Milliseconds until a delivery is tried again whose attempt failed within the gateway.
pub(super) const HOLD_MS: u64 = 60_000;

/// Deliveries without content that are remembered as reported.
const REPORTED_MAX: usize = 1_000;

/// What tasks tell the engine.
#[derive(Debug)]
pub(super) enum Message {
    /// An attempt has ended; its settle is under way.
    Ended(DeliveryId, Health),
    /// A lease ends.
    Released(DeliveryId, Release),
    /// The task of an attempt ended without a word.
    Lost(DeliveryId),
    /// What a load found.
    Loaded(EndpointId, Vec<Due>),
    /// A load found nothing out.
    LoadRefused(EndpointId),
    /// The store can't go on.
    Failed(StoreError),
}

/// The one word that a task owes the engine.
#[derive(Debug)]
pub(super) struct Reply {
    messages: UnboundedSender<Message>,
    /// What is said if the task ends without a word.
    otherwise: Option<Message>,
}

impl Reply {
    pub(super) const fn new(messages: UnboundedSender<Message>, otherwise: Message) -> Self {
        Self { messages, otherwise: Some(otherwise) }
    }

    fn say(mut self, message: Message) {
        self.otherwise = Some(message);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(message) = self.otherwise.take() {
            // Nobody listens once the engine has stopped, and then nobody needs to know.
            let _ = self.messages.send(message);
        }
    }
}

/// Counts an attempt as in flight while it lives.
struct InFlight<'m>(&'m Metrics);

impl<'m> InFlight<'m> {
    fn new(metrics: &'m Metrics) -> Self {
        metrics.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What every attempt needs.
pub(super) struct Desk<S, C> {
    pub(super) store: Arc<S>,
    pub(super) courier: Arc<C>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) entropy: Arc<dyn Entropy>,
    reported: Mutex<HashSet<DeliveryId>>,
}

impl<S: Store, C: Courier> Desk<S, C> {
    pub(super) fn new(store: Arc<S>, courier: Arc<C>, metrics: Arc<Metrics>, entropy: Arc<dyn Entropy>) -> Self {
        Self { store, courier, metrics, entropy, reported: Mutex::default() }
    }

    /// Makes one attempt and settles it.
    pub(super) async fn deliver(self: Arc<Self>, endpoint: Arc<Endpoint>, due: Due, reply: Reply) {
        let delivery = DeliveryId { endpoint: endpoint.id, event: due.event };
        let message = match self.attempt(endpoint, due, delivery, &reply.messages).await {
            Ok(release) => Message::Released(delivery, release),
            Err(error @ StoreError::Failed(_)) => Message::Failed(error),
            Err(error) => {
                // Only while the gateway stops. The attempt will be made again: at least once, as promised.
                tracing::warn!(event = %delivery.event, endpoint = %delivery.endpoint, %error, "an attempt is not recorded");
                Message::Released(delivery, self.hold())
            }
        };
        reply.say(message);
    }

    /// Reads pending deliveries.
    pub(super) async fn load(self: Arc<Self>, endpoint: EndpointId, load: Load, reply: Reply) {
        let message = match self.store.pending(endpoint, load.after, load.limit).await {
            Ok(found) => Message::Loaded(endpoint, found),
            Err(error @ StoreError::Failed(_)) => Message::Failed(error),
            Err(_) => Message::LoadRefused(endpoint),
        };
        reply.say(message);
    }

    async fn attempt(
        &self,
        endpoint: Arc<Endpoint>,
        due: Due,
        delivery: DeliveryId,
        messages: &UnboundedSender<Message>,
    ) -> Result<Release, StoreError> {
        let in_flight = InFlight::new(&self.metrics);
        let found = match self.store.event(due.event).await {
            Err(error @ StoreError::Unreadable { .. }) => Err(error),
            found => match found?.filter(|event| !event.erased) {
                Some(event) => Ok(event),
                None => return self.without_content(delivery, due).await,
            },
        };
        let number = due.pending.attempts.saturating_add(1);
        let started_ms = self.store.now_ms();
        let report = match found {
            Ok(event) => self.courier.attempt(Job { endpoint: Arc::clone(&endpoint), event, number }).await,
            // Bytes that are not the event's must never go out; the schedule leaves an operator time to act.
            Err(error) => Report::failed(FailureKind::Unreadable, error.to_string()),
        };
        let ended_ms = self.store.now_ms();
        drop(in_flight);
        let settle = self.settle(&endpoint, due, number, (started_ms, ended_ms), report);
        let _ = messages.send(Message::Ended(delivery, health(settle.next)));
        let line = Line::new(&endpoint, &settle);
        let applied = self.store.settle(settle).await?;
        Ok(record(&self.metrics, &line, applied))
    }

    fn settle(
        &self,
        endpoint: &Endpoint,
        due: Due,
        number: u32,
        (started_ms, ended_ms): (u64, u64),
        report: Report,
    ) -> Settle {
        let unit = self.entropy.unit();
        let mut random = [0; 16];
        self.entropy.fill(&mut random);
        Settle {
            delivery: DeliveryId { endpoint: endpoint.id, event: due.event },
            was: due.pending,
            next: next_after(&report.outcome, &endpoint.retry, due.pending.failures, ended_ms, unit),
            attempt: Attempt {
                id: AttemptId::at(started_ms, u128::from_be_bytes(random)),
                number,
                started_ms,
                ended_ms,
                timings: report.timings,
                outcome: report.outcome,
                remote: report.remote,
                response_headers: report.response_headers,
                response_truncated: report.response_truncated,
            },
            response: report.response,
        }
    }

    /// The event is erased or gone. So is the delivery, as a rule: it was erased after it came into memory. Then asking the
    /// store again corrects that; but if the store insists that it is pending, asking again at once would never end.
    async fn without_content(&self, delivery: DeliveryId, due: Due) -> Result<Release, StoreError> {
        let before = Horizon::below(due.key()).after();
        if self.store.pending(delivery.endpoint, before, 1).await?.first() != Some(&due) {
            return Ok(Release::Stale);
        }
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() < REPORTED_MAX && reported.insert(delivery) {
            tracing::error!(
                event = %delivery.event,
                endpoint = %delivery.endpoint,
                "a pending delivery has no content to deliver; run `postrider journal verify`"
            );
        }
        Ok(self.hold())
    }

    fn hold(&self) -> Release {
        Release::Hold { until_ms: self.store.now_ms().saturating_add(HOLD_MS) }
    }
}

/// A delivery whose schedule is at its end failed as much as one that is tried again.
const fn health(next: Next) -> Health {
    match next {
        Next::Retry { .. } | Next::Dead { reason: DeadReason::MaxRetries } => Health::Failing,
        Next::Delivered | Next::Dead { .. } => Health::Well,
    }
}
