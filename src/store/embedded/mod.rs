//! The embedded form of the store: a journal that acknowledges, a key space in sled that is folded from it.
//!
//! ```text
//!  callers ──permit──▶ queue ──▶ writer: decide ▶ append ▶ fdatasync ▶ fold ▶ answer
//!                                   │                         │
//!                                   │ jobs                    └─▶ table in memory ──▶ applier ──▶ sled
//!                                   ▼
//!                              housekeeper: segments, checkpoints, retention, expired keys, free space
//! ```
//! A watch sees to it that reads of sled return.
//!
//! **Invariants**
//! - One writer. Everybody else reads what it has synced and folded.
//! - Nothing is answered, or visible, before it is durable.
//! - A failure of the storage is final: the store stops, and a new start recovers what is durable.

mod applier;
mod backup;
mod ballast;
mod checkpoint;
mod commit;
mod count;
mod crew;
mod draft;
mod frames;
mod housekeeper;
mod lock;
mod queue;
mod read;
mod recent;
mod recovery;
mod retention;
mod salvage;
mod shared;
mod time;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use tokio::sync::{Notify, Semaphore, oneshot};

pub use backup::{BackupError, RestoreError, Restored, Summary, check, restore, restore_on};
pub use crew::Crew;
pub use lock::{LockError, StoreLock};
pub use recovery::{OpenError, Opened, Progress, journal_dir, journal_options};
pub use salvage::{Salvaged, salvage};

use self::applier::{Applier, Applying};
use self::commit::Committer;
use self::housekeeper::{Chore, Housekeeper};
use self::queue::{Command, Queue, event_bytes};
use self::shared::Shared;
use self::writer::Writer;
use super::{
    Accepted, Applied, AttemptRecord, Backup, DeadKey, DeadLetter, DeadQuery, Delivery, Due, DueKey, EventQuery, Hints,
    Page, Redriven, Refusal, Settle, Stats, Store, StoreError,
};
use crate::core::delivery::DeliveryId;
use crate::core::event::{Event, NewEvent};
use crate::core::fact::{EndpointNote, Standing};
use crate::core::id::{EndpointId, EventId};
use crate::core::limits::StoreLimits;
use crate::env::{Clock, Disk, Entropy, RealClock, RealDisk, RealEntropy};
use crate::index::{Home, MemTree};

/// Reads that go on at once. Each may hold a whole batch in memory, on a thread of its own; the others wait for their turn.
const READS_MAX: usize = 4;

/// Events that came within so many milliseconds are read one after the other: they mostly share a batch, so that the first
/// read serves the others too.
const TURN_MS: u64 = 16;

/// The store of one process.
pub struct EmbeddedStore<D: Disk = RealDisk> {
    shared: Arc<Shared<D>>,
    queue: Queue<D>,
    applier: Applier,
    chores: Sender<Chore<D>>,
    /// `None` once closed, and where the caller drives a [`Crew`].
    threads: Mutex<Option<Threads>>,
    reads: Semaphore,
    turns: [tokio::sync::Mutex<()>; READS_MAX],
    /// Reads are done where they are asked for, as there is only one thread.
    reads_inline: bool,
    opened: Opened,
}

/// Threads in the order in which they are stopped.
struct Threads {
    housekeeper: JoinHandle<()>,
    writer: JoinHandle<()>,
    applier: JoinHandle<()>,
    watch: JoinHandle<()>,
    /// While it lives the watch does.
    watched: Sender<()>,
}

/// Those who do the store's work, before it is decided how they are driven.
struct Hands<D: Disk> {
    writer: Writer<D>,
    housekeeper: Housekeeper<D>,
    applying: Applying,
}

/// How a store is opened.
pub struct Opening<'p> {
    /// The data directory; made if it is missing.
    pub data: PathBuf,
    /// Its limits.
    pub limits: StoreLimits,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Build the key space anew even if nothing is wrong with it.
    pub rebuild: bool,
    /// Told of the progress of a rebuild.
    pub progress: Progress<'p>,
}

impl<'p> Opening<'p> {
    /// With the machine's own time and randomness, and without a rebuild that isn't needed.
    pub fn of_machine(data: PathBuf, limits: StoreLimits, progress: Progress<'p>) -> Self {
        let (clock, entropy) = (Arc::new(RealClock::new()), Arc::new(RealEntropy));
        Self { data, limits, clock, entropy, rebuild: false, progress }
    }
}

impl EmbeddedStore<RealDisk> {
    /// Opens the store on the machine's own disk.
    pub fn open(opening: Opening<'_>) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(RealDisk), opening)
    }
}

impl<D: Disk> EmbeddedStore<D> {
    /// Opens the store with its journal on `disk`; the key space is sled's, which knows only the machine's own disk.
    pub fn open_on(disk: Arc<D>, opening: Opening<'_>) -> Result<Self, OpenError> {
        let (home, data) = (recovery::index_home(&opening.data), opening.data.clone());
        let (mut store, Hands { writer, housekeeper, applying }) = Self::assemble(disk, &home, opening, None)?;
        let (shared, applied) = (&store.shared, Arc::clone(&store.shared));
        let (tree, watching) = (shared.state().tree().clone(), Arc::clone(shared));
        let (watched, stopped) = crossbeam_channel::bounded(0);
        let threads = Threads {
            housekeeper: spawn("housekeeper", shared, &data, move || housekeeper.run())?,
            writer: spawn("writer", shared, &data, move || writer.run())?,
            applier: spawn("applier", shared, &data, move || applying.run(&applied))?,
            watch: spawn("watch", shared, &data, move || watch::run(&tree, &watching, &stopped))?,
            watched,
        };
        store.threads = Mutex::new(Some(threads));
        Ok(store)
    }

    /// Opens the store without threads, and with its key space in memory: whoever calls drives its [`Crew`], and so decides
    /// what happens in which order.
    pub fn open_unmanned(disk: Arc<D>, keys: MemTree, opening: Opening<'_>) -> Result<(Self, Crew<D>), OpenError> {
        let bell = Arc::new(Notify::new());
        let (mut store, hands) = Self::assemble(disk, &Home::Memory(keys), opening, Some(Arc::clone(&bell)))?;
        store.reads_inline = true;
        let crew = Crew::new(hands, Arc::clone(&store.shared), bell);
        Ok((store, crew))
    }

    fn assemble(
        disk: Arc<D>,
        home: &Home,
        mut opening: Opening<'_>,
        bell: Option<Arc<Notify>>,
    ) -> Result<(Self, Hands<D>), OpenError> {
        let parts = recovery::open(&disk, home, &mut opening)?;
        let Opening { data, limits, entropy, .. } = opening;
        let reader = parts.journal.reader();
        let shared = Arc::new(Shared::new(parts.state, reader, parts.time, limits.clone(), parts.lock));
        let (queue, commands) = Queue::new(limits.queue_items_max, limits.queue_bytes_max, bell);
        let (applier, applying) = Applier::new();
        let (chores, to_do) = crossbeam_channel::unbounded();
        let place = (Arc::clone(&disk), data.clone());
        let committer = Committer::new(parts.journal, place, Arc::clone(&shared), entropy, parts.last_id);
        let writer = Writer {
            committer,
            commands,
            queue: queue.clone(),
            shared: Arc::clone(&shared),
            applier: applier.clone(),
            chores: chores.clone(),
        };
        let housekeeper = Housekeeper {
            shared: Arc::clone(&shared),
            disk,
            journal_dir: recovery::journal_dir(&data),
            data,
            queue: queue.clone(),
            chores: to_do,
            sweep_from: None,
            wall_ahead_ms: shared.time.wall_ahead_ms(),
            writer: None,
        };
        // Before the first event: room and clock are judged once.
        let _ = chores.send(Chore::Look(None));
        let (threads, opened) = (Mutex::default(), parts.opened);
        let store = Self {
            shared,
            queue,
            applier,
            chores,
            threads,
            reads: Semaphore::new(READS_MAX),
            turns: Default::default(),
            reads_inline: false,
            opened,
        };
        Ok((store, Hands { writer, housekeeper, applying }))
    }

    /// What opening found and did.
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Lets no more events in; deliveries and reads go on.
    pub fn stop_intake(&self) {
        self.shared.stop_intake();
    }

    /// Has the housekeeper look around now: retention, expired keys, free space. It does so every few seconds by itself.
    /// Returns when that is done, or when the store has stopped.
    pub async fn keep_house(&self) {
        let (done, seen) = oneshot::channel();
        if self.chores.send(Chore::Look(Some(done))).is_ok() {
            self.queue.ring();
            let _ = seen.await;
        }
    }

    /// Resolves with the reason when the storage has failed; then the process should end.
    pub async fn failed(&self) -> Arc<str> {
        let mut failure = self.shared.watch_failure();
        let found = failure.wait_for(Option::is_some).await;
        // The sender lives in `self`, so the channel cannot close while this waits.
        found.ok().and_then(|reason| reason.clone()).unwrap_or_else(|| "the store is gone".into())
    }

    /// Why the storage failed, if it did.
    pub fn failure(&self) -> Option<StoreError> {
        self.shared.failure()
    }

    /// Writes what waits, applies it, and ends the store's work. Blocks; later calls that change something are refused. The
    /// data directory is free for another process once the store is dropped.
    pub fn close(&self) {
        self.stop_intake();
        self.queue.close();
        let Some(threads) = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        // The housekeeper first: it may wait for an answer of the writer. A panic in one of them has been told as a failure.
        let _ = self.chores.send(Chore::Stop);
        let _ = threads.housekeeper.join();
        self.queue.send_waiting(Command::Stop);
        let _ = threads.writer.join();
        self.applier.stop();
        let _ = threads.applier.join();
        // Last, as those before it may wait for a read.
        drop(threads.watched);
        let _ = threads.watch.join();
    }

    async fn ask<T>(&self, command: impl FnOnce(queue::Reply<T>) -> Command<D>) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        // After a failure nobody takes commands; then the failure is the answer, and not that the gateway is stopping.
        self.queue.send(command(reply)).map_err(|refused| self.shared.failure().unwrap_or(refused))?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Why nobody answers.
    fn gone(&self) -> StoreError {
        self.shared.failure().unwrap_or(StoreError::Refused(Refusal::Stopping))
    }

    /// Runs a read that may touch the disk away from the async workers.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared<D>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.reads_inline {
            return read(&self.shared);
        }
        let _one_of_few = self.reads.acquire().await;
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || read(&shared)).await;
        read.unwrap_or_else(|ended| {
            Err(if ended.is_panic() { self.shared.fail(&Panicked("reader")) } else { self.gone() })
        })
    }
}

impl<D: Disk> Drop for EmbeddedStore<D> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Starts a thread whose panic counts as a failure of the storage.
fn spawn<D: Disk>(
    name: &'static str,
    shared: &Arc<Shared<D>>,
    data: &Path,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let shared = Arc::clone(shared);
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            shared.fail(&Panicked(name));
        }
    };
    let spawned = std::thread::Builder::new().name(format!("store-{name}")).spawn(guarded);
    spawned.map_err(|source| OpenError::Io { path: data.to_owned(), source })
}

#[derive(Debug, thiserror::Error)]
#[error("the store's {0} thread panicked; this is a bug")]
struct Panicked(&'static str);

impl<D: Disk> Store for EmbeddedStore<D> {
    async fn accept(&self, event: NewEvent) -> Result<Accepted, StoreError> {
        self.shared.intake()?;
        let (bytes, max) = (event_bytes(&event), self.shared.limits.batch_bytes_max);
        if bytes > max {
            return Err(StoreError::TooLarge { bytes, max });
        }
        let permit = self.queue.room_for(bytes).await?;
        let event = Box::new(event);
        self.ask(|reply| Command::Accept { event, permit, reply }).await
    }

    async fn settle(&self, settle: Settle) -> Result<Applied, StoreError> {
        let permit = self.queue.room_for_settle().await?;
        let settle = Box::new(settle);
        self.ask(|reply| Command::Settle { settle, permit, reply }).await
    }

    async fn pending(&self, endpoint: EndpointId, after: Option<DueKey>, limit: usize) -> Result<Vec<Due>, StoreError> {
        self.read(move |shared| {
            read::pending(&shared.state(), endpoint, after, limit).map_err(|error| shared.fail(&error))
        })
        .await
    }

    async fn event(&self, id: EventId) -> Result<Option<Arc<Event>>, StoreError> {
        if let Some(event) = self.shared.event_in_memory(id) {
            return event.map(Some);
        }
        // A neighbour that is being read mostly brings this one with it.
        let _turn = self.turns[(id.ms() / TURN_MS) as usize % READS_MAX].lock().await;
        match self.shared.event_in_memory(id) {
            Some(event) => event.map(Some),
            None => self.read(move |shared| shared.read_event(id)).await,
        }
    }

    async fn events(&self, query: EventQuery) -> Result<Page<Arc<Event>, EventId>, StoreError> {
        self.read(move |shared| shared.read_events(&query)).await
    }

    async fn deliveries(&self, id: EventId) -> Result<Option<Vec<Delivery>>, StoreError> {
        self.read(move |shared| shared.read_deliveries(id)).await
    }

    async fn attempts(&self, id: EventId) -> Result<Option<Vec<AttemptRecord>>, StoreError> {
        self.read(move |shared| shared.read_attempts(id)).await
    }

    async fn dead(&self, query: DeadQuery) -> Result<Page<DeadLetter, DeadKey>, StoreError> {
        self.read(move |shared| shared.read_dead(&query)).await
    }

    async fn redrive(&self, delivery: DeliveryId) -> Result<Redriven, StoreError> {
        let Some(event) = self.event(delivery.event).await? else { return Ok(Redriven::Unknown) };
        if !event.meta.endpoints.contains(&delivery.endpoint) {
            return Ok(Redriven::Unknown);
        }
        if event.erased {
            return Ok(Redriven::Erased);
        }
        let attempts_made = self.read(move |shared| shared.attempts_made(delivery)).await?;
        let permit = self.queue.room_for_settle().await?;
        self.ask(|reply| Command::Redrive { delivery, attempts_made, permit, reply }).await
    }

    async fn erase(&self, id: EventId) -> Result<bool, StoreError> {
        let Some(event) = self.event(id).await? else { return Ok(false) };
        let endpoints = event.meta.endpoints.clone();
        let _permit = self.queue.room_for_settle().await?;
        self.ask(|reply| Command::Erase { id, endpoints, reply }).await?;
        Ok(true)
    }

    async fn set_standing(
        &self,
        endpoint: EndpointId,
        app: &str,
        name: &str,
        standing: Standing,
    ) -> Result<(), StoreError> {
        let (id, app, name) = (endpoint, app.to_owned(), name.to_owned());
        let _permit = self.queue.room_for_settle().await?;
        self.ask(|reply| Command::SetStanding { id, app, name, standing, reply }).await
    }

    fn endpoint_notes(&self) -> Vec<EndpointNote> {
        let notes = read::all_notes(&self.shared.state());
        notes.unwrap_or_else(|error| {
            self.shared.fail(&error);
            Vec::new()
        })
    }

    async fn backup(&self) -> Result<Backup, StoreError> {
        let _permit = self.queue.room_for_settle().await?;
        let begun = self.ask(|reply| Command::Copy { reply }).await?;
        let (copy, checkpoint) = begun.ok_or(StoreError::BackupRuns)?;
        let taking = backup::Taking::new(self.now_ms(), &checkpoint, copy);
        Ok(Backup { bytes: taking.bytes(), chunks: Box::new(taking) })
    }

    fn hints(&self) -> Arc<Hints> {
        Arc::clone(&self.shared.hints)
    }

    fn now_ms(&self) -> u64 {
        self.shared.time.now_ms()
    }

    fn intake(&self) -> Result<(), Refusal> {
        self.shared.intake()
    }

    fn stats(&self) -> Stats {
        let (counts, lag) = (&self.shared.counts, &self.shared.lag);
        let state = self.shared.state();
        Stats {
            pending: state.ledger.pending,
            oldest_pending_ms: state.ledger.oldest_pending_ms(),
            dead: state.ledger.dead,
            dedup_keys: state.dedup_keys(),
            syncs: counts.syncs.load(Ordering::Relaxed),
            sync_us: counts.sync_us.load(Ordering::Relaxed),
            sync_us_max: counts.sync_us_max.load(Ordering::Relaxed),
            records: counts.records.load(Ordering::Relaxed),
            lag_bytes: lag.bytes.load(Ordering::Relaxed),
            lag_records: lag.records.load(Ordering::Relaxed),
            journal_bytes: counts.journal_bytes.load(Ordering::Relaxed),
            journal_segments: counts.journal_segments.load(Ordering::Relaxed),
            index_bytes: state.tree().disk_bytes(),
            queue_items: self.queue.len() as u64,
            stale_settles: counts.stale_settles.load(Ordering::Relaxed),
        }
    }

    fn durability(&self) -> &'static str {
        "embedded: an answer is given after fdatasync of the journal; the key space in sled is rebuilt from it"
    }
}
