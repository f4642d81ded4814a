//! A receiver whose every byte is scripted, and the jobs that are sent to it.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use postrider::core::attempt::{FailureKind, Outcome};
use postrider::core::endpoint::{Endpoint, app_id, endpoint_id};
use postrider::core::event::{Event, EventMeta};
use postrider::core::headers::Headers;
use postrider::core::id::{EventId, SourceId};
use postrider::core::retry::RetryPolicy;
use postrider::core::secret::Secret;
use postrider::core::signature::Profile;
use postrider::egress::{Egress, EgressConfig, Guard, Resolve, Resolving};
use postrider::engine::{Courier, Job, Report};
use postrider::env::{Clock, ManualClock, RealClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Wed, 21 Oct 2015 07:28:00 GMT.
pub const WALL_MS: u64 = 1_445_412_480_000;

/// A request as it came over the wire.
#[derive(Debug)]
pub struct Seen {
    pub line: String,
    pub headers: Headers,
    pub body: Vec<u8>,
}

/// One accepted connection in the hands of a script.
pub struct Conn<S = TcpStream> {
    pub stream: S,
    /// Counted from 0.
    pub nth: usize,
    seen: mpsc::UnboundedSender<Seen>,
    read: Vec<u8>,
}

pub struct Receiver {
    pub addr: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
    connections: Arc<AtomicUsize>,
}

impl Receiver {
    /// Accepts connections on a free port of 127.0.0.1 and runs the script on each.
    pub async fn start<F, R>(script: F) -> Self
    where
        F: Fn(Conn) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let nth = count.fetch_add(1, Ordering::SeqCst);
                // Whoever scripts an error wanted the connection to break.
                tokio::spawn(script(Conn { stream, nth, seen: sender.clone(), read: Vec::new() }));
            }
        });
        Self { addr, seen, connections }
    }

    /// Answers every request with these bytes.
    pub async fn answering(response: impl Into<Vec<u8>>) -> Self {
        let response = Arc::new(response.into());
        Self::start(move |mut conn| {
            let response = Arc::clone(&response);
            async move {
                loop {
                    conn.read_request().await?;
                    conn.write(&response).await?;
                }
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?a=1", self.addr)
    }

    pub async fn seen(&mut self) -> Seen {
        self.seen.recv().await.expect("the receiver listens as long as the test runs")
    }

    pub fn requests_unseen(&self) -> usize {
        self.seen.len()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Lets deliveries come here, as an operator's file would.
    pub fn guard(&self) -> Guard {
        Guard { literals: HashSet::from([("127.0.0.1".to_owned(), self.addr.port())]), ..Guard::default() }
    }

    pub fn egress(&self) -> Egress {
        egress(self.guard())
    }

    /// One attempt with a fresh egress.
    pub async fn attempt(&self, timeout_ms: u64) -> Report {
        self.egress().attempt(job(&self.url(), timeout_ms)).await
    }
}

impl<S> Conn<S> {
    /// Takes the stream out, to put another one over it.
    pub fn take(self) -> (S, Conn<()>) {
        (self.stream, Conn { stream: (), nth: self.nth, seen: self.seen, read: self.read })
    }

    pub fn over<T>(self, stream: T) -> Conn<T> {
        Conn { stream, nth: self.nth, seen: self.seen, read: self.read }
    }
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Conn<S> {
    /// Reads one request to its end and shows it to the test.
    pub async fn read_request(&mut self) -> io::Result<()> {
        let head_end = loop {
            if let Some(at) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more().await?;
        };
        let head = self.read.drain(..head_end).collect::<Vec<_>>();
        let mut lines = head.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let line = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let mut headers = Headers::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let colon = line.iter().position(|b| *b == b':').expect("a header has a colon");
            headers.push(std::str::from_utf8(&line[..colon]).unwrap(), line[colon + 1..].trim_ascii());
        }
        let length = std::str::from_utf8(headers.one("content-length").unwrap()).unwrap().parse().unwrap();
        while self.read.len() < length {
            self.read_more().await?;
        }
        let body = self.read.drain(..length).collect();
        let _ = self.seen.send(Seen { line, headers, body });
        Ok(())
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Waits until the other side has closed.
    pub async fn wait_closed(&mut self) {
        while self.read_more().await.is_ok() {
            self.read.clear();
        }
    }
}

pub fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

pub fn egress(guard: Guard) -> Egress {
    Egress::new(EgressConfig { guard, ..EgressConfig::default() }, Arc::new(RealClock::new())).unwrap()
}

/// With a wall clock that stands at [`WALL_MS`].
pub fn egress_at_wall(guard: Guard) -> Egress {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(WALL_MS));
    Egress::new(EgressConfig { guard, ..EgressConfig::default() }, clock).unwrap()
}

/// Looks names up in a script: every look-up takes the next answer, the last one stays.
pub struct Scripted(Mutex<Vec<Vec<IpAddr>>>);

impl Scripted {
    pub fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
        Arc::new(Self(Mutex::new(answers.iter().rev().map(parse).collect())))
    }

    pub fn egress(self: Arc<Self>, guard: Guard) -> Egress {
        let config = EgressConfig { guard, ..EgressConfig::default() };
        Egress::with_resolver(config, Arc::new(RealClock::new()), self).unwrap()
    }
}

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Resolving<'a> {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
        Box::pin(async move { answer.ok_or_else(|| io::Error::other("no such host")) })
    }
}

/// A resolver that never answers.
pub struct Silent;

impl Resolve for Silent {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Resolving<'a> {
        Box::pin(std::future::pending()) as Pin<Box<_>>
    }
}

/// A published event for `url`.
pub fn job(url: &str, timeout_ms: u64) -> Job {
    job_of(url, timeout_ms, None, &[], br#"{"test": 2432232314}"#)
}

pub fn job_of(url: &str, timeout_ms: u64, source: Option<SourceId>, headers: &[(&str, &[u8])], body: &[u8]) -> Job {
    let endpoint = Endpoint {
        id: endpoint_id("default", "app"),
        name: "app".to_owned(),
        app: app_id("default"),
        app_name: "default".to_owned(),
        url: url.to_owned(),
        sources: vec![],
        event_types: vec![],
        secrets: vec![Secret::new(SECRET)],
        profile: Profile::StandardWebhooks,
        retry: RetryPolicy::default(),
        timeout_ms,
        in_flight_max: 64,
    };
    let meta = EventMeta {
        id: EventId::at(WALL_MS, 7),
        app: app_id("default"),
        source,
        event_type: Some("order.created".to_owned()),
        external_id: None,
        accepted_ms: WALL_MS,
        headers: headers.iter().copied().collect(),
        endpoints: vec![],
    };
    let event = Event { meta: meta.into(), body: Bytes::copy_from_slice(body), erased: false };
    Job { endpoint: Arc::new(endpoint), event: Arc::new(event), number: 1 }
}

/// The same for an endpoint without a secret.
pub fn unsigned(mut job: Job) -> Job {
    Arc::get_mut(&mut job.endpoint).expect("a fresh job is not shared").secrets.clear();
    job
}

#[track_caller]
pub fn assert_status(report: &Report, expected: u16) {
    match &report.outcome {
        Outcome::Answered { status, .. } if *status == expected => {}
        other => panic!("expected an answer with status {expected}, got {other:?}"),
    }
}

/// Checks the kind and gives back the detail.
#[track_caller]
pub fn assert_failed(report: &Report, expected: FailureKind) -> &str {
    match &report.outcome {
        Outcome::Failed { kind, detail } if *kind == expected => detail,
        other => panic!("expected a failure of kind {expected:?}, got {other:?}"),
    }
}
