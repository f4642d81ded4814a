//! The gateway under demonstration: this executable with `serve`, as a child process.
//!
//! **Invariant:** the child does not outlive its handle.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::cli::exit::{self, Failure};

/// Milliseconds for a gateway to say where it listens.
const START_TIMEOUT_MS: u64 = 15_000;

/// Bytes of the log's end that a failure shows.
const LOG_BYTES: usize = 2_000;

/// A running gateway.
pub(super) struct Gateway {
    child: Child,
    log: PathBuf,
    /// Where it takes webhooks, `host:port`.
    pub(super) ingress: String,
    /// URL of its management API.
    pub(super) management: String,
    /// File of its token.
    pub(super) token: PathBuf,
}

impl Gateway {
    /// Starts a gateway on free ports, on the configuration and data in `home`, and waits until it serves.
    pub(super) fn start(home: &Path) -> Result<Self, Failure> {
        let log = home.join("gateway.log");
        let io = |error: std::io::Error| Failure::new(exit::STORAGE, format_args!("starting the gateway: {error}"));
        let stderr = OpenOptions::new().create(true).append(true).open(&log).map_err(io)?;
        let mut command = Command::new(std::env::current_exe().map_err(io)?);
        command.args(["serve", "--log", "info", "--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0"]);
        command.arg("--config").arg(home.join("postrider.toml")).arg("--data").arg(home.join("data"));
        // What the caller has set for a gateway of their own is not for this one.
        for name in std::env::vars_os().map(|(name, _)| name) {
            if name.to_string_lossy().starts_with("POSTRIDER_") {
                command.env_remove(name);
            }
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().map_err(io)?;
        let stdout = child.stdout.take();
        let mut gateway = Self { child, log, ingress: String::new(), management: String::new(), token: PathBuf::new() };
        match stdout.map(lines) {
            Some(lines) => gateway.wait_until_it_serves(&lines)?,
            // The pipe was asked for above, so it is there.
            None => return Err(gateway.failed("it has no stdout")),
        }
        Ok(gateway)
    }

    fn wait_until_it_serves(&mut self, lines: &Receiver<String>) -> Result<(), Failure> {
        while self.ingress.is_empty() || self.management.is_empty() || self.token.as_os_str().is_empty() {
            let line = lines.recv_timeout(Duration::from_millis(START_TIMEOUT_MS)).map_err(|error| match error {
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

    /// Ends the gateway as a power cut would end it: SIGKILL, which no process can catch.
    pub(super) fn kill(mut self) {
        self.end();
    }

    /// The failure that the gateway does not do what it must, with the end of its log.
    pub(super) fn failed(&self, why: &str) -> Failure {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_BYTES)..]).into_owned();
        Failure::new(exit::NEGATIVE, format_args!("the gateway failed: {why}; the end of its log:\n{}", end.trim_end()))
    }

    fn end(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}

/// The lines that a child prints. A thread reads them for as long as the child lives, so that its pipe never fills.
fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Once it serves, nobody listens any more.
            let _ = sender.send(line);
        }
    });
    receiver
}
