//! A gateway as a child process: this executable with `serve`, on free ports.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;

use super::child::Process;
use super::exit::{self, Failure};

/// Bytes of the log's end that a failure shows.
const LOG_BYTES: usize = 2_000;

/// A running gateway; it ends with its handle.
pub(super) struct Gateway {
    process: Process,
    log: PathBuf,
    /// Where it takes webhooks, `host:port`.
    pub(super) ingress: String,
    /// URL of its management API.
    pub(super) management: String,
    /// File of its token.
    pub(super) token: PathBuf,
}

impl Gateway {
    /// Starts `program` on the configuration and data in `home`, and waits until it serves.
    pub(super) fn start(program: &Path, home: &Path, log_level: &str) -> Result<Self, Failure> {
        let log = home.join("gateway.log");
        let io = |error: std::io::Error| Failure::new(exit::STORAGE, format_args!("starting the gateway: {error}"));
        let stderr = OpenOptions::new().create(true).append(true).open(&log).map_err(io)?;
        let mut command = Command::new(program);
        command.args(["serve", "--log", log_level, "--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0"]);
        command.arg("--config").arg(home.join("postrider.toml")).arg("--data").arg(home.join("data"));
        // What the caller has set for a gateway of their own is not for this one.
        for name in std::env::vars_os().map(|(name, _)| name) {
            if name.to_string_lossy().starts_with("POSTRIDER_") {
                command.env_remove(name);
            }
        }
        command.stderr(stderr);
        let process = Process::start(command).map_err(io)?;
        let (ingress, management, token) = (String::new(), String::new(), PathBuf::new());
        let mut gateway = Self { process, log, ingress, management, token };
        gateway.wait_until_it_serves()?;
        Ok(gateway)
    }

    fn wait_until_it_serves(&mut self) -> Result<(), Failure> {
        while self.ingress.is_empty() || self.management.is_empty() || self.token.as_os_str().is_empty() {
            let line = self.process.line().map_err(|error| match error {
                RecvTimeoutError::Timeout => self.failed("it does not say where it listens"),
                RecvTimeoutError::Disconnected => self.failed("it ended at once"),
            })?;
            match line.split_once(' ') {
                Some(("ingress", url)) => self.ingress = url.trim_start_matches("http://").to_owned(),
                Some(("management", url)) => self.management = url.to_owned(),
                Some(("token", path)) => self.token = path.into(),
                _ => {}
            }
        }
        Ok(())
    }

    /// The number of its process.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The failure that the gateway does not do what it must, with the end of its log.
    pub(super) fn failed(&self, why: &str) -> Failure {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_BYTES)..]).into_owned();
        Failure::new(exit::NEGATIVE, format_args!("the gateway failed: {why}; the end of its log:\n{}", end.trim_end()))
    }
}
