//! The form in which a user writes a scheme: a `[source.hmac]` table, whose keys are those of [`HmacConfig`].
//!
//! Invariant: these types hold what was written and nothing more. Turning them into a scheme, in `build`, checks
//! everything that can be wrong with it.

use super::mac::{Algorithm, Encoding};
use super::scheme::AlsoMode;
use super::timestamp::Future;
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;

/// A user's own HMAC scheme, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacConfig {
    /// The hash: `sha256` (default), `sha1` or `sha512`.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How the signature is written: `hex` (default), `base64` or `base64url`.
    #[serde(default)]
    pub encoding: Encoding,
    /// The header that holds the signature.
    pub header: String,
    /// How that header is laid out.
    #[serde(default)]
    pub format: FormatConfig,
    /// The text before the signature, for the format `prefix`, such as `sha256=`.
    pub prefix: Option<String>,
    /// The name of the elements with a signature, for the format `list`, such as `v1`.
    pub field: Option<String>,
    /// What stands between elements, for the format `list`; `,` by default.
    pub item_sep: Option<String>,
    /// What stands between an element's name and value, for the format `list`; `=` by default.
    pub kv_sep: Option<String>,
    /// Whether blanks around elements, names and values are dropped, for the format `list`; not by default.
    pub trim: Option<bool>,
    /// Further headers that may hold the signature, in the same layout.
    #[serde(default)]
    pub also: Vec<String>,
    /// How `also` is meant: `any` (default) or `fallback`.
    #[serde(default)]
    pub also_mode: AlsoMode,
    /// What is signed, `{body}` by default: text with the placeholders `{body}`, `{ts}` (the timestamp's text as
    /// received), `{url}` (public), `{method}`, `{header:Name}` and `{json:path}` (a string or number of the body).
    /// `{{` and `}}` stand for single braces.
    #[serde(default = "default_message")]
    pub message: String,
    /// How a secret becomes a key: `utf8` (default), `base64` or `hex`.
    #[serde(default)]
    pub key_decode: KeyDecodeConfig,
    /// Prefixes dropped from a secret before base64 is decoded; the first that fits is.
    #[serde(default)]
    pub strip_prefix: Vec<String>,
    /// Where the time is; without it requests are never too old.
    pub timestamp: Option<TimestampConfig>,
    /// Headers that must be there once, with exactly these values.
    #[serde(default)]
    pub require_headers: BTreeMap<String, String>,
    /// Where the event's id is; without it, nothing is deduplicated.
    pub id: Option<FieldConfig>,
    /// Where the event's type is.
    #[serde(rename = "type")]
    pub event_type: Option<FieldConfig>,
}

/// The layout of a signature header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatConfig {
    /// The signature alone.
    #[default]
    Whole,
    /// A fixed text, then the signature.
    Prefix,
    /// Named elements.
    List,
}

/// How a secret becomes a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyDecodeConfig {
    /// Its bytes are the key.
    #[default]
    Utf8,
    /// It is base64.
    Base64,
    /// It is hexadecimal.
    Hex,
}

/// Where the time is and how near it must be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimestampConfig {
    /// `header`, `sig_field` (an element of the signature header's list) or `body` (JSON).
    pub from: FromConfig,
    /// The header, the element's name, or the JSON path.
    pub name: String,
    /// `unix` (default) or `iso8601`.
    #[serde(default)]
    pub format: TimeConfig,
    /// `s` (default) or `ms`, for the format `unix`.
    pub unit: Option<UnitConfig>,
    /// Seconds that the time may be off, 300 by default, or `"off"`.
    #[serde(default)]
    pub tolerance_s: Tolerance,
    /// Whether times ahead by more than that are rejected: `reject` (default) or `accept`.
    #[serde(default)]
    pub future: Future,
}

/// Where a timestamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromConfig {
    /// In a header.
    Header,
    /// In the signature header's list.
    SigField,
    /// In the JSON body.
    Body,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeConfig {
    /// A count since 1970.
    #[default]
    Unix,
    /// RFC 3339.
    Iso8601,
}

/// What a Unix time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitConfig {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
}

/// How far a time may be off. Turning the check off has a word of its own; 0 means the very second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// At most so many seconds.
    Seconds(u64),
    /// Not judged.
    Off,
}

/// Where an event's id or type is: one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldConfig {
    /// A header.
    pub header: Option<String>,
    /// A JSON path in the body.
    pub json: Option<String>,
}

fn default_message() -> String {
    "{body}".to_owned()
}

impl Default for Tolerance {
    /// Five minutes, as Standard Webhooks and Stripe have it.
    fn default() -> Self {
        Self::Seconds(300)
    }
}

impl<'de> Deserialize<'de> for Tolerance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecondsOrOff;
        impl Visitor<'_> for SecondsOrOff {
            type Value = Tolerance;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of seconds, or \"off\"")
            }
            fn visit_u64<E>(self, seconds: u64) -> Result<Tolerance, E> {
                Ok(Tolerance::Seconds(seconds))
            }
            fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<Tolerance, E> {
                let unsigned = u64::try_from(seconds);
                unsigned.map(Tolerance::Seconds).map_err(|_| E::invalid_value(Unexpected::Signed(seconds), &self))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Tolerance, E> {
                if text == "off" { Ok(Tolerance::Off) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
            }
        }
        deserializer.deserialize_any(SecondsOrOff).map_err(D::Error::custom)
    }
}
