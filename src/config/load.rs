//! Reading: which file, in which order the sources win, and the file's top level.

use std::io;
use std::path::{Path, PathBuf};

use super::error::{ConfigErrors, Place, Report, Spot};
use super::outside::{Environment, Files, Overrides};
use super::secrets::SecretReader;
use super::settings::{self, FILE_VARIABLE, Origins};
use super::tree::{self, File, Node, Table};
use super::{Config, egress, endpoint, rules, source};
use crate::core::endpoint::Catalog;

/// The file that is read if it exists and no other is named.
pub const DEFAULT_FILE: &str = "postrider.toml";

/// Longest configuration file, in bytes.
const FILE_BYTES_MAX: usize = 8 << 20;

/// Most sources, and most endpoints, of one file.
const TABLES_MAX: usize = 10_000;

/// The tables of scalar settings.
const SECTIONS: [&str; 6] = ["listen", "data", "retention", "limits", "egress", "log"];

/// The tables that come more than once.
const REPEATED: [&str; 2] = ["source", "endpoint"];

/// How much of a configuration is asked for.
#[derive(Clone, Copy, PartialEq)]
enum Parts {
    All,
    /// No sources, endpoints and secrets.
    Settings,
}

/// The file's path and text.
struct Text {
    path: PathBuf,
    text: String,
}

impl Config {
    /// Reads the configuration: each flag wins over its variable, that over the file, that over the default.
    ///
    /// Without `--config` and `POSTRIDER_CONFIG`, `./postrider.toml` is read if it exists. Paths in the file start at the
    /// file's folder, others at the working directory.
    ///
    /// # Errors
    /// All that is wrong, with its place.
    pub fn load(flags: &Overrides, environment: &Environment, files: &dyn Files) -> Result<Self, ConfigErrors> {
        Self::load_parts(flags, environment, files, Parts::All)
    }

    /// Reads the settings alone, for commands that work on a store or talk to a gateway: they need no source and no
    /// endpoint, and must not fail for a secret that only the gateway's environment has. The catalog stays empty.
    ///
    /// # Errors
    /// All that is wrong with the settings, with its place.
    pub fn load_settings(
        flags: &Overrides,
        environment: &Environment,
        files: &dyn Files,
    ) -> Result<Self, ConfigErrors> {
        Self::load_parts(flags, environment, files, Parts::Settings)
    }

    fn load_parts(
        flags: &Overrides,
        environment: &Environment,
        files: &dyn Files,
        parts: Parts,
    ) -> Result<Self, ConfigErrors> {
        let mut report = Report::default();
        let read = find_file(flags, environment, files, &mut report);
        let mut config = Self::default();
        let file = read.as_ref().map(|read| File { path: &read.path, text: &read.text });
        let tree = file.and_then(|file| Some((file, tree::parse(file, &mut report)?)));
        let root = tree.as_ref().map(|(file, tree)| Table::root(*file, tree));
        let base = read.as_ref().and_then(|read| read.path.parent()).unwrap_or(Path::new(""));
        config.read(root.as_ref(), base, (flags, environment, files), parts, &mut report);
        config.warnings = report.finish()?;
        Ok(config)
    }

    /// Takes every source in the order in which they win. What sources and endpoints default to comes from the settings,
    /// so these come first.
    fn read(
        &mut self,
        root: Option<&Table<'_>>,
        base: &Path,
        (flags, environment, files): (&Overrides, &Environment, &dyn Files),
        parts: Parts,
        report: &mut Report,
    ) {
        let mut origins = Origins::default();
        if let Some(root) = root {
            root.check_keys(&[SECTIONS.as_slice(), &REPEATED].concat(), report);
            self.read_sections(root, base, &mut origins, report);
        }
        settings::from_environment(self, environment, &mut origins, report);
        settings::from_flags(self, flags, &mut origins);
        rules::fit_defaults(self, &origins);
        rules::check(self, &origins, report);
        if parts == Parts::Settings {
            return;
        }
        egress::check_ca_file(&self.egress, files, &origins, report);
        let mut secrets = SecretReader::new(environment, files, base);
        if let Some(root) = root {
            self.read_catalog(root, &mut secrets, report);
        }
        settings::warn_of_unknown(environment, |name| secrets.refers_to(name), report);
    }

    fn read_sections(&mut self, root: &Table<'_>, base: &Path, origins: &mut Origins, report: &mut Report) {
        for section in SECTIONS {
            let Some(node) = root.get(section) else { continue };
            let Some(table) = node.table(&format!("a [{section}] table"), report) else { continue };
            let mut keys = settings::keys_of(section);
            if section == "egress" {
                keys.extend(egress::LIST_KEYS);
                egress::read_lists(&table, &mut self.egress, report);
            }
            table.check_keys(&keys, report);
            settings::from_table(self, section, &table, base, origins, report);
        }
    }

    fn read_catalog(&mut self, root: &Table<'_>, secrets: &mut SecretReader<'_>, report: &mut Report) {
        let source_nodes = tables(root, "source", report);
        let endpoint_nodes = tables(root, "endpoint", report);
        let sources = source::read_all(&source_nodes, secrets, report);
        let endpoints = endpoint::read_all(&endpoint_nodes, &sources, self, secrets, report);
        endpoint::warn_of_untaken(&source_nodes, &sources, &endpoints, report);
        self.catalog = Catalog::new(sources.complete, endpoints);
    }
}

/// The tables that are written as `[[key]]`.
fn tables<'t>(root: &Table<'t>, key: &str, report: &mut Report) -> Vec<Node<'t>> {
    let Some(node) = root.get(key) else { return Vec::new() };
    let what = format!("tables that begin with [[{key}]]");
    let nodes = node.list(&what, report).unwrap_or_default();
    if nodes.len() > TABLES_MAX {
        node.blind(&format!("at most {TABLES_MAX} {what}"), &format!("{} of them", nodes.len()), report);
        return Vec::new();
    }
    nodes
}

/// Reads the file that is named, or the default one if there is one.
fn find_file(flags: &Overrides, environment: &Environment, files: &dyn Files, report: &mut Report) -> Option<Text> {
    let variable = environment.get(FILE_VARIABLE).unwrap_or_else(|_| {
        let place = Place::Variable { variable: FILE_VARIABLE.to_owned() };
        report.error(Spot { place, key: String::new(), name: None }, "expected UTF-8, got other bytes");
        None
    });
    let named = flags.config.clone().or_else(|| variable.map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let got = match files.read(&path, FILE_BYTES_MAX) {
        Ok(content) if content.bytes.len() > FILE_BYTES_MAX => format!("more than {FILE_BYTES_MAX} bytes"),
        Ok(content) => match String::from_utf8(content.bytes) {
            Ok(text) => return Some(Text { path, text }),
            Err(_) => "bytes that are not UTF-8".to_owned(),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound && named.is_none() => return None,
        Err(e) => format!("an error: {e}"),
    };
    report.error(Spot::whole_file(&path), &format!("expected a readable configuration file, got {got}"));
    None
}
