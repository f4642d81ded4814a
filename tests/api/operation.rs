//! Endpoints, sources, health, readiness, metrics.

use postrider::api::Phase;
use postrider::core::fact::Standing;
use postrider::core::id::EndpointId;
use postrider::store::{Refusal, Store, StoreError};
use serde_json::{Value, json};

use crate::support::{Gateway, NOON_MS, endpoint_of};

#[tokio::test]
async fn endpoints_are_listed_without_secrets() {
    let gateway = Gateway::start().await;
    let old = EndpointId::named("default", "old");
    let removed = Standing::Removed { since_ms: NOON_MS };
    gateway.store.set_standing(old, "default", "old", removed).await.unwrap();
    let answer = gateway.get("/api/v1/endpoint").await;
    let list = answer.ok(200);
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|e| (&e["application"], &e["name"])).collect();
    let expected = [("acme", "app"), ("default", "app"), ("default", "audit"), ("default", "old")];
    assert!(names.iter().zip(expected).all(|((app, name), e)| (app.as_str(), name.as_str()) == (Some(e.0), Some(e.1))));
    assert_eq!(
        list["data"][1],
        json!({
            "id": endpoint_of("app").to_string(), "name": "app", "application": "default",
            "url": "http://127.0.0.1:3000/webhooks", "standing": "enabled", "since": null,
            "sources": ["stripe"], "eventTypes": ["order.*"], "timeoutS": 2.5,
        })
    );
    let old = &list["data"][3];
    assert_eq!((&old["standing"], &old["url"], &old["timeoutS"]), (&json!("removed"), &Value::Null, &Value::Null));
    for hidden in ["whsec", "hidden", "secret"] {
        assert!(!answer.text().contains(hidden), "{hidden}");
    }
}

#[tokio::test]
async fn endpoints_are_disabled_and_enabled() {
    let gateway = Gateway::start().await;
    let id = endpoint_of("app").to_string();
    for name in ["app", id.as_str()] {
        let path = |verb: &str| format!("/api/v1/endpoint/{name}/{verb}");
        let disabled = gateway.call("POST", &path("disable"), None).await.ok(200);
        assert_eq!((&disabled["id"], &disabled["standing"]), (&json!(id), &json!("disabled")));
        assert_eq!(disabled["since"], "2026-01-31T12:00:00.000Z");
        assert_eq!(gateway.call("POST", &path("disable"), None).await.ok(200), disabled);
        let enabled = gateway.call("POST", &path("enable"), None).await.ok(200);
        assert_eq!((&enabled["standing"], &enabled["since"]), (&json!("enabled"), &Value::Null));
    }
    let gone = Standing::Gone { since_ms: NOON_MS };
    gateway.store.set_standing(endpoint_of("app"), "default", "app", gone).await.unwrap();
    let list = gateway.get("/api/v1/endpoint").await.ok(200);
    assert_eq!(list["data"][1]["standing"], "gone");
    let enabled = gateway.call("POST", "/api/v1/endpoint/app/enable", None).await.ok(200);
    assert_eq!(enabled["standing"], "enabled");
}

#[tokio::test]
async fn names_are_those_of_the_application() {
    let gateway = Gateway::start().await;
    let path = "/api/v1/endpoint/app/disable?application=acme";
    assert_eq!(gateway.call("POST", path, None).await.ok(200)["application"], "acme");
    let list = gateway.get("/api/v1/endpoint").await.ok(200);
    assert_eq!((&list["data"][0]["standing"], &list["data"][1]["standing"]), (&json!("disabled"), &json!("enabled")));
    for (path, status, code) in [
        ("/api/v1/endpoint/audit/disable?application=acme", 404, "unknown_endpoint"),
        ("/api/v1/endpoint/nobody/enable", 404, "unknown_endpoint"),
        ("/api/v1/endpoint/ep_00000000000000000000000000/enable", 404, "unknown_endpoint"),
        ("/api/v1/endpoint/app/enable?force=true", 422, "invalid"),
    ] {
        gateway.call("POST", path, None).await.refused(status, code);
    }
}

#[tokio::test]
async fn a_removed_endpoint_stays_removed() {
    let gateway = Gateway::start().await;
    let removed = Standing::Removed { since_ms: NOON_MS };
    gateway.store.set_standing(endpoint_of("audit"), "default", "audit", removed).await.unwrap();
    gateway.store.set_standing(EndpointId::named("default", "old"), "default", "old", removed).await.unwrap();
    for name in ["audit", "old"] {
        for verb in ["enable", "disable"] {
            let path = format!("/api/v1/endpoint/{name}/{verb}");
            gateway.call("POST", &path, None).await.refused(409, "endpoint_removed");
        }
    }
}

#[tokio::test]
async fn sources_are_listed_without_secrets() {
    let gateway = Gateway::start().await;
    let answer = gateway.get("/api/v1/source").await;
    let source = &answer.ok(200)["data"][0];
    assert_eq!((&source["name"], &source["path"]), (&json!("stripe"), &json!("/in/stripe")));
    assert_eq!(source["toleranceS"], 300);
    assert!(!answer.text().contains("whsec"));
}

#[tokio::test]
async fn a_store_that_has_no_backup_says_so() {
    let gateway = Gateway::start().await;
    gateway.call("POST", "/api/v1/backup", None).await.refused(501, "unsupported");
    gateway.call("POST", "/api/v1/backup?to=x", None).await.refused(422, "invalid");
    gateway.call("GET", "/api/v1/backup", None).await.refused(405, "method_not_allowed");
    gateway.store.fail_with(Some(StoreError::BackupRuns));
    gateway.call("POST", "/api/v1/backup", None).await.refused(409, "backup_runs");
}

#[tokio::test]
async fn health_and_readiness() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.get("/healthz").await.text(), r#"{"status":"ok"}"#);
    assert_eq!(gateway.get("/readyz").await.ok(200), json!({"status": "ready", "reasons": [], "notes": []}));
    gateway.readiness.note("clock", "the clock was behind the journal at start");
    assert_eq!(gateway.get("/readyz").await.ok(200)["notes"].as_array().unwrap().len(), 1);
    gateway.store.refuse_with(Some(Refusal::DiskFull { floor_bytes: 5 }));
    let closed = gateway.get("/readyz").await.ok(503);
    assert_eq!(closed["status"], "closed");
    assert!(closed["reasons"][0].as_str().unwrap().contains("5 bytes"));
    gateway.store.refuse_with(None);
    for (phase, status) in [(Phase::Starting, "starting"), (Phase::Draining, "draining")] {
        gateway.readiness.enter(phase);
        assert_eq!(gateway.get("/readyz").await.ok(503)["status"], status);
    }
    assert_eq!(gateway.get("/healthz").await.status, 200, "it lives whatever its readiness");
}

#[tokio::test]
async fn metrics_tell_what_was_counted_and_what_the_store_holds() {
    let gateway = Gateway::start().await;
    let id = gateway.published("order.created").await;
    gateway.kill(&id, "app").await;
    gateway.pass_ms(2_500);
    gateway.publish("{", &[]).await.refused(400, "bad_json");
    let page = gateway.get("/metrics").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "postrider_events_accepted_total{via=\"published\"} 1",
        "postrider_requests_refused_total{reason=\"bad_json\"} 1",
        "postrider_deliveries_pending 1",
        "postrider_oldest_pending_age_seconds 2.5",
        "postrider_dead_letters 1",
        "# TYPE postrider_journal_syncs_total counter",
        "test_extra 7",
    ] {
        assert!(page.text().lines().any(|have| have == line), "{line} is missing in\n{}", page.text());
    }
}

#[tokio::test]
async fn the_description_is_served() {
    let gateway = Gateway::start().await;
    let answer = gateway.get("/api/v1/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.ok(200)["openapi"], "3.1.0");
    gateway.get("/api/v1/openapi.json?x=1").await.refused(422, "invalid");
}
