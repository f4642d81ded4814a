//! Publishing: exact bytes, once.

use bytes::Bytes;
use postrider::core::endpoint::app_id;
use postrider::core::id::EventId;
use postrider::store::{Refusal, Store, StoreError};

use crate::support::{Answer, Gateway, NOON_MS, endpoint_of, request};

const MSG: &str = "/api/v1/app/default/msg";

/// How a payload stands in an answer.
const PAYLOAD: &str = r#""payload":{"n":1},"#;

async fn stored(gateway: &Gateway, answer: &Answer) -> std::sync::Arc<postrider::core::event::Event> {
    let id: EventId = answer.ok(202)["id"].as_str().unwrap().parse().unwrap();
    gateway.store.event(id).await.unwrap().unwrap()
}

async fn count(gateway: &Gateway) -> usize {
    gateway.get(MSG).await.ok(200)["data"].as_array().unwrap().len()
}

#[tokio::test]
async fn an_event_becomes_a_message_for_the_endpoints_that_take_its_type() {
    let gateway = Gateway::start().await;
    let body = r#"{"eventType":"order.created","payload":{"n":1},"eventId":"order-1"}"#;
    let answer = gateway.publish(body, &[]).await;
    let event = stored(&gateway, &answer).await;
    let id = event.meta.id;
    let expected = format!(
        r#"{{"id":"{id}","eventType":"order.created","eventId":"order-1","payload":{{"n":1}},"timestamp":"2026-01-31T12:00:00.000Z"}}"#
    );
    assert_eq!(answer.text(), expected);
    assert_eq!(event.meta.app, app_id("default"));
    assert_eq!(event.meta.accepted_ms, NOON_MS);
    let mut takers = vec![endpoint_of("app"), endpoint_of("audit")];
    takers.sort();
    assert_eq!(event.meta.endpoints, takers);
    assert_eq!(event.meta.headers.one("content-type"), Ok(&b"application/json"[..]));
    assert_eq!(gateway.metrics.accepted.get("published"), 1);
}

#[tokio::test]
async fn an_application_is_named_or_given_by_id() {
    let gateway = Gateway::start().await;
    for app in ["acme".to_owned(), app_id("acme").to_string()] {
        let body = r#"{"eventType":"order.created","payload":null}"#;
        let answer = gateway.call("POST", &format!("/api/v1/app/{app}/msg"), Some(body)).await;
        assert_eq!(stored(&gateway, &answer).await.meta.app, app_id("acme"));
    }
    assert_eq!(count(&gateway).await, 0, "another application's messages are not in the default one");
}

#[tokio::test]
async fn payload_bytes_are_kept_exactly() {
    let gateway = Gateway::start().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let digits = format!("1{}", "0".repeat(10_000));
    for payload in [
        "null",
        "0",
        "-0.0",
        "1E400",
        "12345678901234567890123456789.000",
        "\"\\u00e4 ä \\/ \\ud83d\\ude00\"",
        "{\"z\":1,  \"a\" : [ 1,\t2 ],\n\"z\":2}",
        "{}",
        "[]",
        &deep,
        &digits,
    ] {
        let body = format!("{{ \"payload\" :\r\n {payload}  , \"eventType\":\"a\"}}");
        // Not held against the contract here: the reader of it takes neither such numbers nor such depth.
        let answer = request(gateway.address, "POST", MSG, &[], Some(body.as_bytes())).await;
        let id = answer.text().strip_prefix("{\"id\":\"").and_then(|rest| rest.split('"').next()).unwrap();
        let event = gateway.store.event(id.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(event.body, Bytes::copy_from_slice(payload.as_bytes()), "{payload}");
        assert!(answer.text().contains(&format!("\"payload\":{payload},\"timestamp\"")), "{payload}");
        let shown = request(gateway.address, "GET", &format!("{MSG}/{id}"), &[], None).await;
        assert!(shown.text().ends_with(&format!("\"payload\":{payload}}}")), "{payload}");
    }
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer() {
    let gateway = Gateway::start().await;
    let body = r#"{"eventType":"order.created", "payload": {"n": 1.0}, "eventId":"e1"}"#;
    let key = [("idempotency-key", "k1")];
    let first = gateway.publish(body, &key).await;
    first.ok(202);
    gateway.pass_ms(5_000);
    let again = gateway.publish(body, &key).await;
    assert_eq!((again.status, &again.body), (202, &first.body));

    let id = first.json()["id"].as_str().unwrap().to_owned();
    let erased = gateway.call("DELETE", &format!("{MSG}/{id}/content"), None).await;
    assert_eq!(erased.status, 204);
    let again = gateway.publish(body, &key).await;
    assert_eq!((again.status, &again.body), (202, &first.body), "the body came with the request");
    assert_eq!(count(&gateway).await, 1);
    assert_eq!((gateway.metrics.accepted.get("published"), gateway.metrics.duplicates.get("published")), (1, 2));
}

#[tokio::test]
async fn key_and_event_id_in_every_combination() {
    let gateway = Gateway::start().await;
    let body = |event_id: &str, n: u32| format!(r#"{{"eventType":"a","payload":{n},"eventId":{event_id}}}"#);
    let publish = async |key: Option<&str>, body: String| {
        let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
        gateway.publish(&body, &headers).await
    };
    let first = publish(Some("k1"), body("\"e1\"", 1)).await.ok(202);
    let first = first["id"].as_str().unwrap();

    // The key decides before the event id is looked at.
    assert_eq!(publish(Some("k1"), body("\"e1\"", 1)).await.ok(202)["id"], first);
    for other in [body("\"e1\"", 2), body("\"e2\"", 1), body("null", 1), format!("{} ", body("\"e1\"", 1))] {
        let detail = publish(Some("k1"), other).await.refused(409, "idempotency_conflict");
        assert!(detail.contains(first), "{detail}");
    }
    // A known event id is a conflict whatever the body, with another key or none.
    for (key, n) in [(None, 1), (None, 2), (Some("k2"), 1), (Some("k2"), 2)] {
        let detail = publish(key, body("\"e1\"", n)).await.refused(409, "event_id_conflict");
        assert!(detail.contains(first), "{detail}");
    }
    // What was refused has claimed nothing: neither k2 nor e2 is taken.
    let second = publish(Some("k2"), body("\"e2\"", 3)).await.ok(202);
    assert_ne!(second["id"], first);
    // Without either there is nothing to recognise it by.
    let (a, b) = (publish(None, body("null", 1)).await.ok(202), publish(None, body("null", 1)).await.ok(202));
    assert_ne!(a["id"], b["id"]);
    // A key and an event id of the same text are two things.
    publish(Some("e1"), body("\"k1\"", 1)).await.ok(202);
    assert_eq!(count(&gateway).await, 5);
}

#[tokio::test]
async fn the_payload_is_left_out_of_the_answer_on_request() {
    let gateway = Gateway::start().await;
    let body = r#"{"eventType":"order.created","payload":{"n":1},"eventId":"order-1"}"#;
    // Whether it is the first answer or a repetition of it, only this request counts.
    let mut ids = Vec::new();
    for (query, payload) in
        [("?with_content=false", ""), ("", PAYLOAD), ("?with_content=true", PAYLOAD), ("?with_content=false", "")]
    {
        let key = [("idempotency-key", "k")];
        let answer = gateway.send("POST", &format!("{MSG}{query}"), &key, Some(body.as_bytes())).await;
        let event = stored(&gateway, &answer).await;
        let id = event.meta.id;
        let expected = format!(
            r#"{{"id":"{id}","eventType":"order.created","eventId":"order-1",{payload}"timestamp":"2026-01-31T12:00:00.000Z"}}"#
        );
        assert_eq!(answer.text(), expected, "{query}");
        assert_eq!(event.body, &b"{\"n\":1}"[..], "it is stored all the same");
        ids.push(id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn keys_hold_per_application_and_for_their_window() {
    let gateway = Gateway::start().await;
    let body = r#"{"eventType":"a","payload":1,"eventId":"e1"}"#;
    let key = [("idempotency-key", "k1")];
    let first = gateway.publish(body, &key).await.ok(202);
    let other = gateway.send("POST", "/api/v1/app/acme/msg", &key, Some(body.as_bytes())).await.ok(202);
    assert_ne!(first["id"], other["id"]);
    gateway.pass_ms(3_600_000);
    let later = gateway.publish(body, &key).await.ok(202);
    assert_ne!(first["id"], later["id"]);
}

#[tokio::test]
async fn many_at_once_under_one_key_are_one_message() {
    let gateway = std::sync::Arc::new(Gateway::start().await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let gateway = std::sync::Arc::clone(&gateway);
        tasks.spawn(async move {
            // Half of them bring another body.
            let body = format!(r#"{{"eventType":"a","payload":{},"eventId":"e"}}"#, n % 2);
            gateway.publish(&body, &[("idempotency-key", "k")]).await
        });
    }
    let answers = tasks.join_all().await;
    let accepted: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
    assert_eq!(accepted.len(), 20);
    assert!(accepted.iter().all(|answer| answer.body == accepted[0].body));
    answers.iter().filter(|answer| answer.status != 202).for_each(|answer| {
        answer.refused(409, "idempotency_conflict");
    });
    assert_eq!(count(&gateway).await, 1);
    assert_eq!(gateway.metrics.accepted.get("published"), 1);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let gateway = Gateway::start().await;
    for (body, named) in [
        (r#"{"payload":1}"#, "eventType"),
        (r#"{"eventType":null,"payload":1}"#, "eventType"),
        (r#"{"eventType":"","payload":1}"#, "eventType"),
        (r#"{"eventType":"a b","payload":1}"#, "eventType"),
        (r#"{"eventType":"order.*","payload":1}"#, "eventType"),
        (r#"{"eventType":7,"payload":1}"#, "eventType"),
        (r#"{"eventType":"a"}"#, "payload"),
        (r#"{"eventType":"a","payload":1,"eventId":""}"#, "eventId"),
        (r#"{"eventType":"a","payload":1,"eventId":"a b"}"#, "eventId"),
        (r#"{"eventType":"a","payload":1,"eventId":"ä"}"#, "eventId"),
        (r#"{"eventType":"a","payload":1,"eventId":1}"#, "eventId"),
        (r#"{"eventType":"a","payload":1,"tags":[],"channels":["x"]}"#, "channels, tags"),
        (r#"{"eventType":"a","payload":1,"payload":2}"#, "payload"),
        (r#"["a"]"#, "object"),
    ] {
        let detail = gateway.publish(body, &[]).await.refused(422, "invalid");
        assert!(detail.contains(named), "{body}: {detail}");
    }
    let long = format!(r#"{{"eventType":"a","payload":1,"eventId":"{}"}}"#, "x".repeat(257));
    gateway.publish(&long, &[]).await.refused(422, "invalid");
    gateway.publish(&long.replace("xx\"", "x\""), &[]).await.ok(202);
    for (query, named) in [("with_content=1", "with_content"), ("get_if_exists=true", "get_if_exists")] {
        let detail = gateway.call("POST", &format!("{MSG}?{query}"), Some("{}")).await.refused(422, "invalid");
        assert!(detail.contains(named), "{query}: {detail}");
    }
    assert_eq!(count(&gateway).await, 1);
}

#[tokio::test]
async fn keys_are_visible_ascii_and_come_once() {
    let gateway = Gateway::start().await;
    let body = r#"{"eventType":"a","payload":1}"#;
    let longest = "k".repeat(256);
    gateway.publish(body, &[("idempotency-key", &longest)]).await.ok(202);
    let too_long = "k".repeat(257);
    for key in ["a b", "ä", "a\tb", &too_long] {
        let detail = gateway.publish(body, &[("idempotency-key", key)]).await.refused(422, "invalid");
        assert!(detail.contains("idempotency-key"), "{detail}");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "a")];
    gateway.publish(body, &twice).await.refused(422, "invalid");
    assert_eq!(count(&gateway).await, 1);
}

#[tokio::test]
async fn only_json_is_read() {
    let gateway = Gateway::start().await;
    let body = r#"{"eventType":"a","payload":1}"#;
    for kind in ["application/json; charset=utf-8", "APPLICATION/JSON", ""] {
        gateway.publish(body, &[("content-type", kind)]).await.ok(202);
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data"] {
        gateway.publish(body, &[("content-type", kind)]).await.refused(415, "unsupported_media_type");
    }
    let both = [("content-type", "application/json"), ("content-type", "text/plain")];
    gateway.publish(body, &both).await.refused(415, "unsupported_media_type");
}

#[tokio::test]
async fn garbage_is_refused_and_stores_nothing() {
    let gateway = Gateway::start().await;
    let good = br#"{"eventType":"order.created","payload":{"n":[1,2.5,"x"]},"eventId":"e"}"#;
    // Every prefix, and every byte turned into something else, in the places where that breaks the text.
    let mut bodies: Vec<Vec<u8>> = (0..good.len()).map(|end| good[..end].to_vec()).collect();
    bodies.extend((0..good.len()).map(|at| {
        let mut body = good.to_vec();
        body[at] = 0xff;
        body
    }));
    bodies.extend([b"\xef\xbb\xbf{}".to_vec(), vec![0; 64], b"{\"eventType\":\"a\",\"payload\":NaN}".to_vec()]);
    for body in bodies {
        let answer = gateway.send("POST", MSG, &[], Some(&body)).await;
        assert!(matches!(answer.status, 400 | 422), "{}: {answer:?}", String::from_utf8_lossy(&body));
    }
    assert_eq!(count(&gateway).await, 0);
}

#[tokio::test]
async fn a_store_that_refuses_is_answered_503_and_burns_nothing() {
    let gateway = Gateway::start().await;
    let body = r#"{"eventType":"a","payload":1,"eventId":"e"}"#;
    let key = [("idempotency-key", "k")];
    for (refusal, code) in [
        (Refusal::QueueFull, "queue_full"),
        (Refusal::JournalFull { limit_bytes: 1 }, "journal_full"),
        (Refusal::DiskFull { floor_bytes: 1 }, "disk_full"),
        (Refusal::PendingFull { limit: 1 }, "pending_full"),
        (Refusal::Stopping, "stopping"),
    ] {
        gateway.store.refuse_with(Some(refusal));
        let answer = gateway.publish(body, &key).await;
        answer.refused(503, code);
        assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    }
    gateway.store.refuse_with(None);
    gateway.store.fail_with(Some(StoreError::Failed("/var/lib/secret/path: EIO".into())));
    let detail = gateway.publish(body, &key).await.refused(503, "store_failed");
    assert!(!detail.contains("/var"), "{detail}");
    gateway.store.fail_with(None);
    gateway.publish(body, &key).await.ok(202);
}
