//! Readers beside a writer whose segments fill, are sealed, carried from and dropped all the time: what is kept is found
//! whole by everyone at every moment, and nothing is ever shown that was not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use postrider::core::delivery::{DeliveryState, Next, Pending};
use postrider::core::event::Event;
use postrider::core::id::EventId;
use postrider::core::limits::StoreLimits;
use postrider::store::embedded::EmbeddedStore;
use postrider::store::{Cursor, DeadQuery, EventQuery, Store};

use crate::support::{
    Home, REJECTED, accept, backlog, body_of, delivery, event_with, graveyard, kinds, limits, settle, state,
};

/// Events that go through, and of how many one stays pending to the end.
const EVENTS: u64 = 800;
const STAYS: u64 = 40;

/// A body that says which it is, so that whoever reads it can tell whether it is whole.
fn telling(n: u64) -> Vec<u8> {
    [&n.to_le_bytes()[..], &body_of(n, 1_500)].concat()
}

fn assert_whole(event: &Event) {
    let n = u64::from_le_bytes(event.body[..8].try_into().unwrap());
    assert!(event.body == telling(n), "{} shows other bytes", event.meta.id);
}

/// Events that are known to stay; each is in here before a reader looks for it.
#[derive(Default)]
struct Staying(Mutex<Vec<EventId>>);

impl Staying {
    fn now(&self) -> Vec<EventId> {
        self.0.lock().unwrap().clone()
    }
}

/// All that is listed, page by page, in either direction; the newest first.
async fn paged(store: &EmbeddedStore, up: bool) -> Vec<EventId> {
    let start = if up { Cursor::NewerThan(EventId::MIN) } else { Cursor::Start };
    let mut query = EventQuery { limit: 7, cursor: start, ..EventQuery::default() };
    let mut listed = Vec::new();
    loop {
        let page = store.events(query.clone()).await.unwrap();
        page.data.iter().for_each(|event| assert_whole(event));
        let ids = page.data.iter().map(|event| event.meta.id);
        match up {
            true => listed.splice(0..0, ids).for_each(drop),
            false => listed.extend(ids),
        }
        match page.next {
            Some(last) if up => query.cursor = Cursor::NewerThan(last),
            Some(last) => query.cursor = Cursor::OlderThan(last),
            None => return listed,
        }
    }
}

/// Every dead letter, page by page.
async fn paged_dead(store: &EmbeddedStore) -> Vec<EventId> {
    let mut query = DeadQuery { limit: 3, ..DeadQuery::default() };
    let mut listed = Vec::new();
    loop {
        let page = store.dead(query.clone()).await.unwrap();
        listed.extend(page.data.iter().map(|letter| letter.delivery.event));
        match page.next {
            Some(last) => query.cursor = Cursor::OlderThan(last),
            None => return listed,
        }
    }
}

async fn look_one_by_one(store: &EmbeddedStore, staying: &Staying) {
    for id in staying.now() {
        let event = store.event(id).await.unwrap().expect("it is kept");
        assert_eq!(event.meta.id, id);
        assert_whole(&event);
        let deliveries = store.deliveries(id).await.unwrap().expect("it is kept");
        let states: Vec<_> = deliveries.iter().map(|delivery| delivery.state).collect();
        assert!(
            matches!(states[..], [DeliveryState::Delivered, DeliveryState::Dead(_), DeliveryState::Pending(_)]),
            "{states:?}"
        );
        for attempt in store.attempts(id).await.unwrap().expect("it is kept") {
            assert_eq!(attempt.response, "an answer");
        }
    }
}

async fn look_through_lists(store: &EmbeddedStore, staying: &Staying, up: bool) {
    let expected = staying.now();
    let listed = paged(store, up).await;
    assert!(listed.is_sorted_by(|newer, older| newer > older), "out of order or twice");
    for id in &expected {
        assert!(listed.binary_search_by(|listed| id.cmp(listed)).is_ok(), "{id} is kept and not listed");
    }
    let pending: Vec<_> = backlog(store, 2).await.iter().map(|due| due.event).collect();
    let dead = paged_dead(store).await;
    for id in &expected {
        assert!(pending.contains(id), "{id} is pending and not there");
        assert_eq!(dead.iter().filter(|dead| *dead == id).count(), 1, "{id} is a dead letter once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_find_what_is_kept_while_segments_come_and_go() {
    let home = Home::new(StoreLimits { retention_bytes: 10 * (64 << 10), recent_bytes_max: 8 << 10, ..limits() });
    let (store, staying) = (Arc::new(home.open()), Arc::new(Staying::default()));
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|reader| {
            let (store, staying, done) = (Arc::clone(&store), Arc::clone(&staying), Arc::clone(&done));
            tokio::spawn(async move {
                let mut looks = 0;
                while !done.load(Ordering::SeqCst) {
                    match reader {
                        0 => look_one_by_one(&store, &staying).await,
                        1 => look_through_lists(&store, &staying, false).await,
                        _ => look_through_lists(&store, &staying, true).await,
                    }
                    looks += 1;
                }
                looks
            })
        })
        .collect();
    for n in 0..EVENTS {
        let stays = n % STAYS == 0;
        let to: &[usize] = if stays { &[0, 1, 2] } else { &[0] };
        let event = accept(&*store, event_with(to, &telling(n), &[])).await;
        let (id, was) = (event.meta.id, Pending::fresh(event.meta.accepted_ms));
        settle(&*store, delivery(0, id), was, Next::Delivered).await;
        if stays {
            settle(&*store, delivery(1, id), was, REJECTED).await;
            staying.0.lock().unwrap().push(id);
        }
        home.clock.advance(1);
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 3, "it hardly looked");
    }
    store.keep_house().await;
    let expected = staying.now();
    assert_eq!(expected.len() as u64, EVENTS / STAYS);
    let oldest = paged(&store, false).await.pop().unwrap();
    assert_eq!(oldest, expected[0]);
    assert!(paged(&store, true).await.len() < EVENTS as usize / 2, "little was dropped");
    assert_eq!(graveyard(&*store).await.len(), expected.len());
    assert!(matches!(state(&*store, delivery(2, oldest)).await, DeliveryState::Pending(_)));
    drop(store);
    assert!(kinds(&postrider::env::RealDisk, &home.journal())["carried"] > expected.len() / 2);
}
