//! The endpoint that deliveries arrive at: reads each, notes whether it came for the first time and how long after its
//! planned time, and answers 204. Runs in the benchmark's own process, whose clock the payloads were stamped with.

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
use super::request::{Mark, Tag};
use crate::env::{Clock as _, RealClock};

/// Bytes of a body that are read; no gateway sends more.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Numbers of requests that are told apart: more than one load sends. Each takes a byte.
const NUMBERS_MAX: u64 = 1 << 28;

/// How long nothing is accepted after that has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An endpoint; it serves for as long as the runtime lives.
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    arrivals: Arc<Mutex<Arrivals>>,
}

/// Deliveries that arrived.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrived {
    /// As many as there must be of each event at most: no repetitions.
    pub count: u64,
    /// Those that came on top of that.
    pub repeated: u64,
    /// The clock when the last of `count` came.
    pub last_us: u64,
    /// Microseconds from an event's planned time to its arrival.
    pub latency: Option<Quantiles>,
}

/// What came of the load that is under way.
#[derive(Default)]
struct Arrivals {
    tag: Tag,
    /// Endpoints that take each event.
    each: u8,
    /// How often each number came. Which endpoint it was for is not told apart: a repetition at one can hide a loss at another.
    seen: Vec<u8>,
    arrived: Arrived,
    latency: Latency,
}

impl Arrivals {
    fn note(&mut self, mark: &Mark, now_us: u64) {
        // What is still under way of an earlier load is none of this one's.
        if self.tag != mark.tag || mark.number >= NUMBERS_MAX {
            return;
        }
        let number = mark.number as usize;
        if number >= self.seen.len() {
            self.seen.resize(number + 1, 0);
        }
        if self.seen[number] == self.each {
            self.arrived.repeated += 1;
            return;
        }
        self.seen[number] += 1;
        self.arrived.count += 1;
        self.arrived.last_us = now_us;
        self.latency.record(now_us.saturating_sub(mark.at_us));
    }
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
            if let Some(mark) = Mark::of(body) {
                noted.lock().unwrap_or_else(PoisonError::into_inner).note(&mark, clock.mono_us());
            }
        };
        tokio::spawn(serve(listener, StatusCode::NO_CONTENT, note));
        Ok(Self { address, arrivals })
    }

    /// From now on deliveries of this load are counted, `each` of every event, and no others.
    pub fn expect(&self, tag: Tag, each: u8) {
        let new = Arrivals { tag, each, ..Arrivals::default() };
        *self.arrivals.lock().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// What has arrived.
    pub fn arrived(&self) -> Arrived {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        Arrived { latency: arrivals.latency.quantiles(), ..arrivals.arrived }
    }

    /// How many have.
    pub fn count(&self) -> u64 {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).arrived.count
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::request::tag;

    #[test]
    fn repetitions_are_told_apart_and_other_loads_are_left_out() {
        let mut arrivals = Arrivals { tag: tag(1), each: 2, ..Arrivals::default() };
        let mark = |number| Mark { tag: tag(1), number, at_us: 100 };
        for (number, now_us) in [(0, 150), (3, 200), (0, 300), (0, 5_000), (3, 400), (3, 6_000)] {
            arrivals.note(&mark(number), now_us);
        }
        arrivals.note(&Mark { tag: tag(2), ..mark(1) }, 7_000);
        arrivals.note(&mark(NUMBERS_MAX), 7_000);
        let Arrived { count, repeated, last_us, .. } = arrivals.arrived;
        assert_eq!((count, repeated, last_us), (4, 2, 400));
        // A repetition is no late arrival.
        assert_eq!(arrivals.latency.quantiles().map(|latency| latency.max), Some(300));
    }
}
