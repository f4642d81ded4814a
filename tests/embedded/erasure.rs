//! What was erased is nowhere in the data directory: not in the segment that it came in with, nor where it was carried, nor
//! in files that were segments once, nor after a crash in the middle.

use std::path::Path;
use std::sync::Arc;

use postrider::core::delivery::{DeadReason, DeliveryState, Next, Pending};
use postrider::core::event::Event;
use postrider::core::limits::StoreLimits;
use postrider::env::{Disk, Entropy, MemDisk, RealDisk, SeededEntropy};
use postrider::store::Store;
use postrider::store::embedded::EmbeddedStore;

use crate::support::{
    Home, accept, body_of, delivery, event_with, files, kinds, limits, pending_state, runtime, settle, settle_with,
    state,
};

/// What must be gone. Long enough to be found nowhere by chance.
const MARK: &[u8] = b"4111-1111-1111-1111 belongs to Mallory";

const AGE_MS: u64 = 60_000;

fn by_age() -> StoreLimits {
    StoreLimits { retention_ms: AGE_MS, ..limits() }
}

fn marked(around: usize) -> Vec<u8> {
    [&body_of(1, around)[..], MARK, &body_of(2, around)[..]].concat()
}

fn has_mark(bytes: &[u8]) -> bool {
    bytes.windows(MARK.len()).any(|window| window == MARK)
}

/// Files of the data directory that hold the mark. A file that gets another name meanwhile could be passed over, so the
/// look begins anew until all of them stay where they are.
fn marked_files(home: &Home) -> Vec<String> {
    let look = || -> std::io::Result<Vec<String>> {
        let mut marked = Vec::new();
        for path in files(home.path()) {
            if has_mark(&std::fs::read(&path)?) {
                marked.push(path.strip_prefix(home.path()).unwrap().display().to_string());
            }
        }
        Ok(marked)
    };
    loop {
        match look() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            marked => return marked.unwrap(),
        }
    }
}

/// The same on a disk in memory.
fn marked_in_memory(disk: &MemDisk, journal: &Path) -> Vec<String> {
    let mut names = disk.list(journal).unwrap();
    names.retain(|name| has_mark(&disk.read_file(&journal.join(name)).unwrap()));
    names
}

/// Delivered at once, as most are.
async fn bystanders<D: Disk>(store: &EmbeddedStore<D>, count: u64, len: usize) {
    for n in 0..count {
        let event = accept(store, event_with(&[0], &body_of(n, len), &[])).await;
        settle(store, delivery(0, event.meta.id), Pending::fresh(event.meta.accepted_ms), Next::Delivered).await;
    }
}

/// An event whose bytes have been everywhere: carried, with the file of its first segment kept for later; echoed by an
/// endpoint; in a sealed segment and in the newest.
async fn well_travelled<D: Disk>(home: &Home, disk: &Arc<D>) -> Arc<Event> {
    let store = home.open_on(Arc::clone(disk));
    let event = accept(&store, event_with(&[1, 2], &marked(100), &[])).await;
    let id = delivery(1, event.meta.id);
    bystanders(&store, 12, 3_000).await;
    drop(store);
    home.clock.advance(2 * AGE_MS);
    let store = home.open_on(Arc::clone(disk));
    store.keep_house().await;
    for round in 0..3 {
        let was = pending_state(&store, id).await;
        let retry = Next::Retry { due_ms: store.now_ms() + AGE_MS };
        settle_with(&store, id, was, retry, &marked(30 * round)).await;
        bystanders(&store, 6, 4_000).await;
    }
    let was = pending_state(&store, id).await;
    settle_with(&store, id, was, Next::Delivered, &marked(1)).await;
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_holds_what_was_erased() {
    let home = Home::new(by_age());
    let disk = Arc::new(RealDisk);
    let event = well_travelled(&home, &disk).await;
    let kinds_before = kinds(&RealDisk, &home.journal());
    assert!(kinds_before.contains_key("carried") && kinds_before.contains_key("dropped"));
    let store = home.open();
    assert!(store.event(event.meta.id).await.unwrap().unwrap().body == event.body);
    let before = marked_files(&home);
    assert!(before.len() > 1, "it should be in several files, it is in {before:?}");

    assert!(store.erase(event.meta.id).await.unwrap());
    assert_eq!(marked_files(&home), [""; 0]);
    // A copy shows what a kill at this moment would leave.
    let killed = home.copy();
    bystanders(&store, 30, 4_000).await;
    drop(store);
    for home in [&killed, &home] {
        kinds(&RealDisk, &home.journal());
        for forget in [false, true] {
            if forget {
                home.forget_index();
            }
            let store = home.open();
            let shown = store.event(event.meta.id).await.unwrap().unwrap();
            assert!(shown.erased && shown.body.is_empty());
            let attempts = store.attempts(event.meta.id).await.unwrap().unwrap();
            assert!(attempts.len() >= 3 && attempts.iter().all(|attempt| attempt.response.is_empty()));
            assert_eq!(state(&store, delivery(1, event.meta.id)).await, DeliveryState::Delivered);
            let DeliveryState::Dead(dead) = state(&store, delivery(2, event.meta.id)).await else {
                panic!("it is buried")
            };
            assert_eq!(dead.reason, DeadReason::ContentErased);
            drop(store);
            assert_eq!(marked_files(home), [""; 0]);
        }
    }
}

/// Erased while the segment that it is in is being sealed, dropped or made a spare, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn erasing_beside_all_that_moves_files_leaves_nothing() {
    let home = Home::new(StoreLimits { retention_bytes: 6 * (64 << 10), ..limits() });
    let store = home.open();
    for round in 0..25 {
        let event = accept(&store, event_with(&[1], &marked(round * 150), &[])).await;
        // Some are erased in the segment that is being written, some after a few, some after they were carried.
        bystanders(&store, (round % 7) as u64 * 4, 6_000).await;
        assert!(store.erase(event.meta.id).await.unwrap());
        assert_eq!(marked_files(&home), [""; 0], "round {round}");
    }
}

#[test]
fn an_erasure_cut_short_at_any_operation_is_finished_or_was_never_begun() {
    let runtime = runtime();
    let mut home = Home::new(by_age());
    let base = Arc::new(MemDisk::new());
    let event = runtime.block_on(well_travelled(&home, &base));
    let id = event.meta.id;
    assert!(marked_in_memory(&base, &home.journal()).len() > 1);
    home.limits.retention_ms = u64::MAX;
    let saved = tempfile::tempdir().unwrap();
    crate::support::copy_dir(&home.index(), saved.path());
    let random = SeededEntropy::new(4);
    let (mut erased_by_halves, mut never) = (0, 0);
    for count in 0.. {
        let disk = Arc::new(base.fork());
        home.forget_index();
        // The key space as it was, or none: a rebuild finds what is left to do as well.
        if count % 2 == 0 {
            crate::support::copy_dir(saved.path(), &home.index());
        }
        let store = home.open_on(Arc::clone(&disk));
        disk.fail_after(count);
        let acknowledged = runtime.block_on(store.erase(id)).is_ok();
        drop(store);
        match count / 2 % 2 {
            0 => disk.heal(),
            _ => disk.crash(|_| random.next_u64().is_multiple_of(2)),
        }
        let when = format!("when the disk fails after {count} operations");
        let store = home.open_on(Arc::clone(&disk));
        let shown = runtime.block_on(store.event(id)).unwrap().unwrap();
        drop(store);
        assert!(shown.erased || !acknowledged, "{when}");
        if shown.erased {
            assert_eq!(marked_in_memory(&disk, &home.journal()), [""; 0], "{when}");
            erased_by_halves += u64::from(!acknowledged);
        } else {
            assert!(shown.body == event.body, "{when}");
            never += 1;
        }
        kinds(&*disk, &home.journal());
        if acknowledged {
            break;
        }
    }
    assert!(erased_by_halves > 5 && never > 1, "{erased_by_halves} finished later, {never} never begun");
}

/// An event is found in a batch that was read for its neighbour. A body without bytes, or of zeros, looks the same erased.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_event_stays_erased_when_its_batch_is_read_again_for_a_neighbour() {
    let home = Home::new(StoreLimits { recent_bytes_max: 0, ..limits() });
    let store = home.open();
    let bodies = [b"".to_vec(), vec![0; 40], body_of(1, 40), body_of(2, 40)];
    let [a, b, c, d] = bodies.each_ref().map(|body| accept(&store, event_with(&[0], body, &[])));
    let ids = <[_; 4]>::from(tokio::join!(a, b, c, d)).map(|event| event.meta.id);
    for erased in 0..3 {
        for (n, id) in ids.iter().enumerate().rev() {
            let event = store.event(*id).await.unwrap().unwrap();
            assert_eq!((event.erased, event.body.is_empty()), (n < erased, n < erased || n == 0), "{n} of {erased}");
        }
        assert!(store.erase(ids[erased]).await.unwrap());
    }
    assert_eq!(store.event(ids[3]).await.unwrap().unwrap().body, bodies[3]);
}
