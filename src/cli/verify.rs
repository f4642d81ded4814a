//! `postrider verify`: is a request's signature right, and if not, why not.

use serde::Serialize;

use super::exit::{self, Failure};
use super::input::secrets;
use super::out::{Out, printable};
use super::scheme::RequestArgs;
use crate::core::error::chain;
use crate::core::signature::Identity;
use crate::env::{Clock as _, RealClock};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider verify --provider stripe --secret env:STRIPE_WEBHOOK_SECRET \\
      -H 'Stripe-Signature: t=1767225617,v1=5292…' --at 1767225617 --body event.json
  postrider verify --provider github --secret file:github.secret --json \\
      -H 'X-Hub-Signature-256: sha256=7571…' < payload
  postrider verify --provider hmac --hmac-config shop.toml --secret s3cret -H 'X-Shop-Signature: …' < payload

Exits with 0 when the signature is right and with 1 when it is not. --json prints one object: verdict (accept or reject), \
reason (a stable word, null for accept), detail (a sentence, null for accept), event_id and event_type (null when there is \
none, and for reject).";

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose scheme: a provider's id, or hmac for one of your own
    #[arg(long, value_name = "ID")]
    provider: String,
    /// Secret that may have signed: env:NAME, file:PATH or the text itself; may be repeated
    #[arg(long = "secret", value_name = "S", required = true, allow_hyphen_values = true)]
    secrets: Vec<String>,
    /// Verify as if it were this unix time, in seconds
    #[arg(long, value_name = "UNIX_S", allow_negative_numbers = true)]
    at: Option<i64>,
    /// Seconds that a timestamp may be off; the provider's own by default
    #[arg(long, value_name = "N")]
    tolerance_s: Option<u64>,
    #[command(flatten)]
    request: RequestArgs,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Verdict {
    verdict: &'static str,
    reason: Option<&'static str>,
    detail: Option<String>,
    event_id: Option<String>,
    event_type: Option<String>,
}

/// Verifies.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let scheme = args.request.scheme(&args.provider)?;
    let secrets = secrets("--secret", &args.secrets)?;
    let read = args.request.read()?;
    let request = read.request();
    let now_s = args.at.unwrap_or_else(|| RealClock::new().wall_s());
    let (code, verdict) = match scheme.verify(&secrets, &request, now_s, args.tolerance_s) {
        Ok(()) => {
            let Identity { id, event_type } = scheme.identity(&request);
            (exit::OK, Verdict { verdict: "accept", reason: None, detail: None, event_id: id, event_type })
        }
        // What a stranger calls the event says nothing, so a refused request has neither id nor type.
        Err(reject) => {
            let (reason, detail) = (Some(reject.code()), Some(chain(&reject)));
            (exit::NEGATIVE, Verdict { verdict: "reject", reason, detail, event_id: None, event_type: None })
        }
    };
    if args.json {
        out.json(&verdict)?;
    } else {
        out.line(shown(&verdict))?;
    }
    Ok(code)
}

fn shown(verdict: &Verdict) -> String {
    let mut text = verdict.verdict.to_owned();
    if let (Some(reason), Some(detail)) = (verdict.reason, &verdict.detail) {
        text = format!("{text}: {detail} ({reason})");
    }
    for (name, value) in [("event id", &verdict.event_id), ("event type", &verdict.event_type)] {
        if let Some(value) = value {
            text = format!("{text}\n{name}: {}", printable(value));
        }
    }
    text
}
