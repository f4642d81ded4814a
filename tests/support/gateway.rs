//! `postrider serve` as a child process on a directory and ports of its own, which last over its restarts.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use super::PATIENCE;

/// Ports below those that the system gives to outgoing connections: one of these could take a port while no gateway runs.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A place to run gateways at, one after the other.
pub struct Site {
    home: tempfile::TempDir,
    pub ingress: SocketAddr,
    pub management: SocketAddr,
}

impl Site {
    /// A new directory with this configuration.
    pub fn new(config: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("postrider.toml"), config).unwrap();
        let [ingress, management] = free_ports();
        Self { home, ingress, management }
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    /// What every gateway here has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home().join("log")).unwrap_or_default()
    }

    pub fn token(&self) -> String {
        fs::read_to_string(self.data().join("token")).unwrap().trim_end().to_owned()
    }

    /// A command line of the binary; what it says on stderr goes to the log.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        // What the caller has set for a gateway of their own is not for this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("POSTRIDER_")) {
            command.env_remove(name);
        }
        let log = OpenOptions::new().create(true).append(true).open(self.home().join("log")).unwrap();
        command.args(arguments).stdin(Stdio::null()).stderr(log);
        command
    }

    /// The command line that serves here.
    pub fn serve(&self) -> Command {
        let mut command = self.command(&["serve"]);
        command.arg("--config").arg(self.home().join("postrider.toml")).arg("--data").arg(self.data());
        command.arg("--ingress").arg(self.ingress.to_string()).arg("--management").arg(self.management.to_string());
        command
    }

    /// A gateway that serves.
    pub fn start(&self) -> Gateway {
        let mut gateway = Gateway::spawn(self.serve());
        assert!(gateway.is_ready(), "the gateway ended with {:?}:\n{}", gateway.exit_code(), self.log());
        gateway
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines = log.lines().rev().filter(|line| !line.contains("INFO attempt "));
            let tail: Vec<_> = lines.take(30).collect();
            eprintln!("kept {}; its log ends with:", self.home().display());
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
            self.home.disable_cleanup(true);
        }
    }
}

/// Two ports that nobody listens on. They are not asked for twice in one process, and processes begin at different ones.
pub fn free_ports() -> [SocketAddr; 2] {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    [(); 2].map(|()| {
        loop {
            let nth = (std::process::id().wrapping_mul(64)).wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed)) % count;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORTS.start + u16::try_from(nth).unwrap()));
            if TcpListener::bind(address).is_ok() {
                return address;
            }
        }
    })
}

/// A gateway; it does not outlive its handle.
pub struct Gateway {
    child: Child,
    lines: Receiver<String>,
}

impl Gateway {
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        // Reads for as long as the child lives, so that its pipe never fills; its end is the child's end.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says that it serves; false when it ended instead.
    pub fn is_ready(&mut self) -> bool {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with("token ") => return true,
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("the gateway neither serves nor ends"),
            }
        }
    }

    /// SIGKILL, which no process can catch; returns when it is gone. It must not have ended before.
    pub fn kill(mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the gateway ended by itself: {ended:?}");
        self.end();
    }

    /// SIGKILL in the middle of its own end, unless it was quicker.
    pub fn kill_ending(mut self) {
        self.end();
        let status = self.child.wait().unwrap();
        assert!(status.code().is_none_or(|code| code == 0), "the gateway ended by itself: {status:?}");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.id())).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it ends by itself; `None` when a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap().code(),
                Err(RecvTimeoutError::Timeout) => panic!("the gateway does not end"),
            }
        }
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
