//! Where deliveries may go: names, addresses, and what the guard makes of them.

use std::collections::HashSet;
use std::sync::Arc;

use postrider::core::attempt::FailureKind;
use postrider::core::cidr::Cidr;
use postrider::egress::{Egress, EgressConfig, Guard};
use postrider::engine::Courier;
use postrider::env::RealClock;

use super::support::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

fn allowing(ranges: &[&str]) -> Guard {
    Guard { allow: ranges.iter().map(|r| r.parse::<Cidr>().unwrap()).collect(), ..Guard::default() }
}

#[tokio::test]
async fn loopback_is_blocked_in_every_spelling() {
    let receiver = Receiver::answering(OK).await;
    let port = receiver.addr.port();
    let egress = egress(Guard::default());
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ] {
        let report = egress.attempt(job(&format!("http://{host}:{port}/"), 5_000)).await;
        let detail = assert_failed(&report, FailureKind::Blocked);
        assert!(detail.contains("egress.allow"), "{detail}");
        assert_eq!((report.remote, report.timings.connect_us), (None, None), "{host}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_name_that_resolves_to_loopback_is_blocked_unless_it_is_the_literal() {
    let receiver = Receiver::answering(OK).await;
    let port = receiver.addr.port();
    let literal = |host: &str| Guard { literals: HashSet::from([(host.to_owned(), port)]), ..Guard::default() };
    let url = |host: &str| format!("http://{host}:{port}/");

    let rebound = Scripted::new(&[&["127.0.0.1"]]).egress(literal("127.0.0.1"));
    assert_failed(&rebound.attempt(job(&url("app.example"), 5_000)).await, FailureKind::Blocked);
    assert_failed(&egress(literal("127.0.0.1")).attempt(job(&url("localhost"), 5_000)).await, FailureKind::Blocked);
    assert_eq!(receiver.connections(), 0);

    let localhost = Scripted::new(&[&["127.0.0.1"]]).egress(literal("localhost"));
    let report = localhost.attempt(job(&url("localhost"), 5_000)).await;
    assert_status(&report, 200);
    assert!(report.timings.dns_us.is_some());
    assert_status(&egress(literal("127.0.0.1")).attempt(job(&url("127.0.0.1"), 5_000)).await, 200);
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn one_denied_address_among_many_blocks() {
    let receiver = Receiver::answering(OK).await;
    let egress = Scripted::new(&[&["127.0.0.1", "10.0.0.1"]]).egress(allowing(&["127.0.0.0/8"]));
    let report = egress.attempt(job(&format!("http://app.example:{}/", receiver.addr.port()), 5_000)).await;
    assert!(assert_failed(&report, FailureKind::Blocked).contains("10.0.0.1"));
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_name_that_flips_between_attempts_is_blocked() {
    let receiver = Receiver::answering(OK).await;
    let egress = Scripted::new(&[&["127.0.0.1"], &["127.0.0.2"]]).egress(allowing(&["127.0.0.1/32"]));
    let url = format!("http://app.example:{}/", receiver.addr.port());
    assert_status(&egress.attempt(job(&url, 5_000)).await, 200);
    assert_failed(&egress.attempt(job(&url, 5_000)).await, FailureKind::Blocked);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn own_listeners_are_blocked_whatever_is_allowed() {
    let receiver = Receiver::answering(OK).await;
    let port = receiver.addr.port();
    for own in [receiver.addr, format!("0.0.0.0:{port}").parse().unwrap(), format!("[::]:{port}").parse().unwrap()] {
        let guard = Guard { own: vec![own], allow: allowing(&["0.0.0.0/0", "::/0"]).allow, ..receiver.guard() };
        let report = egress(guard).attempt(job(&receiver.url(), 5_000)).await;
        assert!(assert_failed(&report, FailureKind::Blocked).contains("the gateway itself"));
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_port_that_is_not_allowed_is_blocked() {
    let receiver = Receiver::answering(OK).await;
    let guard = Guard { ports: Some(vec![443]), ..allowing(&["127.0.0.0/8"]) };
    let report = egress(guard).attempt(job(&receiver.url(), 5_000)).await;
    assert!(assert_failed(&report, FailureKind::Blocked).contains("egress.ports"));
}

#[tokio::test]
async fn the_next_address_is_tried() {
    let receiver = Receiver::answering(OK).await;
    // Nothing listens on 127.0.0.2.
    let egress = Scripted::new(&[&["127.0.0.2", "127.0.0.1"]]).egress(allowing(&["127.0.0.0/8"]));
    let report = egress.attempt(job(&format!("http://app.example:{}/", receiver.addr.port()), 5_000)).await;
    assert_status(&report, 200);
    assert_eq!(report.remote, Some(receiver.addr.to_string()));
}

#[tokio::test]
async fn refused_connections_and_unknown_names() {
    let refused = Receiver::answering(OK).await;
    let egress = Scripted::new(&[&["127.0.0.2", "127.0.0.3"]]).egress(allowing(&["127.0.0.0/8"]));
    let report = egress.attempt(job(&format!("http://app.example:{}/", refused.addr.port()), 5_000)).await;
    let detail = assert_failed(&report, FailureKind::Connect);
    assert!(detail.contains("127.0.0.2") && detail.contains("127.0.0.3"), "{detail}");
    assert_eq!(report.remote, None);

    for answers in [&[][..], &[&[][..]]] {
        let report = Scripted::new(answers).egress(Guard::default()).attempt(job("http://app.example/", 5_000)).await;
        assert!(assert_failed(&report, FailureKind::Dns).contains("app.example"));
        assert!(report.timings.dns_us.is_some() && report.timings.connect_us.is_none());
    }
    let report = super::support::egress(Guard::default()).attempt(job("http://nowhere.invalid/", 20_000)).await;
    assert_failed(&report, FailureKind::Dns);
}

#[tokio::test]
async fn the_deadline_covers_name_lookup() {
    let config = EgressConfig::default();
    let egress = Egress::with_resolver(config, Arc::new(RealClock::new()), Arc::new(Silent)).unwrap();
    let report = egress.attempt(job("http://app.example/", 50)).await;
    let detail = assert_failed(&report, FailureKind::Timeout);
    assert_eq!(detail, "the deadline of 50 ms passed while looking up the host name");
    assert!(report.timings.dns_us.unwrap() >= 50_000);
}

#[tokio::test]
async fn what_configuration_should_have_refused_goes_nowhere() {
    let report = egress(Guard::default()).attempt(job("http://user:hunter2@app.example/", 5_000)).await;
    assert!(!assert_failed(&report, FailureKind::Blocked).contains("hunter2"));
}
