//! Accepting connections, serving them, and stopping without losing an answer.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::conn::{Phase, Watch, WatchedStream};
use super::reply::Reply;

/// Fields that hyper keeps on the stack; another limit costs an allocation per request.
const HYPER_HEADERS_MAX: usize = 100;

/// The smallest read buffer that hyper takes.
const HYPER_BUFFER_BYTES_MIN: usize = 8 << 10;

/// Milliseconds that a closing connection waits for its peer.
const LINGER_MS: u64 = 1_000;

/// Milliseconds to wait when no connection can be accepted: the process is out of file descriptors or memory, and asking
/// again at once would only burn what is left.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Limits of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Bytes of a head. Up to twice as much is read, so that a head that is somewhat too long gets an answer that says so
    /// (see [`check_head`](super::check_head)); beyond that hyper answers 431 without a body.
    pub header_bytes_max: usize,
    /// Header fields; more is answered 431.
    pub headers_max: usize,
    /// Milliseconds for a head to arrive, from its first byte, or from the connection's start; then it is closed.
    pub header_timeout_ms: u64,
    /// Milliseconds between two requests, and for some bytes of an answer to leave; then the connection is closed.
    pub idle_timeout_ms: u64,
    /// Open connections; further ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// Milliseconds that running requests get when the listener stops.
    pub drain_ms: u64,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            header_bytes_max: 16 << 10,
            headers_max: HYPER_HEADERS_MAX,
            header_timeout_ms: 5_000,
            idle_timeout_ms: 75_000,
            connections_max: 4_096,
            drain_ms: 30_000,
        }
    }
}

/// How far a listener's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// Idle connections close, the others after their answer.
    Drain,
    /// All connections close.
    Abort,
}

/// What all connections of a listener share.
struct Server<H> {
    http: http1::Builder,
    limits: ServerLimits,
    handler: H,
}

/// Serves HTTP/1.1 on `listener` until `stop` turns true or its sender is gone; then the listener closes at once, idle
/// connections too, and running requests get [`drain_ms`](ServerLimits::drain_ms). Returns when the last one is gone.
///
/// A handler runs to its end also when its client has closed its sending side; it is dropped only when the connection
/// breaks or the drain runs out.
pub async fn serve<H, F>(listener: TcpListener, limits: ServerLimits, handler: H, mut stop: watch::Receiver<bool>)
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let server = Arc::new(Server { http: http(&limits), limits, handler });
    let (stage, _) = watch::channel(Stage::Open);
    loop {
        let accepted = tokio::select! {
            biased;
            // An error means that the sender is gone, and with it whoever could ever stop us.
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        if let Some((stream, peer, slot)) = accepted {
            let (server, stage) = (Arc::clone(&server), stage.subscribe());
            tokio::spawn(async move {
                server.connection(stream, peer, stage).await;
                drop(slot);
            });
        }
    }
    drop(listener);
    stage.send_replace(Stage::Drain);
    if timeout(Duration::from_millis(server.limits.drain_ms), stage.closed()).await.is_err() {
        tracing::warn!(drain_ms = server.limits.drain_ms, "requests still running after the drain are cut off");
        stage.send_replace(Stage::Abort);
        stage.closed().await;
    }
}

/// Serves one connection to its end, whatever carries its bytes: what [`serve`] does for each that it accepts.
pub async fn serve_connection<T, H, F>(stream: T, peer: SocketAddr, limits: ServerLimits, handler: H)
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let (_open, stage) = watch::channel(Stage::Open);
    Server { http: http(&limits), limits, handler }.connection(stream, peer, stage).await;
}

fn http(limits: &ServerLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Phases are timed by `Server::keep_time`, see `conn`; hyper's one timeout can't tell them apart.
    http.header_read_timeout(None);
    // Who sends a request and closes its sending side still waits for the answer.
    http.half_close(true);
    http.max_buf_size((2 * limits.header_bytes_max).max(HYPER_BUFFER_BYTES_MIN));
    if limits.headers_max != HYPER_HEADERS_MAX {
        http.max_headers(limits.headers_max);
    }
    http
}

type Slot = tokio::sync::OwnedSemaphorePermit;

/// The next connection, once there is a slot for it; `None` when there is none to serve after all.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, SocketAddr, Slot)> {
    // The semaphore is never closed; if it were, no connection would be right.
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are small and complete: waiting for more to send would only delay them.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, slot))
        }
        Err(error) if is_the_peers(&error) => None,
        Err(error) => {
            tracing::warn!(%error, "no connection can be accepted; trying again in {ACCEPT_PAUSE_MS} ms");
            sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            None
        }
    }
}

/// The peer gave up before it was accepted; the next one has nothing to do with it.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl<H, F> Server<H>
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    async fn connection<T>(&self, stream: T, peer: SocketAddr, mut stage: watch::Receiver<Stage>)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let watch = Arc::new(Watch::new());
        let io = TokioIo::new(WatchedStream::new(stream, Arc::clone(&watch)));
        let service = service_fn(|request| {
            watch.enter(Phase::Busy);
            let answering = (self.handler)(request, peer);
            async {
                let reply = answering.await;
                watch.enter(Phase::Idle);
                Ok::<_, Infallible>(reply)
            }
        });
        let mut http = pin!(self.http.serve_connection(io, service));
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                () = self.keep_time(http.as_mut(), &watch) => return,
                now = stage.wait_for(|stage| *stage == Stage::Abort || (*stage == Stage::Drain && !draining)) => {
                    match now.map(|stage| *stage) {
                        Ok(Stage::Drain) => draining = true,
                        _ => return,
                    }
                }
            }
            if watch.phase() == Phase::Idle {
                watch.close_at_once();
            }
            http.as_mut().graceful_shutdown();
        }
    }

    /// Drives a connection to its end, or until it stays too long in a phase. Can be dropped and called again.
    ///
    /// An alarm that is set too early is left where it is, and set anew when it rings: so a connection under load, which
    /// idles for a moment after each answer, costs no timer per request.
    async fn keep_time<C, E>(&self, mut http: Pin<&mut C>, watch: &Watch)
    where
        C: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        let mut alarm = pin!(sleep(Duration::MAX));
        let mut end = alarm.deadline();
        let mut timed = None;
        poll_fn(|cx| {
            if let Poll::Ready(ended) = http.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return Poll::Ready(());
            }
            let Some(time) = self.time_for(watch.phase()) else { return Poll::Pending };
            if timed != Some(watch.turn()) {
                timed = Some(watch.turn());
                end = sleep(time).deadline();
                if end < alarm.deadline() {
                    alarm.as_mut().reset(end);
                }
            }
            loop {
                ready!(alarm.as_mut().poll(cx));
                if end <= alarm.deadline() {
                    return Poll::Ready(());
                }
                alarm.as_mut().reset(end);
            }
        })
        .await;
    }

    /// How long a connection may stay in a phase.
    fn time_for(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Head => Some(Duration::from_millis(self.limits.header_timeout_ms)),
            Phase::Idle => Some(Duration::from_millis(self.limits.idle_timeout_ms)),
            Phase::Lingering => Some(Duration::from_millis(LINGER_MS)),
            Phase::Busy => None,
        }
    }
}
