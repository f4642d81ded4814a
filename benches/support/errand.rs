//! A store without threads, a disk or sled beneath it: an event's way through it takes the same instructions every time.

use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use postrider::core::delivery::{DeliveryId, Next, Pending};
use postrider::core::event::{DedupKey, DedupScope};
use postrider::core::limits::StoreLimits;
use postrider::env::{ManualClock, SeededEntropy};
use postrider::index::MemTree;
use postrider::store::embedded::{Crew, EmbeddedStore, Opening};
use postrider::store::{Accepted, Applied, Settle, Store};
use tokio::runtime::Runtime;

use super::attempt::attempt;
use super::event::{endpoint, event};
use super::nowhere::NoDisk;

/// Bytes of a body, as in the gateway's bench.
const BODY_BYTES: usize = 1_024;

/// Events between two batches of the key space.
const APPLY_EVERY: u64 = 256;

/// The wall clock, which stands still.
const NOW_MS: u64 = 1_700_000_000_000;

/// The store and those who drive it.
pub struct Errand {
    store: EmbeddedStore<NoDisk>,
    crew: Crew<NoDisk>,
    runtime: Runtime,
    body: Bytes,
    events: u64,
    /// Holds the store's lock; nothing else is written.
    _home: TempDir,
}

impl Errand {
    /// An empty store.
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let opening = Opening {
            data: home.path().to_owned(),
            limits: StoreLimits::default(),
            clock: Arc::new(ManualClock::at(NOW_MS)),
            entropy: Arc::new(SeededEntropy::new(1)),
            rebuild: false,
            progress: &mut |_, _| {},
        };
        let (store, crew) = EmbeddedStore::open_unmanned(Arc::new(NoDisk), MemTree::new(), opening).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { store, crew, runtime, body: vec![b'x'; BODY_BYTES].into(), events: 0, _home: home }
    }

    /// Accepts an event with a dedup key and one delivery, and settles that as delivered.
    pub fn run(&mut self) {
        self.events += 1;
        let dedup = vec![DedupKey::new(DedupScope::Inbound, 7, &self.events.to_string())];
        let event = event(self.body.clone(), dedup);
        let (store, crew) = (&self.store, &mut self.crew);
        self.runtime.block_on(async {
            let (accepted, written) = tokio::join!(store.accept(event), async { crew.write() });
            let Accepted::New { event } = accepted.unwrap() else { panic!("expected a new event") };
            let delivery = DeliveryId { endpoint: endpoint(), event: event.meta.id };
            let (was, attempt) = (Pending::fresh(event.meta.accepted_ms), attempt(NOW_MS));
            let settle = Settle { delivery, was, attempt, response: Bytes::new(), next: Next::Delivered };
            let (applied, settled) = tokio::join!(store.settle(settle), async { crew.write() });
            assert!(applied.unwrap() == Applied::Ok && written && settled);
        });
        if self.events.is_multiple_of(APPLY_EVERY) {
            assert!(self.crew.apply());
        }
    }
}
