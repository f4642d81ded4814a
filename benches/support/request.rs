//! The requests: the same one each time, or one that changes where it must.

use std::net::SocketAddr;

use postrider::core::secret::Secret;
use postrider::core::signature::Profile;

use super::load::Requests;
use super::{BODY_BYTES, Error};

/// The name of the inbound source.
pub const SOURCE: &str = "stripe";

/// Its secret.
pub const SECRET: &str = "whsec_bench_bench_bench_bench_bench";

/// The type that no endpoint takes.
pub const TYPE_WITHOUT_TAKER: &str = "nobody.asked";

/// The type that the sink takes.
pub const TYPE_FOR_SINK: &str = "bench.made";

/// The same request each time, so many times.
pub struct Same {
    request: Vec<u8>,
    count: u64,
}

impl Requests for Same {
    fn write(&self, n: u64, buffer: &mut Vec<u8>) -> bool {
        if buffer.is_empty() {
            buffer.extend_from_slice(&self.request);
        }
        n < self.count
    }
}

impl Same {
    /// For the bare server: a body of which nothing is made.
    pub fn bare(address: SocketAddr) -> Self {
        Self { request: post("/", address, &[], &published(TYPE_WITHOUT_TAKER)), count: u64::MAX }
    }

    /// Publishes an event of this type `count` times.
    pub fn publish(address: SocketAddr, token: &str, event_type: &str, count: u64) -> Self {
        let bearer = format!("Bearer {token}");
        let fields = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        Self { request: post("/api/v1/app/default/msg", address, &fields, &published(event_type)), count }
    }
}

/// Webhooks as Stripe sends them: each with an id of its own, and signed. The signatures are made in advance.
pub struct Signed {
    template: Vec<u8>,
    id_at: usize,
    signature_at: usize,
    /// 64 hexadecimal digits for each request.
    signatures: Vec<u8>,
}

/// Digits that number the events.
const ID_DIGITS: usize = 12;

impl Signed {
    /// `count` different webhooks, signed for `unix_s`.
    ///
    /// # Errors
    /// When the library signs in another way than this expects.
    pub fn new(address: SocketAddr, unix_s: i64, count: u64) -> Result<Self, Error> {
        let secrets = [Secret::new(SECRET)];
        let mut body = Self::body();
        let in_body = id_place(&body)?;
        let (mut signatures, mut header) = (Vec::with_capacity(64 * count as usize), String::new());
        for n in 0..count {
            body[in_body..][..ID_DIGITS].copy_from_slice(format!("{n:0ID_DIGITS$}").as_bytes());
            let signed = Profile::Stripe.headers(&secrets, "bench", unix_s, &body)?;
            let found = signed.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("stripe-signature"));
            header = found.ok_or("expected a stripe-signature")?.1;
            let (_, hex) = header.split_once("v1=").filter(|(_, hex)| hex.len() == 64).ok_or("expected v1=HEX")?;
            signatures.extend_from_slice(hex.as_bytes());
        }
        let path = format!("/in/{SOURCE}");
        let fields = [("content-type", "application/json"), ("stripe-signature", header.as_str())];
        let template = post(&path, address, &fields, &body);
        let signature_at = position(&template, b"v1=")? + 3;
        let id_at = template.len() - body.len() + in_body;
        Ok(Self { template, id_at, signature_at, signatures })
    }

    fn body() -> Vec<u8> {
        let zeros = "0".repeat(ID_DIGITS);
        let start = format!(r#"{{"id":"evt_{zeros}","object":"event","type":"invoice.paid","data":""#);
        filled(&start, "\"}")
    }
}

impl Requests for Signed {
    fn write(&self, n: u64, buffer: &mut Vec<u8>) -> bool {
        let Some(signature) = self.signatures.chunks_exact(64).nth(n as usize) else { return false };
        if buffer.is_empty() {
            buffer.extend_from_slice(&self.template);
        }
        buffer[self.signature_at..][..64].copy_from_slice(signature);
        let mut rest = n;
        for digit in buffer[self.id_at..][..ID_DIGITS].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        true
    }
}

fn id_place(body: &[u8]) -> Result<usize, Error> {
    Ok(position(body, b"evt_")? + 4)
}

fn position(within: &[u8], what: &[u8]) -> Result<usize, Error> {
    let found = within.windows(what.len()).position(|window| window == what);
    found.ok_or_else(|| format!("expected {:?} in a request", String::from_utf8_lossy(what)).into())
}

/// What an application publishes. The whole body counts as the event, as it does for the bare server.
fn published(event_type: &str) -> Vec<u8> {
    filled(&format!(r#"{{"eventType":"{event_type}","payload":{{"data":""#), "\"}}")
}

fn filled(start: &str, end: &str) -> Vec<u8> {
    let filling = "x".repeat(BODY_BYTES - start.len() - end.len());
    [start, &filling, end].concat().into_bytes()
}

fn post(path: &str, address: SocketAddr, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}
