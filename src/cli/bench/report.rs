//! What was measured, for programs and for people.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::disk::Synced;
use super::latency::Quantiles;
use super::load::Ran;
use super::machine::{Machine, file_system};
use super::scenario::{Outcome, Plan};
use crate::cli::exit::Failure;
use crate::cli::out::{Out, Table, or_empty};

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Everything that was sent came to its end.
    ok: bool,
    interrupted: bool,
    versions: Versions,
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
    postrider: &'static str,
}

#[derive(Debug, Serialize)]
struct Settings {
    connections: usize,
    /// Requests planned per second; none is a closed loop.
    rate_per_s: Option<f64>,
    seconds: f64,
    body_bytes: usize,
}

/// The file system of the data directory, and how long it takes to make one record durable.
#[derive(Debug, Serialize)]
pub(super) struct Disk {
    file_system: Option<String>,
    append: Synced,
    overwrite: Synced,
}

/// What a gateway is held against.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Reference {
    per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_us: Option<Quantiles>,
}

/// One scenario.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    events_per_s: f64,
    /// Events per second as a share of each reference.
    ratios: BTreeMap<&'static str, f64>,
    sent: u64,
    accepted: u64,
    refused: Vec<Refused>,
    broken: u64,
    unsent: u64,
    connections_lost: u64,
    answer_us: Option<Quantiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<Deliveries>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<PerEvent>,
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
    per_s: f64,
    /// From an event's planned time to its arrival.
    arrival_us: Option<Quantiles>,
}

/// What the gateway used.
#[derive(Debug, Serialize)]
struct PerEvent {
    cpu_us: f64,
    /// Written to the disk, by all processes.
    disk_bytes: f64,
    rss_bytes: Option<u64>,
}

impl Disk {
    pub(super) fn new(dir: &Path, append: Synced, overwrite: Synced) -> Self {
        Self { file_system: file_system(dir), append, overwrite }
    }
}

impl Report {
    /// A report of nothing yet.
    pub(super) fn new(plan: &Plan, machine: Machine) -> Self {
        let load = plan.load;
        let settings = Settings {
            connections: load.connections,
            rate_per_s: load.rate,
            seconds: load.lasts.as_secs_f64(),
            body_bytes: plan.body_bytes,
        };
        Self {
            ok: true,
            interrupted: false,
            versions: Versions { postrider: env!("CARGO_PKG_VERSION") },
            machine,
            settings,
            disk: None,
            references: BTreeMap::new(),
            scenarios: Vec::new(),
        }
    }

    pub(super) fn disk(&mut self, disk: Disk) {
        let reference = |synced: Synced| Reference { per_s: synced.per_s, answer_us: None };
        self.references.insert("append", reference(disk.append));
        self.references.insert("overwrite", reference(disk.overwrite));
        self.disk = Some(disk);
    }

    pub(super) fn grouped(&mut self, per_s: f64) {
        self.references.insert("grouped", Reference { per_s, answer_us: None });
    }

    pub(super) fn bare(&mut self, ran: &Ran) {
        self.references.insert("bare", Reference { per_s: ran.per_s(), answer_us: ran.latency });
    }

    /// Adds a scenario. What has not arrived by an interrupt is no error, and what it left without a request is nothing.
    pub(super) fn add(&mut self, outcome: &Outcome) {
        let (ran, events_per_s) = (&outcome.ran, outcome.events_per_s());
        if self.interrupted && ran.sent == 0 {
            return;
        }
        self.ok &= if self.interrupted { ran.is_clean() } else { outcome.is_clean() };
        let refused = ran.refused.iter().map(|(status, count)| Refused { status: *status, count: *count });
        let events = ran.accepted.max(1) as f64;
        // A rate that was planned says nothing beside what is possible.
        let references = self.references.iter().filter(|_| self.settings.rate_per_s.is_none());
        let ratios = references.map(|(name, reference)| (*name, events_per_s / reference.per_s));
        self.scenarios.push(Row {
            name: outcome.scenario.name(),
            events_per_s,
            ratios: ratios.collect(),
            sent: ran.sent,
            accepted: ran.accepted,
            refused: refused.collect(),
            broken: ran.broken(),
            unsent: ran.unsent,
            connections_lost: ran.lost,
            answer_us: ran.latency,
            deliveries: outcome.delivered.map(|delivered| Deliveries {
                expected: delivered.expected,
                arrived: delivered.arrived,
                per_s: outcome.deliveries_per_s().unwrap_or(0.0),
                arrival_us: delivered.latency,
            }),
            gateway: outcome.cost.map(|cost| PerEvent {
                cpu_us: cost.used.cpu_s * 1e6 / events,
                disk_bytes: cost.used.disk_bytes as f64 / events,
                rss_bytes: cost.rss_bytes,
            }),
        });
    }

    /// It was asked to end early.
    pub(super) fn interrupted(&mut self) {
        self.interrupted = true;
    }

    pub(super) const fn is_ok(&self) -> bool {
        self.ok
    }

    /// For people.
    pub(super) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        self.headline().iter().try_for_each(|line| out.line(line))?;
        out.line("")?;
        self.rates().print(out)?;
        out.line("\nMilliseconds until an answer, and until a delivery arrives, from the planned time")?;
        self.times().print(out)?;
        if self.scenarios.iter().any(|row| row.gateway.is_some()) {
            out.line("\nWhat the gateway used for each event, what all wrote to its disk meanwhile, and its memory at the end")?;
            self.costs().print(out)?;
        }
        for row in self.scenarios.iter().filter(|row| !row.errors().is_empty()) {
            out.line(format_args!("\n{}: {}", row.name, row.errors().join(", ")))?;
        }
        if self.interrupted {
            out.line("\nInterrupted: this is what there was by then.")?;
        }
        Ok(())
    }

    fn headline(&self) -> Vec<String> {
        let Machine { processor, cores, memory_bytes, kernel, load } = &self.machine;
        let memory = memory_bytes.map_or_else(|| "?".to_owned(), |bytes| (bytes >> 20).to_string());
        let Settings { connections, rate_per_s, seconds, body_bytes } = &self.settings;
        let planned = rate_per_s.map_or_else(|| "closed loop".to_owned(), |rate| format!("{rate} planned per second"));
        let mut lines = vec![
            format!(
                "postrider {} on {processor}, {cores} cores, {memory} MiB, {kernel}, load {load}",
                self.versions.postrider
            ),
            format!("{connections} connections, {planned}, {seconds} s each, bodies of {body_bytes} bytes"),
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
        let mut table = Table::new(&["WHAT", "PER S", "÷ BARE", "÷ GROUPED", "÷ APPEND", "DELIVERIES/S", "EVENTS"]);
        let blank = String::new;
        for (name, reference) in &self.references {
            let per_s = format!("{:.0}", reference.per_s);
            table.row([(*name).to_owned(), per_s, blank(), blank(), blank(), blank(), blank()]);
        }
        for row in &self.scenarios {
            let ratio = |name| row.ratios.get(name).map_or_else(blank, |ratio| format!("{ratio:.2}"));
            let per_s = row.deliveries.as_ref().map(|deliveries| format!("{:.0}", deliveries.per_s));
            table.row([
                row.name.to_owned(),
                format!("{:.0}", row.events_per_s),
                ratio("bare"),
                ratio("grouped"),
                ratio("append"),
                or_empty(per_s),
                row.accepted.to_string(),
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
            row((*name).to_owned(), reference.answer_us);
        }
        for Row { name, answer_us, deliveries, .. } in &self.scenarios {
            row((*name).to_owned(), *answer_us);
            row(format!("{name} delivered"), deliveries.as_ref().and_then(|deliveries| deliveries.arrival_us));
        }
        table
    }

    fn costs(&self) -> Table {
        let mut table = Table::new(&["WHAT", "CPU µS", "DISK BYTES", "MEMORY MIB"]);
        for row in &self.scenarios {
            let Some(PerEvent { cpu_us, disk_bytes, rss_bytes }) = row.gateway else { continue };
            let memory = rss_bytes.map(|bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)));
            table.row([row.name.to_owned(), format!("{cpu_us:.1}"), format!("{disk_bytes:.0}"), or_empty(memory)]);
        }
        table
    }
}

impl Row {
    /// What went wrong, for people.
    fn errors(&self) -> Vec<String> {
        let mut errors: Vec<_> =
            self.refused.iter().map(|Refused { status, count }| format!("{count} answered {status}")).collect();
        let missing = self.deliveries.as_ref().map_or(0, |d| d.expected.saturating_sub(d.arrived));
        for (count, what) in [
            (self.broken, "without an answer"),
            (self.unsent, "never sent: too few connections, or the gateway did not keep up"),
            (self.connections_lost, "connections lost"),
            (missing, "deliveries did not arrive"),
        ] {
            if count > 0 {
                errors.push(format!("{count} {what}"));
            }
        }
        errors
    }
}

fn ms(us: u64) -> String {
    format!("{:.2}", us as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::load::Load;
    use crate::cli::bench::scenario::{Delivered, Scenario};
    use std::time::Duration;

    fn report() -> Report {
        let load = Load { connections: 64, rate: None, lasts: Duration::from_secs(10), seed: 0 };
        let plan = Plan { load, warm_up: Duration::ZERO, body_bytes: 1_024, endpoints: 10 };
        let mut report = Report::new(&plan, Machine::describe());
        let synced = Synced { per_s: 4_000.0, sync_us: Quantiles { p50: 250, p99: 900, ..Quantiles::default() } };
        report.disk(Disk::new(Path::new("/nowhere"), synced, synced));
        report.grouped(50_000.0);
        let latency = Some(Quantiles { p50: 1_500, p90: 2_000, p99: 3_250, p999: 4_000, max: 5_000 });
        let ran = Ran { sent: 200_000, accepted: 200_000, latency, until_us: 2_000_000, ..Ran::default() };
        report.bare(&ran);
        report
    }

    fn outcome(refused: u64, arrived: u64) -> Outcome {
        let accepted = 20_000;
        let refused: BTreeMap<_, _> = (refused > 0).then_some((503, refused)).into_iter().collect();
        let ran = Ran { sent: accepted + refused.values().sum::<u64>(), accepted, refused, ..Ran::default() };
        let delivered = Some(Delivered { expected: 20_000, arrived, latency: None });
        Outcome { scenario: Scenario::Cycle, ran, delivered, cost: None, until_us: 1_000_000 }
    }

    #[test]
    fn ratios_are_those_of_the_same_run() {
        let mut report = report();
        report.add(&outcome(0, 20_000));
        assert!(report.is_ok());
        let row = &report.scenarios[0];
        assert_eq!((row.ratios["bare"], row.ratios["grouped"], row.ratios["append"]), (0.2, 0.4, 5.0));
        let lines = report.rates().lines();
        assert_eq!(lines[0], "WHAT       PER S   ÷ BARE  ÷ GROUPED  ÷ APPEND  DELIVERIES/S  EVENTS");
        assert_eq!(lines[2], "bare       100000  -       -          -         -             -");
        assert_eq!(lines[5], "cycle      20000   0.20    0.40       5.00      20000         20000");
        assert!(
            report.headline()[2].ends_with("append + fdatasync p50 0.25 p99 0.90 ms; over zeros p50 0.25 p99 0.90 ms")
        );
        assert_eq!(report.times().lines()[1], "bare  1.50  2.00  3.25  4.00   5.00");
    }

    #[test]
    fn whatever_did_not_come_to_its_end_is_told() {
        for (outcome, told) in [
            (outcome(3, 20_000), vec!["3 answered 503"]),
            (outcome(0, 19_998), vec!["2 deliveries did not arrive"]),
            (outcome(0, 20_001), vec![]),
        ] {
            let mut report = report();
            report.add(&outcome);
            assert_eq!(
                (report.scenarios[0].errors(), report.is_ok()),
                (told.iter().map(|t| (*t).to_owned()).collect(), told.is_empty())
            );
        }
    }

    #[test]
    fn what_an_interrupt_cut_off_is_no_error() {
        let mut report = report();
        report.interrupted();
        report.add(&outcome(0, 5));
        report.add(&Outcome { ran: Ran::default(), ..outcome(0, 0) });
        assert_eq!((report.scenarios.len(), report.is_ok()), (1, true));
        report.add(&outcome(1, 5));
        assert!(!report.is_ok());
    }
}
