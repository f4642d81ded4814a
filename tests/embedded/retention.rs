//! Segments past retention go; what is pending in them, and the dedup keys whose window is open, stays.

use std::sync::Arc;

use bytes::Bytes;
use postrider::core::delivery::{DeliveryState, Next, Pending};
use postrider::core::event::Event;
use postrider::core::fact::Standing;
use postrider::core::limits::StoreLimits;
use postrider::env::RealDisk;
use postrider::store::embedded::EmbeddedStore;
use postrider::store::{Accepted, Redriven, Refusal, Store, StoreError};

use crate::support::{
    Home, Picture, REJECTED, START_MS, accept, all_events, applied, backlog, body_of, delivery, endpoint, event_with,
    graveyard, holder, key, kinds, limits, pending_state, settle, settle_with, state, until,
};

/// Milliseconds that events are kept in the tests that go by age.
const AGE_MS: u64 = 60_000;

fn by_age() -> StoreLimits {
    StoreLimits { retention_ms: AGE_MS, ..limits() }
}

/// Lets everything so far become old, starts anew, and waits until it is dropped. The last frame before is young again, as
/// it is copied to the new segment.
async fn grow_old(home: &Home, store: EmbeddedStore) -> EmbeddedStore {
    // What comes last is not what the test looks at.
    accept(&store, event_with(&[], b"the last of its segment", &[])).await;
    drop(store);
    home.clock.advance(2 * AGE_MS);
    let store = home.open();
    store.keep_house().await;
    assert_eq!(store.opened().rebuilt, None);
    store
}

/// Accepts events that are delivered at once: a quarter of a segment may be carried, so these pay for what stays.
async fn bystanders(store: &EmbeddedStore, count: u64) {
    for n in 0..count {
        let event = accept(store, event_with(&[0], &body_of(n, 300), &[])).await;
        settle(store, delivery(0, event.meta.id), Pending::fresh(event.meta.accepted_ms), Next::Delivered).await;
    }
}

fn fresh(event: &Event) -> Pending {
    Pending::fresh(event.meta.accepted_ms)
}

/// Whatever the store shows, one with a new key space shows too. Goes on with that, and without retention: nothing may go
/// between two pictures.
async fn same_after_rebuild(home: &Home, store: EmbeddedStore, keys: &[&str]) -> EmbeddedStore {
    let keys: Vec<_> = keys.iter().map(|text| key(text)).collect();
    let generous = StoreLimits { retention_ms: u64::MAX, retention_bytes: u64::MAX, ..home.limits.clone() };
    drop(store);
    let store = home.open_with(&generous);
    assert_eq!(store.opened().rebuilt, None);
    let before = Picture::of(&store, &keys).await;
    drop(store);
    home.forget_index();
    let store = home.open_with(&generous);
    assert!(store.opened().rebuilt.is_some());
    before.assert_same(&Picture::of(&store, &keys).await, "after a rebuild");
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_event_outlasts_its_segment_byte_for_byte_again_and_again() {
    let home = Home::new(by_age());
    let mut store = home.open();
    let body = body_of(1, 5_000);
    let event = accept(&store, event_with(&[1, 2, 3], &body, &[])).await;
    let id = event.meta.id;
    settle(&store, delivery(1, id), fresh(&event), Next::Delivered).await;
    settle(&store, delivery(2, id), fresh(&event), Next::Retry { due_ms: START_MS + 99 * AGE_MS }).await;
    let retried = pending_state(&store, delivery(2, id)).await;
    for round in 1..=3 {
        bystanders(&store, 20).await;
        store = grow_old(&home, store).await;
        let listed: Vec<_> = all_events(&store).await.iter().map(|event| event.meta.id).collect();
        assert_eq!(listed.last(), Some(&id), "round {round}");
        assert!(listed.len() <= 2, "only it and the last frame are left, got {}", listed.len());
        let found = store.event(id).await.unwrap().unwrap();
        assert_eq!(found.meta, event.meta);
        assert!(found.body == body, "round {round}");
        assert_eq!(state(&store, delivery(1, id)).await, DeliveryState::Delivered);
        assert_eq!(state(&store, delivery(2, id)).await, DeliveryState::Pending(retried));
        assert_eq!(state(&store, delivery(3, id)).await, DeliveryState::Pending(fresh(&event)));
        assert_eq!((backlog(&store, 2).await.len(), backlog(&store, 3).await.len()), (1, 1));
        // The attempts went with the segment that recorded them; that they were made is known.
        assert!(store.attempts(id).await.unwrap().unwrap().is_empty());
        assert_eq!(retried.attempts, 1);
        store = same_after_rebuild(&home, store, &[]).await;
    }
    settle(&store, delivery(2, id), retried, Next::Delivered).await;
    settle(&store, delivery(3, id), fresh(&event), Next::Delivered).await;
    assert_eq!(store.attempts(id).await.unwrap().unwrap().len(), 2);
    let store = grow_old(&home, store).await;
    assert!(store.event(id).await.unwrap().is_none());
    assert_eq!(store.stats().pending, 0);
    same_after_rebuild(&home, store, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_go_with_their_events_and_stay_with_carried_ones() {
    let home = Home::new(by_age());
    let store = home.open();
    // Nobody told the store of these endpoints; their dead letters go all the same.
    let gone = accept(&store, event_with(&[0, 1], b"gone", &[])).await;
    settle(&store, delivery(0, gone.meta.id), fresh(&gone), REJECTED).await;
    settle(&store, delivery(1, gone.meta.id), fresh(&gone), Next::Delivered).await;
    let kept = accept(&store, event_with(&[0, 1, 2], b"kept", &[])).await;
    settle(&store, delivery(0, kept.meta.id), fresh(&kept), REJECTED).await;
    bystanders(&store, 20).await;
    assert_eq!(graveyard(&store).await.len(), 2);

    let store = grow_old(&home, store).await;
    let letters = graveyard(&store).await;
    assert_eq!(letters.iter().map(|letter| letter.delivery).collect::<Vec<_>>(), [delivery(0, kept.meta.id)]);
    assert_eq!(state(&store, delivery(0, kept.meta.id)).await, DeliveryState::Dead(letters[0].dead));
    assert_eq!(store.stats().dead, 1);
    assert_eq!(store.redrive(delivery(0, gone.meta.id)).await.unwrap(), Redriven::Unknown);
    let store = same_after_rebuild(&home, store, &[]).await;

    // One more dies after it was carried, and one is replayed and dies again.
    settle(&store, delivery(1, kept.meta.id), fresh(&kept), REJECTED).await;
    assert_eq!(store.redrive(delivery(0, kept.meta.id)).await.unwrap(), Redriven::Due);
    let again = pending_state(&store, delivery(0, kept.meta.id)).await;
    assert_eq!(again.attempts, 1);
    settle(&store, delivery(0, kept.meta.id), again, REJECTED).await;
    bystanders(&store, 20).await;
    let store = grow_old(&home, store).await;
    assert_eq!(graveyard(&store).await.len(), 2);
    let store = same_after_rebuild(&home, store, &[]).await;

    // Without anything pending it goes, and its dead letters with it.
    settle(&store, delivery(2, kept.meta.id), fresh(&kept), Next::Delivered).await;
    let store = grow_old(&home, store).await;
    assert!(graveyard(&store).await.is_empty());
    assert_eq!(store.stats().dead, 0);
    assert!(store.event(kept.meta.id).await.unwrap().is_none());
    same_after_rebuild(&home, store, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dedup_key_outlasts_its_event_for_its_window_and_no_longer() {
    let home = Home::new(StoreLimits { dedup_ms: 5 * AGE_MS, ..by_age() });
    let store = home.open();
    let body = b"the first".to_vec();
    let first = accept(&store, event_with(&[], &body, &[key("evt_1")])).await.meta.id;
    bystanders(&store, 5).await;
    let mut store = store;
    for _ in 0..2 {
        store = grow_old(&home, store).await;
        assert!(store.event(first).await.unwrap().is_none());
        applied(&store).await;
        assert_eq!(holder(&store, key("evt_1")).await, first);
        match store.accept(event_with(&[], &body, &[key("evt_1")])).await.unwrap() {
            Accepted::Duplicate { same_body, .. } => assert!(same_body, "its fingerprint is kept"),
            Accepted::New { .. } => panic!("the key was lost"),
        }
        assert_eq!(store.stats().dedup_keys, 1);
        store = same_after_rebuild(&home, store, &["evt_1"]).await;
    }
    // To the very millisecond.
    home.clock.advance(AGE_MS - 1);
    assert_eq!(holder(&store, key("evt_1")).await, first);
    home.clock.advance(1);
    store.keep_house().await;
    until("what has ended is swept out", async || store.stats().dedup_keys == 0).await;
    let second = accept(&store, event_with(&[], &body, &[key("evt_1")])).await.meta.id;
    assert_ne!(second, first);
    // The record that carried the old claim is still in the journal, before the new claim.
    assert!(kinds(&RealDisk, &home.copy().journal()).contains_key("dedup_carried"));
    let store = same_after_rebuild(&home, store, &["evt_1"]).await;
    assert_eq!(holder(&store, key("evt_1")).await, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_events_are_dropped_and_carried_ones_stay_erased() {
    let home = Home::new(by_age());
    let store = home.open();
    let dropped = accept(&store, event_with(&[0], b"dropped", &[key("evt_1")])).await.meta.id;
    let carried = accept(&store, event_with(&[0], b"carried", &[])).await.meta.id;
    let empty = accept(&store, event_with(&[0], b"", &[])).await.meta.id;
    assert!(store.erase(dropped).await.unwrap());
    bystanders(&store, 20).await;
    let store = grow_old(&home, store).await;
    assert!(store.event(dropped).await.unwrap().is_none());
    assert!(!store.erase(dropped).await.unwrap());
    assert_eq!(holder(&store, key("evt_1")).await, dropped);
    // Erased after they were carried, they are past retention and still there: until their new segment goes.
    for id in [carried, empty] {
        assert!(store.erase(id).await.unwrap());
    }
    bystanders(&store, 20).await;
    drop(store);
    home.clock.advance(1);
    let store = home.open();
    // A segment before theirs goes; nothing of them does.
    store.keep_house().await;
    for id in [carried, empty] {
        assert!(store.event(id).await.unwrap().unwrap().erased);
        assert_eq!(store.redrive(delivery(0, id)).await.unwrap(), Redriven::Erased);
        assert!(matches!(state(&store, delivery(0, id)).await, DeliveryState::Dead(_)));
    }
    let store = same_after_rebuild(&home, store, &["evt_1"]).await;
    let store = grow_old(&home, store).await;
    assert!(store.event(carried).await.unwrap().is_none());
    assert!(graveyard(&store).await.is_empty());
    same_after_rebuild(&home, store, &["evt_1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_go_on_after_everything_was_dropped() {
    let home = Home::new(by_age());
    let store = home.open();
    bystanders(&store, 5).await;
    let last = accept(&store, event_with(&[], b"the last", &[])).await.meta.id;
    drop(store);
    home.clock.advance(2 * AGE_MS);
    let store = home.open();
    // Its frame is the first of the new segment. Another one after it, and that goes too.
    bystanders(&store, 1).await;
    drop(store);
    home.clock.advance(2 * AGE_MS);
    let store = home.open();
    store.keep_house().await;
    let newest = all_events(&store).await.first().map_or(last, |event| event.meta.id);
    drop(store);
    // Whatever the clock says by then.
    home.clock.set_wall(START_MS / 2);
    let store = home.open();
    assert!(store.opened().clock_behind_ms > 0);
    let next = accept(&store, event_with(&[], b"the next", &[])).await.meta.id;
    assert!(next > newest && newest >= last);
    assert_eq!(store.event(next).await.unwrap().unwrap().body, "the next");
    assert_eq!(all_events(&store).await.first().unwrap().meta.id, next);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind_the_journal_drops_nothing_until_it_ran_for_an_hour() {
    let home = Home::new(by_age());
    let store = home.open();
    bystanders(&store, 5).await;
    let oldest = all_events(&store).await.last().unwrap().meta.id;
    bystanders(&store, 1).await;
    let before_ms = store.now_ms();
    drop(store);
    home.clock.set_wall(START_MS - 3_600_000);
    let store = home.open();
    assert_eq!(store.opened().clock_behind_ms, 3_600_000);
    assert!(store.now_ms() >= before_ms);
    bystanders(&store, 1).await;
    home.clock.advance(30 * AGE_MS);
    store.keep_house().await;
    assert!(store.event(oldest).await.unwrap().is_some(), "the clock may be wrong");
    home.clock.advance(30 * AGE_MS);
    store.keep_house().await;
    assert!(store.event(oldest).await.unwrap().is_none(), "it ran for an hour, so it is right");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_bound_the_journal_and_files_are_used_again() {
    let limits = StoreLimits { retention_bytes: 8 * (64 << 10), ..limits() };
    let home = Home::new(limits.clone());
    let store = home.open();
    let stuck = accept(&store, event_with(&[3], &body_of(7, 4_000), &[])).await;
    for round in 0..12 {
        for n in 0..25 {
            let event = accept(&store, event_with(&[0], &body_of(n, 6_000), &[])).await;
            settle(&store, delivery(0, event.meta.id), fresh(&event), Next::Delivered).await;
        }
        store.keep_house().await;
        let stats = store.stats();
        assert!(stats.journal_bytes <= limits.retention_bytes, "round {round}: {}", stats.journal_bytes);
        store.intake().unwrap();
    }
    // 1.9 MB went through; the files that are left are what is kept, the one being written, and two spares.
    let files = crate::support::files(&home.journal());
    let on_disk: u64 = files.iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert!(files.len() <= 10 && on_disk <= limits.retention_bytes, "{on_disk} bytes in {files:?}");
    let found = store.event(stuck.meta.id).await.unwrap().unwrap();
    assert!(found.body == body_of(7, 4_000));
    assert_eq!(pending_state(&store, delivery(3, stuck.meta.id)).await, fresh(&stuck));
    same_after_rebuild(&home, store, &[]).await;
}

/// The file of a dropped segment stays to be used again. It once counted as if it held events, and another segment went to
/// make room for it: what had just been delivered could be gone with two of four segments.
#[tokio::test(flavor = "multi_thread")]
async fn no_segment_goes_to_make_room_for_a_spare_file() {
    let home = Home::new(StoreLimits { retention_bytes: 8 * (64 << 10), ..limits() });
    let store = home.open();
    let first = accept(&store, event_with(&[], b"the first to go", &[])).await.meta.id;
    let mut fewest = u64::MAX;
    for n in 0..80 {
        let event = accept(&store, event_with(&[0], &body_of(n, 6_000), &[])).await;
        settle(&store, delivery(0, event.meta.id), fresh(&event), Next::Delivered).await;
        store.keep_house().await;
        if store.event(first).await.unwrap().is_none() {
            fewest = fewest.min(store.stats().journal_segments);
        }
    }
    // The room is for six, one of which is prepared; five are too many, since sealed ones have footers.
    assert_eq!(fewest, 4, "the one that is written, and three sealed ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn intake_closes_when_what_is_pending_fills_the_journal_and_opens_when_it_drains() {
    let limits = StoreLimits { retention_bytes: 6 * (64 << 10), ..limits() };
    let home = Home::new(limits.clone());
    let store = home.open();
    let mut kept: Vec<Arc<Event>> = Vec::new();
    let refused = loop {
        let body = body_of(kept.len() as u64, 8_000);
        match store.accept(event_with(&[0], &body, &[])).await {
            Ok(Accepted::New { event }) => kept.push(event),
            Ok(Accepted::Duplicate { .. }) => panic!("no key was given"),
            Err(StoreError::Refused(refused)) => break refused,
            Err(error) => panic!("{error}"),
        }
        store.keep_house().await;
        assert!(kept.len() < 200, "it never closes");
    };
    assert_eq!(refused, Refusal::JournalFull { limit_bytes: limits.retention_bytes });
    assert_eq!(store.intake(), Err(refused));
    assert!(store.stats().journal_bytes <= limits.retention_bytes, "two segments stay for settles");
    // Reopening forgets nothing of it, and settles go on.
    drop(store);
    let store = home.open();
    store.keep_house().await;
    assert_eq!(backlog(&store, 0).await.len(), kept.len(), "nothing pending was dropped");
    for event in &kept {
        let found = store.event(event.meta.id).await.unwrap().unwrap();
        assert!(found.body == event.body);
        settle(&store, delivery(0, event.meta.id), fresh(event), Next::Delivered).await;
    }
    store.keep_house().await;
    assert_eq!(store.intake(), Ok(()));
    accept(&store, event_with(&[0], b"welcome again", &[])).await;
    assert!(store.stats().journal_bytes <= limits.retention_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_segment_that_is_old_waits_and_holds_back_only_itself() {
    let home = Home::new(by_age());
    let store = home.open();
    let mut live = Vec::new();
    for n in 0..10 {
        live.push(accept(&store, event_with(&[0], &body_of(n, 3_000), &[])).await);
    }
    let store = grow_old(&home, store).await;
    assert_eq!(backlog(&store, 0).await.len(), 10);
    assert_eq!(all_events(&store).await.len(), 11, "more than a quarter of it is pending: it waits");
    store.intake().unwrap();
    let many = live.len() - 1;
    for event in &live[..many] {
        settle(&store, delivery(0, event.meta.id), fresh(event), Next::Delivered).await;
    }
    store.keep_house().await;
    let left: Vec<_> = all_events(&store).await.iter().map(|event| event.meta.id).collect();
    assert!(!left.contains(&live[0].meta.id) && left.contains(&live[9].meta.id));
    assert!(kinds(&RealDisk, &home.copy().journal()).contains_key("carried"));
    same_after_rebuild(&home, store, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_cannot_be_replayed_even_if_it_was_just_accepted() {
    let home = Home::new(by_age());
    let store = home.open();
    let event = accept(&store, event_with(&[0], b"short-lived", &[])).await;
    let id = delivery(0, event.meta.id);
    settle(&store, id, fresh(&event), REJECTED).await;
    // Enough for the segment to be sealed while the event is still at hand for its attempts.
    for n in 0..12 {
        accept(&store, event_with(&[], &body_of(n, 8_000), &[])).await;
    }
    home.clock.advance(2 * AGE_MS);
    // The segment may be sealed a moment after the last answer.
    until("its segment is dropped", async || {
        store.keep_house().await;
        store.event(id.event).await.unwrap().is_none()
    })
    .await;
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Unknown);
    assert!(store.deliveries(id.event).await.unwrap().is_none());
    assert_eq!((store.stats().pending, store.stats().dead), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn standings_outlast_the_segments_that_said_them() {
    let home = Home::new(by_age());
    let store = home.open();
    for n in 0..3 {
        let name = format!("endpoint-{n}");
        store.set_standing(endpoint(n), "default", &name, Standing::Enabled).await.unwrap();
    }
    let since_ms = store.now_ms();
    store.set_standing(endpoint(1), "default", "endpoint-1", Standing::Disabled { since_ms }).await.unwrap();
    let gone = accept(&store, event_with(&[2], b"gone", &[])).await;
    let next = Next::Dead { reason: postrider::core::delivery::DeadReason::Gone };
    settle(&store, delivery(2, gone.meta.id), fresh(&gone), next).await;
    let notes = store.endpoint_notes();
    assert!(matches!(notes.iter().find(|n| n.id == endpoint(2)).unwrap().standing, Standing::Gone { .. }));
    // The checkpoint is lost, and another is written before anything is dropped.
    let store = grow_old(&home, store).await;
    std::fs::remove_file(home.journal().join("checkpoint")).unwrap();
    bystanders(&store, 5).await;
    let store = grow_old(&home, store).await;
    assert!(!kinds(&RealDisk, &home.copy().journal()).contains_key("endpoint"), "no segment says it any more");
    let store = same_after_rebuild(&home, store, &[]).await;
    assert_eq!(store.endpoint_notes().len(), notes.len());
}

/// The checkpoint is newer than the first records that a rebuild reads.
#[tokio::test(flavor = "multi_thread")]
async fn an_operators_word_after_a_410_is_the_last_word_after_a_rebuild() {
    let home = Home::new(limits());
    let store = home.open();
    store.set_standing(endpoint(0), "default", "endpoint-0", Standing::Enabled).await.unwrap();
    let event = accept(&store, event_with(&[0], b"gone", &[])).await;
    let next = Next::Dead { reason: postrider::core::delivery::DeadReason::Gone };
    settle(&store, delivery(0, event.meta.id), fresh(&event), next).await;
    store.set_standing(endpoint(0), "default", "endpoint-0", Standing::Enabled).await.unwrap();
    for n in 0..12 {
        accept(&store, event_with(&[], &body_of(n, 8_000), &[])).await;
    }
    until("a checkpoint", async || home.journal().join("checkpoint").exists()).await;
    store.keep_house().await;
    let store = same_after_rebuild(&home, store, &[]).await;
    assert_eq!(store.endpoint_notes()[0].standing, Standing::Enabled);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_batches_are_enough_for_all_that_comes_at_once() {
    let limits = StoreLimits { batch_records_max: 3, ..by_age() };
    let home = Home::new(limits);
    let store = home.open();
    store.set_standing(endpoint(1), "default", "endpoint-1", Standing::Enabled).await.unwrap();
    for n in 0..50 {
        accept(&store, event_with(&[1], &body_of(n, 10), &[])).await;
    }
    // Endpoints of one event that are more than a batch has records.
    let wide = accept(&store, event_with(&[0, 1, 2, 3], b"wide", &[])).await;
    assert!(store.erase(wide.meta.id).await.unwrap());
    let since_ms = store.now_ms();
    store.set_standing(endpoint(1), "default", "endpoint-1", Standing::Removed { since_ms }).await.unwrap();
    assert_eq!((store.stats().pending, store.stats().dead), (0, 54));
    same_after_rebuild(&home, store, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_a_batch_holds_are_carried() {
    let home = Home::new(by_age());
    let store = home.open();
    for n in 0..600 {
        accept(&store, event_with(&[], b"x", &[key(&format!("evt_{n}"))])).await;
    }
    let store = grow_old(&home, store).await;
    assert!(all_events(&store).await.len() <= 1);
    let texts: Vec<String> = (0..600).map(|n| format!("evt_{n}")).collect();
    let keys: Vec<&str> = texts.iter().map(String::as_str).collect();
    let store = same_after_rebuild(&home, store, &keys).await;
    assert_eq!(store.stats().dedup_keys, 600);
}

/// Batches were larger when it was accepted; now it can't be carried, so its segment waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_too_large_for_the_limits_of_today_stays_until_it_is_delivered() {
    let mut home = Home::new(StoreLimits { segment_bytes: 1 << 20, batch_bytes_max: 256 << 10, ..by_age() });
    let store = home.open();
    let body = body_of(1, 200_000);
    let large = accept(&store, event_with(&[1], &body, &[])).await;
    bystanders(&store, 20).await;
    drop(store);
    home.limits = by_age();
    let store = grow_old(&home, home.open()).await;
    assert!(store.event(large.meta.id).await.unwrap().unwrap().body == body);
    settle_with(&store, delivery(1, large.meta.id), fresh(&large), Next::Delivered, b"thanks").await;
    store.keep_house().await;
    assert!(store.event(large.meta.id).await.unwrap().is_none());
    let too_large = event_with(&[], &Bytes::from(body), &[]);
    assert!(matches!(store.accept(too_large).await, Err(StoreError::TooLarge { .. })));
    accept(&store, event_with(&[], b"life goes on", &[])).await;
}

/// A salvaged journal is written anew; what its records say of dropped segments must not be taken for its own.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_carried_and_dropped_before_a_salvage_stays_so() {
    let home = Home::new(by_age());
    let store = home.open();
    let pending = accept(&store, event_with(&[1], b"pending", &[key("evt_1")])).await;
    bystanders(&store, 20).await;
    let mut store = grow_old(&home, store).await;
    for n in 0..3 {
        // A segment for each, sealed by the next start.
        accept(&store, event_with(&[2], &body_of(n, 500), &[])).await;
        drop(store);
        store = home.open();
    }
    let keys = [key("evt_1")];
    let before = Picture::of(&store, &keys).await;
    drop(store);
    assert!(!home.salvage().has_losses());
    let store = home.open();
    before.assert_same(&Picture::of(&store, &keys).await, "after a salvage");
    assert_eq!(backlog(&store, 1).await[0].event, pending.meta.id);
}
