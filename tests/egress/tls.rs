//! HTTPS: certificates that verify and those that don't, HTTP/2 and HTTP/1.1.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use postrider::core::attempt::FailureKind;
use postrider::core::cidr::Cidr;
use postrider::egress::{Egress, EgressConfig, Guard, ca_from_pem};
use postrider::engine::Courier;
use postrider::env::RealClock;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::support::*;

/// An authority made for this run.
fn authority() -> &'static CertifiedIssuer<'static, KeyPair> {
    static AUTHORITY: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    })
}

fn acceptor(name: &str, is_expired: bool, protocols: &[&str]) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if is_expired {
        params.not_after = date_time_ymd(2020, 1, 1);
    }
    let certificate = params.signed_by(&key, authority()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

fn trusting_egress() -> Egress {
    let extra_ca = ca_from_pem(authority().pem().as_bytes()).unwrap();
    let guard = Guard { allow: vec![Cidr::v4([127, 0, 0, 0], 8)], ..Guard::default() };
    let resolver = Scripted::new(&[&["127.0.0.1"]]);
    Egress::with_resolver(
        EgressConfig { guard, extra_ca, ..EgressConfig::default() },
        Arc::new(RealClock::new()),
        resolver,
    )
    .unwrap()
}

/// A receiver that speaks HTTP/1.1 over TLS and answers with these bytes, saying goodbye or not.
async fn h1_receiver(acceptor: TlsAcceptor, answer: Vec<u8>, close_after: bool) -> Receiver {
    Receiver::start(move |conn| {
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        async move {
            let (tcp, rest) = conn.take();
            let mut conn = rest.over(acceptor.accept(tcp).await?);
            loop {
                conn.read_request().await?;
                conn.write(&answer).await?;
                if close_after {
                    return Ok(());
                }
            }
        }
    })
    .await
}

/// A receiver that speaks HTTP/2 only; `extra` goes into a header of the response.
async fn h2_receiver(acceptor: TlsAcceptor, extra: usize) -> Receiver {
    Receiver::start(move |conn| {
        let acceptor = acceptor.clone();
        async move {
            let tls = acceptor.accept(conn.stream).await?;
            let service = service_fn(move |request: Request<Incoming>| async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let text = format!("{:?} {} {} {}", head.version, head.method, head.uri, body.len());
                let mut response = Response::new(Full::new(Bytes::from(text)));
                response.headers_mut().insert("x-extra", "x".repeat(extra).parse().unwrap());
                assert!(!head.headers.contains_key("host"));
                Ok::<_, Infallible>(response)
            });
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tls), service)
                .await
                .map_err(io::Error::other)
        }
    })
    .await
}

fn url(receiver: &Receiver, host: &str) -> String {
    format!("https://{host}:{}/in?x=1", receiver.addr.port())
}

#[tokio::test]
async fn http2_where_both_speak_it() {
    let receiver = h2_receiver(acceptor("app.example", false, &["h2", "http/1.1"]), 1).await;
    let egress = trusting_egress();
    let url = url(&receiver, "app.example");
    let first = egress.attempt(job(&url, 5_000)).await;
    assert_status(&first, 200);
    assert_eq!(String::from_utf8_lossy(&first.response), format!("HTTP/2.0 POST {url} 20"));
    assert!(first.timings.dns_us.is_some() && first.timings.connect_us.is_some() && first.timings.tls_us.is_some());
    // From the second on, any number of attempts shares the one connection.
    let egress = Arc::new(egress);
    let attempts: Vec<_> = (0..20)
        .map(|_| {
            let (egress, job) = (Arc::clone(&egress), job(&url, 5_000));
            tokio::spawn(async move { egress.attempt(job).await })
        })
        .collect();
    for attempt in attempts {
        let report = attempt.await.unwrap();
        assert_status(&report, 200);
        assert_eq!((report.timings.connect_us, report.timings.tls_us), (None, None));
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn an_http2_connection_that_stopped_answering_is_replaced() {
    let acceptor = acceptor("app.example", false, &["h2"]);
    // Every connection answers its first request only.
    let receiver = Receiver::start(move |conn| {
        let acceptor = acceptor.clone();
        async move {
            let tls = acceptor.accept(conn.stream).await?;
            let answered = Arc::new(AtomicBool::new(false));
            let service = service_fn(move |_: Request<Incoming>| {
                let answered = Arc::clone(&answered);
                async move {
                    if answered.swap(true, Ordering::SeqCst) {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.serve_connection(TokioIo::new(tls), service).await.map_err(io::Error::other)
        }
    })
    .await;
    let (egress, url) = (trusting_egress(), url(&receiver, "app.example"));
    assert_status(&egress.attempt(job(&url, 5_000)).await, 200);
    assert_failed(&egress.attempt(job(&url, 200)).await, FailureKind::Timeout);
    assert_status(&egress.attempt(job(&url, 5_000)).await, 200);
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn http2_heads_have_the_same_limit() {
    for extra in [17 << 10, 100 << 10] {
        let receiver = h2_receiver(acceptor("app.example", false, &["h2"]), extra).await;
        let report = trusting_egress().attempt(job(&url(&receiver, "app.example"), 5_000)).await;
        let kind = if extra < 64 << 10 { FailureKind::Protocol } else { FailureKind::Reset };
        assert_failed(&report, kind);
    }
}

#[tokio::test]
async fn http1_over_tls() {
    for protocols in [&["http/1.1"][..], &[]] {
        let acceptor = acceptor("app.example", false, protocols);
        let mut receiver = h1_receiver(acceptor, response("200 OK", "", "ok"), false).await;
        let egress = trusting_egress();
        for is_fresh in [true, false] {
            let report = egress.attempt(job(&url(&receiver, "app.example"), 5_000)).await;
            assert_status(&report, 200);
            assert_eq!(report.timings.tls_us.is_some(), is_fresh);
            let seen = receiver.seen().await;
            assert_eq!(seen.line, "POST /in?x=1 HTTP/1.1");
            assert_eq!(seen.headers.one("host"), Ok(format!("app.example:{}", receiver.addr.port()).as_bytes()));
        }
    }
}

#[tokio::test]
async fn an_address_can_have_a_certificate() {
    let receiver = h1_receiver(acceptor("127.0.0.1", false, &[]), response("200 OK", "", ""), false).await;
    assert_status(&trusting_egress().attempt(job(&url(&receiver, "127.0.0.1"), 5_000)).await, 200);
}

#[tokio::test]
async fn a_receiver_that_closes_without_goodbye_has_still_answered() {
    let answer = b"HTTP/1.1 200 OK\r\n\r\nall".to_vec();
    let receiver = h1_receiver(acceptor("app.example", false, &[]), answer, true).await;
    let report = trusting_egress().attempt(job(&url(&receiver, "app.example"), 5_000)).await;
    assert_status(&report, 200);
    assert_eq!(&report.response[..], b"all");
    // With a length, the end is missing.
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nall".to_vec();
    let receiver = h1_receiver(acceptor("app.example", false, &[]), answer, true).await;
    assert_failed(&trusting_egress().attempt(job(&url(&receiver, "app.example"), 5_000)).await, FailureKind::Reset);
}

#[tokio::test]
async fn certificates_that_do_not_verify() {
    let answer = response("200 OK", "", "");
    let wrong_name = h1_receiver(acceptor("other.example", false, &[]), answer.clone(), false).await;
    let expired = h1_receiver(acceptor("app.example", true, &[]), answer.clone(), false).await;
    for (receiver, word) in [(&wrong_name, "name"), (&expired, "expired")] {
        let report = trusting_egress().attempt(job(&url(receiver, "app.example"), 5_000)).await;
        let detail = assert_failed(&report, FailureKind::Tls);
        assert!(detail.contains(word), "{detail}");
        assert!(report.timings.tls_us.is_some() && report.timings.first_byte_us.is_none());
        assert_eq!(receiver.requests_unseen(), 0);
    }
    let unknown = h1_receiver(acceptor("127.0.0.1", false, &[]), answer, false).await;
    let report = unknown.egress().attempt(job(&url(&unknown, "127.0.0.1"), 5_000)).await;
    assert!(assert_failed(&report, FailureKind::Tls).contains("UnknownIssuer"));
}

#[tokio::test]
async fn what_is_not_tls_is_a_tls_failure() {
    let plain = Receiver::start(|mut conn| async move { conn.write(&response("400 Bad Request", "", "")).await }).await;
    assert_failed(&trusting_egress().attempt(job(&url(&plain, "app.example"), 5_000)).await, FailureKind::Tls);
}
