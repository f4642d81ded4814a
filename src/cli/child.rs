//! This executable as a child process, for commands that need a server of their own.
//!
//! **Invariant:** a child does not outlive its handle.

use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Milliseconds for a child to say the next line while it starts.
const LINE_TIMEOUT_MS: u64 = 15_000;

/// A process that ends with its handle.
pub(super) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a command whose lines on stdout are read. It gets a process group of its own: an interrupt at the terminal is
    /// for the command that started it, which then ends it.
    pub(super) fn start(mut command: Command) -> io::Result<Self> {
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = child.stdout.take().map(lines).ok_or_else(|| io::Error::other("expected a pipe from the child"))?;
        Ok(Self { child, lines })
    }

    /// The next line that it prints.
    pub(super) fn line(&self) -> Result<String, RecvTimeoutError> {
        self.lines.recv_timeout(Duration::from_millis(LINE_TIMEOUT_MS))
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    /// Ends it as a power cut would: SIGKILL, which no process can catch.
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
