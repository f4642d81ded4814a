//! The parsed file as a tree of nodes that know their place, so that every error can name line and key.
//!
//! Reading goes on after an error: a getter reports what is wrong and returns `None`, and the caller reads the next key.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Place, Report, Spot, file_name};
use super::suggest::did_you_mean;

/// Characters of a wrong value that an error quotes.
const QUOTED_CHARS_MAX: usize = 64;

/// The file that a tree was parsed from.
#[derive(Clone, Copy)]
pub(super) struct File<'t> {
    pub(super) path: &'t Path,
    pub(super) text: &'t str,
}

/// A value of the file.
#[derive(Clone)]
pub(super) struct Node<'t> {
    file: File<'t>,
    key: String,
    name: Option<String>,
    value: &'t DeValue<'t>,
    span: Range<usize>,
}

/// A table of the file whose keys are all known.
#[derive(Clone)]
pub(super) struct Table<'t> {
    file: File<'t>,
    key: String,
    name: Option<String>,
    entries: &'t DeTable<'t>,
    span: Range<usize>,
}

/// Parses the text of a file, or reports the first syntax error. The parser's own display is not used: it prints the line,
/// which may hold a secret.
pub(super) fn parse<'t>(file: File<'t>, report: &mut Report) -> Option<Spanned<DeTable<'t>>> {
    let wrong = |e: toml::de::Error| {
        let at = e.span().map_or_else(|| Spot::whole_file(file.path), |span| file.spot(span.start, "", None));
        report.error(at, &format!("expected TOML, got a syntax error: {}", e.message()));
    };
    DeTable::parse(file.text).map_err(wrong).ok()
}

impl<'t> File<'t> {
    /// The place of a byte of the text.
    fn spot(&self, byte: usize, key: &str, name: Option<&str>) -> Spot {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let place = Place::File {
            file: file_name(self.path),
            line: Some(before.bytes().filter(|b| *b == b'\n').count() + 1),
            column: Some(before[line_start..].chars().count() + 1),
        };
        Spot { place, key: key.to_owned(), name: name.map(str::to_owned) }
    }
}

impl<'t> Table<'t> {
    /// The file's top level.
    pub(super) fn root(file: File<'t>, root: &'t Spanned<DeTable<'t>>) -> Self {
        Self { file, key: String::new(), name: None, entries: root.get_ref(), span: root.span() }
    }

    /// Reports every key that is not among the known ones.
    pub(super) fn check_keys(&self, known: &[&str], report: &mut Report) {
        for key in self.entries.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let text = quoted(key.get_ref());
            let hint = did_you_mean(key.get_ref(), known.iter().copied());
            let at = self.file.spot(key.span().start, &self.key_of(key.get_ref()), self.name.as_deref());
            report.error(at, &format!("expected a known key, got {text}{hint}"));
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<Node<'t>> {
        let value = self.entries.get(key)?;
        Some(Node {
            file: self.file,
            key: self.key_of(key),
            name: self.name.clone(),
            value: value.get_ref(),
            span: value.span(),
        })
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &str, what: &str, report: &mut Report) -> Option<Node<'t>> {
        let node = self.get(key);
        if node.is_none() {
            report.error(self.spot_of(key), &format!("expected {what}, got nothing"));
        }
        node
    }

    /// The place of a key that isn't there: its table's.
    pub(super) fn spot_of(&self, key: &str) -> Spot {
        self.file.spot(self.span.start, &self.key_of(key), self.name.as_deref())
    }

    /// The place of the table.
    pub(super) fn spot(&self) -> Spot {
        self.file.spot(self.span.start, &self.key, self.name.as_deref())
    }

    fn key_of(&self, key: &str) -> String {
        if self.key.is_empty() { quoted_key(key) } else { format!("{}.{}", self.key, quoted_key(key)) }
    }
}

impl<'t> Node<'t> {
    /// The place of the value.
    pub(super) fn spot(&self) -> Spot {
        self.file.spot(self.span.start, &self.key, self.name.as_deref())
    }

    /// The value itself.
    pub(super) fn value(&self) -> &'t DeValue<'t> {
        self.value
    }

    /// Reports that something else was expected here, with what is there.
    pub(super) fn expected(&self, what: &str, report: &mut Report) {
        report.error(self.spot(), &format!("expected {what}, got {}", shown(self.value)));
    }

    /// Reports that something else was expected here, without what is there: for secrets.
    pub(super) fn blind(&self, what: &str, got: &str, report: &mut Report) {
        report.error(self.spot(), &format!("expected {what}, got {got}"));
    }

    /// The text of a string.
    pub(super) fn text(&self, what: &str, report: &mut Report) -> Option<&'t str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.expected(what, report);
        }
        text
    }

    /// The elements of an array.
    pub(super) fn list(&self, what: &str, report: &mut Report) -> Option<Vec<Node<'t>>> {
        let Some(array) = self.value.as_array() else {
            self.expected(what, report);
            return None;
        };
        let element = |(i, item): (usize, &'t Spanned<DeValue<'t>>)| Node {
            file: self.file,
            key: format!("{}[{i}]", self.key),
            name: self.name.clone(),
            value: item.get_ref(),
            span: item.span(),
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// The table, whose errors carry the name that its key `name` says, if it has one.
    pub(super) fn table(&self, what: &str, report: &mut Report) -> Option<Table<'t>> {
        let Some(entries) = self.value.as_table() else {
            self.expected(what, report);
            return None;
        };
        let own_name = entries.get("name").and_then(|name| name.get_ref().as_str());
        let name = own_name.map(|n| n.chars().take(QUOTED_CHARS_MAX).collect()).or_else(|| self.name.clone());
        Some(Table { file: self.file, key: self.key.clone(), name, entries, span: self.span.clone() })
    }

    /// A whole number that is not negative.
    pub(super) fn whole(&self) -> Option<u64> {
        whole(self.value)
    }

    /// A number, whole or not.
    pub(super) fn number(&self) -> Option<f64> {
        number(self.value)
    }

    /// Reads a table by its `Deserialize`, which stops at its first error.
    pub(super) fn deserialize<T: serde::de::DeserializeOwned>(&self, report: &mut Report) -> Option<T> {
        let spanned = Spanned::new(self.span.clone(), self.value.clone());
        match T::deserialize(toml::de::ValueDeserializer::from(spanned)) {
            Ok(read) => Some(read),
            Err(e) => {
                let start = e.span().map_or(self.span.start, |span| span.start);
                report.error(self.file.spot(start, &self.key, self.name.as_deref()), e.message());
                None
            }
        }
    }
}

/// A whole number that is not negative.
pub(super) fn whole(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A finite number.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    let number = match value {
        DeValue::Float(float) => float.as_str().parse().ok()?,
        _ => whole(value)? as f64,
    };
    Some(number).filter(|n: &f64| n.is_finite())
}

/// A value as an error quotes it.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// What kind of value it is, for errors that must not quote it.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A text in quotes, cut where it gets long. What looks like a secret in the wrong place isn't shown either.
pub(super) fn quoted(text: &str) -> String {
    if text.starts_with("whsec_") {
        return "what looks like a secret".to_owned();
    }
    let cut: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}

/// A part of a dotted key, quoted where TOML wants it.
fn quoted_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare && !key.starts_with("whsec_") { key.chars().take(QUOTED_CHARS_MAX).collect() } else { quoted(key) }
}
