//! Dead letters, and deliveries made due again.

use postrider::core::delivery::Next;
use postrider::core::fact::Standing;
use postrider::store::Store;
use serde_json::{Value, json};

use crate::support::{Gateway, NOON_MS, endpoint_of};

const DEAD: &str = "/api/v1/dead-letter";

fn message_ids(page: &Value) -> Vec<String> {
    page["data"].as_array().unwrap().iter().map(|d| d["messageId"].as_str().unwrap().to_owned()).collect()
}

/// `count` messages whose deliveries to both endpoints of `default` died, one a second; newest first.
async fn dead_letters(gateway: &Gateway, count: usize, event_type: &str) -> Vec<String> {
    let mut newest_first = Vec::new();
    for _ in 0..count {
        let id = gateway.published(event_type).await;
        gateway.kill(&id, "app").await;
        gateway.kill(&id, "audit").await;
        newest_first.insert(0, id);
        gateway.pass_ms(1_000);
    }
    newest_first
}

async fn replay(gateway: &Gateway, body: Value) -> Value {
    gateway.call("POST", "/api/v1/replay", Some(&body.to_string())).await.ok(200)
}

fn done(replayed: u64, already_due: u64, reasons: [u64; 3]) -> Value {
    let [unknown, erased, removed] = reasons;
    json!({
        "replayed": replayed, "alreadyDue": already_due, "skipped": unknown + erased + removed,
        "reasons": {"unknown": unknown, "erased": erased, "endpointRemoved": removed, "unreadable": 0},
        "more": false, "iterator": null,
    })
}

#[tokio::test]
async fn dead_letters_are_listed_filtered_and_walked() {
    let gateway = Gateway::start().await;
    let all = dead_letters(&gateway, 4, "order.created").await;
    let listed = async |query: &str| gateway.get(&format!("{DEAD}?{query}")).await.ok(200);

    let app = listed("endpoint=app").await;
    assert_eq!(message_ids(&app), all);
    let entry = json!({
        "messageId": all[0], "endpointId": endpoint_of("app").to_string(), "endpointName": "app",
        "eventType": "order.created", "reason": "rejected", "at": "2026-01-31T12:00:03.005Z", "attempts": 1,
    });
    assert_eq!(app["data"][0], entry);
    assert_eq!(message_ids(&listed(&format!("endpoint={}", endpoint_of("audit"))).await), all);
    assert_eq!(message_ids(&listed("").await).len(), 8);
    let since = listed("endpoint=app&since=2026-01-31T12:00:02Z").await;
    assert_eq!(message_ids(&since), all[..2]);
    let until = listed(&format!("endpoint=app&until={}", NOON_MS / 1_000 + 1)).await;
    assert_eq!(message_ids(&until), all[3..]);

    let mut page = listed("limit=3").await;
    let mut entries = page["data"].as_array().unwrap().clone();
    while page["done"] == false {
        page = listed(&format!("limit=3&iterator={}", page["iterator"].as_str().unwrap())).await;
        entries.extend(page["data"].as_array().unwrap().clone());
    }
    assert_eq!(&entries, listed("").await["data"].as_array().unwrap());
    let mut back = page["data"].as_array().unwrap().clone();
    loop {
        page = listed(&format!("limit=3&iterator={}", page["prevIterator"].as_str().unwrap())).await;
        back = [page["data"].as_array().unwrap().clone(), back].concat();
        if page["done"] == true {
            break;
        }
    }
    assert_eq!(back, entries);
}

#[tokio::test]
async fn wrong_questions_about_dead_letters() {
    let gateway = Gateway::start().await;
    gateway.get(&format!("{DEAD}?endpoint=nobody")).await.refused(404, "unknown_endpoint");
    gateway.get(&format!("{DEAD}?endpoint=audit&application=acme")).await.refused(404, "unknown_endpoint");
    assert_eq!(gateway.get(&format!("{DEAD}?endpoint=app&application=acme")).await.status, 200);
    for query in ["application=default", "since=x", "iterator=msg_00000000000000000000000000", "limit=0", "reason=gone"]
    {
        gateway.get(&format!("{DEAD}?{query}")).await.refused(422, "invalid");
    }
}

#[tokio::test]
async fn one_message_is_replayed_to_one_endpoint_or_all() {
    let gateway = Gateway::start().await;
    let id = gateway.published("order.created").await;
    gateway.kill(&id, "app").await;
    gateway.settle(&id, "audit", Some(200), b"", Next::Delivered).await;
    gateway.pass_ms(1_000);
    assert_eq!(replay(&gateway, json!({"messageId": id, "endpoint": "app"})).await, done(1, 0, [0, 0, 0]));
    // The other one has arrived, and is sent again.
    assert_eq!(replay(&gateway, json!({"messageId": id})).await, done(1, 1, [0, 0, 0]));
    assert_eq!(replay(&gateway, json!({"messageId": id})).await, done(0, 2, [0, 0, 0]));
    let page = gateway.get(&format!("/api/v1/app/default/msg/{id}/delivery")).await.ok(200);
    assert!(page["data"].as_array().unwrap().iter().all(|d| d["status"] == "pending" && d["attempts"] == 1));
    assert_eq!(gateway.get(DEAD).await.ok(200)["data"], json!([]));
}

#[tokio::test]
async fn what_can_not_be_replayed_is_told_by_cause() {
    let gateway = Gateway::start().await;
    let ids = dead_letters(&gateway, 3, "order.created").await;
    gateway.call("DELETE", &format!("/api/v1/app/default/msg/{}/content", ids[0]), None).await;
    let removed = Standing::Removed { since_ms: NOON_MS };
    gateway.store.set_standing(endpoint_of("audit"), "default", "audit", removed).await.unwrap();
    assert_eq!(replay(&gateway, json!({"status": "dead"})).await["skipped"], 4);
    let again = replay(&gateway, json!({"messageId": ids[1]})).await;
    assert_eq!(again, done(0, 1, [0, 0, 1]));
    let erased = replay(&gateway, json!({"messageId": ids[0], "endpoint": "app"})).await;
    assert_eq!(erased, done(0, 0, [0, 1, 0]));

    let unknown = json!({"messageId": "msg_00000000000000000000000000"}).to_string();
    gateway.call("POST", "/api/v1/replay", Some(&unknown)).await.refused(404, "unknown_message");
    let elsewhere = json!({"messageId": ids[1], "endpoint": "app", "application": "acme"}).to_string();
    gateway.call("POST", "/api/v1/replay", Some(&elsewhere)).await.refused(404, "unknown_delivery");
    let nobody = json!({"messageId": ids[1], "endpoint": "nobody"}).to_string();
    gateway.call("POST", "/api/v1/replay", Some(&nobody)).await.refused(404, "unknown_endpoint");
}

#[tokio::test]
async fn filters_choose_among_dead_letters() {
    let gateway = Gateway::start().await;
    dead_letters(&gateway, 3, "order.created").await;
    let arrived = gateway.published("order.paid").await;
    gateway.settle(&arrived, "app", Some(200), b"", Next::Delivered).await;
    gateway.settle(&arrived, "audit", Some(200), b"", Next::Delivered).await;
    dead_letters(&gateway, 2, "order.paid").await;

    let none = json!({"eventType": "user.*"});
    assert_eq!(replay(&gateway, none).await, done(0, 0, [0, 0, 0]));
    let one_type = json!({"eventType": "order.paid", "endpoint": "app"});
    assert_eq!(replay(&gateway, one_type).await, done(2, 0, [0, 0, 0]));
    let first_second = json!({"until": NOON_MS / 1_000 + 1});
    assert_eq!(replay(&gateway, first_second).await, done(2, 0, [0, 0, 0]));
    let since = json!({"since": "2026-01-31T12:00:02Z", "endpoint": "audit"});
    assert_eq!(replay(&gateway, since).await, done(3, 0, [0, 0, 0]));
    assert_eq!(replay(&gateway, json!({"status": "dead"})).await, done(3, 0, [0, 0, 0]));
    assert_eq!(replay(&gateway, json!({"status": "dead"})).await, done(0, 0, [0, 0, 0]));
}

#[tokio::test]
async fn all_goes_over_what_has_arrived_and_waits_too() {
    let gateway = Gateway::start().await;
    dead_letters(&gateway, 1, "order.created").await;
    let id = gateway.published("order.paid").await;
    gateway.settle(&id, "app", Some(200), b"", Next::Delivered).await;
    gateway.settle(&id, "audit", Some(503), b"", Next::Retry { due_ms: NOON_MS + 3_600_000 }).await;
    gateway.pass_ms(1_000);
    let range = json!({"status": "all", "since": NOON_MS / 1_000});
    assert_eq!(replay(&gateway, range.clone()).await, done(4, 0, [0, 0, 0]));
    assert_eq!(replay(&gateway, range).await, done(0, 4, [0, 0, 0]));
    let narrow = json!({"status": "all", "eventType": "*.paid", "endpoint": "app"});
    assert_eq!(replay(&gateway, narrow).await, done(0, 1, [0, 0, 0]));
    let earlier = json!({"status": "all", "until": NOON_MS / 1_000});
    assert_eq!(replay(&gateway, earlier).await, done(0, 0, [0, 0, 0]));
}

#[tokio::test]
async fn a_limited_replay_says_where_to_go_on() {
    let gateway = Gateway::start().await;
    dead_letters(&gateway, 5, "order.created").await;
    let mut replayed = 0;
    let mut body = json!({"status": "dead", "limit": 3});
    loop {
        let answer = replay(&gateway, body.clone()).await;
        replayed += answer["replayed"].as_u64().unwrap();
        if answer["more"] == false {
            assert_eq!(answer["iterator"], Value::Null);
            break;
        }
        assert_eq!(answer["replayed"], 3);
        body["iterator"] = answer["iterator"].clone();
    }
    assert_eq!(replayed, 10);

    let mut body = json!({"status": "all", "since": 0, "limit": 3});
    let (mut due, mut calls) = (0, 0);
    loop {
        let answer = replay(&gateway, body.clone()).await;
        (due, calls) = (due + answer["alreadyDue"].as_u64().unwrap(), calls + 1);
        if answer["more"] == false {
            break;
        }
        // The deliveries of one message stay together.
        assert_eq!(answer["alreadyDue"], 4);
        body["iterator"] = answer["iterator"].clone();
    }
    assert_eq!((due, calls), (10, 3));
}

#[tokio::test]
async fn many_dead_letters_are_replayed_in_one_request() {
    let gateway = Gateway::start().await;
    dead_letters(&gateway, 600, "order.created").await;
    let first = replay(&gateway, json!({"status": "dead"})).await;
    assert_eq!((&first["replayed"], &first["more"]), (&json!(1_000), &json!(true)));
    let rest = json!({"status": "dead", "limit": 10_000, "iterator": first["iterator"]});
    assert_eq!(replay(&gateway, rest).await, done(200, 0, [0, 0, 0]));
}

#[tokio::test]
async fn a_replay_without_a_criterion_is_refused() {
    let gateway = Gateway::start().await;
    let ids = dead_letters(&gateway, 1, "order.created").await;
    for body in [
        json!({}),
        json!({"limit": 5}),
        json!({"status": "all"}),
        json!({"status": "all", "limit": 5}),
        json!({"status": "pending", "endpoint": "app"}),
        json!({"application": "default"}),
        json!({"endpoint": "app", "limit": 0}),
        json!({"endpoint": "app", "limit": 10_001}),
        json!({"endpoint": "app", "limit": "5"}),
        json!({"eventType": "a*"}),
        json!({"since": "yesterday"}),
        json!({"since": {}}),
        json!({"endpoint": "app", "iterator": "x"}),
        json!({"status": "all", "since": 0, "iterator": format!("-{}", ids[0])}),
        json!({"messageId": ids[0], "since": 0}),
        json!({"messageId": ids[0], "status": "dead"}),
        json!({"messageId": "x"}),
        json!({"messageId": ids[0], "all": true}),
        json!([]),
    ] {
        gateway.call("POST", "/api/v1/replay", Some(&body.to_string())).await.refused(422, "invalid");
    }
    gateway.call("POST", "/api/v1/replay", Some("{")).await.refused(400, "bad_json");
    gateway.call("POST", "/api/v1/replay", Some("")).await.refused(400, "bad_json");
    gateway.call("POST", "/api/v1/replay?x=1", Some("{}")).await.refused(422, "invalid");
    assert_eq!(gateway.get(DEAD).await.ok(200)["data"].as_array().unwrap().len(), 2, "nothing was replayed");
}
