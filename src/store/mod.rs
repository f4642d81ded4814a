//! The durable queue: what the rest of the gateway knows of storage is the trait [`Store`] and the types beside it.
//!
//! It is at the level of the queue, not of keys and values, so that scheduling, order and retries are written once above it
//! and a second form (several gateways on one PostgreSQL) can stand behind it. Forms today: [`embedded`] and [`memory`],
//! the model that the contract suite holds every form against.
//!
//! **Invariants**
//! - What was answered is durable, and visible to every later call at once.
//! - One event per dedup key while the key's window is open; keys are claimed with the event or not at all.
//! - A claim writes nothing: leases live in the engine's memory, and after a crash the pending deliveries are simply due.

pub mod embedded;
mod hints;
pub mod memory;
mod types;

pub use hints::{Hints, LaneHints};
pub use types::*;

use std::future::Future;
use std::sync::Arc;

use crate::core::delivery::DeliveryId;
use crate::core::event::{Event, NewEvent};
use crate::core::fact::{EndpointNote, Standing};
use crate::core::id::{EndpointId, EventId};

/// A durable queue of events and their deliveries.
///
/// Every call that changes something returns once the change is durable. Times are unix milliseconds of
/// [`now_ms`](Store::now_ms).
pub trait Store: Send + Sync + 'static {
    /// Stores an event, its dedup keys and its deliveries, all or nothing. A duplicate is answered once its original is
    /// durable.
    fn accept(&self, event: NewEvent) -> impl Future<Output = Result<Accepted, StoreError>> + Send;

    /// Ends an attempt: state change and attempt record together. [`Applied::Stale`] when the delivery is no longer in the
    /// state that the attempt was made in.
    fn settle(&self, settle: Settle) -> impl Future<Output = Result<Applied, StoreError>> + Send;

    /// Pending deliveries of an endpoint in the order of (due, event), due or not, after `after`, at most `limit`.
    fn pending(
        &self,
        endpoint: EndpointId,
        after: Option<DueKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Due>, StoreError>> + Send;

    /// An event with its bytes; `None` when it is unknown or past retention.
    fn event(&self, id: EventId) -> impl Future<Output = Result<Option<Arc<Event>>, StoreError>> + Send;

    /// Events, newest first.
    fn events(&self, query: EventQuery) -> impl Future<Output = Result<Page<Arc<Event>, EventId>, StoreError>> + Send;

    /// The deliveries of an event with their states; `None` when the event is unknown.
    fn deliveries(&self, id: EventId) -> impl Future<Output = Result<Option<Vec<Delivery>>, StoreError>> + Send;

    /// The attempts made for an event, oldest first, as far as they are retained; `None` when the event is unknown.
    fn attempts(&self, id: EventId) -> impl Future<Output = Result<Option<Vec<AttemptRecord>>, StoreError>> + Send;

    /// Dead letters, newest first.
    fn dead(&self, query: DeadQuery) -> impl Future<Output = Result<Page<DeadLetter, DeadKey>, StoreError>> + Send;

    /// Makes one delivery due now with a fresh schedule, whatever its state.
    fn redrive(&self, delivery: DeliveryId) -> impl Future<Output = Result<Redriven, StoreError>> + Send;

    /// Erases the content of an event: its bytes and those of the responses to it leave the disk. Its pending deliveries
    /// become dead letters. False when the event is unknown.
    fn erase(&self, id: EventId) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Sets an endpoint's standing if it differs; an endpoint that is [`Removed`](Standing::Removed) loses its pending
    /// deliveries to the dead letters.
    fn set_standing(
        &self,
        endpoint: EndpointId,
        app: &str,
        name: &str,
        standing: Standing,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Begins a backup of everything that was answered so far.
    fn backup(&self) -> impl Future<Output = Result<Backup, StoreError>> + Send;

    /// Every endpoint that the store has ever been told of.
    fn endpoint_notes(&self) -> Vec<EndpointNote>;

    /// Where the store tells of deliveries that became pending.
    fn hints(&self) -> Arc<Hints>;

    /// The store's time, unix milliseconds.
    fn now_ms(&self) -> u64;

    /// Whether intake is open, and why not.
    fn intake(&self) -> Result<(), Refusal>;

    /// Figures for `/metrics`; cheap, scans nothing.
    fn stats(&self) -> Stats;

    /// How this form keeps its promise, for people.
    fn durability(&self) -> &'static str;
}
