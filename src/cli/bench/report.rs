//! What was measured, for programs and for people.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::disk::Synced;
use super::latency::Quantiles;
use super::load::Ran;
use super::machine::{Machine, file_system, known};
use super::scenario::{Outcome, Plan};
use crate::cli::exit::Failure;
use crate::cli::out::{Out, Table, or_empty};

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
    /// Counts planned per second; none is a closed loop.
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
        // A rate that was planned says nothing beside what is possible.
        let references = self.references.iter().filter(|_| !is_planned);
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

    /// For people.
    pub(super) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        self.headline().iter().try_for_each(|line| out.line(line))?;
        out.line("")?;
        self.rates().print(out)?;
        out.line(match self.settings.rate_per_s {
            Some(_) => "\nMilliseconds until an answer, and until a delivery arrives, from the planned time",
            None => "\nMilliseconds until an answer (until a delivery arrives: with --rate only, as a closed loop makes a backlog)",
        })?;
        self.times().print(out)?;
        if self.scenarios.iter().any(|row| row.gateway.is_some()) {
            out.line("\nWhat the gateway used for each event, what all wrote to its disk meanwhile, and its memory at the end")?;
            self.costs().print(out)?;
        }
        for (name, remarks) in self.remarks().iter().filter(|(_, remarks)| !remarks.is_empty()) {
            out.line(format_args!("\n{name}: {}", remarks.join(", ")))?;
        }
        if self.interrupted {
            out.line("\nInterrupted: this is what there was by then.")?;
        }
        Ok(())
    }

    fn headline(&self) -> Vec<String> {
        let (version, machine) = (self.versions.load, &self.machine);
        let Settings { connections, rate_per_s, seconds, warm_up_s, body_bytes, endpoints, target, .. } =
            &self.settings;
        let planned = rate_per_s.map_or_else(|| "closed loop".to_owned(), |rate| format!("{rate} planned per second"));
        let mut lines = vec![
            match target {
                None => format!("load and gateway: postrider {version}, {machine}"),
                Some(url) => {
                    format!("gateway: {url}, of unknown version and machine\nload: postrider {version}, {machine}")
                }
            },
            format!(
                "{connections} connections, {planned}, {seconds} s each after {warm_up_s} s of warming up, bodies of \
                 {body_bytes} bytes, {endpoints} endpoints in a fan-out"
            ),
        ];
        if let Some(Disk { file_system, append, overwrite }) = &self.disk {
            let file_system = file_system.as_deref().unwrap_or("an unknown file system");
            let [a, o] =
                [append.sync_us, overwrite.sync_us].map(|us| format!("p50 {} p99 {} ms", ms(us.p50), ms(us.p99)));
            lines.push(format!("{file_system}: append + fdatasync {a}; over zeros {o}"));
        }
        lines
    }

    fn rates(&self) -> Table {
        let mut table = Table::new(&[
            "WHAT",
            "PER S",
            "÷ BARE",
            "÷ GROUPED",
            "÷ APPEND",
            "ACCEPTS/S",
            "DELIVERIES/S",
            "LOST",
            "EVENTS",
        ]);
        let blank = String::new;
        let whole = |figure: f64| format!("{figure:.0}");
        for (name, reference) in &self.references {
            let per_s = whole(reference.per_s);
            table.row([(*name).to_owned(), per_s, blank(), blank(), blank(), blank(), blank(), blank(), blank()]);
        }
        for row in &self.scenarios {
            let ratio = |name| row.ratios.get(name).map_or_else(blank, |ratio| format!("{ratio:.2}"));
            let deliveries = row.deliveries.as_ref();
            table.row([
                row.name.to_owned(),
                whole(row.events_per_s),
                ratio("bare"),
                ratio("grouped"),
                ratio("append"),
                whole(row.accepts_per_s),
                or_empty(deliveries.map(|deliveries| whole(deliveries.per_s))),
                or_empty(deliveries.map(|deliveries| deliveries.lost)),
                row.requests.accepted.to_string(),
            ]);
        }
        table
    }

    fn times(&self) -> Table {
        let mut table = Table::new(&["WHAT", "P50", "P90", "P99", "P99.9", "MAX"]);
        let mut row = |name: String, times: Option<Quantiles>| {
            if let Some(Quantiles { p50, p90, p99, p999, max }) = times {
                table.row([name, ms(p50), ms(p90), ms(p99), ms(p999), ms(max)]);
            }
        };
        for (name, reference) in &self.references {
            row((*name).to_owned(), reference.requests.as_ref().and_then(|requests| requests.answer_us));
        }
        for Row { name, requests, deliveries, .. } in &self.scenarios {
            row((*name).to_owned(), requests.answer_us);
            row(format!("{name} delivered"), deliveries.as_ref().and_then(|deliveries| deliveries.arrival_us));
        }
        table
    }

    fn costs(&self) -> Table {
        let mut table = Table::new(&["WHAT", "CPU µS", "DISK BYTES", "MEMORY MIB"]);
        for row in &self.scenarios {
            let Some(PerEvent { cpu_us, disk_bytes, rss_bytes }) = row.gateway else { continue };
            let memory = rss_bytes.map(|bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)));
            let (cpu_us, disk_bytes) = (cpu_us.map(|us| format!("{us:.1}")), disk_bytes.map(|b| format!("{b:.0}")));
            table.row([row.name.to_owned(), known(cpu_us), known(disk_bytes), known(memory)]);
        }
        table
    }

    /// What must be known beside the figures, for people.
    fn remarks(&self) -> Vec<(&'static str, Vec<String>)> {
        let of_reference = |reference: &Reference| reference.requests.as_ref().map(Counts::remarks).unwrap_or_default();
        let references = self.references.iter().map(|(name, reference)| (*name, of_reference(reference)));
        references.chain(self.scenarios.iter().map(|row| (row.name, row.remarks()))).collect()
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

    fn remarks(&self) -> Vec<String> {
        let refused = self.refused.iter().map(|Refused { status, count }| format!("{count} answered {status}"));
        let others = counted([
            (self.broken, "without an answer, which the times above count as long as one is waited for"),
            (self.unsent, "never sent: too few connections, or it did not keep up"),
            (self.connections_lost, "connections lost"),
        ]);
        refused.chain(others).collect()
    }
}

impl Row {
    fn remarks(&self) -> Vec<String> {
        let (lost, repeated) = self.deliveries.as_ref().map_or((0, 0), |d| (d.lost, d.repeated));
        let deliveries = counted([(lost, "deliveries did NOT arrive"), (repeated, "deliveries came again")]);
        self.requests.remarks().into_iter().chain(deliveries).collect()
    }
}

/// The remarks on what has happened at all.
fn counted<const N: usize>(remarks: [(u64, &'static str); N]) -> impl Iterator<Item = String> {
    remarks.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"))
}

fn ms(us: u64) -> String {
    format!("{:.2}", us as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::load::Load;
    use crate::cli::bench::machine::Used;
    use crate::cli::bench::scenario::{Cost, Delivered, Scenario};
    use crate::cli::bench::sink::Arrived;
    use std::time::Duration;

    fn report() -> Report {
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

    fn ran(refused: u64) -> Ran {
        let (accepted, until_us) = (20_000, 1_000_000);
        let refused: BTreeMap<_, _> = (refused > 0).then_some((503, refused)).into_iter().collect();
        let sent = accepted + refused.values().sum::<u64>();
        Ran { sent, accepted, in_time: accepted, refused, until_us, ..Ran::default() }
    }

    fn outcome(ran: Ran, count: u64, repeated: u64) -> Outcome {
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
        let lines = report.rates().lines();
        assert_eq!(lines[0], "WHAT       PER S   ÷ BARE  ÷ GROUPED  ÷ APPEND  ACCEPTS/S  DELIVERIES/S  LOST  EVENTS");
        assert_eq!(lines[2], "bare       100000  -       -          -         -          -             -     -");
        assert_eq!(lines[5], "cycle      16000   0.16    0.32       4.00      20000      16000         0     20000");
        assert!(
            report.headline()[2].ends_with("append + fdatasync p50 0.25 p99 0.90 ms; over zeros p50 0.25 p99 0.90 ms")
        );
        // Arrivals in a closed loop would time its own backlog.
        assert_eq!(report.times().lines()[1..], ["bare  1.50  2.00  3.25  4.00   5.00"]);
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
    fn whatever_did_not_come_to_its_end_is_told() {
        for (outcome, told, is_ok) in [
            (outcome(ran(3), 20_000, 0), vec!["3 answered 503"], false),
            (outcome(ran(0), 19_998, 0), vec!["2 deliveries did NOT arrive"], false),
            (outcome(ran(0), 19_999, 1), vec!["1 deliveries did NOT arrive", "1 deliveries came again"], false),
            (outcome(ran(0), 20_000, 1), vec!["1 deliveries came again"], true),
            (outcome(ran(0), 20_000, 0), vec![], true),
        ] {
            let mut report = report();
            report.add(&outcome);
            assert_eq!(
                (report.scenarios[0].remarks(), report.is_ok()),
                (told.iter().map(|t| (*t).to_owned()).collect(), is_ok)
            );
        }
    }

    #[test]
    fn a_reference_with_errors_is_told_and_no_success() {
        let mut report = report();
        assert!(report.is_ok() && report.remarks().iter().all(|(_, remarks)| remarks.is_empty()));
        report.bare(&ran(7));
        assert!(!report.is_ok());
        assert!(report.remarks().contains(&("bare", vec!["7 answered 503".to_owned()])));
    }

    #[test]
    fn a_gateway_elsewhere_is_not_told_to_be_this_machine() {
        let load = Load { connections: 1, rate: Some(5.0), lasts: Duration::from_secs(1), seed: 3 };
        let plan = Plan { load, warm_up: Duration::ZERO, body_bytes: 1_024, endpoints: 1 };
        let report = Report::new(&plan, Machine::describe(), Some("http://there:8081"));
        assert!(report.headline()[0].starts_with("gateway: http://there:8081, of unknown version and machine\nload: "));
        assert_eq!((report.versions.gateway, report.settings.seed), (None, Some(3)));
    }

    #[test]
    fn what_is_not_known_of_a_gateway_is_no_zero() {
        let mut report = report();
        let used = Used { cpu_s: Some(0.5), disk_bytes: None };
        let cost = Some(Cost { used, rss_bytes: None });
        report.add(&Outcome { cost, ..outcome(ran(0), 20_000, 0) });
        assert_eq!(report.costs().lines()[1], "cycle  25.0    unknown     unknown");
        // Nothing was accepted, so there is no event that it was used for.
        report.add(&Outcome { cost, ..outcome(Ran { sent: 1, ..Ran::default() }, 0, 0) });
        assert_eq!(report.costs().lines()[2], "cycle  unknown  unknown     unknown");
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
