//! What the store's threads and callers have in common.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::frames::{Frames, Kept};
use super::lock::StoreLock;
use super::recent::Recent;
use super::time::EngineTime;
use crate::core::error::chain;
use crate::core::limits::StoreLimits;
use crate::env::Disk;
use crate::index::State;
use crate::index::event::At;
use crate::journal::{Frame, ReadError, Reader};
use crate::store::{Hints, Refusal, StoreError};

/// Shared by the writer, the applier, the housekeeper and every caller.
pub(super) struct Shared<D: Disk> {
    state: RwLock<State>,
    pub(super) reader: Reader<D>,
    pub(super) recent: Recent,
    pub(super) hints: Arc<Hints>,
    pub(super) time: EngineTime,
    pub(super) limits: StoreLimits,
    pub(super) counts: Counts,
    pub(super) lag: Lag,
    pub(super) frames: Frames,
    closed: Mutex<Closed>,
    failure: watch::Sender<Option<Arc<str>>>,
    /// Freed last: whoever takes it next must find sled's own lock free, or would take the key space for damaged.
    _lock: StoreLock,
}

/// Figures that only the store's own threads change.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) pending: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) sync_us: AtomicU64,
    pub(super) sync_us_max: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) stale_settles: AtomicU64,
    pub(super) journal_bytes: AtomicU64,
    /// Of these, what is not idle: what retention goes by.
    pub(super) journal_used_bytes: AtomicU64,
    pub(super) journal_segments: AtomicU64,
}

/// How far the key space is behind the journal.
#[derive(Debug)]
pub(super) struct Lag {
    pub(super) bytes: AtomicU64,
    pub(super) records: AtomicU64,
    /// Since when the active table waits, and the one that is being applied; microseconds of steady time.
    active_us: AtomicU64,
    applying_us: AtomicU64,
}

/// Nothing waits.
const NEVER_US: u64 = u64::MAX;

impl Default for Lag {
    fn default() -> Self {
        let never = || AtomicU64::new(NEVER_US);
        Self { bytes: AtomicU64::new(0), records: AtomicU64::new(0), active_us: never(), applying_us: never() }
    }
}

impl Lag {
    /// A frame was folded. With the state locked, so that whoever sets the table aside takes just what is in it off the lag.
    pub(super) fn folded(&self, bytes: u64, records: u64, now_us: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.active_us.fetch_min(now_us, Ordering::Relaxed);
    }

    /// The active table was set aside; how much is in it. With the state locked.
    pub(super) fn set_aside(&self) -> (u64, u64) {
        self.applying_us.store(self.active_us.swap(NEVER_US, Ordering::Relaxed), Ordering::Relaxed);
        (self.bytes.load(Ordering::Relaxed), self.records.load(Ordering::Relaxed))
    }

    /// What was set aside is applied.
    pub(super) fn applied(&self, (bytes, records): (u64, u64)) {
        self.applying_us.store(NEVER_US, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.records.fetch_sub(records, Ordering::Relaxed);
    }

    /// Milliseconds since the oldest change that waits.
    pub(super) fn age_ms(&self, now_us: u64) -> u64 {
        let since_us = self.applying_us.load(Ordering::Relaxed).min(self.active_us.load(Ordering::Relaxed));
        now_us.saturating_sub(since_us) / 1_000
    }
}

/// Why intake is closed; each reason comes and goes on its own.
#[derive(Debug, Default)]
struct Closed {
    stopping: bool,
    journal_full: bool,
    disk_full: bool,
}

impl<D: Disk> Shared<D> {
    pub(super) fn new(state: State, reader: Reader<D>, time: EngineTime, limits: StoreLimits, lock: StoreLock) -> Self {
        Self {
            recent: Recent::new(limits.recent_bytes_max),
            counts: Counts { pending: AtomicU64::new(state.ledger.pending), ..Counts::default() },
            state: RwLock::new(state),
            reader,
            hints: Arc::default(),
            time,
            limits,
            lag: Lag::default(),
            frames: Frames::default(),
            closed: Mutex::default(),
            failure: watch::channel(None).0,
            _lock: lock,
        }
    }

    /// The key space, to read.
    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key space, to change.
    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame of the journal; `None` when its segment has been dropped.
    pub(super) fn frame(&self, at: At) -> Result<Option<Arc<Kept>>, StoreError> {
        if let Some(kept) = self.frames.get(at) {
            return Ok(Some(kept));
        }
        let before_reading = self.frames.before_reading();
        let frame = match self.reader.frame_at(at.segment, at.offset) {
            Ok(frame) => frame,
            Err(ReadError::Gone { .. }) => return Ok(None),
            Err(error) => return Err(self.unread(&error)),
        };
        self.keep_frame(before_reading, at, frame).map(Some)
    }

    /// The same, and where deliveries go through the journal in order some of those behind it too.
    pub(super) fn frame_and_next(&self, at: At) -> Result<Option<Arc<Kept>>, StoreError> {
        let Some(kept) = self.frame(at)? else { return Ok(None) };
        let mut next = At { offset: kept.frame.at.end(), ..at };
        let until = self.frames.read_on(at, next.offset);
        while next.offset < until {
            let before_reading = self.frames.before_reading();
            // What can't be read, or is not there, is for whoever wants it.
            let Ok(frame) = self.reader.frame_at(next.segment, next.offset) else { break };
            let end = frame.at.end();
            self.keep_frame(before_reading, next, frame)?;
            next.offset = end;
        }
        Ok(Some(kept))
    }

    fn keep_frame(&self, before_reading: u64, at: At, frame: Frame) -> Result<Arc<Kept>, StoreError> {
        let erased = super::read::erased_of(&self.state(), &frame).map_err(|e| self.fail(&e))?;
        let kept = Arc::new(Kept::new(frame, erased));
        self.frames.keep(before_reading, at, Arc::clone(&kept));
        Ok(kept)
    }

    /// What a failed read of the journal comes to: damage concerns what was asked for alone, anything else all.
    pub(super) fn unread(&self, error: &ReadError) -> StoreError {
        match error {
            ReadError::Damaged { segment, offset, .. } => super::read::unreadable(*segment, *offset),
            other => self.fail(other),
        }
    }

    /// The storage failed for good: whoever runs the store must stop and start it again.
    pub(super) fn fail(&self, error: &dyn std::error::Error) -> StoreError {
        let text: Arc<str> = chain(error).into();
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(error = %text, "storage failed; stopping, since only a new start knows what is durable");
                *failure = Some(Arc::clone(&text));
            }
            first
        });
        StoreError::Failed(text)
    }

    /// Why the storage failed, if it did.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.borrow().clone().map(StoreError::Failed)
    }

    /// Resolves when the storage has failed.
    pub(super) fn watch_failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.failure.subscribe()
    }

    /// Lets no more events in.
    pub(super) fn stop_intake(&self) {
        self.closed().stopping = true;
    }

    /// Whether the gateway is stopping.
    pub(super) fn is_stopping(&self) -> bool {
        self.closed().stopping
    }

    /// Closes intake until the housekeeper finds room.
    pub(super) fn set_disk_full(&self) {
        let journal_full = self.closed().journal_full;
        self.set_full(journal_full, true);
    }

    /// Opens or closes intake for want of room.
    pub(super) fn set_full(&self, journal_full: bool, disk_full: bool) {
        let mut closed = self.closed();
        for (was, is, what) in [
            (closed.journal_full, journal_full, "the journal is at its limit and pending events can't be dropped"),
            (closed.disk_full, disk_full, "the disk is nearly full"),
        ] {
            match (was, is) {
                (false, true) => tracing::warn!("intake closed: {what}; deliveries go on"),
                (true, false) => tracing::info!("intake open again"),
                _ => {}
            }
        }
        (closed.journal_full, closed.disk_full) = (journal_full, disk_full);
    }

    /// Whether events may come in.
    pub(super) fn intake(&self) -> Result<(), Refusal> {
        if self.is_stopping() {
            return Err(Refusal::Stopping);
        }
        self.room()?;
        let limit = self.limits.pending_max;
        if self.counts.pending.load(Ordering::Relaxed) >= limit {
            return Err(Refusal::PendingFull { limit });
        }
        Ok(())
    }

    /// Whether there is room for events on the disk and in the journal.
    pub(super) fn room(&self) -> Result<(), Refusal> {
        let (closed, limits) = (self.closed(), &self.limits);
        if closed.journal_full {
            return Err(Refusal::JournalFull { limit_bytes: limits.retention_bytes });
        }
        if closed.disk_full {
            return Err(Refusal::DiskFull { floor_bytes: limits.free_bytes_min });
        }
        Ok(())
    }

    fn closed(&self) -> MutexGuard<'_, Closed> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
