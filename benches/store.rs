//! The store without any HTTP, beside what bounds it: `cargo bench --bench store`.
//!
//! In each round, at several numbers of callers with bodies of 1 KiB, and with several bodies at 64 callers:
//! - `grouped`: records of the same length handed to one thread, which appends all that wait to a file and syncs it;
//! - `accept`: events with one delivery, each answered when it is durable;
//! - `settle`: those deliveries end, as many at once as an engine has under way. Few would measure how long the store lets
//!   settles wait for company, as nobody waits for their sync.
//!
//! And with so many deliveries pending:
//! - `sled`: the next 100 of as many due keys in a tree of sled's own are read, in pages of 100 per second;
//! - `due`: the same of the store, as the engine asks for them.

#[path = "support/attempt.rs"]
mod attempt;
#[path = "support/event.rs"]
mod event;
#[path = "support/place.rs"]
mod place;
mod support;

use std::ops::Bound;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use postrider::cli::bench::disk;
use postrider::core::delivery::{DeliveryId, Next, Pending};
use postrider::core::id::EventId;
use postrider::env::{Clock, RealClock};
use postrider::index;
use postrider::store::embedded::EmbeddedStore;
use postrider::store::{Applied, DueKey, Settle, Store};

use attempt::attempt;
use event::{endpoint, event};
use place::{Taken, beside};
use support::options::Options;
use support::report::Report;
use support::{Bench, Error, disk_dir, wait};

/// Callers where bodies differ.
const CALLERS: usize = 64;

/// Bytes of a body where callers differ.
const BODY_BYTES: usize = 1_024;

/// Settles at once.
const SETTLERS: usize = 1_024;

/// Deliveries pending when the next ones are looked for.
const PENDING: [u64; 2] = [100_000, 1_000_000];

/// Those who fill a store.
const PUBLISHERS: usize = 1_024;

/// Deliveries looked for at once.
const PAGE: usize = 100;

const BENCH: Bench = Bench {
    name: "store",
    about: "The store at A callers with bodies of B bytes, and with many deliveries pending. Series: grouped, accept, settle, \
            sled, due",
    references: &["grouped", "sled"],
};

fn main() -> ExitCode {
    let mut backlogs = Vec::new();
    BENCH.run(|options, report| {
        for (callers, bytes) in options.points(|callers, bytes| callers == CALLERS || bytes == BODY_BYTES) {
            cycle(options, callers, bytes, report)?;
        }
        if backlogs.is_empty() && (options.wants("due") || options.wants("sled")) {
            for pending in PENDING {
                backlogs.push(Backlog::make(if options.short { pending / 10 } else { pending })?);
            }
        }
        backlogs.iter().try_for_each(|backlog| backlog.pages(options, report))
    })
}

/// Accepts and settles at one point.
fn cycle(options: &Options, callers: usize, bytes: usize, report: &mut Report) -> Result<(), Error> {
    let (at, lasts) = (format!("{callers} × {bytes} B"), options.measured);
    if options.wants("grouped") {
        report.add(&at, "grouped", wait(disk::append_grouped(disk_dir(), callers, bytes, lasts))?);
    }
    if options.wants("accept") || options.wants("settle") {
        let (store, _home) = place::store()?;
        accept(&store, callers, bytes, options.warm_up)?;
        let (taken, per_s) = accept(&store, callers, bytes, lasts)?;
        report.add(&at, "accept", per_s);
        report.add(&at, "settle", settle(&store, &taken)?);
    }
    Ok(())
}

/// What is accepted in this time, and how many per second.
fn accept(
    store: &Arc<EmbeddedStore>,
    callers: usize,
    bytes: usize,
    lasts: Duration,
) -> Result<(Vec<Taken>, f64), Error> {
    let (clock, body) = (RealClock::new(), Bytes::from(vec![b'x'; bytes]));
    let (same_clock, until_us) = (clock.clone(), lasts.as_micros() as u64);
    let next = move |_| (same_clock.mono_us() < until_us).then(|| event(body.clone(), Vec::new()));
    let taken = place::accept(store, callers, next)?;
    let per_s = per_s(taken.len(), &clock);
    Ok((taken, per_s))
}

/// How many of these deliveries are settled per second.
fn settle(store: &Arc<EmbeddedStore>, taken: &[Taken]) -> Result<f64, Error> {
    let (clock, mut tasks) = (RealClock::new(), JoinSet::new());
    for share in taken.chunks(taken.len().div_ceil(SETTLERS).max(1)) {
        let (store, share) = (Arc::clone(store), share.to_vec());
        let task = async move {
            for (event, at_ms) in share {
                if store.settle(delivered(event, at_ms)).await? != Applied::Ok {
                    return Err(format!("expected the delivery of {event} as it was").into());
                }
            }
            Ok::<_, Error>(())
        };
        tasks.spawn_on(task, &Handle::current());
    }
    wait(tasks.join_all()).into_iter().collect::<Result<(), _>>()?;
    Ok(per_s(taken.len(), &clock))
}

fn delivered(event: EventId, at_ms: u64) -> Settle {
    let (delivery, was) = (DeliveryId { endpoint: endpoint(), event }, Pending::fresh(at_ms));
    Settle { delivery, was, attempt: attempt(at_ms), response: Bytes::new(), next: Next::Delivered }
}

/// A store with much pending, and a tree with the same keys.
struct Backlog {
    store: Arc<EmbeddedStore>,
    sled: sled::Db,
    /// The directories of both.
    _homes: [TempDir; 2],
    pending: u64,
}

impl Backlog {
    fn make(pending: u64) -> Result<Self, Error> {
        eprintln!("filling a store with {pending} pending deliveries");
        let (store, home) = place::store()?;
        let next = move |n| (n < pending).then(|| event(Bytes::new(), Vec::new()));
        let taken = place::accept(&store, PUBLISHERS, next)?;
        let (sled, beside) = beside()?;
        let mut keys: Vec<_> = taken.iter().map(|(event, at_ms)| index::due::key(endpoint(), *at_ms, *event)).collect();
        keys.sort_unstable();
        for key in keys {
            sled.insert(key, index::due::value(&Pending::fresh(0)))?;
        }
        sled.flush()?;
        Ok(Self { store, sled, _homes: [home, beside], pending })
    }

    fn pages(&self, options: &Options, report: &mut Report) -> Result<(), Error> {
        let (at, lasts_us) = (format!("{} pending", self.pending), options.measured.as_micros() as u64);
        if options.wants("sled") {
            let (clock, mut count, mut after) = (RealClock::new(), 0, None);
            while clock.mono_us() < lasts_us {
                after = self.page_of_sled(after)?;
                count += 1;
            }
            report.add(&at, "sled", per_s(count, &clock));
        }
        if options.wants("due") {
            let (clock, mut count, mut after) = (RealClock::new(), 0, None);
            while clock.mono_us() < lasts_us {
                after = self.page(after)?;
                count += 1;
            }
            report.add(&at, "due", per_s(count, &clock));
        }
        Ok(())
    }

    /// The last key of the page after this one; none at the end.
    fn page_of_sled(&self, after: Option<sled::IVec>) -> Result<Option<sled::IVec>, Error> {
        let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        let page = self.sled.range::<sled::IVec, _>((from, Bound::Unbounded)).take(PAGE);
        let page = page.collect::<Result<Vec<_>, _>>()?;
        Ok(page.into_iter().next_back().map(|(key, _)| key))
    }

    fn page(&self, after: Option<DueKey>) -> Result<Option<DueKey>, Error> {
        let page = wait(self.store.pending(endpoint(), after, PAGE))?;
        Ok(page.last().map(postrider::store::Due::key))
    }
}

fn per_s(count: usize, clock: &RealClock) -> f64 {
    count as f64 * 1e6 / clock.mono_us().max(1) as f64
}
