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

/// Resolves secrets, and remembers which variables were asked for.
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
        let (secret, reference) = if let Some(name) = text.strip_prefix("env:") {
            (self.variable(name, node, report)?, format!(" from env:{name}"))
        } else if let Some(path) = text.strip_prefix("file:") {
            (self.file(path, node, report)?, format!(" from file:{path}"))
        } else {
            (text.strip_prefix("literal:").unwrap_or(text).to_owned(), String::new())
        };
        if secret.is_empty() {
            node.blind(FORMS, &format!("an empty text{reference}"), report);
            return None;
        }
        Some(Secret::new(secret))
    }

    fn variable(&mut self, name: &str, node: &Node<'_>, report: &mut Report) -> Option<String> {
        let first_fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let rest_fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !first_fits || !rest_fits || name.len() > VARIABLE_BYTES_MAX {
            let expected = "the name of a variable after env:, of letters, digits and _";
            node.blind(expected, "another text; write literal:… for a secret that begins so", report);
            return None;
        }
        self.referred.insert(name.to_owned());
        match self.environment.get(name) {
            Ok(Some(value)) => Some(value.to_owned()),
            Ok(None) => {
                node.blind(&format!("a value for env:{name}"), "no such variable, or an empty one", report);
                None
            }
            Err(_) => {
                node.blind(&format!("UTF-8 in env:{name}"), "other bytes", report);
                None
            }
        }
    }

    fn file(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<String> {
        let content = match self.files.read(&self.base.join(path), SECRET_BYTES_MAX) {
            Ok(content) => content,
            Err(e) => {
                node.blind(&format!("a readable file at file:{path}"), &format!("an error: {e}"), report);
                return None;
            }
        };
        if content.is_public {
            let advice =
                format!("file:{path} can be read by every user of this machine; take that right away (chmod o-r)");
            report.warn(node.spot(), &advice);
        }
        if content.bytes.len() > SECRET_BYTES_MAX {
            node.blind(&format!("at most {SECRET_BYTES_MAX} bytes in file:{path}"), "more", report);
            return None;
        }
        let Ok(text) = String::from_utf8(content.bytes) else {
            node.blind(&format!("UTF-8 in file:{path}"), "other bytes", report);
            return None;
        };
        // Editors and `echo` end a file with a newline that isn't part of the secret.
        let line = text.strip_suffix('\n').unwrap_or(&text);
        Some(line.strip_suffix('\r').unwrap_or(line).to_owned())
    }
}
