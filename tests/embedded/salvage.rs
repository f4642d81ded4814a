//! The story: a journal that had dropped segments was salvaged. The salvaged one began to number its segments anew, so the
//! records of old drops named live segments, and the next start dropped them.

use postrider::core::delivery::{DeadReason, Next, Pending};
use postrider::core::fact::{EndpointNote, Standing};
use postrider::core::limits::StoreLimits;
use postrider::store::Store;
use postrider::store::embedded::EmbeddedStore;

use crate::support::{Home, accept, backlog, body_of, delivery, endpoint, event_with, limits, runtime, settle, until};

const RETENTION_MS: u64 = 60_000;

#[test]
fn old_drops_do_not_touch_the_segments_of_a_salvaged_journal() {
    let limits = StoreLimits { retention_ms: RETENTION_MS, ..limits() };
    let home = Home::new(limits.clone());
    let pending = runtime().block_on(async {
        let store = home.open();
        for n in 0..20 {
            accept(&store, event_with(&[], &body_of(n, 7_000), &[])).await;
        }
        home.clock.advance(2 * RETENTION_MS);
        // It may be sealed a moment later.
        until("the first segment is dropped", async || {
            store.keep_house().await;
            !segment(&home, 1).exists()
        })
        .await;
        let event = accept(&store, event_with(&[0], b"still to be delivered", &[])).await;
        store.close();
        event
    });
    home.salvage();
    runtime().block_on(async {
        let store = home.open();
        let found = store.event(pending.meta.id).await.unwrap().expect("what is pending is never dropped");
        assert_eq!(*found, *pending);
        assert_eq!(backlog(&store, 0).await.len(), 1);
    });
}

/// The story: nothing was lost, so the salvaged journal had the same frames under the same sequences and CRCs, in other places.
/// A key space whose last frame opened a segment, as a frame does that a start has copied, was taken for one that fits.
#[test]
fn a_key_space_that_stands_at_the_start_of_a_segment_is_built_anew() {
    let home = Home::new(limits());
    let (ids, last) = runtime().block_on(async {
        let store = home.open();
        let segments = async || store.stats().journal_segments;
        let (begun, mut ids) = (segments().await, Vec::new());
        while segments().await == begun {
            ids.push(accept(&store, event_with(&[0], &body_of(ids.len() as u64, 7_000), &[])).await.meta.id);
        }
        store.close();
        (ids, store.stats().journal_segments)
    });
    assert!(last > 1 && ids.len() > 2);
    assert!(!home.salvage().has_losses());
    runtime().block_on(async {
        let store = home.open();
        assert!(store.opened().rebuilt.is_some());
        for id in ids {
            assert!(store.event(id).await.unwrap().is_some(), "{id}");
        }
    });
}

async fn set(store: &EmbeddedStore, standing: Standing) {
    store.set_standing(endpoint(1), "default", "endpoint-1", standing).await.unwrap();
}

fn noted(store: &EmbeddedStore) -> Vec<(u64, Standing)> {
    store.endpoint_notes().into_iter().map(|EndpointNote { version, standing, .. }| (version, standing)).collect()
}

/// A store of three lives. The first segment, which said that the endpoint is enabled, is dropped by the last; what the
/// others said of it is in the checkpoint.
async fn three_lives(home: &Home, second: impl AsyncFnOnce(&EmbeddedStore), third: impl AsyncFnOnce(&EmbeddedStore)) {
    let store = home.open();
    set(&store, Standing::Enabled).await;
    accept(&store, event_with(&[], b"long ago", &[])).await;
    drop(store);
    home.clock.advance(RETENTION_MS * 3 / 4);
    let store = home.open();
    second(&store).await;
    // The last batch moves to the next segment.
    for body in [b"young", b"moves"] {
        accept(&store, event_with(&[], body, &[])).await;
    }
    drop(store);
    let store = home.open();
    third(&store).await;
    home.clock.advance(RETENTION_MS / 2);
    store.keep_house().await;
    assert!(!segment(home, 1).exists(), "retention dropped the first segment");
    assert!(segment(home, 2).exists() && segment(home, 3).exists() && !segment(home, 4).exists());
}

fn segment(home: &Home, number: u64) -> std::path::PathBuf {
    postrider::journal::segment_path(&home.journal(), number)
}

fn by_age() -> Home {
    Home::new(StoreLimits { retention_ms: RETENTION_MS, ..limits() })
}

#[tokio::test]
async fn what_only_the_checkpoint_says_is_carried_over_and_missed_when_it_is_damaged() {
    let home = by_age();
    let disabled = Standing::Disabled { since_ms: 5 };
    let store = home.open();
    set(&store, disabled).await;
    accept(&store, event_with(&[], b"long ago", &[])).await;
    drop(store);
    home.clock.advance(2 * RETENTION_MS);
    let store = home.open();
    store.keep_house().await;
    accept(&store, event_with(&[], b"now", &[])).await;
    assert!(!segment(&home, 1).exists(), "retention dropped the first segment");
    drop(store);
    assert!(!home.salvage().has_losses());
    let store = home.open();
    assert_eq!(noted(&store), [(1, disabled)]);
    drop(store);
    std::fs::write(home.journal().join("checkpoint"), "no checkpoint").unwrap();
    let salvaged = home.salvage();
    assert!(salvaged.checkpoint_lost && salvaged.has_losses() && salvaged.journal.lost.is_empty());
    assert_eq!(noted(&home.open()), []);
}

/// Taken for older than it is, a checkpoint would come before a 410 which it knows the end of.
#[tokio::test]
async fn a_salvaged_checkpoint_is_as_new_as_it_was() {
    let home = by_age();
    let gone_and_back = async |store: &EmbeddedStore| {
        let event = accept(store, event_with(&[1], b"an event", &[])).await;
        let fresh = Pending::fresh(event.meta.accepted_ms);
        settle(store, delivery(1, event.meta.id), fresh, Next::Dead { reason: DeadReason::Gone }).await;
        set(store, Standing::Enabled).await;
    };
    three_lives(&home, gone_and_back, async |_| {}).await;
    assert!(!home.salvage().has_losses());
    assert_eq!(noted(&home.open()), [(3, Standing::Enabled)]);
}

/// The last file is gone, so the salvaged journal ends before what the checkpoint and the key space speak of. Taken for newer
/// than it is, the checkpoint would have the last word over what is said from now on; the key space would hide it.
#[tokio::test]
async fn nothing_from_before_the_loss_of_the_newest_segment_is_taken_for_newer_than_what_comes() {
    let home = by_age();
    let busy = async |store: &EmbeddedStore| {
        set(store, Standing::Disabled { since_ms: 5 }).await;
        for n in 0..20 {
            accept(store, event_with(&[0], &body_of(n, 100), &[])).await;
        }
        set(store, Standing::Enabled).await;
    };
    three_lives(&home, async |_| {}, busy).await;
    std::fs::remove_file(segment(&home, 3)).unwrap();
    let salvaged = home.salvage();
    let [lost] = &salvaged.journal.lost[..] else { panic!("one stretch is lost: {salvaged:?}") };
    assert_eq!((lost.bytes, lost.last_sequence - lost.first_sequence), (None, 22), "what moved, 20 events, two notes");
    let store = home.open();
    assert!(store.opened().rebuilt.is_some());
    assert_eq!((noted(&store), backlog(&store, 0).await.len()), (vec![(3, Standing::Enabled)], 0));
    set(&store, Standing::Disabled { since_ms: 9 }).await;
    let later = accept(&store, event_with(&[0], b"later", &[])).await;
    drop(store);
    for rebuild in [false, true] {
        if rebuild {
            home.forget_index();
        }
        let store = home.open();
        assert_eq!(noted(&store), [(4, Standing::Disabled { since_ms: 9 })]);
        assert_eq!(backlog(&store, 0).await.iter().map(|due| due.event).collect::<Vec<_>>(), [later.meta.id]);
    }
}
