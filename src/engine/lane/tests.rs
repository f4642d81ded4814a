//! What a lane must do, case by case, and what must hold whatever happens.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::pace::FAILURES_BEFORE_REST;
use super::*;
use crate::store::LaneHints;

const IN_FLIGHT_MAX: usize = 3;
const WINDOW_MAX: usize = 8;
/// Small, so that news is often left out.
const MAILBOX_MAX: usize = 4;

fn event(number: u128) -> EventId {
    EventId::from_u128(number)
}

fn fresh(number: u128, due_ms: u64) -> Due {
    Due { event: event(number), pending: Pending::fresh(due_ms) }
}

/// A lane that has loaded everything there is: nothing.
fn complete(in_flight_max: usize, window_max: usize) -> Lane {
    let mut lane = Lane::new(in_flight_max, window_max);
    assert_eq!(lane.load(0).map(|load| load.after), Some(None));
    lane.loaded(&[]);
    lane
}

#[test]
fn starts_in_order_of_due_and_not_before() {
    let mut lane = complete(8, 8);
    for due in [fresh(1, 30), fresh(2, 10), fresh(3, 10)] {
        lane.hint(due);
    }
    assert_eq!(lane.readiness(9), Readiness::At(10));
    assert_eq!(lane.start(9), None);
    assert_eq!([lane.start(10), lane.start(10), lane.start(10)], [Some(fresh(2, 10)), Some(fresh(3, 10)), None]);
    assert_eq!(lane.readiness(10), Readiness::At(30));
}

#[test]
fn past_the_window_the_tail_is_left_to_the_store() {
    let mut lane = complete(2, 4);
    (0..9).rev().for_each(|n| lane.hint(fresh(n, 100 + n as u64)));
    assert_eq!(lane.waiting(), 4);
    let first = lane.start(200).unwrap();
    assert_eq!(first, fresh(0, 100));
    lane.release(first.event, Release::Settled);
    assert_eq!(lane.load(200), None, "it is still a quarter full");
    for n in 1..4 {
        assert_eq!(lane.start(200), Some(fresh(n, 100 + n as u64)));
        lane.release(event(n), Release::Settled);
    }
    // The horizon lies right below the first that was evicted.
    let load = lane.load(200).unwrap();
    assert_eq!(load.after.map(Horizon::Upto), Some(Horizon::below(fresh(4, 104).key())));
    assert_eq!(lane.load(200), None, "one load at a time");
    lane.loaded(&(4..8).map(|n| fresh(n, 100 + n as u64)).collect::<Vec<_>>());
    assert_eq!(lane.start(200), Some(fresh(4, 104)));
}

#[test]
fn an_ended_attempt_frees_its_place_before_its_settle_is_durable() {
    let mut lane = complete(1, 8);
    lane.hint(fresh(1, 0));
    lane.hint(fresh(2, 0));
    assert_eq!(lane.start(0), Some(fresh(1, 0)));
    assert_eq!((lane.start(0), lane.readiness(0)), (None, Readiness::Never));
    assert!(lane.ended(event(1), Health::Well, 0) && !lane.ended(event(1), Health::Well, 0));
    assert_eq!(lane.start(0), Some(fresh(2, 0)));
}

#[test]
fn leases_do_not_run_ahead_of_a_store_that_stalls() {
    let mut lane = complete(2, 64);
    (0..64).for_each(|n| lane.hint(fresh(n, 0)));
    let mut started = 0;
    while let Some(due) = lane.start(0) {
        lane.ended(due.event, Health::Well, 0);
        started += 1;
    }
    assert_eq!(started, 2 * LEASES_PER_ATTEMPT);
    lane.release(event(0), Release::Settled);
    assert!(lane.start(0).is_some());
}

/// Fails attempts one after the other at one moment, until the lane starts no more; how many it made.
fn fail_all(lane: &mut Lane, now_ms: u64) -> usize {
    let mut attempts = 0;
    while let Some(due) = lane.start(now_ms) {
        lane.ended(due.event, Health::Failing, now_ms);
        lane.release(due.event, Release::Settled);
        attempts += 1;
    }
    attempts
}

#[test]
fn an_endpoint_that_only_fails_is_tried_a_few_times_per_second() {
    const REST_MS: u64 = 32;
    let mut lane = complete(2, 256);
    (0..200).for_each(|n| lane.hint(fresh(n, 0)));
    assert_eq!(fail_all(&mut lane, 0), FAILURES_BEFORE_REST as usize + 2);
    assert_eq!(lane.readiness(0), Readiness::At(REST_MS));
    assert_eq!(fail_all(&mut lane, REST_MS - 1), 0);
    assert_eq!(fail_all(&mut lane, REST_MS), 2);
    // The first that does not fail gives it all its places back.
    let due = lane.start(2 * REST_MS).unwrap();
    lane.ended(due.event, Health::Well, 2 * REST_MS);
    assert_eq!(fail_all(&mut lane, 2 * REST_MS), FAILURES_BEFORE_REST as usize + 2);
}

#[test]
fn a_lane_that_rests_and_has_nothing_to_do_needs_no_wake() {
    const REST_MS: u64 = 16;
    let mut lane = complete(1, 256);
    (0..=u128::from(FAILURES_BEFORE_REST)).for_each(|n| lane.hint(fresh(n, 0)));
    fail_all(&mut lane, 0);
    assert_eq!(lane.readiness(0), Readiness::Never);
    lane.hint(fresh(100, 5));
    assert_eq!((lane.start(5), lane.readiness(5)), (None, Readiness::At(REST_MS)));
    assert_eq!(lane.start(REST_MS), Some(fresh(100, 5)));
}

#[test]
fn a_hold_keeps_the_place_and_then_makes_the_same_state_due() {
    let mut lane = complete(1, 8);
    lane.hint(fresh(1, 0));
    lane.hint(fresh(2, 0));
    let due = lane.start(0).unwrap();
    lane.release(due.event, Release::Hold { until_ms: 50 });
    assert_eq!((lane.running(), lane.start(49)), (0, None));
    assert_eq!(lane.readiness(49), Readiness::At(50));
    assert_eq!(lane.start(50), Some(due));
}

#[test]
fn news_during_a_lease_waits_for_its_end() {
    let mut lane = complete(4, 8);
    lane.hint(fresh(1, 0));
    let due = lane.start(0).unwrap();
    lane.hint(due);
    let retry = Due { event: due.event, pending: Pending { due_ms: 5, attempts: 1, failures: 1 } };
    lane.hint(retry);
    assert_eq!(lane.start(5), None);
    lane.release(due.event, Release::Settled);
    assert_eq!(lane.start(5), Some(retry));
    // News that only repeats what was leased makes nothing due again.
    lane.hint(retry);
    lane.release(due.event, Release::Settled);
    assert_eq!(lane.readiness(5), Readiness::Never);
}

#[test]
fn a_disabled_lane_does_nothing_and_an_enabled_one_asks_the_store() {
    let mut lane = complete(4, 8);
    lane.hint(fresh(1, 0));
    lane.set_enabled(false);
    lane.hint(fresh(2, 0));
    assert_eq!((lane.start(9), lane.load(9), lane.readiness(9)), (None, None, Readiness::Never));
    lane.set_enabled(true);
    assert_eq!(lane.load(9).map(|load| load.after), Some(None));
}

#[test]
fn a_refused_load_is_asked_for_again_later() {
    let mut lane = Lane::new(4, 8);
    assert!(lane.load(0).is_some());
    lane.load_refused(0);
    assert_eq!((lane.load(0), lane.readiness(0)), (None, Readiness::At(LOAD_RETRY_MS)));
    assert!(lane.load(LOAD_RETRY_MS).is_some());
}

/// A lane in which event 1 is leased while the horizon lies below it, so that a load will find it again.
fn leased_beyond_the_horizon() -> (Lane, Due) {
    let mut lane = complete(4, 8);
    let due = fresh(1, 10);
    lane.hint(due);
    assert_eq!(lane.start(10), Some(due));
    lane.left_out(fresh(0, 10).key());
    (lane, due)
}

fn retried(due: Due, due_ms: u64) -> Due {
    let Pending { attempts, failures, .. } = due.pending;
    Due { event: due.event, pending: Pending { due_ms, attempts: attempts + 1, failures: failures + 1 } }
}

#[test]
fn a_stale_settle_makes_it_ask_the_store_from_the_start() {
    let mut lane = complete(4, 8);
    lane.hint(fresh(1, 0));
    lane.hint(fresh(2, 0));
    let due = lane.start(0).unwrap();
    lane.release(due.event, Release::Stale);
    assert_eq!(lane.start(0), None);
    assert_eq!(lane.load(0).map(|load| load.after), Some(None));
    lane.loaded(&[fresh(1, 5), fresh(2, 0)]);
    assert_eq!([lane.start(0), lane.start(5)], [Some(fresh(2, 0)), Some(fresh(1, 5))]);
}

#[test]
fn a_load_read_before_a_settle_brings_nothing_back() {
    let (mut lane, due) = leased_beyond_the_horizon();
    assert!(lane.load(10).is_some());
    lane.release(due.event, Release::Settled);
    lane.loaded(&[due]);
    assert_eq!(lane.readiness(10), Readiness::Never);
}

#[test]
fn a_load_read_before_a_settle_does_not_undo_news_of_a_retry() {
    let (mut lane, due) = leased_beyond_the_horizon();
    assert!(lane.load(10).is_some());
    lane.hint(retried(due, 20));
    lane.loaded(&[due]);
    lane.release(due.event, Release::Settled);
    assert_eq!(lane.start(20), Some(retried(due, 20)));
}

#[test]
fn a_load_tells_of_a_retry_that_the_mailbox_had_no_room_for() {
    // The load is answered before the settle,
    let (mut lane, due) = leased_beyond_the_horizon();
    assert!(lane.load(10).is_some());
    lane.loaded(&[retried(due, 20)]);
    lane.release(due.event, Release::Settled);
    assert_eq!(lane.start(20), Some(retried(due, 20)));

    // or after it: then it can't be told from an older state, and the next load decides.
    let (mut lane, due) = leased_beyond_the_horizon();
    assert!(lane.load(10).is_some());
    lane.release(due.event, Release::Settled);
    lane.loaded(&[retried(due, 20)]);
    assert_eq!(lane.start(20), None);
    assert!(lane.load(20).is_some());
    lane.loaded(&[retried(due, 20)]);
    assert_eq!(lane.start(20), Some(retried(due, 20)));
}

#[test]
fn news_older_than_a_load_does_not_outrank_it() {
    let (mut lane, due) = leased_beyond_the_horizon();
    lane.hint(retried(due, 90));
    // A replay makes it due earlier; the mailbox has no room to tell.
    let replayed = Due { event: due.event, pending: Pending { due_ms: 20, attempts: 1, failures: 0 } };
    lane.left_out(replayed.key());
    assert!(lane.load(10).is_some());
    lane.release(due.event, Release::Settled);
    lane.loaded(&[replayed]);
    assert_eq!(lane.start(20), Some(replayed));
    assert_eq!(lane.readiness(20), Readiness::Never);
}

#[test]
fn a_load_that_no_longer_joins_the_window_is_thrown_away() {
    let lane_of = |events: std::ops::Range<u128>, window_max| {
        let mut lane = Lane::new(4, window_max);
        let limit = lane.load(0).unwrap().limit;
        lane.loaded(&events.clone().take(limit).map(|n| fresh(n, 100 + n as u64)).collect::<Vec<_>>());
        while let Some(due) = lane.start(1_000) {
            lane.release(due.event, Release::Settled);
        }
        assert!(lane.load(1_000).unwrap().after.is_some());
        lane
    };
    // Switched off and on while the load ran: what came meanwhile may lie before it.
    let mut lane = lane_of(0..4, 4);
    lane.set_enabled(false);
    lane.set_enabled(true);
    lane.loaded(&[]);
    assert_eq!(lane.load(1_000).map(|load| load.after), Some(None));

    // More replays than fit while the load ran: the last was evicted and lies before it.
    let mut lane = lane_of(0..4, 4);
    (10..15).for_each(|n| lane.hint(fresh(n, 50)));
    lane.loaded(&[]);
    for n in 10..14 {
        assert_eq!(lane.start(1_000), Some(fresh(n, 50)));
        lane.release(event(n), Release::Settled);
    }
    let load = lane.load(1_000).unwrap();
    assert!(Horizon::Upto(load.after.unwrap()) < Horizon::Upto(fresh(14, 50).key()));
}

#[test]
fn news_that_a_disabled_lane_did_not_keep_is_asked_for() {
    let mut lane = Lane::new(4, 8);
    assert!(lane.load(0).is_some());
    lane.set_enabled(false);
    lane.hint(fresh(1, 0));
    lane.set_enabled(true);
    // The store was read before event 1 came.
    lane.loaded(&[]);
    assert_eq!(lane.load(0).map(|load| load.after), Some(None));
}

#[test]
fn more_news_during_a_load_than_is_kept_is_asked_for() {
    // A lane of four keeps sixteen changes beside a load.
    let busy_lane = || {
        let mut lane = Lane::new(4, 4);
        lane.load(0).unwrap();
        lane.loaded(&(0..4).map(|n| fresh(n, 10)).collect::<Vec<_>>());
        (0..4).for_each(|n| assert_eq!(lane.start(10), Some(fresh(n, 10))));
        assert_eq!(lane.load(10).map(|load| load.after), Some(Some(fresh(3, 10).key())));
        (100..116).for_each(|n| lane.hint(fresh(n, 20)));
        lane
    };
    // One more beyond the horizon: the load's answer counts up to there.
    let mut lane = busy_lane();
    lane.hint(fresh(50, 15));
    lane.loaded(&[]);
    assert_eq!(
        lane.load(20).map(|load| load.after.map(Horizon::Upto)),
        Some(Some(Horizon::below(fresh(50, 15).key())))
    );

    // One more within it: the answer may hold that delivery as it was before, so none of it counts.
    let mut lane = busy_lane();
    lane.hint(fresh(60, 5));
    lane.loaded(&[fresh(60, 15)]);
    (0..4).for_each(|n| assert!(lane.release(event(n), Release::Settled)));
    assert_eq!([lane.start(20), lane.start(20)], [Some(fresh(60, 5)), None]);
}

/// What happens to a lane, from outside.
#[derive(Debug, Clone)]
enum Op {
    Accept(u8),
    Start,
    End(u8, End),
    Answer(u8),
    TakeNews,
    Redrive(u8),
    Erase(u8),
    AskLoad,
    ReadLoad,
    AnswerLoad,
    RefuseLoad,
    Enable(bool),
    Advance(u8),
    StepBack(u8),
}

#[derive(Debug, Clone, Copy)]
enum End {
    Delivered,
    Dead,
    Retry(u8),
    Lost(u8),
}

fn any_end() -> impl Strategy<Value = End> {
    prop_oneof![
        3 => Just(End::Delivered),
        1 => Just(End::Dead),
        3 => any::<u8>().prop_map(End::Retry),
        1 => any::<u8>().prop_map(End::Lost),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..6u8).prop_map(Op::Accept),
        8 => Just(Op::Start),
        6 => (any::<u8>(), any_end()).prop_map(|(i, end)| Op::End(i, end)),
        6 => any::<u8>().prop_map(Op::Answer),
        5 => Just(Op::TakeNews),
        3 => any::<u8>().prop_map(Op::Redrive),
        1 => any::<u8>().prop_map(Op::Erase),
        5 => Just(Op::AskLoad),
        4 => Just(Op::ReadLoad),
        3 => Just(Op::AnswerLoad),
        1 => Just(Op::RefuseLoad),
        1 => any::<bool>().prop_map(Op::Enable),
        3 => (0..60u8).prop_map(Op::Advance),
        1 => (0..30u8).prop_map(Op::StepBack),
    ]
}

/// The store as one endpoint sees it, and a lane over it that is told things late.
struct Model {
    lane: Lane,
    store: BTreeMap<EventId, Pending>,
    /// Attempts made of every event that ever was.
    attempts: Vec<u32>,
    mailbox: LaneHints,
    in_flight: Vec<Due>,
    /// Settled in the store, not yet known to the lane.
    answers: Vec<(EventId, Release)>,
    load: Option<(Load, Option<Vec<Due>>)>,
    now_ms: u64,
    /// The lane's clock may show less than the store's.
    behind_ms: u64,
    interfered: bool,
}

impl Model {
    fn new() -> Self {
        Self {
            lane: Lane::new(IN_FLIGHT_MAX, WINDOW_MAX),
            store: BTreeMap::new(),
            attempts: Vec::new(),
            mailbox: LaneHints::default(),
            in_flight: Vec::new(),
            answers: Vec::new(),
            load: None,
            now_ms: 1_000,
            behind_ms: 0,
            interfered: false,
        }
    }

    fn lane_ms(&self) -> u64 {
        self.now_ms - self.behind_ms
    }

    /// A delivery is pending in this state from now on, and the mailbox is told.
    fn put(&mut self, event: EventId, pending: Pending) {
        self.store.insert(event, pending);
        let due = Due { event, pending };
        if self.mailbox.due.len() < MAILBOX_MAX {
            self.mailbox.due.push(due);
        } else {
            let key = due.key();
            self.mailbox.left_out = Some(self.mailbox.left_out.map_or(key, |lowest| lowest.min(key)));
        }
    }

    fn take_news(&mut self) {
        let news = std::mem::take(&mut self.mailbox);
        news.due.into_iter().for_each(|due| self.lane.hint(due));
        if let Some(key) = news.left_out {
            self.lane.left_out(key);
        }
    }

    fn start(&mut self) -> Result<bool, TestCaseError> {
        let now_ms = self.lane_ms();
        let Some(due) = self.lane.start(now_ms) else { return Ok(false) };
        prop_assert!(due.pending.due_ms <= now_ms, "started before it was due");
        prop_assert!(self.in_flight.iter().all(|other| other.event != due.event), "two attempts of one delivery");
        prop_assert!(
            self.answers.iter().all(|(other, _)| *other != due.event),
            "leased before its settle was answered"
        );
        if !self.interfered {
            prop_assert_eq!(self.store.get(&due.event), Some(&due.pending), "an attempt that can't be settled");
        }
        self.in_flight.push(due);
        Ok(true)
    }

    fn end(&mut self, index: u8, end: End) {
        if self.in_flight.is_empty() {
            return;
        }
        let Due { event, pending: was } = self.in_flight.swap_remove(usize::from(index) % self.in_flight.len());
        let health = if matches!(end, End::Retry(_)) { Health::Failing } else { Health::Well };
        self.lane.ended(event, health, self.lane_ms());
        if let End::Lost(ms) = end {
            return self.answers.push((event, Release::Hold { until_ms: self.now_ms + u64::from(ms) }));
        }
        if self.store.get(&event) != Some(&was) {
            return self.answers.push((event, Release::Stale));
        }
        let attempts = was.attempts + 1;
        self.attempts[event.as_u128() as usize] = attempts;
        self.store.remove(&event);
        if let End::Retry(ms) = end {
            let due_ms = self.now_ms + u64::from(ms);
            self.put(event, Pending { due_ms, attempts, failures: was.failures + 1 });
        }
        self.answers.push((event, Release::Settled));
    }

    fn answer(&mut self, index: u8) {
        if !self.answers.is_empty() {
            let (event, how) = self.answers.swap_remove(usize::from(index) % self.answers.len());
            self.take_news();
            assert!(self.lane.release(event, how));
        }
    }

    fn redrive(&mut self, index: u8) {
        if self.attempts.is_empty() {
            return;
        }
        let number = usize::from(index) % self.attempts.len();
        let id = event(number as u128);
        if self.store.get(&id).is_none_or(|pending| pending.due_ms > self.now_ms) {
            self.interfered = true;
            self.put(id, Pending { due_ms: self.now_ms, attempts: self.attempts[number], failures: 0 });
        }
    }

    fn read_load(&mut self) {
        if let Some((load, found @ None)) = &mut self.load {
            let mut all: Vec<_> =
                self.store.iter().map(|(event, pending)| Due { event: *event, pending: *pending }).collect();
            all.sort_by_key(Due::key);
            let beyond = all.into_iter().filter(|due| load.after.is_none_or(|after| due.key() > after));
            *found = Some(beyond.take(load.limit).collect());
        }
    }

    fn answer_load(&mut self) {
        if let Some((_, Some(found))) = self.load.take_if(|(_, found)| found.is_some()) {
            self.take_news();
            self.lane.loaded(&found);
        }
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Accept(count) => {
                for _ in 0..count {
                    self.attempts.push(0);
                    self.put(event(self.attempts.len() as u128 - 1), Pending::fresh(self.now_ms));
                }
            }
            Op::Start => {
                self.start()?;
            }
            Op::End(index, end) => self.end(index, end),
            Op::Answer(index) => self.answer(index),
            Op::TakeNews => self.take_news(),
            Op::Redrive(index) => self.redrive(index),
            Op::Erase(index) => {
                self.interfered |= self.store.remove(&event(u128::from(index))).is_some();
            }
            Op::AskLoad => {
                if let Some(load) = self.lane.load(self.lane_ms()) {
                    prop_assert!(self.load.is_none(), "two loads at once");
                    prop_assert!(load.limit > 0);
                    self.load = Some((load, None));
                }
            }
            Op::ReadLoad => self.read_load(),
            Op::AnswerLoad => self.answer_load(),
            Op::RefuseLoad => {
                if self.load.take().is_some() {
                    self.lane.load_refused(self.lane_ms());
                }
            }
            Op::Enable(enabled) => self.lane.set_enabled(enabled),
            Op::Advance(ms) => self.now_ms += u64::from(ms),
            Op::StepBack(ms) => self.behind_ms = u64::from(ms),
        }
        prop_assert!(self.in_flight.len() <= IN_FLIGHT_MAX && self.lane.running() == self.in_flight.len());
        prop_assert!(self.lane.waiting() <= WINDOW_MAX);
        Ok(())
    }

    /// Lets everything run that can at this time; every attempt delivers.
    fn quiesce(&mut self) -> Result<(), TestCaseError> {
        loop {
            self.take_news();
            if self.load.is_none() {
                self.load = self.lane.load(self.lane_ms()).map(|load| (load, None));
            }
            let loading = self.load.is_some();
            self.read_load();
            self.answer_load();
            let mut started = false;
            while self.start()? {
                started = true;
            }
            let busy = !self.in_flight.is_empty() || !self.answers.is_empty();
            while !self.in_flight.is_empty() {
                self.end(0, End::Delivered);
            }
            while !self.answers.is_empty() {
                self.answer(0);
            }
            if !(loading || started || busy) {
                return Ok(());
            }
        }
    }

    /// From here on nothing new comes: everything pending must be delivered, each when it is due.
    fn run_dry(&mut self) -> Result<(), TestCaseError> {
        self.lane.set_enabled(true);
        self.behind_ms = 0;
        loop {
            self.quiesce()?;
            let now_ms = self.now_ms;
            let earliest = self.store.values().map(|pending| pending.due_ms).min();
            match (self.lane.readiness(now_ms), earliest) {
                (Readiness::Now, _) => prop_assert!(false, "it could have started more"),
                (Readiness::Never, earliest) => {
                    prop_assert_eq!(earliest, None, "a pending delivery is forgotten");
                    return Ok(());
                }
                // A hold, a refused load or something erased may wake it early; nothing may wake it late.
                (Readiness::At(wake_ms), earliest) => {
                    prop_assert!(wake_ms > now_ms, "it would spin");
                    let waits = self.lane.held.is_empty() && now_ms >= self.lane.load_from_ms;
                    if let Some(due_ms) = earliest.filter(|_| waits) {
                        prop_assert!(wake_ms <= due_ms, "it would sleep past {due_ms} until {wake_ms}");
                    }
                    self.now_ms = wake_ms;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn nothing_due_is_forgotten(ops in prop::collection::vec(any_op(), 1..160)) {
        let mut model = Model::new();
        for op in ops {
            model.apply(op)?;
        }
        model.run_dry()?;
    }

    #[test]
    fn without_interference_every_attempt_can_be_settled(ops in prop::collection::vec(any_op(), 1..160)) {
        let mut model = Model::new();
        for op in ops.into_iter().filter(|op| !matches!(op, Op::Redrive(_) | Op::Erase(_))) {
            model.apply(op)?;
        }
        model.run_dry()?;
        prop_assert!(!model.interfered);
    }
}
