//! What a signature scheme is: where the signature, the time, the id and the type of an event are.
//!
//! Invariant: an [`HmacScheme`] comes from an [`super::HmacConfig`] or a row of the provider table, which is one,
//! so its header names, separators and placeholders have been checked. Its parts are private for that reason.

use super::FIELD_BYTES_MAX;
use super::json::{Path, lookup};
use super::mac::{Algorithm, Encoding, KeyDecoding, KeyError};
use super::template::Template;
use super::timestamp::TimestampAt;
use crate::core::headers::Headers;
use crate::core::secret::Secret;

/// How a provider authenticates its requests, and where it puts an event's id and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// The signature.
    pub hmac: HmacScheme,
    /// The provider's id of the event, the same on every attempt: the key of deduplication.
    pub event_id: Field,
    /// The provider's name for what happened.
    pub event_type: Field,
}

/// Where a value is taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Field {
    /// The provider does not send it.
    #[default]
    None,
    /// The one value of a header.
    Header(String),
    /// A string or number of the JSON body.
    Json(Path),
}

/// An HMAC scheme as data. See [`super::HmacConfig`] for what each part means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacScheme {
    pub(super) algorithm: Algorithm,
    pub(super) encoding: Encoding,
    pub(super) signature: SignatureAt,
    pub(super) message: Template,
    pub(super) key: KeyDecoding,
    pub(super) timestamp: Option<TimestampAt>,
    /// Headers that must be there once with exactly this value.
    pub(super) require_headers: Vec<(String, String)>,
}

/// Where the signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignatureAt {
    pub(super) header: String,
    pub(super) format: SignatureFormat,
    pub(super) also: Vec<String>,
    pub(super) also_mode: AlsoMode,
}

/// What further signature headers are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlsoMode {
    /// Each may hold a signature by another secret; one match in any of them is enough.
    #[default]
    Any,
    /// They are older names; the first header that is there is the only one read.
    Fallback,
}

/// How a signature header is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SignatureFormat {
    /// The signature alone.
    Whole,
    /// A fixed text before the signature.
    Prefix(String),
    /// Items `name kv_sep value`, apart by `item_sep`; each one called `field` holds a signature.
    List {
        field: String,
        item_sep: String,
        kv_sep: String,
        /// Whether blanks around items, names and values are dropped.
        trim: bool,
    },
}

/// A received request as the schemes see it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method as received, such as `POST`.
    pub method: &'a str,
    /// The full public URL the provider was given, which some providers sign.
    pub url: &'a str,
    /// The header fields.
    pub headers: &'a Headers,
    /// The raw body.
    pub body: &'a [u8],
}

/// An event's id and type, where the provider sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The provider's id of the event.
    pub id: Option<String>,
    /// The provider's name for what happened.
    pub event_type: Option<String>,
}

impl Scheme {
    /// Reads the event's id and type; when both are in the body, in one pass over it.
    ///
    /// Each is `None` when it is absent, empty, longer than [`FIELD_BYTES_MAX`] bytes, not UTF-8, repeated (a
    /// header), or neither string nor number (JSON). Call this only after [`Scheme::verify`]: before, it reads
    /// what a stranger wrote.
    pub fn identity(&self, req: &Request<'_>) -> Identity {
        let paths: Vec<&Path> = [&self.event_id, &self.event_type].into_iter().filter_map(Field::path).collect();
        let mut found = lookup(req.body, &paths).into_iter();
        let mut read = |field: &Field| match field {
            Field::None => None,
            Field::Header(name) => header_text(req.headers, name),
            Field::Json(_) => found.next().flatten(),
        };
        Identity { id: read(&self.event_id), event_type: read(&self.event_type) }
    }

    /// The event's id alone; see [`Scheme::identity`].
    pub fn event_id(&self, req: &Request<'_>) -> Option<String> {
        self.event_id.read(req)
    }

    /// The event's type alone; see [`Scheme::identity`].
    pub fn event_type(&self, req: &Request<'_>) -> Option<String> {
        self.event_type.read(req)
    }

    /// Whether the URL is among what is signed. A gateway behind a proxy that ends TLS can't be sure of its public URL.
    pub fn signs_url(&self) -> bool {
        self.hmac.message.uses_url()
    }

    /// Whether `secret` can be a key of this scheme, so that configuration refuses what no request could match.
    ///
    /// # Errors
    /// [`KeyError`] when it is empty or not in the encoding the scheme wants.
    pub fn check_secret(&self, secret: &Secret) -> Result<(), KeyError> {
        self.hmac.key.key(secret).map(|_| ())
    }
}

impl Field {
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Json(path) => Some(path),
            _ => None,
        }
    }

    fn read(&self, req: &Request<'_>) -> Option<String> {
        match self {
            Self::None => None,
            Self::Header(name) => header_text(req.headers, name),
            Self::Json(path) => lookup(req.body, &[path]).pop().flatten(),
        }
    }
}

/// A header's one value, if it is text within the limits.
fn header_text(headers: &Headers, name: &str) -> Option<String> {
    let value = headers.one(name).ok()?;
    let text = std::str::from_utf8(value).ok()?;
    (1..=FIELD_BYTES_MAX).contains(&text.len()).then(|| text.to_owned())
}
