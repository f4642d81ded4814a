//! The phase a connection is in, which decides how long it may stay there, and an orderly end.
//!
//! ```text
//!          first byte            head complete           answered
//!   Idle ─────────────▶ Head ──────────────────▶ Busy ─────────────▶ Idle …
//!          (a new connection starts here)                  closing ▶ Lingering
//! ```
//!
//! hyper's own header timeout starts when it begins to wait for a head, so it can't tell a head that trickles (5 s are
//! plenty) from a connection that idles between two requests (75 s are polite). Watching when bytes arrive tells them apart.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read and thrown away at most before a connection is closed under a peer that still sends.
const LINGER_BYTES_MAX: usize = 8 << 20;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between two requests, or an answer is on its way out.
    Idle,
    /// A head is expected (new connection) or partly there.
    Head,
    /// The handler runs; it bounds itself.
    Busy,
    /// Our side is closed; what the peer still sends is thrown away.
    Lingering,
}

/// The phase, shared by the socket, the handler and whoever keeps the time. They all run in the connection's one task, so
/// the atomics only satisfy the compiler and every order is Relaxed.
#[derive(Debug)]
pub(super) struct Watch {
    phase: AtomicU8,
    turn: AtomicU32,
    lingers: AtomicBool,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { phase: AtomicU8::new(Phase::Head as u8), turn: AtomicU32::new(0), lingers: AtomicBool::new(true) }
    }

    pub(super) fn phase(&self) -> Phase {
        [Phase::Idle, Phase::Head, Phase::Busy, Phase::Lingering][usize::from(self.phase.load(Ordering::Relaxed))]
    }

    /// Enters a phase, also when it is the one already: its time starts anew.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes whenever a phase is entered.
    pub(super) fn turn(&self) -> u32 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Closes without lingering: nothing is owed to a peer that idles.
    pub(super) fn close_at_once(&self) {
        self.lingers.store(false, Ordering::Relaxed);
    }

    /// A long answer may take longer than its time, as long as its peer goes on reading it.
    fn bytes_left(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Idle);
        }
    }

    fn bytes_came(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }
}

/// A socket that tells when bytes arrive, and closes so that its last answer is not lost.
///
/// Closing a socket while the peer still sends makes the kernel answer with a reset, which may overtake the answer: a
/// provider would see "connection reset" instead of 413. So the socket first closes only its own side, then reads until
/// the peer has done the same ([RFC 9112 §9.6](https://www.rfc-editor.org/rfc/rfc9112#section-9.6)), or time or bytes
/// run out.
pub(super) struct WatchedStream<T> {
    stream: T,
    watch: Arc<Watch>,
    own_side_closed: bool,
    lingered_bytes: usize,
}

impl<T: AsyncRead + Unpin> WatchedStream<T> {
    pub(super) fn new(stream: T, watch: Arc<Watch>) -> Self {
        Self { stream, watch, own_side_closed: false, lingered_bytes: 0 }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; 4_096];
        while self.lingered_bytes < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.lingered_bytes += buffer.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WatchedStream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            this.watch.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WatchedStream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.watch.bytes_left();
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, pieces))?;
        this.watch.bytes_left();
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.own_side_closed {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.own_side_closed = true;
            this.watch.enter(Phase::Lingering);
        }
        if this.watch.lingers.load(Ordering::Relaxed) {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
