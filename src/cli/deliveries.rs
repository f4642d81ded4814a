//! `postrider deliveries`: where a message stands at each endpoint.

use super::answers::{Attempt, Delivery, List};
use super::client::{ServerArgs, Target, parse};
use super::exit::{self, Failure};
use super::out::{Out, Table, or_empty};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider deliveries msg_01jdx4m0qv9k3m5w2r8t6y7z1a
  postrider deliveries msg_01jdx4m0qv9k3m5w2r8t6y7z1a --attempts
  postrider deliveries msg_01jdx4m0qv9k3m5w2r8t6y7z1a --attempts --json | jq '.data[].response.body'";

/// Arguments of `deliveries`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The message's id
    #[arg(value_name = "MSG_ID")]
    id: String,
    /// Show every attempt too; with --json, the attempts alone
    #[arg(long)]
    attempts: bool,
    /// Application, by name or id
    #[arg(long, value_name = "APP", default_value = crate::core::endpoint::DEFAULT_APP)]
    app: String,
    /// Print the gateway's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Lists deliveries, and attempts where asked for.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let client = args.server.client()?;
    let target = |what| Target::new(&["app", &args.app, "msg", &args.id, what]);
    if args.json {
        out.bytes(&client.get(&target(if args.attempts { "attempt" } else { "delivery" }))?)?;
        return Ok(exit::OK);
    }
    let deliveries: List<Delivery> = parse(&client.get(&target("delivery"))?)?;
    let mut table = Table::new(&["ENDPOINT", "STATUS", "ATTEMPTS", "NEXT ATTEMPT", "REASON"]);
    for delivery in deliveries.data {
        let Delivery { endpoint_id, endpoint_name, status, next_attempt, attempts, reason } = delivery;
        let endpoint = endpoint_name.unwrap_or(endpoint_id);
        table.row([endpoint, status, attempts.to_string(), or_empty(next_attempt), or_empty(reason)]);
    }
    table.print(out)?;
    if args.attempts {
        let attempts: List<Attempt> = parse(&client.get(&target("attempt"))?)?;
        out.line("")?;
        attempt_table(&attempts.data).print(out)?;
    }
    Ok(exit::OK)
}

fn attempt_table(attempts: &[Attempt]) -> Table {
    let mut table = Table::new(&["STARTED", "ENDPOINT", "NO", "TOOK", "RESULT", "NEXT"]);
    for attempt in attempts {
        let took = format!("{} ms", attempt.timings.total_us / 1_000);
        let (endpoint, number) = (attempt.endpoint().to_owned(), attempt.number.to_string());
        table.row([attempt.started_at.clone(), endpoint, number, took, attempt.result(), attempt.next.shown()]);
    }
    table
}
