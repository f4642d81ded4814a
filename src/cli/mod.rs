//! The command line: one file per command.
//!
//! | file | owns |
//! |---|---|
//! | `exit` | exit codes and failures |
//! | `out`, `input` | what is printed and what is read |
//! | `client`, `answers` | the management API as a client sees it |
//! | `child`, `gateway`, `home`, `interrupt` | a gateway of one's own in a directory for one run, and the end of it |
//! | `scheme` | the request that `verify` and `sign` look at |
//! | the others | the command of that name |
//!
//! **Invariants**
//! - Data goes to stdout, everything else to stderr; every read has `--json`, whose fields are a contract: the management
//!   API's own answer (camelCase) for what is asked of a gateway, snake_case for what the command itself finds.
//! - Commands return their exit code or a failure; nothing but [`run`] ends the process.

mod answers;
mod backup;
pub mod bench;
mod child;
mod client;
mod completions;
mod config;
mod dead;
mod deliveries;
mod demo;
mod endpoint;
mod events;
pub mod exit;
mod gateway;
mod home;
mod input;
mod interrupt;
mod journal;
mod out;
mod replay;
mod restore;
mod scheme;
mod send;
mod serve;
mod sign;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use self::exit::Failure;
use self::out::Out;
use crate::config::LogLevel;

/// A durable webhook gateway in one binary
///
/// Receives webhooks of providers, verifies and stores them, delivers them to your endpoints, retries, and replays. Publishes
/// your own events, signed, to the endpoints of your customers.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, after_help = exit::HELP)]
#[command(max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    ///
    /// Takes webhooks at POST /in/{source}, stores them, delivers them to endpoints until they arrive, and answers
    /// the management API.
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::Args),
    /// Show all of it at work: gateway, receivers, retries, a kill, a replay
    ///
    /// Starts this very executable as a gateway in a temporary directory, with receivers good and bad; sends it
    /// webhooks, kills and restarts it in the middle, and checks what came of every attempt.
    #[command(after_help = demo::EXAMPLES)]
    Demo(demo::Args),
    /// Measure what a gateway does on this machine
    ///
    /// Starts this very executable as a gateway in a temporary directory, sends it events, takes its deliveries, and
    /// prints rates and latencies beside what a bare server and the bare disk do; or measures a gateway elsewhere.
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::Args),
    /// Publish an event
    ///
    /// It is stored before this returns, and then delivered, signed, to every endpoint whose event types match.
    #[command(after_help = send::EXAMPLES)]
    Send(send::Args),
    /// List what was received and published, or show one message
    #[command(after_help = events::EXAMPLES)]
    Events(events::Args),
    /// Show where a message stands at each endpoint
    ///
    /// With --attempts also what every try came to: time, status, and why it failed.
    #[command(after_help = deliveries::EXAMPLES)]
    Deliveries(deliveries::Args),
    /// List deliveries that will not be tried again on their own
    ///
    /// A delivery is a dead letter once its schedule is used up, or at once when the endpoint refuses it for good
    /// (4xx).
    #[command(after_help = dead::EXAMPLES)]
    Dead(dead::Args),
    /// Make deliveries due again
    ///
    /// Those of one message, or all that a filter matches; each starts its schedule anew.
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::Args),
    /// List endpoints, let deliveries to them wait or go on
    #[command(subcommand, after_help = endpoint::EXAMPLES)]
    Endpoint(endpoint::Command),
    /// Check the signature of a request
    ///
    /// Looks at the very bytes that the provider sent, as the gateway does, and says what is wrong with them.
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::Args),
    /// Print the headers that a provider, or the gateway, would send
    ///
    /// For testing a receiver, or a source of the gateway, without the provider.
    #[command(after_help = sign::EXAMPLES)]
    Sign(sign::Args),
    /// Take a backup into one file
    ///
    /// Of a running gateway, which goes on meanwhile: all that it answered before this began is in the file.
    #[command(after_help = backup::EXAMPLES)]
    Backup(backup::Args),
    /// Make a data directory of a backup
    ///
    /// All or nothing: every checksum is verified, and the store opened once, before the directory gets its name.
    #[command(after_help = restore::EXAMPLES)]
    Restore(restore::Args),
    /// Look into and mend the journal of a stopped store
    #[command(subcommand, after_help = JOURNAL_EXAMPLES)]
    Journal(journal::Command),
    /// Check the configuration
    #[command(subcommand, after_help = config::EXAMPLES)]
    Config(config::Command),
    /// Print a completion script for a shell
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::Args),
}

const JOURNAL_EXAMPLES: &str = "Examples:
  postrider journal verify --data /var/lib/postrider
  postrider journal dump --data /var/lib/postrider | less -S

Every command locks the store; with a gateway on it they end with exit code 4.";

/// Does what the command line asks, and gives the process's exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors and go to stdout, where nobody has to listen.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(exit::USAGE).into();
        }
    };
    let mut out = Out::stdout();
    let done = dispatch(&cli.command, &mut out);
    // What was said before a failure is said first.
    let flushed = out.flush();
    match done.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: &Command, out: &mut Out) -> Result<u8, Failure> {
    match command {
        Command::Serve(args) => serve::run(args, out),
        Command::Demo(args) => demo::run(args, out),
        Command::Bench(args) => bench::run(args, out),
        Command::Send(args) => send::run(args, out),
        Command::Events(args) => events::run(args, out),
        Command::Deliveries(args) => deliveries::run(args, out),
        Command::Dead(args) => dead::run(args, out),
        Command::Replay(args) => replay::run(args, out),
        Command::Endpoint(command) => endpoint::run(command, out),
        Command::Verify(args) => verify::run(args, out),
        Command::Sign(args) => sign::run(args, out),
        Command::Backup(args) => backup::run(args, out),
        Command::Restore(args) => restore::run(args, out),
        Command::Journal(command) => journal::run(command, out),
        Command::Config(command) => config::run(command, out),
        Command::Completions(args) => completions::run(args, out),
    }
}

/// Sends log lines from this level on to stderr.
fn log(level: LogLevel) {
    crate::telemetry::init_logging(match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    });
}
