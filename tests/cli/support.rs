//! Running the binary, and a gateway in the background.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A Standard Webhooks secret.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a command printed and how it ended.
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The one JSON value on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {:?} {:?}", self.stdout, self.stderr))
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout {:?} stderr {:?}", self.stdout, self.stderr);
        self
    }
}

/// The binary, away from variables and files of whoever runs the tests.
pub fn postrider(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("POSTRIDER_") {
            command.env_remove(name);
        }
    }
    command.current_dir(home).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the binary in `home` to its end.
pub fn run<S: AsRef<OsStr>>(home: &Path, args: &[S], stdin: &[u8]) -> Done {
    let mut command = postrider(home);
    end(command.args(args).spawn().unwrap(), stdin)
}

pub fn end(mut child: Child, stdin: &[u8]) -> Done {
    // A command that does not read what it is given has ended before.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Names of an object's fields, sorted.
pub fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// `postrider serve` in the background; killed when dropped.
pub struct Gateway {
    child: Child,
    pub ingress: String,
    pub management: String,
    pub token_file: String,
}

impl Gateway {
    /// Serves what `home/postrider.toml` says, on data in `home/data`.
    pub fn start(home: &Path) -> Self {
        let mut command = postrider(home);
        command.args(["serve", "--data", "data", "--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0"]);
        command.args(["--log", "error"]);
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = |name: &str| {
            let line = lines.next().expect("the gateway says where it listens").unwrap();
            line.strip_prefix(name).unwrap_or_else(|| panic!("{line}")).trim().to_owned()
        };
        let (ingress, management, token_file) = (line("ingress"), line("management"), line("token"));
        Self { child, ingress, management, token_file }
    }

    /// A command that asks this gateway.
    pub fn ask(&self, home: &Path, args: &[&str]) -> Done {
        let more = ["--server", &self.management, "--data", "data"];
        run(home, &[args, &more].concat(), b"")
    }
}

impl Gateway {
    /// Asks the gateway to stop, as a supervisor does, and waits for its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(asked.unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
