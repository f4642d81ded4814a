//! The endpoints of a run, one server for all: one takes everything, one fails at random, one is slow, one holds back until
//! it is told, one never takes anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::core::headers::Headers;
use postrider::core::secret::Secret;
use postrider::core::signature::{self, provider};
use postrider::env::{Entropy, SeededEntropy};

use super::event::{PROVIDER_SECRET, number_of};
use super::ledger::{ENDPOINTS, Ledger};
use super::support::receiver::{Reply, Request, serve};

/// What every endpoint's deliveries are signed with.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The endpoints.
pub struct Endpoints {
    pub address: SocketAddr,
    released: Arc<AtomicBool>,
}

impl Endpoints {
    pub fn start(ledger: &Arc<Ledger>, seed: u64) -> Self {
        let released = Arc::new(AtomicBool::new(false));
        let (ledger, may_take, random) = (Arc::clone(ledger), Arc::clone(&released), SeededEntropy::new(seed));
        let address = serve(move |request| {
            let endpoint = ENDPOINTS.iter().position(|name| request.path == format!("/{name}")).unwrap();
            let reply = answer(ENDPOINTS[endpoint], may_take.load(Ordering::SeqCst), &random);
            check_signatures(&ledger, &request);
            let takes = matches!(reply, Reply::Status(200..300));
            let (id, number) = (request.header("webhook-id"), number_of(&request.body));
            ledger.arrived(endpoint, number, id, &request.body, takes);
            reply
        });
        Self { address, released }
    }

    /// From now on the endpoint that held back takes what comes.
    pub fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }
}

fn answer(endpoint: &str, released: bool, random: &SeededEntropy) -> Reply {
    match endpoint {
        "flaky" if random.next_u64().is_multiple_of(4) => {
            [Reply::Status(500), Reply::Status(503), Reply::Status(429), Reply::Status(408), Reply::HangUp]
                [(random.next_u64() % 5) as usize]
        }
        "slow" => {
            // Not a wait for anything: this is how slow it is.
            std::thread::sleep(Duration::from_millis(2 + random.next_u64() % 20));
            Reply::Status(200)
        }
        "held" if !released => Reply::Status(503),
        "refusing" => Reply::Status(400),
        _ => Reply::Status(200),
    }
}

/// The gateway's own signature, and that of the provider which passed through.
fn check_signatures(ledger: &Ledger, request: &Request) {
    let fields = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let headers: Headers = fields.collect();
    let has = |name: &str| request.headers.iter().any(|(n, _)| n == name);
    let mut schemes = vec![("standard_webhooks", SECRET)];
    schemes.extend(has("stripe-signature").then_some(("stripe", PROVIDER_SECRET)));
    schemes.extend(has("x-hub-signature-256").then_some(("github", PROVIDER_SECRET)));
    for (scheme, secret) in schemes {
        let signed = signature::Request { method: "POST", url: "", headers: &headers, body: &request.body };
        // A provider's signature is as old as its event, so that only the gateway's time is looked at.
        let tolerance_s = if scheme == "standard_webhooks" { 60 } else { 1_000_000 };
        let verdict =
            provider(scheme).unwrap().verify(&[Secret::new(secret)], &signed, ledger.now_s(), Some(tolerance_s));
        if let Err(reject) = verdict {
            ledger.wrong(format!(
                "{} arrived at {} and {scheme} says {reject}",
                request.header("webhook-id"),
                request.path
            ));
        }
    }
}
