//! What must have come out of the story, and telling it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::receiver::{APP, BROKEN, FLAKY, Received, STEADY};
use super::story::{Attempts, Played, SCHEDULE_S, Sent};
use crate::cli::answers::Delivery;
use crate::cli::exit::Failure;
use crate::cli::out::{Out, Table, printable};
use crate::core::time::parse_ms;

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    ok: bool,
    duration_ms: u64,
    checks: Vec<Check>,
    timeline: Vec<Moment>,
}

/// One thing that must be so.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// One line of the timeline.
#[derive(Debug, Serialize)]
struct Moment {
    /// Milliseconds since the start.
    at_ms: u64,
    what: String,
    #[serde(flatten)]
    attempt: Option<AttemptMoment>,
}

#[derive(Debug, Serialize)]
struct AttemptMoment {
    endpoint: String,
    message: String,
    number: u32,
    result: String,
    next: String,
}

impl Report {
    /// Judges what was played and received, from `started_ms` to `ended_ms` (unix).
    pub(super) fn new(played: &Played, received: &[Received], started_ms: u64, ended_ms: u64) -> Self {
        let checks = checks(played, received);
        let acts = played.acts.iter().map(|act| Moment {
            at_ms: act.at_ms.saturating_sub(started_ms),
            what: act.what.clone(),
            attempt: None,
        });
        let attempts = played.attempts.iter().flat_map(|attempts| moments(attempts, started_ms));
        let mut timeline: Vec<_> = acts.chain(attempts).collect();
        timeline.sort_by_key(|moment| moment.at_ms);
        let ok = checks.iter().all(|check| check.ok);
        Self { ok, duration_ms: ended_ms.saturating_sub(started_ms), checks, timeline }
    }

    pub(super) const fn is_ok(&self) -> bool {
        self.ok
    }

    /// For people.
    pub(super) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        let mut table = Table::new(&["TIME", "ENDPOINT", "NO", "RESULT", "NEXT", "MESSAGE"]);
        for Moment { at_ms, attempt, .. } in &self.timeline {
            if let Some(AttemptMoment { endpoint, message, number, result, next }) = attempt {
                let (message, number) = (message.clone(), number.to_string());
                table.row([seconds(*at_ms), endpoint.clone(), number, result.clone(), next.clone(), message]);
            }
        }
        let mut attempts = table.lines().into_iter();
        out.line(attempts.next().unwrap_or_default())?;
        for moment in &self.timeline {
            match moment.attempt {
                Some(_) => out.line(attempts.next().unwrap_or_default())?,
                None => out.line(format_args!("{} ── {}", seconds(moment.at_ms), moment.what))?,
            }
        }
        out.line("\nWhat was promised, and what came of it")?;
        for Check { name, ok, detail } in &self.checks {
            let mark = if *ok { '✓' } else { '✗' };
            out.line(format_args!("  {mark} {name}: {}", printable(detail)))?;
        }
        let failed = self.checks.iter().filter(|check| !check.ok).count();
        let took = seconds(self.duration_ms);
        match failed {
            0 => out.line(format_args!("\nAll {} checks hold, after {}.", self.checks.len(), took.trim())),
            _ => out.line(format_args!("\n{failed} of {} checks failed.", self.checks.len())),
        }
    }
}

fn moments(attempts: &Attempts, started_ms: u64) -> impl Iterator<Item = Moment> + '_ {
    attempts.attempts.iter().map(move |attempt| {
        let at_ms = parse_ms(&attempt.started_at).unwrap_or(started_ms).saturating_sub(started_ms);
        let (endpoint, result) = (attempt.endpoint().to_owned(), attempt.result());
        // The time of a retry says more as one of the next rows.
        let next = match attempt.next.state.as_str() {
            "retry" => "retry".to_owned(),
            _ => attempt.next.shown(),
        };
        let (message, number) = (attempts.message.clone(), attempt.number);
        let what = "attempt".to_owned();
        Moment { at_ms, what, attempt: Some(AttemptMoment { endpoint, message, number, result, next }) }
    })
}

fn seconds(ms: u64) -> String {
    format!("{:6.2} s", ms as f64 / 1_000.0)
}

fn checks(played: &Played, received: &[Received]) -> Vec<Check> {
    let check = |name, ok, detail: String| Check { name, ok, detail };
    let Played { first, again, forged, invoice, created, shipped, .. } = played;
    let statuses = |endpoint: &str| statuses(played, endpoint);
    let sent = [invoice, created, shipped];
    let signed = received.iter().filter(|r| r.signed).count();
    let of_provider: Vec<_> = received.iter().filter(|r| r.endpoint == APP).collect();
    let tries = SCHEDULE_S.len() + 1;
    let broken_died = statuses(BROKEN).iter().take(tries).filter(|status| **status == Some(500)).count() == tries;
    let dead: Vec<_> = played.dead.iter().map(|d| (d.message_id.as_str(), d.endpoint_name.as_deref())).collect();
    let replay_ok = played.replayed.as_ref().is_some_and(|delivery| delivery.status == "delivered");
    let duplicate_ok = again.0.is_success() && again.1.duplicate && again.1.id.as_ref() == Some(&invoice.id);
    vec![
        check("signed webhook taken", first.0.is_success() && !first.1.duplicate, format!("answered {}", first.0)),
        check("duplicate recognised", duplicate_ok, format!("answered {} with the first id", again.0)),
        check(
            "forged webhook refused",
            forged.0.as_u16() == 401,
            format!("answered {} ({})", forged.0, forged.1.code.as_deref().unwrap_or("no code")),
        ),
        check(
            "killed in the middle",
            played.pending_at_kill > 0,
            format!("{} deliveries of the first two messages were pending", played.pending_at_kill),
        ),
        nothing_lost(played),
        check(
            "retries went on after the kill",
            statuses(FLAKY) == [Some(500), Some(500), Some(200)],
            format!("{FLAKY} answered {}", shown(&statuses(FLAKY))),
        ),
        check(
            "schedule ended in a dead letter",
            broken_died && dead == [(created.id.as_str(), Some(BROKEN))],
            format!("{BROKEN} answered {}; {} dead letter(s) listed", shown(&statuses(BROKEN)), dead.len()),
        ),
        check(
            "replay delivered it",
            replay_ok && statuses(BROKEN).last() == Some(&Some(200)),
            format!("attempt {} was answered 200", statuses(BROKEN).len()),
        ),
        at_least_once(played, received),
        same_ids(received, &sent),
        check(
            "every signature verified",
            signed == received.len() && signed > 0,
            format!("{signed} of {} requests, by the receiver", received.len()),
        ),
        check(
            "provider's own signature passed on",
            !of_provider.is_empty() && of_provider.iter().all(|r| r.signed_by_provider),
            "Stripe-Signature still verifies at the app".to_owned(),
        ),
        bodies_exact(received, &sent),
    ]
}

/// Whatever was acknowledged is there and came to its end after the kill.
fn nothing_lost(played: &Played) -> Check {
    let ended = |endpoint: &str| {
        let of_endpoint = |d: &&Delivery| d.endpoint_name.as_deref() == Some(endpoint);
        played.settled.iter().filter(of_endpoint).map(|d| d.status.as_str()).collect::<Vec<_>>()
    };
    let ok = ended(APP) == ["delivered"]
        && ended(STEADY) == ["delivered", "delivered"]
        && ended(FLAKY) == ["delivered"]
        && ended(BROKEN) == ["dead"];
    let detail = format!(
        "3 acknowledged messages, {} deliveries, all at their end; the last was acknowledged right before the kill",
        played.settled.len()
    );
    Check { name: "nothing lost over the kill", ok, detail }
}

/// Every attempt on record arrived. One whose end was not yet durable at the kill is made again: at least once, and the
/// receiver tells it by the id.
fn at_least_once(played: &Played, received: &[Received]) -> Check {
    let recorded = played.attempts.iter().map(|attempts| attempts.attempts.len()).sum::<usize>();
    let again = received.len().saturating_sub(recorded);
    let detail =
        format!("{recorded} attempts on record, {} requests received; {again} repeated by the kill", received.len());
    Check { name: "every attempt arrived", ok: received.len() >= recorded && recorded > 0, detail }
}

/// Every attempt carried the id that the publisher or provider was told.
fn same_ids(received: &[Received], sent: &[&Sent; 3]) -> Check {
    let told: BTreeSet<_> = sent.iter().map(|sent| sent.id.as_str()).collect();
    let carried: BTreeSet<_> = received.iter().map(|r| r.id.as_str()).collect();
    let detail = format!("{} requests carried {} ids, those of the answers", received.len(), carried.len());
    Check { name: "same id on every attempt", ok: told == carried && told.len() == 3, detail }
}

fn bodies_exact(received: &[Received], sent: &[&Sent; 3]) -> Check {
    let exact = |r: &&Received| sent.iter().any(|sent| sent.id == r.id && sent.body == r.body);
    let count = received.iter().filter(exact).count();
    let detail = format!("{count} of {} bodies, to the last space", received.len());
    Check { name: "bodies byte for byte", ok: count == received.len() && count > 0, detail }
}

/// The statuses that an endpoint answered, over all messages, in order.
fn statuses(played: &Played, endpoint: &str) -> Vec<Option<u16>> {
    let all = played.attempts.iter().flat_map(|attempts| &attempts.attempts);
    all.filter(|attempt| attempt.endpoint() == endpoint).map(|attempt| attempt.status).collect()
}

fn shown(statuses: &[Option<u16>]) -> String {
    let one = |status: &Option<u16>| status.map_or_else(|| "-".to_owned(), |s| s.to_string());
    statuses.iter().map(one).collect::<Vec<_>>().join(", ")
}
