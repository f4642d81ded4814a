//! What the load is sent to, each in a process of its own: a gateway for one run, and a server that only reads and answers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::destination::Destination;
use super::machine::Probe;
use super::request::TYPE_FOR_SINK;
use super::sink;
use crate::cli::child::Process;
use crate::cli::exit::{self, Failure};
use crate::cli::gateway;
use crate::cli::home::Home;
use crate::core::secret::Secret;

/// Arguments that turn this executable into the bare server.
const BARE_ARGUMENTS: [&str; 2] = ["bench", "--bare-server"];

/// The metric that counts what was delivered and settled.
const SETTLED: &str = "postrider_attempts_total{outcome=\"delivered\"}";

/// How long the gateway may take to tell it.
const METRICS_MAX: Duration = Duration::from_secs(10);

/// A hyper server that reads the body and answers 200.
pub struct Bare {
    process: Process,
    /// Where requests go.
    pub target: Destination,
}

impl Bare {
    /// Starts it, as `program`, and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(program: &Path) -> Result<Self, Failure> {
        let failed = |why: String| Failure::new(exit::STORAGE, format_args!("starting the bare server: {why}"));
        let mut command = Command::new(program);
        command.args(BARE_ARGUMENTS);
        let process = Process::start(command).map_err(|error| failed(error.to_string()))?;
        let authority = process.line().map_err(|error| failed(error.to_string()))?;
        Ok(Self { process, target: Destination { authority, path: "/".to_owned(), token: None } })
    }

    /// What it uses. It writes nothing.
    pub fn probe(&self) -> Probe {
        Probe::new(self.process.id(), Path::new("/proc"))
    }

    /// The server itself; returns only if it can't serve.
    pub(in crate::cli) fn serve(ready: impl FnOnce(SocketAddr) -> Result<(), Failure>) -> Result<(), Failure> {
        let io = |error: std::io::Error| Failure::new(exit::BIND, format_args!("the bare server: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(io)?;
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io)?;
            ready(listener.local_addr().map_err(io)?)?;
            sink::serve(listener, StatusCode::OK, |_| {}).await;
            Ok(())
        })
    }
}

/// A gateway on an empty data directory; both go with the handle.
pub struct Gateway {
    // In this order: the process ends before its directory goes.
    gateway: gateway::Gateway,
    home: Home,
    authority: String,
    token: Secret,
    secret: Secret,
}

impl Gateway {
    /// Starts `program` in a directory of its own in `dir`, with so many endpoints at `sink`, and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(program: &Path, dir: &Path, sink: Option<SocketAddr>, endpoints: usize) -> Result<Self, Failure> {
        let home = Home::make(dir, "bench", false)?;
        let io = |error: std::io::Error| Failure::new(exit::STORAGE, format_args!("{}: {error}", home.path.display()));
        let secret = Secret::new("whsec_bench_bench_bench_bench_bench");
        let config = configuration(&secret, sink, endpoints);
        std::fs::write(home.path.join("postrider.toml"), config).map_err(io)?;
        let gateway = gateway::Gateway::start(program, &home.path, "warn")?;
        let token = std::fs::read_to_string(&gateway.token).map_err(io)?;
        let authority = gateway.management.trim_start_matches("http://").to_owned();
        Ok(Self { token: Secret::new(token.trim_end()), authority, gateway, home, secret })
    }

    /// Where events are published.
    pub fn publish(&self) -> Destination {
        Destination::publish(&self.authority, Some(self.token.clone()))
    }

    /// Where webhooks come in, and what they are signed with.
    pub fn inbound(&self) -> (Destination, &Secret) {
        let target =
            Destination { authority: self.gateway.ingress.clone(), path: "/in/stripe".to_owned(), token: None };
        (target, &self.secret)
    }

    /// What it uses.
    pub fn probe(&self) -> Probe {
        Probe::new(self.gateway.id(), &self.home.path)
    }

    /// Deliveries that were made and settled since it started.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn settled(&self) -> Result<u64, Failure> {
        let page = timeout(METRICS_MAX, self.metrics()).await.unwrap_or_else(|late| Err(late.into()));
        let page = page.map_err(|error| self.gateway.failed(&format!("its metrics: {error}")))?;
        let found = page.lines().find_map(|line| line.strip_prefix(SETTLED)?.trim().parse().ok());
        // A series is there from its first count on.
        Ok(found.unwrap_or(0))
    }

    async fn metrics(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.authority).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.authority);
        stream.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        Ok(page)
    }
}

fn configuration(secret: &Secret, sink: Option<SocketAddr>, endpoints: usize) -> String {
    let source = format!("[[source]]\nname = \"stripe\"\nprovider = \"stripe\"\nsecrets = [\"{}\"]\n", secret.expose());
    let endpoint = |(n, sink): (usize, SocketAddr)| {
        format!(
            "[[endpoint]]\nname = \"sink-{n}\"\nurl = \"http://{sink}/\"\nevent_types = [\"{TYPE_FOR_SINK}\"]\n\
             secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
        )
    };
    let endpoints = sink.into_iter().flat_map(|sink| (0..endpoints).map(move |n| (n, sink))).map(endpoint);
    std::iter::once(source).chain(endpoints).collect()
}
