//! Rules of `settle`: what each end of an attempt does, and that nothing but the state it was made in lets it.

use std::sync::Arc;

use bytes::Bytes;
use postrider::core::delivery::{Dead, DeadReason, DeliveryId, DeliveryState, Next, Pending};
use postrider::core::event::NewEvent;
use postrider::core::fact::Standing;
use postrider::core::id::EventId;
use postrider::store::{Applied, Due, Redriven, Settle, Store};

use crate::harness::{
    Ear, Form, Picture, accept, backlog, delivery, ending, endpoint, event_for, graveyard, kill, open, pending_state,
    settle, state,
};

/// A settle that must be refused and change nothing that can be seen.
async fn assert_stale(store: &impl Store, settle: Settle) {
    let (before, stale) = (Picture::of(store, 3).await, store.stats().stale_settles);
    assert_eq!(store.settle(settle).await.unwrap(), Applied::Stale);
    assert_eq!(Picture::of(store, 3).await, before);
    assert_eq!(store.stats().stale_settles, stale + 1);
}

pub async fn a_success_delivers<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    clock.advance(40);
    settle(&*store, id, was, Next::Delivered).await;
    assert_eq!(state(&*store, id).await, DeliveryState::Delivered);
    assert!(backlog(&*store, 0).await.is_empty());
    assert!(graveyard(&*store).await.is_empty());
    assert_eq!((store.stats().pending, store.stats().dead), (0, 0));
}

pub async fn a_retry_waits_for_its_time<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    let mut ear = Ear::at(&*store);
    let due_ms = store.now_ms() + 60_000;
    settle(&*store, id, was, Next::Retry { due_ms }).await;
    let first = Pending { due_ms, attempts: 1, failures: 1 };
    assert_eq!(state(&*store, id).await, DeliveryState::Pending(first));
    assert_eq!(backlog(&*store, 0).await, [Due { event: id.event, pending: first }]);
    ear.until_due(id, first).await;

    clock.advance(60_000);
    let due_ms = store.now_ms() + 300_000;
    settle(&*store, id, first, Next::Retry { due_ms }).await;
    let second = Pending { due_ms, attempts: 2, failures: 2 };
    assert_eq!(backlog(&*store, 0).await, [Due { event: id.event, pending: second }]);
    ear.until_due(id, second).await;
    assert_eq!(store.stats().pending, 1);
}

pub async fn a_final_failure_is_a_dead_letter<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    settle(&*store, id, was, Next::Retry { due_ms: store.now_ms() }).await;
    let was = pending_state(&*store, id).await;
    clock.advance(500);
    let next = Next::Dead { reason: DeadReason::MaxRetries };
    let mut end = ending(id, was, next, store.now_ms());
    // The delivery dies when its last attempt ends, not when that is written down.
    end.attempt.ended_ms -= 100;
    let at_ms = end.attempt.ended_ms;
    assert_eq!(store.settle(end).await.unwrap(), Applied::Ok);
    let dead = Dead { reason: DeadReason::MaxRetries, at_ms, attempts: 2 };
    assert_eq!(state(&*store, id).await, DeliveryState::Dead(dead));
    let letters = graveyard(&*store).await;
    assert_eq!(letters.iter().map(|letter| (letter.delivery, letter.dead)).collect::<Vec<_>>(), [(id, dead)]);
    assert!(backlog(&*store, 0).await.is_empty());
    assert_eq!((store.stats().pending, store.stats().dead), (0, 1));
}

pub async fn gone_disables_an_enabled_endpoint<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    store.set_standing(endpoint(0), "default", "endpoint-0", Standing::Enabled).await.unwrap();
    let (id, was) = delivery(&*store).await;
    let (other, _) = delivery(&*store).await;
    let mut ear = Ear::at(&*store);
    ear.until("the first standing", |ear| ear.standings == [endpoint(0)]).await;
    ear.standings.clear();
    clock.advance(5);
    settle(&*store, id, was, Next::Dead { reason: DeadReason::Gone }).await;
    let notes = store.endpoint_notes();
    assert_eq!((notes.len(), notes[0].id, notes[0].version), (1, endpoint(0), 2));
    assert_eq!(notes[0].standing, Standing::Gone { since_ms: store.now_ms() });
    ear.until("the endpoint's standing", |ear| ear.standings == [endpoint(0)]).await;
    let dead = Dead { reason: DeadReason::Gone, at_ms: store.now_ms(), attempts: 1 };
    assert_eq!(state(&*store, id).await, DeliveryState::Dead(dead));
    // Its other deliveries wait until someone enables it.
    assert_eq!(backlog(&*store, 0).await.iter().map(|due| due.event).collect::<Vec<_>>(), [other.event]);
}

pub async fn gone_leaves_an_operators_word_and_an_unknown_endpoint_alone<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let gone = Next::Dead { reason: DeadReason::Gone };
    let (id, was) = delivery(&*store).await;
    settle(&*store, id, was, gone).await;
    assert!(store.endpoint_notes().is_empty());

    let disabled = Standing::Disabled { since_ms: store.now_ms() };
    store.set_standing(endpoint(0), "default", "endpoint-0", disabled).await.unwrap();
    let (id, was) = delivery(&*store).await;
    settle(&*store, id, was, gone).await;
    let notes = store.endpoint_notes();
    assert_eq!((notes[0].standing, notes[0].version), (disabled, 1));
}

pub async fn a_second_settle_is_stale<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let later = Next::Retry { due_ms: store.now_ms() + 1 };
    for first in [Next::Delivered, later, Next::Dead { reason: DeadReason::Rejected }] {
        for second in [Next::Delivered, later, Next::Dead { reason: DeadReason::Gone }] {
            let (id, was) = delivery(&*store).await;
            settle(&*store, id, was, first).await;
            assert_stale(&*store, ending(id, was, second, store.now_ms())).await;
        }
    }
    // Each part of the state is part of the fence.
    let (id, was) = delivery(&*store).await;
    for other in [
        Pending { due_ms: was.due_ms + 1, ..was },
        Pending { attempts: was.attempts + 1, ..was },
        Pending { failures: was.failures + 1, ..was },
    ] {
        assert_stale(&*store, ending(id, other, Next::Delivered, store.now_ms())).await;
    }
    settle(&*store, id, was, Next::Delivered).await;
}

pub async fn of_concurrent_settles_one_counts<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let store = Arc::clone(&store);
            let next = if n % 2 == 0 { Next::Delivered } else { Next::Retry { due_ms: store.now_ms() + n } };
            let end = ending(id, was, next, store.now_ms());
            tokio::spawn(async move { store.settle(end).await.unwrap() })
        })
        .collect();
    let mut applied = 0;
    for task in tasks {
        applied += usize::from(task.await.unwrap() == Applied::Ok);
    }
    assert_eq!(applied, 1);
    assert_eq!(store.attempts(id.event).await.unwrap().unwrap().len(), 1);
    assert_eq!(store.stats().stale_settles, 15);
}

pub async fn a_settle_of_what_does_not_exist_is_stale<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let (known, was) = delivery(&*store).await;
    for id in [DeliveryId { endpoint: endpoint(1), ..known }, DeliveryId { event: EventId::MAX, ..known }] {
        assert_stale(&*store, ending(id, was, Next::Delivered, store.now_ms())).await;
    }
}

/// Lost ownership: an attempt hangs so long that the delivery is settled and replayed by others before it ends.
pub async fn a_settle_after_the_delivery_was_redriven_is_stale<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    settle(&*store, id, was, Next::Retry { due_ms: store.now_ms() + 60_000 }).await;
    let retried = pending_state(&*store, id).await;
    clock.advance(10);
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Due);
    let redriven = pending_state(&*store, id).await;
    for lost in [was, retried] {
        assert_stale(&*store, ending(id, lost, Next::Delivered, store.now_ms())).await;
        assert_stale(&*store, ending(id, lost, Next::Dead { reason: DeadReason::Gone }, store.now_ms())).await;
    }
    settle(&*store, id, redriven, Next::Delivered).await;
    // The same again from the far side of a dead letter and of a delivery.
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Due);
    assert_stale(&*store, ending(id, redriven, Next::Delivered, store.now_ms())).await;
    let again = pending_state(&*store, id).await;
    kill(&*store, id, again).await;
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Due);
    assert_stale(&*store, ending(id, again, Next::Delivered, store.now_ms())).await;
}

pub async fn a_settle_after_erasure_is_stale<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    assert!(store.erase(id.event).await.unwrap());
    // Its response would put content back that was just erased.
    assert_stale(&*store, ending(id, was, Next::Delivered, store.now_ms())).await;
}

pub async fn a_settle_after_removal_is_stale<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    let removed = Standing::Removed { since_ms: store.now_ms() };
    store.set_standing(endpoint(0), "default", "endpoint-0", removed).await.unwrap();
    assert_stale(&*store, ending(id, was, Next::Delivered, store.now_ms())).await;
}

pub async fn attempts_are_listed_in_order_with_their_responses<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let event = accept(&*store, NewEvent { body: Bytes::from_static(b"x"), ..event_for(&[0, 1]) }).await.meta.id;
    let other = accept(&*store, event_for(&[0])).await.meta.id;
    let retry = Next::Retry { due_ms: store.now_ms() };
    let mut expected = Vec::new();
    for (n, next) in [(0, retry), (1, retry), (0, retry), (1, Next::Delivered), (0, Next::Delivered)] {
        clock.advance(10);
        let id = DeliveryId { endpoint: endpoint(n), event };
        let mut end = ending(id, pending_state(&*store, id).await, next, store.now_ms());
        // An empty response is one, too.
        if n == 1 {
            end.response = Bytes::new();
        }
        assert_eq!(store.settle(end.clone()).await.unwrap(), Applied::Ok);
        expected.push((id.endpoint, end.attempt, end.next, end.response));
    }
    // A replay adds to the list.
    let id = DeliveryId { endpoint: endpoint(0), event };
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Due);
    let end = ending(id, pending_state(&*store, id).await, Next::Delivered, store.now_ms());
    assert_eq!(end.attempt.number, 4);
    assert_eq!(store.settle(end.clone()).await.unwrap(), Applied::Ok);
    expected.push((id.endpoint, end.attempt, end.next, end.response));

    let listed = store.attempts(event).await.unwrap().unwrap();
    let listed: Vec<_> = listed.into_iter().map(|r| (r.endpoint, r.attempt, r.next, r.response)).collect();
    assert_eq!(listed, expected);
    assert_eq!(store.attempts(other).await.unwrap(), Some(Vec::new()));
}
