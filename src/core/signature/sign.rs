//! Signs a request as its provider would: for `postrider sign`, the demo and the tests.
//!
//! Invariant: what is signed here verifies, at the same time and with the same secret, by [`Scheme::verify`].

use super::mac::KeyError;
use super::reject::Reject;
use super::scheme::{HmacScheme, Request, Scheme, SignatureFormat};
use super::timestamp::{TimestampAt, TimestampFrom};
use super::{FIELD_BYTES_MAX, SECRETS_MAX};
use crate::core::headers::HowMany;
use crate::core::secret::Secret;
use std::borrow::Cow;

/// Why a request was not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// No secret was given.
    #[error("there is no secret to sign with")]
    NoSecret,
    /// More secrets than a receiver would try.
    #[error("there are {count} secrets to sign with; at most {SECRETS_MAX} are allowed")]
    TooManySecrets {
        /// How many there are.
        count: usize,
    },
    /// The secret is empty or not in the encoding that the scheme wants.
    #[error("the secret can't be used to sign")]
    Secret(#[from] KeyError),
    /// The secret is longer than any key needs to be.
    #[error("the secret's key is longer than {max_bytes} bytes")]
    SecretTooLong {
        /// The longest allowed, in bytes.
        max_bytes: usize,
    },
    /// The request lacks something that the signature covers.
    #[error("the request lacks something that its signature covers")]
    Request(#[from] Reject),
    /// The clock is where the scheme can't write it.
    #[error("the time {now_s} s can't be written as the scheme's timestamp; check the clock")]
    Time {
        /// Seconds since the Unix epoch.
        now_s: i64,
    },
    /// The event id can't be sent.
    #[error(
        "the event id must be 1 to {FIELD_BYTES_MAX} visible ASCII characters (and no full stop for Standard Webhooks)"
    )]
    Id,
}

impl Scheme {
    /// Signs `req` and returns the headers to add to it.
    ///
    /// What the scheme reads from other headers (such as `webhook-id`) must be in `req` already. A timestamp that is
    /// in `req` is kept and signed; else one for `now_s` (seconds since the Unix epoch) is returned with the rest.
    ///
    /// # Errors
    /// [`SignError`] when the secret is unusable, something that is signed is missing, or `now_s` is before 1970.
    pub fn sign(&self, secret: &Secret, req: &Request<'_>, now_s: i64) -> Result<Vec<(String, String)>, SignError> {
        self.hmac.sign(secret, req, now_s)
    }
}

impl HmacScheme {
    /// See [`Scheme::sign`].
    ///
    /// # Errors
    /// [`SignError`], as there.
    pub fn sign(&self, secret: &Secret, req: &Request<'_>, now_s: i64) -> Result<Vec<(String, String)>, SignError> {
        let key = self.key.key(secret)?;
        let mut headers = self.missing_required_headers(req)?;
        let ts = match &self.timestamp {
            None => String::new(),
            Some(at) => self.timestamp_text(at, req, now_s, &mut headers)?,
        };
        let pieces = self.message.pieces(req, ts.as_bytes())?;
        let tag = self.encoding.encode(&self.mac(&key, &pieces).finish());
        headers.push((self.signature.header.clone(), self.signature_text(&ts, &tag)));
        Ok(headers)
    }

    /// The fixed headers of the scheme that `req` has not got yet.
    fn missing_required_headers(&self, req: &Request<'_>) -> Result<Vec<(String, String)>, SignError> {
        let mut missing = Vec::new();
        for (name, value) in &self.require_headers {
            match req.headers.one(name) {
                Ok(_) => {}
                Err(HowMany::Missing) => missing.push((name.clone(), value.clone())),
                Err(repeated) => return Err(Reject::header(name, repeated).into()),
            }
        }
        Ok(missing)
    }

    /// The time to sign: what `req` holds, else `now_s`, for which a header is added where the scheme has one.
    fn timestamp_text(
        &self,
        at: &TimestampAt,
        req: &Request<'_>,
        now_s: i64,
        headers: &mut Vec<(String, String)>,
    ) -> Result<String, SignError> {
        let written = || at.format.write(now_s).ok_or(SignError::Time { now_s });
        match &at.from {
            TimestampFrom::SigField(_) => written(),
            TimestampFrom::Header(name) if req.headers.one(name) == Err(HowMany::Missing) => {
                let text = written()?;
                headers.push((name.clone(), text.clone()));
                Ok(text)
            }
            TimestampFrom::Header(_) | TimestampFrom::Body(_) => {
                let text: Cow<'_, [u8]> = at.text(req, None)?;
                // An infinite tolerance: whether the time is near is for the receiver to judge, its form is not.
                at.check(&text, now_s, Some(u64::MAX))?;
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
        }
    }

    /// The value of the signature header.
    fn signature_text(&self, ts: &str, tag: &str) -> String {
        match &self.signature.format {
            SignatureFormat::Whole => tag.to_owned(),
            SignatureFormat::Prefix(prefix) => format!("{prefix}{tag}"),
            SignatureFormat::List { field, item_sep, kv_sep, .. } => {
                let signature = format!("{field}{kv_sep}{tag}");
                match self.timestamp.as_ref().map(|at| &at.from) {
                    Some(TimestampFrom::SigField(name)) => {
                        format!("{name}{kv_sep}{ts}{item_sep}{signature}")
                    }
                    _ => signature,
                }
            }
        }
    }
}
