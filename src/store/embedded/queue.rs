//! The way to the writer: a bounded channel that is never sent to without a permit, so that no async worker ever blocks.
//!
//! Permits are units of 4 KiB; an event takes as many as its bytes need, so one count bounds both items and bytes. Settles
//! and the operator's commands have permits of their own: a flood of events cannot keep deliveries from ending.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::checkpoint::Checkpoint;
use super::retention::DropPlan;
use crate::core::attempt::{Attempt, Outcome};
use crate::core::delivery::DeliveryId;
use crate::core::event::{DedupKey, NewEvent};
use crate::core::fact::Standing;
use crate::core::id::{EndpointId, EventId};
use crate::env::Disk;
use crate::journal::{Copy, JobDone};
use crate::store::{Accepted, Applied, Redriven, Refusal, Settle, StoreError};

/// Bytes of one permit.
const UNIT_BYTES: usize = 4_096;

/// Settles and operator commands that wait at once.
const SETTLES_MAX: usize = 8_192;

/// Messages that need no permit: a helper's results and the order to stop.
const INTERNAL_MAX: usize = 256;

/// Where the answer to a command goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something for the writer to do.
pub(super) enum Command<D: Disk> {
    /// See [`Store::accept`](crate::store::Store::accept).
    Accept { event: Box<NewEvent>, permit: OwnedSemaphorePermit, reply: Reply<Accepted> },
    /// See [`Store::settle`](crate::store::Store::settle).
    Settle { settle: Box<Settle>, permit: OwnedSemaphorePermit, reply: Reply<Applied> },
    /// See [`Store::redrive`](crate::store::Store::redrive). The event exists and was meant for the endpoint.
    /// `attempts_made` counts where the key space no longer knows.
    Redrive { delivery: DeliveryId, attempts_made: u32, permit: OwnedSemaphorePermit, reply: Reply<Redriven> },
    /// Erases the content of an event that exists.
    Erase { id: EventId, endpoints: Vec<EndpointId>, reply: Reply<()> },
    /// See [`Store::set_standing`](crate::store::Store::set_standing).
    SetStanding { id: EndpointId, app: String, name: String, standing: Standing, reply: Reply<()> },
    /// Begins a copy of what is durable, with a checkpoint of the same moment; none while there is another.
    Copy { reply: Reply<Option<(Copy<D>, Checkpoint)>> },
    /// Drops the oldest segment if the plan still holds.
    Drop { plan: Box<DropPlan>, reply: Reply<bool> },
    /// Removes dedup keys that have expired.
    Sweep { keys: Vec<DedupKey> },
    /// A helper finished a job of the journal.
    JobDone(JobDone<D>),
    /// Nothing comes after this.
    Stop,
}

impl<D: Disk> Command<D> {
    /// Whether the command must not share a batch with others.
    pub(super) const fn stands_alone(&self) -> bool {
        !matches!(self, Self::Accept { .. } | Self::Settle { .. } | Self::Redrive { .. })
    }

    /// Whether somebody outside waits for the answer.
    pub(super) const fn is_urgent(&self) -> bool {
        !matches!(self, Self::Settle { .. })
    }
}

/// The sending end.
pub(super) struct Queue<D: Disk> {
    sender: Sender<Command<D>>,
    intake: Arc<Semaphore>,
    settles: Arc<Semaphore>,
    units: usize,
    /// Rung for whoever does the work without threads.
    bell: Option<Arc<Notify>>,
}

impl<D: Disk> Clone for Queue<D> {
    fn clone(&self) -> Self {
        let (intake, settles) = (Arc::clone(&self.intake), Arc::clone(&self.settles));
        Self { sender: self.sender.clone(), intake, settles, units: self.units, bell: self.bell.clone() }
    }
}

impl<D: Disk> Queue<D> {
    /// A queue of so many items and bytes; the receiver is the writer's.
    pub(super) fn new(items_max: usize, bytes_max: usize, bell: Option<Arc<Notify>>) -> (Self, Receiver<Command<D>>) {
        let units = (bytes_max / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS).min(items_max.max(1));
        let (sender, receiver) = bounded(units + SETTLES_MAX + INTERNAL_MAX);
        let intake = Arc::new(Semaphore::new(units));
        (Self { sender, intake, settles: Arc::new(Semaphore::new(SETTLES_MAX)), units, bell }, receiver)
    }

    /// Waits for room for an event of so many bytes.
    pub(super) async fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        // The largest event takes the whole of a small queue, not more than there is.
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES).clamp(1, self.units)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.intake).acquire_many_owned(units).await;
        permit.map_err(|_| Refusal::Stopping.into())
    }

    /// Waits for room for a settle or an operator's command.
    pub(super) async fn room_for_settle(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let permit = Arc::clone(&self.settles).acquire_owned().await;
        permit.map_err(|_| Refusal::Stopping.into())
    }

    /// Hands a command over; never waits.
    pub(super) fn send(&self, command: Command<D>) -> Result<(), StoreError> {
        self.sender.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::QueueFull,
            TrySendError::Disconnected(_) => Refusal::Stopping,
        })?;
        self.ring();
        Ok(())
    }

    /// Says that there is something to do.
    pub(super) fn ring(&self) {
        self.bell.iter().for_each(|bell| bell.notify_one());
    }

    /// Hands a command over from a helper thread, which may wait.
    pub(super) fn send_waiting(&self, command: Command<D>) {
        // The writer is gone only when the store stops or has failed; then nobody needs the command any more.
        let _ = self.sender.send(command);
    }

    /// Lets nothing new in.
    pub(super) fn close(&self) {
        self.intake.close();
        self.settles.close();
    }

    /// Whether nobody has room for a command that is not answered. Once closed, nobody will have again.
    pub(super) fn is_idle(&self) -> bool {
        self.intake.available_permits() >= self.units && self.settles.available_permits() >= SETTLES_MAX
    }

    /// Items that wait.
    pub(super) fn len(&self) -> usize {
        self.sender.len()
    }
}

/// Bytes that an event takes in a batch, a little more than exactly.
pub(super) fn event_bytes(event: &NewEvent) -> usize {
    let texts = event.event_type.as_ref().map_or(0, String::len) + event.external_id.as_ref().map_or(0, String::len);
    event.body.len() + event.headers.total_bytes() + 8 * event.headers.len() + texts + 20 * event.endpoints.len() + 256
}

/// Bytes that a settle takes in a batch, a little more than exactly.
pub(super) fn settle_bytes(settle: &Settle) -> usize {
    let Attempt { response_headers: headers, remote, outcome, .. } = &settle.attempt;
    let detail = if let Outcome::Failed { detail, .. } = outcome { detail.len() } else { 0 };
    let texts = detail + remote.as_ref().map_or(0, String::len);
    settle.response.len() + headers.total_bytes() + 8 * headers.len() + texts + 512
}

/// The body that goes with no fact.
pub(super) const NO_BODY: Bytes = Bytes::new();
