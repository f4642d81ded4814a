//! Who gets in, and what they are told.

use postrider::core::limits::ApiLimits;

use crate::support::{Gateway, TOKEN, raw, request};

const MSG: &str = "/api/v1/app/default/msg";
const GOOD: &str = r#"{"eventType":"order.created","payload":1}"#;

#[tokio::test]
async fn without_the_token_nothing_is_told() {
    let gateway = Gateway::start().await;
    for authorization in ["", "Bearer", "Bearer wrong", "Basic dGVzdC10b2tlbg==", "test-token", "Bearer test-token2"] {
        for (method, path) in [("GET", MSG), ("POST", MSG), ("GET", "/api/v1/nothing"), ("GET", "/"), ("DELETE", MSG)] {
            let answer = request(gateway.address, method, path, &[("authorization", authorization)], None).await;
            answer.refused(401, "unauthorized");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer realm="), "{answer:?}");
            assert!(!answer.text().contains(TOKEN));
        }
    }
    assert!(gateway.metrics.refused.get("unauthorized") > 0);
    let stored = gateway.get(MSG).await.ok(200);
    assert_eq!(stored["data"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn probes_and_metrics_need_no_token_and_the_rest_does() {
    let gateway = Gateway::start().await;
    for path in ["/healthz", "/readyz", "/metrics", "/healthz?verbose=1"] {
        let answer = request(gateway.address, "GET", path, &[("authorization", "")], None).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let answer = request(gateway.address, "GET", "/api/v1/openapi.json", &[("authorization", "")], None).await;
    answer.refused(401, "unauthorized");
}

#[tokio::test]
async fn only_known_hosts_are_answered() {
    let gateway = Gateway::start().await;
    let port = gateway.address.port();
    for host in ["localhost", &format!("127.0.0.1:{port}"), "[::1]:8081", "hooks.example", "HOOKS.EXAMPLE:443"] {
        assert_eq!(gateway.send("GET", MSG, &[("host", host)], None).await.status, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.2", "10.0.0.1"] {
        for path in [MSG, "/healthz", "/metrics", "/nothing"] {
            let answer = request(gateway.address, "GET", path, &[("host", host)], None).await;
            answer.refused(421, "misdirected");
        }
    }
    let absolute = request(gateway.address, "GET", &format!("http://evil.example{MSG}"), &[], None).await;
    absolute.refused(421, "misdirected");
    let none = raw(gateway.address, b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    none.refused(400, "bad_host");
}

#[tokio::test]
async fn foreign_pages_change_nothing() {
    let gateway = Gateway::start().await;
    let own = format!("http://{}", gateway.address);
    for headers in [
        [("origin", "http://evil.example")],
        [("origin", "null")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
    ] {
        gateway.publish(GOOD, &headers).await.refused(403, "cross_site");
        gateway.send("DELETE", &format!("{MSG}/x/content"), &headers, None).await.refused(403, "cross_site");
        assert_eq!(gateway.send("GET", MSG, &headers, None).await.status, 200);
    }
    gateway.publish(GOOD, &[("origin", &own), ("sec-fetch-site", "same-origin")]).await.ok(202);
    assert_eq!(gateway.get(MSG).await.ok(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let gateway = Gateway::start().await;
    for path in
        ["/", "/api/v1", "/api/v2/source", "/api/v1/app/default/msg/", "/in/stripe", "/api/v1/app/default/msg/x/y"]
    {
        let detail = gateway.get(path).await.refused(404, "not_found");
        assert!(!detail.contains("/api"), "{detail}");
    }
    let answer = gateway.call("PUT", MSG, Some("{}")).await;
    answer.refused(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("POST, GET"));
    let answer = gateway.get("/api/v1/replay").await;
    answer.refused(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
    for path in ["/api/v1/app/../app/default/msg", "//healthz", "/api/v1/app/%2e%2e/msg", "/api/v1/app/a%2fb/msg"] {
        assert_eq!(gateway.get(path).await.status, 404, "{path}");
    }
    for app in ["nobody", "app_00000000000000000000000000"] {
        gateway.get(&format!("/api/v1/app/{app}/msg")).await.refused(404, "unknown_application");
    }
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let gateway = Gateway::start().await;
    let answer = request(gateway.address, "HEAD", "/healthz", &[], None).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-length"), Some("15"));
}

#[tokio::test]
async fn every_answer_is_guarded_against_browsers() {
    let gateway = Gateway::start().await;
    for path in [MSG, "/healthz", "/metrics", "/nothing", "/api/v1/openapi.json"] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_time() {
    let limits = ApiLimits { body_bytes_max: 1_000, request_timeout_ms: 300, ..ApiLimits::default() };
    let gateway = Gateway::with_limits(limits).await;
    let body = |bytes: usize| format!(r#"{{"eventType":"a","payload":"{}"}}"#, "x".repeat(bytes - 30));
    assert_eq!(body(1_000).len(), 1_000);
    gateway.publish(&body(1_000), &[]).await.ok(202);
    gateway.publish(&body(1_001), &[]).await.refused(413, "too_large");
    gateway.publish(&body(100_000), &[]).await.refused(413, "too_large");

    let head =
        format!("POST {MSG} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2_000));
    raw(gateway.address, chunked.as_bytes()).await.refused(413, "too_large");
    let halted = raw(gateway.address, format!("{head}content-length: 100\r\n\r\n{{").as_bytes()).await;
    halted.refused(408, "body_timeout");
}

#[tokio::test]
async fn a_stalled_store_is_answered_in_time() {
    let gateway = Gateway::with_limits(ApiLimits { request_timeout_ms: 100, ..ApiLimits::default() }).await;
    gateway.store.stall(true);
    let answer = gateway.publish(GOOD, &[]).await;
    answer.refused(503, "too_slow");
    assert!(answer.header("retry-after").is_some());
}
