//! Single moments that random tests hardly hit: between a write and its sync, with callers waiting behind a batch that fails,
//! with a batch under way while the store closes, and a panic in a reader.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use postrider::core::event::{DedupKey, NewEvent};
use postrider::core::id::EventId;
use postrider::env::MemDisk;
use postrider::index::Home as KeySpace;
use postrider::journal::{Journal, ReadFrom};
use postrider::store::embedded::{EmbeddedStore, journal_options};
use postrider::store::{Accepted, Refusal, Store, StoreError};

use crate::hooked::{Doing, HookedDisk};
use crate::support::{Home, PATIENCE, accept, body_of, event_with, holder, key, limits, until};

/// A home whose key space is built anew by every store that opens there.
fn open_on(home: &Home, disk: &MemDisk) -> EmbeddedStore<MemDisk> {
    std::fs::remove_dir_all(home.index()).ok();
    home.open_on(Arc::new(disk.clone()))
}

async fn takes(store: &impl Store, key: DedupKey) -> Accepted {
    store.accept(event_with(&[0], b"the event", &[key])).await.unwrap()
}

/// A batch is written, and before its sync the process is killed. The next start finds it, and answers a repetition as a
/// duplicate; so a power cut right after that must not take it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_duplicate_was_answered_for_survives_a_power_cut_though_its_writer_never_synced_it() {
    let home = Home::new(limits());
    let disk = HookedDisk::default();
    let store = home.open_on(Arc::new(disk.clone()));
    accept(&store, event_with(&[0], b"the one before", &[])).await;
    let killed: Arc<Mutex<Option<MemDisk>>> = Arc::default();
    let (inner, seen) = (disk.inner.clone(), Arc::clone(&killed));
    disk.ask(move |doing| {
        if doing == Doing::Syncing {
            seen.lock().unwrap().get_or_insert_with(|| inner.fork());
        }
        Ok(())
    });
    let Accepted::New { event } = takes(&store, key("evt")).await else { panic!("the key is new") };
    drop(store);
    let killed = killed.lock().unwrap().take().expect("a batch was synced");

    // That moment is the one that matters: with the power cut then, the event is gone, and nobody was told of it.
    let cut = killed.fork();
    cut.crash(|_| false);
    let store = open_on(&home, &cut);
    assert!(store.event(event.meta.id).await.unwrap().is_none());
    drop(store);

    let store = open_on(&home, &killed);
    match takes(&store, key("evt")).await {
        Accepted::Duplicate { id, .. } => assert_eq!(id, event.meta.id),
        Accepted::New { .. } => panic!("a kill took what was written"),
    }
    let cut = killed.fork();
    drop(store);
    cut.crash(|_| false);
    let store = open_on(&home, &cut);
    let found = store.event(event.meta.id).await.unwrap().expect("it was answered for");
    assert_eq!(found.body, event.body);
    assert_eq!(holder(&store, key("evt")).await, event.meta.id);
}

/// Holds syncs up until it is told how they end.
struct Gate {
    is_held: Arc<AtomicBool>,
    open: mpsc::Sender<io::Result<()>>,
}

impl Gate {
    fn before(disk: &HookedDisk) -> Self {
        let (open, opened) = mpsc::channel();
        let (is_held, opened) = (Arc::new(AtomicBool::new(false)), Mutex::new(opened));
        let held = Arc::clone(&is_held);
        disk.ask(move |doing| {
            if doing != Doing::Syncing {
                return Ok(());
            }
            held.store(true, Ordering::SeqCst);
            // Once the test has let go of the gate it stands open.
            opened.lock().unwrap().recv().unwrap_or(Ok(()))
        });
        Self { is_held, open }
    }

    async fn holds(&self) {
        until("a sync", async || self.is_held.load(Ordering::SeqCst)).await;
    }
}

type Answer = tokio::task::JoinHandle<Result<Accepted, StoreError>>;

fn ask<D: postrider::env::Disk>(store: &Arc<EmbeddedStore<D>>, event: NewEvent) -> Answer {
    let store = Arc::clone(store);
    tokio::spawn(async move { store.accept(event).await })
}

/// One batch is at its sync, and so many callers wait behind it.
async fn crowded<D: postrider::env::Disk>(store: &Arc<EmbeddedStore<D>>, gate: &Gate, count: u64) -> Vec<Answer> {
    let mut answers = vec![ask(store, event_with(&[0], b"the first", &[]))];
    gate.holds().await;
    answers.extend((0..count).map(|n| ask(store, event_with(&[0], &body_of(n, 100), &[]))));
    until("all wait", async || store.stats().queue_items >= count).await;
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_behind_a_batch_that_fails_is_told_so() {
    let home = Home::new(limits());
    let disk = HookedDisk::default();
    let store = Arc::new(home.open_on(Arc::new(disk.clone())));
    let gate = Gate::before(&disk);
    let answers = crowded(&store, &gate, 40).await;
    gate.open.send(Err(io::Error::other("the disk was told to fail"))).unwrap();
    for answer in answers {
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("a caller was never answered").unwrap();
        assert!(matches!(answer, Err(StoreError::Failed(_))), "{answer:?}");
    }
    drop(gate);
    let closing = tokio::task::spawn_blocking(move || store.close());
    tokio::time::timeout(PATIENCE, closing).await.expect("closing never ends").unwrap();
}

/// Closing writes what waits, answers it, and applies it to the key space, in this order: the next start has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_under_way_while_the_store_closes_is_answered_and_applied() {
    let home = Home::new(limits());
    let disk = HookedDisk::default();
    let store = Arc::new(home.open_on(Arc::new(disk.clone())));
    accept(&*store, event_with(&[0], b"folded and not applied yet", &[])).await;
    let gate = Gate::before(&disk);
    let answers = crowded(&store, &gate, 5).await;
    let closing = Arc::clone(&store);
    let closing = tokio::task::spawn_blocking(move || closing.close());
    until("closing has begun", async || store.intake() == Err(Refusal::Stopping)).await;
    // An applier that ended with the rest would apply what is folded by now, and never what is to come.
    until("the applier has nothing to do", async || store.stats().lag_records == 0).await;
    drop(gate);
    tokio::time::timeout(PATIENCE, closing).await.expect("closing never ends").unwrap();
    for answer in answers {
        assert!(matches!(answer.await.unwrap(), Ok(Accepted::New { .. })));
    }
    assert_eq!(store.stats().lag_records, 0);
    drop(store);
    let applied = KeySpace::Directory(home.index()).open(1 << 20).unwrap().check().unwrap().applied.unwrap();
    let copy = Arc::new(disk.inner.fork());
    let (journal, _) = Journal::open(copy, &home.journal(), journal_options(&home.limits), 9, 9).unwrap();
    let last = journal.reader().frames(ReadFrom::Oldest).last().unwrap().unwrap();
    assert_eq!(applied.sequence, last.at.sequence, "the key space ends before the journal does");
}

/// Ids are given out in the order of commits, also by a new start, in the same millisecond, after a batch of several events.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_start_goes_on_after_the_newest_id_of_the_last_batch() {
    let home = Home::new(limits());
    let disk = HookedDisk::default();
    let mut newest = EventId::MIN;
    for round in 0..3 {
        let store = Arc::new(home.open_on(Arc::new(disk.clone())));
        let gate = Gate::before(&disk);
        let answers = crowded(&store, &gate, 8).await;
        drop(gate);
        let mut ids = Vec::new();
        for answer in answers {
            let Ok(Accepted::New { event }) = answer.await.unwrap() else { panic!("it is taken") };
            ids.push(event.meta.id);
        }
        let (least, most) = (ids.iter().min().unwrap(), ids.iter().max().unwrap());
        assert!(*least > newest, "round {round}: {least} was given out after {newest}");
        newest = *most;
        drop(store);
        // With the key space as it was left, and with one built anew.
        if round == 1 {
            home.forget_index();
        }
    }
}

/// A bug in a reader is a failure of the store like any other: told, and final.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_reader_is_a_failure() {
    let home = Home::new(limits());
    let disk = HookedDisk::default();
    let id = accept(&home.open_on(Arc::new(disk.clone())), event_with(&[0], b"to be read", &[])).await.meta.id;
    let store = home.open_on(Arc::new(disk.clone()));
    disk.ask(|doing| match doing {
        Doing::Reading => panic!("as the test wants it"),
        Doing::Syncing => Ok(()),
    });
    let found = store.event(id).await;
    assert!(matches!(&found, Err(StoreError::Failed(why)) if why.contains("reader")), "{found:?}");
    let reason = tokio::time::timeout(PATIENCE, store.failed()).await.expect("nobody was told");
    assert!(reason.contains("panicked"), "{reason}");
    let later = store.accept(event_with(&[0], b"later", &[])).await;
    assert!(matches!(later, Err(StoreError::Failed(_))), "{later:?}");
}
