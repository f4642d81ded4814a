//! Turns a scheme as written ([`HmacConfig`]) into one that can verify, or says what is wrong with it.
//!
//! Invariants: separators can't occur in what they separate, and a message can't ask for a time that is nowhere, so
//! that whatever is signed under a scheme verifies under it. What has no effect in the chosen format is an error too,
//! since it means that the user expected something else.

use super::config::{FieldConfig, FormatConfig, FromConfig, HmacConfig, KeyDecodeConfig};
use super::config::{TimeConfig, TimestampConfig, Tolerance, UnitConfig};
use super::json::{Path, PathError};
use super::mac::KeyDecoding;
use super::scheme::{Field, HmacScheme, Scheme, SignatureAt, SignatureFormat};
use super::template::{Template, TemplateError, is_header_name};
use super::timestamp::{TimestampAt, TimestampFormat, TimestampFrom};

/// What is wrong with an [`HmacConfig`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HmacConfigError {
    /// A header name that no header can have.
    #[error("`{key}` names {name:?}, which can't be a header")]
    HeaderName {
        /// The key in the table.
        key: &'static str,
        /// What it says.
        name: String,
    },
    /// A key is needed.
    #[error("`{key}` is required, since {since}")]
    Required {
        /// The key that isn't there.
        key: &'static str,
        /// What calls for it.
        since: &'static str,
    },
    /// A key has no effect.
    #[error("`{key}` has no effect, since {since}; remove it or change that")]
    NoEffect {
        /// The key in the table.
        key: &'static str,
        /// What makes it useless.
        since: &'static str,
    },
    /// A text that can't be told apart from what stands around it.
    #[error("`{key}` is {text:?}; expected {expected}")]
    Ambiguous {
        /// The key in the table.
        key: &'static str,
        /// What it says.
        text: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// The message's placeholders are wrong.
    #[error("`message` can't be read")]
    Message(#[from] TemplateError),
    /// A JSON path is wrong.
    #[error("`{key}` is not a JSON path")]
    JsonPath {
        /// The key in the table.
        key: &'static str,
        /// What is wrong with it.
        source: PathError,
    },
    /// Neither or both of the places are given.
    #[error("`{key}` must say either `header` or `json`")]
    OneOf {
        /// The key in the table.
        key: &'static str,
    },
}

impl TryFrom<HmacConfig> for Scheme {
    type Error = HmacConfigError;

    fn try_from(config: HmacConfig) -> Result<Self, HmacConfigError> {
        Ok(Self {
            event_id: field("id", config.id.as_ref())?,
            event_type: field("type", config.event_type.as_ref())?,
            hmac: HmacScheme::try_from(config)?,
        })
    }
}

impl TryFrom<HmacConfig> for HmacScheme {
    type Error = HmacConfigError;

    fn try_from(config: HmacConfig) -> Result<Self, HmacConfigError> {
        let format = signature_format(&config)?;
        let timestamp = config.timestamp.as_ref().map(|written| timestamp(written, &format)).transpose()?;
        let message = Template::parse(&config.message)?;
        if message.uses_timestamp() && timestamp.is_none() {
            return Err(HmacConfigError::Required { key: "timestamp", since: "`message` contains {ts}" });
        }
        let key = key_decoding(&config)?;
        let required = config.require_headers.into_iter();
        Ok(Self {
            algorithm: config.algorithm,
            encoding: config.encoding,
            signature: SignatureAt {
                header: header_name("header", &config.header)?,
                format,
                also: config.also.iter().map(|name| header_name("also", name)).collect::<Result<_, _>>()?,
                also_mode: config.also_mode,
            },
            message,
            key,
            timestamp,
            require_headers: required
                .map(|(name, value)| Ok((header_name("require_headers", &name)?, value)))
                .collect::<Result<_, HmacConfigError>>()?,
        })
    }
}

fn header_name(key: &'static str, name: &str) -> Result<String, HmacConfigError> {
    if is_header_name(name) {
        Ok(name.to_owned())
    } else {
        Err(HmacConfigError::HeaderName { key, name: name.to_owned() })
    }
}

fn json_path(key: &'static str, text: &str) -> Result<Path, HmacConfigError> {
    Path::parse(text).map_err(|source| HmacConfigError::JsonPath { key, source })
}

/// Where an id or type is: nowhere, or in exactly one place.
fn field(key: &'static str, written: Option<&FieldConfig>) -> Result<Field, HmacConfigError> {
    let Some(written) = written else {
        return Ok(Field::None);
    };
    match (&written.header, &written.json) {
        (Some(name), None) => header_name(key, name).map(Field::Header),
        (None, Some(path)) => json_path(key, path).map(Field::Json),
        _ => Err(HmacConfigError::OneOf { key }),
    }
}

/// How secrets become keys.
fn key_decoding(config: &HmacConfig) -> Result<KeyDecoding, HmacConfigError> {
    if config.key_decode != KeyDecodeConfig::Base64 && !config.strip_prefix.is_empty() {
        return Err(HmacConfigError::NoEffect { key: "strip_prefix", since: "`key_decode` is not \"base64\"" });
    }
    Ok(match config.key_decode {
        KeyDecodeConfig::Utf8 => KeyDecoding::Utf8,
        KeyDecodeConfig::Hex => KeyDecoding::Hex,
        KeyDecodeConfig::Base64 => KeyDecoding::Base64 { strip_prefix: config.strip_prefix.clone() },
    })
}

/// The layout of the signature header; keys of another layout are refused.
fn signature_format(config: &HmacConfig) -> Result<SignatureFormat, HmacConfigError> {
    if config.format != FormatConfig::Prefix && config.prefix.is_some() {
        return Err(HmacConfigError::NoEffect { key: "prefix", since: "`format` is not \"prefix\"" });
    }
    if config.format != FormatConfig::List {
        let given = [
            ("field", config.field.is_some()),
            ("item_sep", config.item_sep.is_some()),
            ("kv_sep", config.kv_sep.is_some()),
            ("trim", config.trim.is_some()),
        ];
        if let Some((key, _)) = given.into_iter().find(|(_, is_some)| *is_some) {
            return Err(HmacConfigError::NoEffect { key, since: "`format` is not \"list\"" });
        }
    }
    match config.format {
        FormatConfig::Whole => Ok(SignatureFormat::Whole),
        FormatConfig::List => list(config),
        FormatConfig::Prefix => {
            let prefix = config.prefix.clone().filter(|text| !text.is_empty());
            let required = HmacConfigError::Required { key: "prefix", since: "`format` is \"prefix\"" };
            prefix.map(SignatureFormat::Prefix).ok_or(required)
        }
    }
}

/// A list whose separators can't occur in what they separate.
fn list(config: &HmacConfig) -> Result<SignatureFormat, HmacConfigError> {
    let field = config.field.clone();
    let field = field.ok_or(HmacConfigError::Required { key: "field", since: "`format` is \"list\"" })?;
    let item_sep = config.item_sep.clone().unwrap_or_else(|| ",".to_owned());
    let kv_sep = config.kv_sep.clone().unwrap_or_else(|| "=".to_owned());
    // These occur in signatures and times, so an element would be cut in two.
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_.:".contains(&byte);
    if item_sep.is_empty() || item_sep.bytes().any(inside) || item_sep == kv_sep {
        let expected = "a separator that occurs in no signature or time, such as \",\", \";\" or \" \"";
        return Err(HmacConfigError::Ambiguous { key: "item_sep", text: item_sep, expected });
    }
    if kv_sep.is_empty() || kv_sep.contains(&item_sep) || kv_sep.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
        let expected = "a separator without letters, digits or the one between elements, such as \"=\" or \",\"";
        return Err(HmacConfigError::Ambiguous { key: "kv_sep", text: kv_sep, expected });
    }
    element_name("field", &field, &item_sep, &kv_sep)?;
    Ok(SignatureFormat::List { field, item_sep, kv_sep, trim: config.trim.unwrap_or(false) })
}

/// Checks that a name can be found in a list.
fn element_name(key: &'static str, name: &str, item_sep: &str, kv_sep: &str) -> Result<(), HmacConfigError> {
    let printable = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    // The last character of a name and a separator together could spell the separator, so no overlap is allowed.
    let overlaps = |sep: &str| sep.chars().any(|mark| name.contains(mark));
    if printable && !overlaps(item_sep) && !overlaps(kv_sep) {
        return Ok(());
    }
    let expected = "a name of visible ASCII without the separators";
    Err(HmacConfigError::Ambiguous { key, text: name.to_owned(), expected })
}

/// Where the time is and how it is judged. An element of the list needs a list to be in.
fn timestamp(written: &TimestampConfig, format: &SignatureFormat) -> Result<TimestampAt, HmacConfigError> {
    const NAME: &str = "timestamp.name";
    let from = match (written.from, format) {
        (FromConfig::Header, _) => TimestampFrom::Header(header_name(NAME, &written.name)?),
        (FromConfig::Body, _) => TimestampFrom::Body(json_path(NAME, &written.name)?),
        (FromConfig::SigField, SignatureFormat::List { field, item_sep, kv_sep, .. }) => {
            element_name(NAME, &written.name, item_sep, kv_sep)?;
            if *field == written.name {
                let expected = "another name than that of the signature";
                return Err(HmacConfigError::Ambiguous { key: NAME, text: field.clone(), expected });
            }
            TimestampFrom::SigField(written.name.clone())
        }
        (FromConfig::SigField, _) => {
            return Err(HmacConfigError::NoEffect { key: "timestamp.from", since: "`format` is not \"list\"" });
        }
    };
    let format = match (written.format, written.unit) {
        (TimeConfig::Unix, None | Some(UnitConfig::S)) => TimestampFormat::UnixSeconds,
        (TimeConfig::Unix, Some(UnitConfig::Ms)) => TimestampFormat::UnixMillis,
        (TimeConfig::Iso8601, None) => TimestampFormat::Iso8601,
        (TimeConfig::Iso8601, Some(_)) => {
            return Err(HmacConfigError::NoEffect {
                key: "timestamp.unit",
                since: "`timestamp.format` is not \"unix\"",
            });
        }
    };
    let tolerance_s = match written.tolerance_s {
        Tolerance::Seconds(seconds) => Some(seconds),
        Tolerance::Off => None,
    };
    Ok(TimestampAt { from, format, tolerance_s, future: written.future })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::signature::{Algorithm, Encoding, Future};

    fn scheme(text: &str) -> Result<Scheme, String> {
        let config: HmacConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        Scheme::try_from(config).map_err(|error| error.to_string())
    }

    #[test]
    fn one_line_is_enough() {
        let scheme = scheme("header = 'X-Signature'").unwrap();
        assert_eq!(scheme.hmac.algorithm, Algorithm::Sha256);
        assert_eq!(scheme.hmac.encoding, Encoding::Hex);
        assert_eq!(scheme.hmac.signature.format, SignatureFormat::Whole);
        assert_eq!(scheme.hmac.message, Template::parse("{body}").unwrap());
        assert_eq!(scheme.hmac.key, KeyDecoding::Utf8);
        assert_eq!(scheme.hmac.timestamp, None);
        assert_eq!((scheme.event_id, scheme.event_type), (Field::None, Field::None));
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            algorithm = "sha512"
            encoding = "base64url"
            header = "X-Sig"
            format = "list"
            field = "v1"
            item_sep = ";"
            kv_sep = ":"
            trim = true
            also = ["X-Sig-2"]
            also_mode = "fallback"
            message = "{ts}.{body}"
            key_decode = "base64"
            strip_prefix = ["whsec_"]
            timestamp = { from = "sig_field", name = "t", unit = "ms", tolerance_s = "off", future = "accept" }
            require_headers = { X-Version = "1" }
            id = { header = "X-Id" }
            type = { json = "event.type" }
        "#;
        let scheme = scheme(text).unwrap();
        let timestamp = scheme.hmac.timestamp.unwrap();
        assert_eq!(timestamp.format, TimestampFormat::UnixMillis);
        assert_eq!((timestamp.tolerance_s, timestamp.future), (None, Future::Accept));
        assert_eq!(scheme.hmac.require_headers, [("X-Version".to_owned(), "1".to_owned())]);
        assert_eq!(scheme.event_id, Field::Header("X-Id".to_owned()));
        assert_eq!(scheme.event_type, Field::Json(Path::parse("event.type").unwrap()));
    }

    #[test]
    fn the_default_tolerance_is_five_minutes() {
        let hmac = |tolerance: &str| {
            scheme(&format!("header='s'\ntimestamp={{from='header',name='t'{tolerance}}}"))
                .map(|s| s.hmac.timestamp.unwrap())
        };
        assert_eq!(hmac("").unwrap().tolerance_s, Some(300));
        assert_eq!(hmac(",tolerance_s=0").unwrap().tolerance_s, Some(0));
        assert!(hmac(",tolerance_s=-1").is_err());
        assert!(hmac(",tolerance_s='none'").unwrap_err().contains("or \"off\""));
    }

    #[test]
    fn mistakes_name_their_key() {
        let list = "header='s'\nformat='list'\nfield='v1'";
        for (text, want) in [
            ("", "header"),
            ("header='s'\nheadre='s'", "headre"),
            ("header='a b'", "`header` names \"a b\""),
            ("header=''", "`header` names \"\""),
            ("header='s'\nalso=['ä']", "`also` names"),
            ("header='s'\nformat='prefix'", "`prefix` is required"),
            ("header='s'\nformat='prefix'\nprefix=''", "`prefix` is required"),
            ("header='s'\nprefix='x='", "`prefix` has no effect"),
            ("header='s'\nfield='v1'", "`field` has no effect"),
            ("header='s'\ntrim=false", "`trim` has no effect"),
            ("header='s'\nformat='list'", "`field` is required"),
            (&format!("{list}\nitem_sep=''"), "`item_sep` is \"\""),
            (&format!("{list}\nitem_sep='='\nkv_sep='='"), "`item_sep` is \"=\""),
            (&format!("{list}\nitem_sep=':'"), "`item_sep` is \":\""),
            (&format!("{list}\nkv_sep='x'"), "`kv_sep` is \"x\""),
            (&format!("{list}\nkv_sep=','"), "`item_sep` is \",\""),
            ("header='s'\nformat='list'\nfield='a=b'", "`field` is \"a=b\""),
            ("header='s'\nstrip_prefix=['x']", "`strip_prefix` has no effect"),
            ("header='s'\nmessage='{ts}{body}'", "`timestamp` is required"),
            ("header='s'\nmessage='{nope}'", "`message` can't be read"),
            ("header='s'\nid={}", "`id` must say either"),
            ("header='s'\ntype={header='a',json='b'}", "`type` must say either"),
            ("header='s'\nid={json='a..b'}", "`id` is not a JSON path"),
            ("header='s'\ntimestamp={from='sig_field',name='t'}", "`timestamp.from` has no effect"),
            ("header='s'\ntimestamp={from='body',name=''}", "`timestamp.name` is not a JSON path"),
            (
                "header='s'\ntimestamp={from='header',name='t',format='iso8601',unit='s'}",
                "`timestamp.unit` has no effect",
            ),
            (&format!("{list}\ntimestamp={{from='sig_field',name='v1'}}"), "`timestamp.name` is \"v1\""),
        ] {
            let error = scheme(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
