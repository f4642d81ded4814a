//! What happens in the demo, in order, and what was seen of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use tokio::runtime::Runtime;

use super::Secrets;
use super::receiver::{BROKEN, Receiver};
use crate::cli::answers::{Attempt, DeadLetter, Delivery, List, Page, Published};
use crate::cli::client::{self, Client, Target, parse};
use crate::cli::exit::{self, Failure};
use crate::cli::gateway::Gateway;
use crate::cli::interrupt::Interrupt;
use crate::cli::out::note;
use crate::core::endpoint::DEFAULT_APP;
use crate::core::headers::Headers;
use crate::core::secret::Secret;
use crate::core::signature::{Request, provider};
use crate::env::{Clock as _, RealClock};

/// Seconds between attempts: long enough for the kill to fall before the first retry, short enough to see the end.
pub(super) const SCHEDULE_S: [u64; 3] = [2, 1, 1];

/// What Stripe sends, down to its odd spaces.
const INVOICE: &[u8] =
    b"{ \"id\": \"evt_demo_1\",  \"type\": \"invoice.paid\", \"data\": {\"object\": {\"total\": 12.50}} }";

/// What the app publishes first.
const CREATED: &str = "{ \"order\": 7,   \"total\": 12.50 }";

/// What the app publishes last before the kill.
const SHIPPED: &str = "{ \"order\": 7, \"carrier\": \"post\" }";

/// Milliseconds that anything may take to come about.
const PATIENCE_MS: u64 = 12_000;

/// Milliseconds between two looks.
const LOOK_MS: u64 = 25;

/// A message and what must arrive of it.
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) body: &'static [u8],
}

/// One line of the timeline that is no attempt.
pub(super) struct Act {
    /// Unix milliseconds.
    pub(super) at_ms: u64,
    pub(super) what: String,
}

/// What the gateway answered to a webhook.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) id: Option<String>,
    pub(super) duplicate: bool,
    pub(super) code: Option<String>,
}

/// Everything that was seen.
pub(super) struct Played {
    pub(super) acts: Vec<Act>,
    pub(super) first: (StatusCode, Answer),
    pub(super) again: (StatusCode, Answer),
    pub(super) forged: (StatusCode, Answer),
    pub(super) invoice: Sent,
    pub(super) created: Sent,
    pub(super) shipped: Sent,
    /// Deliveries of the first two messages that were pending when the gateway was killed.
    pub(super) pending_at_kill: usize,
    /// Where every message stood at the end of its schedule, before the replay.
    pub(super) settled: Vec<Delivery>,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) replayed: Option<Delivery>,
    pub(super) attempts: Vec<Attempts>,
}

/// The attempts of one message.
pub(super) struct Attempts {
    pub(super) message: String,
    pub(super) attempts: Vec<Attempt>,
}

/// Where the story plays.
pub(super) struct Stage<'a> {
    home: PathBuf,
    secrets: &'a Secrets,
    receiver: &'a Receiver,
    clock: RealClock,
    runtime: Runtime,
    /// Without it an interrupt would end the process and leave the directory behind.
    interrupt: Interrupt,
    acts: Vec<Act>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        home: &Path,
        secrets: &'a Secrets,
        receiver: &'a Receiver,
        clock: RealClock,
    ) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::from_error(exit::STORAGE, &error))?;
        let interrupt = Interrupt::listen(&runtime);
        Ok(Self { home: home.to_owned(), secrets, receiver, clock, runtime, interrupt, acts: Vec::new() })
    }

    /// Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    fn start(&self) -> Result<Gateway, Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::from_error(exit::STORAGE, &error))?;
        Gateway::start(&program, &self.home, "info")
    }

    fn act(&mut self, what: &str) {
        note(format_args!("… {what}"));
        self.acts.push(Act { at_ms: self.now_ms(), what: what.to_owned() });
    }

    /// Looks until `look` sees something.
    fn wait_for<T>(
        &self,
        gateway: &Gateway,
        what: &str,
        look: impl Fn() -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let until_ms = self.clock.mono_ms() + PATIENCE_MS;
        while self.clock.mono_ms() < until_ms {
            if self.interrupt.came() {
                return Err(Failure::new(exit::NEGATIVE, "interrupted"));
            }
            if let Some(seen) = look()? {
                return Ok(seen);
            }
            std::thread::sleep(Duration::from_millis(LOOK_MS));
        }
        Err(gateway.failed(&format!("waited {PATIENCE_MS} ms in vain until {what}")))
    }

    /// Sends the invoice as Stripe does, signed with `secret`.
    fn send_invoice(&self, gateway: &Gateway, secret: &Secret) -> Result<(StatusCode, Answer), Failure> {
        let stripe = provider("stripe").expect("it is a row of the table of built-in providers");
        let headers = Headers::new();
        let request = Request { method: "POST", url: "", headers: &headers, body: INVOICE };
        let signed = stripe
            .sign(secret, &request, self.clock.wall_s())
            .map_err(|error| Failure::from_error(exit::USAGE, &error))?;
        let asked = client::post(&gateway.ingress, "/in/stripe", &signed, Bytes::from_static(INVOICE));
        let (status, body) = self.runtime.block_on(asked).map_err(|why| gateway.failed(&why))?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

/// Questions to the gateway that plays.
struct Asking {
    client: Client,
}

impl Asking {
    fn new(gateway: &Gateway) -> Result<Self, Failure> {
        Ok(Self { client: Client::new(&gateway.management, gateway.token.clone())? })
    }

    fn publish(&self, event_type: &str, payload: &'static str) -> Result<Sent, Failure> {
        let body = format!("{{\"eventType\":\"{event_type}\",\"payload\":{payload}}}");
        let answer = self.client.post(&Target::new(&["app", DEFAULT_APP, "msg"]), &[], body.into_bytes())?;
        Ok(Sent { id: parse::<Published>(&answer)?.id, body: payload.as_bytes() })
    }

    fn deliveries(&self, id: &str) -> Result<Vec<Delivery>, Failure> {
        let answer = self.client.get(&Target::new(&["app", DEFAULT_APP, "msg", id, "delivery"]))?;
        Ok(parse::<List<Delivery>>(&answer)?.data)
    }

    fn attempts(&self, id: &str) -> Result<Attempts, Failure> {
        let answer = self.client.get(&Target::new(&["app", DEFAULT_APP, "msg", id, "attempt"]))?;
        Ok(Attempts { message: id.to_owned(), attempts: parse::<List<Attempt>>(&answer)?.data })
    }

    fn dead(&self) -> Result<Vec<DeadLetter>, Failure> {
        Ok(parse::<Page<DeadLetter>>(&self.client.get(&Target::new(&["dead-letter"]))?)?.data)
    }

    fn replay(&self, id: &str, endpoint: &str) -> Result<(), Failure> {
        let body = serde_json::json!({ "messageId": id, "endpoint": endpoint });
        self.client.post(&Target::new(&["replay"]), &[], body.to_string().into_bytes()).map(drop)
    }

    /// The deliveries of these messages, once `all` of them are as asked.
    fn once(&self, ids: &[&str], all: impl Fn(&Delivery) -> bool) -> Result<Option<Vec<Delivery>>, Failure> {
        let mut found = Vec::new();
        for id in ids {
            found.extend(self.deliveries(id)?);
        }
        Ok(found.iter().all(all).then_some(found))
    }
}

/// Plays the story.
pub(super) fn play(stage: &mut Stage<'_>) -> Result<Played, Failure> {
    stage.act("the gateway starts");
    let gateway = stage.start()?;
    let asking = Asking::new(&gateway)?;

    stage.act("Stripe sends a signed webhook");
    let first = stage.send_invoice(&gateway, &stage.secrets.stripe)?;
    stage.act("Stripe sends the same webhook again");
    let again = stage.send_invoice(&gateway, &stage.secrets.stripe)?;
    stage.act("somebody sends a forged webhook");
    let forged = stage.send_invoice(&gateway, &Secret::new("whsec_not_the_secret"))?;
    let Some(id) = first.1.id.clone() else {
        return Err(gateway.failed(&format!("the signed webhook was answered {}", first.0)));
    };
    let invoice = Sent { id, body: INVOICE };
    stage.act("the app publishes order.created, for three endpoints");
    let created = asking.publish("order.created", CREATED)?;

    let ids = [invoice.id.as_str(), created.id.as_str()];
    let tried = stage
        .wait_for(&gateway, "every endpoint was tried once", || asking.once(&ids, |delivery| delivery.attempts > 0))?;
    let pending_at_kill = tried.iter().filter(|delivery| delivery.status == "pending").count();
    stage.act("the app publishes order.shipped, and with its answer the gateway is killed (SIGKILL)");
    let shipped = asking.publish("order.shipped", SHIPPED)?;
    // As a power cut would end it: by SIGKILL.
    drop(gateway);

    stage.act("the gateway starts again");
    let gateway = stage.start()?;
    let asking = Asking::new(&gateway)?;
    let ids = [invoice.id.as_str(), created.id.as_str(), shipped.id.as_str()];
    let settled = stage.wait_for(&gateway, "every delivery came to its end", || {
        asking.once(&ids, |delivery| delivery.status != "pending")
    })?;
    let dead = asking.dead()?;

    stage.act("the broken endpoint is mended, and its dead letter replayed");
    stage.receiver.mend();
    asking.replay(&created.id, BROKEN)?;
    let replayed = stage.wait_for(&gateway, "the replayed delivery came to its end", || {
        let settled = asking.once(&[&created.id], |delivery| delivery.status != "pending")?;
        Ok(settled.map(|all| all.into_iter().find(|d| d.endpoint_name.as_deref() == Some(BROKEN))))
    })?;
    let attempts = ids.iter().map(|id| asking.attempts(id)).collect::<Result<_, _>>()?;
    stage.act("all is settled");
    Ok(Played {
        acts: std::mem::take(&mut stage.acts),
        first,
        again,
        forged,
        invoice,
        created,
        shipped,
        pending_at_kill,
        settled,
        dead,
        replayed,
        attempts,
    })
}
