//! A closed loop: each connection sends a request, reads the answer, sends the next.
//!
//! Kept light on purpose, since it runs on the cores that it measures: the requests are ready before the clock starts, and
//! of an answer no more is read than its status and where it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider::env::{Clock, RealClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Error;
use super::machine::{Probe, Used};

/// Bytes read at once; an answer of the gateway is smaller.
const READ_BYTES: usize = 8 << 10;

/// Requests that are ready to be sent.
pub trait Requests: Send + Sync {
    /// Makes `buffer`, which is empty or holds another request of these, the `n`-th request; false when there are fewer.
    fn write(&self, n: u64, buffer: &mut Vec<u8>) -> bool;
}

/// How much to send and what to look at.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections, each with one request under way.
    pub connections: usize,
    /// Before anything is counted.
    pub warm_up: Duration,
    /// While answers are counted; shorter when the requests run out.
    pub measured: Duration,
    /// The only status that is right.
    pub status: u16,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ran {
    /// Answers counted.
    pub answers: u64,
    /// Answers per second.
    pub rate: f64,
    /// Microseconds from a request to its answer, half of all.
    pub p50_us: u32,
    /// Microseconds that 99 of 100 answers took at most.
    pub p99_us: u32,
    /// What the server used meanwhile.
    pub used: Used,
}

struct Shared {
    requests: Arc<dyn Requests>,
    next: AtomicU64,
    clock: RealClock,
    from_us: u64,
    until_us: u64,
    status: [u8; 3],
}

/// Runs a load against `address`.
///
/// # Errors
/// When a connection breaks, or an answer has another status.
pub async fn run(address: SocketAddr, requests: Arc<dyn Requests>, load: Load, probe: &Probe) -> Result<Ran, Error> {
    let clock = RealClock::new();
    let from_us = clock.mono_us() + load.warm_up.as_micros() as u64;
    let until_us = from_us + load.measured.as_micros() as u64;
    let digit = |unit: u16| b'0' + (load.status / unit % 10) as u8;
    let status = [digit(100), digit(10), digit(1)];
    let shared = Arc::new(Shared { requests, next: AtomicU64::new(0), clock, from_us, until_us, status });
    let mut tasks = JoinSet::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        tasks.spawn(connection(stream, Arc::clone(&shared)));
    }
    tokio::time::sleep(load.warm_up).await;
    let before = probe.read();
    let (mut took, mut last_us) = (Vec::new(), from_us);
    while let Some(ended) = tasks.join_next().await {
        let (one, ended_us) = ended??;
        took.extend(one);
        last_us = last_us.max(ended_us);
    }
    let used = probe.read().since(&before);
    Ok(summary(took, last_us.min(until_us) - from_us, used))
}

fn summary(mut took: Vec<u32>, window_us: u64, used: Used) -> Ran {
    took.sort_unstable();
    let quantile = |of_1000: usize| took.get(took.len() * of_1000 / 1_000).copied().unwrap_or(0);
    let rate = took.len() as f64 * 1e6 / window_us.max(1) as f64;
    Ran { answers: took.len() as u64, rate, p50_us: quantile(500), p99_us: quantile(990), used }
}

/// Answers how long each request in the window took, and when the last ended.
async fn connection(mut stream: TcpStream, shared: Arc<Shared>) -> Result<(Vec<u32>, u64), Error> {
    let mut request = Vec::new();
    let mut answer = Vec::with_capacity(READ_BYTES);
    let mut took = Vec::with_capacity(1 << 16);
    let mut started_us = shared.clock.mono_us();
    while shared.requests.write(shared.next.fetch_add(1, Ordering::Relaxed), &mut request) {
        stream.write_all(&request).await?;
        read_answer(&mut stream, &mut answer, shared.status).await?;
        let ended_us = shared.clock.mono_us();
        if ended_us >= shared.until_us {
            return Ok((took, ended_us));
        }
        if started_us >= shared.from_us {
            took.push((ended_us - started_us) as u32);
        }
        started_us = ended_us;
    }
    Ok((took, started_us))
}

async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>, status: [u8; 3]) -> Result<(), Error> {
    answer.clear();
    let mut whole = usize::MAX;
    while answer.len() < whole {
        if stream.read_buf(answer).await? == 0 {
            return Err("the server closed a connection".into());
        }
        if whole == usize::MAX
            && let Some(head) = find(answer, b"\r\n\r\n")
        {
            if answer.get(9..12) != Some(&status) {
                return Err(format!("an answer that is not right: {}", String::from_utf8_lossy(answer)).into());
            }
            whole = head + 4 + content_length(&answer[..head]);
        }
    }
    Ok(())
}

/// hyper writes names in lower case, and a body of known length always with its length.
fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length: ";
    let digits = find(head, NAME).map_or(&[][..], |at| &head[at + NAME.len()..]);
    digits.iter().take_while(|b| b.is_ascii_digit()).fold(0, |n, digit| 10 * n + usize::from(digit - b'0'))
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}
