//! Who is tried when: limits, fairness, backlogs, replays, endpoints that are switched off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postrider::core::delivery::{Dead, DeadReason, DeliveryId, DeliveryState, Pending};
use postrider::core::endpoint::{DEFAULT_APP, Endpoint};
use postrider::core::fact::Standing;
use postrider::core::id::EventId;
use postrider::core::retry::RetryPolicy;
use postrider::store::{Redriven, Store};

use crate::world::{Answer, PausedClock, START_MS, World, endpoint, ep, pass_ms};

/// Enabled, as the daemon tells the store of every endpoint at its start.
async fn enable(world: &World, name: &str) {
    world.store.set_standing(ep(name), DEFAULT_APP, name, Standing::Enabled).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_delays_no_other() {
    let endpoints = vec![endpoint("slow"), endpoint("quick")];
    let world = World::new(PausedClock::new(), endpoints, |job| match job.endpoint.name.as_str() {
        "slow" => Answer::Timeout(30_000),
        _ => Answer::Status(10, 200),
    });
    let running = world.start();
    for _ in 0..2_000 {
        world.accept(&["slow", "quick"]).await;
        pass_ms(50).await;
    }
    let tried = world.courier.tried();
    let quick: Vec<_> = tried.iter().filter(|tried| tried.endpoint == ep("quick")).collect();
    assert_eq!(quick.len(), 2_000);
    // Tried in the very millisecond in which it was accepted, although the slow one has a backlog by then.
    for tried in quick {
        assert_eq!(tried.at_ms, tried.event.ms());
    }
    assert_eq!(world.courier.most_in_flight().1, 64);
    assert_eq!(world.metrics.attempts.get("delivered"), 2_000);
    assert!(world.metrics.failures.get("timeout") >= 64);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_is_tried_some_sixty_times_per_second_until_it_is_back() {
    let is_back = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&is_back);
    let world = World::new(PausedClock::new(), vec![endpoint("dead")], move |_| {
        Answer::Status(1, if answers.load(Ordering::Relaxed) { 200 } else { 503 })
    });
    for _ in 0..3_000 {
        world.accept(&["dead"]).await;
    }
    let running = world.start();
    pass_ms(20_000).await;
    let tried = world.courier.tried().len();
    assert!((1_000..1_500).contains(&tried), "{tried} attempts in 20 s");
    is_back.store(true, Ordering::Relaxed);
    pass_ms(2_000).await;
    // Those that were never tried are delivered at once; those that failed wait for their retry.
    assert!(world.courier.tried().len() >= 3_000);
    assert!(world.store.stats().pending <= tried as u64 + 64);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn limits_hold_over_all_endpoints_and_at_each() {
    let names: Vec<String> = (0..8).map(|n| format!("e{n}")).collect();
    let endpoints = names.iter().map(|name| Endpoint { in_flight_max: 3, ..endpoint(name) }).collect();
    let mut world = World::new(PausedClock::new(), endpoints, |_| Answer::Status(100, 200));
    world.limits.in_flight_max = 10;
    let running = world.start();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    for _ in 0..50 {
        world.accept(&all).await;
    }
    // 400 attempts of 100 ms, never more than ten at once: no faster than 4 s, and not much slower.
    pass_ms(3_900).await;
    assert!(world.store.stats().pending > 0);
    pass_ms(700).await;
    assert_eq!(world.store.stats().pending, 0);
    assert_eq!(world.courier.tried().len(), 400);
    let (over_all, at_one) = world.courier.most_in_flight();
    assert!((9..=10).contains(&over_all) && (2..=3).contains(&at_one), "{over_all} over all, {at_one} at one");
    assert_eq!(world.metrics.in_flight.load(std::sync::atomic::Ordering::Relaxed), 0);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_larger_than_the_window_drains_in_order_of_due() {
    let mut world = World::new(PausedClock::new(), vec![endpoint("app")], |_| Answer::Status(1, 200));
    world.limits.window_max = 10_000;
    for i in 0..100_000 {
        if i % 100 == 0 {
            pass_ms(1).await;
        }
        world.accept(&["app"]).await;
    }
    let running = world.start();
    pass_ms(100_000).await;
    assert_eq!(world.store.stats().pending, 0);
    let tried = world.courier.tried();
    assert_eq!(tried.len(), 100_000, "each once");
    assert!(
        tried.windows(2).all(|pair| pair[0].event < pair[1].event),
        "fresh events are due in the order of their ids"
    );
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_replay_in_the_middle_of_a_backlog_waits_its_turn_and_is_made_once() {
    let app = Endpoint { in_flight_max: 2, ..endpoint("app") };
    let first_try_fails = |number, event: EventId| number == 1 && event.ms() == START_MS;
    let mut world = World::new(PausedClock::new(), vec![app], move |job| {
        Answer::Status(10, if first_try_fails(job.number, job.event.meta.id) { 400 } else { 200 })
    });
    world.limits.window_max = 16;
    let running = world.start();
    let dead = world.accept(&["app"]).await;
    pass_ms(20).await;
    assert!(matches!(world.state(dead, "app").await, DeliveryState::Dead(Dead { reason: DeadReason::Rejected, .. })));
    for _ in 0..300 {
        world.accept(&["app"]).await;
    }
    pass_ms(500).await;
    let delivery = DeliveryId { endpoint: ep("app"), event: dead };
    assert_eq!(world.store.redrive(delivery).await.unwrap(), Redriven::Due);
    assert_eq!(world.store.redrive(delivery).await.unwrap(), Redriven::AlreadyDue);
    pass_ms(2_000).await;
    let tried = world.courier.tried();
    assert_eq!(world.store.stats().pending, 0);
    let last = tried.last().unwrap();
    assert_eq!((last.event, last.number), (dead, 2), "everything that was due before it comes first");
    let mut times = BTreeMap::new();
    tried.iter().for_each(|tried| *times.entry(tried.event).or_insert(0) += 1);
    assert!(times.iter().all(|(event, count)| *count == if *event == dead { 2 } else { 1 }));
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn gone_switches_an_endpoint_off_until_it_is_enabled() {
    let app = Endpoint { in_flight_max: 1, ..endpoint("app") };
    let world = World::new(PausedClock::new(), vec![app], |job| {
        Answer::Status(10, if job.event.meta.id.ms() == START_MS { 410 } else { 200 })
    });
    enable(&world, "app").await;
    let running = world.start();
    let gone = world.accept(&["app"]).await;
    pass_ms(1).await;
    for _ in 0..5 {
        world.accept(&["app"]).await;
    }
    pass_ms(86_400_000).await;
    assert!(matches!(world.state(gone, "app").await, DeliveryState::Dead(Dead { reason: DeadReason::Gone, .. })));
    assert_eq!((world.courier.tried().len(), world.store.stats().pending), (1, 5));
    world.accept(&["app"]).await;
    enable(&world, "app").await;
    pass_ms(1_000).await;
    assert_eq!((world.courier.tried().len(), world.store.stats().pending), (7, 0));
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_switch_off_and_remove() {
    let world = World::new(PausedClock::new(), vec![endpoint("off"), endpoint("removed")], |_| Answer::Status(10, 503));
    let running = world.start();
    let event = world.accept(&["off", "removed"]).await;
    pass_ms(1_000).await;
    let since_ms = world.store.now_ms();
    world.store.set_standing(ep("off"), DEFAULT_APP, "off", Standing::Disabled { since_ms }).await.unwrap();
    world.store.set_standing(ep("removed"), DEFAULT_APP, "removed", Standing::Removed { since_ms }).await.unwrap();
    pass_ms(86_400_000).await;
    assert_eq!(world.courier.tried().len(), 2, "no retry");
    assert!(matches!(world.state(event, "off").await, DeliveryState::Pending(Pending { attempts: 1, .. })));
    let removed = world.state(event, "removed").await;
    assert!(matches!(removed, DeliveryState::Dead(Dead { reason: DeadReason::EndpointRemoved, .. })));
    enable(&world, "off").await;
    pass_ms(1).await;
    assert_eq!(world.courier.tried().last().unwrap().number, 2, "what is long due is tried at once");
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_before_its_time_hastens_a_retry() {
    let retry = RetryPolicy::list(&[3_600, 3_600], 0.0).unwrap();
    let world = World::new(PausedClock::new(), vec![Endpoint { retry, ..endpoint("app") }], |_| Answer::Status(0, 500));
    let running = world.start();
    let event = world.accept(&["app"]).await;
    pass_ms(60_000).await;
    assert_eq!(world.store.redrive(DeliveryId { endpoint: ep("app"), event }).await.unwrap(), Redriven::Due);
    pass_ms(2 * 3_600_000 - 1).await;
    let at: Vec<_> = world.courier.tried().iter().map(|tried| tried.at_ms - START_MS).collect();
    // The schedule starts again with the replay; the retry that it replaced is not made.
    assert_eq!(at, [0, 60_000, 3_660_000]);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn what_is_erased_while_it_waits_is_not_sent() {
    let world = World::new(PausedClock::new(), vec![endpoint("app")], |_| Answer::Status(10, 503));
    let running = world.start();
    let erased = world.accept(&["app"]).await;
    let kept = world.accept(&["app"]).await;
    pass_ms(1_000).await;
    assert!(world.store.erase(erased).await.unwrap());
    pass_ms(86_400_000).await;
    let tries = |event| world.courier.tried().iter().filter(|tried| tried.event == event).count();
    assert_eq!((tries(erased), tries(kept)), (1, 7));
    assert_eq!(world.metrics.attempts.get("stale"), 0);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn what_is_erased_during_an_attempt_is_settled_too_late() {
    let world = World::new(PausedClock::new(), vec![endpoint("app")], |_| Answer::Status(1_000, 503));
    let running = world.start();
    let event = world.accept(&["app"]).await;
    pass_ms(500).await;
    assert!(world.store.erase(event).await.unwrap());
    pass_ms(86_400_000).await;
    assert_eq!((world.courier.tried().len(), world.metrics.attempts.get("stale")), (1, 1));
    // The lane has recovered from its doubt.
    world.accept(&["app"]).await;
    pass_ms(1).await;
    assert_eq!(world.courier.tried().len(), 2);
    drop(running);
}
