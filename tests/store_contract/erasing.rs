//! Rules of `erase`: the content goes, the record of what happened stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use postrider::core::delivery::{Dead, DeadReason, DeliveryId, DeliveryState, Next, Pending};
use postrider::core::event::{DedupScope, NewEvent, body_fingerprint};
use postrider::core::id::EventId;
use postrider::store::{Redriven, Store};

use crate::harness::{
    Form, Picture, accept, backlog, delivery, duplicate, endpoint, event_for, graveyard, key, keyed, kill, open,
    pending_state, settle, state,
};

pub async fn erasure_empties_bytes_and_keeps_the_record<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let (bystander, was) = delivery(&*store).await;
    settle(&*store, bystander, was, Next::Delivered).await;
    let event = accept(&*store, event_for(&[0])).await;
    let id = DeliveryId { endpoint: endpoint(0), event: event.meta.id };
    let fresh = Pending::fresh(event.meta.accepted_ms);
    settle(&*store, id, fresh, Next::Retry { due_ms: store.now_ms() }).await;
    settle(&*store, id, pending_state(&*store, id).await, Next::Delivered).await;
    let before = store.attempts(id.event).await.unwrap().unwrap();

    assert!(store.erase(id.event).await.unwrap());
    let erased = store.event(id.event).await.unwrap().unwrap();
    assert!(erased.erased && erased.body.is_empty());
    assert_eq!(erased.meta, event.meta);
    assert_eq!(state(&*store, id).await, DeliveryState::Delivered);
    let after = store.attempts(id.event).await.unwrap().unwrap();
    assert_eq!(after.len(), 2);
    for (before, after) in before.iter().zip(&after) {
        assert!(!before.response.is_empty() && after.response.is_empty());
        assert_eq!((&before.attempt, before.next), (&after.attempt, after.next));
    }

    let other = store.event(bystander.event).await.unwrap().unwrap();
    assert!(!other.erased && !other.body.is_empty());
    assert!(!store.attempts(bystander.event).await.unwrap().unwrap()[0].response.is_empty());
}

pub async fn erasure_buries_what_is_pending<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let event = accept(&*store, event_for(&[0, 1, 2])).await;
    let id = |n| DeliveryId { endpoint: endpoint(n), event: event.meta.id };
    let fresh = Pending::fresh(event.meta.accepted_ms);
    settle(&*store, id(1), fresh, Next::Retry { due_ms: store.now_ms() + 60_000 }).await;
    kill(&*store, id(2), fresh).await;
    let died = state(&*store, id(2)).await;
    let (bystander, _) = delivery(&*store).await;
    clock.advance(7);

    assert!(store.erase(event.meta.id).await.unwrap());
    let erased = |attempts| Dead { reason: DeadReason::ContentErased, at_ms: store.now_ms(), attempts };
    assert_eq!(state(&*store, id(0)).await, DeliveryState::Dead(erased(0)));
    assert_eq!(state(&*store, id(1)).await, DeliveryState::Dead(erased(1)));
    assert_eq!(state(&*store, id(2)).await, died);
    assert_eq!(graveyard(&*store).await.len(), 3);
    assert_eq!(backlog(&*store, 0).await.iter().map(|due| due.event).collect::<Vec<_>>(), [bystander.event]);
    assert!(backlog(&*store, 1).await.is_empty());
    assert_eq!((store.stats().pending, store.stats().dead), (1, 3));
}

pub async fn erasing_again_changes_nothing<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let (id, _) = delivery(&*store).await;
    assert!(store.erase(id.event).await.unwrap());
    let before = Picture::of(&*store, 1).await;
    clock.advance(1);
    assert!(store.erase(id.event).await.unwrap());
    assert_eq!(Picture::of(&*store, 1).await, before);
    assert!(!store.erase(EventId::MAX).await.unwrap());
    // An event that had no bytes can be erased as well.
    let empty = accept(&*store, NewEvent { body: Bytes::new(), ..event_for(&[]) }).await.meta.id;
    assert!(store.erase(empty).await.unwrap());
    assert!(store.event(empty).await.unwrap().unwrap().erased);
}

/// Whichever comes first: what was erased is not pending, since there is nothing to send any more.
pub async fn erasure_beats_a_concurrent_replay<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    for round in 0..64 {
        let (id, was) = delivery(&*store).await;
        match round % 2 {
            0 => settle(&*store, id, was, Next::Delivered).await,
            _ => kill(&*store, id, was).await,
        }
        let tasks: Vec<_> = (0..4)
            .map(|n| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    match n {
                        0 => assert!(store.erase(id.event).await.unwrap()),
                        _ => drop(store.redrive(id).await.unwrap()),
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let state = state(&*store, id).await;
        assert!(!matches!(state, DeliveryState::Pending(_)), "erased and still {state:?}");
        assert_eq!(store.redrive(id).await.unwrap(), Redriven::Erased);
    }
    assert_eq!(store.stats().pending, 0);
}

/// Nor does a reader that was looking at it bring it back.
pub async fn no_reader_finds_erased_content_again<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    for _ in 0..32 {
        // Several events close together: a form may read them together.
        let mut ids = Vec::new();
        for _ in 0..2 {
            let (id, was) = delivery(&*store).await;
            settle(&*store, id, was, Next::Delivered).await;
            ids.push(id.event);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (store, stop, ids) = (Arc::clone(&store), Arc::clone(&stop), ids.clone());
                tokio::spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        for id in &ids {
                            let event = store.event(*id).await.unwrap().unwrap();
                            // All or nothing: neither bytes of an erased event nor zeros of one that seems whole.
                            let expected: &[u8] = if event.erased { b"" } else { b"{}" };
                            assert_eq!(event.body, expected, "half erased");
                            store.attempts(*id).await.unwrap().unwrap();
                        }
                    }
                })
            })
            .collect();
        assert!(store.erase(ids[0]).await.unwrap());
        for _ in 0..4 {
            let erased = store.event(ids[0]).await.unwrap().unwrap();
            assert!(erased.erased && erased.body.is_empty());
            assert!(store.attempts(ids[0]).await.unwrap().unwrap()[0].response.is_empty());
            assert!(!store.event(ids[1]).await.unwrap().unwrap().erased);
        }
        stop.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.await.unwrap();
        }
    }
}

pub async fn an_erased_event_still_holds_its_keys<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let inbound = key(DedupScope::Inbound, "evt_1");
    let first = accept(&*store, keyed(&[inbound])).await.meta.id;
    assert!(store.erase(first).await.unwrap());
    assert_eq!(duplicate(&*store, keyed(&[inbound])).await, (first, DedupScope::Inbound, true));
    let other =
        NewEvent { body: Bytes::from_static(b"other"), fingerprint: body_fingerprint(b"other"), ..keyed(&[inbound]) };
    assert_eq!(duplicate(&*store, other).await, (first, DedupScope::Inbound, false));
}
