//! Signatures on what the gateway sends to endpoints.
//!
//! Invariants: the body's bytes are signed as they are sent; every attempt is signed afresh with its own time; each
//! signature verifies with the official SDK of the profile's name, or, for `x-webhook`, by the one line in
//! [`Profile::XWebhook`].

use super::mac::{Algorithm, Encoding, KeyDecoding, Mac};
use super::sign::SignError;
use super::{FIELD_BYTES_MAX, SECRETS_MAX};
use crate::core::secret::Secret;
use data_encoding::BASE64;

/// Longest key, in bytes. Standard Webhooks recommends 24 to 64; HMAC-SHA-256 gains nothing past 64.
const KEY_BYTES_MAX: usize = 512;

/// The headers an endpoint expects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature` of standardwebhooks.com: base64 HMAC-SHA-256 of
    /// `{id}.{unix_s}.{body}`, one `v1,` signature per secret.
    #[default]
    StandardWebhooks,
    /// `X-Webhook-ID`, `X-Webhook-Timestamp`, `X-Webhook-Signature`: lower-case hexadecimal HMAC-SHA-256 of
    /// `{unix_s}.{body}` with the secret's UTF-8 bytes as key. There is room for one signature, so only the first
    /// secret signs; the receiver must know it before it is put first.
    XWebhook,
    /// `Stripe-Signature: t=…,v1=…` for receivers written against Stripe's SDK, one `v1` per secret, and
    /// `X-Webhook-ID`.
    Stripe,
    /// `X-Hub-Signature-256: sha256=…` and `X-GitHub-Delivery` for receivers written for GitHub. As with
    /// `x-webhook`, only the first secret signs.
    GitHub,
}

impl Profile {
    /// The profile of that name in configuration.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "standard-webhooks" => Some(Self::StandardWebhooks),
            "x-webhook" => Some(Self::XWebhook),
            "stripe" => Some(Self::Stripe),
            "github" => Some(Self::GitHub),
            _ => None,
        }
    }

    /// The name that [`Profile::parse`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::StandardWebhooks => "standard-webhooks",
            Self::XWebhook => "x-webhook",
            Self::Stripe => "stripe",
            Self::GitHub => "github",
        }
    }

    /// The headers for one attempt at `unix_s` (seconds since the Unix epoch) to send the event `id`.
    ///
    /// # Errors
    /// [`SignError`] when there is no usable secret, `unix_s` is before 1970, or `id` can't be a header's value.
    /// A full stop in the id is refused for Standard Webhooks: it would blur where the id ends in what is signed.
    pub fn headers(
        self,
        secrets: &[Secret],
        id: &str,
        unix_s: i64,
        body: &[u8],
    ) -> Result<Vec<(&'static str, String)>, SignError> {
        check_id(id, self == Self::StandardWebhooks)?;
        if unix_s < 0 {
            return Err(SignError::Time { now_s: unix_s });
        }
        let keys = self.keys(secrets)?;
        let ts = unix_s.to_string();
        let dotted: [&[u8]; 3] = [ts.as_bytes(), b".", body];
        Ok(match self {
            Self::StandardWebhooks => {
                let message: [&[u8]; 5] = [id.as_bytes(), b".", ts.as_bytes(), b".", body];
                let each = |key: &Vec<u8>| format!("v1,{}", tag(Encoding::Base64, key, &message));
                let signatures: Vec<String> = keys.iter().map(each).collect();
                vec![
                    ("webhook-id", id.to_owned()),
                    ("webhook-timestamp", ts),
                    ("webhook-signature", signatures.join(" ")),
                ]
            }
            Self::XWebhook => {
                let signature = tag(Encoding::Hex, &keys[0], &dotted);
                vec![("X-Webhook-ID", id.to_owned()), ("X-Webhook-Timestamp", ts), ("X-Webhook-Signature", signature)]
            }
            Self::Stripe => {
                let each = |key: &Vec<u8>| format!(",v1={}", tag(Encoding::Hex, key, &dotted));
                let signatures: String = keys.iter().map(each).collect();
                vec![("X-Webhook-ID", id.to_owned()), ("Stripe-Signature", format!("t={ts}{signatures}"))]
            }
            Self::GitHub => {
                let signature = format!("sha256={}", tag(Encoding::Hex, &keys[0], &[body]));
                vec![("X-GitHub-Delivery", id.to_owned()), ("X-Hub-Signature-256", signature)]
            }
        })
    }

    /// Whether `secret` can sign in this profile, for configuration to ask before anything has to be sent.
    ///
    /// # Errors
    /// [`SignError`] when the secret is empty, too long, or not base64 where that is needed.
    pub fn validate_secret(self, secret: &Secret) -> Result<(), SignError> {
        self.key(secret).map(|_| ())
    }

    /// The keys that sign; at least one.
    fn keys(self, secrets: &[Secret]) -> Result<Vec<Vec<u8>>, SignError> {
        match secrets.len() {
            0 => Err(SignError::NoSecret),
            count if count > SECRETS_MAX => Err(SignError::TooManySecrets { count }),
            _ => secrets.iter().map(|secret| self.key(secret)).collect(),
        }
    }

    fn key(self, secret: &Secret) -> Result<Vec<u8>, SignError> {
        let decoding = match self {
            Self::StandardWebhooks => KeyDecoding::Base64 { strip_prefix: vec![SECRET_PREFIX.to_owned()] },
            Self::XWebhook | Self::Stripe | Self::GitHub => KeyDecoding::Utf8,
        };
        let key = decoding.key(secret)?;
        if key.len() > KEY_BYTES_MAX { Err(SignError::SecretTooLong { max_bytes: KEY_BYTES_MAX }) } else { Ok(key) }
    }
}

/// What a Standard Webhooks secret begins with.
const SECRET_PREFIX: &str = "whsec_";

/// A secret for any profile: `whsec_` and the base64 of `entropy`, which must come from a secure source.
pub fn generate_secret(entropy: [u8; 32]) -> String {
    format!("{SECRET_PREFIX}{}", BASE64.encode(&entropy))
}

/// Checks that an event id can be sent in a header, and signed without ambiguity.
fn check_id(id: &str, is_signed: bool) -> Result<(), SignError> {
    let is_sendable = (1..=FIELD_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    if is_sendable && !(is_signed && id.contains('.')) { Ok(()) } else { Err(SignError::Id) }
}

/// The encoded HMAC-SHA-256 of a message in pieces.
fn tag(encoding: Encoding, key: &[u8], message: &[&[u8]]) -> String {
    let mut mac = Mac::new(Algorithm::Sha256, key);
    for piece in message {
        mac.update(piece);
    }
    encoding.encode(&mac.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::headers::Headers;
    use crate::core::signature::{Request, provider};

    const ALL: [Profile; 4] = [Profile::StandardWebhooks, Profile::XWebhook, Profile::Stripe, Profile::GitHub];

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::new(*text)).collect()
    }

    /// standard-webhooks/libraries/python/tests/test_webhooks.py, `test_sign_function`.
    #[test]
    fn the_reference_libraries_sign_the_same() {
        let secrets = secrets(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = br#"{"test": 2432232314}"#;
        let headers = Profile::StandardWebhooks.headers(&secrets, id, 1_614_265_330, body).unwrap();
        let want = [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", "1614265330".to_owned()),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned()),
        ];
        assert_eq!(headers, want);
    }

    /// `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac s3cret`
    #[test]
    fn x_webhook_signs_time_and_body() {
        let headers =
            Profile::XWebhook.headers(&secrets(&["s3cret", "new"]), "evt_1", 1_700_000_000, br#"{"a":1}"#).unwrap();
        let want = [
            ("X-Webhook-ID", "evt_1".to_owned()),
            ("X-Webhook-Timestamp", "1700000000".to_owned()),
            ("X-Webhook-Signature", "1698a50bc74d1ff1db85c4e0a5297c2ad9fdba245d5737cdb789e4cc6e098940".to_owned()),
        ];
        assert_eq!(headers, want);
    }

    #[test]
    fn every_secret_verifies_where_there_is_room() {
        let secrets = secrets(&["whsec_AAAA", "BBBB"]);
        for (profile, id) in [(Profile::StandardWebhooks, "standard_webhooks"), (Profile::Stripe, "stripe")] {
            let headers: Headers = profile.headers(&secrets, "evt_1", 1000, b"{}").unwrap().into_iter().collect();
            let req = Request { method: "POST", url: "", headers: &headers, body: b"{}" };
            for secret in &secrets {
                let alone = std::slice::from_ref(secret);
                assert_eq!(provider(id).unwrap().verify(alone, &req, 1000, None), Ok(()), "{id}");
            }
        }
        let headers: Headers = Profile::GitHub.headers(&secrets, "evt_1", 1000, b"{}").unwrap().into_iter().collect();
        let req = Request { method: "POST", url: "", headers: &headers, body: b"{}" };
        let github = provider("github").unwrap();
        assert_eq!(github.verify(&secrets[..1], &req, 1000, None), Ok(()));
        assert!(github.verify(&secrets[1..], &req, 1000, None).is_err());
        assert_eq!(github.event_id(&req).as_deref(), Some("evt_1"));
    }

    #[test]
    fn names_are_read_back() {
        for profile in ALL {
            assert_eq!(Profile::parse(profile.name()), Some(profile));
        }
        assert_eq!(Profile::parse("Stripe"), None);
    }

    #[test]
    fn secrets_are_checked() {
        let check = |profile: Profile, text: &str| profile.validate_secret(&Secret::new(text));
        for profile in ALL {
            assert!(check(profile, "").is_err());
            assert_eq!(check(profile, &generate_secret([7; 32])), Ok(()));
            assert!(check(profile, &"A".repeat(1000)).is_err());
            assert_eq!(profile.headers(&[], "id", 0, b""), Err(SignError::NoSecret));
            let too_many = SignError::TooManySecrets { count: 17 };
            assert_eq!(profile.headers(&secrets(&["AAAA"; 17]), "id", 0, b""), Err(too_many));
        }
        for text in ["whsec_", "whsec_!", "no spaces", "not-url_safe"] {
            assert!(check(Profile::StandardWebhooks, text).is_err(), "{text}");
        }
        for text in ["whsec_QQ==", "whsec_QQ", "QQ"] {
            assert_eq!(check(Profile::StandardWebhooks, text), Ok(()), "{text}");
        }
        assert_eq!(generate_secret([0; 32]).len(), 6 + 44);
    }

    #[test]
    fn ids_and_times_must_be_sendable() {
        let secrets = secrets(&["AAAA"]);
        for profile in ALL {
            for id in ["", "a b", "a\r\nb", "é", &"x".repeat(513)] {
                assert_eq!(profile.headers(&secrets, id, 0, b""), Err(SignError::Id), "{id}");
            }
            assert_eq!(profile.headers(&secrets, "id", -1, b""), Err(SignError::Time { now_s: -1 }));
            assert_eq!(profile.headers(&secrets, "a.b", 0, b"").is_err(), profile == Profile::StandardWebhooks);
        }
    }
}
