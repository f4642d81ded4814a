//! A data directory that can be opened, left and copied; what to put into a store; and a picture of all that it shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use postrider::core::delivery::{DeadReason, DeliveryId, Next, Pending};
use postrider::core::event::{DedupKey, DedupScope, Event, NewEvent, body_fingerprint};
use postrider::core::fact::EndpointNote;
use postrider::core::id::{AppId, EventId};
use postrider::core::limits::StoreLimits;
use postrider::env::{Disk, ManualClock, RealDisk, SeededEntropy};
use postrider::store::embedded::{EmbeddedStore, OpenError, Opening, Salvaged, salvage};
use postrider::store::{Accepted, Applied, AttemptRecord, DeadLetter, Delivery, Due, Store};

pub use crate::store::{accept, all_events, backlog, ended, endpoint, graveyard, pending_state, state};

/// Where every test starts, unix milliseconds.
pub const START_MS: u64 = 1_700_000_000_000;

/// How long a test waits for something that must come; reached only when it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Endpoints that pictures show.
pub const ENDPOINTS: usize = 4;

/// The smallest files there can be, and nothing that closes intake on its own.
pub fn limits() -> StoreLimits {
    StoreLimits {
        segment_bytes: 64 << 10,
        batch_bytes_max: 16 << 10,
        free_bytes_min: 0,
        cache_bytes: 1 << 20,
        ..StoreLimits::default()
    }
}

/// A data directory with its clock.
pub struct Home {
    dir: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub limits: StoreLimits,
}

impl Home {
    pub fn new(limits: StoreLimits) -> Self {
        quiet_sled();
        Self { dir: tempfile::tempdir().unwrap(), clock: Arc::new(ManualClock::at(START_MS)), limits }
    }

    /// The wall clock, which every store here goes by.
    pub fn clock_ms(&self) -> u64 {
        postrider::env::Clock::wall_ms(&*self.clock)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn journal(&self) -> PathBuf {
        self.path().join("journal")
    }

    pub fn index(&self) -> PathBuf {
        self.path().join("index")
    }

    pub fn open(&self) -> EmbeddedStore {
        self.open_with(&self.limits)
    }

    pub fn open_with(&self, limits: &StoreLimits) -> EmbeddedStore {
        self.try_open(Arc::new(RealDisk), limits).unwrap()
    }

    pub fn open_on<D: Disk>(&self, disk: Arc<D>) -> EmbeddedStore<D> {
        self.try_open_on(disk).unwrap()
    }

    pub fn try_open_on<D: Disk>(&self, disk: Arc<D>) -> Result<EmbeddedStore<D>, OpenError> {
        self.try_open(disk, &self.limits)
    }

    fn try_open<D: Disk>(&self, disk: Arc<D>, limits: &StoreLimits) -> Result<EmbeddedStore<D>, OpenError> {
        let opening = Opening {
            data: self.path().to_owned(),
            limits: limits.clone(),
            clock: self.clock.clone(),
            entropy: Arc::new(SeededEntropy::new(7)),
            rebuild: false,
            progress: &mut |_, _| {},
        };
        EmbeddedStore::open_on(disk, opening)
    }

    /// An empty directory under the same clock and limits.
    pub fn beside(&self) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: self.clock.clone(), limits: self.limits.clone() }
    }

    /// An independent copy as it is now, open or not: what a kill at this moment would leave.
    pub fn copy(&self) -> Self {
        let copy = self.beside();
        copy_dir(self.path(), copy.path());
        copy
    }

    /// Salvages what is there, without the rebuild that an operator's salvage ends with.
    pub fn salvage(&self) -> Salvaged {
        salvage(&Arc::new(RealDisk), self.path(), &self.limits, 99, START_MS).unwrap()
    }

    /// Lets the key space be built anew at the next open.
    pub fn forget_index(&self) {
        fs::remove_dir_all(self.index()).unwrap();
    }
}

/// Copies what is in a directory. A file that goes away meanwhile is one that the copy does not have.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else if let Err(error) = fs::copy(entry.path(), &target) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
}

/// Every file below a directory.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// sled panics on some damage, which the store catches; the noise would hide what matters.
fn quiet_sled() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let in_sled = panic.location().is_some_and(|at| at.file().contains("sled-0.34"));
            if !in_sled {
                loud(panic);
            }
        }));
    });
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Asks again and again until it holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never came to pass: {what}");
}

/// Waits until the key space has all that the journal has.
pub async fn applied<D: Disk>(store: &EmbeddedStore<D>) {
    until("the key space caught up", async || store.stats().lag_records == 0).await;
}

pub fn key(text: &str) -> DedupKey {
    DedupKey::new(DedupScope::Inbound, 7, text)
}

/// A published event for these endpoints.
pub fn event_with(endpoints: &[usize], body: &[u8], dedup: &[DedupKey]) -> NewEvent {
    NewEvent {
        app: AppId::named("", "default"),
        source: None,
        event_type: Some("order.created".to_owned()),
        external_id: None,
        headers: [("content-type", "application/octet-stream")].into_iter().collect(),
        body: Bytes::copy_from_slice(body),
        dedup: dedup.to_vec(),
        fingerprint: body_fingerprint(body),
        endpoints: endpoints.iter().map(|n| endpoint(*n)).collect(),
    }
}

/// Bytes of this length that tell one number from another.
pub fn body_of(number: u64, len: usize) -> Vec<u8> {
    let entropy = SeededEntropy::new(number);
    let mut bytes = vec![0; len];
    postrider::env::Entropy::fill(&entropy, &mut bytes);
    bytes
}

/// The first event under a key that must be taken. Asks with bytes that the event can't have.
pub async fn holder(store: &impl Store, key: DedupKey) -> EventId {
    match store.accept(event_with(&[], b"a probe", &[key])).await.expect("the store works") {
        Accepted::Duplicate { id, .. } => id,
        Accepted::New { event } => panic!("expected a duplicate, got the new event {}", event.meta.id),
    }
}

pub fn delivery(endpoint_n: usize, event: EventId) -> DeliveryId {
    DeliveryId { endpoint: endpoint(endpoint_n), event }
}

/// Settles what must take effect.
pub async fn settle(store: &impl Store, delivery: DeliveryId, was: Pending, next: Next) {
    settle_with(store, delivery, was, next, b"an answer").await;
}

/// Settles, with the bytes that the endpoint answered.
pub async fn settle_with(store: &impl Store, delivery: DeliveryId, was: Pending, next: Next, response: &[u8]) {
    let settle = ended(delivery, was, next, store.now_ms(), response);
    assert_eq!(store.settle(settle).await.expect("the store works"), Applied::Ok);
}

pub const REJECTED: Next = Next::Dead { reason: DeadReason::Rejected };

/// Everything that a user can see.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    pub events: Vec<(Event, Vec<Delivery>, Vec<AttemptRecord>)>,
    pub pending: Vec<Vec<Due>>,
    pub dead: Vec<DeadLetter>,
    pub notes: Vec<EndpointNote>,
    pub holders: Vec<(DedupKey, EventId)>,
    pub figures: (u64, Option<u64>, u64),
}

impl Picture {
    /// What the store shows of everything, and of `keys`, which must be taken.
    pub async fn of(store: &impl Store, keys: &[DedupKey]) -> Self {
        let mut events = Vec::new();
        for listed in all_events(store).await {
            let id = listed.meta.id;
            let event = store.event(id).await.expect("the store works").expect("what is listed is there");
            assert_eq!(*event, *listed, "the listing and the look-up show the same");
            let mut deliveries = store.deliveries(id).await.expect("the store works").expect("known");
            deliveries.sort_by_key(|delivery| delivery.id);
            let attempts = store.attempts(id).await.expect("the store works").expect("known");
            events.push((Event::clone(&event), deliveries, attempts));
        }
        let mut pending = Vec::new();
        for n in 0..ENDPOINTS {
            pending.push(backlog(store, n).await);
        }
        let dead = graveyard(store).await;
        let mut notes = store.endpoint_notes();
        notes.sort_by_key(|note| note.id);
        let mut holders = Vec::new();
        for key in keys {
            holders.push((*key, holder(store, *key).await));
        }
        let stats = store.stats();
        Self { events, pending, dead, notes, holders, figures: (stats.pending, stats.oldest_pending_ms, stats.dead) }
    }

    /// Fails with what differs, not with two whole pictures.
    pub fn assert_same(&self, after: &Self, when: &str) {
        let ids = |picture: &Self| picture.events.iter().map(|(event, ..)| event.meta.id).collect::<Vec<_>>();
        assert_eq!(ids(self), ids(after), "events {when}");
        for (before, after) in self.events.iter().zip(&after.events) {
            assert_eq!(before, after, "an event {when}");
        }
        assert_eq!(self.pending, after.pending, "pending {when}");
        assert_eq!(self.dead, after.dead, "dead letters {when}");
        assert_eq!(self.notes, after.notes, "notes {when}");
        assert_eq!(self.holders, after.holders, "dedup {when}");
        assert_eq!(self.figures, after.figures, "stats {when}");
    }
}

/// How many records of each kind a journal holds, by the words of dumps. Fails when anything in it is damaged.
pub fn kinds<D: Disk>(disk: &D, journal: &Path) -> std::collections::BTreeMap<&'static str, usize> {
    let mut kinds = std::collections::BTreeMap::new();
    let report = postrider::journal::verify(disk, journal, &mut |event| match event {
        postrider::journal::Event::Frame(frame) => {
            for record in &frame.records {
                *kinds.entry(postrider::core::fact::kind::name(record.kind)).or_default() += 1;
            }
        }
        postrider::journal::Event::Finding(finding) => {
            assert_ne!(finding.severity, postrider::journal::Severity::Damage, "{finding:?}");
        }
        _ => {}
    });
    assert_eq!(report.expect("the journal can be verified").damage, 0);
    kinds
}
