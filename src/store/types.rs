//! What goes into the store's calls and comes out of them.

use std::sync::Arc;

use bytes::Bytes;

use crate::core::attempt::Attempt;
use crate::core::delivery::{Dead, DeliveryId, DeliveryState, Next, Pending};
use crate::core::event::{DedupScope, Event};
use crate::core::id::{AppId, EndpointId, EventId, SourceId};

/// The answer to an accept.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// The event is stored.
    New {
        /// As stored, with its id and time.
        event: Arc<Event>,
    },
    /// One of its dedup keys is taken; nothing was stored.
    Duplicate {
        /// The first event under the key.
        id: EventId,
        /// Which key: the first of the given ones that is taken.
        scope: DedupScope,
        /// Whether the first event had the same bytes.
        same_body: bool,
    },
}

/// Ends an attempt.
#[derive(Debug, Clone)]
pub struct Settle {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// The state that the attempt was made in; the fence against a second settle.
    pub was: Pending,
    /// What happened.
    pub attempt: Attempt,
    /// The kept bytes of the response.
    pub response: Bytes,
    /// What becomes of the delivery.
    pub next: Next,
}

/// Whether a settle took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It did.
    Ok,
    /// The delivery was in another state; nothing changed.
    Stale,
}

/// The place of a pending delivery in its endpoint's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueKey {
    /// Unix milliseconds.
    pub due_ms: u64,
    /// Breaks ties in commit order.
    pub event: EventId,
}

/// A pending delivery of a known endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The event.
    pub event: EventId,
    /// Its state.
    pub pending: Pending,
}

impl Due {
    /// Its place in the endpoint's order.
    pub const fn key(&self) -> DueKey {
        DueKey { due_ms: self.pending.due_ms, event: self.event }
    }
}

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Only of this application.
    pub app: Option<AppId>,
    /// Only of this source.
    pub source: Option<SourceId>,
    /// Only of this type.
    pub event_type: Option<String>,
    /// Only accepted at or after this time, unix milliseconds.
    pub since_ms: Option<u64>,
    /// Only accepted before this time, unix milliseconds.
    pub until_ms: Option<u64>,
    /// Where to go on.
    pub cursor: Cursor<EventId>,
    /// At most so many.
    pub limit: usize,
}

/// Where a listing goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cursor<K> {
    /// At the newest.
    #[default]
    Start,
    /// With those older than this one.
    OlderThan(K),
    /// With those newer than this one: the page before.
    NewerThan(K),
}

/// One page of a listing, newest first.
#[derive(Debug, Clone)]
pub struct Page<T, K> {
    /// The entries.
    pub data: Vec<T>,
    /// Where the next page goes on; `None` when nothing is left.
    pub next: Option<K>,
    /// Places that were passed over because they are damaged, each an entry or a batch of them. What is in them can't be
    /// told, so they may be none that were asked for.
    pub unreadable: u64,
}

/// A delivery with its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Which.
    pub id: DeliveryId,
    /// Where it stands.
    pub state: DeliveryState,
}

/// An attempt as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Of which endpoint.
    pub endpoint: EndpointId,
    /// What happened.
    pub attempt: Attempt,
    /// What became of the delivery.
    pub next: Next,
    /// The kept bytes of the response; empty when erased.
    pub response: Bytes,
}

/// Which dead letters to list.
#[derive(Debug, Clone, Default)]
pub struct DeadQuery {
    /// Only of this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Only dead at or after this time, unix milliseconds.
    pub since_ms: Option<u64>,
    /// Only dead before this time, unix milliseconds.
    pub until_ms: Option<u64>,
    /// Where to go on.
    pub cursor: Cursor<DeadKey>,
    /// At most so many.
    pub limit: usize,
}

/// The place of a dead letter in the order of dying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadKey {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// Breaks ties.
    pub delivery: DeliveryId,
}

/// A dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// Why and when.
    pub dead: Dead,
}

impl DeadLetter {
    /// Its place in the order of dying.
    pub const fn key(&self) -> DeadKey {
        DeadKey { at_ms: self.dead.at_ms, delivery: self.delivery }
    }
}

/// The answer to a redrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redriven {
    /// It is due now.
    Due,
    /// It was due already, perhaps in the middle of an attempt; nothing changed.
    AlreadyDue,
    /// The event is unknown, past retention, or never went to that endpoint.
    Unknown,
    /// The event's content was erased.
    Erased,
    /// The endpoint is no longer configured.
    EndpointRemoved,
}

/// Why intake is closed. Deliveries go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The writer's queue is full.
    #[error("the writer's queue is full; try again in a moment")]
    QueueFull,
    /// The journal may not grow and nothing in it may be dropped.
    #[error(
        "the journal holds its {limit_bytes} bytes and all of it is pending; raise retention.bytes or let deliveries drain"
    )]
    JournalFull {
        /// The limit.
        limit_bytes: u64,
    },
    /// The file system is nearly full.
    #[error("the disk has less than {floor_bytes} bytes free; make room")]
    DiskFull {
        /// The floor.
        floor_bytes: u64,
    },
    /// Too many deliveries wait.
    #[error("{limit} deliveries are pending, which is the limit; let them drain or raise limits.pending")]
    PendingFull {
        /// The limit.
        limit: u64,
    },
    /// The gateway is stopping.
    #[error("the gateway is stopping; try again when it is back")]
    Stopping,
}

/// A call that the store could not carry out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Not now; nothing was stored.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The event is larger than a batch.
    #[error("the event takes {bytes} bytes with its headers; at most {max} fit into one batch")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// What was asked for does not match its checksum. The rest of the store is fine.
    #[error(
        "the journal is damaged in segment {segment:016x} at byte {offset}; stop the gateway and run journal verify"
    )]
    Unreadable {
        /// Number of the journal segment.
        segment: u64,
        /// Byte offset of the frame in it.
        offset: u64,
    },
    /// One backup at a time.
    #[error("another backup is under way; wait for it to end")]
    BackupRuns,
    /// This form of the store has no such call.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The storage failed; the process must stop and start again, which recovers what is durable.
    #[error("storage failed: {0}")]
    Failed(Arc<str>),
}

/// A backup under way.
pub struct Backup {
    /// Bytes that it will have, as far as can be said.
    pub bytes: u64,
    /// Its bytes, piece by piece; reading them blocks. What goes wrong on the way is said in them. Dropping this ends it.
    pub chunks: Box<dyn Iterator<Item = Bytes> + Send>,
}

/// Figures of the store; all are kept as they change, none is counted by a scan.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Deliveries that are pending.
    pub pending: u64,
    /// Unix milliseconds of the oldest event with a pending delivery.
    pub oldest_pending_ms: Option<u64>,
    /// Dead letters.
    pub dead: u64,
    /// Dedup keys.
    pub dedup_keys: u64,
    /// Batches synced since the start.
    pub syncs: u64,
    /// Microseconds spent in syncs since the start.
    pub sync_us: u64,
    /// Microseconds of the longest sync since the start.
    pub sync_us_max: u64,
    /// Records written since the start.
    pub records: u64,
    /// Journal bytes that the key space has not applied.
    pub lag_bytes: u64,
    /// Journal records that the key space has not applied.
    pub lag_records: u64,
    /// Bytes of the journal on disk, spare segments included.
    pub journal_bytes: u64,
    /// Journal segments.
    pub journal_segments: u64,
    /// Bytes of the key space on disk.
    pub index_bytes: u64,
    /// Items that wait for the writer.
    pub queue_items: u64,
    /// Settles that came too late since the start.
    pub stale_settles: u64,
}
