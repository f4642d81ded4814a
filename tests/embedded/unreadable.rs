//! Damage in a sealed segment costs what is damaged: lists pass over it, say so, and lead to all that is older.

use std::fs;
use std::os::unix::fs::FileExt;

use postrider::core::id::EventId;
use postrider::store::embedded::EmbeddedStore;
use postrider::store::{Cursor, EventQuery, Store, StoreError};

use crate::support::{Home, accept, event_with, files, limits, runtime};

/// Events in segments of their own. Two that follow each other are damaged in their bytes, one so that nothing of its batch
/// can be read, and the very oldest.
const EVENTS: usize = 9;
const BODIES: [usize; 3] = [0, 3, 4];
const BATCH: usize = 6;

fn text(n: usize) -> String {
    format!("the bytes of number {n}")
}

/// Flips a bit `before` bytes before the only place in the journal where these bytes are, or in their first byte.
fn flip(home: &Home, bytes: &[u8], before: usize) {
    for path in files(&home.journal()) {
        let content = fs::read(&path).unwrap();
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            return file.write_all_at(&[content[at - before] ^ 1], (at - before) as u64).unwrap();
        }
    }
    panic!("not in the journal");
}

/// All pages in one direction: ids as they come, and how many places were passed over.
async fn walk(store: &EmbeddedStore, mut cursor: Cursor<EventId>, limit: usize) -> (Vec<EventId>, u64) {
    let (mut ids, mut unreadable) = (Vec::new(), 0);
    let up = matches!(cursor, Cursor::NewerThan(_));
    loop {
        let page = store.events(EventQuery { cursor, limit, ..EventQuery::default() }).await.unwrap();
        let mut some: Vec<_> = page.data.iter().map(|event| event.meta.id).collect();
        if up {
            some.reverse();
        }
        ids.extend(some);
        unreadable += page.unreadable;
        cursor = match page.next {
            None => return (ids, unreadable),
            Some(id) if up => Cursor::NewerThan(id),
            Some(id) => Cursor::OlderThan(id),
        };
    }
}

#[test]
fn lists_go_on_past_what_is_damaged() {
    let runtime = runtime();
    let home = Home::new(limits());
    let mut ids = Vec::new();
    for n in 0..EVENTS {
        let store = home.open();
        ids.push(runtime.block_on(accept(&store, event_with(&[0], text(n).as_bytes(), &[]))).meta.id);
        runtime.block_on(accept(&store, event_with(&[], b"the last of its segment", &[])));
    }
    drop(home.open());
    BODIES.iter().for_each(|n| flip(&home, text(*n).as_bytes(), 0));
    flip(&home, text(BATCH).as_bytes(), 1);
    let store = home.open();
    let readable: Vec<_> = (0..EVENTS).filter(|n| !BODIES.contains(n) && *n != BATCH).map(|n| ids[n]).rev().collect();
    runtime.block_on(async {
        for limit in [1, 2, 3, 100] {
            let (mut down, unreadable) = walk(&store, Cursor::Start, limit).await;
            down.retain(|id| ids.contains(id));
            assert_eq!((&down, unreadable), (&readable, 4), "pages of {limit}");
            let (mut up, unreadable) = walk(&store, Cursor::NewerThan(EventId::MIN), limit).await;
            up.retain(|id| ids.contains(id));
            up.reverse();
            assert_eq!(up, readable, "pages of {limit}, from the oldest");
            assert!(unreadable >= 4);
        }
        for n in [BODIES[1], BATCH] {
            let shown = store.event(ids[n]).await;
            assert!(matches!(shown, Err(StoreError::Unreadable { .. })), "{shown:?}");
        }
    });
}
