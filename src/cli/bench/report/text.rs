//! The report for people.

use super::{Counts, Disk, PerEvent, Reference, Refused, Report, Row, Settings};
use crate::cli::bench::latency::Quantiles;
use crate::cli::bench::machine::known;
use crate::cli::exit::Failure;
use crate::cli::out::{Out, Table, or_empty};

impl Report {
    /// For people.
    pub(in crate::cli::bench) fn print(&self, out: &mut Out) -> Result<(), Failure> {
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
    use crate::cli::bench::load::{Load, Ran};
    use crate::cli::bench::machine::{Machine, Used};
    use crate::cli::bench::report::tests::{outcome, ran, report};
    use crate::cli::bench::scenario::{Cost, Outcome, Plan};
    use std::time::Duration;

    #[test]
    fn tables_have_a_row_for_whatever_was_measured() {
        let mut report = report();
        report.add(&outcome(ran(0), 20_000, 0));
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
}
