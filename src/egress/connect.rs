//! From a URL to an open HTTP connection: resolve, judge, connect, TLS, HTTP handshake, each timed.
//!
//! **Invariant:** a socket is opened only to an address that the guard judged in the same attempt; nothing resolves the name
//! a second time. Proxy settings of the environment are not looked at.

use std::future::{self, Future, Ready};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Uri;
use hyper::client::conn::{http1, http2};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::{TcpStream, UdpSocket};
use tower_service::Service;

use super::connection::{Connection, Sender, Tasks};
use super::guard::{Denied, Guard};
use super::trace::{Failure, Phase, Trace};
use crate::core::attempt::FailureKind;
use crate::core::limits::DeliveryLimits;
use crate::core::url::EndpointUrl;

/// Most addresses of a name that one attempt tries. The next attempt begins with the first again.
const ADDRESSES_TRIED_MAX: usize = 4;

/// Bytes that hyper buffers of a response at least.
const BUFFER_BYTES_MIN: usize = 16 << 10;

/// Bytes of header fields that hyper's HTTP/2 lets through at most. Above the limit on a response head, which is then
/// checked as for HTTP/1.1, so that both fail with the same words.
const H2_HEADER_BYTES_MAX: u32 = 64 << 10;

/// After so long without a sign of life, with requests waiting, an HTTP/2 connection is asked for one.
const H2_PING_AFTER: Duration = Duration::from_secs(10);

/// Turns host names into addresses. The real one is [`SystemResolver`].
pub trait Resolve: Send + Sync + 'static {
    /// Every address of `host`, in the order in which they should be tried.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a>;
}

/// A name look-up under way.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// The operating system's resolver: hosts file, search domains, DNS. It also reads spellings such as `127.1`, which is why
/// what it answers is judged and not what the URL says.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.map(|found| found.ip()).collect()) })
    }
}

/// Opens connections.
pub(super) struct Connector {
    pub(super) guard: Guard,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) limits: DeliveryLimits,
}

/// What HTTP is spoken over.
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Connector {
    /// Opens a connection to the host of `url`.
    pub(super) async fn connect(&self, url: &EndpointUrl, trace: &mut Trace<'_>) -> Result<Connection, Failure> {
        let targets = self.targets(url, trace).await?;
        let (tcp, remote) = open_first(&targets, trace).await?;
        trace.remote = Some(remote.to_string());
        let stream = if url.is_https() {
            self.shake_hands(tcp, url, trace).await?
        } else {
            MaybeHttpsStream::Http(TokioIo::new(tcp))
        };
        trace.end();
        self.speak_http(stream, remote).await
    }

    /// Checks again that an open connection leads where deliveries may go.
    pub(super) fn judge(&self, url: &EndpointUrl, remote: SocketAddr) -> Result<(), Failure> {
        self.guard.judge(url.host(), &[remote.ip()], url.port()).map(|_| ()).map_err(blocked)
    }

    /// The addresses that may be connected to.
    async fn targets(&self, url: &EndpointUrl, trace: &mut Trace<'_>) -> Result<Vec<SocketAddr>, Failure> {
        let resolved = match url.ip() {
            Some(ip) => vec![ip],
            None => {
                trace.begin(Phase::Dns);
                let resolved = self.resolver.resolve(url.host(), url.port()).await;
                trace.end();
                resolved.map_err(|error| {
                    Failure::new(FailureKind::Dns, format!("cannot look up {}: {error}", url.host()))
                })?
            }
        };
        if resolved.is_empty() {
            return Err(Failure::new(FailureKind::Dns, format!("{} has no addresses", url.host())));
        }
        let targets = self.guard.judge(url.host(), &resolved, url.port()).map_err(blocked)?;
        if self.guard.listens_everywhere(url.port()) {
            for target in &targets {
                if is_this_machine(*target).await {
                    return Err(blocked(Denied::Own(*target)));
                }
            }
        }
        Ok(targets)
    }

    async fn shake_hands(&self, tcp: TcpStream, url: &EndpointUrl, trace: &mut Trace<'_>) -> Result<Stream, Failure> {
        trace.begin(Phase::Tls);
        let failed = |detail: String| Failure::new(FailureKind::Tls, detail);
        let uri: Uri = format!("https://{}/", url.authority())
            .parse()
            .map_err(|error| failed(format!("unusable host: {error}")))?;
        HttpsConnector::from((Opened(Some(tcp)), Arc::clone(&self.tls)))
            .call(uri)
            .await
            .map_err(|error| failed(super::exchange::error_text(error.as_ref())))
    }

    async fn speak_http(&self, stream: Stream, remote: SocketAddr) -> Result<Connection, Failure> {
        let is_h2 = match &stream {
            MaybeHttpsStream::Http(_) => false,
            MaybeHttpsStream::Https(tls) => tls.inner().get_ref().1.alpn_protocol() == Some(b"h2"),
        };
        let tasks = Tasks::new();
        let failed = |error: hyper::Error| super::exchange::failure_of(&error);
        let sender = if is_h2 {
            let (sender, driver) = http2::Builder::new(tasks.executor())
                .timer(TokioTimer::new())
                .keep_alive_interval(H2_PING_AFTER)
                .keep_alive_timeout(H2_PING_AFTER)
                .max_header_list_size(H2_HEADER_BYTES_MAX)
                .handshake::<_, Full<Bytes>>(stream)
                .await
                .map_err(failed)?;
            tasks.spawn(drop_result(driver));
            Sender::H2(sender)
        } else {
            let head_bytes_max = self.limits.response_header_bytes_max;
            let (sender, driver) = http1::Builder::new()
                .max_header_size(head_bytes_max)
                .max_buf_size(head_bytes_max.max(BUFFER_BYTES_MIN))
                .handshake::<_, Full<Bytes>>(stream)
                .await
                .map_err(failed)?;
            tasks.spawn(drop_result(driver));
            Sender::H1(sender)
        };
        Ok(Connection::new(sender, remote, tasks))
    }
}

/// Errors of a connection reach whoever waits for a response on it; nobody else needs them.
async fn drop_result(driver: impl Future<Output = hyper::Result<()>>) {
    let _ = driver.await;
}

fn blocked(denied: Denied) -> Failure {
    Failure::new(FailureKind::Blocked, denied.to_string())
}

/// Tries the addresses in order, each with an equal share of the time that is left, so that one that never answers leaves
/// some for the next.
async fn open_first(targets: &[SocketAddr], trace: &mut Trace<'_>) -> Result<(TcpStream, SocketAddr), Failure> {
    trace.begin(Phase::Connect);
    let tried = &targets[..targets.len().min(ADDRESSES_TRIED_MAX)];
    let mut failures = Vec::new();
    for (i, target) in tried.iter().enumerate() {
        let share = Duration::from_micros(trace.remaining_us() / (tried.len() - i) as u64);
        match tokio::time::timeout(share, TcpStream::connect(target)).await {
            Ok(Ok(tcp)) => {
                // A request is written in one piece; waiting for more to send would only delay it. Failing to say so isn't
                // worth failing for.
                let _ = tcp.set_nodelay(true);
                trace.end();
                return Ok((tcp, *target));
            }
            Ok(Err(error)) => failures.push(format!("{target}: {error}")),
            Err(_) => failures.push(format!("{target}: no answer within {} ms", share.as_millis())),
        }
    }
    Err(Failure::new(FailureKind::Connect, format!("cannot connect to {}", failures.join(", "))))
}

/// Whether packets to `target` would stay on this machine. Connecting a datagram socket sends nothing; it has the kernel
/// choose a route, and towards one of its own addresses it chooses that address as the source.
async fn is_this_machine(target: SocketAddr) -> bool {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let Ok(socket) = UdpSocket::bind((any, 0)).await else { return false };
    match (socket.connect(target).await, socket.local_addr()) {
        (Ok(()), Ok(source)) => source.ip() == target.ip(),
        // No route: the connection will fail by itself.
        _ => false,
    }
}

/// Hands the TLS layer the connection that is open already, instead of a connector that would resolve and connect anew.
struct Opened(Option<TcpStream>);

impl Service<Uri> for Opened {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        future::ready(
            self.0.take().map(TokioIo::new).ok_or_else(|| io::Error::other("the connection was handed out before")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_knows_its_own_addresses() {
        assert!(is_this_machine("127.0.0.1:80".parse().unwrap()).await);
        assert!(!is_this_machine("192.0.2.1:80".parse().unwrap()).await);
    }

    #[tokio::test]
    async fn odd_spellings_resolve_to_what_they_mean() {
        for host in ["127.1", "0x7f.1", "2130706433", "0177.0.0.1"] {
            let resolved = SystemResolver.resolve(host, 80).await.unwrap();
            assert!(resolved.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{host}: {resolved:?}");
            assert!(Guard::default().judge(host, &resolved, 80).is_err(), "{host}");
        }
    }
}
