//! `postrider endpoint`: who takes deliveries, and switching that on and off.

use super::answers::{Endpoint, List};
use super::client::{ServerArgs, Target, parse};
use super::exit::{self, Failure};
use super::out::{Out, Table, or_empty, printable};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider endpoint list
  postrider endpoint disable billing
  postrider endpoint enable billing --app acme

Deliveries to a disabled endpoint wait; they go out when it is enabled.";

/// Arguments of `endpoint`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List endpoints with their standing
    #[command(after_help = EXAMPLES)]
    List(ListArgs),
    /// Let deliveries go to an endpoint again
    #[command(after_help = EXAMPLES)]
    Enable(SwitchArgs),
    /// Let deliveries to an endpoint wait
    #[command(after_help = EXAMPLES)]
    Disable(SwitchArgs),
}

/// Arguments of `endpoint list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Print the gateway's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `endpoint enable` and `endpoint disable`.
#[derive(Debug, clap::Args)]
pub(super) struct SwitchArgs {
    /// The endpoint, by name or id
    #[arg(value_name = "ENDPOINT")]
    endpoint: String,
    /// The application whose endpoint is named
    #[arg(long, value_name = "APP")]
    app: Option<String>,
    /// Print the gateway's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Lists or switches.
pub(super) fn run(command: &Command, out: &mut Out) -> Result<u8, Failure> {
    match command {
        Command::List(args) => list(args, out)?,
        Command::Enable(args) => switch(args, "enable", out)?,
        Command::Disable(args) => switch(args, "disable", out)?,
    }
    Ok(exit::OK)
}

fn list(args: &ListArgs, out: &mut Out) -> Result<(), Failure> {
    let answer = args.server.client()?.get(&Target::new(&["endpoint"]))?;
    if args.json {
        return out.bytes(&answer);
    }
    let endpoints: List<Endpoint> = parse(&answer)?;
    let mut table = Table::new(&["NAME", "APPLICATION", "STANDING", "SINCE", "SOURCES", "EVENT TYPES", "URL"]);
    for endpoint in endpoints.data {
        let Endpoint { name, application, url, standing, since, sources, event_types } = endpoint;
        let (sources, event_types) = (sources.join(","), event_types.join(","));
        table.row([name, application, standing, or_empty(since), sources, event_types, or_empty(url)]);
    }
    table.print(out)
}

fn switch(args: &SwitchArgs, what: &str, out: &mut Out) -> Result<(), Failure> {
    let target = Target::new(&["endpoint", &args.endpoint, what]).query("application", args.app.as_deref());
    let answer = args.server.client()?.post(&target, &[], Vec::new())?;
    if args.json {
        return out.bytes(&answer);
    }
    let endpoint: Endpoint = parse(&answer)?;
    out.line(format_args!("{} is {}", printable(&endpoint.name), printable(&endpoint.standing)))
}
