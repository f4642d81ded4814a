//! Many pending events that were carried out of dropped segments: what they cost when the next ones are dropped.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

use postrider::core::delivery::{Dead, DeadReason, DeliveryId, Pending};
use postrider::core::event::EventMeta;
use postrider::core::fact::Fact;
use postrider::core::headers::Headers;
use postrider::core::id::{AppId, EventId};
use postrider::env::{Clock, RealClock};
use postrider::index::event::At;
use postrider::index::{Effects, Home as KeySpace, Layered, Ledger, Meta, Place, State, fold};

use crate::support::endpoint;

/// Segments that are dropped after one another.
const SEGMENTS: u64 = 50;

/// `POSTRIDER_CARRIED` asks for another number of pending events than the ordinary one.
fn wanted() -> u64 {
    std::env::var("POSTRIDER_CARRIED").map_or(2_000, |count| count.parse().unwrap())
}

/// A key space on the disk, and the ids of its events.
struct Scene {
    state: State,
    per_segment: u64,
    clock: RealClock,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new(ledger: Ledger, events: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = KeySpace::Directory(dir.path().to_owned()).open(64 << 20).unwrap();
        let mut state = State::new(tree, Meta::default());
        state.ledger = ledger;
        Self { state, per_segment: events / SEGMENTS, clock: RealClock::new(), _dir: dir }
    }

    fn id(&self, segment: u64, n: u64) -> EventId {
        EventId::from_u128(u128::from(segment * self.per_segment + n) << 64)
    }

    fn meta(&self, segment: u64, n: u64) -> Arc<EventMeta> {
        Arc::new(EventMeta {
            id: self.id(segment, n),
            app: AppId::named("", "default"),
            source: None,
            event_type: None,
            external_id: None,
            accepted_ms: self.id(segment, n).ms(),
            headers: Headers::default(),
            endpoints: vec![endpoint(0), endpoint(1)],
        })
    }

    fn fold(&mut self, segment: u64, facts: &[Fact]) {
        let mut place = Place::new(At { segment, offset: 0 });
        for fact in facts {
            fold(&mut self.state, fact, &mut place, &mut Effects::default()).unwrap();
        }
    }

    fn apply(&mut self) {
        let (table, mut meta) = self.state.set_aside().unwrap();
        self.state.tree().apply(&table, &mut meta).unwrap();
        self.state.applied(&meta);
    }

    /// Both deliveries of each event were tried: one is due again; the other is dead, but for every fourth event, of which
    /// both are dead.
    fn fill(&mut self, segment: u64) {
        for n in 0..self.per_segment {
            let meta = self.meta(segment, n);
            let id = |endpoint_n| DeliveryId { endpoint: endpoint(endpoint_n), event: meta.id };
            let first = if n % 4 == 3 {
                Fact::Buried { delivery: id(0), dead: dead(n) }
            } else {
                Fact::Redriven { delivery: id(0), pending: pending(n) }
            };
            let second = Fact::Buried { delivery: id(1), dead: dead(n) };
            let accepted = Fact::Accepted { meta, dedup: Vec::new(), dedup_expires_ms: 0, fingerprint: 0 };
            self.fold(segment, &[accepted, first, second]);
        }
        self.apply();
    }

    /// Carries what is pending into `to` and drops the segment; how long the drop itself took.
    fn drop_segment(&mut self, segment: u64, to: u64) -> Duration {
        for n in (0..self.per_segment).filter(|n| n % 4 != 3) {
            let (meta, dead) = (self.meta(segment, n), vec![(endpoint(1), dead(n))]);
            self.fold(to, &[Fact::Carried { meta, pending: vec![(endpoint(0), pending(n))], dead }]);
        }
        self.apply();
        let begun_us = self.clock.mono_us();
        self.fold(to, &[Fact::Dropped { segment, first_kept: self.id(segment + 1, 0) }]);
        let took = Duration::from_micros(self.clock.mono_us() - begun_us);
        self.apply();
        took
    }

    /// Drops a segment into which events were carried, every other one of which ended with two dead letters.
    fn drop_carried(&mut self, segment: u64) {
        let from = segment - SEGMENTS;
        for n in (0..self.per_segment).filter(|n| n % 4 != 3) {
            let meta = self.meta(from, n);
            let fact = if n % 2 == 0 {
                Fact::Carried { meta, pending: vec![(endpoint(0), pending(n))], dead: vec![(endpoint(1), dead(n))] }
            } else {
                Fact::Buried { delivery: DeliveryId { endpoint: endpoint(0), event: meta.id }, dead: dead(n) }
            };
            self.fold(2 * SEGMENTS, &[fact]);
        }
        self.fold(2 * SEGMENTS, &[Fact::Dropped { segment, first_kept: self.id(SEGMENTS, 0) }]);
        self.apply();
    }

    /// All keys but the one that says how far it is.
    fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        let visit = |key: &[u8], value: &[u8]| {
            all.extend((key[0] != b'm').then(|| (key.to_vec(), value.to_vec())));
            ControlFlow::Continue(())
        };
        self.state.scan(Bound::Unbounded, Bound::Unbounded, Layered::Up, visit).unwrap();
        all
    }
}

fn pending(n: u64) -> Pending {
    Pending { due_ms: 1_000 + n, attempts: 1, failures: 1 }
}

fn dead(n: u64) -> Dead {
    Dead { reason: DeadReason::Rejected, at_ms: n, attempts: 1 }
}

/// One that is told of every event looks only where something may be; the other looks everywhere.
#[test]
fn a_dropped_segment_leaves_the_same_however_much_was_carried_before_it() {
    let events = wanted();
    let (mut told, mut untold) = (Scene::new(Ledger::of_all(), events), Scene::new(Ledger::default(), events));
    for (what, scene) in [("told", &mut told), ("untold", &mut untold)] {
        (0..SEGMENTS).for_each(|segment| scene.fill(segment));
        let took: Vec<_> = (0..SEGMENTS).map(|segment| scene.drop_segment(segment, SEGMENTS + segment)).collect();
        println!("{what}: {events} carried, {} a segment: {took:?}", scene.per_segment);
    }
    let left = told.all();
    assert_eq!(left, untold.all());
    // Of those carried: a place, two states, a due time and the order of dying. Of the others: nothing.
    assert_eq!(left.len() as u64, SEGMENTS * 5 * (told.per_segment - told.per_segment / 4));
    // The segments into which they were carried, when half of what is in them is carried on.
    for segment in SEGMENTS..2 * SEGMENTS {
        for scene in [&mut told, &mut untold] {
            scene.drop_carried(segment);
        }
    }
    assert_eq!(told.all(), untold.all());
    assert_eq!(told.all().len() as u64, SEGMENTS * 5 * (0..told.per_segment).filter(|n| n % 2 == 0).count() as u64);
}
