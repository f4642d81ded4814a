//! The load generator: connections that send prepared requests, in a closed loop or at planned times.
//!
//! In a closed loop each connection sends a request, reads the answer, and sends the next; a request counts from when it is
//! sent. In an open loop requests are planned, at a rate, whatever becomes of those before; one that finds no free connection
//! waits for it, and counts from the time that it was planned for. So a server that stalls is charged for all who would have
//! come meanwhile (no coordinated omission).
//!
//! Rates are of the window that was planned, or that an interrupt ended: a server that stops answering in the middle of it is
//! not measured by its good half alone. For the same reason a request that no answer came to counts as one that took as long
//! as an answer is waited for.
//!
//! **Invariant:** what was sent was accepted, refused with a status, or broken; what was planned was sent or is told as unsent.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::answer;
use super::destination::Destination;
use super::latency::{Latency, Quantiles};
use super::request::Requests;
use super::schedule::Schedule;
use crate::cli::exit::{self, Failure};
use crate::cli::interrupt::Interrupt;
use crate::env::{Clock as _, RealClock};

/// Milliseconds for a connection to be made.
const CONNECT_TIMEOUT_MS: u64 = 5_000;

/// Milliseconds after the end of a load in which answers may still come, and what a request without one counts as.
const ANSWER_TIMEOUT_MS: u64 = 30_000;

/// The same after an interrupt: whoever waits wants to see what there is.
const INTERRUPTED_TIMEOUT_MS: u64 = 1_000;

/// Milliseconds after the end of an open loop in which what is planned already may still be sent.
const LATE_MS: u64 = 1_000;

/// Milliseconds between two looks at the time and at interrupts.
const LOOK_MS: u64 = 50;

/// How much to send.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections, each with one request under way at most.
    pub connections: usize,
    /// Requests planned per second; none is a closed loop.
    pub rate: Option<f64>,
    /// For how long.
    pub lasts: Duration,
    /// Decides the planned times.
    pub seed: u64,
}

/// What goes along with all loads of a run.
#[derive(Debug, Clone)]
pub struct Course {
    /// Tells the time of all that is measured.
    pub clock: RealClock,
    /// Ends a load early.
    pub interrupt: Interrupt,
    /// Shows how far a load is.
    pub bar: ProgressBar,
}

impl Default for Course {
    fn default() -> Self {
        Self { clock: RealClock::new(), interrupt: Interrupt::default(), bar: ProgressBar::hidden() }
    }
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// Requests sent.
    pub sent: u64,
    /// Of these, answered with 2xx.
    pub accepted: u64,
    /// Of the accepted, answered within the window.
    pub in_time: u64,
    /// Of these, answered with another status: how many with which.
    pub refused: BTreeMap<u16, u64>,
    /// Requests planned that were never sent, as every connection was busy until the end.
    pub unsent: u64,
    /// Connections that could not be made again after they had broken.
    pub lost: u64,
    /// Microseconds until an accepted request was answered; for those unsent how long they had waited at the end, and for
    /// those without an answer how long one is waited for.
    pub latency: Option<Quantiles>,
    /// The clock when the window began.
    pub from_us: u64,
    /// The clock when it ended: as planned, or when an interrupt came.
    pub until_us: u64,
}

impl Ran {
    /// Requests that no answer came to.
    pub fn broken(&self) -> u64 {
        self.sent - self.accepted - self.refused.values().sum::<u64>()
    }

    /// Every request was sent and accepted.
    pub fn is_clean(&self) -> bool {
        self.accepted == self.sent && self.unsent == 0 && self.lost == 0
    }

    /// Requests accepted within the window, per second.
    pub fn per_s(&self) -> f64 {
        per_s(self.in_time, self.from_us, self.until_us)
    }
}

/// So many in this time, per second.
pub fn per_s(count: u64, from_us: u64, until_us: u64) -> f64 {
    count as f64 * 1e6 / until_us.saturating_sub(from_us).max(1) as f64
}

/// What all connections share.
struct Shared {
    target: Destination,
    requests: Requests,
    course: Course,
    until_us: u64,
    arrivals: Option<Arrivals>,
    sent: AtomicU64,
    accepted: AtomicU64,
    in_time: AtomicU64,
    refused: Mutex<BTreeMap<u16, u64>>,
    lost: AtomicU64,
    latency: Latency,
}

/// The planned times of an open loop.
struct Arrivals {
    /// Those that were not taken, in order.
    schedule: Mutex<Schedule>,
    /// A permit for each of them that has come; closed when no more are taken.
    due: Semaphore,
}

/// How far the planned times came.
#[derive(Debug, Clone, Copy, Default)]
struct Paced {
    planned: u64,
    ended_us: u64,
}

/// Runs a load to its end, or to an interrupt.
///
/// # Errors
/// When the connections can't be made in the first place; what goes wrong later is counted.
pub async fn run(target: &Destination, requests: Requests, load: Load, course: &Course) -> Result<Ran, Failure> {
    let mut streams = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        streams.push(connect(target).await.map_err(|error| {
            let authority = &target.authority;
            Failure::new(exit::UNREACHABLE, format_args!("http://{authority} can't be reached: {error}"))
        })?);
    }
    let from_us = course.clock.mono_us();
    let until_us = from_us + load.lasts.as_micros() as u64;
    let schedule = |rate| Schedule::new(load.seed, from_us, rate);
    let arrivals = load.rate.map(|rate| Arrivals { schedule: schedule(rate).into(), due: Semaphore::new(0) });
    let shared = Arc::new(Shared::new(target.clone(), requests, course.clone(), until_us, arrivals));
    course.bar.set_length(load.lasts.as_millis() as u64);
    let pacer = load.rate.map(|rate| {
        let (shared, schedule) = (Arc::clone(&shared), schedule(rate));
        std::thread::spawn(move || shared.pace(schedule))
    });
    let mut tasks = JoinSet::new();
    for stream in streams {
        tasks.spawn(connection(Arc::clone(&shared), stream));
    }
    let ended_us = shared.watch(&mut tasks, from_us).await;
    if let Some(arrivals) = &shared.arrivals {
        // Where every connection was lost this ends the pacer early.
        arrivals.due.close();
    }
    let paced = pacer.map(|pacer| pacer.join().map_err(|_| Failure::new(exit::STORAGE, "the pacing thread panicked")));
    Ok(shared.ran(from_us, ended_us, paced.transpose()?.unwrap_or_default()))
}

impl Shared {
    fn new(target: Destination, requests: Requests, course: Course, until_us: u64, arrivals: Option<Arrivals>) -> Self {
        Self {
            target,
            requests,
            course,
            until_us,
            arrivals,
            sent: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            in_time: AtomicU64::new(0),
            refused: Mutex::default(),
            lost: AtomicU64::new(0),
            latency: Latency::default(),
        }
    }

    fn now_us(&self) -> u64 {
        self.course.clock.mono_us()
    }

    /// When the next request was planned for, once that time has come; `None` when there is no next one.
    async fn planned(&self) -> Option<u64> {
        let Some(arrivals) = &self.arrivals else {
            let now_us = self.now_us();
            return (now_us < self.until_us && !self.course.interrupt.came()).then_some(now_us);
        };
        arrivals.due.acquire().await.ok()?.forget();
        arrivals.schedule.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// Lets the planned times come, until the end or an interrupt. A thread of its own, as the runtime's timers are as coarse
    /// as a millisecond.
    fn pace(&self, schedule: Schedule) -> Paced {
        let mut paced = Paced::default();
        let Some(arrivals) = &self.arrivals else { return paced };
        for at_us in schedule.take_while(|at_us| *at_us < self.until_us) {
            if !self.sleep_until(at_us) {
                break;
            }
            arrivals.due.add_permits(1);
            paced.planned += 1;
        }
        self.sleep_until(self.until_us);
        paced.ended_us = self.now_us().min(self.until_us);
        let late_us = paced.ended_us + LATE_MS * 1_000;
        while self.sent.load(Ordering::Relaxed) < paced.planned && self.now_us() < late_us && !arrivals.due.is_closed()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Whoever still waits for a permit ends.
        arrivals.due.close();
        paced
    }

    /// Sleeps; false if an interrupt came or no connection is left.
    fn sleep_until(&self, at_us: u64) -> bool {
        let is_over = || self.arrivals.as_ref().is_some_and(|arrivals| arrivals.due.is_closed());
        while !self.course.interrupt.came() && !is_over() {
            let left_us = at_us.saturating_sub(self.now_us());
            if left_us == 0 {
                return true;
            }
            std::thread::sleep(Duration::from_micros(left_us.min(LOOK_MS * 1_000)));
        }
        false
    }

    /// Waits for the connections' end, and cuts off what hangs. Gives the end of the window.
    async fn watch(&self, tasks: &mut JoinSet<()>, from_us: u64) -> u64 {
        let (mut ended_us, mut patience_us) = (self.until_us, self.until_us + ANSWER_TIMEOUT_MS * 1_000);
        let mut tick = tokio::time::interval(Duration::from_millis(LOOK_MS));
        loop {
            tokio::select! {
                ended = tasks.join_next() => if ended.is_none() { break },
                _ = tick.tick() => {
                    let now_us = self.now_us();
                    self.course.bar.set_position((now_us.min(self.until_us) - from_us) / 1_000);
                    if self.course.interrupt.came() {
                        ended_us = ended_us.min(now_us);
                        patience_us = patience_us.min(now_us + INTERRUPTED_TIMEOUT_MS * 1_000);
                    }
                    if now_us > patience_us {
                        tasks.abort_all();
                    }
                }
            }
        }
        // The last may have ended by an interrupt between two looks.
        if self.course.interrupt.came() { ended_us.min(self.now_us()) } else { ended_us }
    }

    /// Replaces a connection that is closed, or counts it as lost.
    async fn connect_again(&self, stream: &mut TcpStream) -> ControlFlow<()> {
        match connect(&self.target).await {
            Ok(again) => *stream = again,
            Err(_) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn answered(&self, status: u16, planned_us: u64) {
        let now_us = self.now_us();
        if (200..300).contains(&status) {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            let is_in_time = now_us <= self.until_us && !self.course.interrupt.came();
            self.in_time.fetch_add(is_in_time.into(), Ordering::Relaxed);
            self.latency.record(now_us.saturating_sub(planned_us));
        } else {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
        }
    }

    fn ran(&self, from_us: u64, until_us: u64, paced: Paced) -> Ran {
        let sent = self.sent.load(Ordering::Relaxed);
        let unsent = paced.planned.saturating_sub(sent);
        if let Some(Arrivals { schedule, .. }) = &self.arrivals {
            // What was never sent waited this long at least; left out it would make the quantiles better than they are.
            let schedule = &mut *schedule.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = schedule.take(unsent as usize).map(|at_us| paced.ended_us.saturating_sub(at_us));
            waited.for_each(|us| self.latency.record(us));
        }
        let mut ran = Ran {
            sent,
            accepted: self.accepted.load(Ordering::Relaxed),
            in_time: self.in_time.load(Ordering::Relaxed),
            refused: self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            unsent,
            lost: self.lost.load(Ordering::Relaxed),
            latency: None,
            from_us,
            until_us,
        };
        let timeout_ms = if self.course.interrupt.came() { INTERRUPTED_TIMEOUT_MS } else { ANSWER_TIMEOUT_MS };
        (0..ran.broken()).for_each(|_| self.latency.record(timeout_ms * 1_000));
        ran.latency = self.latency.quantiles();
        ran
    }
}

async fn connect(target: &Destination) -> std::io::Result<TcpStream> {
    let connecting = TcpStream::connect(&target.authority);
    let stream = tokio::time::timeout(Duration::from_millis(CONNECT_TIMEOUT_MS), connecting).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connection(shared: Arc<Shared>, mut stream: TcpStream) {
    use tokio::io::AsyncWriteExt as _;
    let (mut request, mut buffer) = (Vec::new(), Vec::new());
    while let Some(planned_us) = shared.planned().await {
        let n = shared.sent.fetch_add(1, Ordering::Relaxed);
        // A server hangs up where nothing comes for long, and is right; nothing is broken by that but the connection.
        if is_closed(&stream) && shared.connect_again(&mut stream).await.is_break() {
            return;
        }
        shared.requests.write(n, planned_us, &mut request);
        let exchanged = match stream.write_all(&request).await {
            Ok(()) => answer::read(&mut stream, &mut buffer).await,
            Err(error) => Err(error),
        };
        if let Ok(answer) = &exchanged {
            shared.answered(answer.status, planned_us);
        }
        let usable = exchanged.is_ok_and(|answer| !answer.closes);
        if !usable && shared.connect_again(&mut stream).await.is_break() {
            return;
        }
    }
}

/// Whether the other side has hung up, or has sent what nobody asked for.
fn is_closed(stream: &TcpStream) -> bool {
    !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests;
