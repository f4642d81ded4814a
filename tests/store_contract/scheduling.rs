//! Rules of `pending` and of the hints: nothing that is pending can be overlooked.

use std::collections::BTreeSet;
use std::sync::Arc;

use postrider::core::delivery::{DeadReason, DeliveryId, DeliveryState, Next, Pending};
use postrider::core::id::EventId;
use postrider::store::{DueKey, Redriven, Store};

use crate::harness::{
    Ear, Form, accept, backlog, delivery, endpoint, event_for, kill, open, pending_state, settle, state,
};

pub async fn pending_is_in_order_of_time_and_shows_the_future<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let mut deliveries = Vec::new();
    for _ in 0..4 {
        deliveries.push(delivery(&*store).await);
    }
    accept(&*store, event_for(&[1])).await;
    let now_ms = store.now_ms();
    // The first goes to the far future, the second to the near one; the others are due now, in commit order.
    for (n, wait_ms) in [(0, 1_000_000_000), (1, 10)] {
        let (id, was) = deliveries[n];
        settle(&*store, id, was, Next::Retry { due_ms: now_ms + wait_ms }).await;
    }
    let order: Vec<_> = [2, 3, 1, 0].iter().map(|n| deliveries[*n].0.event).collect();
    let seen: Vec<_> = backlog(&*store, 0).await.iter().map(|due| due.event).collect();
    assert_eq!(seen, order);
    // Time changes nothing in it: whether it is due is the engine's business.
    clock.advance(500);
    assert_eq!(backlog(&*store, 0).await.iter().map(|due| due.event).collect::<Vec<_>>(), order);
    assert_eq!(backlog(&*store, 1).await.len(), 1);
    assert!(backlog(&*store, 2).await.is_empty());
}

pub async fn pending_is_paged_without_gaps<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    for n in 0..20u64 {
        let event = accept(&*store, event_for(&[0, 1])).await;
        clock.advance(n % 3);
        if n % 4 == 0 {
            let id = DeliveryId { endpoint: endpoint(0), event: event.meta.id };
            let next = Next::Retry { due_ms: store.now_ms() + 1_000 - n };
            settle(&*store, id, Pending::fresh(event.meta.accepted_ms), next).await;
        }
    }
    let all = backlog(&*store, 0).await;
    assert_eq!(all.len(), 20);
    assert!(all.is_sorted_by(|a, b| a.key() < b.key()));
    for limit in [1, 3, 7, 20, 21] {
        let (mut walked, mut after) = (Vec::new(), None);
        loop {
            let page = store.pending(endpoint(0), after, limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.key());
            walked.extend(page);
            assert!(walked.len() <= all.len(), "an entry was repeated");
        }
        assert_eq!(walked, all, "in pages of {limit}");
    }
    // A key that nothing stands at is as good a place to go on from.
    let between = DueKey { due_ms: all[3].pending.due_ms, event: EventId::MAX };
    let rest: Vec<_> = all.iter().filter(|due| due.key() > between).copied().collect();
    assert_eq!(store.pending(endpoint(0), Some(between), 100).await.unwrap(), rest);
    let end = DueKey { due_ms: u64::MAX, event: EventId::MAX };
    assert!(store.pending(endpoint(0), Some(end), 100).await.unwrap().is_empty());
    assert!(store.pending(endpoint(0), None, 0).await.unwrap().is_empty());
}

pub async fn every_pending_change_is_told<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let mut ear = Ear::at(&*store);
    let event = accept(&*store, event_for(&[0, 1, 2])).await;
    let id = |n| DeliveryId { endpoint: endpoint(n), event: event.meta.id };
    let fresh = Pending::fresh(event.meta.accepted_ms);
    for n in 0..3 {
        ear.until_due(id(n), fresh).await;
    }
    clock.advance(1);
    let due_ms = store.now_ms() + 60_000;
    settle(&*store, id(0), fresh, Next::Retry { due_ms }).await;
    ear.until_due(id(0), Pending { due_ms, attempts: 1, failures: 1 }).await;
    settle(&*store, id(1), fresh, Next::Delivered).await;
    settle(&*store, id(2), fresh, Next::Dead { reason: DeadReason::MaxRetries }).await;
    clock.advance(1);
    let again = Pending { due_ms: store.now_ms(), attempts: 1, failures: 0 };
    for n in 0..3 {
        assert_eq!(store.redrive(id(n)).await.unwrap(), Redriven::Due);
        ear.until_due(id(n), again).await;
    }
}

pub async fn whoever_follows_a_hint_finds_the_change<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let accepts = 64;
    let writers: Vec<_> = (0..4)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for _ in 0..accepts / 4 {
                    accept(&*store, event_for(&[n, n + 1])).await;
                }
            })
        })
        .collect();
    let (mut ear, mut checked) = (Ear::at(&*store), 0);
    while checked < accepts * 2 {
        ear.until("the next accept", |ear| ear.due.len() > checked).await;
        for (endpoint, due) in &ear.due[checked..] {
            let id = DeliveryId { endpoint: *endpoint, event: due.event };
            assert_eq!(state(&*store, id).await, DeliveryState::Pending(due.pending));
            let from = DueKey { event: EventId::from_u128(due.event.as_u128() - 1), ..due.key() };
            assert_eq!(store.pending(*endpoint, Some(from), 1).await.unwrap(), [*due]);
        }
        checked = ear.due.len();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let told: BTreeSet<_> = ear.due.iter().map(|(endpoint, due)| (*endpoint, due.event)).collect();
    assert_eq!(told.len(), accepts * 2, "each was told");
}

pub async fn the_oldest_pending_event_is_known<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    assert_eq!(store.stats().oldest_pending_ms, None);
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        deliveries.push(delivery(&*store).await);
        clock.advance(100);
    }
    let accepted = |n: usize| Some(deliveries[n].1.due_ms);
    let oldest = || store.stats().oldest_pending_ms;
    // Later attempts don't make an event younger, and those behind it can go first.
    let (id, was) = deliveries[0];
    settle(&*store, id, was, Next::Retry { due_ms: store.now_ms() + 5_000 }).await;
    settle(&*store, deliveries[1].0, deliveries[1].1, Next::Delivered).await;
    assert_eq!(oldest(), accepted(0));
    kill(&*store, id, pending_state(&*store, id).await).await;
    assert_eq!(oldest(), accepted(2));
    assert_eq!(store.redrive(deliveries[1].0).await.unwrap(), Redriven::Due);
    assert_eq!(oldest(), accepted(1));
}
