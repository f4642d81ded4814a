//! The whole gateway under load, beside what bounds it: `cargo bench --bench gateway`.
//!
//! In each round, at several numbers of connections with bodies of 1 KiB, and with several bodies at 64 connections, one
//! after the other:
//! - `bare`: a hyper server that reads the body and answers 200, in a process of its own as the gateway is;
//! - `append`, `overwrite`, `grouped`: records of the same length written and synced without any HTTP;
//! - `plain`: events published that no endpoint takes, each answered when it is durable;
//! - `inbound`: webhooks signed as Stripe signs them, each verified and deduplicated, answered when it is durable;
//! - `cycle`: events published, delivered to one endpoint over HTTP, and settled; from the first request to the last arrival;
//! - `fan-out 3`, `fan-out 10`: the same with so many endpoints that take each event, where deliveries are counted.
//!
//! It is the load generator of `postrider bench`, in rounds. It and the endpoints share the machine with all of them. Figures
//! depend on the machine and on what else it does; ratios much less.

mod support;

use std::path::Path;
use std::process::ExitCode;

use postrider::cli::bench::disk;
use postrider::cli::bench::load::{Course, Load, Ran};
use postrider::cli::bench::machine::Used;
use postrider::cli::bench::scenario::{Plan, Scenario, Site};

use support::options::Options;
use support::report::{Report, Sample};
use support::{Bench, Error, disk_dir, wait};

/// Connections where bodies differ, and those that publish in the full cycle.
const CONNECTIONS: usize = 64;

/// Bytes of a body where connections differ.
const BODY_BYTES: usize = 1_024;

/// Endpoints that take each event of a fan-out.
const FAN_OUTS: [usize; 2] = [3, 10];

const BENCH: Bench = Bench {
    name: "gateway",
    about: "The gateway at A connections with bodies of B bytes. Series: bare, append, overwrite, grouped, plain, inbound, \
            cycle, fan-out",
    references: &["bare", "grouped", "append", "overwrite", "plain"],
};

fn main() -> ExitCode {
    BENCH.run(|options, report| {
        for (connections, bytes) in options.points(|c, b| c == CONNECTIONS || b == BODY_BYTES) {
            let mut at = At { options, connections, bytes, report };
            at.bounds()?;
            at.play("plain", Scenario::Accept, 0)?;
            at.play("inbound", Scenario::Inbound, 0)?;
            if connections == CONNECTIONS {
                at.play("cycle", Scenario::Cycle, 1)?;
            }
            if (connections, bytes) == (CONNECTIONS, BODY_BYTES) {
                for endpoints in FAN_OUTS {
                    at.play(&format!("fan-out {endpoints}"), Scenario::FanOut, endpoints)?;
                }
            }
        }
        Ok(())
    })
}

/// One point of one round.
struct At<'a> {
    options: &'a Options,
    connections: usize,
    bytes: usize,
    report: &'a mut Report,
}

impl At<'_> {
    fn add(&mut self, series: &str, sample: impl Into<Sample>) {
        self.report.add(&format!("{} × {} B", self.connections, self.bytes), series, sample);
    }

    /// What a gateway can't exceed.
    fn bounds(&mut self) -> Result<(), Error> {
        let (connections, bytes, lasts) = (self.connections, self.bytes, self.options.measured);
        if self.options.wants("bare") {
            let (plan, course) = (self.plan(0), Course::default());
            let (ran, used) = wait(postrider::cli::bench::bare(&plan, program(), &course))?;
            self.add("bare", sample(&ran, ran.accepted, ran.per_s(), &used));
        }
        if self.options.wants("append") && connections == 1 {
            self.add("append", disk::append_alone(disk_dir(), bytes, lasts)?.per_s);
        }
        if self.options.wants("overwrite") && connections == 1 {
            self.add("overwrite", disk::overwrite_alone(disk_dir(), bytes, lasts)?.per_s);
        }
        if self.options.wants("grouped") {
            self.add("grouped", wait(disk::append_grouped(disk_dir(), connections, bytes, lasts))?);
        }
        Ok(())
    }

    /// One scenario on a new gateway.
    fn play(&mut self, series: &str, scenario: Scenario, endpoints: usize) -> Result<(), Error> {
        if !self.options.wants(series) {
            return Ok(());
        }
        let course = Course::default();
        let site = wait(Site::own(scenario, endpoints, program(), disk_dir(), &course))?;
        let outcome = wait(site.measure(&self.plan(endpoints), &course))?;
        if !outcome.is_clean() {
            return Err(format!("{series} at {} × {} B: {outcome:?}", self.connections, self.bytes).into());
        }
        let used = outcome.cost.map(|cost| cost.used).unwrap_or_default();
        let (count, per_s) = match outcome.delivered {
            Some(delivered) => (delivered.arrived.count, outcome.deliveries_per_s().unwrap_or_default()),
            None => (outcome.ran.accepted, outcome.events_per_s()),
        };
        self.add(series, sample(&outcome.ran, count, per_s, &used));
        Ok(())
    }

    fn plan(&self, endpoints: usize) -> Plan {
        let load = Load { connections: self.connections, rate: None, lasts: self.options.measured, seed: 0 };
        Plan { load, warm_up: self.options.warm_up, body_bytes: self.bytes, endpoints }
    }
}

/// So many answers or deliveries, and what the server used for all of them.
fn sample(ran: &Ran, count: u64, per_s: f64, used: &Used) -> Sample {
    let each = |total: Option<f64>| Some(total? / count.max(1) as f64);
    Sample {
        per_s,
        cpu_us: each(used.cpu_s.map(|s| s * 1e6)),
        disk_bytes: each(used.disk_bytes.map(|bytes| bytes as f64)),
        p50_us: ran.latency.map(|latency| latency.p50),
        p99_us: ran.latency.map(|latency| latency.p99),
    }
}

/// The release binary.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_postrider"))
}
