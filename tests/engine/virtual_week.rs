//! A week of retries in milliseconds: attempt times are exactly those of the schedule and its jitter, whatever the wall
//! clock does meanwhile.

use std::sync::{Arc, Mutex};

use postrider::core::attempt::Attempt;
use postrider::core::delivery::{Dead, DeadReason, DeliveryState};
use postrider::core::endpoint::Endpoint;
use postrider::core::retry::RetryPolicy;
use postrider::engine::{Drained, Stop};
use postrider::env::{Entropy, SeededEntropy};
use postrider::store::{AttemptRecord, Store};

use crate::world::{Answer, PausedClock, Tried, World, endpoint, ep, pass_ms};

const HOUR_MS: u64 = 3_600_000;
const WEEK_MS: u64 = 7 * 24 * HOUR_MS;

/// Remembers each random number that a retry was lengthened by.
struct Recorded {
    inner: SeededEntropy,
    units: Mutex<Vec<f64>>,
}

impl Entropy for Recorded {
    fn fill(&self, buffer: &mut [u8]) {
        self.inner.fill(buffer);
    }

    fn unit(&self) -> f64 {
        let unit = self.inner.unit();
        self.units.lock().unwrap().push(unit);
        unit
    }
}

/// Three schedules; together they fill a week.
fn schedules() -> Vec<(&'static str, RetryPolicy, u64)> {
    vec![
        ("default", RetryPolicy::default(), 137),
        ("standard", RetryPolicy::preset("standard-webhooks", None).unwrap(), 251),
        ("daily", RetryPolicy::list(&[86_400; 6], 0.1).unwrap(), 29_999),
    ]
}

fn endpoints() -> Vec<Endpoint> {
    schedules().into_iter().map(|(name, retry, _)| Endpoint { retry, ..endpoint(name) }).collect()
}

/// Runs a week in which every attempt fails, with the wall clock stepping by so much once a day.
async fn week(wall_step_ms: i64) -> (World, Arc<Recorded>, Vec<AttemptRecord>) {
    let clock = PausedClock::new();
    let latency = |name: &str| schedules().into_iter().find(|(other, ..)| *other == name).unwrap().2;
    let mut world = World::new(clock.clone(), endpoints(), move |job| Answer::Status(latency(&job.endpoint.name), 503));
    let entropy = Arc::new(Recorded { inner: SeededEntropy::new(42), units: Mutex::default() });
    world.entropy = entropy.clone();
    let running = world.start();
    let event = world.accept(&["default", "standard", "daily"]).await;
    for _ in 0..7 {
        pass_ms(WEEK_MS / 7).await;
        clock.step_wall(wall_step_ms);
    }
    let mut attempts = world.store.attempts(event).await.unwrap().unwrap();
    attempts.sort_by_key(|record| record.attempt.ended_ms);
    for (name, retry, _) in schedules() {
        let tries = retry.retries() as u32 + 1;
        let state = world.state(event, name).await;
        let dead = matches!(state, DeliveryState::Dead(Dead { reason: DeadReason::MaxRetries, attempts, .. }) if attempts == tries);
        assert!(dead, "{name} is {state:?}");
    }
    running.say(Stop::Drain);
    assert_eq!(running.end().await.unwrap(), Drained::default());
    (world, entropy, attempts)
}

fn check(entropy: &Recorded, attempts: &[AttemptRecord], tried: &[Tried]) {
    let units = entropy.units.lock().unwrap().clone();
    // One random number per attempt, drawn when it ends; no two end in the same millisecond, so the order tells whose.
    assert_eq!(units.len(), attempts.len());
    assert!(attempts.windows(2).all(|pair| pair[0].attempt.ended_ms < pair[1].attempt.ended_ms));
    for (name, retry, latency_ms) in schedules() {
        let own: Vec<(&Attempt, f64)> = attempts
            .iter()
            .zip(&units)
            .filter(|(record, _)| record.endpoint == ep(name))
            .map(|(record, unit)| (&record.attempt, *unit))
            .collect();
        assert_eq!(own.len(), retry.retries() + 1);
        for (failures, pair) in (1..).zip(own.windows(2)) {
            let ((before, unit), (after, _)) = (pair[0], pair[1]);
            assert_eq!(before.ended_ms, before.started_ms + latency_ms);
            assert_eq!(
                after.started_ms,
                before.ended_ms + retry.delay_ms(failures, unit).unwrap(),
                "{name}: retry {failures}"
            );
            assert_eq!((before.number, after.number), (failures, failures + 1));
        }
        let seen: Vec<u64> = tried.iter().filter(|tried| tried.endpoint == ep(name)).map(|tried| tried.at_ms).collect();
        assert_eq!(seen, own.iter().map(|(attempt, _)| attempt.started_ms).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_made_exactly_when_the_schedule_says() {
    let (world, entropy, attempts) = week(0).await;
    check(&entropy, &attempts, &world.courier.tried());
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_steps_changes_nothing() {
    let (still, ..) = week(0).await;
    let first = |world: &World| world.courier.tried()[0].at_ms;
    let relative = |world: &World| -> Vec<_> {
        world.courier.tried().iter().map(|tried| (tried.endpoint, tried.number, tried.at_ms - first(world))).collect()
    };
    for step_ms in [13 * HOUR_MS as i64, -13 * (HOUR_MS as i64)] {
        let (world, entropy, attempts) = week(step_ms).await;
        check(&entropy, &attempts, &world.courier.tried());
        assert_eq!(relative(&world), relative(&still));
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_with_nothing_due_does_not_wake() {
    let world = World::new(PausedClock::new(), endpoints(), |_| Answer::Status(10, 503));
    let running = world.start();
    world.accept(&["daily"]).await;
    pass_ms(1_000).await;
    // The store's time is read in every round of the engine, and by nobody else while nothing happens.
    let looks = world.looks();
    pass_ms(23 * HOUR_MS).await;
    assert_eq!(world.looks(), looks);
    pass_ms(4 * HOUR_MS).await;
    assert_eq!(world.courier.tried().len(), 2, "the retry after a day and up to a tenth of it");
    assert!(world.looks() > looks);
    drop(running);
}
