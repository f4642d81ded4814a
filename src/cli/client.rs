//! The management API's client: one request per connection, HTTP/1.1, bearer token.
//!
//! **Invariants**
//! - The token goes into one header and nowhere else.
//! - What can't be reached ends with exit code 7, what the gateway refuses with 1, whatever the command.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use super::exit::{self, Failure};
use super::input::settings;
use crate::api::BACKUP_BYTES;
use crate::config::{Config, Overrides};
use crate::core::error::chain;
use crate::core::secret::Secret;
use crate::daemon::token_path;

/// Milliseconds for a connection to be made.
const CONNECT_TIMEOUT_MS: u64 = 5_000;

/// Milliseconds for an answer: more than the gateway gives itself.
const ANSWER_TIMEOUT_MS: u64 = 60_000;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Bytes of an answer that is not the API's, as an error shows it.
const SHOWN_BYTES: usize = 200;

/// Which gateway a command talks to.
#[derive(Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// Management address, such as http://127.0.0.1:8081; by default that of the configuration
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// File with the API token; by default POSTRIDER_TOKEN_FILE, else `token` in the data directory
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    store: super::input::StoreArgs,
}

/// A gateway that can be asked.
pub(super) struct Client {
    authority: String,
    token: Token,
}

/// The token, or why there is none: a gateway that isn't there is the better thing to say first.
struct Token {
    path: PathBuf,
    read: Result<Secret, String>,
}

/// Takes a piece of an answer, and the length that the whole of it will have, if the gateway said.
pub(super) type Take<'t> = &'t mut dyn FnMut(&[u8], Option<u64>) -> Result<(), Failure>;

/// The body of an API error.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

/// A path and query under `/api/v1`, in which everything that isn't ours is escaped.
pub(super) struct Target(String);

impl Target {
    /// The path of these parts.
    pub(super) fn new(parts: &[&str]) -> Self {
        let mut text = "/api/v1".to_owned();
        for part in parts {
            text.push('/');
            escape(part, &mut text);
        }
        Self(text)
    }

    /// With a parameter, if it has a value.
    pub(super) fn query(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.0.push(if self.0.contains('?') { '&' } else { '?' });
            self.0.push_str(name);
            self.0.push('=');
            escape(value, &mut self.0);
        }
        self
    }
}

/// Percent-encodes all but unreserved characters ([RFC 3986 §2.3](https://www.rfc-editor.org/rfc/rfc3986#section-2.3)).
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

impl ServerArgs {
    /// The settings that the flags, the environment and the configuration come to.
    pub(super) fn settings(&self) -> Result<Config, Failure> {
        self.store.settings()
    }

    /// The client of the gateway that the flags, the environment and the configuration name.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let (server, token_file) = match (&self.server, &self.token_file) {
            // Nothing else is needed, so a broken configuration is no obstacle.
            (Some(server), Some(file)) => (server.clone(), file.clone()),
            _ => {
                let (config, data) = (self.store.config.clone(), self.store.data.clone());
                let flags = Overrides { config, data, token_file: self.token_file.clone(), ..Overrides::default() };
                let config = settings(&flags)?;
                let mut address = config.listeners.management;
                if address.ip().is_unspecified() {
                    address.set_ip(match address.ip() {
                        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                    });
                }
                let server = self.server.clone().unwrap_or_else(|| format!("http://{address}"));
                (server, token_path(&config.data_dir, config.token_file.as_deref()))
            }
        };
        Client::new(&server, token_file)
    }
}

impl Client {
    /// The client of the gateway at `server`, whose token is in a file.
    pub(super) fn new(server: &str, token_file: PathBuf) -> Result<Self, Failure> {
        let uri: Uri = server.parse().unwrap_or_default();
        let has_path = !matches!(uri.path(), "" | "/") || uri.query().is_some();
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http") && !has_path);
        let Some(authority) = authority.filter(|a| !a.as_str().contains('@')) else {
            return Err(Failure::usage(format_args!(
                "expected --server such as http://127.0.0.1:8081, got {server:?}"
            )));
        };
        let port = authority.port_u16().unwrap_or(80);
        let read = std::fs::read_to_string(&token_file).map_err(|error| error.to_string());
        let token = Token { path: token_file, read: read.map(|text| Secret::new(text.trim())) };
        Ok(Self { authority: format!("{}:{port}", authority.host()), token })
    }

    /// Asks and waits for the answer's body.
    pub(super) fn get(&self, target: &Target) -> Result<Bytes, Failure> {
        self.wait(self.ask(Method::GET, target, &[], Bytes::new()))
    }

    /// Posts JSON and waits for the answer's body.
    pub(super) fn post(&self, target: &Target, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Bytes, Failure> {
        self.wait(self.ask(Method::POST, target, headers, body.into()))
    }

    /// Posts and hands on the answer's body as it comes.
    pub(super) fn download(&self, target: &Target, take: Take<'_>) -> Result<(), Failure> {
        self.wait(async {
            let stream = within(CONNECT_TIMEOUT_MS, TcpStream::connect(&self.authority)).await;
            let stream = stream.map_err(|why| self.unreachable(&why))?;
            let request = self.request(Method::POST, target, &[], Bytes::new())?;
            let (mut sender, connection) = within(CONNECT_TIMEOUT_MS, http1::handshake(TokioIo::new(stream)))
                .await
                .map_err(|w| self.unreachable(&w))?;
            // It ends when the answer does, and what went wrong on it is what reading the answer says.
            tokio::spawn(connection);
            let answer = within(ANSWER_TIMEOUT_MS, sender.send_request(request)).await;
            let (head, mut body) = answer.map_err(|why| self.unreachable(&why))?.into_parts();
            let length = head.headers.get(BACKUP_BYTES).and_then(|value| value.to_str().ok()?.parse().ok());
            if !head.status.is_success() {
                let refused = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
                let refused = refused.map_err(|error| self.unreachable(&error.to_string()))?.to_bytes();
                return Err(self.refused(head.status, &refused));
            }
            while let Some(frame) =
                within(ANSWER_TIMEOUT_MS, async { body.frame().await.transpose() }).await.map_err(broke_off)?
            {
                take(frame.data_ref().map_or(&[], |data| data), length)?;
            }
            Ok(Bytes::new())
        })
        .map(drop)
    }

    fn wait(&self, asked: impl Future<Output = Result<Bytes, Failure>>) -> Result<Bytes, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| Failure::from_error(exit::STORAGE, &error))?.block_on(asked)
    }

    /// The answer's body, if the gateway does what it is asked.
    pub(super) async fn ask(
        &self,
        method: Method,
        target: &Target,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Bytes, Failure> {
        let stream = within(CONNECT_TIMEOUT_MS, TcpStream::connect(&self.authority)).await;
        let stream = stream.map_err(|why| self.unreachable(&why))?;
        let request = self.request(method, target, headers, body)?;
        let (status, body) =
            within(ANSWER_TIMEOUT_MS, exchange(stream, request)).await.map_err(|why| self.unreachable(&why))?;
        if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    fn request(
        &self,
        method: Method,
        target: &Target,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let token = self.token.read.as_ref().map_err(|why| {
            let path = self.token.path.display();
            Failure::new(
                exit::CONFIG,
                format_args!("the token file {path} can't be read: {why}; pass --token-file with the file that the gateway named when it started"),
            )
        })?;
        let mut request = Request::builder()
            .method(method)
            .uri(&target.0)
            .header(HOST, &self.authority)
            .header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // Only flags that become header values, and the token, can hold what a header can't.
        request
            .body(Full::new(body))
            .map_err(|_| Failure::usage("expected visible ASCII characters in the token and in what becomes a header"))
    }

    fn unreachable(&self, why: &str) -> Failure {
        let server = &self.authority;
        Failure::new(exit::UNREACHABLE, format_args!("the gateway at http://{server} can't be reached: {why}"))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let Ok(Problem { code, detail }) = serde_json::from_slice(body) else {
            let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]);
            return self.unreachable(&format!("it answered {status} {shown:?}, which is not a gateway's answer"));
        };
        let hint = if status == StatusCode::UNAUTHORIZED {
            let path = self.token.path.display();
            format!("; the token was read from {path}, pass --token-file with the file that this gateway uses")
        } else {
            String::new()
        };
        Failure::new(exit::NEGATIVE, super::out::printable(&format!("{code}: {detail}{hint}")))
    }
}

fn broke_off(why: String) -> Failure {
    Failure::new(exit::UNREACHABLE, format_args!("the answer broke off: {why}; the gateway's log may say more"))
}

/// Reads an answer of the API.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let unknown = |error| {
        let why = format!("what answered is not a gateway of this version: {error}");
        Failure::new(exit::UNREACHABLE, why)
    };
    serde_json::from_slice(body).map_err(unknown)
}

async fn within<T, E: std::error::Error>(
    timeout_ms: u64,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(Duration::from_millis(timeout_ms), work).await {
        Ok(done) => done.map_err(|error| chain(&error)),
        Err(_) => Err(format!("no answer within {timeout_ms} ms")),
    }
}

/// Posts to `authority` (`host:port`) and takes whatever answer comes.
pub(super) async fn post(
    authority: &str,
    path: &str,
    headers: &[(String, String)],
    body: Bytes,
) -> Result<(StatusCode, Bytes), String> {
    let mut request = Request::post(path).header(HOST, authority).header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    let stream = within(CONNECT_TIMEOUT_MS, TcpStream::connect(authority)).await?;
    within(ANSWER_TIMEOUT_MS, exchange(stream, request)).await
}

/// One request and its answer.
async fn exchange(stream: TcpStream, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Broken> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asked = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(Broken::Body)?;
        Ok((head.status, body.to_bytes()))
    };
    tokio::pin!(asked);
    tokio::select! {
        answer = &mut asked => answer,
        // The connection may end before the answer was read to its end; that is then what `asked` says.
        _ = connection => asked.await,
    }
}

/// An exchange that came to no end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the answer broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_is_made_of_is_escaped() {
        let target = Target::new(&["app", "a/b", "msg"]).query("since", Some("2026-01-01T00:00:00+01:00"));
        let target = target.query("none", None).query("q", Some("ü &"));
        assert_eq!(target.0, "/api/v1/app/a%2Fb/msg?since=2026-01-01T00%3A00%3A00%2B01%3A00&q=%C3%BC%20%26");
    }

    #[test]
    fn a_server_is_an_http_url_without_a_path() {
        let new = |server| Client::new(server, PathBuf::from("/nowhere"));
        assert_eq!(new("http://localhost:8081").unwrap().authority, "localhost:8081");
        assert_eq!(new("http://[::1]/").unwrap().authority, "[::1]:80");
        for bad in ["", "localhost:8081", "https://x", "http://x/api", "http://u:p@x", "http://x?y"] {
            assert!(new(bad).is_err(), "{bad}");
        }
    }
}
