//! Turns, places, loads and wakes over several lanes.

use proptest::prelude::*;

use super::*;
use crate::core::delivery::Pending;
use crate::core::id::EventId;

fn ep(number: u128) -> EndpointId {
    EndpointId::from_u128(number)
}

fn due(number: u128, due_ms: u64) -> Due {
    Due { event: EventId::from_u128(number), pending: Pending::fresh(due_ms) }
}

fn limits(in_flight_max: usize, window_max: usize) -> DeliveryLimits {
    DeliveryLimits { in_flight_max, window_max, ..DeliveryLimits::default() }
}

/// A plan whose lanes have loaded what the store holds: nothing.
fn loaded_plan(endpoints: &[(u128, usize)], in_flight_max: usize) -> Plan {
    let endpoints = endpoints.iter().map(|(number, max)| (ep(*number), *max));
    let mut plan = Plan::new(endpoints, &limits(in_flight_max, 100_000), 0);
    while let Some(order) = plan.next(0) {
        let Order::Load { endpoint, load } = order else { panic!("nothing is known yet, got {order:?}") };
        assert_eq!(load.after, None);
        plan.loaded(endpoint, &[], 0);
    }
    plan
}

fn tell(plan: &mut Plan, endpoint: u128, due: Vec<Due>, now_ms: u64) {
    plan.news(ep(endpoint), &LaneHints { due, ..LaneHints::default() }, now_ms);
}

/// Starts all that can start; counts by endpoint.
fn start_all(plan: &mut Plan, now_ms: u64) -> Vec<DeliveryId> {
    let mut started = Vec::new();
    while let Some(order) = plan.next(now_ms) {
        if let Order::Start { endpoint, due } = order {
            started.push(DeliveryId { endpoint, event: due.event });
        }
    }
    started
}

#[test]
fn endpoints_that_hang_leave_places_for_a_healthy_one() {
    let healthy = 99;
    let mut endpoints: Vec<_> = (0..32).map(|n| (n, 64)).collect();
    endpoints.push((healthy, 64));
    let mut plan = loaded_plan(&endpoints, 1_024);
    for n in 0..32 {
        tell(&mut plan, n, (0..200).map(|i| due(n * 1_000 + i, 0)).collect(), 0);
    }
    let hanging = start_all(&mut plan, 0);
    assert!(hanging.len() < 1_024, "{} of 1024 places are taken by endpoints that hang", hanging.len());

    // The healthy one is never told to wait: a hundred events in a row start at once.
    for i in 0..100 {
        tell(&mut plan, healthy, vec![due(1_000_000 + i, 1)], 1);
        let started = start_all(&mut plan, 1);
        assert_eq!(started.iter().map(|d| d.endpoint).collect::<Vec<_>>(), [ep(healthy)]);
        plan.ended(started[0], Health::Well, 1);
        plan.released(started[0], Release::Settled, 1);
    }

    // A burst gets half of the free places at once, and its fair share as attempts that hang time out and are made again.
    tell(&mut plan, healthy, (0..100).map(|i| due(2_000_000 + i, 2)).collect(), 2);
    let burst = start_all(&mut plan, 2);
    assert!(burst.len() >= 15 && burst.iter().all(|d| d.endpoint == ep(healthy)), "{} started", burst.len());
    let mut healthy_in_flight = burst.len();
    for delivery in hanging {
        plan.released(delivery, Release::Hold { until_ms: 30_000 }, 3);
        healthy_in_flight += start_all(&mut plan, 3).iter().filter(|d| d.endpoint == ep(healthy)).count();
    }
    assert!(healthy_in_flight >= 1_024 / 33, "{healthy_in_flight} in flight");
}

#[test]
fn equals_take_turns() {
    let mut plan = loaded_plan(&[(1, 8), (2, 8), (3, 8)], 1);
    for n in 1..=3 {
        tell(&mut plan, n, (0..4).map(|i| due(n * 10 + i, 0)).collect(), 0);
    }
    let mut order = Vec::new();
    for _ in 0..12 {
        let started = start_all(&mut plan, 0);
        assert_eq!(started.len(), 1);
        order.push(started[0].endpoint.as_u128());
        plan.released(started[0], Release::Settled, 0);
    }
    assert_eq!(order, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]);
    assert_eq!(start_all(&mut plan, 0), []);
}

#[test]
fn attempts_do_not_run_ahead_of_a_store_that_stalls() {
    let endpoints: Vec<_> = (0..8).map(|n| (n, 64)).collect();
    let mut plan = loaded_plan(&endpoints, 4);
    (0..8).for_each(|n| tell(&mut plan, n, (0..20).map(|i| due(n * 100 + i, 0)).collect(), 0));
    let mut leased = Vec::new();
    loop {
        let started = start_all(&mut plan, 0);
        if started.is_empty() {
            break;
        }
        started.iter().for_each(|delivery| plan.ended(*delivery, Health::Well, 0));
        leased.extend(started);
    }
    assert_eq!((leased.len(), plan.leases()), (4 * LEASES_PER_PLACE, 4 * LEASES_PER_PLACE));
    plan.released(leased[0], Release::Settled, 0);
    assert_eq!(start_all(&mut plan, 0).len(), 1);
}

#[test]
fn it_wakes_for_the_first_that_is_due() {
    let mut plan = loaded_plan(&[(1, 8), (2, 8)], 8);
    assert_eq!(plan.next_wake(), None);
    tell(&mut plan, 1, vec![due(1, 700)], 0);
    tell(&mut plan, 2, vec![due(2, 300), due(3, 900)], 0);
    assert_eq!((plan.next(299), plan.next_wake()), (None, Some(300)));
    assert_eq!(start_all(&mut plan, 300).len(), 1);
    assert_eq!(plan.next_wake(), Some(700));
    plan.set_enabled(ep(1), false, 300);
    assert_eq!(plan.next_wake(), Some(900));
}

#[test]
fn endpoints_that_are_not_configured_do_not_exist() {
    let mut plan = loaded_plan(&[(1, 8)], 8);
    tell(&mut plan, 7, vec![due(1, 0)], 0);
    plan.set_enabled(ep(7), true, 0);
    plan.loaded(ep(7), &[due(1, 0)], 0);
    plan.released(DeliveryId { endpoint: ep(7), event: EventId::MIN }, Release::Stale, 0);
    assert_eq!((plan.next(0), plan.next_wake(), plan.in_flight()), (None, None, 0));
}

#[derive(Debug, Clone)]
enum Op {
    Tell(u8, u8, u16),
    End(u16),
    Release(u16, u8),
    Enable(u8, bool),
    Advance(u8),
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..5u8, 1..8u8, 0..200u16).prop_map(|(lane, count, ahead)| Op::Tell(lane, count, ahead)),
        4 => any::<u16>().prop_map(Op::End),
        6 => (any::<u16>(), any::<u8>()).prop_map(|(i, how)| Op::Release(i, how)),
        1 => (0..5u8, any::<bool>()).prop_map(|(lane, enabled)| Op::Enable(lane, enabled)),
        4 => any::<u8>().prop_map(Op::Advance),
    ]
}

/// Limits hold, and no place stays empty that a lane could take.
fn check(plan: &mut Plan, running: &[DeliveryId], places: usize, now_ms: u64) -> Result<(), TestCaseError> {
    prop_assert_eq!(plan.in_flight(), running.len());
    prop_assert!(running.len() <= places);
    prop_assert!(plan.next_wake().is_none_or(|wake_ms| wake_ms > now_ms), "it would spin");
    let (free, full) = (places - running.len(), plan.leases >= places * LEASES_PER_PLACE);
    for (endpoint, slot) in &mut plan.lanes {
        let count = running.iter().filter(|d| d.endpoint == *endpoint).count();
        prop_assert_eq!(slot.lane.running(), count);
        prop_assert!(count <= endpoint.as_u128() as usize + 1);
        if slot.lane.readiness(now_ms) == Readiness::Now {
            prop_assert!(count >= free || full, "{count} in flight, {free} free, and yet it waits");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn limits_hold_and_no_place_is_wasted(places in 1..12usize, ops in prop::collection::vec(any_op(), 1..80)) {
        // Lane n may have n + 1 attempts in flight.
        let mut plan = loaded_plan(&[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], places);
        let (mut now_ms, mut events) = (0, 0);
        let (mut running, mut settling): (Vec<DeliveryId>, Vec<DeliveryId>) = (Vec::new(), Vec::new());
        for op in ops {
            match op {
                Op::Tell(lane, count, ahead) => {
                    let news = (0..count).map(|i| due(events + u128::from(i), now_ms + u64::from(ahead))).collect();
                    events += u128::from(count);
                    tell(&mut plan, u128::from(lane), news, now_ms);
                }
                Op::End(index) if !running.is_empty() => {
                    let delivery = running.swap_remove(usize::from(index) % running.len());
                    plan.ended(delivery, Health::Well, now_ms);
                    settling.push(delivery);
                }
                Op::Release(index, how) => {
                    let from = if settling.is_empty() { &mut running } else { &mut settling };
                    if !from.is_empty() {
                        let delivery = from.swap_remove(usize::from(index) % from.len());
                        let hold = Release::Hold { until_ms: now_ms + u64::from(how) };
                        plan.released(delivery, if how % 4 == 0 { hold } else { Release::Settled }, now_ms);
                    }
                }
                Op::Enable(lane, enabled) => plan.set_enabled(ep(u128::from(lane)), enabled, now_ms),
                Op::Advance(ms) => now_ms += u64::from(ms),
                Op::End(_) => {}
            }
            while let Some(order) = plan.next(now_ms) {
                match order {
                    Order::Start { endpoint, due } => running.push(DeliveryId { endpoint, event: due.event }),
                    Order::Load { endpoint, .. } => plan.loaded(endpoint, &[], now_ms),
                }
            }
            check(&mut plan, &running, places, now_ms)?;
        }
    }
}
