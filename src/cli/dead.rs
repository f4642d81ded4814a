//! `postrider dead`: deliveries that will not be tried again on their own.

use super::answers::{DeadLetter, Page};
use super::client::{ServerArgs, Target, parse};
use super::events::{PageArgs, tell_of_more};
use super::exit::{self, Failure};
use super::out::{Out, Table, or_empty};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider dead
  postrider dead --endpoint billing --since 2026-11-24T00:00:00Z
  postrider dead --json | jq -r '.data[] | [.messageId, .reason] | @tsv'

Newest first. `postrider replay` makes them due again.";

/// Arguments of `dead`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only of this endpoint, by name or id
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// The application whose endpoint is named
    #[arg(long, value_name = "APP", requires = "endpoint")]
    app: Option<String>,
    /// Only dead at or after this time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only dead before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    #[command(flatten)]
    page: PageArgs,
    /// Print the gateway's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Lists dead letters.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let target = Target::new(&["dead-letter"])
        .query("endpoint", args.endpoint.as_deref())
        .query("application", args.app.as_deref())
        .query("since", args.since.as_deref())
        .query("until", args.until.as_deref());
    let answer = args.server.client()?.get(&args.page.apply(target))?;
    if args.json {
        out.bytes(&answer)?;
        return Ok(exit::OK);
    }
    let page: Page<DeadLetter> = parse(&answer)?;
    let mut table = Table::new(&["DIED", "MESSAGE", "TYPE", "ENDPOINT", "ATTEMPTS", "REASON"]);
    for letter in page.data {
        let DeadLetter { message_id, endpoint_id, endpoint_name, event_type, reason, at, attempts } = letter;
        let endpoint = endpoint_name.unwrap_or(endpoint_id);
        table.row([at, message_id, or_empty(event_type), endpoint, attempts.to_string(), reason]);
    }
    table.print(out)?;
    tell_of_more(page.done, page.iterator.as_deref());
    Ok(exit::OK)
}
