//! HMAC (RFC 2104) with the algorithms, signature encodings and key encodings that providers use.
//!
//! Invariants: a key is never empty; a received signature is decoded strictly, so each MAC has one spelling (two
//! for base64url, whose padding is optional in RFC 4648 §5); tags are compared by the MAC in constant time.

use crate::core::secret::Secret;
use data_encoding::{BASE64, BASE64URL_NOPAD, Encoding as Alphabet, HEXLOWER, HEXLOWER_PERMISSIVE, Specification};
use hmac::{Hmac, KeyInit, Mac as _};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use std::sync::LazyLock;

/// The hash under the HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// HMAC-SHA-256, what nearly every provider uses.
    #[default]
    Sha256,
    /// HMAC-SHA-1: still sound as a MAC, only for providers that offer nothing else.
    Sha1,
    /// HMAC-SHA-512.
    Sha512,
}

/// How a signature is written in its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Lower-case hexadecimal, which is what every known provider sends. Upper case is refused, for the built-in
    /// providers and for all others: each signature keeps one spelling, and some SDKs refuse it as well.
    #[default]
    Hex,
    /// Base64 with padding (RFC 4648 §4).
    Base64,
    /// The URL-safe alphabet (RFC 4648 §5), written without padding and read with or without.
    Base64Url,
}

/// How the text of a secret becomes the key of the MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyDecoding {
    /// The bytes of the text are the key.
    Utf8,
    /// The text is base64, padded or not, after the first prefix of the list that it starts with, if any.
    Base64 {
        /// Prefixes that may stand before the base64, such as `whsec_`.
        strip_prefix: Vec<String>,
    },
    /// The text is hexadecimal in either case.
    Hex,
}

/// Why a secret can't be a key. Neither the text nor its length is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is nothing to key the MAC with; anyone could sign.
    #[error("the secret is empty")]
    Empty,
    /// The text is not base64.
    #[error("the secret is not base64 in the standard alphabet; copy it as the provider shows it")]
    NotBase64,
    /// The text is not hexadecimal.
    #[error("the secret is not hexadecimal; copy it as the provider shows it")]
    NotHex,
}

/// Base64 as secrets are copied around: without padding, and with whatever bits the last character holds.
static KEY_BASE64: LazyLock<Alphabet> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    spec.check_trailing_bits = false;
    spec.encoding().expect("64 distinct ASCII symbols are an alphabet")
});

impl Algorithm {
    /// Length of a tag, in bytes.
    pub(super) fn tag_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha1 => 20,
            Self::Sha512 => 64,
        }
    }
}

impl Encoding {
    /// Writes a tag.
    pub(super) fn encode(self, tag: &[u8]) -> String {
        match self {
            Self::Hex => HEXLOWER.encode(tag),
            Self::Base64 => BASE64.encode(tag),
            Self::Base64Url => BASE64URL_NOPAD.encode(tag),
        }
    }

    /// Reads a tag; `None` when the text is not written as this encoding writes it.
    pub(super) fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Hex => HEXLOWER.decode(text).ok(),
            Self::Base64 => BASE64.decode(text).ok(),
            Self::Base64Url => BASE64URL_NOPAD.decode(unpadded(text)?).ok(),
        }
    }
}

/// Removes the padding of base64; `None` when the padding is not what the length calls for.
fn unpadded(text: &[u8]) -> Option<&[u8]> {
    let bare = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    (bare.len() == text.len() || text.len().is_multiple_of(4)).then_some(bare)
}

impl KeyDecoding {
    /// The key bytes of a secret.
    ///
    /// # Errors
    /// [`KeyError`] when the text is empty, decodes to nothing, or is not of the encoding.
    pub(super) fn key(&self, secret: &Secret) -> Result<Vec<u8>, KeyError> {
        let text = secret.expose();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        let key = match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Hex => HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| KeyError::NotHex)?,
            Self::Base64 { strip_prefix } => {
                let bare = strip_prefix.iter().find_map(|prefix| text.strip_prefix(prefix.as_str()));
                let digits = unpadded(bare.unwrap_or(text).as_bytes()).ok_or(KeyError::NotBase64)?;
                KEY_BASE64.decode(digits).map_err(|_| KeyError::NotBase64)?
            }
        };
        if key.is_empty() { Err(KeyError::Empty) } else { Ok(key) }
    }
}

/// A running HMAC of one of the algorithms.
#[derive(Clone)]
pub(super) enum Mac {
    Sha256(Hmac<Sha256>),
    Sha1(Hmac<Sha1>),
    Sha512(Hmac<Sha512>),
}

/// Runs the same expression on whichever HMAC it is.
macro_rules! each {
    ($mac:expr, $inner:ident => $then:expr) => {
        match $mac {
            Mac::Sha256($inner) => $then,
            Mac::Sha1($inner) => $then,
            Mac::Sha512($inner) => $then,
        }
    };
}

impl Mac {
    pub(super) fn new(algorithm: Algorithm, key: &[u8]) -> Self {
        const ANY: &str = "HMAC takes keys of any length (RFC 2104 section 2)";
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha1 => Self::Sha1(Hmac::new_from_slice(key).expect(ANY)),
            Algorithm::Sha512 => Self::Sha512(Hmac::new_from_slice(key).expect(ANY)),
        }
    }

    /// Feeds the next piece of the message.
    pub(super) fn update(&mut self, piece: &[u8]) {
        each!(self, mac => mac.update(piece));
    }

    /// Whether `tag` is the whole tag of what was fed. The time taken depends on the length of `tag` only.
    pub(super) fn verifies(&self, tag: &[u8]) -> bool {
        each!(self, mac => mac.clone().verify_slice(tag).is_ok())
    }

    /// The tag of what was fed.
    pub(super) fn finish(self) -> Vec<u8> {
        each!(self, mac => mac.finalize().into_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(algorithm: Algorithm, key: &[u8], pieces: &[&[u8]]) -> String {
        let mut mac = Mac::new(algorithm, key);
        for piece in pieces {
            mac.update(piece);
        }
        Encoding::Hex.encode(&mac.finish())
    }

    /// RFC 2202 §3 and RFC 4231 §4.3, test case 2 of each, fed in pieces.
    #[test]
    fn known_answers() {
        let pieces: [&[u8]; 3] = [b"what do ya want ", b"", b"for nothing?"];
        assert_eq!(tag(Algorithm::Sha1, b"Jefe", &pieces), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert_eq!(
            tag(Algorithm::Sha256, b"Jefe", &pieces),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            tag(Algorithm::Sha512, b"Jefe", &pieces),
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        );
    }

    #[test]
    fn only_the_whole_tag_verifies() {
        let mut mac = Mac::new(Algorithm::Sha256, b"k");
        mac.update(b"m");
        let tag = mac.clone().finish();
        assert!(mac.verifies(&tag));
        assert!(!mac.verifies(&tag[..31]));
        assert!(!mac.verifies(&[&tag[..], b"\0"].concat()));
        assert!(!mac.verifies(b""));
    }

    #[test]
    fn signatures_have_one_spelling() {
        assert_eq!(Encoding::Hex.decode(b"00ff"), Some(vec![0, 255]));
        for text in ["00FF", "0", "0g", " 00", "00 ", "0x00"] {
            assert_eq!(Encoding::Hex.decode(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Encoding::Base64.decode(b"+/8="), Some(vec![0xfb, 0xff]));
        for text in ["+/8", "-_8=", "+/8==", "+/9=", "+/ 8=", "+/8=\n", "="] {
            assert_eq!(Encoding::Base64.decode(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Encoding::Base64Url.decode(b"-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(Encoding::Base64Url.decode(b"-_8="), Some(vec![0xfb, 0xff]));
        for text in ["+/8", "-_8==", "-_9", "-_=8"] {
            assert_eq!(Encoding::Base64Url.decode(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn keys_are_read_as_people_copy_them() {
        let base64 = KeyDecoding::Base64 { strip_prefix: vec!["v1,whsec_".to_owned(), "whsec_".to_owned()] };
        let key = |decoding: &KeyDecoding, text: &str| decoding.key(&Secret::new(text));
        for text in ["v1,whsec_YWI=", "whsec_YWI=", "YWI=", "YWI", "whsec_YWI", "YWJ"] {
            assert_eq!(key(&base64, text), Ok(b"ab".to_vec()), "{text}");
        }
        for text in ["whsec_!", "YWI= ", "YW-_", "YWI==", "Y", "whsek_YWI="] {
            assert_eq!(key(&base64, text), Err(KeyError::NotBase64), "{text}");
        }
        for text in ["", "whsec_", "v1,whsec_"] {
            assert_eq!(key(&base64, text), Err(KeyError::Empty), "{text}");
        }
        assert_eq!(key(&KeyDecoding::Hex, "00fF"), Ok(vec![0, 255]));
        assert_eq!(key(&KeyDecoding::Hex, "00f"), Err(KeyError::NotHex));
        assert_eq!(key(&KeyDecoding::Utf8, "whsec_x"), Ok(b"whsec_x".to_vec()));
        assert_eq!(key(&KeyDecoding::Utf8, ""), Err(KeyError::Empty));
    }
}
