//! Why a request was refused: a code for machines, a sentence for the operator.
//!
//! Invariant: no variant carries a secret, a signature, or a byte of the body. What is named comes from the
//! configuration, or is a number.

use super::mac::KeyError;
use super::{SECRETS_MAX, SIGNATURE_HEADER_BYTES_MAX, SIGNATURES_MAX};
use crate::core::headers::HowMany;

/// Why [`super::Scheme::verify`] refused a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The source has no secret, or one that is empty.
    #[error("the source has no secret or an empty one; nothing can be verified until it is configured")]
    NoSecret,
    /// The source has more secrets than are tried.
    #[error("the source has {count} secrets; at most {SECRETS_MAX} are allowed")]
    TooManySecrets {
        /// How many it has.
        count: usize,
    },
    /// A secret of the source is not in the encoding that its scheme wants.
    #[error("a secret of the source is unusable")]
    SecretMalformed(#[source] KeyError),
    /// The signature header is not there.
    #[error("header {header} with the signature is missing")]
    SignatureMissing {
        /// The header looked for.
        header: String,
    },
    /// The signature header is there more than once.
    #[error("header {header} with the signature is sent more than once")]
    SignatureRepeated {
        /// The header concerned.
        header: String,
    },
    /// The signature header holds no signature of the expected form.
    #[error("header {header} is malformed: {why}")]
    SignatureMalformed {
        /// The header concerned.
        header: String,
        /// What was expected.
        why: Malformed,
    },
    /// No signature of the request belongs to any secret of the source.
    #[error("the signature does not match: the secret is another one, or the request was changed on its way")]
    SignatureMismatch,
    /// The time is not where the scheme puts it.
    #[error("timestamp {name} is missing")]
    TimestampMissing {
        /// The place looked at.
        name: String,
    },
    /// The timestamp's header is there more than once.
    #[error("timestamp {name} is sent more than once")]
    TimestampRepeated {
        /// The header concerned.
        name: String,
    },
    /// The time is not written as the scheme writes it.
    #[error("timestamp {name} is malformed: expected {expected}")]
    TimestampMalformed {
        /// The place looked at.
        name: String,
        /// The expected form.
        expected: &'static str,
    },
    /// The request was signed too long ago; it may be a replay.
    #[error(
        "timestamp is {age_s} s old, more than the {tolerance_s} s allowed; check the clocks if it is not a replay"
    )]
    TimestampTooOld {
        /// How old it is, in seconds.
        age_s: i128,
        /// What is allowed, in seconds.
        tolerance_s: u64,
    },
    /// The request is signed for a time to come.
    #[error("timestamp is {ahead_s} s ahead, more than the {tolerance_s} s allowed; check the clocks")]
    TimestampTooNew {
        /// How far ahead it is, in seconds.
        ahead_s: i128,
        /// What is allowed, in seconds.
        tolerance_s: u64,
    },
    /// A header that is signed or required is not there.
    #[error("header {name} is missing")]
    HeaderMissing {
        /// The header looked for.
        name: String,
    },
    /// A header that is signed or required is there more than once.
    #[error("header {name} is sent more than once")]
    HeaderRepeated {
        /// The header concerned.
        name: String,
    },
    /// A header that is signed or required holds what it must not.
    #[error("header {name} is malformed: {why}")]
    HeaderMalformed {
        /// The header concerned.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A value of the body that is signed isn't there.
    #[error("the body has no string or number at {path}, which the signature covers")]
    BodyFieldMissing {
        /// The JSON path looked for.
        path: String,
    },
}

/// What a signature header lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Longer than is looked at.
    #[error("it is longer than {SIGNATURE_HEADER_BYTES_MAX} bytes")]
    TooLong,
    /// Bytes that no signature has.
    #[error("it holds bytes other than printable ASCII")]
    NotAscii,
    /// The prefix is not there.
    #[error("it does not start with the scheme's prefix")]
    NoPrefix,
    /// A list without the element that holds a signature.
    #[error("its list has no element with a signature")]
    NoElement,
    /// More signatures than are tried.
    #[error("it has more than {SIGNATURES_MAX} signatures")]
    TooMany,
    /// Not hexadecimal or base64 as the scheme writes it.
    #[error("its signature is not in the scheme's encoding")]
    Encoding,
    /// Well encoded, but of another length than the hash of the scheme.
    #[error("its signature does not have the length of the scheme's hash; the provider may use another algorithm")]
    Length,
}

impl Reject {
    /// A stable word for logs, metrics and answers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSecret => "no_secret",
            Self::TooManySecrets { .. } => "too_many_secrets",
            Self::SecretMalformed(_) => "secret_malformed",
            Self::SignatureMissing { .. } => "signature_missing",
            Self::SignatureRepeated { .. } => "signature_repeated",
            Self::SignatureMalformed { .. } => "signature_malformed",
            Self::SignatureMismatch => "signature_mismatch",
            Self::TimestampMissing { .. } => "timestamp_missing",
            Self::TimestampRepeated { .. } => "timestamp_repeated",
            Self::TimestampMalformed { .. } => "timestamp_malformed",
            Self::TimestampTooOld { .. } => "timestamp_too_old",
            Self::TimestampTooNew { .. } => "timestamp_too_new",
            Self::HeaderMissing { .. } => "header_missing",
            Self::HeaderRepeated { .. } => "header_repeated",
            Self::HeaderMalformed { .. } => "header_malformed",
            Self::BodyFieldMissing { .. } => "body_field_missing",
        }
    }

    /// A signed or required header that is not there exactly once.
    pub(super) fn header(name: &str, how_many: HowMany) -> Self {
        let name = name.to_owned();
        match how_many {
            HowMany::Missing => Self::HeaderMissing { name },
            HowMany::Repeated => Self::HeaderRepeated { name },
        }
    }

    /// A timestamp header that is not there exactly once.
    pub(super) fn timestamp(name: &str, how_many: HowMany) -> Self {
        let name = name.to_owned();
        match how_many {
            HowMany::Missing => Self::TimestampMissing { name },
            HowMany::Repeated => Self::TimestampRepeated { name },
        }
    }
}

/// An empty secret counts as none, whatever the encoding.
impl From<KeyError> for Reject {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Empty => Self::NoSecret,
            other => Self::SecretMalformed(other),
        }
    }
}
