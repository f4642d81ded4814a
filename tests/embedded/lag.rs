//! The key space may be behind the journal, but not far, and what it lacks at an unclean end is made up for at the next
//! start.

use std::sync::Arc;

use postrider::core::delivery::{Next, Pending};
use postrider::core::limits::StoreLimits;
use postrider::index::{Home as KeySpace, Table};
use postrider::store::{Redriven, Store};

use crate::support::{
    Home, Picture, REJECTED, accept, applied, backlog, body_of, delivery, event_with, key, limits, settle, until,
};

/// So many calls at once, each of so many bytes.
const CALLERS: u64 = 16;
const BODY_BYTES: usize = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_waits_for_a_key_space_that_cannot_keep_up() {
    let lag_bytes_max = 16 << 10;
    let home = Home::new(StoreLimits { lag_bytes_max, ..limits() });
    let store = Arc::new(home.open());
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut most = 0;
                for n in 0..30 {
                    let event = accept(&*store, event_with(&[0, 1], &body_of(caller * 100 + n, BODY_BYTES), &[])).await;
                    let was = Pending::fresh(event.meta.accepted_ms);
                    settle(&*store, delivery(0, event.meta.id), was, Next::Delivered).await;
                    most = most.max(store.stats().lag_bytes);
                }
                most
            })
        })
        .collect();
    let mut most = 0;
    for caller in callers {
        most = most.max(caller.await.unwrap());
    }
    // A round is begun within the limit, and adds at most one command of each caller.
    let round_bytes = CALLERS * (BODY_BYTES as u64 + 1_000);
    assert!(most > 0 && most <= lag_bytes_max + round_bytes, "{most} bytes behind");
    assert_eq!(backlog(&*store, 0).await.len(), 0);
    assert_eq!(backlog(&*store, 1).await.len() as u64, CALLERS * 30);
    until("it caught up", async || store.stats().lag_bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_too_long_is_applied_before_more_is_taken() {
    let home = Home::new(StoreLimits { lag_ms_max: 60_000, ..limits() });
    let store = home.open();
    for n in 0..10 {
        accept(&store, event_with(&[0], &body_of(n, 100), &[])).await;
    }
    home.clock.advance(60_001);
    accept(&store, event_with(&[0], b"the last straw", &[])).await;
    assert!(store.stats().lag_records <= 1, "{} records wait", store.stats().lag_records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_with_much_unapplied_is_made_up_for() {
    let home = Home::new(StoreLimits { segment_bytes: 1 << 20, ..limits() });
    let store = Arc::new(home.open());
    let mut keys = Vec::new();
    for n in 0..20 {
        keys.push(key(&format!("evt_{n}")));
        accept(&*store, event_with(&[0, 1], &body_of(n, 100), &keys[n as usize..])).await;
    }
    applied(&*store).await;
    let callers: Vec<_> = (0..8u64)
        .map(|caller| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..250 {
                    let event = accept(&*store, event_with(&[0, 1, 2], &body_of(caller * 1_000 + n, 50), &[])).await;
                    let was = Pending::fresh(event.meta.accepted_ms);
                    let next = if n % 2 == 0 { Next::Delivered } else { Next::Retry { due_ms: was.due_ms + n } };
                    settle(&*store, delivery(1, event.meta.id), was, next).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let killed = home.copy();
    let before = Picture::of(&*store, &keys).await;
    drop(store);
    let store = killed.open();
    assert_eq!(store.opened().rebuilt, None);
    before.assert_same(&Picture::of(&store, &keys).await, "after a kill");
}

/// The key space passes its own check, but what it says of a delivery is nothing: found out when the journal's next word on
/// that delivery is folded.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_space_that_cannot_take_what_it_lacks_is_built_anew() {
    let home = Home::new(limits());
    let store = home.open();
    let event = accept(&store, event_with(&[0], b"{}", &[])).await;
    let id = delivery(0, event.meta.id);
    settle(&store, id, Pending::fresh(event.meta.accepted_ms), REJECTED).await;
    drop(store);
    let store = home.open();
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Due);
    let killed = home.copy();
    let before = Picture::of(&store, &[]).await;
    drop(store);
    {
        let tree = KeySpace::Directory(killed.index()).open(1 << 20).unwrap();
        let (mut meta, mut table) = (tree.check().unwrap(), Table::default());
        table.insert(postrider::index::delivery::key(id), vec![9]);
        tree.apply(&table, &mut meta).unwrap();
        tree.check().unwrap();
    }
    let store = killed.open();
    assert!(store.opened().rebuilt.is_some());
    before.assert_same(&Picture::of(&store, &[]).await, "after a rebuild");
}
