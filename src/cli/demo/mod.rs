//! `postrider demo`: the whole gateway at work in half a minute, and a check of everything that it promises.
//!
//! | file | owns |
//! |---|---|
//! | `receiver` | the endpoints that it delivers to, good ones and bad ones |
//! | `story` | what happens, in order |
//! | `report` | what must have come out, and telling it |
//!
//! **Invariants**
//! - The gateway is this very executable, run as anyone would; the demo knows no more of it than its HTTP answers.
//! - Nothing is left behind: no process, no directory.

mod receiver;
mod report;
mod story;

use std::path::Path;

use self::receiver::Receiver;
use self::story::Stage;
use super::exit::{self, Failure};
use super::home::Home;
use super::out::Out;
use crate::core::secret::Secret;
use crate::core::signature::generate_secret;
use crate::env::{Clock as _, Entropy as _, RealClock, RealEntropy};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider demo
  postrider demo --json | jq '.checks[] | select(.ok | not)'
  postrider demo --keep

Takes about ten seconds, needs no network and leaves nothing behind. Exits with 0 only if everything came out as it must. \
--json prints one object: ok, duration_ms, checks (name, ok, detail) and timeline (at_ms, what, and for attempts endpoint, \
message, number, result, next).";

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Keep the directory with configuration, data and log, and say where it is
    #[arg(long)]
    keep: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// The secrets of one run.
struct Secrets {
    /// Shared with the provider.
    stripe: Secret,
    /// Shared with the receivers.
    endpoints: Secret,
}

/// Runs the demo.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let clock = RealClock::new();
    let started_ms = clock.wall_ms();
    let home = Home::make(&std::env::temp_dir(), "demo", args.keep)?;
    let secrets = Secrets { stripe: new_secret(), endpoints: new_secret() };
    let receiver = Receiver::start(secrets.endpoints.clone(), secrets.stripe.clone())?;
    let config = home.path.join("postrider.toml");
    write_config(&config, &secrets, receiver.port())?;
    let mut stage = Stage::new(&home.path, &secrets, &receiver, clock)?;
    let played = story::play(&mut stage)?;
    let report = report::Report::new(&played, &receiver.received(), started_ms, stage.now_ms());
    if args.json {
        out.json(&report)?;
    } else {
        report.print(out)?;
    }
    Ok(if report.is_ok() { exit::OK } else { exit::NEGATIVE })
}

fn new_secret() -> Secret {
    let mut bytes = [0; 32];
    RealEntropy.fill(&mut bytes);
    Secret::new(generate_secret(bytes))
}

/// One source and four endpoints; the schedule is short, so that its end is seen.
fn write_config(path: &Path, secrets: &Secrets, port: u16) -> Result<(), Failure> {
    let (stripe, secret) = (secrets.stripe.expose(), secrets.endpoints.expose());
    // A few kilobytes are no reason to refuse on a disk that is nearly full.
    let limits = "[limits]\nfree_bytes = 0\nsegment_bytes = \"4MiB\"\nbatch_bytes = \"2MiB\"\n";
    let source = format!("[[source]]\nname = \"stripe\"\nprovider = \"stripe\"\nsecrets = [\"{stripe}\"]\n");
    let mut text = format!("{limits}\n{source}");
    for (name, takes) in [
        (receiver::APP, "sources = [\"stripe\"]"),
        (receiver::STEADY, "event_types = [\"order.*\"]"),
        (receiver::FLAKY, "event_types = [\"order.created\"]"),
        (receiver::BROKEN, "event_types = [\"order.created\"]"),
    ] {
        text = format!(
            "{text}\n[[endpoint]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}/{name}\"\n{takes}\n\
             secret = \"{secret}\"\nretry = {{ schedule_s = {:?}, jitter = 0.0 }}\n",
            story::SCHEDULE_S
        );
    }
    std::fs::write(path, text).map_err(|error| Failure::new(exit::STORAGE, format_args!("{}: {error}", path.display())))
}
