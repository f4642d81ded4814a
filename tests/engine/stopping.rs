//! How it ends: drained, at once, by a store that fails, and how it goes on after a bug in an attempt.

use std::sync::Arc;

use postrider::core::delivery::{DeliveryState, Pending};
use postrider::engine::{Drained, EngineError, Stop};
use postrider::store::{Store, StoreError};

use crate::world::{Answer, PausedClock, START_MS, World, endpoint, pass_ms};

fn world(script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> World {
    let endpoints = vec![endpoint("quick"), endpoint("slow"), endpoint("hanging")];
    World::new(PausedClock::new(), endpoints, move |job| script(&job.endpoint.name))
}

fn by_name(name: &str) -> Answer {
    match name {
        "quick" => Answer::Status(10, 200),
        "slow" => Answer::Status(20_000, 200),
        _ => Answer::Timeout(3_600_000),
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_it_can_and_starts_nothing() {
    let world = world(by_name);
    let running = world.start();
    let event = world.accept(&["quick", "slow", "hanging"]).await;
    world.accept(&["slow", "hanging"]).await;
    pass_ms(1_000).await;
    running.say(Stop::Drain);
    pass_ms(1_000).await;
    let late = world.accept(&["quick"]).await;
    assert_eq!(running.end().await.unwrap(), Drained { finished: 2, abandoned: 2 });
    assert_eq!(world.store.now_ms(), START_MS + 1_000 + world.limits.drain_ms);
    assert_eq!(world.state(event, "slow").await, DeliveryState::Delivered);
    assert_eq!(world.state(event, "hanging").await, DeliveryState::Pending(Pending::fresh(START_MS)));
    assert!(matches!(world.state(late, "quick").await, DeliveryState::Pending(_)));
    assert_eq!(Arc::strong_count(&world.store), 1, "nothing holds the store any longer");

    // The next start is the recovery.
    let running = world.start();
    pass_ms(100).await;
    assert_eq!(world.state(late, "quick").await, DeliveryState::Delivered);
    assert_eq!(world.courier.tried().iter().filter(|tried| tried.number == 1).count(), 8);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_drain_with_nothing_in_flight_ends_at_once() {
    let world = world(by_name);
    let running = world.start();
    world.accept(&["quick"]).await;
    pass_ms(100).await;
    running.say(Stop::Drain);
    assert_eq!(running.end().await.unwrap(), Drained::default());
    assert_eq!(world.store.now_ms(), START_MS + 100);
}

#[tokio::test(start_paused = true)]
async fn a_second_word_cuts_the_drain_short() {
    let world = world(by_name);
    let running = world.start();
    world.accept(&["hanging"]).await;
    pass_ms(1_000).await;
    running.say(Stop::Drain);
    pass_ms(1_000).await;
    running.say(Stop::Now);
    assert_eq!(running.end().await.unwrap(), Drained { finished: 0, abandoned: 1 });
    assert_eq!(world.store.now_ms(), START_MS + 2_000);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_ends_the_engine() {
    let world = world(by_name);
    let running = world.start();
    world.accept(&["slow"]).await;
    pass_ms(1_000).await;
    world.store.fail_with(Some(StoreError::Failed("fdatasync: input/output error".into())));
    let error = running.end().await.unwrap_err();
    assert!(matches!(error, EngineError::Store(StoreError::Failed(_))));
    assert_eq!(Arc::strong_count(&world.store), 1, "nothing holds the store any longer");
    assert_eq!(error.to_string(), "deliveries stopped: storage failed: fdatasync: input/output error");
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_an_attempt_costs_a_minute_and_no_delivery() {
    let endpoints = vec![endpoint("app")];
    let world = World::new(PausedClock::new(), endpoints, |job| {
        if job.event.meta.id.ms() == START_MS { Answer::Panic } else { Answer::Status(10, 200) }
    });
    let running = world.start();
    let cursed = world.accept(&["app"]).await;
    pass_ms(1).await;
    let other = world.accept(&["app"]).await;
    pass_ms(150_000).await;
    assert_eq!(world.state(other, "app").await, DeliveryState::Delivered);
    assert_eq!(world.state(cursed, "app").await, DeliveryState::Pending(Pending::fresh(START_MS)));
    let tried: Vec<_> = world.courier.tried().into_iter().filter(|tried| tried.event == cursed).collect();
    assert_eq!(tried.iter().map(|tried| tried.at_ms - START_MS).collect::<Vec<_>>(), [0, 60_000, 120_000]);
    assert!(tried.iter().all(|tried| tried.number == 1), "an attempt that was not recorded does not count");
    assert_eq!(world.metrics.in_flight.load(std::sync::atomic::Ordering::Relaxed), 0);
    running.say(Stop::Drain);
    assert_eq!(running.end().await.unwrap(), Drained::default());
}
