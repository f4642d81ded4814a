//! Random operations on the form under test and on the model side by side: every answer and everything that can be seen
//! must be the same, but for the ids, which each store gives on its own.
//!
//! The model's clock is set to the time of the form before each operation, so that the two never differ in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use postrider::core::delivery::{DeadReason, DeliveryId, DeliveryState, Next};
use postrider::core::event::{DedupKey, DedupScope, NewEvent};
use postrider::core::fact::Standing;
use postrider::core::id::{EventId, SourceId};
use postrider::core::limits::StoreLimits;
use postrider::env::Clock;
use postrider::store::memory::MemoryStore;
use postrider::store::{Accepted, Cursor, DeadKey, DeadLetter, DeadQuery, EventQuery, Settle, Store};
use proptest::prelude::*;

use crate::harness::{Ear, Form, ManualClock, Picture, START_MS, ending, endpoint, event_for, key, limits};

/// Endpoints in play.
const ENDPOINTS: usize = 3;

/// How long keys hold: some operations let more time pass than this.
const DEDUP_MS: u64 = 1_000;

#[derive(Debug, Clone)]
enum Op {
    Accept {
        takers: u8,
        keys: Vec<DedupKey>,
        body: u8,
        source: Option<u8>,
        event_type: u8,
    },
    /// Ends an attempt of one of the pending deliveries.
    Settle {
        which: usize,
        next: Next,
    },
    /// Repeats a settle that was made before.
    SettleAgain {
        which: usize,
    },
    Redrive {
        event: usize,
        to: usize,
    },
    Erase {
        event: usize,
    },
    Stand {
        at: usize,
        standing: Standing,
    },
    Pass {
        ms: u64,
    },
    StepBack {
        ms: u64,
    },
    Reopen,
    List {
        source: Option<u8>,
        event_type: Option<u8>,
        since: Option<u64>,
        until: Option<u64>,
        from: From,
        limit: usize,
    },
    ListDead {
        at: Option<usize>,
        since: Option<u64>,
        until: Option<u64>,
        from: From,
        limit: usize,
    },
}

/// A cursor, before it is known which entry it stands at.
#[derive(Debug, Clone, Copy)]
enum From {
    Start,
    Older(usize),
    Newer(usize),
}

impl From {
    fn cursor<K: Copy>(self, keys: &[K]) -> Cursor<K> {
        match self {
            Self::Older(n) if !keys.is_empty() => Cursor::OlderThan(keys[n % keys.len()]),
            Self::Newer(n) if !keys.is_empty() => Cursor::NewerThan(keys[n % keys.len()]),
            _ => Cursor::Start,
        }
    }
}

fn any_keys() -> impl Strategy<Value = Vec<DedupKey>> {
    let text = || "[ab]";
    prop_oneof![
        2 => Just(Vec::new()),
        2 => text().prop_map(|text| vec![key(DedupScope::Inbound, &text)]),
        2 => text().prop_map(|text| vec![key(DedupScope::Idempotency, &text)]),
        1 => (text(), text())
            .prop_map(|(k, e)| vec![key(DedupScope::Idempotency, &k), key(DedupScope::EventId, &e)]),
    ]
}

/// Due times count from the operation; the driver adds the time.
fn any_next() -> impl Strategy<Value = Next> {
    let dead = |reason| Just(Next::Dead { reason });
    prop_oneof![
        3 => Just(Next::Delivered),
        3 => prop_oneof![Just(0), 1..500u64].prop_map(|due_ms| Next::Retry { due_ms }),
        1 => dead(DeadReason::Rejected),
        1 => dead(DeadReason::MaxRetries),
        1 => dead(DeadReason::Gone),
    ]
}

fn any_from() -> impl Strategy<Value = From> {
    prop_oneof![Just(From::Start), any::<usize>().prop_map(From::Older), any::<usize>().prop_map(From::Newer)]
}

fn any_standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        3 => Just(Standing::Enabled),
        1 => Just(Standing::Disabled { since_ms: 0 }),
        1 => Just(Standing::Removed { since_ms: 0 }),
    ]
}

fn any_time() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(0..3_000u64)
}

fn any_op() -> impl Strategy<Value = Op> {
    let accept = (any::<u8>(), any_keys(), 0..2u8, prop::option::of(0..2u8), 0..2u8)
        .prop_map(|(takers, keys, body, source, event_type)| Op::Accept { takers, keys, body, source, event_type });
    let list = (prop::option::of(0..2u8), prop::option::of(0..2u8), any_time(), any_time(), any_from(), 1..5usize)
        .prop_map(|(source, event_type, since, until, from, limit)| Op::List {
            source,
            event_type,
            since,
            until,
            from,
            limit,
        });
    let list_dead = (prop::option::of(0..ENDPOINTS), any_time(), any_time(), any_from(), 1..5usize)
        .prop_map(|(at, since, until, from, limit)| Op::ListDead { at, since, until, from, limit });
    prop_oneof![
        6 => accept,
        6 => (any::<usize>(), any_next()).prop_map(|(which, next)| Op::Settle { which, next }),
        1 => any::<usize>().prop_map(|which| Op::SettleAgain { which }),
        3 => (any::<usize>(), 0..ENDPOINTS).prop_map(|(event, to)| Op::Redrive { event, to }),
        1 => any::<usize>().prop_map(|event| Op::Erase { event }),
        2 => (0..ENDPOINTS, any_standing()).prop_map(|(at, standing)| Op::Stand { at, standing }),
        2 => (1..700u64).prop_map(|ms| Op::Pass { ms }),
        // To the very ends of a key's window and of the waits above.
        2 => prop_oneof![Just(1), Just(DEDUP_MS - 1), Just(DEDUP_MS)].prop_map(|ms| Op::Pass { ms }),
        1 => (1..2_000u64).prop_map(|ms| Op::StepBack { ms }),
        1 => Just(Op::Reopen),
        2 => list,
        2 => list_dead,
    ]
}

/// The two stores side by side.
struct Pair<F: Form> {
    form: Option<F>,
    clock: Arc<ManualClock>,
    model: MemoryStore,
    model_ms: Arc<AtomicU64>,
    /// Every event as the form and as the model call it, in the order of their commits.
    names: Vec<(EventId, EventId)>,
    /// Settles made so far, in the model's names.
    settled: Vec<Settle>,
}

impl<F: Form> Pair<F> {
    async fn open() -> Self {
        let limits = StoreLimits { dedup_ms: DEDUP_MS, ..limits() };
        let (clock, model_ms) = (Arc::new(ManualClock::at(START_MS)), Arc::new(AtomicU64::new(0)));
        let form = Some(F::open(Arc::clone(&clock), limits.clone()).await);
        let time = Arc::clone(&model_ms);
        let model = MemoryStore::new(move || time.load(Ordering::SeqCst), limits);
        Self { form, clock, model, model_ms, names: Vec::new(), settled: Vec::new() }
    }

    fn tested(&self) -> Arc<F::S> {
        self.form.as_ref().expect("it is only taken while it is reopened").store()
    }

    /// The form's event in the model's name, which every comparison is made in.
    fn in_model(&self, id: EventId) -> EventId {
        self.names.iter().find(|(form, _)| *form == id).expect("every event has both names").1
    }

    fn in_form(&self, id: EventId) -> EventId {
        self.names.iter().find(|(_, model)| *model == id).expect("every event has both names").0
    }

    fn delivery_in_form(&self, id: DeliveryId) -> DeliveryId {
        DeliveryId { event: self.in_form(id.event), ..id }
    }

    /// An event of the model; one that nobody knows while there is none.
    fn pick(&self, n: usize) -> Option<EventId> {
        self.names.get(n.checked_rem(self.names.len())?).map(|(_, model)| *model)
    }

    async fn step(&mut self, op: Op) {
        let tested = self.tested();
        self.model_ms.store(tested.now_ms(), Ordering::SeqCst);
        match op {
            Op::Accept { takers, keys, body, source, event_type } => {
                self.accept(&tested, new_event(takers, keys, body, source, event_type)).await;
            }
            Op::Settle { which, next } => self.settle(&tested, which, next).await,
            Op::SettleAgain { which } => {
                if let Some(n) = which.checked_rem(self.settled.len()) {
                    self.settle_both(&tested, self.settled[n].clone()).await;
                }
            }
            Op::Redrive { event, to } => {
                let Some(event) = self.pick(event) else { return };
                let id = DeliveryId { endpoint: endpoint(to), event };
                let expected = self.model.redrive(id).await.unwrap();
                assert_eq!(tested.redrive(self.delivery_in_form(id)).await.unwrap(), expected);
            }
            Op::Erase { event } => {
                let Some(event) = self.pick(event) else { return };
                let expected = self.model.erase(event).await.unwrap();
                assert_eq!(tested.erase(self.in_form(event)).await.unwrap(), expected);
            }
            Op::Stand { at, standing } => {
                let name = format!("endpoint-{at}");
                let standing = since(standing, tested.now_ms());
                self.model.set_standing(endpoint(at), "default", &name, standing).await.unwrap();
                tested.set_standing(endpoint(at), "default", &name, standing).await.unwrap();
            }
            Op::Pass { ms } => self.clock.advance(ms),
            Op::StepBack { ms } => self.clock.set_wall(self.clock.wall_ms() - ms),
            Op::Reopen => self.reopen(tested).await,
            list @ Op::List { .. } => self.list(&tested, list).await,
            list @ Op::ListDead { .. } => self.list_dead(&tested, list).await,
        }
    }

    async fn accept(&mut self, tested: &F::S, new: NewEvent) {
        let answers = (tested.accept(new.clone()).await.unwrap(), self.model.accept(new).await.unwrap());
        match answers {
            (Accepted::New { event: form }, Accepted::New { event: model }) => {
                let highest = self.names.last().map(|(form, _)| *form);
                assert!(highest < Some(form.meta.id), "ids grow with every commit");
                self.names.push((form.meta.id, model.meta.id));
            }
            (
                Accepted::Duplicate { id, scope, same_body },
                Accepted::Duplicate { id: expected, scope: expected_scope, same_body: expected_same },
            ) => {
                assert_eq!((self.in_model(id), scope, same_body), (expected, expected_scope, expected_same));
            }
            (form, model) => panic!("the form answered {form:?}, the model {model:?}"),
        }
    }

    async fn settle(&mut self, tested: &F::S, which: usize, next: Next) {
        let now_ms = tested.now_ms();
        let mut pending = Vec::new();
        for n in 0..ENDPOINTS {
            let due = self.model.pending(endpoint(n), None, usize::MAX).await.unwrap();
            pending.extend(due.into_iter().map(|due| (endpoint(n), due)));
        }
        let Some(n) = which.checked_rem(pending.len()) else { return };
        let (endpoint, due) = pending[n];
        let next = match next {
            Next::Retry { due_ms } => Next::Retry { due_ms: now_ms + due_ms },
            other => other,
        };
        let settle = ending(DeliveryId { endpoint, event: due.event }, due.pending, next, now_ms);
        self.settle_both(tested, settle.clone()).await;
        self.settled.push(settle);
    }

    async fn settle_both(&self, tested: &F::S, settle: Settle) {
        let delivery = self.delivery_in_form(settle.delivery);
        let expected = self.model.settle(settle.clone()).await.unwrap();
        assert_eq!(tested.settle(Settle { delivery, ..settle }).await.unwrap(), expected);
    }

    async fn reopen(&mut self, tested: Arc<F::S>) {
        drop(tested);
        let form = self.form.take().expect("it is only taken here");
        self.form = Some(form.reopen().await.0);
        // Hints don't outlast their process.
        self.model.hints().take();
    }

    async fn list(&self, tested: &F::S, op: Op) {
        let Op::List { source, event_type, since, until, from, limit } = op else { return };
        let query = |cursor| EventQuery {
            app: None,
            source: source.map(source_of),
            event_type: event_type.map(type_of),
            since_ms: since.map(|ms| START_MS + ms),
            until_ms: until.map(|ms| START_MS + ms),
            cursor,
            limit,
        };
        let (form_ids, model_ids): (Vec<_>, Vec<_>) = self.names.iter().copied().unzip();
        let got = tested.events(query(from.cursor(&form_ids))).await.unwrap();
        let expected = self.model.events(query(from.cursor(&model_ids))).await.unwrap();
        let got_ids: Vec<_> = got.data.iter().map(|event| self.in_model(event.meta.id)).collect();
        assert_eq!(got_ids, expected.data.iter().map(|event| event.meta.id).collect::<Vec<_>>());
        assert_eq!(got.next.map(|id| self.in_model(id)), expected.next);
    }

    async fn list_dead(&self, tested: &F::S, op: Op) {
        let Op::ListDead { at, since, until, from, limit } = op else { return };
        let query = |cursor| DeadQuery {
            endpoint: at.map(endpoint),
            since_ms: since.map(|ms| START_MS + ms),
            until_ms: until.map(|ms| START_MS + ms),
            cursor,
            limit,
        };
        let all = self.model.dead(DeadQuery { limit: usize::MAX, ..DeadQuery::default() }).await.unwrap().data;
        let model_keys: Vec<_> = all.iter().map(DeadLetter::key).collect();
        let in_form = |key: &DeadKey| DeadKey { delivery: self.delivery_in_form(key.delivery), ..*key };
        let form_keys: Vec<_> = model_keys.iter().map(in_form).collect();
        let got = tested.dead(query(from.cursor(&form_keys))).await.unwrap();
        let expected = self.model.dead(query(from.cursor(&model_keys))).await.unwrap();
        let named = expected.data.iter().map(|letter| (self.delivery_in_form(letter.delivery), letter.dead));
        assert_eq!(got.data.iter().map(|l| (l.delivery, l.dead)).collect::<Vec<_>>(), named.collect::<Vec<_>>());
        assert_eq!(got.next, expected.next.as_ref().map(in_form));
    }

    /// Both stores show the same, and the form has told of every change that the model told of.
    async fn compare(&self) {
        let tested = self.tested();
        let got = Picture::of(&*tested, ENDPOINTS).await.renamed(|id| self.in_model(id));
        assert_eq!(got, Picture::of(&self.model, ENDPOINTS).await);

        let (mut told, mut expected) = (Ear::at(&*tested), Ear::at(&self.model));
        expected.listen();
        for (endpoint, due) in &expected.due {
            let id = DeliveryId { endpoint: *endpoint, event: self.in_form(due.event) };
            told.until_due(id, due.pending).await;
        }
        for endpoint in &expected.standings {
            told.until("a standing", |ear| ear.standings.contains(endpoint)).await;
        }
        self.check_views().await;
    }

    /// The model's own books balance: the figures are those of a count.
    async fn check_views(&self) {
        let (mut pending, mut dead) = (0, 0);
        for (_, id) in &self.names {
            for delivery in self.model.deliveries(*id).await.unwrap().unwrap() {
                pending += u64::from(matches!(delivery.state, DeliveryState::Pending(_)));
                dead += u64::from(matches!(delivery.state, DeliveryState::Dead(_)));
            }
        }
        let stats = self.model.stats();
        assert_eq!((stats.pending, stats.dead), (pending, dead));
    }
}

fn new_event(takers: u8, keys: Vec<DedupKey>, body: u8, source: Option<u8>, event_type: u8) -> NewEvent {
    let takers: Vec<_> = (0..ENDPOINTS).filter(|n| takers >> n & 1 == 1).collect();
    NewEvent {
        source: source.map(source_of),
        event_type: Some(type_of(event_type)),
        body: Bytes::from(vec![body; 3]),
        dedup: keys,
        fingerprint: u64::from(body),
        ..event_for(&takers)
    }
}

fn source_of(n: u8) -> SourceId {
    SourceId::named("", &n.to_string())
}

fn type_of(n: u8) -> String {
    format!("type.{n}")
}

fn since(standing: Standing, since_ms: u64) -> Standing {
    match standing {
        Standing::Enabled => Standing::Enabled,
        Standing::Gone { .. } => Standing::Gone { since_ms },
        Standing::Disabled { .. } => Standing::Disabled { since_ms },
        Standing::Removed { .. } => Standing::Removed { since_ms },
    }
}

pub fn random_operations_answer_as_the_model_does<F: Form>() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(F::CASES) };
    proptest!(config, |(ops in prop::collection::vec(any_op(), 1..60))| {
        runtime.block_on(async {
            let mut pair = Pair::<F>::open().await;
            for op in ops {
                pair.step(op).await;
                pair.compare().await;
            }
        });
    });
}
