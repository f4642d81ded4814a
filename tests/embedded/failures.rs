//! A disk that fails at any moment, or has no room: nothing is acknowledged that a new start does not show, every call gets
//! an answer, and who runs the store hears of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider::core::delivery::{DeliveryId, DeliveryState, Next, Pending};
use postrider::core::event::Event;
use postrider::core::fact::Standing;
use postrider::core::id::EventId;
use postrider::core::limits::StoreLimits;
use postrider::env::{Disk, Entropy, MemDisk, RealDisk, SeededEntropy, Space};
use postrider::store::embedded::EmbeddedStore;
use postrider::store::{Accepted, Applied, Refusal, Settle, Store, StoreError};

use crate::support::{
    Home, PATIENCE, Picture, REJECTED, accept, backlog, body_of, delivery, ended, endpoint, event_with, holder, key,
    kinds, limits, runtime, state,
};

/// What was asked of a delivery, and whether it was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Asked {
    next: Next,
    acknowledged: bool,
}

/// What a session knows when it ends.
#[derive(Debug, Default)]
struct Known {
    /// Acknowledged events with the text of their key.
    events: BTreeMap<EventId, (Arc<Event>, String)>,
    settles: BTreeMap<DeliveryId, Asked>,
    /// Whether the erasure was acknowledged.
    erased: BTreeMap<EventId, bool>,
    standing: bool,
}

type Session = Result<(), StoreError>;

impl Known {
    async fn accept<D: Disk>(
        &mut self,
        store: &EmbeddedStore<D>,
        to: &[usize],
        len: usize,
    ) -> Result<Arc<Event>, StoreError> {
        let text = format!("evt_{}", self.events.len());
        let body = body_of(self.events.len() as u64, len);
        match answered(store.accept(event_with(to, &body, &[key(&text)]))).await? {
            Accepted::New { event } => {
                self.events.insert(event.meta.id, (Arc::clone(&event), text));
                Ok(event)
            }
            Accepted::Duplicate { .. } => panic!("the key is new"),
        }
    }

    async fn settle<D: Disk>(&mut self, store: &EmbeddedStore<D>, event: &Event, next: Next) -> Session {
        let id = delivery(0, event.meta.id);
        let due = answered(store.pending(id.endpoint, None, 100)).await?;
        let was = due.iter().find(|due| due.event == id.event).expect("it is pending").pending;
        self.settles.insert(id, Asked { next, acknowledged: false });
        let settle: Settle = ended(id, was, next, store.now_ms(), b"an answer");
        assert_eq!(answered(store.settle(settle)).await?, Applied::Ok);
        self.settles.insert(id, Asked { next, acknowledged: true });
        Ok(())
    }

    async fn erase<D: Disk>(&mut self, store: &EmbeddedStore<D>, event: &Event) -> Session {
        self.erased.insert(event.meta.id, false);
        assert!(answered(store.erase(event.meta.id)).await?);
        self.erased.insert(event.meta.id, true);
        Ok(())
    }

    /// A short life with everything in it: rotation, sealing, a checkpoint, carrying and dropping too.
    async fn live<D: Disk>(&mut self, home: &Home, store: &EmbeddedStore<D>) -> Session {
        let mut first = Vec::new();
        for _ in 0..6 {
            first.push(self.accept(store, &[0], 3_000).await?);
        }
        self.settle(store, &first[0], Next::Delivered).await?;
        self.settle(store, &first[1], REJECTED).await?;
        self.settle(store, &first[2], Next::Retry { due_ms: store.now_ms() + 1_000 }).await?;
        self.erase(store, &first[3]).await?;
        answered(store.set_standing(endpoint(1), "default", "endpoint-1", Standing::Enabled)).await?;
        self.standing = true;
        for _ in 0..14 {
            self.accept(store, &[], 7_000).await?;
        }
        home.clock.advance(2 * RETENTION_MS);
        answered(store.keep_house()).await;
        self.accept(store, &[0], 10).await?;
        self.settle(store, &first[4], Next::Delivered).await
    }

    /// A new start shows all that was acknowledged, and nothing by halves.
    async fn assert_shown<D: Disk>(&self, store: &EmbeddedStore<D>, when: &str) {
        for (id, (event, text)) in &self.events {
            assert_eq!(holder(store, key(text)).await, *id, "{when}");
            let asked = self.settles.get(&delivery(0, *id));
            let erasing = self.erased.get(id);
            let Some(found) = store.event(*id).await.unwrap() else {
                // Retention takes what is past it, and never what is pending.
                let pending = !event.meta.endpoints.is_empty() && asked.is_none() && erasing.is_none();
                assert!(!pending, "{id} was pending and is gone {when}");
                continue;
            };
            match erasing {
                Some(true) => assert!(found.erased, "{when}"),
                Some(false) if found.erased => {}
                _ => assert!(!found.erased && found.body == event.body, "{id} has other bytes {when}"),
            }
            if event.meta.endpoints.is_empty() {
                continue;
            }
            let state = state(store, delivery(0, *id)).await;
            match (asked, state) {
                (None, DeliveryState::Pending(pending)) => assert_eq!(pending.attempts, 0, "{when}"),
                (None, DeliveryState::Dead(_)) => assert!(erasing.is_some(), "{id} is dead {when}"),
                (None, DeliveryState::Delivered) => panic!("{id} was never attempted {when}"),
                (Some(asked), state) => {
                    let took_effect = match (asked.next, state) {
                        (Next::Delivered, DeliveryState::Delivered) | (Next::Dead { .. }, DeliveryState::Dead(_)) => {
                            true
                        }
                        (Next::Retry { due_ms }, DeliveryState::Pending(pending)) => pending.due_ms == due_ms,
                        _ => false,
                    };
                    assert!(took_effect || !asked.acknowledged, "{asked:?} but {state:?} {when}");
                }
            }
        }
        let pending = backlog(store, 0).await;
        assert_eq!(store.stats().pending, pending.len() as u64, "{when}");
        for due in pending {
            assert!(store.event(due.event).await.unwrap().is_some_and(|event| !event.erased), "{when}");
        }
        assert!(!self.standing || !store.endpoint_notes().is_empty(), "{when}");
    }
}

const RETENTION_MS: u64 = 60_000;

/// An answer that must come, whatever it is.
async fn answered<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, call).await.expect("a call was never answered")
}

/// The storage has failed: whoever asks is told at once, and closing ends.
async fn assert_failed<D: Disk>(store: &EmbeddedStore<D>, known: &Known, when: &str) {
    let reason = tokio::time::timeout(PATIENCE, store.failed()).await.expect("nobody was told");
    assert!(!reason.is_empty());
    let soon = Duration::from_secs(5);
    let later = tokio::time::timeout(soon, store.accept(event_with(&[], b"later", &[])))
        .await
        .unwrap_or_else(|_| panic!("it waits {when} after {reason}"));
    assert!(matches!(later, Err(StoreError::Failed(_))), "{later:?} {when}");
    if let Some(id) = known.events.keys().next() {
        let settle = ended(delivery(0, *id), Pending::fresh(0), REJECTED, 0, b"");
        let later = tokio::time::timeout(soon, store.settle(settle)).await.expect("it waits");
        assert!(matches!(later, Err(StoreError::Failed(_))), "{later:?} {when}");
    }
}

#[test]
fn a_disk_that_fails_at_any_moment_loses_nothing_that_was_acknowledged() {
    let runtime = runtime();
    let random = SeededEntropy::new(5);
    let mut whole = 0;
    for count in 0.. {
        let mut home = Home::new(StoreLimits { retention_ms: RETENTION_MS, ..limits() });
        let disk = Arc::new(MemDisk::new());
        disk.fail_after(count);
        let when = format!("when the disk fails after {count} operations");
        let mut known = Known::default();
        let ended = home.try_open_on(Arc::clone(&disk)).ok().map(|store| {
            let ended = runtime.block_on(known.live(&home, &store));
            if ended.is_err() {
                runtime.block_on(assert_failed(&store, &known, &when));
            }
            ended
        });
        // Healed, or after a power cut that keeps any part of what was not synced.
        match count % 2 {
            0 => disk.heal(),
            _ => disk.crash(|_| random.next_u64().is_multiple_of(2)),
        }
        // Mostly without the key space: building one anew is quicker here than opening one.
        if count % 8 > 1 {
            std::fs::remove_dir_all(home.index()).ok();
        }
        // What else is old enough to go stays, to be looked at.
        home.limits.retention_ms = u64::MAX;
        let store = home.open_on(Arc::clone(&disk));
        runtime.block_on(known.assert_shown(&store, &when));
        drop(store);
        kinds(&*disk, &home.journal());
        whole += u64::from(ended.is_some_and(|ended| ended.is_ok()));
        // The last few end after the session, in what is done when it is closed.
        if whole == 3 {
            assert!(count > 60, "a session of {count} operations is too short to teach anything");
            return;
        }
    }
}

/// The machine's disk, with as much room as a test says.
struct Narrow {
    free_bytes: AtomicU64,
}

impl Disk for Narrow {
    type File = File;

    fn create_new(&self, path: &Path) -> io::Result<File> {
        RealDisk.create_new(path)
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<File> {
        Disk::open(&RealDisk, path, write)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: self.free_bytes.load(Ordering::SeqCst), total_bytes: 1 << 40 })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_room_closes_intake_alone_until_there_is_more() {
    let floor_bytes = 1 << 20;
    let home = Home::new(StoreLimits { free_bytes_min: floor_bytes, ..limits() });
    let disk = Arc::new(Narrow { free_bytes: AtomicU64::new(floor_bytes) });
    let store = home.open_on(Arc::clone(&disk));
    store.keep_house().await;
    let event = accept(&store, event_with(&[0, 1], b"just in time", &[])).await;
    disk.free_bytes.store(floor_bytes - 1, Ordering::SeqCst);
    store.keep_house().await;
    let refused = Refusal::DiskFull { floor_bytes };
    assert_eq!(store.intake(), Err(refused));
    match store.accept(event_with(&[0], b"too late", &[])).await {
        Err(StoreError::Refused(found)) => assert_eq!(found, refused),
        other => panic!("expected a refusal, got {other:?}"),
    }
    // Deliveries, the operator and readers go on.
    let was = fresh(&event);
    crate::support::settle(&store, delivery(0, event.meta.id), was, Next::Delivered).await;
    store.set_standing(endpoint(1), "default", "endpoint-1", Standing::Enabled).await.unwrap();
    assert!(store.erase(event.meta.id).await.unwrap());
    drop(store);
    let store = home.open_on(Arc::clone(&disk));
    store.keep_house().await;
    assert_eq!(store.intake(), Err(refused));
    disk.free_bytes.store(floor_bytes, Ordering::SeqCst);
    store.keep_house().await;
    accept(&store, event_with(&[0], b"welcome again", &[])).await;
}

/// However few may wait, and however large one of them is, each gets its turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_queue_takes_large_events() {
    let home = Home::new(StoreLimits { queue_items_max: 2, ..limits() });
    let store = Arc::new(home.open());
    let callers: Vec<_> = (0..8)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { answered(store.accept(event_with(&[0], &body_of(n, 14_000), &[]))).await })
        })
        .collect();
    for caller in callers {
        assert!(matches!(caller.await.unwrap(), Ok(Accepted::New { .. })));
    }
}

/// A journal in memory with events that are to be carried, in the middle and at the start of batches; everything is old.
async fn ripe(home: &Home, disk: &Arc<MemDisk>) {
    let store = home.open_on(Arc::clone(disk));
    let events = (0..24).map(|n| {
        let to: &[usize] = if n % 5 == 0 { &[0, 1] } else { &[0] };
        store.accept(event_with(to, &body_of(n, 900), &[key(&format!("evt_{n}"))]))
    });
    // Together, so that they share batches.
    let accepted: Vec<_> = futures_together(events.collect()).await;
    for (n, accepted) in accepted.into_iter().enumerate() {
        let Ok(Accepted::New { event }) = accepted else { panic!("{accepted:?}") };
        let (id, was) = (delivery(0, event.meta.id), fresh(&event));
        match n % 5 {
            0 => crate::support::settle(&store, id, was, REJECTED).await,
            _ => crate::support::settle(&store, id, was, Next::Delivered).await,
        }
    }
    accept(&store, event_with(&[], b"the last of its segment", &[])).await;
}

fn fresh(event: &Event) -> Pending {
    Pending::fresh(event.meta.accepted_ms)
}

/// Starts all, then waits for all.
async fn futures_together<T: Send + 'static>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    let mut answers: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, answer) in all.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let std::task::Poll::Ready(found) = future.as_mut().poll(context)
            {
                *answer = Some(found);
            }
        }
        if answers.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    answers.into_iter().flatten().collect()
}

/// Carrying takes several batches and dropping one more; between any two operations of it the machine may stop.
#[test]
fn a_drop_that_is_cut_short_anywhere_shows_all_of_the_segment_or_what_is_kept_of_it() {
    let runtime = runtime();
    let limits = StoreLimits { retention_ms: RETENTION_MS, batch_records_max: 7, ..limits() };
    let mut home = Home::new(limits.clone());
    let base = Arc::new(MemDisk::new());
    runtime.block_on(ripe(&home, &base));
    home.clock.advance(2 * RETENTION_MS);
    let keys: Vec<_> = (0..24).map(|n| key(&format!("evt_{n}"))).collect();
    let generous = StoreLimits { retention_ms: u64::MAX, ..limits.clone() };
    let look = |disk: &Arc<MemDisk>, home: &mut Home| {
        home.limits = generous.clone();
        let store = home.open_on(Arc::clone(disk));
        let mut picture = runtime.block_on(Picture::of(&store, &keys));
        // The last event moves from segment to segment as the journal is opened; it is not what is looked at.
        picture.events.retain(|(event, ..)| !event.meta.endpoints.is_empty());
        picture
    };
    let forget = |home: &Home| drop(std::fs::remove_dir_all(home.index()));
    forget(&home);
    let before = look(&Arc::new(base.fork()), &mut home);
    let dropping = |home: &mut Home, disk: &Arc<MemDisk>| {
        home.limits = limits.clone();
        // It may be that not even opening succeeds.
        if let Ok(store) = home.try_open_on(Arc::clone(disk)) {
            runtime.block_on(store.keep_house());
        }
    };
    let disk = Arc::new(base.fork());
    forget(&home);
    dropping(&mut home, &disk);
    let after = look(&disk, &mut home);
    assert_eq!((before.events.len(), after.events.len(), after.dead.len()), (24, 5, 5), "it carries five");

    let random = SeededEntropy::new(9);
    let (mut seen_before, mut seen_after) = (0, 0);
    for count in 0.. {
        let disk = Arc::new(base.fork());
        forget(&home);
        disk.fail_after(count);
        let operations = disk.operations();
        dropping(&mut home, &disk);
        let whole = disk.operations() - operations <= count;
        match count % 2 {
            0 => disk.heal(),
            _ => disk.crash(|_| random.next_u64().is_multiple_of(2)),
        }
        if count % 4 > 0 {
            forget(&home);
        }
        let shown = look(&disk, &mut home);
        let when = format!("when the disk fails after {count} operations");
        if shown.events.len() == before.events.len() {
            before.assert_same(&shown, &when);
            seen_before += 1;
        } else {
            after.assert_same(&shown, &when);
            seen_after += 1;
        }
        kinds(&*disk, &home.journal());
        // What was begun is taken up and ends as if nothing had happened.
        dropping(&mut home, &disk);
        after.assert_same(&look(&disk, &mut home), &format!("taken up {when}"));
        if whole {
            break;
        }
    }
    assert!(seen_before > 10 && seen_after > 1, "{seen_before} before, {seen_after} after");
}

/// Whatever is asked while the store closes is answered, and closing ends: nobody waits for a writer that is gone.
#[test]
fn every_call_ends_while_the_store_closes() {
    for round in 0..20 {
        let runtime = runtime();
        let home = Home::new(StoreLimits { retention_bytes: 5 * (64 << 10), ..limits() });
        let store = Arc::new(home.open());
        runtime.block_on(async {
            let callers: Vec<_> = (0..12)
                .map(|n| {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move {
                        loop {
                            match ask_something(&store, n).await {
                                Ok(_) => {}
                                Err(StoreError::Refused(Refusal::Stopping)) => break,
                                // Much of what is asked leaves something pending, so the journal may fill up.
                                Err(error) => {
                                    assert!(
                                        matches!(error, StoreError::Refused(Refusal::JournalFull { .. })),
                                        "{error}"
                                    );
                                    tokio::time::sleep(Duration::from_millis(1)).await;
                                }
                            }
                        }
                    })
                })
                .collect();
            for _ in 0..round {
                let worked = async || store.stats().records > 10 * round || store.intake().is_err();
                crate::support::until("work", worked).await;
            }
            let closing = Arc::clone(&store);
            let closed = tokio::task::spawn_blocking(move || closing.close());
            answered(closed).await.unwrap();
            for caller in callers {
                answered(caller).await.unwrap();
            }
            assert!(matches!(ask_something(&store, 0).await, Err(StoreError::Refused(Refusal::Stopping))));
        });
    }
}

async fn ask_something(store: &EmbeddedStore, n: usize) -> Session {
    let event = match store.accept(event_with(&[0], &body_of(n as u64, 4_000), &[])).await? {
        Accepted::New { event } => event,
        Accepted::Duplicate { .. } => panic!("no key was given"),
    };
    let id = delivery(0, event.meta.id);
    match n % 4 {
        0 => drop(store.erase(id.event).await?),
        1 => drop(store.redrive(id).await?),
        2 => {
            let since_ms = store.now_ms();
            let standing = if n == 2 { Standing::Enabled } else { Standing::Disabled { since_ms } };
            store.set_standing(endpoint(1), "default", "endpoint-1", standing).await?;
        }
        _ => {}
    }
    store.settle(ended(id, fresh(&event), Next::Delivered, store.now_ms(), b"an answer")).await.map(drop)
}
