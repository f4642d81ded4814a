//! What was measured, for programs; `text` makes of it what people read.

mod text;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::disk::Synced;
use super::latency::Quantiles;
use super::load::Ran;
use super::machine::{Machine, file_system};
use super::scenario::{Outcome, Plan};
use crate::cli::exit::Failure;

/// What `--json` prints. What is not known is null.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Everything that was sent came to its end.
    ok: bool,
    interrupted: bool,
    /// Why not all was measured.
    error: Option<String>,
    versions: Versions,
    /// That of the load; that of the gateway only where it is our own.
    machine: Machine,
    settings: Settings,
    /// Absent for a gateway elsewhere: its disk is not this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<Disk>,
    /// What bounds a gateway on this machine, by name: events or records per second.
    references: BTreeMap<&'static str, Reference>,
    scenarios: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Versions {
    load: &'static str,
    /// Not known of a gateway elsewhere.
    gateway: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Settings {
    connections: usize,
    /// Requests planned per second; none is a closed loop.
    rate_per_s: Option<f64>,
    /// Decides the planned times.
    seed: Option<u64>,
    seconds: f64,
    warm_up_s: f64,
    body_bytes: usize,
    /// Of a fan-out.
    endpoints: usize,
    /// The gateway, if it is one elsewhere.
    target: Option<String>,
}

/// The file system of the data directory, and how long it takes to make one record durable.
#[derive(Debug, Serialize)]
pub(super) struct Disk {
    file_system: Option<String>,
    append: Synced,
    overwrite: Synced,
}

/// What a gateway is held against.
#[derive(Debug, Serialize)]
pub(super) struct Reference {
    per_s: f64,
    /// Where there are any.
    #[serde(flatten)]
    requests: Option<Counts>,
}

/// One scenario.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    /// Endpoints that take each event.
    endpoints: usize,
    /// Accepted and, where that is measured, delivered.
    events_per_s: f64,
    accepts_per_s: f64,
    /// Events per second as a share of each reference.
    ratios: BTreeMap<&'static str, f64>,
    #[serde(flatten)]
    requests: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<Deliveries>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<PerEvent>,
}

/// What came of requests: as many were accepted, refused and broken as were sent.
#[derive(Debug, Serialize)]
struct Counts {
    sent: u64,
    accepted: u64,
    refused: Vec<Refused>,
    broken: u64,
    unsent: u64,
    connections_lost: u64,
    answer_us: Option<Quantiles>,
}

#[derive(Debug, Serialize)]
struct Refused {
    status: u16,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Deliveries {
    expected: u64,
    arrived: u64,
    lost: u64,
    /// Not counted as arrived.
    repeated: u64,
    per_s: f64,
    /// From an event's planned time to its arrival. A closed loop plans nothing: it would time the backlog that it makes.
    arrival_us: Option<Quantiles>,
}

/// What the gateway used.
#[derive(Debug, Clone, Copy, Serialize)]
struct PerEvent {
    cpu_us: Option<f64>,
    /// Written to the disk, by all processes.
    disk_bytes: Option<f64>,
    rss_bytes: Option<u64>,
}

impl Disk {
    pub(super) fn new(dir: &Path, append: Synced, overwrite: Synced) -> Self {
        Self { file_system: file_system(dir), append, overwrite }
    }
}

impl Report {
    /// A report of nothing yet, from this machine on a gateway of our own or at `target`.
    pub(super) fn new(plan: &Plan, machine: Machine, target: Option<&str>) -> Self {
        let (load, version) = (plan.load, env!("CARGO_PKG_VERSION"));
        let settings = Settings {
            connections: load.connections,
            rate_per_s: load.rate,
            seed: load.rate.map(|_| load.seed),
            seconds: load.lasts.as_secs_f64(),
            warm_up_s: plan.warm_up.as_secs_f64(),
            body_bytes: plan.body_bytes,
            endpoints: plan.endpoints,
            target: target.map(str::to_owned),
        };
        Self {
            ok: true,
            interrupted: false,
            error: None,
            versions: Versions { load: version, gateway: target.is_none().then_some(version) },
            machine,
            settings,
            disk: None,
            references: BTreeMap::new(),
            scenarios: Vec::new(),
        }
    }

    pub(super) fn disk(&mut self, disk: Disk) {
        let reference = |synced: Synced| Reference { per_s: synced.per_s, requests: None };
        self.references.insert("append", reference(disk.append));
        self.references.insert("overwrite", reference(disk.overwrite));
        self.disk = Some(disk);
    }

    pub(super) fn grouped(&mut self, per_s: f64) {
        self.references.insert("grouped", Reference { per_s, requests: None });
    }

    pub(super) fn bare(&mut self, ran: &Ran) {
        self.ok &= ran.is_clean();
        self.references.insert("bare", Reference { per_s: ran.per_s(), requests: Some(Counts::of(ran)) });
    }

    /// Adds a scenario. What has not arrived by an interrupt is no error, and what it left without a request is nothing.
    pub(super) fn add(&mut self, outcome: &Outcome) {
        let (ran, events_per_s) = (&outcome.ran, outcome.events_per_s());
        if self.interrupted && ran.sent == 0 {
            return;
        }
        self.ok &= if self.interrupted { ran.is_clean() } else { outcome.is_clean() };
        let is_planned = self.settings.rate_per_s.is_some();
        let each = |total: f64| (ran.accepted > 0).then(|| total / ran.accepted as f64);
        // A rate that was planned says nothing beside what is possible, nor does one beside nothing.
        let references = self.references.iter().filter(|(_, reference)| !is_planned && reference.per_s > 0.0);
        let ratios = references.map(|(name, reference)| (*name, events_per_s / reference.per_s));
        self.scenarios.push(Row {
            name: outcome.scenario.name(),
            endpoints: outcome.endpoints,
            events_per_s,
            accepts_per_s: ran.per_s(),
            ratios: ratios.collect(),
            requests: Counts::of(ran),
            deliveries: outcome.delivered.map(|delivered| Deliveries {
                expected: delivered.expected,
                arrived: delivered.arrived.count,
                lost: delivered.lost(),
                repeated: delivered.arrived.repeated,
                per_s: outcome.deliveries_per_s().unwrap_or(0.0),
                arrival_us: delivered.arrived.latency.filter(|_| is_planned),
            }),
            gateway: outcome.cost.map(|cost| PerEvent {
                cpu_us: cost.used.cpu_s.and_then(|s| each(s * 1e6)),
                disk_bytes: cost.used.disk_bytes.and_then(|bytes| each(bytes as f64)),
                rss_bytes: cost.rss_bytes,
            }),
        });
    }

    /// It could not go on.
    pub(super) fn failed(&mut self, failure: &Failure) {
        self.ok = false;
        self.error = Some(failure.to_string());
    }

    /// It was asked to end early.
    pub(super) fn interrupted(&mut self) {
        self.interrupted = true;
    }

    pub(super) const fn is_ok(&self) -> bool {
        self.ok
    }

    /// Nothing was measured.
    pub(super) fn is_empty(&self) -> bool {
        self.references.is_empty() && self.scenarios.is_empty()
    }
}

impl Counts {
    fn of(ran: &Ran) -> Self {
        Self {
            sent: ran.sent,
            accepted: ran.accepted,
            refused: ran.refused.iter().map(|(status, count)| Refused { status: *status, count: *count }).collect(),
            broken: ran.broken(),
            unsent: ran.unsent,
            connections_lost: ran.lost,
            answer_us: ran.latency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::load::Load;
    use crate::cli::bench::scenario::{Delivered, Scenario};
    use crate::cli::bench::sink::Arrived;
    use std::time::Duration;

    pub(super) fn report() -> Report {
        let load = Load { connections: 64, rate: None, lasts: Duration::from_secs(10), seed: 0 };
        let plan = Plan { load, warm_up: Duration::ZERO, body_bytes: 1_024, endpoints: 10 };
        let mut report = Report::new(&plan, Machine::describe(), None);
        let synced = Synced { per_s: 4_000.0, sync_us: Quantiles { p50: 250, p99: 900, ..Quantiles::default() } };
        report.disk(Disk::new(Path::new("/nowhere"), synced, synced));
        report.grouped(50_000.0);
        let latency = Some(Quantiles { p50: 1_500, p90: 2_000, p99: 3_250, p999: 4_000, max: 5_000 });
        let (sent, until_us) = (200_000, 2_000_000);
        let ran = Ran { sent, accepted: sent, in_time: sent, latency, until_us, ..Ran::default() };
        report.bare(&ran);
        report
    }

    pub(super) fn ran(refused: u64) -> Ran {
        let (accepted, until_us) = (20_000, 1_000_000);
        let refused: BTreeMap<_, _> = (refused > 0).then_some((503, refused)).into_iter().collect();
        let sent = accepted + refused.values().sum::<u64>();
        Ran { sent, accepted, in_time: accepted, refused, until_us, ..Ran::default() }
    }

    pub(super) fn outcome(ran: Ran, count: u64, repeated: u64) -> Outcome {
        let latency = Some(Quantiles::default());
        let arrived = Arrived { count, repeated, last_us: 1_250_000, latency };
        let delivered = Some(Delivered { expected: 20_000, arrived });
        Outcome { scenario: Scenario::Cycle, endpoints: 1, ran, delivered, cost: None, failure: None }
    }

    #[test]
    fn ratios_are_those_of_the_same_run() {
        let mut report = report();
        report.add(&outcome(ran(0), 20_000, 0));
        assert!(report.is_ok());
        let row = &report.scenarios[0];
        assert_eq!((row.ratios["bare"], row.ratios["grouped"], row.ratios["append"]), (0.16, 0.32, 4.0));
    }

    #[test]
    fn a_rate_is_of_what_arrived_in_the_window_or_until_the_last_arrival() {
        let rate = |count| outcome(ran(0), count, 0).deliveries_per_s();
        assert_eq!((rate(20_000), rate(5_000)), (Some(16_000.0), Some(4_000.0)));
        // A gateway that delivered nothing after the first tenth is not measured by that alone.
        let mut stalled = outcome(ran(0), 5_000, 0);
        stalled.delivered.as_mut().unwrap().arrived.last_us = 100_000;
        assert_eq!(stalled.deliveries_per_s(), Some(5_000.0));
        assert_eq!(Outcome { endpoints: 10, ..outcome(ran(0), 20_000, 0) }.events_per_s(), 1_600.0);
    }

    #[test]
    fn what_an_interrupt_cut_off_is_no_error() {
        let mut report = report();
        report.interrupted();
        report.add(&outcome(ran(0), 5, 0));
        report.add(&outcome(Ran::default(), 0, 0));
        assert_eq!((report.scenarios.len(), report.is_ok()), (1, true));
        report.add(&outcome(ran(1), 5, 0));
        assert!(!report.is_ok());
    }
}
