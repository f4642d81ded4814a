//! `postrider replay`: makes deliveries due again, those of one message or all that a filter matches.

use serde::{Deserialize, Serialize};

use super::client::{Client, ServerArgs, Target, parse};
use super::exit::{self, Failure};
use super::out::{Out, note};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider replay msg_01jdx4m0qv9k3m5w2r8t6y7z1a
  postrider replay msg_01jdx4m0qv9k3m5w2r8t6y7z1a --endpoint billing
  postrider replay --endpoint billing --since 2026-11-24T00:00:00Z
  postrider replay --status all --type 'order.*' --since 2026-11-24T00:00:00Z --limit 500

A filter without --status takes dead letters. Every delivery that matches is counted: replayed, due already, or skipped.";

/// Deliveries that one request asks for at most; the gateway's own limit.
const REQUEST_MAX: u64 = 10_000;

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only the deliveries of this message
    #[arg(value_name = "MSG_ID", conflicts_with_all = ["event_type", "since", "until", "status", "limit"])]
    #[arg(required_unless_present_any = ["endpoint", "event_type", "since", "until", "status"])]
    id: Option<String>,
    /// Only those to this endpoint, by name or id
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// The application whose endpoint is named
    #[arg(long, value_name = "APP", requires = "endpoint")]
    app: Option<String>,
    /// Only events of this type, or of types that match this pattern
    #[arg(long = "type", value_name = "PATTERN")]
    event_type: Option<String>,
    /// Only dead at or after this time (with --status all: stored)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only dead before this time (with --status all: stored)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Dead letters, or all deliveries, delivered ones too
    #[arg(long, value_name = "STATUS", value_parser = ["dead", "all"])]
    status: Option<String>,
    /// Deliveries at most; all that match by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Print what the gateway answers, summed up over its pages
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// The request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wanted<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iterator: Option<&'a str>,
}

/// The answer, which is also what `--json` prints.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    replayed: u64,
    already_due: u64,
    skipped: u64,
    reasons: Skipped,
    more: bool,
    iterator: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Skipped {
    unknown: u64,
    erased: u64,
    endpoint_removed: u64,
    unreadable: u64,
}

impl Done {
    fn counted(&self) -> u64 {
        self.replayed + self.already_due + self.skipped
    }

    /// Adds what the next page did.
    fn add(&mut self, page: Self) {
        self.replayed += page.replayed;
        self.already_due += page.already_due;
        self.skipped += page.skipped;
        self.reasons.unknown += page.reasons.unknown;
        self.reasons.erased += page.reasons.erased;
        self.reasons.endpoint_removed += page.reasons.endpoint_removed;
        self.reasons.unreadable += page.reasons.unreadable;
        (self.more, self.iterator) = (page.more, page.iterator);
    }
}

/// Replays, page by page until the gateway has no more.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let client = args.server.client()?;
    let mut done = Done::default();
    loop {
        match page(args, &client, &done) {
            Ok(page) => done.add(page),
            Err(failure) => {
                if done.counted() > 0 {
                    // What was replayed stays replayed, so it is told before the failure.
                    note(shown(&done));
                }
                return Err(failure);
            }
        }
        let wanted = args.limit.is_none_or(|limit| done.counted() < limit);
        if !(done.more && done.iterator.is_some() && wanted) {
            break;
        }
    }
    if args.json {
        out.json(&done)?;
    } else {
        out.line(shown(&done))?;
        if done.more {
            note("there is more: repeat without --limit");
        }
    }
    Ok(exit::OK)
}

fn page(args: &Args, client: &Client, done: &Done) -> Result<Done, Failure> {
    let left = args.limit.map_or(REQUEST_MAX, |limit| limit.saturating_sub(done.counted()).min(REQUEST_MAX));
    let wanted = Wanted {
        message_id: args.id.as_deref(),
        endpoint: args.endpoint.as_deref(),
        application: args.app.as_deref(),
        event_type: args.event_type.as_deref(),
        since: args.since.as_deref(),
        until: args.until.as_deref(),
        status: args.status.as_deref(),
        limit: args.id.is_none().then_some(left),
        iterator: done.iterator.as_deref(),
    };
    let body = serde_json::to_vec(&wanted).map_err(|error| Failure::from_error(exit::USAGE, &error))?;
    parse(&client.post(&Target::new(&["replay"]), &[], body)?)
}

fn shown(done: &Done) -> String {
    let Skipped { unknown, erased, endpoint_removed, unreadable } = done.reasons;
    let mut text = format!("replayed {}, already due {}, skipped {}", done.replayed, done.already_due, done.skipped);
    if done.skipped > 0 {
        let why = format!(
            " (past retention {unknown}, content erased {erased}, endpoint removed {endpoint_removed}, damaged {unreadable})"
        );
        text.push_str(&why);
    }
    text
}
