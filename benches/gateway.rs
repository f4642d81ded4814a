//! The whole gateway under load, beside what bounds it: `cargo bench --bench gateway`.
//!
//! In each round, and at each number of connections, one after the other:
//! - `bare`: a hyper server that reads the body and answers 200, in a process of its own as the gateway is;
//! - `disk append`, `disk overwrite`, `disk grouped`: records of the same length written and synced without any HTTP;
//! - `plain`: events published that no endpoint takes, each answered when it is durable;
//! - `inbound`: webhooks signed as Stripe signs them, each verified and deduplicated, answered when it is durable;
//! - `cycle`: events published, delivered to one endpoint over HTTP, and settled; from the first request to the last settle;
//! - `fan-out`: the same with ten endpoints that take each event.
//!
//! It is the load generator of `postrider bench`, in rounds. It and the endpoints share the machine with all of them. Figures
//! depend on the machine and on what else it does; ratios much less.

mod support;

use std::path::Path;
use std::process::ExitCode;

use postrider::cli::bench::disk;
use postrider::cli::bench::load::{Course, Load};
use postrider::cli::bench::scenario::{Plan, Scenario, Site};

use support::options::{HELP, Options};
use support::report::{Report, headline};
use support::{BODY_BYTES, Error};

/// Connections that publish in the full cycle and in the fan-out.
const CYCLE_CONNECTIONS: usize = 64;

/// Endpoints of the fan-out.
const ENDPOINTS: usize = 10;

fn main() -> ExitCode {
    match bench(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    let arguments: Vec<_> = arguments.collect();
    // `cargo test --benches` runs this too, without a word; that only has to compile.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing is measured without --bench; run `cargo bench --bench gateway`");
        return Ok(());
    }
    let Some(options) = Options::parse(arguments.into_iter())? else {
        println!("{HELP}");
        return Ok(());
    };
    let (headline, machine) = headline(&options);
    println!("{headline}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(measure(&options))?;
    println!("\n{}", report.table());
    println!("{}", report.save("gateway", &options, &machine)?.display());
    Ok(())
}

async fn measure(options: &Options) -> Result<Report, Error> {
    let mut report = Report::default();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for connections in options.connections.iter().copied() {
            bounds(options, connections, &mut report).await?;
            play(options, "plain", Scenario::Accept, connections, &mut report).await?;
            play(options, "inbound", Scenario::Inbound, connections, &mut report).await?;
        }
        play(options, "cycle", Scenario::Cycle, CYCLE_CONNECTIONS, &mut report).await?;
        play(options, "fan-out", Scenario::FanOut, CYCLE_CONNECTIONS, &mut report).await?;
    }
    Ok(report)
}

/// What a gateway can't exceed, at one number of connections.
async fn bounds(options: &Options, connections: usize, report: &mut Report) -> Result<(), Error> {
    let lasts = options.measured;
    if options.wants("bare") {
        let (ran, used) =
            postrider::cli::bench::bare(&plan(options, connections), program(), &Course::default()).await?;
        report.add("bare", connections, &ran, ran.per_s(), &used);
    }
    if options.wants("disk") {
        if connections == 1 {
            report.add_rate("disk append", 1, disk::append_alone(disk_dir(), BODY_BYTES, lasts)?.per_s);
            report.add_rate("disk overwrite", 1, disk::overwrite_alone(disk_dir(), BODY_BYTES, lasts)?.per_s);
        }
        let rate = disk::append_grouped(disk_dir(), connections, BODY_BYTES, lasts).await?;
        report.add_rate("disk grouped", connections, rate);
    }
    Ok(())
}

/// One scenario on a new gateway.
async fn play(
    options: &Options,
    name: &'static str,
    scenario: Scenario,
    connections: usize,
    report: &mut Report,
) -> Result<(), Error> {
    if !options.wants(name) {
        return Ok(());
    }
    let course = Course::default();
    let site = Site::own(scenario, ENDPOINTS, program(), disk_dir(), &course).await?;
    let outcome = site.measure(&plan(options, connections), &course).await?;
    if !outcome.is_clean() {
        return Err(format!("{name} with {connections} connections: {outcome:?}").into());
    }
    let used = outcome.cost.map(|cost| cost.used).unwrap_or_default();
    report.add(name, connections, &outcome.ran, outcome.events_per_s(), &used);
    Ok(())
}

fn plan(options: &Options, connections: usize) -> Plan {
    let load = Load { connections, rate: None, lasts: options.measured, seed: 0 };
    Plan { load, warm_up: options.warm_up, body_bytes: BODY_BYTES, endpoints: ENDPOINTS }
}

/// The release binary.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_postrider"))
}

/// On the disk that the build is on: a file system in memory would make every sync free.
fn disk_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}
