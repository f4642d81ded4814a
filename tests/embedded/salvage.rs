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

/// The story: nothing was lost, so the salvaged journal had the same frames under the same sequences and CRCs, in other places.
/// A key space whose last frame opened a segment, as a frame does that a start has copied, was taken for one that fits.
#[test]
fn a_key_space_that_stands_at_the_start_of_a_segment_is_built_anew() {
    let home = Home::new(limits());
    let (ids, last) = runtime().block_on(async {
        let store = home.open();
        let segments = async || store.stats().journal_segments;
        let (begun, mut ids) = (segments().await, Vec::new());
        while segments().await == begun {
            ids.push(accept(&store, event_with(&[0], &body_of(ids.len() as u64, 7_000), &[])).await.meta.id);
        }
        store.close();
        (ids, store.stats().journal_segments)
    });
    assert!(last > 1 && ids.len() > 2);
    let report = salvage(&Arc::new(RealDisk), &home.journal(), journal_options(&limits()), 99, START_MS).unwrap();
    assert!(report.lost.is_empty() && report.lost_records.is_empty());
    runtime().block_on(async {
        let store = home.open();
        assert!(store.opened().rebuilt.is_some());
        for id in ids {
            assert!(store.event(id).await.unwrap().is_some(), "{id}");
        }
    });
}
