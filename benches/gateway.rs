//! The whole gateway under load, beside what bounds it: `cargo bench --bench gateway`.
//!
//! In each round, and at each number of connections, one after the other:
//! - `bare`: a hyper server that reads the body and answers 200, in a process of its own as the gateway is;
//! - `disk append`, `disk overwrite`, `disk grouped`: records of the same length written and synced without any HTTP;
//! - `plain`: events published that no endpoint takes, each answered when it is durable;
//! - `inbound`: webhooks signed as Stripe signs them, each verified and deduplicated, answered when it is durable;
//! - `cycle`: events published, delivered to one endpoint over HTTP, and settled; from the first request to the last settle.
//!
//! The load generator and the endpoint share the machine with all of them. Figures depend on the machine and on what else it
//! does; ratios much less.

mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use postrider::env::{Clock, RealClock};

use support::load::{self, Load, Ran};
use support::options::{HELP, Options};
use support::report::{Report, headline};
use support::request::{Same, Signed, TYPE_FOR_SINK, TYPE_WITHOUT_TAKER};
use support::server::{BARE_ARGUMENT, Bare, Gateway, disk_dir};
use support::{Error, disk, sink};

/// Signed requests per second that are made in advance; no gateway on two cores takes more.
const SIGNED_PER_S: f64 = 60_000.0;

/// Events that warm a gateway up for the full cycle.
const CYCLE_WARM_UP_EVENTS: u64 = 2_000;

/// Connections that publish in the full cycle.
const CYCLE_CONNECTIONS: usize = 64;

/// Milliseconds between two looks at what is settled.
const CYCLE_LOOK_MS: u64 = 10;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let ended = match arguments.peek().map(String::as_str) {
        Some(BARE_ARGUMENT) => Bare::serve(),
        _ => bench(arguments),
    };
    match ended {
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
            at(options, connections, &mut report).await?;
        }
        if options.wants("cycle") {
            report.add("cycle", CYCLE_CONNECTIONS, &cycle(options).await?);
        }
    }
    Ok(report)
}

/// Everything at one number of connections, once.
async fn at(options: &Options, connections: usize, report: &mut Report) -> Result<(), Error> {
    let (warm_up, measured) = (options.warm_up, options.measured);
    let load = |status| Load { connections, warm_up, measured, status };
    if options.wants("bare") {
        let server = Bare::start()?;
        let requests = Arc::new(Same::bare(server.address));
        report.add("bare", connections, &load::run(server.address, requests, load(200), &server.probe()).await?);
    }
    if options.wants("disk") {
        if connections == 1 {
            report.add_rate("disk append", 1, disk::append_alone(disk_dir(), measured)?);
            report.add_rate("disk overwrite", 1, disk::overwrite_alone(disk_dir(), measured)?);
        }
        let rate = disk::append_grouped(disk_dir(), connections, warm_up, measured).await?;
        report.add_rate("disk grouped", connections, rate);
    }
    if options.wants("plain") {
        let gateway = Gateway::start(&[])?;
        let requests = Same::publish(gateway.management, &gateway.token, TYPE_WITHOUT_TAKER, u64::MAX);
        let ran = load::run(gateway.management, Arc::new(requests), load(202), &gateway.probe()).await?;
        report.add("plain", connections, &ran);
    }
    if options.wants("inbound") {
        let gateway = Gateway::start(&[])?;
        let unix_s = i64::try_from(RealClock::new().wall_ms() / 1_000)?;
        let count = ((warm_up + measured).as_secs_f64() * SIGNED_PER_S) as u64;
        let requests = Arc::new(Signed::new(gateway.ingress, unix_s, count)?);
        report.add("inbound", connections, &load::run(gateway.ingress, requests, load(200), &gateway.probe()).await?);
    }
    Ok(())
}

/// One full cycle: the rate is that of events settled, counted from the first request on.
async fn cycle(options: &Options) -> Result<Ran, Error> {
    let sink = sink::start().await?;
    let gateway = Gateway::start(&[sink])?;
    publish_and_settle(&gateway, CYCLE_WARM_UP_EVENTS, CYCLE_WARM_UP_EVENTS).await?;
    let (clock, probe) = (RealClock::new(), gateway.probe());
    let before = probe.read();
    let accepted =
        publish_and_settle(&gateway, options.cycle_events, CYCLE_WARM_UP_EVENTS + options.cycle_events).await?;
    let rate = options.cycle_events as f64 * 1e6 / clock.mono_us() as f64;
    Ok(Ran { rate, answers: options.cycle_events, used: probe.read().since(&before), ..accepted })
}

/// Publishes `count` events and returns when `total` have been delivered and settled since the gateway's start.
async fn publish_and_settle(gateway: &Gateway, count: u64, total: u64) -> Result<Ran, Error> {
    let requests = Same::publish(gateway.management, &gateway.token, TYPE_FOR_SINK, count);
    let forever = Duration::from_secs(3_600);
    let load = Load { connections: CYCLE_CONNECTIONS, warm_up: Duration::ZERO, measured: forever, status: 202 };
    let ran = load::run(gateway.management, Arc::new(requests), load, &gateway.probe()).await?;
    while gateway.metric("postrider_attempts_total{outcome=\"delivered\"}").await? < total as f64 {
        tokio::time::sleep(Duration::from_millis(CYCLE_LOOK_MS)).await;
    }
    Ok(ran)
}
