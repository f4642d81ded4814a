//! Webhook signatures: checking what a provider sent, and signing what is sent on.
//!
//! One HMAC engine ([`HmacScheme`]) is driven by data. The built-in providers are rows of a table
//! ([`provider`]), a user's own scheme is the same data written in TOML ([`HmacConfig`]), and both are verified by
//! the same code. What the gateway sends to endpoints is signed by a [`Profile`].
//!
//! | file | owns |
//! |---|---|
//! | `scheme` | the types: where the signature, the time, the id and the type of an event are |
//! | `config` | the TOML form of a scheme |
//! | `build` | from that form to a scheme, with all checks |
//! | `providers` | the table of built-in providers |
//! | `template` | the text that says which bytes are signed, parsed once |
//! | `mac` | algorithms, encodings, keys |
//! | `timestamp` | reading, writing and judging times |
//! | `json` | reading one field out of a body without building a tree |
//! | `verify`, `sign` | the two directions of a scheme |
//! | `reject` | why a request was refused |
//! | `profile` | signatures on outgoing requests |
//!
//! Architecture invariants:
//! - The clock is an argument (`now_s`, seconds since the Unix epoch); nothing here reads it.
//! - Signatures are compared in constant time, by the MAC itself; expected signatures and secrets never appear in
//!   an error.
//! - The body is fed to the MAC where it lies; it is never copied and never parsed into a tree.
//! - Every loop over input is bounded by a constant of this file.

mod build;
mod config;
mod json;
mod mac;
mod profile;
mod providers;
mod reject;
#[cfg(test)]
mod round_trip;
mod scheme;
mod sign;
mod template;
#[cfg(test)]
mod tests;
mod timestamp;
mod verify;

pub use config::{FieldConfig, FormatConfig, FromConfig, HmacConfig, KeyDecodeConfig};
pub use config::{TimeConfig, TimestampConfig, Tolerance, UnitConfig};
pub use json::{Path, PathError};
pub use mac::{Algorithm, Encoding, KeyError};
pub use profile::{Profile, generate_secret};
pub use providers::{provider, provider_ids};
pub use reject::{Malformed, Reject};
pub use scheme::{AlsoMode, Field, HmacScheme, Identity, Request, Scheme};
pub use sign::SignError;
pub use template::TemplateError;
pub use timestamp::Future;

/// Longest signature header looked at, in bytes. The longest honest one known is a few hundred bytes.
pub const SIGNATURE_HEADER_BYTES_MAX: usize = 8 * 1024;

/// Most signatures of one request that are tried. Providers send one, or two while a secret rotates.
pub const SIGNATURES_MAX: usize = 32;

/// Most secrets of one source. With [`SIGNATURES_MAX`] it bounds the comparisons made for one request.
pub const SECRETS_MAX: usize = 16;

/// Longest event id, event type, or other value taken out of a header or a body, in bytes.
pub const FIELD_BYTES_MAX: usize = 512;
