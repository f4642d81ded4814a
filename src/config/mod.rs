//! Configuration: defaults, then the file, then `POSTRIDER_*` variables, then flags, into one typed [`Config`].
//!
//! | file | owns |
//! |---|---|
//! | `load` | the order of the sources, and the file itself |
//! | `settings` | the table of scalar settings: keys, ranges, fields |
//! | `rules` | what settings must be to each other |
//! | `source`, `endpoint`, `egress` | the tables of those names |
//! | `secrets` | `env:`, `file:` and literal secrets |
//! | `outside` | environment, file system and flags, passed in |
//! | `tree` | the parsed file with lines and keys |
//! | `error` | what is wrong, one line each |
//!
//! Architecture invariants:
//! - A [`Config`] that exists is valid; whoever gets one checks nothing again.
//! - All that is wrong with a file is told at once, each with file, line, key, what was expected and what is there.
//! - No error, warning or `Debug` output holds the value of a secret.
//! - The environment and the file system are arguments; nothing here looks at the process.
//!
//! `docs/postrider.toml` lists every key with its default; tests keep it complete and true.

mod egress;
mod endpoint;
mod error;
mod load;
mod outside;
mod rules;
mod secrets;
mod settings;
mod size;
mod source;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

pub use error::{ConfigError, ConfigErrors, Place, Spot};
pub use load::DEFAULT_FILE;
pub use outside::{Content, Environment, Files, Overrides, SystemFiles};
pub use secrets::{SecretError, resolve_secret};

use crate::core::cidr::Cidr;
use crate::core::endpoint::Catalog;
use crate::core::limits::{ApiLimits, DeliveryLimits, IngressLimits, PROCESS_BYTES_MAX, StoreLimits};

/// The whole configuration.
#[derive(Debug)]
pub struct Config {
    /// Sources and endpoints.
    pub catalog: Catalog,
    /// Where the gateway listens.
    pub listeners: Listeners,
    /// The folder of journal, key space and token.
    pub data_dir: PathBuf,
    /// The token's file, where it isn't `token` in the data folder.
    pub token_file: Option<PathBuf>,
    /// Every limit.
    pub limits: Limits,
    /// Where deliveries may go.
    pub egress: EgressSettings,
    /// Hosts and ports of endpoints of the file at `localhost` or a literal private or loopback address: each may be
    /// delivered to, at exactly that address and port. Hosts are in lower case, IPv6 ones without brackets.
    pub literals: Vec<(String, u16)>,
    /// From which level log lines are written.
    pub log: LogLevel,
    /// What is allowed but probably not meant, a line each, with its place.
    pub warnings: Vec<String>,
}

/// Where the gateway listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners {
    /// For providers: `POST /in/{source}`.
    pub ingress: SocketAddr,
    /// For the operator and the app: API, metrics, health.
    pub management: SocketAddr,
}

/// Every limit, by the part of the gateway that keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory that the process may take; the others are held against it.
    pub process_bytes_max: u64,
    /// The public listener's.
    pub ingress: IngressLimits,
    /// The store's.
    pub store: StoreLimits,
    /// The engine's and each attempt's.
    pub delivery: DeliveryLimits,
    /// The management listener's.
    pub api: ApiLimits,
}

/// Where deliveries may go beyond public addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressSettings {
    /// Networks that may be delivered to though they are private.
    pub allow: Vec<Cidr>,
    /// The only ports that may be delivered to; any if none is given.
    pub ports: Option<Vec<u16>>,
    /// PEM certificates of authorities to trust beside the public ones.
    pub ca_file: Option<PathBuf>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Bugs and data at risk.
    Error,
    /// And what needs a look.
    Warn,
    /// And failed deliveries, starts and stops.
    #[default]
    Info,
    /// And every delivery.
    Debug,
    /// And everything else.
    Trace,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            catalog: Catalog::new(Vec::new(), Vec::new()),
            listeners: Listeners::default(),
            data_dir: PathBuf::from("./postrider-data"),
            token_file: None,
            limits: Limits::default(),
            egress: EgressSettings::default(),
            literals: Vec::new(),
            log: LogLevel::default(),
            warnings: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            process_bytes_max: PROCESS_BYTES_MAX,
            ingress: IngressLimits::default(),
            store: StoreLimits::default(),
            delivery: DeliveryLimits::default(),
            api: ApiLimits::default(),
        }
    }
}

impl Default for Listeners {
    /// The world may send webhooks; only this machine may manage.
    fn default() -> Self {
        Self {
            ingress: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            management: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
        }
    }
}

impl LogLevel {
    /// Every level, the quietest first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The name in configuration, which is also that of `tracing`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"")]
pub struct LogLevelError;

impl FromStr for LogLevel {
    type Err = LogLevelError;

    fn from_str(text: &str) -> Result<Self, LogLevelError> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or(LogLevelError)
    }
}
