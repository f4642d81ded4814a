//! Connections between attempts: kept, reused, found broken, replaced.

use std::sync::Arc;

use postrider::core::attempt::FailureKind;
use postrider::core::limits::DeliveryLimits;
use postrider::egress::{Egress, EgressConfig};
use postrider::engine::Courier;
use postrider::env::{ManualClock, RealClock};
use tokio::sync::{Barrier, mpsc};

use super::support::*;

#[tokio::test]
async fn a_kept_connection_is_used_again() {
    let mut receiver = Receiver::answering(response("200 OK", "", "ok")).await;
    let egress = receiver.egress();
    let first = egress.attempt(job(&receiver.url(), 5_000)).await;
    let second = egress.attempt(job(&receiver.url(), 5_000)).await;
    for report in [&first, &second] {
        assert_status(report, 200);
        assert_eq!(report.remote, Some(receiver.addr.to_string()));
        assert!(report.timings.first_byte_us.is_some());
        assert_eq!((report.timings.dns_us, report.timings.tls_us), (None, None));
    }
    assert!(first.timings.connect_us.is_some() && second.timings.connect_us.is_none());
    assert_eq!(receiver.connections(), 1);
    // The pieces fit into the whole.
    assert!(first.timings.connect_us.unwrap() + first.timings.first_byte_us.unwrap() <= first.timings.total_us);
    assert_eq!(receiver.seen().await.body, receiver.seen().await.body);
}

#[tokio::test]
async fn what_asks_to_be_closed_is_closed() {
    for answer in
        [response("200 OK", "connection: close\r\n", "ok"), b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()]
    {
        let receiver = Receiver::answering(answer).await;
        let egress = receiver.egress();
        for connections in 1..=2 {
            let report = egress.attempt(job(&receiver.url(), 5_000)).await;
            assert_status(&report, 200);
            assert_eq!(&report.response[..], b"ok");
            assert_eq!(receiver.connections(), connections);
        }
    }
}

#[tokio::test]
async fn a_body_that_only_the_end_of_the_connection_ends() {
    let receiver = Receiver::start(|mut conn| async move {
        conn.read_request().await?;
        conn.write(b"HTTP/1.1 200 OK\r\n\r\nall of it").await
    })
    .await;
    let report = receiver.attempt(5_000).await;
    assert_status(&report, 200);
    assert_eq!(&report.response[..], b"all of it");
}

#[tokio::test]
async fn a_used_connection_that_breaks_unanswered_is_tried_once_on_a_fresh_one() {
    // The first connection answers once and breaks at the second request; the others answer.
    for break_hard in [false, true] {
        let mut receiver = Receiver::start(move |mut conn| async move {
            conn.read_request().await?;
            conn.write(&response("200 OK", "", "")).await?;
            while conn.read_request().await.is_ok() {
                if conn.nth == 0 {
                    return if break_hard { conn.stream.set_zero_linger() } else { Ok(()) };
                }
                conn.write(&response("200 OK", "", "")).await?;
            }
            Ok(())
        })
        .await;
        let egress = receiver.egress();
        assert_status(&egress.attempt(job(&receiver.url(), 5_000)).await, 200);
        let second = egress.attempt(job(&receiver.url(), 5_000)).await;
        assert_status(&second, 200);
        assert!(second.timings.connect_us.is_some());
        assert_eq!(receiver.connections(), 2);
        // The same event, with the same id, three times.
        let ids = [receiver.seen().await, receiver.seen().await, receiver.seen().await];
        assert!(ids.iter().all(|seen| seen.headers.one("webhook-id") == ids[0].headers.one("webhook-id")));
    }
}

#[tokio::test]
async fn a_fresh_connection_that_breaks_too_is_a_failure() {
    let receiver = Receiver::start(move |mut conn| async move {
        conn.read_request().await?;
        if conn.nth == 0 {
            conn.write(&response("200 OK", "", "")).await?;
            conn.read_request().await?;
        }
        Ok(())
    })
    .await;
    let egress = receiver.egress();
    assert_status(&egress.attempt(job(&receiver.url(), 5_000)).await, 200);
    assert_failed(&egress.attempt(job(&receiver.url(), 5_000)).await, FailureKind::Reset);
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_nothing() {
    let receiver = Receiver::start(move |mut conn| async move {
        conn.read_request().await?;
        // Says nothing about closing, and closes.
        conn.write(&response("200 OK", "", "")).await
    })
    .await;
    let egress = receiver.egress();
    for connections in 1..=5 {
        assert_status(&egress.attempt(job(&receiver.url(), 5_000)).await, 200);
        assert_eq!(receiver.connections(), connections);
    }
}

/// Answers when so many requests wait, each on a connection of its own.
async fn at_once(count: usize) -> Receiver {
    let all = Arc::new(Barrier::new(count));
    Receiver::start(move |mut conn| {
        let all = Arc::clone(&all);
        async move {
            loop {
                conn.read_request().await?;
                all.wait().await;
                conn.write(&response("200 OK", "", "ok")).await?;
            }
        }
    })
    .await
}

async fn attempts(count: usize, egress: &Arc<Egress>, url: &str) {
    let attempt = |_| {
        let (egress, job) = (Arc::clone(egress), job(url, 30_000));
        tokio::spawn(async move { egress.attempt(job).await })
    };
    let attempts: Vec<_> = (0..count).map(attempt).collect();
    for attempt in attempts {
        assert_status(&attempt.await.unwrap(), 200);
    }
}

/// As many as an endpoint may have, and more than that, where several endpoints have the same host.
#[tokio::test]
async fn attempts_at_once_share_no_http1_connection_and_all_are_kept() {
    for count in [32, 200] {
        let receiver = at_once(count).await;
        let egress = Arc::new(receiver.egress());
        for _ in 0..3 {
            attempts(count, &egress, &receiver.url()).await;
        }
        assert_eq!(receiver.connections(), count);
    }
}

#[tokio::test]
async fn a_busy_host_leaves_connections_for_others() {
    let (busy, quiet) = (at_once(4).await, at_once(1).await);
    let limits = DeliveryLimits { in_flight_max: 4, ..DeliveryLimits::default() };
    let mut guard = busy.guard();
    guard.literals.extend(quiet.guard().literals);
    let config = EgressConfig { limits, guard, ..EgressConfig::default() };
    let egress = Arc::new(Egress::new(config, Arc::new(RealClock::new())).unwrap());
    // The quiet host's connection takes the place of one of the busy host's, and keeps it.
    for connections in [4, 5] {
        attempts(4, &egress, &busy.url()).await;
        attempts(1, &egress, &quiet.url()).await;
        assert_eq!((busy.connections(), quiet.connections()), (connections, 1));
    }
}

/// Answers, then says when the connection is closed.
async fn watched() -> (Receiver, mpsc::UnboundedReceiver<usize>) {
    let (closed, was_closed) = mpsc::unbounded_channel();
    let receiver = Receiver::start(move |mut conn| {
        let closed = closed.clone();
        async move {
            while conn.read_request().await.is_ok() {
                conn.write(&response("200 OK", "", "")).await?;
            }
            let _ = closed.send(conn.nth);
            Ok(())
        }
    })
    .await;
    (receiver, was_closed)
}

#[tokio::test]
async fn a_connection_idle_for_too_long_is_not_used() {
    let (receiver, mut was_closed) = watched().await;
    let clock = Arc::new(ManualClock::at(WALL_MS));
    let config = EgressConfig { guard: receiver.guard(), ..EgressConfig::default() };
    let egress = Egress::new(config, clock.clone()).unwrap();
    for (pause_ms, connections) in [(0, 1), (29_999, 1), (29_999, 1), (30_000, 2)] {
        clock.advance(pause_ms);
        assert_status(&egress.attempt(job(&receiver.url(), 5_000)).await, 200);
        assert_eq!(receiver.connections(), connections);
    }
    assert_eq!(was_closed.recv().await, Some(0));
}

#[tokio::test]
async fn idle_connections_are_closed_without_further_attempts() {
    let (receiver, mut was_closed) = watched().await;
    let clock = Arc::new(ManualClock::at(WALL_MS));
    let config = EgressConfig { guard: receiver.guard(), ..EgressConfig::default() };
    let egress = Egress::new(config, clock.clone()).unwrap();
    assert_status(&egress.attempt(job(&receiver.url(), 5_000)).await, 200);
    clock.advance(30_000);
    // From here on the runtime leaps to the next timer, which is the sweep's.
    tokio::time::pause();
    assert_eq!(was_closed.recv().await, Some(0));
}

#[tokio::test]
async fn dropping_the_egress_closes_its_connections() {
    let (receiver, mut was_closed) = watched().await;
    let egress = receiver.egress();
    assert_status(&egress.attempt(job(&receiver.url(), 5_000)).await, 200);
    drop(egress);
    assert_eq!(was_closed.recv().await, Some(0));
}
