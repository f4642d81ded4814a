//! `postrider bench`: how much a gateway takes on this machine, and how long it takes for it, beside what bounds it.
//!
//! | file | owns |
//! |---|---|
//! | `scenario` | what is measured: a load on a gateway, until all of it has come to its end |
//! | `load` | connections that send requests in a closed loop or at planned times |
//! | `schedule` | the planned times |
//! | `request`, `answer` | the bytes of requests, and as much of answers as is looked at |
//! | `destination` | where requests go |
//! | `server` | a gateway and a bare server, each a process of its own |
//! | `sink` | the endpoint that deliveries arrive at |
//! | `disk` | what the disk does without any HTTP |
//! | `latency` | histograms |
//! | `machine` | which machine this is, and what a process used of it |
//! | `report` | JSON, text, what counts as an error |
//!
//! **Invariants**
//! - Whatever is compared is driven by the same generator with bodies of the same length, in one run.
//! - The gateway is this very executable as a process of its own, so that what it uses is told apart from what the load costs.
//! - Nothing is left behind: no process, no directory.

mod answer;
mod destination;
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

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::destination::Destination;
use self::disk::Synced;
use self::load::{Course, Load, Ran};
use self::machine::{Machine, Used};
use self::report::{Disk, Report};
use self::request::{BODY_BYTES_MIN, Requests, TYPE_WITHOUT_TAKER, tag};
use self::scenario::{Plan, Scenario, Site};
use self::server::Bare;
use super::exit::{self, Failure};
use super::home::Home;
use super::input::{secrets, time_bar};
use super::interrupt::Interrupt;
use super::out::{Out, note};
use crate::daemon::descriptors;
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
delivery did not arrive. An interrupt (Ctrl-C) ends it early; what was measured by then is printed. A second one ends it at \
once.

Rates are of the time planned, those of deliveries until the last one arrived. A request without an answer counts in the times \
as long as an answer is waited for (30 s).

What is published is asked not to be repeated in the answer (?with_content=false), as the bare server repeats nothing either.

With --target the events stay in that gateway. `accept` publishes events of type nobody.asked; `cycle` and `fan-out` those of \
type bench.made, for endpoints that you configure with the URL of --sink.

--json prints one object: ok, interrupted, error, versions, machine (that of the load), settings, disk (sync_us of append and \
overwrite), references, scenarios. Each scenario has: name, endpoints that take an event, events_per_s, accepts_per_s, ratios; \
sent, accepted, refused, broken, unsent, connections_lost; answer_us (p50, p90, p99, p999, max); deliveries (expected, arrived, \
lost, repeated, per_s, with --rate arrival_us); gateway (cpu_us and disk_bytes for each event accepted, rss_bytes). What is \
not known is null.";

/// Connections at most: as many as the management listener takes.
const CONNECTIONS_MAX: u64 = 1_024;

/// Endpoints of a fan-out, if nothing else is said.
const ENDPOINTS: u64 = 10;

/// Endpoints of a fan-out at most.
const ENDPOINTS_MAX: u64 = 100;

/// Connections that deliveries arrive on at most: as many attempts as a gateway has in flight by default.
const ARRIVING_MAX: u64 = 1_024;

/// File descriptors for all that is no connection.
const OTHER_FILES: u64 = 64;

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
    /// Decides these times, which it repeats [default: a random one]
    #[arg(long, value_name = "N", requires = "rate")]
    seed: Option<u64>,
    /// For how long each scenario is measured
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Length of a request's body
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    #[arg(value_parser = clap::value_parser!(u64).range(BODY_BYTES_MIN as u64..=BODY_BYTES_MAX))]
    body: u64,
    /// Endpoints that take each event of a fan-out [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=ENDPOINTS_MAX))]
    endpoints: Option<u64>,
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
    args.refuse_idle()?;
    let plan = args.plan()?;
    args.make_room()?;
    let machine = Machine::describe();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::from_error(exit::STORAGE, &error))?;
    let course = Course { clock: RealClock::new(), interrupt: Interrupt::listen(&runtime), bar: time_bar() };
    let mut report = Report::new(&plan, machine, args.target.as_deref());
    let done = runtime.block_on(async {
        tokio::select! {
            done = args.measure(&plan, &course, &mut report) => done,
            // What is under way is dropped, and with it the processes and the directory.
            () = course.interrupt.came_again() => Err(Failure::new(exit::INTERRUPTED, "interrupted twice")),
        }
    });
    // It would wait for threads that write to the disk or look up a name.
    runtime.shutdown_background();
    course.bar.finish_and_clear();
    if course.interrupt.came() {
        report.interrupted();
    }
    if let Err(failure) = &done {
        report.failed(failure);
    }
    match args.json {
        _ if done.is_err() && report.is_empty() => {}
        true => out.json(&report)?,
        false => report.print(out)?,
    }
    done.map(|()| if report.is_ok() { exit::OK } else { exit::NEGATIVE })
}

impl Args {
    /// What is to be measured.
    fn chosen(&self) -> &[Scenario] {
        if self.scenarios.is_empty() { &Scenario::ALL } else { &self.scenarios }
    }

    /// Refuses flags that would change nothing: whoever gives one expects something else than what would be measured.
    fn refuse_idle(&self) -> Result<(), Failure> {
        let has = |wanted: &[Scenario]| self.chosen().iter().any(|scenario| wanted.contains(scenario));
        let is_delivering = self.target.is_none() || self.sink.is_some();
        for (is_given, has_effect, flag, wants) in [
            (self.endpoints.is_some(), has(&[Scenario::FanOut]), "--endpoints", "fan-out"),
            (
                self.endpoints.is_some(),
                is_delivering,
                "--endpoints",
                "deliveries that are measured, with --target by --sink",
            ),
            (self.token.is_some(), has(&Scenario::PUBLISHING), "--token", "accept, cycle and fan-out"),
            (self.secret.is_some(), has(&[Scenario::Inbound]), "--secret", "inbound"),
            (self.sink.is_some(), has(&[Scenario::Cycle, Scenario::FanOut]), "--sink", "cycle and fan-out"),
        ] {
            if is_given && !has_effect {
                return Err(Failure::usage(format_args!("{flag} has no effect here: it is for {wants}")));
            }
        }
        Ok(())
    }

    /// Makes room for the descriptors of all connections, those of deliveries as far as the system lets us.
    fn make_room(&self) -> Result<(), Failure> {
        let have = descriptors::raise(self.connections + ARRIVING_MAX + OTHER_FILES);
        let connections_max = have.saturating_sub(OTHER_FILES);
        if self.connections > connections_max {
            return Err(Failure::usage(format_args!(
                "expected --connections to be {connections_max} at most, as this process may open {have} files, got {}: \
                 raise the hard limit (ulimit -Hn)",
                self.connections
            )));
        }
        Ok(())
    }

    async fn measure(&self, plan: &Plan, course: &Course, report: &mut Report) -> Result<(), Failure> {
        match &self.target {
            Some(url) => self.elsewhere(url, plan, course, report).await,
            None => self.here(plan, course, report).await,
        }
    }

    fn plan(&self) -> Result<Plan, Failure> {
        if self.connections * self.body > REQUEST_BYTES_MAX {
            let (connections, body) = (self.connections, self.body);
            return Err(Failure::usage(format_args!(
                "expected connections times body to be {REQUEST_BYTES_MAX} bytes at most, got {connections} times {body}"
            )));
        }
        let lasts = Duration::from_secs_f64(self.seconds);
        // Programs read numbers of JSON as floating point, which has 53 bits for a whole one.
        let seed = self.seed.unwrap_or_else(|| RealEntropy.next_u64() >> 11);
        let load = Load { connections: self.connections as usize, rate: self.rate, lasts, seed };
        let warm_up = (lasts / 4).min(WARM_UP_MAX);
        let endpoints = self.endpoints.unwrap_or(ENDPOINTS) as usize;
        Ok(Plan { load, warm_up, body_bytes: self.body as usize, endpoints })
    }

    /// Measures a gateway of our own, and what bounds it.
    async fn here(&self, plan: &Plan, course: &Course, report: &mut Report) -> Result<(), Failure> {
        let parent = self.data.clone().unwrap_or_else(std::env::temp_dir);
        let home = Home::make(&parent, "bench", false)?;
        let program = std::env::current_exe().map_err(|error| Failure::from_error(exit::STORAGE, &error))?;
        references(plan, &program, &home.path, course, report).await?;
        for scenario in self.chosen() {
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
        let secret = |flag, text: &Option<String>| secrets(flag, text.as_slice()).map(|mut secrets| secrets.pop());
        let parsed = Destination::parse(url);
        let target = match scenario {
            Scenario::Inbound => parsed.filter(|target| target.path.starts_with("/in/")),
            _ => {
                let token = secret("--token", &self.token)?;
                parsed.filter(|target| target.path == "/").map(|target| Destination::publish(&target.authority, token))
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
        let secret = secret("--secret", &self.secret)?;
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
    outcome.failure.map_or(Ok(()), Err)
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
    // On threads of their own, so that an interrupt is heard meanwhile.
    let alone = async |write: fn(&Path, usize, Duration) -> std::io::Result<Synced>| {
        let dir = dir.to_owned();
        let written = tokio::task::spawn_blocking(move || write(&dir, bytes, lasts / 2)).await;
        written.unwrap_or_else(|panicked| Err(panicked.into())).map_err(io)
    };
    let append = alone(disk::append_alone).await?;
    report.disk(Disk::new(dir, append, alone(disk::overwrite_alone).await?));
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
