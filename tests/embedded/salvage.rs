//! The story: a journal that had dropped segments was salvaged. The salvaged one began to number its segments anew, so the
//! records of old drops named live segments, and the next start dropped them.

use std::sync::Arc;

use postrider::core::limits::StoreLimits;
use postrider::env::RealDisk;
use postrider::journal::salvage;
use postrider::store::Store;
use postrider::store::embedded::journal_options;

use crate::support::{Home, START_MS, accept, backlog, body_of, event_with, limits, runtime};

const RETENTION_MS: u64 = 60_000;

#[test]
fn old_drops_do_not_touch_the_segments_of_a_salvaged_journal() {
    let limits = StoreLimits { retention_ms: RETENTION_MS, ..limits() };
    let home = Home::new(limits.clone());
    let pending = runtime().block_on(async {
        let store = home.open();
        for n in 0..20 {
            accept(&store, event_with(&[], &body_of(n, 7_000), &[])).await;
        }
        home.clock.advance(2 * RETENTION_MS);
        store.keep_house().await;
        assert!(!home.journal().join("seg-0000000000000001.wal").exists(), "retention dropped the first segment");
        let event = accept(&store, event_with(&[0], b"still to be delivered", &[])).await;
        store.close();
        event
    });
    salvage(&Arc::new(RealDisk), &home.journal(), journal_options(&limits), 99, START_MS).unwrap();
    runtime().block_on(async {
        let store = home.open();
        let found = store.event(pending.meta.id).await.unwrap().expect("what is pending is never dropped");
        assert_eq!(*found, *pending);
        assert_eq!(backlog(&store, 0).await.len(), 1);
    });
}
