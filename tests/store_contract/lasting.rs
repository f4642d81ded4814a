//! Rules for forms that persist: closing and opening changes nothing that can be seen. The others pass by doing nothing.

use postrider::core::delivery::{DeliveryId, Next, Pending};
use postrider::core::event::DedupScope;
use postrider::core::fact::Standing;
use postrider::core::limits::StoreLimits;
use postrider::store::{Applied, Redriven, Store};

use crate::harness::{
    Form, Picture, START_MS, accept, all_events, delivery, duplicate, ending, endpoint, event_for, key, keyed, kill,
    limits, open, open_with, pending_state, settle,
};

pub async fn everything_is_there_after_reopening<F: Form>() {
    let (mut form, store, clock) = open::<F>().await;
    let mut events = Vec::new();
    for n in 0..6 {
        events.push(accept(&*store, event_for(&[0, 1, 2])).await);
        clock.advance(n);
    }
    let id = |n: usize, e| DeliveryId { endpoint: endpoint(e), event: events[n].meta.id };
    let fresh = |n: usize| Pending::fresh(events[n].meta.accepted_ms);
    for e in 0..3 {
        settle(&*store, id(0, e), fresh(0), Next::Delivered).await;
    }
    settle(&*store, id(1, 0), fresh(1), Next::Retry { due_ms: store.now_ms() + 60_000 }).await;
    settle(&*store, id(1, 0), pending_state(&*store, id(1, 0)).await, Next::Delivered).await;
    settle(&*store, id(2, 0), fresh(2), Next::Retry { due_ms: store.now_ms() + 60_000 }).await;
    kill(&*store, id(2, 1), fresh(2)).await;
    kill(&*store, id(3, 1), fresh(3)).await;
    assert_eq!(store.redrive(id(3, 1)).await.unwrap(), Redriven::Due);
    assert!(store.erase(events[4].meta.id).await.unwrap());
    let since_ms = store.now_ms();
    for (n, standing) in
        [Standing::Enabled, Standing::Disabled { since_ms }, Standing::Removed { since_ms }].into_iter().enumerate()
    {
        store.set_standing(endpoint(n), "default", &format!("endpoint-{n}"), standing).await.unwrap();
    }
    let mut before = Picture::of(&*store, 3).await;
    drop(store);
    for _ in 0..3 {
        let (again, reopened) = form.reopen().await;
        form = again;
        if !reopened {
            return;
        }
        let store = form.store();
        assert_eq!(Picture::of(&*store, 3).await, before);
        // Life goes on in between, so that each opening has something to recover.
        delivery(&*store).await;
        before = Picture::of(&*store, 3).await;
    }
}

pub async fn keys_and_order_outlast_reopening_under_an_earlier_clock<F: Form>() {
    let (form, store, clock) = open_with::<F>(StoreLimits { dedup_ms: 60_000, ..limits() }).await;
    let inbound = key(DedupScope::Inbound, "evt_1");
    let first = accept(&*store, keyed(&[inbound])).await.meta.id;
    let opened_ms = store.now_ms();
    drop(store);
    clock.set_wall(START_MS - 3_600_000);
    let (form, reopened) = form.reopen().await;
    if !reopened {
        return;
    }
    let store = form.store();
    assert!(store.now_ms() >= opened_ms, "the store's time does not step back");
    assert_eq!(duplicate(&*store, keyed(&[inbound])).await.0, first);
    let second = accept(&*store, keyed(&[])).await.meta.id;
    assert!(second > first);
    assert_eq!(all_events(&*store).await.iter().map(|event| event.meta.id).collect::<Vec<_>>(), [second, first]);
    // The rest of the window passes, and not more than that is asked for.
    clock.advance(60_000);
    assert_ne!(accept(&*store, keyed(&[inbound])).await.meta.id, first);
}

pub async fn a_settle_can_end_what_began_before_reopening<F: Form>() {
    let (form, store, _clock) = open::<F>().await;
    let (id, was) = delivery(&*store).await;
    let (done, done_was) = delivery(&*store).await;
    settle(&*store, done, done_was, Next::Delivered).await;
    drop(store);
    let (form, _) = form.reopen().await;
    let store = form.store();
    assert_eq!(store.settle(ending(id, was, Next::Delivered, store.now_ms())).await.unwrap(), Applied::Ok);
    // The fence stands as it did.
    for (id, was) in [(id, was), (done, done_was)] {
        assert_eq!(store.settle(ending(id, was, Next::Delivered, store.now_ms())).await.unwrap(), Applied::Stale);
    }
}
