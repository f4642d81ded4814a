//! Those who send: providers and an application, on several connections, who send again what was not answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use postrider::env::{Entropy, SeededEntropy};

use super::event::{Event, Kind};
use super::ledger::Ledger;
use super::support::client::{Answer, Client};

/// Connections that send at once.
const SENDERS: u64 = 24;

/// Events that are held back. More, and they would fill a quarter of a segment, which then is not dropped.
const HELD_MAX: usize = 20;

/// Where the load goes.
#[derive(Clone)]
pub struct Target {
    pub ingress: SocketAddr,
    pub management: SocketAddr,
    pub token: String,
}

/// What a sending is about.
#[derive(Clone, Copy, PartialEq)]
enum Intent {
    New,
    /// The same again; whether it was acknowledged before.
    Again(bool),
    /// Another body under a key that was acknowledged.
    Impostor,
}

impl Intent {
    /// The intent of sending the same once more, after no answer.
    fn again(self) -> Self {
        if self == Self::New { Self::Again(false) } else { self }
    }
}

/// Starts the senders; they end when the ledger says so.
pub fn start(ledger: &Arc<Ledger>, target: &Target, seed: u64) -> Vec<JoinHandle<()>> {
    let sender = |nth| {
        let mut sender = Sender {
            ledger: Arc::clone(ledger),
            ingress: Client::new(target.ingress),
            management: Client::with_token(target.management, &target.token),
            random: SeededEntropy::new(seed.wrapping_add(nth)),
        };
        std::thread::spawn(move || sender.run())
    };
    (0..SENDERS).map(sender).collect()
}

struct Sender {
    ledger: Arc<Ledger>,
    ingress: Client,
    management: Client,
    random: SeededEntropy,
}

impl Sender {
    fn run(&mut self) {
        let mut unanswered = None;
        while self.ledger.may_go_on() {
            let (event, intent) = unanswered.take().unwrap_or_else(|| self.pick());
            match self.send(&event, intent) {
                Ok(true) => {}
                // What has no key is not sent again: nobody could tell.
                Ok(false) => unanswered = event.kind.has_key().then_some((event, intent.again())),
                Err(_) => {
                    self.ledger.book().figures.broken += 1;
                    unanswered = event.kind.has_key().then_some((event, intent.again()));
                    // It does not listen yet; asking without a pause would only heat the room.
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    fn pick(&self) -> (Arc<Event>, Intent) {
        let roll = self.random.next_u64() % 1_000;
        if roll < 250
            && let Some((event, acknowledged)) = self.ledger.repeat(self.random.next_u64())
        {
            // An eventId is claimed without regard to the body, so there is no such thing as another one.
            let can_be_posed_as = acknowledged && event.kind != Kind::Named;
            let intent = if can_be_posed_as && roll < 30 { Intent::Impostor } else { Intent::Again(acknowledged) };
            return (event, intent);
        }
        let kind = match self.random.next_u64() % 1_000 {
            0..300 => Kind::Stripe,
            300..550 => Kind::GitHub,
            550..700 => Kind::Keyed,
            700..800 => Kind::Named,
            800..880 => Kind::KeyedAndNamed,
            880..970 => Kind::Plain,
            970..980 if self.ledger.holds_less_than(HELD_MAX) => Kind::Held,
            _ => Kind::Refused,
        };
        (self.ledger.make(|number| Event::new(kind, number, &self.random)), Intent::New)
    }

    /// Sends once; false when the gateway said that it can't take it now.
    fn send(&mut self, event: &Event, intent: Intent) -> io::Result<bool> {
        let now_s = self.ledger.now_s();
        let sending = if intent == Intent::Impostor { event.impostor(now_s) } else { event.sending(now_s) };
        self.ledger.book().figures.sent += 1;
        let client = if event.kind.is_received() { &mut self.ingress } else { &mut self.management };
        let answer = client.ask("POST", &sending.path, &sending.headers, &sending.body)?;
        if answer.status == 503 {
            let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
            *self.ledger.book().figures.refused.entry(code).or_default() += 1;
            std::thread::sleep(Duration::from_millis(5));
            return Ok(false);
        }
        match judge(event, intent, &answer) {
            Ok(Verdict { id, told }) => {
                {
                    let figures = &mut self.ledger.book().figures;
                    figures.duplicates_told += u64::from(told == Told::Duplicate);
                    figures.conflicts_told += u64::from(told == Told::Conflict);
                }
                self.ledger.acknowledged(event.number, &id);
            }
            Err(what) => self.ledger.wrong(what),
        }
        Ok(true)
    }
}

#[derive(PartialEq)]
enum Told {
    New,
    Duplicate,
    Conflict,
}

/// What an answer says.
struct Verdict {
    /// The event's id: the gateway has the event.
    id: String,
    told: Told,
}

/// Reads an answer, or says what is wrong with it.
fn judge(event: &Event, intent: Intent, answer: &Answer) -> Result<Verdict, String> {
    let json = answer.json();
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    let known_before = matches!(intent, Intent::Again(true) | Intent::Impostor);
    let wrong = || format!("event {} ({:?}): unexpected {} {json}", event.number, event.kind, answer.status);
    let (id, told) = match (answer.status, text("code").as_str()) {
        (200, _) if event.kind.is_received() => {
            let duplicate = json["duplicate"] == true;
            if known_before && !duplicate {
                return Err(wrong());
            }
            (text("id"), if duplicate { Told::Duplicate } else { Told::New })
        }
        // A publication that is known by its eventId alone is a conflict, and so is an impostor.
        (202, _) if !event.kind.is_received() && intent != Intent::Impostor => {
            if intent == Intent::Again(true) && event.kind == Kind::Named {
                return Err(wrong());
            }
            (text("id"), if known_before { Told::Duplicate } else { Told::New })
        }
        (409, "idempotency_conflict") if intent == Intent::Impostor => (id_in(&text("detail")), Told::Conflict),
        // Also the first to make it may be told so: another sender was quicker to send it again.
        (409, "event_id_conflict") if event.kind == Kind::Named => (id_in(&text("detail")), Told::Conflict),
        _ => return Err(wrong()),
    };
    if id.starts_with("msg_") { Ok(Verdict { id, told }) } else { Err(wrong()) }
}

/// The id that an error's text names; nothing when it names none.
fn id_in(text: &str) -> String {
    let rest = text.find("msg_").map_or("", |at| &text[at..]);
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}
