//! A backup is the store between two batches, whatever goes on while it is taken; and only a whole one is ever restored.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postrider::core::delivery::{DeadReason, DeliveryState, Next, Pending};
use postrider::core::limits::StoreLimits;
use postrider::env::{Entropy, RealDisk, SeededEntropy};
use postrider::store::embedded::{BackupError, EmbeddedStore, Opening, RestoreError, Restored, check, restore};
use postrider::store::{Store, StoreError};

use crate::story::{Habits, Story};
use crate::support::{
    Home, PATIENCE, Picture, accept, all_events, backlog, body_of, delivery, event_with, files, kinds, limits, runtime,
    settle, state,
};

/// Nothing is erased: an erasure moves a backup's end.
const NO_ERASURE: Habits =
    Habits { accept: 45, settle: 45, redrive: 5, erase: 0, standing: 2, body_bytes: 1_500, pause_ms: 200 };

/// The bytes of a backup, with something done before each piece of it.
async fn backup(store: &EmbeddedStore, mut meanwhile: impl AsyncFnMut(usize)) -> Vec<u8> {
    let mut chunks = store.backup().await.unwrap().chunks;
    let mut bytes = Vec::new();
    for n in 0.. {
        meanwhile(n).await;
        match chunks.next() {
            Some(chunk) => bytes.extend_from_slice(&chunk),
            None => break,
        }
    }
    bytes
}

fn restore_to(home: &Home, bytes: &[u8]) -> Result<Restored, RestoreError> {
    restore_at(home, home.path(), bytes)
}

/// A restore into any place, with the time and limits of `home`.
fn restore_at(home: &Home, data: &Path, bytes: &[u8]) -> Result<Restored, RestoreError> {
    let opening = Opening {
        data: data.to_owned(),
        limits: home.limits.clone(),
        clock: home.clock.clone(),
        entropy: Arc::new(SeededEntropy::new(9)),
        rebuild: false,
        progress: &mut |_, _| {},
    };
    restore(bytes, opening, &mut |_| {})
}

fn given_up(bytes: &[u8]) -> String {
    match check(bytes, &mut |_| {}) {
        Err(BackupError::GivenUp { why }) => why,
        other => panic!("expected a backup that was given up, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_while_it_is_taken_is_not_in_it() {
    let home = Home::new(limits());
    let store = home.open();
    let mut story = Story::new(11, NO_ERASURE, home.clock.clone());
    for round in 0..4 {
        story.live(&store, 120, home.limits.dedup_ms).await;
        let keys = story.open_keys(home.clock_ms());
        let picture = Picture::of(&store, &keys).await;
        let bytes = backup(&store, async |n| {
            if n > 0 {
                story.live(&store, 30, home.limits.dedup_ms).await;
            }
        })
        .await;
        let other = home.beside();
        let restored = restore_to(&other, &bytes).unwrap();
        assert_eq!(restored.summary, check(&bytes[..], &mut |_| {}).unwrap());
        assert_eq!(restored.summary.events, picture.events.len() as u64);
        assert_eq!(restored.pending.len() as u64, picture.figures.0);
        assert!(restored.summary.segments > round, "it spans segments");
        kinds(&RealDisk, &other.journal());
        for forget in [false, true] {
            if forget {
                other.forget_index();
            }
            let store = other.open();
            assert_eq!(store.opened().rebuilt.is_some(), forget);
            picture.assert_same(&Picture::of(&store, &keys).await, &format!("in round {round}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store_lives_on_and_is_backed_up_again() {
    let mut home = Home::new(limits());
    let mut story = Story::new(12, Habits::default(), home.clock.clone());
    for round in 0..4 {
        let store = home.open();
        story.live(&store, 100, home.limits.dedup_ms).await;
        let bytes = backup(&store, async |_| {}).await;
        drop(store);
        let other = home.beside();
        restore_to(&other, &bytes).unwrap();
        home = other;
        story.assert_kept(&home.open(), &format!("in round {round}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_events_is_restored_as_one() {
    let home = Home::new(limits());
    let bytes = backup(&home.open(), async |_| {}).await;
    let other = home.beside();
    let restored = restore_to(&other, &bytes).unwrap();
    assert_eq!((restored.summary.events, restored.summary.frames, restored.pending.len()), (0, 0, 0));
    let store = other.open();
    accept(&store, event_with(&[0], b"the first", &[])).await;
    assert_eq!(all_events(&store).await.len(), 1);
}

/// What must be gone. Long enough to be found nowhere by chance.
const MARK: &[u8] = b"4111-1111-1111-1111 belongs to Mallory";

/// Files that hold the mark.
fn marked_files(home: &Home) -> Vec<PathBuf> {
    let has_mark = |path: &PathBuf| fs::read(path).unwrap().windows(MARK.len()).any(|window| window == MARK);
    files(home.path()).into_iter().filter(has_mark).collect()
}

/// Bodies of one event in several segments, erased before each piece of the backup in turn: what was read before still
/// holds them, what is read after holds zeros, and the restored store holds none of them and no damage.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_while_it_is_taken_is_carried_out_in_the_restored_store() {
    let mut pieces = 1;
    let mut at = 0;
    while at < pieces {
        let home = Home::new(limits());
        let store = home.open();
        let marked = [&body_of(1, 9_000)[..], MARK].concat();
        let bystander = accept(&store, event_with(&[0], b"stays", &[])).await;
        let event = accept(&store, event_with(&[0, 1], &marked, &[])).await;
        let id = event.meta.id;
        let mut was = Pending::fresh(event.meta.accepted_ms);
        for _ in 0..5 {
            let next = Next::Retry { due_ms: store.now_ms() + 1_000 };
            crate::support::settle_with(&store, delivery(0, id), was, next, MARK).await;
            was = crate::support::pending_state(&store, delivery(0, id)).await;
            accept(&store, event_with(&[], &body_of(2, 14_000), &[])).await;
            accept(&store, event_with(&[], &body_of(3, 14_000), &[])).await;
        }
        // The last frame is one that is erased from.
        let last = accept(&store, event_with(&[2], MARK, &[])).await.meta.id;
        let bytes = backup(&store, async |n| {
            pieces = pieces.max(n + 1);
            if n == at {
                assert!(store.erase(id).await.unwrap() && store.erase(last).await.unwrap());
            }
        })
        .await;
        let other = home.beside();
        restore_to(&other, &bytes).unwrap_or_else(|error| panic!("erased before piece {at}: {error}"));
        // The erasure may have come after the last frame was read: then it is not in the backup at all.
        if at + 1 < pieces {
            kinds(&RealDisk, &other.journal());
            let store = other.open();
            for id in [id, last] {
                assert!(store.event(id).await.unwrap().unwrap().erased, "erased before piece {at}");
            }
            let DeliveryState::Dead(dead) = state(&store, delivery(1, id)).await else { panic!("it is buried") };
            assert_eq!(dead.reason, DeadReason::ContentErased);
            assert_eq!(*store.event(bystander.meta.id).await.unwrap().unwrap(), *bystander);
            drop(store);
            assert!(marked_files(&other).is_empty(), "erased before piece {at}");
        }
        at += 1;
    }
    assert!(pieces > 3, "only {pieces} pieces");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_before_is_not_in_it() {
    let home = Home::new(limits());
    let store = home.open();
    let event = accept(&store, event_with(&[0], MARK, &[])).await;
    assert!(store.erase(event.meta.id).await.unwrap());
    let bytes = backup(&store, async |_| {}).await;
    assert!(!bytes.windows(MARK.len()).any(|window| window == MARK));
    let other = home.beside();
    restore_to(&other, &bytes).unwrap();
    assert!(other.open().event(event.meta.id).await.unwrap().unwrap().erased);
}

/// Events that are delivered at once, so that nothing keeps their segments but a backup.
async fn bystanders(store: &EmbeddedStore, count: u64) {
    for n in 0..count {
        let event = accept(store, event_with(&[0], &body_of(n, 6_000), &[])).await;
        settle(store, delivery(0, event.meta.id), Pending::fresh(event.meta.accepted_ms), Next::Delivered).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_past_retention_wait_until_they_are_read() {
    let home = Home::new(StoreLimits { retention_ms: 60_000, ..limits() });
    let store = home.open();
    bystanders(&store, 60).await;
    let pending = accept(&store, event_with(&[1], b"pending", &[])).await;
    bystanders(&store, 12).await;
    let before = all_events(&store).await.len();
    home.clock.advance(120_000);
    let segments = async || {
        store.keep_house().await;
        store.stats().journal_segments
    };
    let mut seen = Vec::new();
    let bytes = backup(&store, async |_| seen.push(segments().await)).await;
    let other = home.beside();
    let restored = restore_to(&other, &bytes).unwrap();
    assert_eq!(restored.summary.events, before as u64);
    assert!(seen.len() > 5 && seen.is_sorted_by(|a, b| a >= b), "{seen:?}");
    assert!(seen[0] >= 6 && seen[0] - 1 > seen[seen.len() - 1], "those that were read go: {seen:?}");
    assert!(segments().await <= 3);
    assert_eq!(backlog(&store, 1).await.len(), 1, "carried meanwhile");
    let kept = all_events(&store).await.len() as u64;
    assert_eq!(check(&backup(&store, async |_| {}).await[..], &mut |_| {}).unwrap().events, kept, "it is counted once");
    // Nothing goes in the restored store before the test has looked.
    let generous = StoreLimits { retention_ms: u64::MAX, ..limits() };
    let restored = other.open_with(&generous);
    assert_eq!(all_events(&restored).await.len(), before);
    assert_eq!(*restored.event(pending.meta.id).await.unwrap().unwrap(), *pending);
    assert_eq!(backlog(&restored, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_given_up_rather_than_intake() {
    let home = Home::new(StoreLimits { retention_bytes: 8 * (64 << 10), ..limits() });
    let store = home.open();
    bystanders(&store, 40).await;
    let mut bytes_max = 0;
    let bytes = backup(&store, async |n| {
        if n == 1 {
            for _ in 0..10 {
                bystanders(&store, 12).await;
                store.keep_house().await;
                store.intake().expect("intake stays open");
                bytes_max = bytes_max.max(store.stats().journal_bytes);
            }
        }
    })
    .await;
    let why = given_up(&bytes);
    assert!(why.contains("room"), "{why}");
    let limit = home.limits.retention_bytes + 3 * home.limits.segment_bytes;
    assert!(bytes_max <= limit, "{bytes_max} bytes of at most {limit}");
    let other = home.beside();
    assert!(matches!(restore_to(&other, &bytes), Err(RestoreError::Backup(BackupError::GivenUp { .. }))));
    assert!(files(other.path()).is_empty());
    // The next one is another matter.
    assert!(check(&backup(&store, async |_| {}).await[..], &mut |_| {}).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_at_a_time_and_one_that_is_left_holds_nothing() {
    let home = Home::new(StoreLimits { retention_ms: 60_000, ..limits() });
    let store = home.open();
    bystanders(&store, 30).await;
    let first = store.backup().await.unwrap();
    assert!(matches!(store.backup().await, Err(StoreError::BackupRuns)));
    home.clock.advance(120_000);
    store.keep_house().await;
    let held = store.stats().journal_segments;
    drop(first);
    store.keep_house().await;
    assert!(store.stats().journal_segments < held);
    assert!(check(&backup(&store, async |_| {}).await[..], &mut |_| {}).is_ok());
    // One under way does not keep a store from closing.
    let left = store.backup().await.unwrap();
    store.close();
    drop(left);
    assert!(matches!(store.backup().await, Err(StoreError::Refused(_))));
}

#[test]
fn damage_in_the_journal_is_named_and_not_copied() {
    let runtime = runtime();
    let home = Home::new(limits());
    let store = home.open();
    runtime.block_on(bystanders(&store, 30));
    let segment = files(&home.journal()).into_iter().find(|path| path.to_str().unwrap().contains("seg-")).unwrap();
    // In a body, in a frame's head, in the footer.
    let len = fs::metadata(&segment).unwrap().len();
    for at in [4_096 + 500, 4_096 + 50, len - 1_000] {
        let file = fs::OpenOptions::new().read(true).write(true).open(&segment).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        let why = given_up(&runtime.block_on(backup(&store, async |_| {})));
        assert!(why.contains("0000000000000001") && why.contains("byte ") && why.contains("journal verify"), "{why}");
        file.write_all_at(&byte, at).unwrap();
    }
    assert!(check(&runtime.block_on(backup(&store, async |_| {}))[..], &mut |_| {}).is_ok());
}

/// Every bit of a small file is flipped where its form is tested; here it is the whole way that refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_leaves_no_trace() {
    let home = Home::new(limits());
    let store = home.open();
    bystanders(&store, 20).await;
    let bytes = backup(&store, async |_| {}).await;
    let random = SeededEntropy::new(5);
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("data");
    let attempt = |bytes: &[u8]| restore_at(&home, &target, bytes);
    for round in 0..150 {
        let at = (random.next_u64() % bytes.len() as u64) as usize;
        let mut damaged = bytes.clone();
        match round % 3 {
            0 => damaged.truncate(at),
            1 => damaged[at] ^= 1 << (random.next_u64() % 8),
            _ => drop(damaged.drain(at..(at + 4_096).min(bytes.len()))),
        }
        let refused = attempt(&damaged);
        assert!(matches!(refused, Err(RestoreError::Backup(BackupError::Damaged { .. }))), "at {at}: {refused:?}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "at {at}");
    }
    attempt(&bytes).unwrap();
    assert!(matches!(attempt(&bytes), Err(RestoreError::NotEmpty { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_in_use_is_left_alone() {
    let home = Home::new(limits());
    let store = home.open();
    bystanders(&store, 3).await;
    let bytes = backup(&store, async |_| {}).await;
    assert!(matches!(restore_to(&home, &bytes), Err(RestoreError::Lock(_))), "the store is open");
    store.close();
    drop(store);
    assert!(matches!(restore_to(&home, &bytes), Err(RestoreError::NotEmpty { .. })));
    let other = home.beside();
    let making = PathBuf::from(format!("{}.restoring", other.path().display()));
    fs::create_dir(&making).unwrap();
    fs::write(making.join("something"), "of somebody").unwrap();
    assert!(matches!(restore_to(&other, &bytes), Err(RestoreError::Begun { .. })));
    assert!(making.join("something").exists() && files(other.path()).is_empty());
    fs::remove_dir_all(&making).unwrap();
    fs::set_permissions(other.path(), fs::Permissions::from_mode(0o750)).unwrap();
    restore_to(&other, &bytes).unwrap();
    assert!(!making.exists());
    assert_eq!(fs::metadata(other.path()).unwrap().permissions().mode() & 0o777, 0o750, "as the empty one was");
    assert_eq!(all_events(&other.open()).await.len(), 3);
}

/// Writers on several tasks, a backup in the middle: what was acknowledged before it began is in it, and whatever else is in
/// it was accepted.
#[tokio::test(flavor = "multi_thread")]
async fn everything_acknowledged_before_it_began_is_in_it() {
    let home = Home::new(limits());
    let store = Arc::new(home.open());
    let acknowledged = Arc::new(std::sync::Mutex::new(Vec::new()));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer: u64| {
            let (store, acknowledged, stop) = (Arc::clone(&store), Arc::clone(&acknowledged), Arc::clone(&stop));
            tokio::spawn(async move {
                for n in 0.. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                    let event = accept(&*store, event_with(&[0], &body_of(writer * 1_000_000 + n, 700), &[])).await;
                    acknowledged.lock().unwrap().push(event);
                }
            })
        })
        .collect();
    let count = || acknowledged.lock().unwrap().len();
    crate::support::until("there is something", async || count() > 200).await;
    for _ in 0..3 {
        let before = acknowledged.lock().unwrap().clone();
        let bytes = tokio::time::timeout(PATIENCE, backup(&store, async |_| {})).await.unwrap();
        crate::support::until("writing went on", async || count() > before.len()).await;
        let other = home.beside();
        restore_to(&other, &bytes).unwrap();
        let restored = other.open();
        for event in &before {
            assert_eq!(restored.event(event.meta.id).await.unwrap().as_ref(), Some(event));
        }
        let shown = all_events(&restored).await.len();
        assert_eq!((shown, backlog(&restored, 0).await.len()), (shown, shown));
        assert!(shown >= before.len());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
}
