//! Reading answers: of each no more than its status, where it ends, and whether the connection goes on.
//!
//! Kept light on purpose: it runs on the cores that it measures.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of an answer at most; those of a gateway have some hundred.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The server ends the connection after it.
    pub closes: bool,
    /// Bytes of head and body.
    bytes: usize,
}

/// Reads one answer; `buffer` is room that is used again.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<Answer> {
    buffer.clear();
    let mut answer = None;
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if answer.is_none()
            && let Some(end) = find(buffer, b"\r\n\r\n")
        {
            answer = Some(parse(&buffer[..end]).ok_or(io::ErrorKind::InvalidData)?);
        }
        match answer {
            Some(answer) if buffer.len() >= answer.bytes => return Ok(answer),
            _ if buffer.len() > ANSWER_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            _ => {}
        }
    }
}

/// What a head says; `None` where the end of the answer can't be told by its length.
fn parse(head: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let (mut length, mut closes) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.eq_ignore_ascii_case("close");
        }
    }
    let length = if matches!(status, 204 | 304) { 0 } else { length? };
    Some(Answer { status, closes, bytes: (head.len() + 4).checked_add(length)? })
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(bytes: &[u8]) -> io::Result<(u16, bool)> {
        let mut stream = bytes;
        read(&mut stream, &mut Vec::new()).await.map(|answer| (answer.status, answer.closes))
    }

    #[tokio::test]
    async fn status_and_end_are_found_whoever_answers() {
        let whole = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(answered(whole).await.unwrap(), (202, false));
        let closing = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(answered(closing).await.unwrap(), (503, true));
        assert_eq!(answered(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap(), (204, false));
    }

    #[tokio::test]
    async fn what_is_cut_or_has_no_length_is_broken() {
        for bad in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n",
            b"SSH-2.0-server\r\n\r\n",
            b"",
        ] {
            assert!(answered(bad).await.is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
