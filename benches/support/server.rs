//! What the load is sent to, each in a process of its own: the gateway, and a server that only reads and answers.
//!
//! **Invariant:** a process does not outlive its handle, nor its data directory.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use hyper::StatusCode;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::machine::Probe;
use super::{Error, request, sink};

/// Turns this executable into the bare server.
pub const BARE_ARGUMENT: &str = "--bare-server";

/// A process that ends with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A hyper server that reads the body and answers 200.
pub struct Bare {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Bare {
    /// Starts it and waits until it listens.
    pub fn start() -> Result<Self, Error> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(BARE_ARGUMENT);
        let (process, mut lines) = spawn(command)?;
        let line = lines.next().ok_or("the bare server ended at once")??;
        Ok(Self { process, address: line.parse()? })
    }

    /// What it uses.
    pub fn probe(&self) -> Probe {
        Probe::new(self.process.0.id(), disk_dir())
    }

    /// The server itself; never returns.
    pub fn serve() -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("{}", listener.local_addr()?);
            sink::serve(listener, StatusCode::OK).await;
            Ok(())
        })
    }
}

/// The gateway: the release binary on an empty data directory.
pub struct Gateway {
    process: Process,
    home: TempDir,
    /// Where webhooks come in.
    pub ingress: SocketAddr,
    /// Where events are published.
    pub management: SocketAddr,
    /// The management token.
    pub token: String,
}

impl Gateway {
    /// Starts it, with deliveries of [`TYPE_FOR_SINK`](request::TYPE_FOR_SINK) going to `sinks`, and waits until it serves.
    pub fn start(sinks: &[SocketAddr]) -> Result<Self, Error> {
        let home = tempfile::Builder::new().prefix("bench-").tempdir_in(disk_dir())?;
        let config = home.path().join("postrider.toml");
        std::fs::write(&config, configuration(sinks))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command.args(["serve", "--log", "warn", "--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0"]);
        command.arg("--config").arg(&config).arg("--data").arg(home.path().join("data"));
        // What the caller has set for a gateway of their own is not for this one.
        for name in std::env::vars_os().map(|(name, _)| name) {
            if name.to_string_lossy().starts_with("POSTRIDER_") {
                command.env_remove(name);
            }
        }
        let log = home.path().join("log");
        command.stderr(std::fs::File::create(&log)?);
        let (process, mut lines) = spawn(command)?;
        let mut value = |what: &str| -> Result<String, Error> {
            let told = || format!("the gateway ended at once: {}", std::fs::read_to_string(&log).unwrap_or_default());
            let line = lines.next().ok_or_else(told)??;
            let found = line.strip_prefix(what).map(|rest| rest.trim().trim_start_matches("http://").to_owned());
            found.ok_or_else(|| format!("expected a line with the {what}, got {line:?}").into())
        };
        let (ingress, management) = (value("ingress")?.parse()?, value("management")?.parse()?);
        let token = std::fs::read_to_string(value("token")?)?.trim_end().to_owned();
        Ok(Self { process, home, ingress, management, token })
    }

    /// What it uses.
    pub fn probe(&self) -> Probe {
        Probe::new(self.process.0.id(), self.home.path())
    }

    /// A figure of its metrics page; 0 while it is not there.
    pub async fn metric(&self, name: &str) -> Result<f64, Error> {
        let mut stream = TcpStream::connect(self.management).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.management);
        stream.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        let found = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(found.map_or(Ok(0.0), str::parse)?)
    }
}

/// On the disk that the build is on: a file system in memory would make every sync free.
pub fn disk_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn configuration(sinks: &[SocketAddr]) -> String {
    let (source, secret) = (request::SOURCE, request::SECRET);
    let mut text = format!("[[source]]\nname = \"{source}\"\nprovider = \"stripe\"\nsecrets = [\"{secret}\"]\n");
    for (n, sink) in sinks.iter().enumerate() {
        let takes = request::TYPE_FOR_SINK;
        text.push_str(&format!(
            "[[endpoint]]\nname = \"sink-{n}\"\nurl = \"http://{sink}/\"\nevent_types = [\"{takes}\"]\n\
             secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
        ));
    }
    text
}

type Lines = std::io::Lines<BufReader<ChildStdout>>;

fn spawn(mut command: Command) -> Result<(Process, Lines), Error> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or("expected a pipe from the child")?;
    Ok((Process(child), BufReader::new(stdout).lines()))
}
