//! Hostile requests, each on a connection of its own: what is answered, that the connection closes, that nothing is stored.

use crate::gateway::{Client, Gateway};

const BODY: &[u8] = br#"{"id":"evt_1"}"#;

/// Sends `request` and reports the status (0: closed without a word), then insists that the connection closes.
async fn status_and_close(gateway: &Gateway, request: &[u8]) -> u16 {
    let mut client = gateway.connect().await;
    client.send(request).await;
    let answer = client.try_answer().await;
    let text = String::from_utf8_lossy(&request[..request.len().min(120)]);
    assert!(client.is_closed().await, "the connection stays open after {text:?} was answered {answer:?}");
    answer.map_or(0, |answer| answer.status)
}

/// Every case must be refused with its status, and leave the store as it was.
async fn all_refused(cases: Vec<(&str, u16, Vec<u8>)>) {
    let gateway = Gateway::start().await;
    let mut wrong = Vec::new();
    for (name, expected, request) in cases {
        let got = status_and_close(&gateway, &request).await;
        if got != expected {
            wrong.push(format!("{name}: expected {expected}, got {got}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(gateway.stored().await.is_empty());
    assert_eq!(gateway.metrics.accepted.get("inbound"), 0);
}

/// A signed request whose framing fields and payload are given.
fn framed(fields: &str, payload: &[u8]) -> Vec<u8> {
    let signature = "Stripe-Signature: t=1700000000,v1=00";
    let head = format!("POST /in/stripe HTTP/1.1\r\nHost: gateway\r\n{signature}\r\n{fields}\r\n\r\n");
    [head.as_bytes(), payload].concat()
}

fn chunked(payload: impl AsRef<[u8]>) -> Vec<u8> {
    framed("Transfer-Encoding: chunked", payload.as_ref())
}

fn line(request_line: &str, fields: &str) -> Vec<u8> {
    format!("{request_line}\r\n{fields}Content-Length: 0\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn lengths() {
    let cases = [
        ("differing", "Content-Length: 3\r\nContent-Length: 4"),
        ("list", "Content-Length: 3, 3"),
        ("plus", "Content-Length: +3"),
        ("negative", "Content-Length: -1"),
        ("hexadecimal", "Content-Length: 0x3"),
        ("underscore", "Content-Length: 1_0"),
        ("overflow", "Content-Length: 99999999999999999999"),
        ("empty", "Content-Length: "),
    ];
    all_refused(cases.into_iter().map(|(name, fields)| (name, 400, framed(fields, b"abc"))).collect()).await;
}

#[tokio::test]
async fn transfer_encodings() {
    let cases = [
        ("identity", 400, "Transfer-Encoding: identity"),
        ("gzip before chunked", 501, "Transfer-Encoding: gzip, chunked"),
        ("chunked before gzip", 400, "Transfer-Encoding: chunked, gzip"),
        ("twice", 400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("unknown", 400, "Transfer-Encoding: xchunked"),
        ("quoted", 400, "Transfer-Encoding: \"chunked\""),
        ("vertical tab", 400, "Transfer-Encoding: \x0bchunked"),
        ("space before the colon", 400, "Transfer-Encoding : chunked"),
        ("folded", 400, "Transfer-Encoding:\r\n chunked"),
    ];
    let mut cases: Vec<_> = cases
        .into_iter()
        .map(|(name, status, fields)| (name, status, framed(fields, b"3\r\nabc\r\n0\r\n\r\n")))
        .collect();
    let old = b"POST /in/stripe HTTP/1.0\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    cases.push(("on HTTP/1.0", 400, old.to_vec()));
    all_refused(cases).await;
}

#[tokio::test]
async fn chunks() {
    let long = "x".repeat(20 << 10);
    all_refused(vec![
        ("hexadecimal prefix", 400, chunked("0x5\r\nabcde\r\n0\r\n\r\n")),
        ("negative", 400, chunked("-1\r\nabcde\r\n0\r\n\r\n")),
        ("underscore", 400, chunked("0_2e\r\nabcde\r\n0\r\n\r\n")),
        ("above 64 bits", 400, chunked("1ffffffffffffffff\r\nabcde\r\n0\r\n\r\n")),
        ("bare line feed after the size", 400, chunked("5\nabcde\r\n0\r\n\r\n")),
        ("line feed in an extension", 400, chunked("5;a\nb\r\nabcde\r\n0\r\n\r\n")),
        ("long extension", 400, chunked(format!("5;{long}\r\nabcde\r\n0\r\n\r\n"))),
        ("missing CRLF", 400, chunked("5\r\nabcdeXX0\r\n\r\n")),
        ("length in a trailer", 400, chunked("5\r\nabcde\r\n0\r\nContent-Length: 3\r\n\r\n")),
        ("coding in a trailer", 400, chunked("5\r\nabcde\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n")),
        ("long trailer", 400, chunked(format!("5\r\nabcde\r\n0\r\nX: {long}\r\n\r\n"))),
    ])
    .await;
}

#[tokio::test]
async fn hosts_and_targets() {
    let get = |target: &str| line(&format!("POST {target} HTTP/1.1"), "Host: gateway\r\n");
    let long = format!("/in/{}", "a".repeat(17 << 10));
    all_refused(vec![
        ("no host", 400, line("POST /in/stripe HTTP/1.1", "")),
        ("two hosts", 400, line("POST /in/stripe HTTP/1.1", "Host: gateway\r\nHost: gateway\r\n")),
        ("empty host", 400, line("POST /in/stripe HTTP/1.1", "Host: \r\n")),
        ("host with a user", 400, line("POST /in/stripe HTTP/1.1", "Host: a@gateway\r\n")),
        ("host with a path", 400, line("POST /in/stripe HTTP/1.1", "Host: gateway/in\r\n")),
        ("target with a user", 400, get("http://a:b@gateway/in/stripe")),
        ("target of another host", 421, get("http://other/in/stripe")),
        ("CONNECT", 405, line("CONNECT gateway:80 HTTP/1.1", "Host: gateway:80\r\n")),
        ("OPTIONS *", 405, line("OPTIONS * HTTP/1.1", "Host: gateway\r\n")),
        ("TRACE", 405, line("TRACE /in/stripe HTTP/1.1", "Host: gateway\r\n")),
        ("NUL", 400, get("/in/st\0ripe")),
        ("raw UTF-8", 400, get("/in/str\u{ef}pe")),
        ("space", 400, get("/in/str ipe")),
        ("tab", 400, get("/in/str\tipe")),
        ("dots", 404, get("/in/../admin")),
        ("encoded dots", 404, get("/in/%2e%2e%2fadmin")),
        ("two slashes", 404, get("//in/stripe")),
        ("long target", 414, get(&long)),
    ])
    .await;
}

#[tokio::test]
async fn headers() {
    let with = |field: &str| line("POST /in/stripe HTTP/1.1", &format!("Host: gateway\r\n{field}"));
    let many: String = (0..101).map(|n| format!("X-{n}: 1\r\n")).collect();
    all_refused(vec![
        ("17 KiB", 431, with(&format!("X: {}\r\n", "a".repeat(17 << 10)))),
        ("80 KiB", 431, with(&format!("X: {}\r\n", "a".repeat(80 << 10)))),
        ("length of 2^64 - 1", 431, line("POST /in/stripe HTTP/1.1", "Content-Length: 18446744073709551615\r\n")),
        ("101 fields", 431, with(&many)),
        ("NUL", 400, with("X: a\0b\r\n")),
        ("bare CR", 400, with("X: a\rb\r\n")),
        ("empty name", 400, with(": a\r\n")),
        ("space before the name", 400, line("POST /in/stripe HTTP/1.1", " X: a\r\nHost: gateway\r\n")),
        ("no colon", 400, with("Xa\r\n")),
        ("unknown expectation", 417, with("Expect: a-pony\r\n")),
        ("not ASCII in a name", 400, {
            let mut request = with("X\u{0}: a\r\n");
            let at = request.iter().position(|b| *b == 0).unwrap();
            request[at] = 0xef;
            request
        }),
    ])
    .await;
}

#[tokio::test]
async fn other_protocols() {
    all_refused(vec![
        ("HTTP/1.9", 400, line("POST /in/stripe HTTP/1.9", "Host: gateway\r\n")),
        ("HTTP/0.9", 400, b"GET /in/stripe\r\n\r\n".to_vec()),
        ("HTTP/2 preface", 0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        ("TLS", 400, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec()),
    ])
    .await;
}

#[tokio::test]
async fn an_early_end_stores_nothing() {
    let gateway = Gateway::start().await;
    for request in [framed("Content-Length: 10", b"abc"), chunked("5\r\nab"), chunked("5\r\nabcde\r\n")] {
        let mut client = gateway.connect().await;
        client.send(&request).await;
        client.finish_sending().await;
        let status = client.try_answer().await.map_or(0, |answer| answer.status);
        assert!(status == 400 || status == 0, "{status}");
        assert!(client.is_closed().await);
    }
    assert!(gateway.stored().await.is_empty());
}

#[tokio::test]
async fn a_lower_case_method_is_another_method() {
    let gateway = Gateway::start().await;
    let answer = gateway.ask(line("post /in/stripe HTTP/1.1", "Host: gateway\r\n")).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}

/// hyper settles these before anyone else sees the request: it reads the chunks, drops the length, and closes after the
/// answer, so that nothing can be smuggled behind.
#[tokio::test]
async fn a_length_beside_chunks_is_read_as_chunks_and_the_connection_closes() {
    let gateway = Gateway::start().await;
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Transfer-Encoding: chunked\r\nContent-Length: bogus",
    ] {
        let smuggled = gateway.request(BODY);
        let payload = [b"0\r\n\r\n", &smuggled[..]].concat();
        let mut client = gateway.connect().await;
        client.send(framed(fields, &payload)).await;
        assert_eq!(client.answer().await.status, 401, "{fields}");
        assert!(client.is_closed().await, "{fields}");
    }
    assert!(gateway.stored().await.is_empty());
}

#[tokio::test]
async fn a_chunk_that_claims_the_world_is_cut_off_at_the_limit() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    client.send(chunked("fffffffffffffff0\r\n")).await;
    while client.send([b'x'; 64 << 10]).await && gateway.metrics.refused.get("too_large") == 0 {}
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn bodies_over_the_limit() {
    let gateway = Gateway::start().await;
    // Honest: refused by the head alone, before any of it is sent.
    let mut client = gateway.connect().await;
    client.send(framed("Content-Length: 1048577", b"")).await;
    assert_too_large(&mut client).await;

    // Chunked: refused once it is over. What the client still sends is let in and thrown away: a reset might overtake the
    // answer.
    let mut client = gateway.connect().await;
    let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
    client.send(chunked("")).await;
    for _ in 0..60 {
        assert!(client.send(&chunk).await, "the connection is reset");
    }
    assert_too_large(&mut client).await;
    assert!(gateway.stored().await.is_empty());
}

async fn assert_too_large(client: &mut Client) {
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    assert!(answer.closes() && client.is_closed().await);
}

#[tokio::test]
async fn an_offer_to_upgrade_is_ignored() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    let request = String::from_utf8(gateway.request(BODY)).unwrap();
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nHost:";
    client.send(request.replacen("Host:", upgrade, 1)).await;
    assert_eq!(client.answer().await.status, 200);
    let stored = gateway.stored().await;
    assert!(stored[0].meta.headers.iter().all(|(name, _)| !name.contains("http2") && name != "upgrade"));
}

/// RFC 9112 §6.3 allows to keep one of several equal lengths, which hyper does before anyone else sees the request.
#[tokio::test]
async fn equal_lengths_count_as_one() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    client.send(framed("Content-Length: 3\r\nContent-Length: 3", b"abc")).await;
    assert_eq!(client.answer().await.status, 401);
    client.send(gateway.request(BODY)).await;
    assert_eq!(client.answer().await.status, 200);
}

/// RFC 9112 §2.2 allows it; hyper's parser does it, and there is nobody behind us who could read it otherwise.
#[tokio::test]
async fn bare_line_feeds_end_lines() {
    let gateway = Gateway::start().await;
    let request = String::from_utf8(gateway.request(BODY)).unwrap();
    assert_eq!(gateway.ask(request.replace("\r\n", "\n")).await.status, 200);
}
