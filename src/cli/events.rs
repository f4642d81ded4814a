//! `postrider events`: what was received and published.

use super::answers::{Message, Page};
use super::client::{Client, ServerArgs, Target, parse};
use super::exit::{self, Failure};
use super::out::{Out, Table, note, or_empty, printable};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider events
  postrider events --type invoice.paid --since 2026-11-24T06:00:00Z --limit 200
  postrider events msg_01jdx4m0qv9k3m5w2r8t6y7z1a
  postrider events --json | jq -r '.data[].id'

Newest first. Times are RFC 3339 or unix seconds.";

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show this message with its content
    #[arg(value_name = "ID", conflicts_with_all = ["event_type", "since", "until", "limit", "iterator", "content"])]
    id: Option<String>,
    /// Application, by name or id
    #[arg(long, value_name = "APP", default_value = crate::core::endpoint::DEFAULT_APP)]
    app: String,
    /// Only this event type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only stored at or after this time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only stored before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    #[command(flatten)]
    page: PageArgs,
    /// With --json: the content of each too
    #[arg(long, requires = "json")]
    content: bool,
    /// Print the gateway's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Which page of a list.
#[derive(Debug, clap::Args)]
pub(super) struct PageArgs {
    /// Entries of one page
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Where to go on, as the page before said
    #[arg(long, value_name = "ITERATOR", allow_hyphen_values = true)]
    iterator: Option<String>,
}

impl PageArgs {
    /// The target with these parameters.
    pub(super) fn apply(&self, target: Target) -> Target {
        let limit = self.limit.map(|n| n.to_string());
        target.query("limit", limit.as_deref()).query("iterator", self.iterator.as_deref())
    }
}

/// Says on stderr how to get the next page, if there is one.
pub(super) fn tell_of_more(done: bool, iterator: Option<&str>) {
    if let (false, Some(iterator)) = (done, iterator) {
        note(format_args!("there is more: --iterator {iterator}"));
    }
}

/// Lists, or shows one.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let client = args.server.client()?;
    match &args.id {
        Some(id) => show(args, &client, id, out)?,
        None => list(args, &client, out)?,
    }
    Ok(exit::OK)
}

fn list(args: &Args, client: &Client, out: &mut Out) -> Result<(), Failure> {
    let target = Target::new(&["app", &args.app, "msg"])
        .query("event_types", args.event_type.as_deref())
        .query("after", args.since.as_deref())
        .query("before", args.until.as_deref())
        .query("with_content", Some(if args.content { "true" } else { "false" }));
    let answer = client.get(&args.page.apply(target))?;
    if args.json {
        return out.bytes(&answer);
    }
    let page: Page<Message> = parse(&answer)?;
    let mut table = Table::new(&["ID", "STORED", "TYPE", "SOURCE", "EVENT ID"]);
    for message in page.data {
        let Message { id, timestamp, event_type, source, event_id, .. } = message;
        table.row([id, timestamp, or_empty(event_type), or_empty(source), or_empty(event_id)]);
    }
    table.print(out)?;
    if page.unreadable > 0 {
        let count = page.unreadable;
        note(format_args!(
            "{count} damaged places were passed over: `postrider journal verify` says which, once the gateway is stopped"
        ));
    }
    tell_of_more(page.done, page.iterator.as_deref());
    Ok(())
}

fn show(args: &Args, client: &Client, id: &str, out: &mut Out) -> Result<(), Failure> {
    let answer = client.get(&Target::new(&["app", &args.app, "msg", id]))?;
    if args.json {
        return out.bytes(&answer);
    }
    let message: Message = parse(&answer)?;
    let lines = [
        ("id", Some(message.id)),
        ("stored", Some(message.timestamp)),
        ("type", message.event_type),
        ("source", message.source),
        ("event id", message.event_id),
    ];
    for (name, value) in lines {
        out.line(format_args!("{name:9} {}", printable(value.as_deref().unwrap_or("-"))))?;
    }
    match (message.payload, message.payload_base64) {
        _ if message.erased => out.line("content   erased"),
        (Some(payload), _) => {
            // Line breaks and tabs are layout in JSON, and all that it may hold of the first 32 characters.
            let lines =
                payload.get().lines().map(|line| line.split('\t').map(printable).collect::<Vec<_>>().join("\t"));
            out.line(format_args!("content\n{}", lines.collect::<Vec<_>>().join("\n")))
        }
        (None, Some(base64)) => out.line(format_args!("content   not JSON; in base64:\n{base64}")),
        (None, None) => out.line("content   -"),
    }
}
