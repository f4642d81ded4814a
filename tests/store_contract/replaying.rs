//! Rules of `redrive`: any delivery can be made due again, except where that would break another promise.

use postrider::core::delivery::{DeliveryId, DeliveryState, Next, Pending};
use postrider::core::fact::Standing;
use postrider::core::id::EventId;
use postrider::store::{Due, Redriven, Store};

use crate::harness::{
    Ear, Form, Picture, backlog, delivery, endpoint, graveyard, kill, open, pending_state, settle, state,
};

pub async fn a_dead_letter_becomes_due_with_a_fresh_schedule<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    settle(&*store, id, was, Next::Retry { due_ms: store.now_ms() }).await;
    kill(&*store, id, pending_state(&*store, id).await).await;
    clock.advance(1_000);
    let mut ear = Ear::at(&*store);
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Due);
    // Attempts count on, so that their numbers stay unique; failures start over, so that the schedule does.
    let pending = Pending { due_ms: store.now_ms(), attempts: 2, failures: 0 };
    assert_eq!(state(&*store, id).await, DeliveryState::Pending(pending));
    assert_eq!(backlog(&*store, 0).await, [Due { event: id.event, pending }]);
    assert!(graveyard(&*store).await.is_empty());
    assert_eq!((store.stats().pending, store.stats().dead), (1, 0));
    ear.until_due(id, pending).await;

    let due_ms = store.now_ms() + 60_000;
    settle(&*store, id, pending, Next::Retry { due_ms }).await;
    assert_eq!(pending_state(&*store, id).await, Pending { due_ms, attempts: 3, failures: 1 });
    assert_eq!(store.attempts(id.event).await.unwrap().unwrap().len(), 3);
}

pub async fn a_delivered_one_becomes_due_and_counts_on<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    for retries in 0..3 {
        let (id, mut was) = delivery(&*store).await;
        for _ in 0..retries {
            settle(&*store, id, was, Next::Retry { due_ms: store.now_ms() }).await;
            was = pending_state(&*store, id).await;
        }
        settle(&*store, id, was, Next::Delivered).await;
        clock.advance(1_000);
        assert_eq!(store.redrive(id).await.unwrap(), Redriven::Due);
        let pending = Pending { due_ms: store.now_ms(), attempts: retries + 1, failures: 0 };
        assert_eq!(state(&*store, id).await, DeliveryState::Pending(pending));
        settle(&*store, id, pending, Next::Delivered).await;
        assert_eq!(state(&*store, id).await, DeliveryState::Delivered);
    }
}

pub async fn a_waiting_one_becomes_due_now<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    settle(&*store, id, was, Next::Retry { due_ms: store.now_ms() + 60_000 }).await;
    // One millisecond before its time it still counts as waiting.
    clock.advance(59_999);
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Due);
    let pending = Pending { due_ms: store.now_ms(), attempts: 1, failures: 0 };
    assert_eq!(backlog(&*store, 0).await, [Due { event: id.event, pending }]);
    assert_eq!(store.stats().pending, 1);
}

pub async fn what_is_due_already_stays_as_it_is<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    let (later, later_was) = delivery(&*store).await;
    settle(&*store, later, later_was, Next::Retry { due_ms: store.now_ms() + 500 }).await;
    clock.advance(500);
    let before = Picture::of(&*store, 1).await;
    for id in [id, later] {
        assert_eq!(store.redrive(id).await.unwrap(), Redriven::AlreadyDue);
    }
    assert_eq!(Picture::of(&*store, 1).await, before);
    // So the attempt that may be under way can still end.
    settle(&*store, id, was, Next::Delivered).await;
}

pub async fn what_never_was_cannot_be_replayed<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let (known, _) = delivery(&*store).await;
    for id in [DeliveryId { endpoint: endpoint(1), ..known }, DeliveryId { event: EventId::MAX, ..known }] {
        assert_eq!(store.redrive(id).await.unwrap(), Redriven::Unknown);
    }
    assert!(backlog(&*store, 1).await.is_empty());
    assert_eq!(store.stats().pending, 1);
}

pub async fn a_removed_endpoint_gets_nothing_but_a_disabled_one_does<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    let since_ms = store.now_ms();
    let standing = |standing| store.set_standing(endpoint(0), "default", "endpoint-0", standing);
    kill(&*store, id, was).await;
    standing(Standing::Removed { since_ms }).await.unwrap();
    let before = Picture::of(&*store, 1).await;
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::EndpointRemoved);
    assert_eq!(Picture::of(&*store, 1).await, before);
    for other in [Standing::Disabled { since_ms }, Standing::Gone { since_ms }, Standing::Enabled] {
        standing(other).await.unwrap();
        assert_eq!(store.redrive(id).await.unwrap(), Redriven::Due, "{other:?}");
        kill(&*store, id, pending_state(&*store, id).await).await;
    }
    // An erased event has nothing to send, whoever would take it.
    assert!(store.erase(id.event).await.unwrap());
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Erased);
    standing(Standing::Removed { since_ms }).await.unwrap();
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Erased);
}
