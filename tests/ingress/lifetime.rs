//! Slow, idle, many and stopping: connections over time.

use std::time::Duration;

use postrider::core::limits::IngressLimits;
use tokio::time::timeout;

use crate::gateway::{Client, Gateway, PATIENCE};

const BODY: &[u8] = br#"{"id":"evt_1"}"#;

/// Limits that nothing here should run into.
fn patient() -> IngressLimits {
    IngressLimits {
        header_timeout_ms: 60_000,
        body_timeout_ms: 60_000,
        idle_timeout_ms: 60_000,
        accept_timeout_ms: 60_000,
        ..IngressLimits::default()
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_or_trickles_ends_the_connection() {
    let gateway = Gateway::with(IngressLimits { header_timeout_ms: 100, ..patient() }).await;
    let mut silent = gateway.connect().await;
    assert!(silent.is_closed().await);

    let mut started = gateway.connect().await;
    started.send("POST /in/stripe HTTP/1.1\r\nHost: ga").await;
    assert!(started.is_closed().await);

    // Each byte comes in time, the head does not.
    let mut trickling = gateway.connect().await;
    while trickling.send("x").await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(trickling.is_closed().await);

    // Also on a connection that has served before.
    let mut used = gateway.connect().await;
    used.send(gateway.request(BODY)).await;
    assert_eq!(used.answer().await.status, 200);
    used.send("POST /in/stripe HTTP/1.1\r\n").await;
    assert!(used.is_closed().await);
}

#[tokio::test]
async fn idling_is_not_trickling() {
    let gateway = Gateway::with(IngressLimits { header_timeout_ms: 100, ..patient() }).await;
    let mut client = gateway.connect().await;
    for _ in 0..2 {
        client.send(gateway.request(BODY)).await;
        assert_eq!(client.answer().await.status, 200);
        // Longer than a head may take.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let gateway = Gateway::with(IngressLimits { idle_timeout_ms: 100, ..patient() }).await;
    let mut client = gateway.connect().await;
    client.send(gateway.request(BODY)).await;
    assert_eq!(client.answer().await.status, 200);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_body_that_stalls_is_a_408() {
    let gateway = Gateway::with(IngressLimits { body_timeout_ms: 100, ..patient() }).await;
    for payload in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let mut client = gateway.connect().await;
        client.send(format!("POST /in/stripe HTTP/1.1\r\nHost: gateway\r\n{payload}")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
        assert!(answer.closes() && client.is_closed().await);
    }
    assert_eq!(gateway.metrics.refused.get("body_timeout"), 2);
}

#[tokio::test]
async fn a_body_that_is_too_slow_is_a_408_long_before_its_deadline() {
    let gateway = Gateway::with(IngressLimits { body_rate_min_bytes_s: 1 << 10, ..patient() }).await;
    let mut client = gateway.connect().await;
    client.send("POST /in/stripe HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10000\r\n\r\nabc").await;
    assert_eq!(client.answer().await.code(), "body_timeout");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    let other = br#"{"id":"evt_2"}"#;
    let unknown = b"POST /in/nobody HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n";
    let requests = [&gateway.request(BODY), &unknown[..], &gateway.request(other), &gateway.request(BODY)].concat();
    client.send(requests).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(client.answer().await);
    }
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 404, 200, 200]);
    assert_eq!(answers[3].field("id"), answers[0].field("id"));
}

#[tokio::test]
async fn a_client_that_has_finished_sending_still_gets_its_answer() {
    let gateway = Gateway::with(patient()).await;
    gateway.store.stall(true);
    let mut client = gateway.connect().await;
    client.send(gateway.request(BODY)).await;
    client.finish_sending().await;
    gateway.store.stall(false);
    assert_eq!(client.answer().await.status, 200);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn past_the_limit_connections_wait_for_a_slot() {
    let gateway = Gateway::with(IngressLimits { connections_max: 1, ..patient() }).await;
    let mut first = gateway.connect().await;
    first.send(gateway.request(BODY)).await;
    assert_eq!(first.answer().await.status, 200);
    let mut second = gateway.connect().await;
    second.send(gateway.request(BODY)).await;
    first.send(gateway.request(BODY)).await;
    assert_eq!(first.answer().await.status, 200);
    drop(first);
    assert_eq!(second.answer().await.status, 200);
}

#[tokio::test]
async fn stopping_closes_what_idles_and_finishes_what_runs() {
    let gateway = Gateway::with(patient()).await;
    let mut idle = gateway.connect().await;
    idle.send(gateway.request(BODY)).await;
    assert_eq!(idle.answer().await.status, 200);

    gateway.store.stall(true);
    let mut running = running(&gateway, br#"{"id":"evt_2"}"#).await;
    gateway.stop.send(true).unwrap();
    assert!(idle.is_closed().await);
    assert!(tokio::net::TcpStream::connect(gateway.addr).await.is_err(), "the listener is closed");
    gateway.store.stall(false);
    let answer = running.answer().await;
    assert_eq!((answer.status, answer.closes()), (200, true));
    assert!(running.is_closed().await);
    timeout(PATIENCE, gateway.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_is_cut_off() {
    let gateway = Gateway::draining(patient(), 50).await;
    gateway.store.stall(true);
    let mut client = running(&gateway, BODY).await;
    gateway.stop.send(true).unwrap();
    assert!(client.try_answer().await.is_none());
    assert!(gateway.stored().await.is_empty());
    timeout(PATIENCE, gateway.served).await.unwrap().unwrap();
}

/// A client whose request is known to run: its handler has asked for the body.
async fn running(gateway: &Gateway, body: &[u8]) -> Client {
    let mut client = gateway.connect().await;
    let request = gateway.request(body);
    let head = String::from_utf8(request[..request.len() - body.len()].to_vec()).unwrap();
    client.send(head.replacen("Host:", "Expect: 100-continue\r\nHost:", 1)).await;
    assert_eq!(client.answer().await.status, 100);
    client.send(body).await;
    client
}
