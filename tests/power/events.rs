//! The events of the recorded lives. Each is made from its key alone, whose first word is its kind: how it comes in, and which
//! endpoint takes it.

use std::io;

use postrider::core::headers::Headers;
use postrider::core::secret::Secret;
use postrider::core::signature::{Request, provider};
use postrider::env::{Clock, Entropy, RealClock, SeededEntropy};

use super::support::client::{Answer, Client};
use super::support::gateway::Site;

/// Endpoints, each with the types of published events and the source that it takes: one takes everything that comes, one
/// never takes anything, one holds back for longer than any life here.
pub const ENDPOINTS: [(&str, &str, Option<&str>); 3] =
    [("steady", "order.*", Some("stripe")), ("refusing", "refused.*", None), ("held", "held.*", Some("github"))];

/// Providers, each with a source of its name.
pub const SOURCES: [&str; 2] = ["stripe", "github"];

/// What all providers sign with.
pub const PROVIDER_SECRET: &str = "what_the_providers_know";

/// The kind of an event.
fn kind_of(key: &str) -> &str {
    key.split_once('-').unwrap().0
}

/// The source that an event comes in by, unless it is published.
pub fn source_of(key: &str) -> Option<&'static str> {
    SOURCES.into_iter().find(|source| *source == kind_of(key))
}

/// The endpoint that an event is for.
pub fn taker_of(key: &str) -> &'static str {
    match kind_of(key) {
        "refused" => "refusing",
        "held" | "github" => "held",
        _ => "steady",
    }
}

/// The payload that goes under a key: its own, and of its own length. Stripe's event id is in it.
pub fn payload_of(key: &str) -> String {
    let random = SeededEntropy::new(u64::from(crc32c::crc32c(key.as_bytes())));
    let blocks = match random.next_u64() % 5 {
        _ if key.contains("-large-") => 400,
        0 => random.next_u64() % 350,
        _ => random.next_u64() % 40,
    };
    let pad: String = (0..blocks + 4).map(|_| format!("{:016x}", random.next_u64())).collect();
    format!("{{\"key\": \"{key}\", \"id\": \"{key}\", \"pad\": \"{pad}\"}}")
}

/// Connections to a gateway's two listeners.
pub struct Clients {
    api: Client,
    ingress: Client,
}

impl Clients {
    pub fn new(site: &Site) -> Self {
        Self { api: Client::with_token(site.management, &site.token()), ingress: Client::new(site.ingress) }
    }

    /// Sends the event of a key, as its provider or as the application does. Its id if it was taken, nothing if it may be sent
    /// again.
    pub fn send(&mut self, key: &str) -> io::Result<Option<String>> {
        let answer = match source_of(key) {
            Some(source) => self.receive(source, key)?,
            None => self.publish(key)?,
        };
        match answer.status {
            200 | 202 => Ok(Some(answer.json()["id"].as_str().unwrap().to_owned())),
            503 => Ok(None),
            status => panic!("{key}: {status}: {}", answer.json()),
        }
    }

    fn publish(&mut self, key: &str) -> io::Result<Answer> {
        let event_type = match kind_of(key) {
            "held" => "held.back",
            "refused" => "refused.always",
            _ => "order.created",
        };
        let headers = [("content-type", "application/json"), ("idempotency-key", key)].map(owned);
        let body = format!("{{\"eventType\":\"{event_type}\",\"payload\":{}}}", payload_of(key));
        self.api.ask("POST", "/api/v1/app/default/msg", &headers, body.as_bytes())
    }

    /// Signed anew each time, as providers do.
    fn receive(&mut self, source: &str, key: &str) -> io::Result<Answer> {
        let mut headers = match source {
            "github" => vec![owned(("x-github-event", "push")), owned(("x-github-delivery", key))],
            _ => Vec::new(),
        };
        let body = payload_of(key);
        let signed: Headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let request = Request { method: "POST", url: "", headers: &signed, body: body.as_bytes() };
        let signature =
            provider(source).unwrap().sign(&Secret::new(PROVIDER_SECRET), &request, RealClock::new().wall_s());
        headers.extend(signature.unwrap());
        self.ingress.ask("POST", &format!("/in/{source}"), &headers, body.as_bytes())
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}
