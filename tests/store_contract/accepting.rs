//! Rules of `accept`: what is stored, when a key is taken, in which order ids come.

use std::sync::Arc;

use bytes::Bytes;
use postrider::core::delivery::{DeliveryId, DeliveryState, Next, Pending};
use postrider::core::event::{DedupScope, NewEvent, body_fingerprint};
use postrider::core::id::{EventId, SourceId};
use postrider::core::limits::StoreLimits;
use postrider::store::{Accepted, Refusal, Store, StoreError};

use crate::harness::{
    Form, START_MS, accept, all_events, backlog, duplicate, endpoint, event_for, key, keyed, limits, open, open_with,
    settle, state,
};

pub async fn an_event_is_stored_as_it_came<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    clock.advance(17);
    let now_ms = store.now_ms();
    let new = NewEvent {
        source: Some(SourceId::named("", "stripe")),
        external_id: Some("evt_1".to_owned()),
        headers: [("x-a", &b"\xff1"[..]), ("x-b", b""), ("x-a", b"2")].into_iter().collect(),
        body: Bytes::from_static(b"\x00\xff not text \r\n"),
        ..event_for(&[2, 0, 1])
    };
    let event = accept(&*store, new.clone()).await;
    let meta = &event.meta;
    assert_eq!((meta.accepted_ms, meta.id.ms()), (now_ms, now_ms));
    assert_eq!((meta.app, meta.source, &meta.event_type), (new.app, new.source, &new.event_type));
    assert_eq!((&meta.external_id, &meta.headers, &meta.endpoints), (&new.external_id, &new.headers, &new.endpoints));
    assert_eq!((&event.body, event.erased), (&new.body, false));

    assert_eq!(store.event(meta.id).await.unwrap().unwrap(), event);
    for n in 0..3 {
        let id = DeliveryId { endpoint: endpoint(n), event: meta.id };
        assert_eq!(state(&*store, id).await, DeliveryState::Pending(Pending::fresh(now_ms)));
        assert_eq!(backlog(&*store, n).await.len(), 1);
    }
    assert_eq!(store.attempts(meta.id).await.unwrap(), Some(Vec::new()));
    assert_eq!(store.stats().pending, 3);
}

pub async fn an_event_without_takers_is_stored<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let event = accept(&*store, event_for(&[])).await;
    assert_eq!(store.event(event.meta.id).await.unwrap(), Some(Arc::clone(&event)));
    assert_eq!(store.deliveries(event.meta.id).await.unwrap(), Some(Vec::new()));
    assert_eq!((store.stats().pending, store.stats().oldest_pending_ms), (0, None));
}

pub async fn what_nobody_accepted_is_unknown<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let known = accept(&*store, event_for(&[0])).await.meta.id;
    for id in [EventId::MIN, EventId::MAX, known.successor(), EventId::from_u128(known.as_u128() - 1)] {
        assert!(store.event(id).await.unwrap().is_none());
        assert!(store.deliveries(id).await.unwrap().is_none());
        assert!(store.attempts(id).await.unwrap().is_none());
    }
}

pub async fn a_taken_key_answers_with_the_first_event<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let inbound = key(DedupScope::Inbound, "evt_1");
    let first = accept(&*store, keyed(&[inbound])).await.meta.id;
    clock.advance(1_000);
    assert_eq!(duplicate(&*store, keyed(&[inbound])).await, (first, DedupScope::Inbound, true));
    let other =
        NewEvent { body: Bytes::from_static(b"other"), fingerprint: body_fingerprint(b"other"), ..keyed(&[inbound]) };
    assert_eq!(duplicate(&*store, other).await, (first, DedupScope::Inbound, false));
    assert_eq!(all_events(&*store).await.len(), 1, "a duplicate stores nothing");
    assert_eq!((store.stats().pending, store.stats().dedup_keys), (1, 1));
    // Without keys equal events are as many as there come.
    accept(&*store, keyed(&[])).await;
    accept(&*store, keyed(&[])).await;
}

pub async fn keys_are_claimed_together_or_not_at_all<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let (idempotency, event_id) = (key(DedupScope::Idempotency, "k"), key(DedupScope::EventId, "e"));
    let first = accept(&*store, keyed(&[event_id])).await.meta.id;
    assert_eq!(duplicate(&*store, keyed(&[idempotency, event_id])).await, (first, DedupScope::EventId, true));
    // The free key of the duplicate is still free.
    let second = accept(&*store, keyed(&[idempotency])).await.meta.id;
    assert_eq!(duplicate(&*store, keyed(&[idempotency])).await.0, second);
    // Both keys of one event hold.
    let (k2, e2) = (key(DedupScope::Idempotency, "k2"), key(DedupScope::EventId, "e2"));
    let both = accept(&*store, keyed(&[k2, e2])).await.meta.id;
    assert_eq!(duplicate(&*store, keyed(&[k2])).await, (both, DedupScope::Idempotency, true));
    assert_eq!(duplicate(&*store, keyed(&[e2])).await, (both, DedupScope::EventId, true));
    assert_eq!(store.stats().dedup_keys, 4);
}

pub async fn the_first_taken_key_in_the_given_order_answers<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let (idempotency, event_id) = (key(DedupScope::Idempotency, "k"), key(DedupScope::EventId, "e"));
    let by_event_id = accept(&*store, keyed(&[event_id])).await.meta.id;
    let by_idempotency = accept(&*store, keyed(&[idempotency])).await.meta.id;
    assert_eq!(duplicate(&*store, keyed(&[idempotency, event_id])).await.0, by_idempotency);
    assert_eq!(duplicate(&*store, keyed(&[event_id, idempotency])).await.0, by_event_id);
}

pub async fn a_key_is_its_scope_and_its_hash<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let mut seen = Vec::new();
    for scope in [DedupScope::Inbound, DedupScope::Idempotency, DedupScope::EventId] {
        for text in ["a", "b"] {
            seen.push((key(scope, text), accept(&*store, keyed(&[key(scope, text)])).await.meta.id));
        }
    }
    for (key, id) in seen {
        assert_eq!(duplicate(&*store, keyed(&[key])).await, (id, key.scope, true));
    }
}

pub async fn a_key_is_free_again_at_the_very_millisecond_its_window_ends<F: Form>() {
    let (_form, store, clock) = open_with::<F>(StoreLimits { dedup_ms: 5_000, ..limits() }).await;
    let inbound = key(DedupScope::Inbound, "evt_1");
    let first = accept(&*store, keyed(&[inbound])).await.meta.id;
    clock.advance(4_999);
    assert_eq!(duplicate(&*store, keyed(&[inbound])).await.0, first);
    // The duplicate did not lengthen the window.
    clock.advance(1);
    let second = accept(&*store, keyed(&[inbound])).await.meta.id;
    assert_ne!(second, first);
    clock.advance(4_999);
    assert_eq!(duplicate(&*store, keyed(&[inbound])).await.0, second);
}

pub async fn of_concurrent_accepts_under_one_key_one_is_new<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    for round in 0..4 {
        let keys = [key(DedupScope::Idempotency, &format!("k{round}")), key(DedupScope::EventId, &format!("e{round}"))];
        let tasks: Vec<_> = (0..32)
            .map(|n| {
                // Some bring one key, some the other, some both: they overlap through those that bring both.
                let store = Arc::clone(&store);
                let event = keyed(&keys[..1 + n % 2]);
                tokio::spawn(async move { store.accept(event).await.unwrap() })
            })
            .collect();
        let (mut new, mut ids) = (0, Vec::new());
        for task in tasks {
            match task.await.unwrap() {
                Accepted::New { event } => {
                    new += 1;
                    ids.push(event.meta.id);
                }
                Accepted::Duplicate { id, same_body, .. } => {
                    assert!(same_body);
                    // A duplicate is answered once its original is there.
                    ids.push(id);
                }
            }
        }
        assert_eq!(new, 1);
        ids.dedup();
        assert_eq!(ids.len(), 1, "every answer names the one event");
        assert!(store.event(ids[0]).await.unwrap().is_some());
    }
    assert_eq!(all_events(&*store).await.len(), 4);
}

pub async fn each_answer_is_visible_at_once_under_concurrency<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..16 {
                    let claimed = key(DedupScope::Inbound, &format!("{task}-{n}"));
                    let event =
                        accept(&*store, NewEvent { endpoints: vec![endpoint(task)], ..keyed(&[claimed]) }).await;
                    let id = event.meta.id;
                    assert_eq!(store.event(id).await.unwrap(), Some(event));
                    assert_eq!(duplicate(&*store, keyed(&[claimed])).await.0, id);
                    assert!(backlog(&*store, task).await.iter().any(|due| due.event == id));
                    assert!(all_events(&*store).await.iter().any(|event| event.meta.id == id));
                    let delivery = DeliveryId { endpoint: endpoint(task), event: id };
                    let DeliveryState::Pending(was) = state(&*store, delivery).await else { panic!("not pending") };
                    settle(&*store, delivery, was, Next::Delivered).await;
                    assert_eq!(state(&*store, delivery).await, DeliveryState::Delivered);
                    assert!(backlog(&*store, task).await.is_empty());
                    assert_eq!(store.attempts(id).await.unwrap().unwrap().len(), 1);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((store.stats().pending, store.stats().dedup_keys), (0, 8 * 16));
}

pub async fn ids_are_in_commit_order_though_the_clock_steps_back<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let mut ids = Vec::new();
    for wall_ms in [START_MS, START_MS, START_MS + 9, START_MS - 3_600_000, START_MS - 3_600_000, START_MS + 1, 0] {
        clock.set_wall(wall_ms);
        let event = accept(&*store, event_for(&[0])).await;
        assert_eq!(event.meta.accepted_ms, store.now_ms());
        ids.push(event.meta.id);
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let listed: Vec<_> = all_events(&*store).await.iter().rev().map(|event| event.meta.id).collect();
    assert_eq!(listed, ids);
}

pub async fn what_is_too_large_claims_nothing<F: Form>() {
    let limits = StoreLimits { batch_bytes_max: 64 << 10, ..limits() };
    let (_form, store, _clock) = open_with::<F>(limits).await;
    let inbound = key(DedupScope::Inbound, "evt_1");
    let big = NewEvent { body: Bytes::from(vec![7; (64 << 10) + 1]), ..keyed(&[inbound]) };
    match store.accept(big).await {
        Err(StoreError::TooLarge { bytes, max }) => assert!(bytes > max, "{bytes} {max}"),
        other => panic!("expected that it is too large, got {other:?}"),
    }
    assert!(all_events(&*store).await.is_empty());
    accept(&*store, keyed(&[inbound])).await;
}

pub async fn intake_closes_when_too_many_are_pending<F: Form>() {
    let (_form, store, _clock) = open_with::<F>(StoreLimits { pending_max: 3, ..limits() }).await;
    assert_eq!(store.intake(), Ok(()));
    let first = accept(&*store, event_for(&[0, 1, 2])).await;
    assert_eq!(store.intake(), Err(Refusal::PendingFull { limit: 3 }));
    let inbound = key(DedupScope::Inbound, "evt_1");
    match store.accept(keyed(&[inbound])).await {
        Err(StoreError::Refused(Refusal::PendingFull { limit: 3 })) => {}
        other => panic!("expected a refusal, got {other:?}"),
    }
    // Deliveries go on, and make room. What was refused has claimed nothing.
    let done = DeliveryId { endpoint: endpoint(1), event: first.meta.id };
    settle(&*store, done, Pending::fresh(first.meta.accepted_ms), Next::Delivered).await;
    assert_eq!(store.intake(), Ok(()));
    accept(&*store, keyed(&[inbound])).await;
    assert_eq!(store.stats().pending, 3);
}
