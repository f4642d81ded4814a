//! Reading a request's body within limits of size, time and memory.
//!
//! hyper decodes chunks and stops at Content-Length, but has no limit of size or time of its own: a body that trickles would
//! hold its connection for ever.
//!
//! Invariant: no more than what has arrived is ever held or reserved, whatever length the head claims.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING};

use super::budget::{MemoryBudget, Reservation};

/// Bytes up to which a body that came in one piece is copied. The piece is a slice of the connection's read buffer
/// (8 KiB at least, shared with the head); handed on as it is, a body of 100 bytes would keep all of that alive for as long
/// as the event is in memory.
const COPY_BYTES_MAX: usize = 8 << 10;

/// Bytes set aside at most when a second piece arrives; more comes as it is needed.
const FIRST_ROOM_BYTES: usize = 64 << 10;

/// Milliseconds after which the rate is judged, first and then each time.
const RATE_TICK_MS: u64 = 1_000;

/// Limits of one body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes of the decoded body.
    pub bytes_max: u64,
    /// Milliseconds from the head to the body's end.
    pub timeout_ms: u64,
    /// Bytes per second, on average since the head, judged each second; 0 asks for none.
    pub rate_min_bytes_s: u64,
}

/// A body that was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is longer than allowed, or claims to be: answer 413.
    #[error("the body is longer than the {max} bytes allowed")]
    TooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// It took too long: answer 408.
    #[error(
        "the body took too long: expected all of it in {timeout_ms} ms, and at least {rate_min_bytes_s} bytes per second"
    )]
    TimedOut {
        /// The deadline in milliseconds.
        timeout_ms: u64,
        /// The lowest rate allowed.
        rate_min_bytes_s: u64,
    },
    /// Other requests hold the memory: answer 503.
    #[error("too many request bodies are in memory; try again in a moment")]
    NoMemory,
    /// It ended early or its chunks are malformed: answer 400, if anyone still listens.
    #[error("the body is broken: {0}")]
    Broken(String),
}

/// Reads a body.
///
/// # Errors
/// See [`BodyError`]. A Content-Length over the limit is refused before anything is read; then, and after every other error,
/// the connection must be closed, since the rest of the body would be taken for the next request.
pub async fn read_body<B>(body: B, limits: &BodyLimits) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: std::error::Error,
{
    read(body, limits, |_| true).await
}

/// Reads a body whose bytes count against `budget` until the reservation is dropped.
///
/// # Errors
/// See [`read_body`].
pub async fn read_body_within<B>(
    body: B,
    limits: &BodyLimits,
    budget: &MemoryBudget,
) -> Result<(Bytes, Reservation), BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: std::error::Error,
{
    // Cheap where there is a Content-Length. It is not reserved at once: a head that claims a megabyte costs its sender
    // nothing, and a few dozen of them would lock everyone else out.
    if body.size_hint().lower() > budget.left_bytes() as u64 && body.size_hint().lower() <= limits.bytes_max {
        return Err(BodyError::NoMemory);
    }
    let mut reservation = budget.reservation();
    let bytes = read(body, limits, |more| reservation.grow(more)).await?;
    Ok((bytes, reservation))
}

async fn read<B>(body: B, limits: &BodyLimits, mut reserve: impl FnMut(usize) -> bool) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: std::error::Error,
{
    let too_large = BodyError::TooLarge { max: limits.bytes_max };
    let expected = body.size_hint().lower();
    if expected > limits.bytes_max {
        return Err(too_large);
    }
    let mut body = pin!(body);
    let mut pieces = Pieces::new(expected);
    let mut pace = Pace::new(limits);
    let mut tick = pin!(None);
    loop {
        // What has arrived goes first, so that a body which is there already costs no timer.
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = poll_fn(|cx| {
                if tick.is_none() {
                    tick.set(Some(tokio::time::sleep(pace.next_tick())));
                }
                tick.as_mut().as_pin_mut().map_or(Poll::Ready(()), |tick| tick.poll(cx))
            }) => {
                pace.ticked(pieces.len)?;
                tick.set(None);
                continue;
            }
        };
        let Some(frame) = frame else { return Ok(pieces.finish()) };
        let Some(data) = data_of(frame.map_err(|error| BodyError::Broken(innermost(&error)))?)? else { continue };
        if (pieces.len + data.len()) as u64 > limits.bytes_max {
            return Err(too_large);
        }
        if !reserve(data.len()) {
            return Err(BodyError::NoMemory);
        }
        pieces.push(data);
    }
}

/// Trailers are let go, except those that would change what the request is
/// ([RFC 9110 §6.5.1](https://www.rfc-editor.org/rfc/rfc9110#section-6.5.1)): their sender tries something.
fn data_of(frame: Frame<Bytes>) -> Result<Option<Bytes>, BodyError> {
    match frame.into_data() {
        Ok(data) => Ok(Some(data)),
        Err(frame) if frame.trailers_ref().is_some_and(has_framing) => {
            Err(BodyError::Broken("expected no Content-Length, Transfer-Encoding or Host in a trailer".to_owned()))
        }
        Err(_) => Ok(None),
    }
}

fn has_framing(trailers: &HeaderMap) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING, HOST].iter().any(|name| trailers.contains_key(name))
}

/// The cause says what was wrong; the errors around it only that something was.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A body as far as it has arrived: one piece as it came, several joined.
struct Pieces {
    expected: u64,
    len: usize,
    first: Bytes,
    joined: BytesMut,
}

impl Pieces {
    fn new(expected: u64) -> Self {
        Self { expected, len: 0, first: Bytes::new(), joined: BytesMut::new() }
    }

    fn push(&mut self, data: Bytes) {
        self.len += data.len();
        if self.len == data.len() {
            self.first = data;
            return;
        }
        if self.joined.is_empty() {
            let expected = usize::try_from(self.expected).unwrap_or(usize::MAX);
            self.joined.reserve(expected.min(FIRST_ROOM_BYTES).max(self.len));
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&data);
    }

    fn finish(self) -> Bytes {
        match (self.joined.is_empty(), self.first.len()) {
            (false, _) => self.joined.freeze(),
            (true, len) if len <= COPY_BYTES_MAX => Bytes::copy_from_slice(&self.first),
            (true, _) => self.first,
        }
    }
}

/// Judges time and rate at ticks, counting them rather than reading a clock: a body that is there before the first tick, as
/// nearly all are, is never judged.
struct Pace {
    timeout_ms: u64,
    rate_min_bytes_s: u64,
    passed_ms: u64,
}

impl Pace {
    const fn new(limits: &BodyLimits) -> Self {
        Self { timeout_ms: limits.timeout_ms, rate_min_bytes_s: limits.rate_min_bytes_s, passed_ms: 0 }
    }

    fn next_tick(&self) -> Duration {
        Duration::from_millis(self.next_tick_ms())
    }

    fn next_tick_ms(&self) -> u64 {
        self.timeout_ms.saturating_sub(self.passed_ms).min(RATE_TICK_MS)
    }

    fn ticked(&mut self, received: usize) -> Result<(), BodyError> {
        self.passed_ms += self.next_tick_ms();
        let due = u128::from(self.rate_min_bytes_s) * u128::from(self.passed_ms);
        let too_slow = (received as u128) * 1_000 < due;
        if self.passed_ms >= self.timeout_ms || too_slow {
            let Self { timeout_ms, rate_min_bytes_s, .. } = *self;
            return Err(BodyError::TimedOut { timeout_ms, rate_min_bytes_s });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::sync::mpsc;

    const LIMITS: BodyLimits = BodyLimits { bytes_max: 100_000, timeout_ms: 10_000, rate_min_bytes_s: 10 };

    /// A body fed by the test.
    struct Fed {
        frames: mpsc::UnboundedReceiver<Frame<Bytes>>,
    }

    impl Body for Fed {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.frames.poll_recv(cx).map(|frame| frame.map(Ok))
        }
    }

    fn fed() -> (mpsc::UnboundedSender<Frame<Bytes>>, Fed) {
        let (feed, frames) = mpsc::unbounded_channel();
        (feed, Fed { frames })
    }

    fn data(bytes: &[u8]) -> Frame<Bytes> {
        Frame::data(Bytes::copy_from_slice(bytes))
    }

    #[tokio::test]
    async fn a_large_body_in_one_piece_is_handed_on_and_a_small_one_copied() {
        for (len, same) in [(COPY_BYTES_MAX, false), (COPY_BYTES_MAX + 1, true)] {
            let sent = Bytes::from(vec![7; len]);
            let got = read_body(Full::new(sent.clone()), &LIMITS).await.unwrap();
            assert_eq!((got.as_ptr() == sent.as_ptr(), &got), (same, &sent));
        }
    }

    #[tokio::test]
    async fn pieces_are_joined_and_counted() {
        let (feed, body) = fed();
        for piece in [&b""[..], b"ab", b"", b"c\xff\0", b"d"] {
            feed.send(data(piece)).unwrap();
        }
        feed.send(Frame::trailers(HeaderMap::new())).unwrap();
        drop(feed);
        let budget = MemoryBudget::new(6);
        let (bytes, reservation) = read_body_within(body, &LIMITS, &budget).await.unwrap();
        assert_eq!((&bytes[..], reservation.bytes(), budget.left_bytes()), (&b"abc\xff\0d"[..], 6, 0));
        drop(reservation);
        assert_eq!(budget.left_bytes(), 6);
    }

    #[tokio::test]
    async fn too_long_is_refused_by_its_length_or_while_it_comes() {
        let limits = BodyLimits { bytes_max: 4, ..LIMITS };
        let too_large = Err(BodyError::TooLarge { max: 4 });
        assert_eq!(read_body(Full::new(Bytes::from_static(b"12345")), &limits).await, too_large);
        let (feed, body) = fed();
        feed.send(data(b"1234")).unwrap();
        feed.send(data(b"5")).unwrap();
        assert_eq!(read_body(body, &limits).await, too_large);
        assert!(read_body(Full::new(Bytes::from_static(b"1234")), &limits).await.is_ok());
    }

    #[tokio::test]
    async fn past_the_budget_nothing_stays_reserved() {
        let budget = MemoryBudget::new(4);
        let known = read_body_within(Full::new(Bytes::from_static(b"12345")), &LIMITS, &budget).await;
        assert_eq!(known.unwrap_err(), BodyError::NoMemory);
        let (feed, body) = fed();
        feed.send(data(b"1234")).unwrap();
        feed.send(data(b"5")).unwrap();
        assert_eq!(read_body_within(body, &LIMITS, &budget).await.unwrap_err(), BodyError::NoMemory);
        assert_eq!(budget.left_bytes(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_or_trickles_times_out() {
        let timed_out = Err(BodyError::TimedOut { timeout_ms: 10_000, rate_min_bytes_s: 10 });
        let (stalled, body) = fed();
        assert_eq!(read_body(body, &LIMITS).await, timed_out);
        drop(stalled);

        // Fast enough at first, then 5 bytes a second: the average is below 10 at 9 s.
        let (feed, body) = fed();
        feed.send(data(&[0; 40])).unwrap();
        let reading = tokio::spawn(async move { read_body(body, &LIMITS).await });
        let mut sent = 40;
        while feed.send(data(&[0; 5])).is_ok() {
            sent += 5;
            tokio::time::sleep(Duration::from_millis(1_000)).await;
        }
        assert_eq!(reading.await.unwrap(), timed_out);
        assert!((85..=95).contains(&sent), "{sent}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_holds_whatever_the_rate() {
        let limits = BodyLimits { timeout_ms: 2_500, ..LIMITS };
        let (feed, body) = fed();
        let reading = tokio::spawn(async move { read_body(body, &limits).await });
        let mut sent = 0;
        while feed.send(data(&[0; 100])).is_ok() {
            sent += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(reading.await.unwrap(), Err(BodyError::TimedOut { timeout_ms: 2_500, rate_min_bytes_s: 10 }));
        assert!((24..=27).contains(&sent), "{sent}");
    }

    #[tokio::test]
    async fn a_length_in_a_trailer_is_refused_and_other_trailers_are_let_go() {
        for (name, fine) in [("content-length", false), ("host", false), ("x-checksum", true)] {
            let (feed, body) = fed();
            feed.send(data(b"x")).unwrap();
            let trailers = HeaderMap::from_iter([(name.parse().unwrap(), "3".parse().unwrap())]);
            feed.send(Frame::trailers(trailers)).unwrap();
            drop(feed);
            assert_eq!(read_body(body, &LIMITS).await.is_ok(), fine, "{name}");
        }
    }
}
