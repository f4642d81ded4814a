//! Checks a request against a scheme and the secrets of a source.
//!
//! Invariants: no secret, or an unusable one, verifies nothing; every header that takes part must be there exactly
//! once; the cheap checks (form, time) come before the body is hashed. At most [`SECRETS_MAX`] MACs are computed
//! and each is compared with at most [`SIGNATURES_MAX`] signatures.

use super::mac::Mac;
use super::reject::{Malformed, Reject};
use super::scheme::{AlsoMode, HmacScheme, Request, Scheme, SignatureFormat};
use super::timestamp::TimestampFrom;
use super::{SECRETS_MAX, SIGNATURE_HEADER_BYTES_MAX, SIGNATURES_MAX};
use crate::core::headers::HowMany;
use crate::core::secret::Secret;
use std::borrow::Cow;

impl Scheme {
    /// Verifies `req` at the time `now_s` (seconds since the Unix epoch) against any of `secrets`.
    ///
    /// `tolerance_s` overrides the scheme's own tolerance, in seconds, when given.
    ///
    /// # Errors
    /// [`Reject`]: the request must not be accepted.
    pub fn verify(
        &self,
        secrets: &[Secret],
        req: &Request<'_>,
        now_s: i64,
        tolerance_s: Option<u64>,
    ) -> Result<(), Reject> {
        self.hmac.verify(secrets, req, now_s, tolerance_s)
    }
}

/// What a request carries to be verified with.
#[derive(Default)]
struct Received<'a> {
    tags: Vec<Vec<u8>>,
    /// The element of the list that holds the time, where the scheme puts it there.
    ts: Option<&'a [u8]>,
}

impl HmacScheme {
    /// See [`Scheme::verify`].
    ///
    /// # Errors
    /// [`Reject`]: the request must not be accepted.
    pub fn verify(
        &self,
        secrets: &[Secret],
        req: &Request<'_>,
        now_s: i64,
        tolerance_s: Option<u64>,
    ) -> Result<(), Reject> {
        let keys = self.keys(secrets)?;
        self.check_required_headers(req)?;
        let received = self.received(req)?;
        let mut ts = Cow::Borrowed(&b""[..]);
        if let Some(at) = &self.timestamp {
            ts = at.text(req, received.ts)?;
            at.check(&ts, now_s, tolerance_s)?;
        }
        let pieces = self.message.pieces(req, &ts)?;
        let matches = keys.iter().any(|key| {
            let mac = self.mac(key, &pieces);
            received.tags.iter().any(|tag| mac.verifies(tag))
        });
        if matches { Ok(()) } else { Err(Reject::SignatureMismatch) }
    }

    /// The MAC of a message given in pieces.
    pub(super) fn mac(&self, key: &[u8], pieces: &[Cow<'_, [u8]>]) -> Mac {
        let mut mac = Mac::new(self.algorithm, key);
        for piece in pieces {
            mac.update(piece);
        }
        mac
    }

    /// The keys of all secrets. One unusable secret fails the lot: a typo made while rotating would otherwise go
    /// unseen until the old secret is removed.
    fn keys(&self, secrets: &[Secret]) -> Result<Vec<Vec<u8>>, Reject> {
        match secrets.len() {
            0 => Err(Reject::NoSecret),
            count if count > SECRETS_MAX => Err(Reject::TooManySecrets { count }),
            _ => secrets.iter().map(|secret| self.key.key(secret).map_err(Reject::from)).collect(),
        }
    }

    /// Fixed headers, such as a version: a request of another version may mean something else by the same bytes.
    fn check_required_headers(&self, req: &Request<'_>) -> Result<(), Reject> {
        for (name, wanted) in &self.require_headers {
            let value = req.headers.one(name).map_err(|how_many| Reject::header(name, how_many))?;
            if value != wanted.as_bytes() {
                let why = "its value is not the one that the scheme requires";
                return Err(Reject::HeaderMalformed { name: name.clone(), why });
            }
        }
        Ok(())
    }

    /// Reads the signature header, or headers.
    fn received<'a>(&self, req: &Request<'a>) -> Result<Received<'a>, Reject> {
        let mut received = Received::default();
        let mut malformed = None;
        let mut present = false;
        for header in std::iter::once(&self.signature.header).chain(&self.signature.also) {
            let value = match req.headers.one(header) {
                Ok(value) => value,
                Err(HowMany::Missing) => continue,
                Err(HowMany::Repeated) => {
                    return Err(Reject::SignatureRepeated { header: header.clone() });
                }
            };
            present = true;
            let reject = |why| Reject::SignatureMalformed { header: header.clone(), why };
            match self.read_signatures(value, &mut received) {
                Ok(()) => {}
                Err(why @ Malformed::TooMany) => return Err(reject(why)),
                // One bad header beside a good one is no reason to refuse: it may hold another scheme's signature.
                Err(why) => malformed = malformed.or(Some(reject(why))),
            }
            if self.signature.also_mode == AlsoMode::Fallback {
                break;
            }
        }
        match malformed {
            _ if !present => Err(Reject::SignatureMissing { header: self.signature.header.clone() }),
            Some(reject) if received.tags.is_empty() => Err(reject),
            _ => Ok(received),
        }
    }

    /// Adds the signatures (and the time) that one header holds.
    fn read_signatures<'a>(&self, value: &'a [u8], received: &mut Received<'a>) -> Result<(), Malformed> {
        let text = printable(value)?;
        match &self.signature.format {
            SignatureFormat::Whole => self.add_tag(text, received),
            SignatureFormat::Prefix(prefix) => {
                self.add_tag(text.strip_prefix(prefix.as_str()).ok_or(Malformed::NoPrefix)?, received)
            }
            SignatureFormat::List { field, item_sep, kv_sep, trim } => {
                let blank = |text: &'a str| if *trim { text.trim_ascii() } else { text };
                let items = text.split(item_sep.as_str()).filter_map(|item| item.split_once(kv_sep.as_str()));
                let mut outcome = Err(Malformed::NoElement);
                for (name, value) in items.map(|(name, value)| (blank(name), blank(value))) {
                    if name == field {
                        // A list may mix what we can read with what we can't; one readable element is enough.
                        match self.add_tag(value, received) {
                            Err(Malformed::TooMany) => return Err(Malformed::TooMany),
                            Err(why) if outcome.is_err() => outcome = Err(why),
                            Err(_) => {}
                            Ok(()) => outcome = Ok(()),
                        }
                    } else if self.is_timestamp_field(name) {
                        received.ts.get_or_insert(value.as_bytes());
                    }
                }
                outcome
            }
        }
    }

    /// Decodes one signature. The number of them is bounded here, the length of each by that of the header.
    fn add_tag(&self, text: &str, received: &mut Received<'_>) -> Result<(), Malformed> {
        if received.tags.len() == SIGNATURES_MAX {
            return Err(Malformed::TooMany);
        }
        let tag = self.encoding.decode(text.as_bytes()).ok_or(Malformed::Encoding)?;
        if tag.len() != self.algorithm.tag_bytes() {
            return Err(Malformed::Length);
        }
        received.tags.push(tag);
        Ok(())
    }

    /// Whether a list's element of this name holds the time.
    fn is_timestamp_field(&self, name: &str) -> bool {
        matches!(self.timestamp.as_ref().map(|at| &at.from), Some(TimestampFrom::SigField(wanted)) if wanted == name)
    }
}

/// The value as text, if it is short and printable ASCII.
fn printable(value: &[u8]) -> Result<&str, Malformed> {
    if value.len() > SIGNATURE_HEADER_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    if !value.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(Malformed::NotAscii);
    }
    std::str::from_utf8(value).map_err(|_| Malformed::NotAscii)
}
