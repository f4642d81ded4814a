//! What is wrong with a configuration, where, and what was expected.
//!
//! Invariant: an error is one line of text, and no text in it is the value of a secret; whoever reads a secret reports it
//! with [`crate::config::tree::Node::blind`].

use std::fmt;
use std::path::Path;

use serde::Serialize;

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Place {
    /// In the configuration file.
    File {
        /// Its path, as it was given.
        file: String,
        /// The line, from 1; none when the file as a whole is meant.
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<usize>,
        /// The column in characters, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        column: Option<usize>,
    },
    /// In an environment variable.
    Variable {
        /// Its name.
        variable: String,
    },
    /// In a flag of the command line.
    Flag {
        /// Its name with the dashes.
        flag: &'static str,
    },
    /// Nowhere: it is the default.
    Default {},
}

/// One setting: where it was written and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spot {
    /// Where it was written.
    #[serde(flatten)]
    pub place: Place,
    /// The dotted key, such as `endpoint[2].url`; indexes count from 0. Empty when no key is meant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The name of the source or endpoint that the key belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct ConfigError {
    /// Where.
    #[serde(flatten)]
    pub at: Spot,
    /// What was expected and what is there.
    pub message: String,
}

/// Everything that is wrong, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The errors, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl Spot {
    /// The file as a whole.
    pub(super) fn whole_file(file: &Path) -> Self {
        let place = Place::File { file: file_name(file), line: None, column: None };
        Self { place, key: String::new(), name: None }
    }
}

impl ConfigError {
    pub(super) fn new(at: Spot, message: &str) -> Self {
        Self { at, message: one_line(message) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line: Some(line), .. } => write!(f, "{file}:{line}"),
            Self::File { file, line: None, .. } => f.write_str(file),
            Self::Variable { variable } => f.write_str(variable),
            Self::Flag { flag } => f.write_str(flag),
            Self::Default {} => f.write_str("default"),
        }
    }
}

impl fmt::Display for ConfigError {
    /// `file:line: key: expected …, got …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at.place)?;
        match &self.at.name {
            Some(name) if !self.at.key.is_empty() => write!(f, "{} ({name:?}): ", self.at.key)?,
            _ if !self.at.key.is_empty() => write!(f, "{}: ", self.at.key)?,
            _ => {}
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for ConfigErrors {
    /// One line for each error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            write!(f, "{end}{error}")?;
        }
        Ok(())
    }
}

/// Collects what is wrong, so that all of it can be told at once.
#[derive(Default)]
pub(super) struct Report {
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
}

impl Report {
    pub(super) fn error(&mut self, at: Spot, message: &str) {
        self.errors.push(ConfigError::new(at, message));
    }

    pub(super) fn warn(&mut self, at: Spot, message: &str) {
        self.warnings.push(ConfigError::new(at, message));
    }

    /// The warnings as lines, or the errors.
    pub(super) fn finish(mut self) -> Result<Vec<String>, ConfigErrors> {
        // The parser keeps the keys of a table in the order of their names; people read files from top to bottom.
        let line = |error: &ConfigError| match &error.at.place {
            Place::File { line, column, .. } => (0, *line, *column),
            Place::Variable { .. } => (1, None, None),
            Place::Flag { .. } => (2, None, None),
            Place::Default {} => (3, None, None),
        };
        self.errors.sort_by_key(line);
        self.warnings.sort_by_key(line);
        if self.errors.is_empty() {
            Ok(self.warnings.iter().map(ToString::to_string).collect())
        } else {
            Err(ConfigErrors(self.errors))
        }
    }
}

/// A path as errors show it.
pub(super) fn file_name(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}

/// Escapes what would break the line or move a terminal's cursor.
fn one_line(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: Place, key: &str, name: Option<&str>) -> Spot {
        Spot { place, key: key.to_owned(), name: name.map(str::to_owned) }
    }

    fn in_file(line: usize) -> Place {
        Place::File { file: "p.toml".to_owned(), line: Some(line), column: Some(7) }
    }

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let error = ConfigError::new(at(in_file(3), "endpoint[0].url", Some("a\nb")), "expected x,\n got \x1b[2J");
        assert_eq!(error.to_string(), r#"p.toml:3: endpoint[0].url ("a\nb"): expected x,\n got \u{1b}[2J"#);
    }

    #[test]
    fn errors_come_in_the_order_of_the_file() {
        let mut report = Report::default();
        report.error(at(Place::Flag { flag: "--data" }, "data.dir", None), "c");
        report.error(at(in_file(9), "b", None), "b");
        report.error(at(in_file(2), "a", None), "a");
        let errors = report.finish().unwrap_err();
        assert_eq!(errors.to_string(), "p.toml:2: a: a\np.toml:9: b: b\n--data: data.dir: c");
    }

    #[test]
    fn as_json_each_part_has_its_field() {
        let errors = ConfigErrors(vec![
            ConfigError::new(at(in_file(3), "source[1].name", Some("x")), "m"),
            ConfigError::new(at(Place::Variable { variable: "POSTRIDER_LOG".to_owned() }, "log.level", None), "n"),
        ]);
        assert_eq!(
            serde_json::to_string(&errors).unwrap(),
            concat!(
                r#"[{"file":"p.toml","line":3,"column":7,"key":"source[1].name","name":"x","message":"m"},"#,
                r#"{"variable":"POSTRIDER_LOG","key":"log.level","message":"n"}]"#
            )
        );
    }
}
