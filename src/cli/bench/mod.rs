//! `postrider bench`: how much a gateway takes on this machine, and how long it takes for it, beside what bounds it.
//!
//! | file | owns |
//! |---|---|
//! | `scenario` | what is measured: a load on a gateway, until all of it has come to its end |
//! | `load` | connections that send requests in a closed loop or at planned times |
//! | `schedule` | the planned times |
//! | `request`, `answer` | the bytes of requests, and as much of answers as is looked at |
//! | `target` | where requests go |
//! | `server` | a gateway and a bare server, each a process of its own |
//! | `sink` | the endpoint that deliveries arrive at |
//! | `disk` | what the disk does without any HTTP |
//! | `latency` | histograms |
//! | `machine` | which machine this is, and what a process used of it |
//! | `report` | JSON, tables, what counts as an error |
//!
//! **Invariants**
//! - Whatever is compared is driven by the same generator with bodies of the same length, in one run.
//! - The gateway is this very executable as a process of its own, so that what it uses is told apart from what the load costs.
//! - Nothing is left behind: no process, no directory.

mod answer;
pub mod disk;
mod latency;
pub mod load;
pub mod machine;
mod report;
mod request;
pub mod scenario;
mod schedule;
mod server;
mod sink;
mod target;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::load::{Course, Load, Ran};
use self::machine::{Machine, Used};
use self::report::{Disk, Report};
use self::request::{BODY_BYTES_MIN, Requests, TYPE_WITHOUT_TAKER, tag};
use self::scenario::{Plan, Scenario, Site};
use self::server::Bare;
use self::target::Target;
use super::exit::{self, Failure};
use super::home::Home;
use super::input::{secrets, time_bar};
use super::interrupt::Interrupt;
use super::out::{Out, note};
use crate::core::secret::Secret;
use crate::env::{Entropy as _, RealClock, RealEntropy};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider bench --data /var/lib
  postrider bench cycle --rate 200 --seconds 60 --json | jq '.scenarios[].deliveries.arrival_us'
  postrider bench accept --target http://gateway:8081 --token file:token
  postrider bench cycle --target http://gateway:8081 --token file:token --sink 0.0.0.0:9000
  postrider bench inbound --target http://gateway:8080/in/stripe --secret env:STRIPE_WEBHOOK_SECRET

Without --rate each connection sends as soon as it is answered (closed loop); with it, requests are planned at random times \
and counted from these, whatever the gateway does (open loop). Exits with 1 if a request was not answered with 2xx, or a \
delivery did not arrive. An interrupt (Ctrl-C) ends it early; what was measured by then is printed.

With --target the events stay in that gateway. `accept` publishes events of type nobody.asked; `cycle` and `fan-out` those of \
type bench.made, for endpoints that you configure with the URL of --sink. --json prints one object: ok, interrupted, \
versions, machine, settings, disk, references, scenarios.";

/// Connections at most: as many as the management listener takes.
const CONNECTIONS_MAX: u64 = 1_024;

/// Endpoints of a fan-out at most.
const ENDPOINTS_MAX: u64 = 100;

/// Seconds of a load at most: the times that histograms tell apart end with an hour.
const SECONDS_MAX: f64 = 3_600.0;

/// Requests planned per second at most; a generator on few cores sends no more.
const RATE_MAX: f64 = 100_000.0;

/// Bytes of a body at most: as much as a gateway takes by default.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// Bytes of requests in memory: one for each connection.
const REQUEST_BYTES_MAX: u64 = 256 << 20;

/// The longest that is warmed up; a shorter load is preceded by a quarter of it.
const WARM_UP_MAX: Duration = Duration::from_secs(2);

/// The longest that a reference is measured.
const REFERENCE_MAX: Duration = Duration::from_secs(3);

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to measure; all of it by default, one after the other, each on a new gateway
    #[arg(value_name = "SCENARIO", value_enum)]
    scenarios: Vec<Scenario>,
    /// Connections, each with one request under way
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Plan so many requests per second, at random times; without it a connection sends as soon as it is answered
    #[arg(long, value_name = "PER_S", value_parser = rate)]
    rate: Option<f64>,
    /// For how long each scenario is measured
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Length of a request's body
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    #[arg(value_parser = clap::value_parser!(u64).range(BODY_BYTES_MIN as u64..=BODY_BYTES_MAX))]
    body: u64,
    /// Endpoints that take each event of a fan-out
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=ENDPOINTS_MAX))]
    endpoints: u64,
    /// Where the gateway's directory is made for the run, so the disk that is measured [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Measure this gateway instead: its management address, for inbound the URL of a source with provider stripe
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    target: Option<String>,
    /// Its API token: env:NAME, file:PATH or the text itself
    #[arg(long, value_name = "S", requires = "target")]
    token: Option<String>,
    /// What to sign webhooks with: env:NAME, file:PATH or the text itself
    #[arg(long, value_name = "S", requires = "target")]
    secret: Option<String>,
    /// Take its deliveries at this address; without it only answers are measured
    #[arg(long, value_name = "ADDR", requires = "target")]
    sink: Option<SocketAddr>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Be the server that this command compares with
    #[arg(long, hide = true, exclusive = true)]
    bare_server: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.1..=RATE_MAX).contains(rate));
    rate.ok_or_else(|| format!("expected requests per second from 0.1 to {RATE_MAX}"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| format!("expected seconds from 0.1 to {SECONDS_MAX}"))
}

/// Measures.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    if args.bare_server {
        let ready = |address: SocketAddr| out.line(address).and_then(|()| out.flush());
        return Bare::serve(ready).map(|()| exit::OK);
    }
    let plan = args.plan()?;
    let machine = Machine::describe();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::from_error(exit::STORAGE, &error))?;
    let course = Course { clock: RealClock::new(), interrupt: Interrupt::listen(&runtime), bar: time_bar() };
    let mut report = Report::new(&plan, machine);
    match &args.target {
        Some(url) => runtime.block_on(args.elsewhere(url, &plan, &course, &mut report))?,
        None => runtime.block_on(args.here(&plan, &course, &mut report))?,
    }
    course.bar.finish_and_clear();
    if course.interrupt.came() {
        report.interrupted();
    }
    if args.json {
        out.json(&report)?;
    } else {
        report.print(out)?;
    }
    Ok(if report.is_ok() { exit::OK } else { exit::NEGATIVE })
}

impl Args {
    fn plan(&self) -> Result<Plan, Failure> {
        if self.connections * self.body > REQUEST_BYTES_MAX {
            let (connections, body) = (self.connections, self.body);
            return Err(Failure::usage(format_args!(
                "expected connections times body to be {REQUEST_BYTES_MAX} bytes at most, got {connections} times {body}"
            )));
        }
        let lasts = Duration::from_secs_f64(self.seconds);
        let seed = RealEntropy.next_u64();
        let load = Load { connections: self.connections as usize, rate: self.rate, lasts, seed };
        let warm_up = (lasts / 4).min(WARM_UP_MAX);
        Ok(Plan { load, warm_up, body_bytes: self.body as usize, endpoints: self.endpoints as usize })
    }

    /// Measures a gateway of our own, and what bounds it.
    async fn here(&self, plan: &Plan, course: &Course, report: &mut Report) -> Result<(), Failure> {
        let parent = self.data.clone().unwrap_or_else(std::env::temp_dir);
        let home = Home::make(&parent, "bench", false)?;
        let program = std::env::current_exe().map_err(|error| Failure::from_error(exit::STORAGE, &error))?;
        references(plan, &program, &home.path, course, report).await?;
        let scenarios = if self.scenarios.is_empty() { &Scenario::ALL[..] } else { &self.scenarios };
        for scenario in scenarios {
            if course.interrupt.came() {
                break;
            }
            let site = Site::own(*scenario, plan.endpoints, &program, &home.path, course).await?;
            measure(&site, plan, course, report).await?;
        }
        Ok(())
    }

    /// Measures a gateway elsewhere.
    async fn elsewhere(&self, url: &str, plan: &Plan, course: &Course, report: &mut Report) -> Result<(), Failure> {
        let [scenario] = self.scenarios[..] else {
            return Err(Failure::usage(
                "expected one scenario with --target, as each wants another address or endpoint",
            ));
        };
        let secret = |text: &Option<String>| -> Result<Option<Secret>, Failure> { Ok(secrets(text.as_slice())?.pop()) };
        let parsed = Target::parse(url);
        let target = match scenario {
            Scenario::Inbound => parsed.filter(|target| target.path.starts_with("/in/")),
            _ => {
                let token = secret(&self.token)?;
                parsed.filter(|target| target.path == "/").map(|target| Target::publish(&target.authority, token))
            }
        };
        let target = target.ok_or_else(|| {
            let example = match scenario {
                Scenario::Inbound => "http://gateway:8080/in/stripe",
                _ => "http://gateway:8081",
            };
            Failure::usage(format_args!("expected --target such as {example}, got {url:?}"))
        })?;
        if scenario.endpoints(plan.endpoints) > 0 && self.sink.is_none() {
            note("without --sink deliveries are not measured");
        }
        let secret = secret(&self.secret)?;
        let site = Site::elsewhere(scenario, plan.endpoints, target, secret, self.sink, course).await?;
        measure(&site, plan, course, report).await
    }
}

async fn measure(site: &Site, plan: &Plan, course: &Course, report: &mut Report) -> Result<(), Failure> {
    let outcome = site.measure(plan, course).await?;
    if course.interrupt.came() {
        report.interrupted();
    }
    report.add(&outcome);
    Ok(())
}

/// What the disk does, and in a closed loop what a server does that only answers, and what many get who share the disk.
async fn references(
    plan: &Plan,
    program: &Path,
    dir: &Path,
    course: &Course,
    report: &mut Report,
) -> Result<(), Failure> {
    let io = |error: std::io::Error| Failure::new(exit::STORAGE, format_args!("{}: {error}", dir.display()));
    let (bytes, lasts) = (plan.body_bytes, plan.load.lasts.min(REFERENCE_MAX));
    course.bar.set_message("disk");
    if machine::file_system(dir).is_some_and(|name| name.starts_with("tmpfs")) {
        note("the directory is in memory, where syncs cost nothing: give --data on the disk that is to be measured");
    }
    let append = disk::append_alone(dir, bytes, lasts / 2).map_err(io)?;
    report.disk(Disk::new(dir, append, disk::overwrite_alone(dir, bytes, lasts / 2).map_err(io)?));
    if plan.load.rate.is_some() || course.interrupt.came() {
        return Ok(());
    }
    report.grouped(disk::append_grouped(dir, plan.load.connections, bytes, lasts).await.map_err(io)?);
    course.bar.set_message("bare server");
    let (ran, _) = bare(&Plan { load: Load { lasts, ..plan.load }, ..*plan }, program, course).await?;
    // An interrupt may have come before its first request.
    if ran.sent > 0 {
        report.bare(&ran);
    }
    Ok(())
}

/// Puts the load on a server that only reads and answers, and tells what it used.
///
/// # Errors
/// When it does not start.
pub async fn bare(plan: &Plan, program: &Path, course: &Course) -> Result<(Ran, Used), Failure> {
    let server = Bare::start(program)?;
    let requests = || Requests::published(&server.target, TYPE_WITHOUT_TAKER, &tag(0), plan.body_bytes);
    load::run(&server.target, requests(), Load { lasts: plan.warm_up, ..plan.load }, course).await?;
    let before = server.probe().read();
    let ran = load::run(&server.target, requests(), plan.load, course).await?;
    Ok((ran, server.probe().read().since(&before)))
}
