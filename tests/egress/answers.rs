//! Ordinary requests and responses: what is sent, and what is kept of the answer.

use postrider::core::attempt::Outcome;
use postrider::core::endpoint::source_id;
use postrider::core::id::EventId;
use postrider::core::secret::Secret;
use postrider::core::signature::{Request, provider};
use postrider::engine::Courier;

use super::support::*;

#[tokio::test]
async fn a_published_event_arrives_signed() {
    let mut receiver = Receiver::answering(response("200 OK", "x-request-id: 42\r\n", "thanks")).await;
    let report = egress_at_wall(receiver.guard()).attempt(job(&receiver.url(), 5_000)).await;
    assert_status(&report, 200);
    assert_eq!(&report.response[..], b"thanks");
    assert!(!report.response_truncated);
    assert_eq!(report.response_headers.one("x-request-id"), Ok(&b"42"[..]));
    assert_eq!(report.remote, Some(receiver.addr.to_string()));

    let seen = receiver.seen().await;
    assert_eq!(seen.line, "POST /hook?a=1 HTTP/1.1");
    assert_eq!(seen.body, br#"{"test": 2432232314}"#);
    let one = |name: &str| String::from_utf8_lossy(seen.headers.one(name).unwrap()).into_owned();
    assert_eq!(one("host"), receiver.addr.to_string());
    assert_eq!(one("content-type"), "application/json");
    assert_eq!(one("user-agent"), concat!("postrider/", env!("CARGO_PKG_VERSION")));
    assert_eq!(one("webhook-id"), EventId::at(WALL_MS, 7).to_string());
    assert_eq!(one("webhook-timestamp"), (WALL_MS / 1_000).to_string());
    assert_eq!(one("postrider-attempt"), "1");
    let request = Request { method: "POST", url: "/", headers: &seen.headers, body: &seen.body };
    let scheme = provider("standard_webhooks").unwrap();
    assert_eq!(scheme.verify(&[Secret::new(SECRET)], &request, (WALL_MS / 1_000) as i64, None), Ok(()));
}

#[tokio::test]
async fn a_received_event_passes_byte_for_byte() {
    let mut receiver = Receiver::answering(response("204 No Content", "", "")).await;
    let headers: [(&str, &[u8]); 9] = [
        ("content-type", b"text/plain; charset=latin1"),
        ("user-agent", b"Provider/7 (caf\xe9)"),
        ("x-sig", b"a=1,b=\"2\"; c"),
        ("x-twice", b"1"),
        ("x-twice", b"2"),
        ("content-encoding", b"gzip"),
        ("webhook-id", b"evt_theirs"),
        ("authorization", b"Basic secret"),
        ("content-length", b"3"),
    ];
    let body: Vec<u8> = (0..=255).collect();
    let job = job_of(&receiver.url(), 5_000, Some(source_id("stripe")), &headers, &body);
    assert_status(&receiver.egress().attempt(job).await, 204);
    let seen = receiver.seen().await;
    assert_eq!(seen.body, body);
    for (name, value) in &headers[..6] {
        assert!(seen.headers.get_all(name).any(|have| have == *value), "{name}");
    }
    assert_eq!(seen.headers.get_all("x-twice").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(seen.headers.one("postrider-original-webhook-id"), Ok(&b"evt_theirs"[..]));
    assert_eq!(seen.headers.one("webhook-id"), Ok(EventId::at(WALL_MS, 7).to_string().as_bytes()));
    assert!(seen.headers.one("authorization").is_err());
    assert_eq!(seen.headers.one("content-length"), Ok(&b"256"[..]));
}

#[tokio::test]
async fn an_empty_body_is_framed_too() {
    let mut receiver = Receiver::answering(response("200 OK", "", "")).await;
    let job = job_of(&receiver.url(), 5_000, Some(source_id("a")), &[], b"");
    assert_status(&receiver.egress().attempt(job).await, 200);
    assert_eq!(receiver.seen().await.headers.one("content-length"), Ok(&b"0"[..]));
}

#[tokio::test]
async fn every_status_is_reported_and_no_redirect_followed() {
    let elsewhere = Receiver::answering(response("200 OK", "", "")).await;
    let location = format!("location: {}\r\n", elsewhere.url());
    for (status, headers) in [
        ("200 OK", ""),
        ("204 No Content", ""),
        ("301 Moved Permanently", location.as_str()),
        ("302 Found", location.as_str()),
        ("307 Temporary Redirect", location.as_str()),
        ("308 Permanent Redirect", location.as_str()),
        ("400 Bad Request", ""),
        ("410 Gone", ""),
        ("429 Too Many Requests", ""),
        ("500 Internal Server Error", ""),
        ("503 Service Unavailable", ""),
        ("599 Whatever", ""),
    ] {
        let receiver = Receiver::answering(response(status, headers, "")).await;
        assert_status(&receiver.attempt(5_000).await, status[..3].parse().unwrap());
        assert_eq!(receiver.connections(), 1, "{status}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn retry_after_of_all_kinds() {
    for (value, expected) in [
        ("120", Some(120_000)),
        ("0", Some(0)),
        ("1000000000000", Some(1_000_000_000_000_000)),
        ("99999999999999999999999", Some(u64::MAX)),
        ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30_000)),
        ("Wed, 21 Oct 2015 07:27:30 GMT", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
    ] {
        let answer = response("429 Too Many Requests", &format!("retry-after: {value}\r\n"), "");
        let receiver = Receiver::answering(answer).await;
        let report = egress_at_wall(receiver.guard()).attempt(job(&receiver.url(), 5_000)).await;
        assert_eq!(report.outcome, Outcome::Answered { status: 429, retry_after_ms: expected }, "{value:?}");
    }
}

#[tokio::test]
async fn compressed_bodies_stay_as_they_came() {
    // A gzip member whose content would be far larger; only its bytes count.
    let bomb = "\u{1f}\u{8}not really gzip";
    let receiver = Receiver::answering(response("200 OK", "content-encoding: gzip\r\n", bomb)).await;
    let report = receiver.attempt(5_000).await;
    assert_status(&report, 200);
    assert_eq!(&report.response[..], bomb.as_bytes());
}

#[tokio::test]
async fn an_early_answer_counts_though_the_body_was_not_read() {
    let receiver = Receiver::start(|mut conn| async move {
        conn.write(&response("413 Content Too Large", "connection: close\r\n", "too much")).await?;
        conn.wait_closed().await;
        Ok(())
    })
    .await;
    let job = job_of(&receiver.url(), 5_000, Some(source_id("a")), &[], &vec![b'x'; 8 << 20]);
    let report = receiver.egress().attempt(unsigned(job)).await;
    assert_status(&report, 413);
}
