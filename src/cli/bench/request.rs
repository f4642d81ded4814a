//! The requests: their bytes are made once, and stamped for each sending.

use std::sync::{Mutex, PoisonError};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::destination::Destination;
use crate::core::secret::Secret;
use crate::env::{Clock as _, RealClock};

/// The type that no endpoint takes.
pub const TYPE_WITHOUT_TAKER: &str = "nobody.asked";

/// The type that the sink takes.
pub const TYPE_FOR_SINK: &str = "bench.made";

/// Bytes that a body has at least, for what stands around its filling.
pub const BODY_BYTES_MIN: usize = 128;

/// What tells one load from another: 16 hexadecimal digits.
pub type Tag = [u8; TAG_BYTES];

const TAG_BYTES: usize = 16;

/// Digits of a planned time in microseconds, which are enough for eleven days; and of a number.
const DIGITS: usize = 12;

/// Digits of a unix time until the year 2286.
const UNIX_DIGITS: usize = 10;

/// How a payload that is delivered begins; tag, number and planned time follow.
const MARK: &str = r#"{"run":""#;

/// What stands between tag and number.
const MARK_NUMBER: &str = r#"","n":""#;

/// What stands between number and time.
const MARK_TIME: &str = r#"","at":""#;

/// What tells a payload from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which load it is of.
    pub tag: Tag,
    /// Which request of it, counted from 0.
    pub number: u64,
    /// When that was planned.
    pub at_us: u64,
}

/// Requests of one load.
pub struct Requests {
    template: Vec<u8>,
    /// Where the digits are that change each time.
    digits_at: usize,
    signer: Option<Signer>,
}

/// Signs as Stripe does. What comes before the number in the body is hashed once a second only, so that a signature costs
/// the generator next to nothing.
struct Signer {
    key: Hmac<Sha256>,
    clock: RealClock,
    body_at: usize,
    time_at: usize,
    signature_at: usize,
    hashed: Mutex<Option<(i64, Hmac<Sha256>)>>,
}

impl Requests {
    /// Publishes events with a [`Mark`] in their payloads. The whole body, of `bytes` (at least [`BODY_BYTES_MIN`]), counts
    /// as the event, as it does for a bare server.
    pub fn published(to: &Destination, event_type: &str, tag: &Tag, bytes: usize) -> Self {
        let (tag, zeros) = (String::from_utf8_lossy(tag), "0".repeat(DIGITS));
        let start = format!(r#"{{"eventType":"{event_type}","payload":{MARK}{tag}{MARK_NUMBER}"#);
        let body = filled(&format!(r#"{start}{zeros}{MARK_TIME}{zeros}","data":""#), "\"}}", bytes);
        let bearer = to.token.as_ref().map(|token| format!("Bearer {}", token.expose()));
        let fields: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        let template = post(to, &fields, &body);
        let digits_at = template.len() - body.len() + start.len();
        Self { template, digits_at, signer: None }
    }

    /// Webhooks as Stripe sends them, each with an id of its own, and signed.
    pub fn signed(to: &Destination, secret: &Secret, tag: &Tag, bytes: usize) -> Self {
        let (tag, zeros) = (String::from_utf8_lossy(tag), "0".repeat(DIGITS));
        let end = format!(r#"","id":"evt_{tag}{zeros}"}}"#);
        let body = filled(r#"{"object":"event","type":"invoice.paid","data":""#, &end, bytes);
        let before = (format!("t={}", "0".repeat(UNIX_DIGITS)), ",v1=", "0".repeat(2 * 32));
        let header = [before.0.as_str(), before.1, &before.2].concat();
        let template = post(to, &[("stripe-signature", &header)], &body);
        let body_at = template.len() - body.len();
        let signature_at = body_at - "\r\n\r\n".len() - before.2.len();
        let time_at = signature_at - before.1.len() - UNIX_DIGITS;
        let key = Hmac::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
        let signer = Signer { key, clock: RealClock::new(), body_at, time_at, signature_at, hashed: Mutex::new(None) };
        Self { digits_at: template.len() - DIGITS - "\"}".len(), template, signer: Some(signer) }
    }

    /// Makes `buffer`, which is empty or holds another request of these, the `n`-th request, planned at `at_us`.
    pub fn write(&self, n: u64, at_us: u64, buffer: &mut Vec<u8>) {
        if buffer.is_empty() {
            buffer.extend_from_slice(&self.template);
        }
        write_digits(n, &mut buffer[self.digits_at..][..DIGITS]);
        match &self.signer {
            None => write_digits(at_us, &mut buffer[self.digits_at + DIGITS + MARK_TIME.len()..][..DIGITS]),
            Some(signer) => signer.sign(self.digits_at, buffer),
        }
    }
}

impl Signer {
    fn sign(&self, changes_at: usize, request: &mut [u8]) {
        let unix_s = self.clock.wall_s();
        write_digits(unix_s.unsigned_abs(), &mut request[self.time_at..][..UNIX_DIGITS]);
        let mut mac = {
            let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
            if hashed.as_ref().is_none_or(|(at_s, _)| *at_s != unix_s) {
                let mut mac = self.key.clone();
                mac.update(&request[self.time_at..][..UNIX_DIGITS]);
                mac.update(b".");
                mac.update(&request[self.body_at..changes_at]);
                *hashed = Some((unix_s, mac));
            }
            hashed.as_ref().map_or_else(|| self.key.clone(), |(_, mac)| mac.clone())
        };
        mac.update(&request[changes_at..]);
        HEXLOWER.encode_mut(&mac.finalize().into_bytes(), &mut request[self.signature_at..][..64]);
    }
}

impl Mark {
    /// That of a delivered payload; `None` for what is not of a benchmark.
    pub fn of(payload: &[u8]) -> Option<Self> {
        let (tag, rest) = payload.strip_prefix(MARK.as_bytes())?.split_first_chunk::<TAG_BYTES>()?;
        let (number, rest) = rest.strip_prefix(MARK_NUMBER.as_bytes())?.split_at_checked(DIGITS)?;
        let at_us = rest.strip_prefix(MARK_TIME.as_bytes())?.get(..DIGITS)?;
        let parsed = |digits| std::str::from_utf8(digits).ok()?.parse().ok();
        Some(Self { tag: *tag, number: parsed(number)?, at_us: parsed(at_us)? })
    }
}

/// The tag of a load that is told from others by this number.
pub fn tag(number: u64) -> Tag {
    let mut tag = Tag::default();
    HEXLOWER.encode_mut(&number.to_be_bytes(), &mut tag);
    tag
}

/// The last digits of a number, with leading zeros.
fn write_digits(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn filled(start: &str, end: &str, bytes: usize) -> Vec<u8> {
    let filling = "x".repeat(bytes.saturating_sub(start.len() + end.len()));
    [start, &filling, end].concat().into_bytes()
}

fn post(to: &Destination, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("POST {} HTTP/1.1\r\nhost: {}\r\n", to.path, to.authority);
    head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::headers::Headers;
    use crate::core::signature::{Request, provider};

    /// Bytes of a payload up to the end of its mark.
    const MARK_BYTES: usize = MARK.len() + TAG_BYTES + MARK_NUMBER.len() + DIGITS + MARK_TIME.len() + DIGITS;

    fn to(path: &str) -> Destination {
        Destination { authority: "127.0.0.1:1".to_owned(), path: path.to_owned(), token: Some(Secret::new("t0ken")) }
    }

    fn split(request: &[u8]) -> (&str, &[u8]) {
        let at = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (std::str::from_utf8(&request[..at]).unwrap(), &request[at + 4..])
    }

    #[test]
    fn what_is_published_can_be_told_when_it_is_delivered() {
        let requests = Requests::published(&to("/p"), TYPE_FOR_SINK, &tag(7), 300);
        let mut buffer = Vec::new();
        for (number, at_us) in [(0, 5), (7_654_321, 123_456_789)] {
            requests.write(number, at_us, &mut buffer);
            let (head, body) = split(&buffer);
            assert!(head.starts_with("POST /p HTTP/1.1\r\n") && head.contains("Bearer t0ken"), "{head}");
            assert_eq!(body.len(), 300);
            let value: serde_json::Value = serde_json::from_slice(body).unwrap();
            assert_eq!(value["eventType"], TYPE_FOR_SINK);
            // The gateway delivers the payload's bytes as they were sent.
            let payload = &body[body.windows(10).position(|w| w == b"\"payload\":").unwrap() + 10..body.len() - 1];
            assert_eq!(Mark::of(payload), Some(Mark { tag: tag(7), number, at_us }));
            (0..MARK_BYTES).for_each(|bytes| assert_eq!(Mark::of(&payload[..bytes]), None));
        }
        assert_eq!(Mark::of(b"{}"), None);
    }

    #[test]
    fn a_body_of_the_least_bytes_has_room_for_what_stands_in_it() {
        for requests in [
            Requests::published(&to("/"), TYPE_WITHOUT_TAKER, &tag(1), BODY_BYTES_MIN),
            Requests::signed(&to("/"), &Secret::new("s"), &tag(1), BODY_BYTES_MIN),
        ] {
            let mut buffer = Vec::new();
            requests.write(1, 1, &mut buffer);
            assert_eq!(split(&buffer).1.len(), BODY_BYTES_MIN);
        }
    }

    #[test]
    fn webhooks_verify_as_those_of_stripe_and_differ() {
        let secret = Secret::new("whsec_bench");
        let requests = Requests::signed(&to("/in/stripe"), &secret, &tag(9), 1_024);
        let (mut buffer, mut ids) = (Vec::new(), Vec::new());
        for n in 0..3 {
            requests.write(n, 0, &mut buffer);
            let (head, body) = split(&buffer);
            let signature = head.lines().find_map(|line| line.strip_prefix("stripe-signature: ")).unwrap();
            let headers: Headers = [("stripe-signature", signature.as_bytes())].into_iter().collect();
            let request = Request { method: "POST", url: "", headers: &headers, body };
            let stripe = provider("stripe").unwrap();
            assert!(stripe.verify(std::slice::from_ref(&secret), &request, RealClock::new().wall_s(), None).is_ok());
            ids.push(serde_json::from_slice::<serde_json::Value>(body).unwrap()["id"].to_string());
        }
        ids.dedup();
        assert_eq!(ids.len(), 3);
    }
}
