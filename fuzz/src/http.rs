//! What comes over a connection to the public listener. The input is a payload up to the first line feed, then the
//! connection's bytes, in which `{body}` stands for the payload, `{len}` for its length, and `{stripe}` and `{github}` for
//! its signatures. Nobody else knows the secret, so whatever the rest is, only the payload can ever be stored.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use postrider::core::endpoint::{Catalog, DEFAULT_APP, Source, app_id, source_id};
use postrider::core::headers::Headers;
use postrider::core::limits::{IngressLimits, StoreLimits};
use postrider::core::secret::Secret;
use postrider::core::signature::{Request, provider};
use postrider::env::ManualClock;
use postrider::http::{ServerLimits, serve_connection};
use postrider::ingress::Ingress;
use postrider::store::memory::MemoryStore;
use postrider::store::{EventQuery, Store};
use postrider::telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::input::{secret_of, split_once};

const NOW_MS: u64 = 1_700_000_000_000;
const SOURCES: [&str; 2] = ["stripe", "github"];
/// Bytes that the connection takes before they are read.
const PIPE_BYTES: usize = 4 << 10;
/// Longer than every timeout of the listener together; time is virtual here.
const PATIENCE: Duration = Duration::from_secs(1_000);

pub fn run(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs nothing but memory").block_on(connection(bytes));
}

async fn connection(bytes: &[u8]) {
    let (payload, template) = split_once(bytes, b"\n");
    let secret = secret_of(bytes);
    let store = Arc::new(MemoryStore::new(|| NOW_MS, StoreLimits::default()));
    let metrics = Arc::new(Metrics::default());
    let ingress = Arc::new(Ingress::new(
        Arc::clone(&store),
        Arc::new(catalog(&secret)),
        IngressLimits { body_bytes_max: 64 << 10, ..IngressLimits::default() },
        Arc::clone(&metrics),
        Arc::new(ManualClock::at(NOW_MS)),
    ));
    let answers = converse(ingress, &filled(template, payload, &secret)).await;
    let text = String::from_utf8_lossy(&answers);
    assert!(!text.contains(&secret), "an answer tells the secret");
    assert!(answers.is_empty() || text.starts_with("HTTP/1."), "{text}");
    let answered =
        |status: &str| ["HTTP/1.0 ", "HTTP/1.1 "].map(|version| text.matches(&format!("{version}{status} ")).count());
    assert_eq!(answered("500"), [0, 0], "{text}");
    let query = EventQuery { limit: 1_000, ..EventQuery::default() };
    let stored = store.events(query).await.expect("the store in memory does not fail").data;
    for event in &stored {
        assert_eq!(event.body, payload, "something else than what was signed is stored");
    }
    let counted = |counter: &postrider::telemetry::Counter| counter.get("inbound") as usize;
    let (accepted, duplicates) = (counted(&metrics.accepted), counted(&metrics.duplicates));
    assert_eq!(stored.len(), accepted.min(1_000));
    assert_eq!(answered("200").iter().sum::<usize>(), accepted + duplicates, "{text}");
}

/// The listener's sources, all with one secret.
fn catalog(secret: &str) -> Catalog {
    let source = |name: &str| Source {
        id: source_id(name),
        name: name.to_owned(),
        app: app_id(DEFAULT_APP),
        app_name: DEFAULT_APP.to_owned(),
        scheme: provider(name).expect("it is built in"),
        secrets: vec![Secret::new(secret)],
        tolerance_s: None,
    };
    Catalog::new(SOURCES.map(source).into(), Vec::new())
}

/// The bytes to send.
fn filled(template: &[u8], payload: &[u8], secret: &str) -> Vec<u8> {
    let signature = |name: &str| {
        let scheme = provider(name).expect("it is built in");
        let request = Request { method: "POST", url: "", headers: &Headers::new(), body: payload };
        let headers = scheme.sign(&Secret::new(secret), &request, (NOW_MS / 1_000) as i64).expect("a secret will do");
        headers.into_iter().map(|(_, value)| value).collect::<String>().into_bytes()
    };
    let mut filled = template.to_vec();
    for (mark, text) in [
        ("{stripe}", signature("stripe")),
        ("{github}", signature("github")),
        ("{len}", payload.len().to_string().into_bytes()),
        // Last, so that a payload which holds marks is sent as it was signed.
        ("{body}", payload.to_vec()),
    ] {
        filled = replaced(&filled, mark.as_bytes(), &text);
    }
    filled
}

fn replaced(bytes: &[u8], mark: &[u8], text: &[u8]) -> Vec<u8> {
    let (before, after) = split_once(bytes, mark);
    if before.len() == bytes.len() { bytes.to_vec() } else { [before, text, &replaced(after, mark, text)].concat() }
}

/// Sends everything, reads everything, and sees to it that the connection ends.
async fn converse(ingress: Arc<Ingress<MemoryStore>>, bytes: &[u8]) -> Vec<u8> {
    let (client, server) = duplex(PIPE_BYTES);
    let (mut reading, mut writing) = tokio::io::split(client);
    let handler = move |request, peer| Arc::clone(&ingress).handle(request, peer);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let served = serve_connection(server, peer, ServerLimits::default(), handler);
    let mut answers = Vec::new();
    let sent = async {
        // A server that has closed takes no more; what it said before is what counts.
        let _ = writing.write_all(bytes).await;
        let _ = writing.shutdown().await;
    };
    let all = async { tokio::join!(served, sent, reading.read_to_end(&mut answers)) };
    assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "the connection never ends");
    answers
}
