//! The events of a run: each is made once, from the run's seed, and may be sent more than once.

use postrider::core::headers::Headers;
use postrider::core::secret::Secret;
use postrider::core::signature::{Request, provider};
use postrider::env::{Entropy, SeededEntropy};

/// What the provider of every source signs with.
pub const PROVIDER_SECRET: &str = "whsec_what_the_providers_know";

/// Marks an event's number in its body.
const NUMBER: &str = "\"number\": ";

/// The number of bodies that must never arrive.
const IMPOSTOR: u64 = u64::MAX;

/// How an event comes in, and by what it is told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Received; the id is in the body.
    Stripe,
    /// Received; the id is in a header.
    GitHub,
    /// Published under an idempotency key.
    Keyed,
    /// Published with an id of the application's.
    Named,
    /// Published with both.
    KeyedAndNamed,
    /// Published with nothing that tells it from others.
    Plain,
    /// Published for the endpoint that takes nothing before the end of the run.
    Held,
    /// Published for the endpoint that never takes anything.
    Refused,
}

impl Kind {
    /// Whether it is known again when it comes again.
    pub fn has_key(self) -> bool {
        !matches!(self, Self::Plain | Self::Held | Self::Refused)
    }

    pub fn is_received(self) -> bool {
        matches!(self, Self::Stripe | Self::GitHub)
    }
}

/// One event.
#[derive(Debug)]
pub struct Event {
    pub kind: Kind,
    pub number: u64,
    /// The bytes that every endpoint must get.
    pub body: Vec<u8>,
}

/// A request to the gateway.
pub struct Sending {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Event {
    pub fn new(kind: Kind, number: u64, random: &SeededEntropy) -> Self {
        // Most are small; a few are so large that a segment holds only some.
        let bytes = match random.next_u64() % 100 {
            // These are carried from segment to segment.
            roll if kind == Kind::Held => roll,
            0..4 => 20_000 + random.next_u64() % 150_000,
            4..30 => 2_000 + random.next_u64() % 6_000,
            _ => random.next_u64() % 1_500,
        };
        Self { kind, number, body: body(number, bytes, random) }
    }

    /// What the provider or the application calls it.
    pub fn key(&self) -> String {
        format!("evt_{}", self.number)
    }

    pub fn event_type(&self) -> &'static str {
        match self.kind {
            Kind::Stripe => "charge.succeeded",
            Kind::GitHub => "push",
            Kind::Held => "held.back",
            Kind::Refused => "refused.always",
            _ => "order.created",
        }
    }

    /// As it is sent, signed at `now_s` where it has to be.
    pub fn sending(&self, now_s: i64) -> Sending {
        self.sending_of(&self.body, now_s)
    }

    /// The same key over another body, which must not be taken for the event.
    pub fn impostor(&self, now_s: i64) -> Sending {
        let body = String::from_utf8_lossy(&self.body)
            .replace(&format!("{NUMBER}{}", self.number), &format!("{NUMBER}{IMPOSTOR}"));
        self.sending_of(body.as_bytes(), now_s)
    }

    fn sending_of(&self, body: &[u8], now_s: i64) -> Sending {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        if self.kind.is_received() {
            let (source, mut headers) = match self.kind {
                Kind::GitHub => {
                    ("github", vec![field("x-github-event", "push"), field("x-github-delivery", &self.key())])
                }
                _ => ("stripe", Vec::new()),
            };
            let signed: Headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            let request = Request { method: "POST", url: "", headers: &signed, body };
            let scheme = provider(source).unwrap();
            headers.extend(scheme.sign(&Secret::new(PROVIDER_SECRET), &request, now_s).unwrap());
            headers.push(field("content-type", "application/json"));
            return Sending { path: format!("/in/{source}"), headers, body: body.to_vec() };
        }
        let mut headers = vec![field("content-type", "application/json")];
        if matches!(self.kind, Kind::Keyed | Kind::KeyedAndNamed) {
            headers.push(field("idempotency-key", &self.key()));
        }
        let named = matches!(self.kind, Kind::Named | Kind::KeyedAndNamed);
        let event_id = if named { format!("\"eventId\":\"{}\",", self.key()) } else { String::new() };
        let head = format!("{{\"eventType\":\"{}\",{event_id}\"payload\": ", self.event_type());
        let body = [head.as_bytes(), body, b"}"].concat();
        Sending { path: "/api/v1/app/default/msg".to_owned(), headers, body }
    }
}

/// JSON that no program would write twice the same way, so that whoever parses and prints it is found out.
fn body(number: u64, bytes: u64, random: &SeededEntropy) -> Vec<u8> {
    let mut text = format!(
        "{{\"id\": \"evt_{number}\",\t\"type\":\"charge.succeeded\", {NUMBER}{number} , \"n\":[1e2,-0.0,\"\\u00e9é\"], \"pad\":\""
    );
    for _ in 0..bytes / 16 {
        text.push_str(&format!("{:016x}", random.next_u64()));
    }
    text.push_str("\" }");
    text.into_bytes()
}

/// The number of the event that this is the body of; an impostor's is none that was made.
pub fn number_of(body: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    let (_, rest) = text.split_once(NUMBER)?;
    rest.split(' ').next()?.parse().ok()
}
