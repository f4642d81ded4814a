//! `postrider serve`: the gateway itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::exit::{self, Failure};
use super::input::{config_failure, environment, progress_bar};
use super::out::{Out, note};
use crate::config::{Config, LogLevel, Overrides, SystemFiles};
use crate::daemon::{self, DaemonError, DaemonErrorKind, Running};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider serve
  postrider serve --config /etc/postrider.toml --data /var/lib/postrider
  POSTRIDER_INGRESS=127.0.0.1:0 postrider serve --log debug

Each flag wins over its POSTRIDER_* variable, that over the file, that over the default. Once the gateway serves it prints \
three lines: `ingress URL`, `management URL`, and `token FILE` with the path of the API token, never its value. SIGTERM and \
SIGINT stop it in order: no more events in, attempts in flight finish, a second signal does not wait for them.";

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file; ./postrider.toml is read if it exists
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory, for journal, key space and token [default: ./postrider-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Public address, for providers: POST /in/{source} [default: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDR")]
    ingress: Option<SocketAddr>,
    /// Management address, for API, health and metrics [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    management: Option<SocketAddr>,
    /// File of the API token, made at the first start [default: token in the data directory]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Log level: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<LogLevel>,
}

/// Serves until a signal comes or the storage fails.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let flags = Overrides {
        config: args.config.clone(),
        data: args.data.clone(),
        ingress: args.ingress,
        management: args.management,
        token_file: args.token_file.clone(),
        log: args.log,
    };
    let config = Config::load(&flags, &environment(), &SystemFiles).map_err(|errors| config_failure(&errors))?;
    config.warnings.iter().for_each(|warning| note(format_args!("warning: {warning}")));
    super::log(config.log);
    let bar = progress_bar("rebuilding the key space");
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let ready = |running: &Running| {
        bar.finish_and_clear();
        // A gateway does not stop because nobody reads where it listens.
        let _ = announce(running, out);
    };
    daemon::run(config, &mut progress, ready).map_err(|error| failure(&error))?;
    Ok(exit::OK)
}

fn announce(running: &Running, out: &mut Out) -> Result<(), Failure> {
    out.line(format_args!("ingress http://{}", running.ingress))?;
    out.line(format_args!("management http://{}", running.management))?;
    out.line(format_args!("token {}", running.token.display()))?;
    out.flush()
}

fn failure(error: &DaemonError) -> Failure {
    let code = match error.kind() {
        DaemonErrorKind::Config => exit::CONFIG,
        DaemonErrorKind::Held => exit::HELD,
        DaemonErrorKind::Damaged => exit::DAMAGED,
        DaemonErrorKind::Storage => exit::STORAGE,
        DaemonErrorKind::Bind => exit::BIND,
    };
    Failure::from_error(code, error)
}
