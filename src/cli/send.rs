//! `postrider send`: publishes an event.

use serde_json::value::RawValue;

use super::answers::Published;
use super::client::{ServerArgs, Target, parse};
use super::exit::{self, Failure};
use super::input::read_body;
use super::out::Out;

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider send --type order.created '{\"order\": 7}'
  postrider send --type order.created --event-id order-7 @order.json
  jq -c .order export.json | postrider send --type order.created --idempotency-key import-1

The payload is delivered as the very bytes that are given. Prints the message's id.";

/// Arguments of `send`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Event type, such as order.created
    #[arg(long = "type", value_name = "TYPE")]
    event_type: String,
    /// Application, by name or id
    #[arg(long, value_name = "APP", default_value = crate::core::endpoint::DEFAULT_APP)]
    app: String,
    /// Your own id of the event; a second event with it is refused
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// Key under which this very request can be repeated safely
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// The JSON itself, @FILE, or - for stdin (the default)
    #[arg(value_name = "PAYLOAD")]
    payload: Option<String>,
    /// Print the gateway's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// The request's body; the payload stays as it was written.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Publication<'a> {
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    payload: &'a RawValue,
}

/// Publishes.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let text = payload(args.payload.as_deref())?;
    let payload: &RawValue = serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format_args!("the payload is not JSON: {error}; put a text in quotes")))?;
    let publication = Publication { event_type: &args.event_type, event_id: args.event_id.as_deref(), payload };
    let body = serde_json::to_vec(&publication).map_err(|error| Failure::from_error(exit::USAGE, &error))?;
    let headers: Vec<_> = args.idempotency_key.iter().map(|key| ("idempotency-key", key.as_str())).collect();
    let answer = args.server.client()?.post(&Target::new(&["app", &args.app, "msg"]), &headers, body)?;
    if args.json {
        out.bytes(&answer)?;
    } else {
        out.line(parse::<Published>(&answer)?.id)?;
    }
    Ok(exit::OK)
}

fn payload(given: Option<&str>) -> Result<String, Failure> {
    let bytes = match given {
        None | Some("-") => read_body(None)?,
        Some(text) => match text.strip_prefix('@') {
            Some(path) => read_body(Some(path.as_ref()))?,
            None => return Ok(text.to_owned()),
        },
    };
    String::from_utf8(bytes).map_err(|_| Failure::usage("the payload is not JSON: expected UTF-8, got other bytes"))
}
