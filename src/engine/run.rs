//! The shell around the plan: one task that is told everything and performs what the plan decides.
//!
//! It sleeps until there is news from the store, a task has something to say, or the plan's next wake; it never polls. All
//! that waits is taken in at once before the plan is asked, so that a burst costs one round.
//!
//! **Invariants**
//! - Only this task touches the plan.
//! - News is taken from the store after messages are received and before they are applied. A store tells of a change before
//!   it answers, so a lease never ends before the plan has heard what its settle made due.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::attempt::{Desk, HOLD_MS, Message, Reply};
use super::courier::Courier;
use super::lane::Release;
use super::plan::{Order, Plan};
use crate::core::delivery::DeliveryId;
use crate::core::endpoint::Catalog;
use crate::core::limits::DeliveryLimits;
use crate::env::Entropy;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// Messages taken in one round. Each lease sends two, so this holds back only the largest bursts.
const MESSAGES_MAX: usize = 4_096;

/// Whether the engine is to stop. A closed channel counts as [`Drain`](Self::Drain).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stop {
    /// It runs.
    #[default]
    No,
    /// It starts nothing more and waits for what is in flight, up to [`DeliveryLimits::drain_ms`].
    Drain,
    /// It gives up what is in flight.
    Now,
}

/// What became of the attempts that were in flight when the engine was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// They ended and were settled.
    pub finished: usize,
    /// They were given up; their deliveries are still pending and due at the next start.
    pub abandoned: usize,
}

/// Why the engine could not go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The store failed; nothing that was acknowledged is lost, and the next start delivers it.
    #[error("deliveries stopped: {0}")]
    Store(#[from] StoreError),
}

/// Delivers what is pending in a store.
pub struct Engine<S, C> {
    desk: Arc<Desk<S, C>>,
    catalog: Arc<Catalog>,
    limits: DeliveryLimits,
    plan: Plan,
    tasks: JoinSet<()>,
    sender: mpsc::UnboundedSender<Message>,
    /// Unbounded, but each lease and each load sends at most two messages and the plan bounds both.
    messages: mpsc::UnboundedReceiver<Message>,
}

impl<S: Store, C: Courier> Engine<S, C> {
    /// An engine over the endpoints of `catalog`; deliveries to any other stay where they are.
    pub fn new(
        store: Arc<S>,
        courier: Arc<C>,
        catalog: Arc<Catalog>,
        limits: DeliveryLimits,
        metrics: Arc<Metrics>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let endpoints = catalog.endpoints().map(|endpoint| (endpoint.id, endpoint.in_flight_max));
        let plan = Plan::new(endpoints, &limits, store.now_ms());
        let desk = Arc::new(Desk::new(store, courier, metrics, entropy));
        Self { desk, catalog, limits, plan, tasks: JoinSet::new(), sender, messages }
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// [`EngineError`] when the store fails. The process must stop then.
    pub async fn run(mut self, mut stop: watch::Receiver<Stop>) -> Result<Drained, EngineError> {
        let ended = match self.work(&mut stop).await {
            Ok(()) => self.drain(&mut stop).await,
            Err(error) => Err(error),
        };
        // Waits until the tasks are gone, so that nothing holds the store any longer.
        self.tasks.shutdown().await;
        Ok(ended?)
    }

    /// Delivers until it is told to stop.
    async fn work(&mut self, stop: &mut watch::Receiver<Stop>) -> Result<(), StoreError> {
        let hints = self.desk.store.hints();
        let mut received = Vec::new();
        self.take_standings();
        while *stop.borrow_and_update() == Stop::No {
            self.take_news();
            self.apply(&mut received)?;
            let wake_ms = self.perform();
            // In a fixed order, so that a run can be repeated. Messages first: the others are looked at in every round.
            tokio::select! {
                biased;
                _ = self.messages.recv_many(&mut received, MESSAGES_MAX) => {}
                () = hints.wait() => {}
                () = sleep_ms(wake_ms) => {}
                changed = stop.changed() => if changed.is_err() { break },
            }
        }
        self.apply(&mut received)?;
        Ok(())
    }

    /// Takes in all that the store has told since the last time.
    fn take_news(&mut self) {
        let now_ms = self.desk.store.now_ms();
        let mut all: Vec<_> = self.desk.store.hints().take().into_iter().collect();
        if all.iter().any(|(_, news)| news.standing_changed) {
            self.take_standings();
        }
        // A mailbox has no order among endpoints; this gives it one, so that a run can be repeated.
        all.sort_unstable_by_key(|(endpoint, _)| *endpoint);
        for (endpoint, news) in all {
            self.plan.news(endpoint, &news, now_ms);
        }
    }

    fn take_standings(&mut self) {
        let now_ms = self.desk.store.now_ms();
        for note in self.desk.store.endpoint_notes() {
            self.plan.set_enabled(note.id, note.standing.is_enabled(), now_ms);
        }
    }

    /// Takes in what tasks said. All news must have been taken before.
    fn apply(&mut self, received: &mut Vec<Message>) -> Result<usize, StoreError> {
        let now_ms = self.desk.store.now_ms();
        let mut settled = 0;
        for message in received.drain(..) {
            match message {
                Message::Ended(delivery, health) => self.plan.ended(delivery, health, now_ms),
                Message::Released(delivery, how) => {
                    settled += usize::from(!matches!(how, Release::Hold { .. }));
                    self.plan.released(delivery, how, now_ms);
                }
                Message::Lost(delivery) => self.lost(delivery, now_ms),
                Message::Loaded(endpoint, found) => self.plan.loaded(endpoint, &found, now_ms),
                Message::LoadRefused(endpoint) => self.plan.load_refused(endpoint, now_ms),
                Message::Failed(error) => return Err(error),
            }
        }
        // Their last words were messages; what is left of them is only to be thrown away.
        while self.tasks.try_join_next().is_some() {}
        Ok(settled)
    }

    fn lost(&mut self, delivery: DeliveryId, now_ms: u64) {
        tracing::error!(
            event = %delivery.event,
            endpoint = %delivery.endpoint,
            "the task of an attempt panicked; the delivery is tried again in {} s",
            HOLD_MS / 1_000
        );
        self.plan.released(delivery, Release::Hold { until_ms: now_ms.saturating_add(HOLD_MS) }, now_ms);
    }

    /// Does everything that the plan wants done now. Answers in how many milliseconds to ask again.
    fn perform(&mut self) -> Option<u64> {
        let now_ms = self.desk.store.now_ms();
        while let Some(order) = self.plan.next(now_ms) {
            match order {
                Order::Start { endpoint, due } => {
                    let delivery = DeliveryId { endpoint, event: due.event };
                    let reply = Reply::new(self.sender.clone(), Message::Lost(delivery));
                    let endpoint = self.catalog.endpoint(endpoint).expect("the plan was made from this catalog");
                    self.tasks.spawn(Arc::clone(&self.desk).deliver(Arc::clone(endpoint), due, reply));
                }
                Order::Load { endpoint, load } => {
                    let reply = Reply::new(self.sender.clone(), Message::LoadRefused(endpoint));
                    self.tasks.spawn(Arc::clone(&self.desk).load(endpoint, load, reply));
                }
            }
        }
        self.plan.next_wake().map(|wake_ms| wake_ms.saturating_sub(now_ms))
    }

    /// Waits for what is in flight, within the limit, and gives up the rest.
    async fn drain(&mut self, stop: &mut watch::Receiver<Stop>) -> Result<Drained, StoreError> {
        let leases = self.plan.leases();
        let mut finished = 0;
        let mut received = Vec::new();
        let deadline = sleep_ms(Some(self.limits.drain_ms));
        tokio::pin!(deadline);
        while self.plan.leases() > 0 {
            tokio::select! {
                biased;
                () = &mut deadline => break,
                () = told_now(stop) => break,
                _ = self.messages.recv_many(&mut received, MESSAGES_MAX) => finished += self.apply(&mut received)?,
            }
        }
        Ok(Drained { finished, abandoned: leases - finished })
    }
}

/// Waits so long; for `None` forever.
async fn sleep_ms(wait_ms: Option<u64>) {
    match wait_ms {
        Some(wait_ms) => tokio::time::sleep(Duration::from_millis(wait_ms)).await,
        None => std::future::pending().await,
    }
}

/// Waits for the word to stop at once. Nobody can say it when the channel is closed.
async fn told_now(stop: &mut watch::Receiver<Stop>) {
    if stop.wait_for(|stop| *stop == Stop::Now).await.is_err() {
        std::future::pending::<()>().await;
    }
}
