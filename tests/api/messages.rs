//! Messages listed, walked both ways, shown, with deliveries and attempts, and erased.

use postrider::core::delivery::Next;
use serde_json::{Value, json};

use crate::support::{Gateway, NOON_MS};

const MSG: &str = "/api/v1/app/default/msg";

fn ids(page: &Value) -> Vec<String> {
    page["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
}

async fn publish_many(gateway: &Gateway, count: usize) -> Vec<String> {
    let mut newest_first = Vec::new();
    for n in 0..count {
        newest_first.insert(0, gateway.published(if n % 2 == 0 { "order.created" } else { "user.created" }).await);
        gateway.pass_ms(1_000);
    }
    newest_first
}

#[tokio::test]
async fn an_empty_list() {
    let gateway = Gateway::start().await;
    let page = gateway.get(MSG).await.ok(200);
    assert_eq!(page, json!({"data": [], "done": true, "iterator": null, "prevIterator": null}));
}

#[tokio::test]
async fn a_walk_to_the_oldest_and_back_sees_every_message_once() {
    let gateway = Gateway::start().await;
    let all = publish_many(&gateway, 10).await;
    for limit in [1, 3, 5, 10, 11] {
        let first = gateway.get(&format!("{MSG}?limit={limit}")).await.ok(200);
        let (mut seen, mut page) = (ids(&first), first.clone());
        while page["done"] == false {
            let iterator = page["iterator"].as_str().unwrap();
            page = gateway.get(&format!("{MSG}?limit={limit}&iterator={iterator}")).await.ok(200);
            seen.extend(ids(&page));
        }
        assert_eq!(seen, all, "limit {limit}");

        let mut back = ids(&page);
        loop {
            let iterator = page["prevIterator"].as_str().unwrap();
            page = gateway.get(&format!("{MSG}?limit={limit}&iterator={iterator}")).await.ok(200);
            back = [ids(&page), back].concat();
            if page["done"] == true {
                break;
            }
        }
        assert_eq!(back, all, "limit {limit}");
    }
}

#[tokio::test]
async fn the_newest_end_can_be_followed() {
    let gateway = Gateway::start().await;
    publish_many(&gateway, 2).await;
    let mut page = gateway.get(MSG).await.ok(200);
    for _ in 0..3 {
        let iterator = page["prevIterator"].as_str().unwrap().to_owned();
        let empty = gateway.get(&format!("{MSG}?iterator={iterator}")).await.ok(200);
        assert_eq!((ids(&empty).len(), empty["prevIterator"].as_str()), (0, Some(iterator.as_str())));
        let id = gateway.published("order.created").await;
        page = gateway.get(&format!("{MSG}?iterator={iterator}")).await.ok(200);
        assert_eq!(ids(&page), [id]);
    }
}

#[tokio::test]
async fn messages_that_come_meanwhile_do_not_disturb_a_walk() {
    let gateway = Gateway::start().await;
    let all = publish_many(&gateway, 6).await;
    let first = gateway.get(&format!("{MSG}?limit=3")).await.ok(200);
    publish_many(&gateway, 4).await;
    let iterator = first["iterator"].as_str().unwrap();
    let second = gateway.get(&format!("{MSG}?limit=3&iterator={iterator}")).await.ok(200);
    assert_eq!([ids(&first), ids(&second)].concat(), all);
}

#[tokio::test]
async fn filters() {
    let gateway = Gateway::start().await;
    let all = publish_many(&gateway, 6).await;
    let listed = async |query: &str| ids(&gateway.get(&format!("{MSG}?{query}")).await.ok(200));
    let start_s = NOON_MS / 1_000;
    // The oldest, all[5], was accepted at the start; each further one a second later.
    assert_eq!(listed(&format!("after={}", start_s + 4)).await, all[..2]);
    assert_eq!(listed("after=2026-01-31T12:00:04Z").await, all[..2]);
    assert_eq!(listed("after=2026-01-31T13:00:04%2B01:00").await, all[..2]);
    assert_eq!(listed(&format!("before={}", start_s + 1)).await, all[5..]);
    assert_eq!(listed(&format!("after={}&before={}", start_s + 1, start_s + 3)).await, all[3..5]);
    let users: Vec<_> = all.iter().step_by(2).cloned().collect();
    assert_eq!(listed("event_types=user.created").await, users);
    assert_eq!(listed("event_types=user.created&limit=2").await, users[..2]);
    assert_eq!(listed("event_types=nothing").await, Vec::<String>::new());
}

#[tokio::test]
async fn parameters_that_are_wrong_are_named() {
    let gateway = Gateway::start().await;
    for (query, named) in [
        ("limit=0", "limit"),
        ("limit=251", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=-1", "limit"),
        ("limit=1&limit=2", "limit"),
        ("after=yesterday", "after"),
        ("before=2026-01-31T12:00:00+01:00", "%2B"),
        ("before=1769860800000", "before"),
        ("iterator=x", "iterator"),
        ("iterator=", "iterator"),
        ("event_types=a,b", "event_types"),
        ("with_content=1", "with_content"),
        ("channel=x&tag=y", "channel, tag"),
        ("a=%ff", "query"),
    ] {
        let detail = gateway.get(&format!("{MSG}?{query}")).await.refused(422, "invalid");
        assert!(detail.contains(named), "{query}: {detail}");
    }
}

#[tokio::test]
async fn received_events_are_listed_beside_published_ones() {
    let gateway = Gateway::start().await;
    let json_id = gateway.receive(br#" {"id":"evt_1",  "n":1.0}"#, Some("charge.paid")).await;
    let bytes_id = gateway.receive(b"\x00\xff", None).await;
    let published = gateway.published("order.created").await;
    let page = gateway.get(MSG).await.ok(200);
    assert_eq!(ids(&page), [published, bytes_id.to_string(), json_id.to_string()]);
    assert_eq!(page["data"][0]["source"], Value::Null);
    let expected = json!({
        "id": bytes_id.to_string(), "eventType": null, "eventId": "evt_1", "source": "stripe",
        "timestamp": "2026-01-31T12:00:00.000Z", "erased": false, "payloadBase64": "AP8=",
    });
    assert_eq!(page["data"][1], expected);
    let shown = gateway.get(&format!("{MSG}/{json_id}")).await;
    assert!(shown.text().ends_with(r#""payload":{"id":"evt_1",  "n":1.0}}"#), "{}", shown.text());
    for path in [format!("{MSG}/{json_id}?with_content=false"), format!("{MSG}?with_content=false")] {
        let text = gateway.get(&path).await;
        assert!(text.status == 200 && !text.text().contains("payload"), "{path}");
    }
}

#[tokio::test]
async fn a_page_of_large_messages_ends_early_and_goes_on() {
    let gateway = Gateway::start().await;
    let large = vec![b'x'; 3 << 20];
    let mut all = Vec::new();
    for _ in 0..5 {
        all.insert(0, gateway.receive(&large, None).await.to_string());
    }
    let first = gateway.get(MSG).await.ok(200);
    assert_eq!((ids(&first), first["done"].as_bool()), (all[..2].to_vec(), Some(false)));
    let iterator = first["iterator"].as_str().unwrap();
    let second = gateway.get(&format!("{MSG}?iterator={iterator}")).await.ok(200);
    assert_eq!(ids(&second), all[2..4]);
    let whole = gateway.get(&format!("{MSG}?with_content=false")).await.ok(200);
    assert_eq!((ids(&whole), whole["done"].as_bool()), (all, Some(true)));
}

#[tokio::test]
async fn messages_are_found_in_their_own_application_only() {
    let gateway = Gateway::start().await;
    let id = gateway.published("order.created").await;
    let unknown = ["msg_00000000000000000000000000", "msg_x", "ep_00000000000000000000000000"];
    for (app, id) in unknown.iter().map(|id| ("default", *id)).chain([("acme", id.as_str())]) {
        for (method, tail) in [("GET", ""), ("GET", "/delivery"), ("GET", "/attempt"), ("DELETE", "/content")] {
            let answer = gateway.call(method, &format!("/api/v1/app/{app}/msg/{id}{tail}"), None).await;
            answer.refused(404, "unknown_message");
        }
    }
    assert_eq!(gateway.get(&format!("{MSG}/{id}")).await.ok(200)["erased"], false);
    for tail in ["", "/delivery", "/attempt"] {
        gateway.get(&format!("{MSG}/{id}{tail}?x=1")).await.refused(422, "invalid");
    }
}

#[tokio::test]
async fn deliveries_and_attempts_are_told() {
    let gateway = Gateway::start().await;
    let id = gateway.published("order.created").await;
    let due_ms = NOON_MS + 60_000;
    gateway.settle(&id, "app", None, b"", Next::Retry { due_ms }).await;
    gateway.pass_ms(60_000);
    gateway.settle(&id, "app", Some(503), b"\xff\x00", Next::Retry { due_ms: due_ms + 300_000 }).await;
    gateway.settle(&id, "audit", Some(200), b"fine", Next::Delivered).await;

    let by_name = |list: &Value, name: &str| -> Vec<Value> {
        list["data"].as_array().unwrap().iter().filter(|d| d["endpointName"] == name).cloned().collect()
    };
    let deliveries = gateway.get(&format!("{MSG}/{id}/delivery")).await.ok(200);
    let app = &by_name(&deliveries, "app")[0];
    assert_eq!((&app["status"], &app["attempts"], &app["reason"]), (&json!("pending"), &json!(2), &Value::Null));
    assert_eq!(app["nextAttempt"], "2026-01-31T12:06:00.000Z");
    let audit = &by_name(&deliveries, "audit")[0];
    assert_eq!((&audit["status"], &audit["attempts"]), (&json!("delivered"), &json!(1)));
    assert_eq!(audit["nextAttempt"], Value::Null);

    let attempts = gateway.get(&format!("{MSG}/{id}/attempt")).await.ok(200);
    let app = by_name(&attempts, "app");
    assert_eq!((&app[0]["number"], &app[0]["outcome"], &app[0]["status"]), (&json!(1), &json!("failed"), &Value::Null));
    assert_eq!(app[0]["error"], json!({"kind": "timeout", "detail": "no answer in 30 s"}));
    assert_eq!(app[0]["response"], Value::Null);
    let next = json!({"state": "retry", "due": "2026-01-31T12:01:00.000Z", "reason": null});
    assert_eq!(app[0]["next"], next);
    assert_eq!((&app[1]["number"], &app[1]["outcome"], &app[1]["status"]), (&json!(2), &json!("refused"), &json!(503)));
    let headers = json!([{"name": "x-a", "value": "1"}, {"name": "x-b", "value": "\u{fffd}"}]);
    assert_eq!(app[1]["response"], json!({"headers": headers, "bodyBase64": "/wA=", "truncated": false}));
    let audit = &by_name(&attempts, "audit")[0];
    assert_eq!((&audit["outcome"], &audit["response"]["body"]), (&json!("delivered"), &json!("fine")));
    let timings = json!({"dnsUs": null, "connectUs": 300, "tlsUs": null, "firstByteUs": 900, "totalUs": 1000});
    assert_eq!(audit["timings"], timings);
    assert_eq!(audit["next"], json!({"state": "delivered", "due": null, "reason": null}));
}

#[tokio::test]
async fn erasing_leaves_the_message_without_its_content() {
    let gateway = Gateway::start().await;
    let id = gateway.publish(r#"{"eventType":"order.created","payload":"sensitive"}"#, &[]).await.ok(202);
    let id = id["id"].as_str().unwrap();
    gateway.settle(id, "audit", Some(200), b"sensitive too", Next::Delivered).await;
    for _ in 0..2 {
        let answer = gateway.call("DELETE", &format!("{MSG}/{id}/content"), None).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0));
    }
    let shown = gateway.get(&format!("{MSG}/{id}")).await;
    assert_eq!(shown.ok(200)["erased"], true);
    let attempts = gateway.get(&format!("{MSG}/{id}/attempt")).await;
    let list = gateway.get(MSG).await;
    for answer in [shown, attempts, list] {
        assert!(!answer.text().contains("sensitive") && !answer.text().contains("\"payload"), "{}", answer.text());
    }
    let deliveries = gateway.get(&format!("{MSG}/{id}/delivery")).await.ok(200);
    let dead = deliveries["data"].as_array().unwrap().iter().find(|d| d["endpointName"] == "app").unwrap();
    assert_eq!((&dead["status"], &dead["reason"]), (&json!("dead"), &json!("content_erased")));
}
