//! The endpoint that deliveries arrive at: reads each, notes how long after its planned time it came, and answers 204. Runs
//! in the benchmark's own process, whose clock the payloads were stamped with.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::latency::{Latency, Quantiles};
use super::request::{Tag, mark};
use crate::env::{Clock as _, RealClock};

/// Bytes of a body that are read; no gateway sends more.
const BODY_BYTES_MAX: usize = 16 << 20;

/// How long nothing is accepted after that has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An endpoint; it serves for as long as the runtime lives.
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    arrivals: Arc<Mutex<Arrivals>>,
}

/// What came of the load that is under way.
#[derive(Default)]
struct Arrivals {
    tag: Tag,
    count: u64,
    latency: Latency,
}

impl Sink {
    /// Listens at `address`; port 0 is any free one.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub async fn start(address: SocketAddr, clock: RealClock) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let arrivals = Arc::new(Mutex::new(Arrivals::default()));
        let noted = Arc::clone(&arrivals);
        let note = move |body: &[u8]| {
            let Some((tag, at_us)) = mark(body) else { return };
            let mut arrivals = noted.lock().unwrap_or_else(PoisonError::into_inner);
            // What is still under way of an earlier load is none of this one's.
            if arrivals.tag == tag {
                arrivals.count += 1;
                arrivals.latency.record(clock.mono_us().saturating_sub(at_us));
            }
        };
        tokio::spawn(serve(listener, StatusCode::NO_CONTENT, note));
        Ok(Self { address, arrivals })
    }

    /// From now on deliveries of this load are counted, and no others.
    pub fn expect(&self, tag: Tag) {
        let new = Arrivals { tag, ..Arrivals::default() };
        *self.arrivals.lock().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// Deliveries that arrived.
    pub fn count(&self) -> u64 {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// How long after their planned time they arrived, in microseconds.
    pub fn quantiles(&self) -> Option<Quantiles> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).latency.quantiles()
    }
}

/// Reads every body, hands it to `note`, and answers each request with `status` and nothing else: the least that an HTTP
/// server can do.
pub async fn serve(listener: TcpListener, status: StatusCode, note: impl Fn(&[u8]) + Clone + Send + Sync + 'static) {
    // Connections that a client gives up before they are accepted are no reason to stop.
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, for one: trying again at once would take a core from what is measured.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let note = note.clone();
        let answer = move |request: Request<Incoming>| {
            let note = note.clone();
            async move {
                // A client that breaks off is told by its connection.
                if let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
                    note(&body.to_bytes());
                }
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        };
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}
