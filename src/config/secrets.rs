//! Secrets as they are written: `env:NAME`, `file:PATH`, or the text itself (`literal:…` where it would be taken for one
//! of the others).
//!
//! Invariant: an error names the reference, never what it resolves to, and never a literal.

use std::collections::BTreeSet;
use std::path::Path;

use super::error::Report;
use super::outside::{Environment, Files};
use super::tree::{Node, kind};
use crate::core::secret::Secret;

/// Longest secret file, in bytes.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// Longest name of a variable that an error shows, in bytes; a longer one is a secret behind a wrong prefix.
const VARIABLE_BYTES_MAX: usize = 128;

const FORMS: &str = "a secret: \"env:NAME\", \"file:PATH\" or the secret itself";

/// A secret that is not there, or not usable as text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {got}")]
pub struct SecretError {
    expected: String,
    got: String,
}

impl SecretError {
    fn new(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { expected: expected.into(), got: got.into() }
    }
}

/// The secret that `text` stands for on a command line, where relative paths start at the working directory.
///
/// # Errors
/// [`SecretError`] when the variable or file that it names isn't there, or holds no text.
pub fn resolve_secret(text: &str, environment: &Environment, files: &dyn Files) -> Result<Secret, SecretError> {
    resolve(text, environment, files, Path::new("")).map(|resolved| resolved.secret)
}

struct Resolved {
    secret: Secret,
    /// The secret came from a file that everyone may read.
    is_public: bool,
}

/// `base` is where relative paths start.
fn resolve(text: &str, environment: &Environment, files: &dyn Files, base: &Path) -> Result<Resolved, SecretError> {
    let mut is_public = false;
    let (secret, reference) = if let Some(name) = text.strip_prefix("env:") {
        (variable(name, environment)?, format!(" from env:{name}"))
    } else if let Some(path) = text.strip_prefix("file:") {
        let secret;
        (secret, is_public) = file(path, files, base)?;
        (secret, format!(" from file:{path}"))
    } else {
        (text.strip_prefix("literal:").unwrap_or(text).to_owned(), String::new())
    };
    if secret.is_empty() {
        return Err(SecretError::new(FORMS, format!("an empty text{reference}")));
    }
    Ok(Resolved { secret: Secret::new(secret), is_public })
}

fn variable(name: &str, environment: &Environment) -> Result<String, SecretError> {
    if !is_variable(name) {
        let expected = "the name of a variable after env:, of letters, digits and _";
        return Err(SecretError::new(expected, "another text; write literal:… for a secret that begins so"));
    }
    match environment.get(name) {
        Ok(Some(value)) => Ok(value.to_owned()),
        Ok(None) => Err(SecretError::new(format!("a value for env:{name}"), "no such variable, or an empty one")),
        Err(_) => Err(SecretError::new(format!("UTF-8 in env:{name}"), "other bytes")),
    }
}

fn is_variable(name: &str) -> bool {
    let first_fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest_fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    first_fits && rest_fits && name.len() <= VARIABLE_BYTES_MAX
}

/// The text of a file, and whether everyone may read it.
fn file(path: &str, files: &dyn Files, base: &Path) -> Result<(String, bool), SecretError> {
    let content = files
        .read(&base.join(path), SECRET_BYTES_MAX)
        .map_err(|e| SecretError::new(format!("a readable file at file:{path}"), format!("an error: {e}")))?;
    if content.bytes.len() > SECRET_BYTES_MAX {
        return Err(SecretError::new(format!("at most {SECRET_BYTES_MAX} bytes in file:{path}"), "more"));
    }
    let text = String::from_utf8(content.bytes)
        .map_err(|_| SecretError::new(format!("UTF-8 in file:{path}"), "other bytes"))?;
    // Editors and `echo` end a file with a newline that isn't part of the secret.
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok((line.strip_suffix('\r').unwrap_or(line).to_owned(), content.is_public))
}

/// Resolves secrets of a file, and remembers which variables were asked for.
pub(super) struct SecretReader<'a> {
    environment: &'a Environment,
    files: &'a dyn Files,
    base: &'a Path,
    referred: BTreeSet<String>,
}

impl<'a> SecretReader<'a> {
    /// `base` is the folder of the configuration file, at which relative paths start.
    pub(super) fn new(environment: &'a Environment, files: &'a dyn Files, base: &'a Path) -> Self {
        Self { environment, files, base, referred: BTreeSet::new() }
    }

    /// Whether a secret refers to this variable.
    pub(super) fn refers_to(&self, variable: &str) -> bool {
        self.referred.contains(variable)
    }

    /// The secret that a node stands for.
    pub(super) fn read(&mut self, node: &Node<'_>, report: &mut Report) -> Option<Secret> {
        let Some(text) = node.value().as_str() else {
            node.blind(FORMS, kind(node.value()), report);
            return None;
        };
        if let Some(name) = text.strip_prefix("env:").filter(|name| is_variable(name)) {
            self.referred.insert(name.to_owned());
        }
        match resolve(text, self.environment, self.files, self.base) {
            Ok(resolved) => {
                if resolved.is_public {
                    let advice =
                        format!("{text} can be read by every user of this machine; take that right away (chmod o-r)");
                    report.warn(node.spot(), &advice);
                }
                Some(resolved.secret)
            }
            Err(error) => {
                node.blind(&error.expected, &error.got, report);
                None
            }
        }
    }
}
