//! Rules of the two listings: filters, pages in both directions, and walks while others write.

use std::sync::Arc;

use postrider::core::delivery::{Dead, DeadReason, DeliveryId, DeliveryState, Next, Pending};
use postrider::core::event::NewEvent;
use postrider::core::id::{AppId, EventId, SourceId};
use postrider::store::{Cursor, DeadKey, DeadLetter, DeadQuery, EventQuery, Page, Redriven, Store};

use crate::harness::{Form, START_MS, accept, all_events, ending, endpoint, event_for, graveyard, kill, open, state};

async fn ids(store: &impl Store, query: EventQuery) -> Page<EventId, EventId> {
    let page = store.events(query).await.expect("the store works");
    Page { data: page.data.iter().map(|event| event.meta.id).collect(), next: page.next, unreadable: page.unreadable }
}

fn at(cursor: Cursor<EventId>, limit: usize) -> EventQuery {
    EventQuery { cursor, limit, ..EventQuery::default() }
}

pub async fn events_are_filtered_by_everything_that_was_asked<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let apps = [AppId::named("", "default"), AppId::named("", "other")];
    let sources = [None, Some(SourceId::named("", "stripe")), Some(SourceId::named("", "github"))];
    let types = [None, Some("order.created".to_owned()), Some("order.paid".to_owned())];
    for (app, source, event_type) in (0..36).map(|n: usize| (apps[n % 2], sources[n / 2 % 3], types[n / 6 % 3].clone()))
    {
        accept(&*store, NewEvent { app, source, event_type, ..event_for(&[]) }).await;
        clock.advance(100);
    }
    let all = all_events(&*store).await;
    assert_eq!(all.len(), 36);
    // Both ends of the time range stand on an event: the first is in, the second is out.
    let times = [None, Some(START_MS + 500), Some(START_MS + 3_000)];
    for n in 0..3 * 4 * 4 * 4 {
        let (app, n) = ((n % 3 != 0).then(|| apps[n % 3 - 1]), n / 3);
        let (source, n) = ([None, sources[1], sources[2], Some(SourceId::MAX)][n % 4], n / 4);
        let (event_type, n) = ([None, types[1].clone(), types[2].clone(), Some(String::new())][n % 4].clone(), n / 4);
        let (since_ms, until_ms) = (times[n % 2], times[n / 2 * 2]);
        let expected: Vec<_> = all
            .iter()
            .map(|event| &event.meta)
            .filter(|meta| app.is_none_or(|app| meta.app == app))
            .filter(|meta| source.is_none_or(|source| meta.source == Some(source)))
            .filter(|meta| event_type.is_none() || meta.event_type == event_type)
            .filter(|meta| since_ms.is_none_or(|since| meta.accepted_ms >= since))
            .filter(|meta| until_ms.is_none_or(|until| meta.accepted_ms < until))
            .map(|meta| meta.id)
            .collect();
        let query = EventQuery { app, source, event_type, since_ms, until_ms, cursor: Cursor::Start, limit: 100 };
        assert_eq!(ids(&*store, query.clone()).await.data, expected, "{query:?}");
        // A page of a filtered listing is full as long as there are entries left.
        let page = ids(&*store, EventQuery { limit: 2, ..query.clone() }).await;
        assert_eq!(page.data, expected[..expected.len().min(2)], "{query:?}");
        assert_eq!(page.next, (expected.len() > 2).then(|| expected[1]), "{query:?}");
    }
}

pub async fn events_are_paged_in_both_directions<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let page = ids(&*store, at(Cursor::Start, 5)).await;
    assert!(page.data.is_empty() && page.next.is_none());
    for n in 0..12 {
        accept(&*store, event_for(&[])).await;
        clock.advance(n % 3);
    }
    let all: Vec<_> = all_events(&*store).await.iter().map(|event| event.meta.id).collect();
    assert!(all.is_sorted_by(|a, b| a > b));
    for limit in [1, 4, 5, 11, 12, 13] {
        let (mut older, mut cursor) = (Vec::new(), Cursor::Start);
        loop {
            let page = ids(&*store, at(cursor, limit)).await;
            assert!(page.data.len() == limit || page.next.is_none());
            older.extend(page.data.iter().copied());
            assert!(older.len() <= all.len(), "an entry was repeated");
            let Some(next) = page.next else { break };
            assert_eq!(Some(&next), page.data.last());
            cursor = Cursor::OlderThan(next);
        }
        assert_eq!(older, all, "older in pages of {limit}");

        // Back from the oldest: each page is the one before, and still shows its newest first.
        let (mut newer, mut next) = (vec![all[11]], Some(all[11]));
        while let Some(key) = next {
            let page = ids(&*store, at(Cursor::NewerThan(key), limit)).await;
            assert!(page.data.len() == limit || page.next.is_none());
            next = page.next;
            assert!(next.is_none() || next.as_ref() == page.data.first());
            newer.splice(0..0, page.data);
            assert!(newer.len() <= all.len(), "an entry was repeated");
        }
        assert_eq!(newer, all, "newer in pages of {limit}");
    }
    // Just newer than a key means next to it, not the newest of all.
    assert_eq!(ids(&*store, at(Cursor::NewerThan(all[8]), 3)).await.data, all[5..8]);
    assert!(ids(&*store, at(Cursor::NewerThan(all[0]), 3)).await.data.is_empty());
    assert!(ids(&*store, at(Cursor::OlderThan(all[11]), 3)).await.data.is_empty());
}

pub async fn a_cursor_need_not_exist<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    for _ in 0..4 {
        accept(&*store, event_for(&[])).await;
        clock.advance(10);
    }
    let all: Vec<_> = all_events(&*store).await.iter().map(|event| event.meta.id).collect();
    let between = all[1].successor();
    assert_eq!(ids(&*store, at(Cursor::OlderThan(between), 9)).await.data, all[1..]);
    assert_eq!(ids(&*store, at(Cursor::NewerThan(between), 9)).await.data, all[..1]);
    assert_eq!(ids(&*store, at(Cursor::OlderThan(EventId::MAX), 9)).await.data, all);
    assert_eq!(ids(&*store, at(Cursor::NewerThan(EventId::MIN), 9)).await.data, all);
    assert!(ids(&*store, at(Cursor::OlderThan(EventId::MIN), 9)).await.data.is_empty());
    assert!(ids(&*store, at(Cursor::NewerThan(EventId::MAX), 9)).await.data.is_empty());
}

/// Late commits: ids are in commit order, so that what becomes visible late is newer than every page already walked.
pub async fn commits_during_a_walk_neither_skip_nor_repeat<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    for _ in 0..30 {
        accept(&*store, event_for(&[])).await;
    }
    let before: Vec<_> = all_events(&*store).await.iter().map(|event| event.meta.id).collect();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut written = Vec::new();
                for _ in 0..50 {
                    written.push(accept(&*store, event_for(&[])).await.meta.id);
                }
                written
            })
        })
        .collect();
    let mut between = 0;
    for limit in [1, 2, 3, 7] {
        let start = all_events(&*store).await[0].meta.id;
        let (mut walked, mut cursor) = (vec![start], Cursor::OlderThan(start));
        loop {
            let page = ids(&*store, at(cursor, limit)).await;
            walked.extend(page.data);
            assert!(walked.is_sorted_by(|a, b| a > b), "a page is older than the one before");
            let Some(next) = page.next else { break };
            cursor = Cursor::OlderThan(next);
            // However the writers fare, something is committed between any two pages.
            accept(&*store, event_for(&[])).await;
            between += 1;
        }
        assert!(walked.ends_with(&before), "what was there before is walked");
        let now = all_events(&*store).await;
        let expected: Vec<_> = now.iter().map(|event| event.meta.id).filter(|id| *id <= start).collect();
        assert_eq!(walked, expected, "in pages of {limit}");
    }
    for writer in writers {
        let own = writer.await.unwrap();
        assert!(own.is_sorted_by(|a, b| a < b), "who waits for the answer gets ids in order");
    }
    assert_eq!(all_events(&*store).await.len(), before.len() + 4 * 50 + between);
}

/// Dead letters of endpoints 0 and 1; several die in the same millisecond. Newest first.
async fn many_dead(store: &impl Store) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    for n in 0..12u64 {
        let event = accept(store, event_for(&[0, 1])).await.meta.clone();
        for endpoint in [endpoint(0), endpoint(1)] {
            let delivery = DeliveryId { endpoint, event: event.id };
            // The order of dying is not that of the events.
            let at_ms = START_MS + 1_000 - n / 3 * 100;
            let reason = DeadReason::MaxRetries;
            let mut end = ending(delivery, Pending::fresh(event.accepted_ms), Next::Dead { reason }, store.now_ms());
            end.attempt.ended_ms = at_ms;
            store.settle(end).await.expect("the store works");
            letters.push(DeadLetter { delivery, dead: Dead { reason, at_ms, attempts: 1 } });
        }
    }
    letters.sort_by_key(|letter| std::cmp::Reverse(letter.key()));
    letters
}

pub async fn dead_letters_are_filtered_by_endpoint_and_time<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let letters = many_dead(&*store).await;
    assert_eq!(graveyard(&*store).await, letters);
    for endpoint in [None, Some(endpoint(0)), Some(endpoint(1)), Some(endpoint(2))] {
        for since_ms in [None, Some(START_MS + 800), Some(START_MS + 801)] {
            for until_ms in [None, Some(START_MS + 900), Some(START_MS + 901)] {
                let expected: Vec<_> = letters
                    .iter()
                    .filter(|letter| endpoint.is_none_or(|endpoint| letter.delivery.endpoint == endpoint))
                    .filter(|letter| since_ms.is_none_or(|since| letter.dead.at_ms >= since))
                    .filter(|letter| until_ms.is_none_or(|until| letter.dead.at_ms < until))
                    .copied()
                    .collect();
                let query = DeadQuery { endpoint, since_ms, until_ms, cursor: Cursor::Start, limit: 100 };
                let page = store.dead(query.clone()).await.unwrap();
                assert_eq!((page.data, page.next), (expected, None), "{query:?}");
            }
        }
    }
    // One that is replayed leaves the list, and comes back at its front when it dies again.
    clock.advance(1_000_000);
    let id = letters[5].delivery;
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Due);
    assert_eq!(graveyard(&*store).await.len(), letters.len() - 1);
    let DeliveryState::Pending(was) = state(&*store, id).await else { panic!("not pending") };
    kill(&*store, id, was).await;
    assert_eq!(graveyard(&*store).await[0].delivery, id);
}

pub async fn dead_letters_are_paged_in_both_directions<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let letters = many_dead(&*store).await;
    for only in [None, Some(endpoint(1))] {
        let wanted = |letter: &&DeadLetter| only.is_none_or(|only| letter.delivery.endpoint == only);
        let expected: Vec<_> = letters.iter().filter(wanted).copied().collect();
        for limit in [1, 5, 12, 24, 25] {
            let query = |cursor| DeadQuery { endpoint: only, cursor, limit, ..DeadQuery::default() };
            let (mut older, mut cursor) = (Vec::new(), Cursor::Start);
            loop {
                let page = store.dead(query(cursor)).await.unwrap();
                assert!(page.data.len() == limit || page.next.is_none());
                older.extend(page.data.iter().copied());
                assert!(older.len() <= expected.len(), "an entry was repeated");
                let Some(next) = page.next else { break };
                assert_eq!(Some(next), page.data.last().map(DeadLetter::key));
                cursor = Cursor::OlderThan(next);
            }
            assert_eq!(older, expected, "older in pages of {limit}");

            let lowest = DeadKey { at_ms: 0, delivery: expected[0].delivery };
            let (mut newer, mut next) = (Vec::new(), Some(lowest));
            while let Some(key) = next {
                let page = store.dead(query(Cursor::NewerThan(key))).await.unwrap();
                next = page.next;
                assert!(next.is_none() || next == page.data.first().map(DeadLetter::key));
                newer.splice(0..0, page.data);
                assert!(newer.len() <= expected.len(), "an entry was repeated");
            }
            assert_eq!(newer, expected, "newer in pages of {limit}");
        }
    }
}
