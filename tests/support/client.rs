//! A client for HTTP/1.1 that keeps its connection, as a provider's or an application's would.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// Seconds until it is worth asking again.
    #[allow(dead_code, reason = "only the tests of limits look at it")]
    pub retry_after: Option<u64>,
}

impl Answer {
    /// The body, which is JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// One connection at a time, made when it is needed.
pub struct Client {
    address: SocketAddr,
    headers: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: String::new(), stream: None }
    }

    /// A client of the management API.
    pub fn with_token(address: SocketAddr, token: &str) -> Self {
        Self { headers: format!("authorization: Bearer {token}\r\n"), ..Self::new(address) }
    }

    /// Sends a request and reads the answer. After an error nothing is known of what became of the request.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(String, String)], body: &[u8]) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let common = &self.headers;
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{common}{fields}content-length: {length}\r\n\r\n");
        stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let (answer, keep) = read_answer(&mut stream)?;
        self.stream = keep.then_some(stream);
        Ok(answer)
    }

    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.ask("GET", path, &[], b"")
    }
}

fn read_answer(stream: &mut impl BufRead) -> io::Result<(Answer, bool)> {
    let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended inside the answer");
    let status_line = read_line(stream)?.ok_or_else(broken)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    let (mut length, mut keep, mut retry_after) = (0, true, None);
    loop {
        let line = read_line(stream)?.ok_or_else(broken)?.to_ascii_lowercase();
        match line.split_once(':') {
            None => break,
            Some(("content-length", value)) => length = value.trim().parse().map_err(|_| broken())?,
            Some(("connection", value)) => keep = value.trim() != "close",
            Some(("retry-after", value)) => retry_after = value.trim().parse().ok(),
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((Answer { status, body, retry_after }, keep))
}

/// A line without its end; `None` when the connection ended before it did.
pub fn read_line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(line.strip_suffix("\r\n").map(str::to_owned))
}
