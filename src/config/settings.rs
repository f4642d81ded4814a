//! The scalar settings as one table: where each is written, its unit and range, and the field it sets. The file, the
//! environment and the checks all go by it, so a limit that is added here can be set everywhere.
//!
//! Every range is checked here; what settings must be to each other is in `rules`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::error::{Place, Report, Spot};
use super::outside::{Environment, Overrides};
use super::suggest::did_you_mean;
use super::tree::{self, Table};
use super::{Config, LogLevel, size};

use Field::{U64, Usize};
use Unit::{Bytes, Count, Days, Seconds};

/// What every variable of ours begins with.
const PREFIX: &str = "POSTRIDER_";

/// The variable that names the file; `load` reads it.
pub(super) const FILE_VARIABLE: &str = "POSTRIDER_CONFIG";

/// One scalar setting.
pub(super) struct Setting {
    /// The table it stands in.
    pub(super) section: &'static str,
    /// Its key there.
    pub(super) key: &'static str,
    /// Its short variable, if it has one beside `POSTRIDER_<SECTION>_<KEY>`.
    short: Option<&'static str>,
    kind: Kind,
}

/// A field of the configuration that a number goes to.
enum Field<'a> {
    U64(&'a mut u64),
    Usize(&'a mut usize),
}

enum Kind {
    /// A number in a unit, within a range of what the field counts.
    Number {
        unit: Unit,
        min: u64,
        max: u64,
        field: fn(&mut Config) -> Field<'_>,
    },
    Address(fn(&mut Config) -> &mut SocketAddr),
    Path(fn(&mut Config, PathBuf)),
    Level,
}

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    /// Bytes, also as `"64MiB"`.
    Bytes,
    Count,
    /// Written in seconds, kept in milliseconds.
    Seconds,
    /// Written in days, kept in milliseconds.
    Days,
}

/// What is written for a setting.
#[derive(Clone, Copy)]
enum Written<'a> {
    Toml(&'a DeValue<'a>),
    Variable(&'a str),
}

/// Where each setting that isn't a default was written, by dotted key.
#[derive(Default)]
pub(super) struct Origins(BTreeMap<String, Spot>);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Milliseconds of an hour, the longest of most timeouts.
const HOUR: u64 = 3_600_000;
/// Milliseconds of ten years, the longest that anything is kept.
const DECADE: u64 = 3_650 * 86_400_000;

/// Every scalar setting, in the order of the reference file. hyper takes no head buffer below 8 KiB.
pub(super) static SETTINGS: &[Setting] = &[
    address("ingress", "POSTRIDER_INGRESS", |c| &mut c.listeners.ingress),
    address("management", "POSTRIDER_MANAGEMENT", |c| &mut c.listeners.management),
    path("data", "dir", Some("POSTRIDER_DATA"), |c, path| c.data_dir = path),
    path("data", "token_file", Some("POSTRIDER_TOKEN_FILE"), |c, path| c.token_file = Some(path)),
    kept("days", Days, 1_000, DECADE, |c| U64(&mut c.limits.store.retention_ms)),
    kept("bytes", Bytes, 256 * KIB, 1_024 * TIB, |c| U64(&mut c.limits.store.retention_bytes)),
    kept("dedup_days", Days, 1_000, DECADE, |c| U64(&mut c.limits.store.dedup_ms)),
    limit("process_bytes", Bytes, 16 * MIB, TIB, |c| U64(&mut c.limits.process_bytes_max)),
    limit("body_bytes", Bytes, 1, 256 * MIB, |c| U64(&mut c.limits.ingress.body_bytes_max)),
    limit("headers", Count, 16, 10_000, |c| Usize(&mut c.limits.ingress.headers_max)),
    limit("header_bytes", Bytes, 8 * KIB, MIB, |c| Usize(&mut c.limits.ingress.header_bytes_max)),
    limit("header_timeout_s", Seconds, 10, HOUR, |c| U64(&mut c.limits.ingress.header_timeout_ms)),
    limit("body_timeout_s", Seconds, 10, HOUR, |c| U64(&mut c.limits.ingress.body_timeout_ms)),
    limit("body_rate_min_bytes_s", Bytes, 0, GIB, |c| U64(&mut c.limits.ingress.body_rate_min_bytes_s)),
    limit("idle_timeout_s", Seconds, 10, 24 * HOUR, |c| U64(&mut c.limits.ingress.idle_timeout_ms)),
    limit("connections", Count, 1, 1_000_000, |c| Usize(&mut c.limits.ingress.connections_max)),
    limit("memory_bytes", Bytes, 64 * KIB, 64 * GIB, |c| Usize(&mut c.limits.ingress.memory_bytes_max)),
    limit("accept_timeout_s", Seconds, 10, HOUR, |c| U64(&mut c.limits.ingress.accept_timeout_ms)),
    limit("segment_bytes", Bytes, 64 * KIB, GIB, |c| U64(&mut c.limits.store.segment_bytes)),
    limit("queue_items", Count, 1, 1_000_000, |c| Usize(&mut c.limits.store.queue_items_max)),
    limit("queue_bytes", Bytes, 16 * KIB, 4 * GIB, |c| Usize(&mut c.limits.store.queue_bytes_max)),
    limit("batch_records", Count, 1, 65_536, |c| Usize(&mut c.limits.store.batch_records_max)),
    limit("batch_bytes", Bytes, 16 * KIB, GIB, |c| Usize(&mut c.limits.store.batch_bytes_max)),
    limit("lag_bytes", Bytes, 64 * KIB, 4 * GIB, |c| U64(&mut c.limits.store.lag_bytes_max)),
    limit("lag_s", Seconds, 10, HOUR, |c| U64(&mut c.limits.store.lag_ms_max)),
    limit("recent_bytes", Bytes, 0, 64 * GIB, |c| Usize(&mut c.limits.store.recent_bytes_max)),
    limit("cache_bytes", Bytes, MIB, 64 * GIB, |c| U64(&mut c.limits.store.cache_bytes)),
    limit("free_bytes", Bytes, 0, TIB, |c| U64(&mut c.limits.store.free_bytes_min)),
    limit("pending", Count, 1, 1_000_000_000, |c| U64(&mut c.limits.store.pending_max)),
    limit("in_flight", Count, 1, 100_000, |c| Usize(&mut c.limits.delivery.in_flight_max)),
    limit("endpoint_in_flight", Count, 1, 100_000, |c| Usize(&mut c.limits.delivery.endpoint_in_flight_max)),
    limit("window", Count, 1, 10_000_000, |c| Usize(&mut c.limits.delivery.window_max)),
    limit("attempt_timeout_s", Seconds, TIMEOUT_MS_MIN, TIMEOUT_MS_MAX, |c| {
        U64(&mut c.limits.delivery.attempt_timeout_ms)
    }),
    limit("response_kept_bytes", Bytes, 0, MIB, |c| Usize(&mut c.limits.delivery.response_bytes_kept)),
    limit("response_read_bytes", Bytes, 0, 64 * MIB, |c| Usize(&mut c.limits.delivery.response_bytes_read)),
    limit("response_header_bytes", Bytes, 8 * KIB, MIB, |c| Usize(&mut c.limits.delivery.response_header_bytes_max)),
    limit("drain_s", Seconds, 0, HOUR, |c| U64(&mut c.limits.delivery.drain_ms)),
    limit("api_body_bytes", Bytes, 1, 256 * MIB, |c| U64(&mut c.limits.api.body_bytes_max)),
    limit("api_page", Count, 1, 10_000, |c| Usize(&mut c.limits.api.page_max)),
    limit("api_connections", Count, 1, 1_000_000, |c| Usize(&mut c.limits.api.connections_max)),
    limit("api_request_timeout_s", Seconds, 10, HOUR, |c| U64(&mut c.limits.api.request_timeout_ms)),
    path("egress", "ca_file", None, |c, path| c.egress.ca_file = Some(path)),
    Setting { section: "log", key: "level", short: Some("POSTRIDER_LOG"), kind: Kind::Level },
];

/// The shortest and longest time of one attempt, in milliseconds.
pub(super) const TIMEOUT_MS_MIN: u64 = 10;
pub(super) const TIMEOUT_MS_MAX: u64 = 600_000;

const fn limit(key: &'static str, unit: Unit, min: u64, max: u64, field: fn(&mut Config) -> Field<'_>) -> Setting {
    Setting { section: "limits", key, short: None, kind: Kind::Number { unit, min, max, field } }
}

const fn kept(key: &'static str, unit: Unit, min: u64, max: u64, field: fn(&mut Config) -> Field<'_>) -> Setting {
    Setting { section: "retention", key, short: None, kind: Kind::Number { unit, min, max, field } }
}

const fn address(key: &'static str, short: &'static str, field: fn(&mut Config) -> &mut SocketAddr) -> Setting {
    Setting { section: "listen", key, short: Some(short), kind: Kind::Address(field) }
}

const fn path(
    section: &'static str,
    key: &'static str,
    short: Option<&'static str>,
    set: fn(&mut Config, PathBuf),
) -> Setting {
    Setting { section, key, short, kind: Kind::Path(set) }
}

impl Setting {
    /// The dotted key.
    pub(super) fn dotted(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// The long variable, which every setting has.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}_{}", self.section, self.key).to_uppercase()
    }

    /// The short variable.
    #[cfg(test)]
    pub(super) fn short_variable(&self) -> Option<&'static str> {
        self.short
    }

    /// Sets the field, or says what was expected. Relative paths start at `base`.
    fn set(&self, config: &mut Config, written: Written<'_>, base: &Path) -> Result<(), String> {
        match &self.kind {
            Kind::Number { unit, min, max, field } => {
                let range = *min..=*max;
                let number = written.number(*unit).filter(|n| range.contains(n));
                field(config).set(number.ok_or_else(|| unit.expected(*min, *max))?);
            }
            Kind::Address(field) => {
                let address = written.text().and_then(|text| text.parse().ok());
                *field(config) = address.ok_or("an IP address and port such as \"127.0.0.1:8081\"")?;
            }
            Kind::Path(set) => {
                let path = written.text().filter(|text| !text.is_empty());
                set(config, base.join(path.ok_or("a path")?));
            }
            Kind::Level => {
                let level = written.text().and_then(|text| text.parse::<LogLevel>().ok());
                config.log = level.ok_or("\"error\", \"warn\", \"info\", \"debug\" or \"trace\"")?;
            }
        }
        Ok(())
    }
}

impl Field<'_> {
    fn set(self, number: u64) {
        match self {
            U64(field) => *field = number,
            // No range reaches past the address space of the machines this runs on.
            Usize(field) => *field = usize::try_from(number).unwrap_or(usize::MAX),
        }
    }
}

impl Unit {
    /// Milliseconds of one, for a time.
    fn ms(self) -> u64 {
        if self == Days { 86_400_000 } else { 1_000 }
    }

    fn expected(self, min: u64, max: u64) -> String {
        let time = |ms: u64| ms as f64 / self.ms() as f64;
        match self {
            Bytes => {
                let (min, max) = (size::written(min), size::written(max));
                format!("a number of bytes, or a size such as \"64MiB\", between {min} and {max}")
            }
            Count => format!("a whole number between {min} and {max}"),
            Seconds => format!("a number of seconds between {} and {}", time(min), time(max)),
            // The shortest is for tests; days as people write them say more than its digits.
            Days => format!("a number of days above 0 and up to {}", time(max)),
        }
    }
}

impl<'a> Written<'a> {
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Variable(text) => Some(text),
        }
    }

    /// The number that the field is to hold.
    fn number(self, unit: Unit) -> Option<u64> {
        match unit {
            Bytes => self.whole().or_else(|| size::parse(self.text()?)),
            Count => self.whole(),
            Seconds | Days => {
                let number = match self {
                    Self::Toml(value) => tree::number(value),
                    Self::Variable(text) => text.parse().ok(),
                };
                milliseconds(number?, unit.ms())
            }
        }
    }

    fn whole(self) -> Option<u64> {
        match self {
            Self::Toml(value) => tree::whole(value),
            Self::Variable(text) => text.parse().ok(),
        }
    }

    fn shown(self) -> String {
        match self {
            Self::Toml(value) => tree::shown(value),
            Self::Variable(text) => tree::quoted(text),
        }
    }
}

/// A time in whole milliseconds; none for what is negative, past any range, or no number.
pub(super) fn milliseconds(number: f64, unit_ms: u64) -> Option<u64> {
    let ms = (number * unit_ms as f64).round();
    // Past 2^53 a double doesn't hold every whole number; every range ends far below.
    (0.0..9e15).contains(&ms).then_some(ms as u64)
}

impl Origins {
    /// Where the setting was written.
    pub(super) fn spot(&self, dotted: &str) -> Spot {
        let default = || Spot { place: Place::Default {}, key: dotted.to_owned(), name: None };
        self.0.get(dotted).cloned().unwrap_or_else(default)
    }

    /// Where it was written, if it was.
    pub(super) fn written(&self, dotted: &str) -> Option<&Spot> {
        self.0.get(dotted)
    }
}

/// The keys of a section's scalar settings.
pub(super) fn keys_of(section: &str) -> Vec<&'static str> {
    SETTINGS.iter().filter(|s| s.section == section).map(|s| s.key).collect()
}

/// Takes the settings of one table of the file.
pub(super) fn from_table(
    config: &mut Config,
    section: &str,
    table: &Table<'_>,
    base: &Path,
    origins: &mut Origins,
    report: &mut Report,
) {
    for setting in SETTINGS.iter().filter(|s| s.section == section) {
        let Some(node) = table.get(setting.key) else { continue };
        match setting.set(config, Written::Toml(node.value()), base) {
            Ok(()) => drop(origins.0.insert(setting.dotted(), node.spot())),
            Err(expected) => node.expected(&expected, report),
        }
    }
}

/// Takes the settings of the environment.
pub(super) fn from_environment(
    config: &mut Config,
    environment: &Environment,
    origins: &mut Origins,
    report: &mut Report,
) {
    for setting in SETTINGS {
        let long = setting.variable();
        let mut found = None;
        for name in setting.short.into_iter().chain([long.as_str()]) {
            let spot = Spot { place: Place::Variable { variable: name.to_owned() }, key: setting.dotted(), name: None };
            match environment.get(name) {
                Ok(None) => {}
                Ok(Some(_)) if found.is_some() => {
                    let short = setting.short.unwrap_or_default();
                    report.error(spot, &format!("expected one of {short} and {long}, got both"));
                }
                Ok(Some(text)) => found = Some((spot, text)),
                Err(_) => report.error(spot, "expected UTF-8, got other bytes"),
            }
        }
        let Some((spot, text)) = found else { continue };
        let written = Written::Variable(text);
        match setting.set(config, written, Path::new("")) {
            Ok(()) => drop(origins.0.insert(setting.dotted(), spot)),
            Err(expected) => report.error(spot, &format!("expected {expected}, got {}", written.shown())),
        }
    }
}

/// Warns of variables that look like ours and set nothing. Those that the file refers to are no mistake.
pub(super) fn warn_of_unknown(environment: &Environment, is_referred: impl Fn(&str) -> bool, report: &mut Report) {
    let long: Vec<_> = SETTINGS.iter().map(Setting::variable).collect();
    let short = SETTINGS.iter().filter_map(|s| s.short);
    let known: Vec<_> = long.iter().map(String::as_str).chain(short).chain([FILE_VARIABLE]).collect();
    for name in environment.names(PREFIX).filter(|n| !known.contains(n) && !is_referred(n)) {
        let spot = Spot { place: Place::Variable { variable: name.to_owned() }, key: String::new(), name: None };
        let hint = did_you_mean(name, known.iter().copied());
        report.warn(spot, &format!("this variable sets nothing{hint}"));
    }
}

/// Takes the settings of the command line.
pub(super) fn from_flags(config: &mut Config, flags: &Overrides, origins: &mut Origins) {
    let mut note = |flag: &'static str, key: &str| {
        let spot = Spot { place: Place::Flag { flag }, key: key.to_owned(), name: None };
        origins.0.insert(key.to_owned(), spot);
    };
    if let Some(dir) = &flags.data {
        config.data_dir.clone_from(dir);
        note("--data", "data.dir");
    }
    if let Some(address) = flags.ingress {
        config.listeners.ingress = address;
        note("--ingress", "listen.ingress");
    }
    if let Some(address) = flags.management {
        config.listeners.management = address;
        note("--management", "listen.management");
    }
    if let Some(file) = &flags.token_file {
        config.token_file = Some(file.clone());
        note("--token-file", "data.token_file");
    }
    if let Some(level) = flags.log {
        config.log = level;
        note("--log", "log.level");
    }
}
