//! Every answer of the listener, and that what is stored is what was sent.

use postrider::core::endpoint::{DEFAULT_APP, app_id, endpoint_id, source_id};
use postrider::core::limits::IngressLimits;
use postrider::store::{Refusal, StoreError};

use crate::gateway::{Answer, Gateway, SECRET, request};

const BODY: &[u8] = br#"{"id":"evt_1","type":"invoice.paid"}"#;

fn id(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.field("received"), true);
    answer.field("id").as_str().unwrap().to_owned()
}

fn is_duplicate(answer: &Answer) -> bool {
    answer.field("duplicate") == true
}

#[tokio::test]
async fn a_signed_event_is_stored_whole_and_answered_with_its_id() {
    let gateway = Gateway::start().await;
    let answer = gateway.ask(gateway.request(BODY)).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.body, format!(r#"{{"received":true,"id":"{}"}}"#, id(&answer)));
    let stored = gateway.stored().await;
    let [event] = &stored[..] else { panic!("{stored:?}") };
    assert_eq!((event.meta.id.to_string(), &event.body[..]), (id(&answer), BODY));
    assert_eq!((event.meta.app, event.meta.source), (app_id(DEFAULT_APP), Some(source_id("stripe"))));
    assert_eq!(event.meta.event_type.as_deref(), Some("invoice.paid"));
    assert_eq!(event.meta.external_id.as_deref(), Some("evt_1"));
    assert_eq!(event.meta.endpoints, [endpoint_id(DEFAULT_APP, "app")]);
    let names: Vec<_> = event.meta.headers.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["stripe-signature"], "host and length don't pass");
    assert_eq!(gateway.metrics.accepted.get("inbound"), 1);
}

#[tokio::test]
async fn a_known_id_is_a_duplicate_whatever_its_body() {
    let gateway = Gateway::start().await;
    let first = gateway.ask(gateway.request(BODY)).await;
    let again = gateway.ask(gateway.request(BODY)).await;
    assert_eq!(again.body, format!(r#"{{"received":true,"id":"{}","duplicate":true}}"#, id(&first)));
    assert_eq!(gateway.metrics.duplicate_other_body.get("inbound"), 0);
    let other = gateway.ask(gateway.request(br#"{"id":"evt_1","type":"invoice.void"}"#)).await;
    assert!(id(&other) == id(&first) && is_duplicate(&other));
    assert_eq!(gateway.metrics.duplicates.get("inbound"), 2);
    assert_eq!(gateway.metrics.duplicate_other_body.get("inbound"), 1);
    assert_eq!(gateway.stored().await.len(), 1);
}

#[tokio::test]
async fn without_an_id_every_request_is_an_event() {
    let gateway = Gateway::start().await;
    let first = gateway.ask(gateway.request(b"{}")).await;
    let second = gateway.ask(gateway.request(b"{}")).await;
    assert_ne!(id(&first), id(&second));
    assert!(!is_duplicate(&second));
}

#[tokio::test]
async fn bytes_stay_as_they_are() {
    let gateway = Gateway::start().await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let long: Vec<u8> = (0..500_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    let bodies = [
        b"".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"\r\n \n\0".to_vec(),
        b"{\"a\":1,\"a\":2}".to_vec(),
        every_byte,
        long,
    ];
    for (n, body) in bodies.iter().enumerate() {
        let fields = format!("{}X-GitHub-Delivery: d-{n}\r\n", gateway.signed("github", body));
        id(&gateway.ask(request("github", &fields, body)).await);
        assert_eq!(gateway.stored().await[0].body, body, "{n}");
        // The same in chunks of odd sizes.
        let fields = format!("{}X-GitHub-Delivery: c-{n}\r\n", gateway.signed("github", body));
        let mut sent =
            format!("POST /in/github HTTP/1.1\r\nHost: gateway\r\n{fields}Transfer-Encoding: chunked\r\n\r\n")
                .into_bytes();
        for chunk in body.chunks(7_919) {
            sent.extend(format!("{:x};ext=1\r\n", chunk.len()).bytes().chain(chunk.iter().copied()).chain(*b"\r\n"));
        }
        sent.extend(b"0\r\nX-Trailer: let go\r\n\r\n");
        id(&gateway.ask(sent).await);
        assert_eq!(gateway.stored().await[0].body, body, "{n}");
    }
    // No endpoint takes this source; its events are kept all the same.
    assert!(gateway.stored().await.iter().all(|event| event.meta.endpoints.is_empty()));
    assert_eq!(gateway.stored().await.len(), 2 * bodies.len());
}

#[tokio::test]
async fn a_forgery_is_refused_and_takes_no_id() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    let genuine = gateway.signed("stripe", BODY);
    let tampered = BODY.to_ascii_uppercase();
    for (fields, body, code) in [
        ("", BODY, "signature_missing"),
        ("Stripe-Signature: nonsense\r\n", BODY, "signature_malformed"),
        (&genuine, &tampered, "signature_mismatch"),
        (&format!("{genuine}{genuine}"), BODY, "signature_repeated"),
    ] {
        client.send(request("stripe", fields, body)).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (401, code), "{fields}");
        assert_eq!(gateway.metrics.refused.get(code), 1);
        let expected = genuine.split("v1=").nth(1).unwrap().trim();
        assert!(!answer.body.contains(SECRET) && !answer.body.contains(expected), "{answer:?}");
    }
    // The same connection goes on, and the id is free.
    client.send(request("stripe", &genuine, BODY)).await;
    assert!(!is_duplicate(&client.answer().await));
    assert_eq!(gateway.stored().await.len(), 1);
}

#[tokio::test]
async fn signatures_age_by_the_wall_clock() {
    let gateway = Gateway::start().await;
    let request = gateway.request(BODY);
    gateway.clock.advance(301_000);
    let answer = gateway.ask(&request).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "timestamp_too_old"));
    gateway.clock.set_wall(1_700_000_300_000);
    assert!(!is_duplicate(&gateway.ask(&request).await));
}

#[tokio::test]
async fn a_signed_url_counts_with_either_scheme_and_no_word_of_a_proxy() {
    let gateway = Gateway::start().await;
    for (url, status) in [
        ("https://gateway/in/by-url?b=2&a=%20", 200),
        ("http://gateway/in/by-url?b=2&a=%20", 200),
        ("https://gateway/in/by-url", 401),
        ("https://public.example/in/by-url?b=2&a=%20", 401),
    ] {
        let fields = gateway.signed_for("by-url", url, b"x");
        let forwarded =
            "X-Forwarded-Host: public.example\r\nX-Forwarded-Proto: https\r\nForwarded: host=public.example\r\n";
        let answer = gateway.ask(request("by-url?b=2&a=%20", &format!("{fields}{forwarded}"), b"x")).await;
        assert_eq!(answer.status, status, "{url} {answer:?}");
    }
}

#[tokio::test]
async fn unknown_paths_sources_and_methods() {
    let gateway = Gateway::start().await;
    for (line, status, code) in [
        ("POST /", 404, "not_found"),
        ("POST /in", 404, "not_found"),
        ("POST /in/", 404, "not_found"),
        ("POST /in/stripe/", 404, "not_found"),
        ("POST /in/stripe/x", 404, "not_found"),
        ("GET /healthz", 404, "not_found"),
        ("POST /in/Stripe", 404, "unknown_source"),
        ("POST /in/strip%65", 404, "unknown_source"),
        ("GET /in/nobody", 404, "unknown_source"),
        ("GET /in/stripe", 405, "method_not_allowed"),
        ("PUT /in/stripe", 405, "method_not_allowed"),
        ("OPTIONS /in/stripe", 405, "method_not_allowed"),
    ] {
        let answer = gateway.ask(format!("{line} HTTP/1.1\r\nHost: gateway\r\n\r\n")).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{line}");
        assert_eq!(answer.header("allow"), (status == 405).then_some("POST"), "{line}");
        assert!(!answer.closes(), "{line}");
    }
}

#[tokio::test]
async fn what_the_head_decides_does_not_wait_for_the_body() {
    let gateway = Gateway::start().await;
    for line in ["POST /in/nobody", "PUT /in/stripe"] {
        let mut client = gateway.connect().await;
        client
            .send(format!("{line} HTTP/1.1\r\nHost: gateway\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"))
            .await;
        let answer = client.answer().await;
        assert!(answer.status >= 400 && answer.closes(), "{answer:?}");
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    let request = gateway.request(BODY);
    let head = String::from_utf8(request[..request.len() - BODY.len()].to_vec()).unwrap();
    client.send(head.replacen("Host:", "Expect: 100-continue\r\nHost:", 1)).await;
    assert_eq!(client.answer().await.status, 100);
    client.send(BODY).await;
    id(&client.answer().await);
}

#[tokio::test]
async fn a_closed_intake_says_when_to_come_back_and_burns_nothing() {
    let gateway = Gateway::start().await;
    for (refusal, code) in [
        (Refusal::QueueFull, "queue_full"),
        (Refusal::JournalFull { limit_bytes: 77_777 }, "journal_full"),
        (Refusal::DiskFull { floor_bytes: 77_777 }, "disk_full"),
        (Refusal::PendingFull { limit: 77_777 }, "pending_full"),
        (Refusal::Stopping, "stopping"),
    ] {
        gateway.store.refuse_with(Some(refusal));
        let answer = gateway.ask(gateway.request(BODY)).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, code));
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=5).contains(&seconds));
        assert!(!answer.body.contains("77777"), "figures are for the operator: {answer:?}");
        assert_eq!(gateway.metrics.refused.get(code), 1);
    }
    gateway.store.refuse_with(None);
    assert!(!is_duplicate(&gateway.ask(gateway.request(BODY)).await));
}

#[tokio::test]
async fn a_slow_or_failing_store_is_a_503_that_burns_nothing() {
    let gateway = Gateway::with(IngressLimits { accept_timeout_ms: 50, ..IngressLimits::default() }).await;
    gateway.store.stall(true);
    let answer = gateway.ask(gateway.request(BODY)).await;
    assert_eq!((answer.status, answer.code().as_str(), answer.header("retry-after")), (503, "store_slow", Some("2")));
    gateway.store.stall(false);

    gateway.store.fail_with(Some(StoreError::Failed("the disk said EIO at /var/x".into())));
    let answer = gateway.ask(gateway.request(BODY)).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "store_failed"));
    assert!(answer.header("retry-after").is_some() && !answer.body.contains("EIO"), "{answer:?}");
    gateway.store.fail_with(None);

    assert!(!is_duplicate(&gateway.ask(gateway.request(BODY)).await));
}

#[tokio::test]
async fn an_event_that_fits_no_batch_is_too_large() {
    let gateway = Gateway::start().await;
    let answer = gateway.ask(gateway.request(&[b' '; 700_000])).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
}

#[tokio::test]
async fn bodies_share_one_memory() {
    let gateway = Gateway::with(IngressLimits { memory_bytes_max: 1_000, ..IngressLimits::default() }).await;
    let answer = gateway.ask(gateway.request(&[b'x'; 1_001])).await;
    assert_eq!((answer.status, answer.code().as_str(), answer.header("retry-after")), (503, "busy", Some("1")));

    // One holds 600 bytes while it sends; others find no room until it is done.
    let body = [b'x'; 600];
    let mut holder = gateway.connect().await;
    let fields = gateway.signed("stripe", &body);
    holder
        .send(format!("POST /in/stripe HTTP/1.1\r\nHost: gateway\r\n{fields}Transfer-Encoding: chunked\r\n\r\n258\r\n"))
        .await;
    holder.send(body).await;
    while gateway.ask(gateway.request(&body)).await.status != 503 {}
    holder.send("\r\n0\r\n\r\n").await;
    id(&holder.answer().await);
    id(&gateway.ask(gateway.request(&body)).await);
}
