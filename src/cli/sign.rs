//! `postrider sign`: the headers that a provider, or the gateway, would send with a body.

use serde::Serialize;

use super::exit::{self, Failure};
use super::input::secrets;
use super::out::Out;
use super::scheme::{Read, RequestArgs};
use crate::core::id::EventId;
use crate::core::secret::Secret;
use crate::core::signature::{Field, Profile, SignError};
use crate::env::{Clock as _, Entropy as _, RealClock, RealEntropy};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider sign --provider stripe --secret env:STRIPE_WEBHOOK_SECRET --body event.json
  postrider sign --provider standard_webhooks --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw --id msg_1 < event.json
  postrider sign --profile x-webhook --secret s3cret --at 1767225617 --json < event.json
  curl -H @<(postrider sign --provider github --secret s3cret --body e.json) --data-binary @e.json \\
      http://127.0.0.1:8080/in/github

Prints `Name: value` lines, without the headers that were given with -H.";

/// Arguments of `sign`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Sign as this provider does: its id, or hmac for a scheme of your own
    #[arg(long, value_name = "ID", required_unless_present = "profile", conflicts_with = "profile")]
    provider: Option<String>,
    /// Sign as the gateway does: standard-webhooks, x-webhook, stripe or github
    #[arg(long, value_name = "NAME", value_parser = profile)]
    profile: Option<Profile>,
    /// Secret to sign with: env:NAME, file:PATH or the text itself; a profile takes several
    #[arg(long = "secret", value_name = "S", required = true, allow_hyphen_values = true)]
    secrets: Vec<String>,
    /// Sign for this unix time, in seconds; now by default
    #[arg(long, value_name = "UNIX_S")]
    at: Option<i64>,
    /// Id of the event, where it goes into a header; a new one by default
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    request: RequestArgs,
    /// Print the headers as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Signed {
    headers: Vec<SignedHeader>,
}

#[derive(Debug, Serialize)]
struct SignedHeader {
    name: String,
    value: String,
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::parse(name).ok_or_else(|| "expected standard-webhooks, x-webhook, stripe or github".to_owned())
}

/// Signs.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let secrets = secrets("--secret", &args.secrets)?;
    let now_s = args.at.unwrap_or_else(|| RealClock::new().wall_s());
    let headers = match (args.profile, &args.provider) {
        (Some(profile), _) => by_profile(args, profile, &secrets, now_s)?,
        (None, Some(provider)) => by_provider(args, provider, &secrets, now_s)?,
        // The parser lets nothing else through.
        (None, None) => return Err(Failure::usage("expected --provider or --profile")),
    };
    if args.json {
        let headers = headers.into_iter().map(|(name, value)| SignedHeader { name, value }).collect();
        out.json(&Signed { headers })?;
    } else {
        for (name, value) in headers {
            out.line(format_args!("{name}: {value}"))?;
        }
    }
    Ok(exit::OK)
}

fn by_profile(args: &Args, profile: Profile, secrets: &[Secret], now_s: i64) -> Result<Vec<(String, String)>, Failure> {
    let body = args.request.read()?.body;
    let id = args.id.clone().unwrap_or_else(new_id);
    let headers = profile.headers(secrets, &id, now_s, &body).map_err(|error| failure(&error))?;
    Ok(headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn by_provider(args: &Args, provider: &str, secrets: &[Secret], now_s: i64) -> Result<Vec<(String, String)>, Failure> {
    let scheme = args.request.scheme(provider)?;
    let [secret] = secrets else {
        return Err(Failure::usage("a provider signs with one secret: give --secret once"));
    };
    let mut read = args.request.read()?;
    let mut headers = id_header(args.id.as_deref(), &scheme.event_id, &mut read)?;
    headers.extend(scheme.sign(secret, &read.request(), now_s).map_err(|error| failure(&error))?);
    Ok(headers)
}

/// Adds the header with the event's id, where the provider has one and it was not given with `-H`.
fn id_header(id: Option<&str>, at: &Field, read: &mut Read) -> Result<Vec<(String, String)>, Failure> {
    match (at, id) {
        (Field::Header(name), given) => {
            let is_there = read.headers.get_all(name).next().is_some();
            if is_there && given.is_some() {
                return Err(Failure::usage(format_args!("expected either --id or -H '{name}: …', got both")));
            }
            if is_there {
                return Ok(Vec::new());
            }
            let id = given.map_or_else(new_id, str::to_owned);
            if id.is_empty() || !id.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(Failure::usage("expected visible ASCII characters after --id"));
            }
            read.headers.push(name, id.as_bytes());
            Ok(vec![(name.clone(), id)])
        }
        (Field::Json(_), Some(_)) => Err(Failure::usage("this provider's event id is in the body: leave --id out")),
        (Field::None, Some(_)) => Err(Failure::usage("this provider sends no event id: leave --id out")),
        (Field::Json(_) | Field::None, None) => Ok(Vec::new()),
    }
}

fn failure(error: &SignError) -> Failure {
    Failure::from_error(exit::USAGE, error)
}

fn new_id() -> String {
    let random = (u128::from(RealEntropy.next_u64()) << 64) | u128::from(RealEntropy.next_u64());
    EventId::at(RealClock::new().wall_ms(), random).to_string()
}
