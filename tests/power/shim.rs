//! The shim: made once per run of the tests, then set before a command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The compiled shim.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/shim.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shim-{}.so", std::process::id()));
        let mut compile = Command::new("cc");
        compile.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o"]);
        let status = compile.arg(&library).arg(source).status();
        assert!(status.expect("cc is needed to link Rust, and to make the shim").success());
        library
    })
}

/// A call that is to fail.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Which of the shim's kinds: `write`, `sync`, `open`, ….
    pub kind: &'static str,
    /// The first that fails, counted from one.
    pub n: u64,
    /// What it fails with; zero is a short write.
    pub errno: i32,
    /// All after it fail as well.
    pub always: bool,
}

/// The error of a read, a write or a sync that never returns.
pub const HANG: i32 = -2;

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = if self.always { "always" } else { "once" };
        write!(f, "{} {} {} {mode}", self.kind, self.n, self.errno)
    }
}

/// The file that begins a fault in the commands that write to `log`.
fn begin_of(log: &Path) -> PathBuf {
    log.with_extension("begin")
}

/// Lets the fault of those begin that write to `log`.
pub fn fault_begins(log: &Path) {
    std::fs::write(begin_of(log), "").unwrap();
}

/// How a command is watched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watch {
    /// What is to fail.
    pub fault: Option<Fault>,
    /// Only calls on open files whose path holds this are counted for it, and only once [`fault_begins`] was called.
    pub fault_in: Option<&'static str>,
    /// SIGKILL after so many records.
    pub kill_after: Option<u64>,
}

impl Watch {
    /// Sets the shim before a command that works below `dir`; it goes on writing to `log`.
    pub fn set(self, command: &mut Command, dir: &Path, log: &Path) {
        command.env("LD_PRELOAD", library()).env("SHIM_DIR", dir).env("SHIM_LOG", log);
        if let Some(fault) = self.fault {
            command.env("SHIM_FAIL", fault.to_string());
        }
        if let Some(part) = self.fault_in {
            command.env("SHIM_FAIL_IN", part).env("SHIM_FAIL_WHEN", begin_of(log));
        }
        if let Some(records) = self.kill_after {
            command.env("SHIM_KILL", records.to_string());
        }
    }
}
