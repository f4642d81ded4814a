//! The body of an answer: complete in memory, or made piece by piece while it leaves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

/// Pieces of an answer; asking for the next one may block.
pub type Chunks = Box<dyn Iterator<Item = Bytes> + Send>;

/// The body of an answer.
pub enum Content {
    /// In memory.
    Whole(Full<Bytes>),
    /// Made while it leaves.
    Stream(Stream),
}

impl Content {
    /// These bytes.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }

    /// What `chunks` yields. Each is asked for, away from the async workers, only when the one before has left; so a client
    /// that reads slowly holds one in memory, and one that stops reading runs into the connection's time limit.
    pub fn stream(chunks: Chunks) -> Self {
        Self::Stream(Stream { state: State::Idle(chunks) })
    }
}

/// See [`Content::stream`].
pub struct Stream {
    state: State,
}

enum State {
    Idle(Chunks),
    Asked(JoinHandle<(Chunks, Option<Bytes>)>),
    Done,
}

impl Stream {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            self.state = match std::mem::replace(&mut self.state, State::Done) {
                State::Done => return Poll::Ready(None),
                State::Idle(mut chunks) => State::Asked(spawn_blocking(move || {
                    let next = chunks.next();
                    (chunks, next)
                })),
                State::Asked(mut asked) => {
                    let Poll::Ready(answer) = Pin::new(&mut asked).poll(cx) else {
                        self.state = State::Asked(asked);
                        return Poll::Pending;
                    };
                    let (chunks, next) = match answer {
                        Ok(answer) => answer,
                        // The connection breaks off, so that nobody takes the answer for complete.
                        Err(error) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                    };
                    let Some(next) = next else { return Poll::Ready(None) };
                    self.state = State::Idle(chunks);
                    return Poll::Ready(Some(Ok(next)));
                }
            };
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match self.get_mut() {
            Self::Whole(whole) => {
                ready!(Pin::new(whole).poll_frame(cx)).map(|frame| frame.map_err(|never| match never {}))
            }
            Self::Stream(stream) => ready!(stream.poll_next(cx)).map(|next| next.map(Frame::data)),
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Stream(stream) => matches!(stream.state, State::Done),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{ServerLimits, serve};
    use http_body_util::BodyExt as _;
    use hyper::Response;
    use std::sync::mpsc;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;

    #[tokio::test]
    async fn a_stream_yields_its_pieces_and_ends() {
        let pieces = ["a", "", "bc"].into_iter().map(|text| Bytes::from_static(text.as_bytes()));
        let content = Content::stream(Box::new(pieces));
        assert!(!content.is_end_stream());
        assert_eq!(content.collect().await.unwrap().to_bytes(), "abc");
    }

    #[tokio::test]
    async fn a_piece_that_panics_breaks_the_answer_off() {
        let pieces = (0..2).map(|n| if n == 0 { Bytes::from_static(b"a") } else { panic!("expected by this test") });
        let mut content = Content::stream(Box::new(pieces));
        assert_eq!(content.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        assert!(content.frame().await.unwrap().is_err());
        assert!(content.frame().await.is_none());
    }

    /// Says when it is dropped.
    struct Held(mpsc::Sender<()>);

    impl Iterator for Held {
        type Item = Bytes;

        fn next(&mut self) -> Option<Bytes> {
            Some(Bytes::from_static(&[b'x'; 16 << 10]))
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }

    /// Longer than a test takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_makes_the_pieces_goes_with_the_answer() {
        let (sender, dropped) = mpsc::channel();
        let mut content = Content::stream(Box::new(Held(sender)));
        content.frame().await.unwrap().unwrap();
        assert!(dropped.try_recv().is_err());
        drop(content);
        dropped.recv_timeout(PATIENCE).unwrap();
    }

    /// An answer without end, to a client that reads for longer than an idle connection may last, and then stops.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_lasts_for_as_long_as_it_is_read() {
        const IDLE_MS: u64 = 700;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, dropped) = mpsc::channel();
        let (_stop, stopped) = watch::channel(false);
        let limits = ServerLimits { idle_timeout_ms: IDLE_MS, ..ServerLimits::default() };
        let handler = move |_, _| {
            let held = Held(sender.clone());
            async move { Response::new(Content::stream(Box::new(held))) }
        };
        tokio::spawn(serve(listener, limits, handler, stopped));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut piece = vec![0; 64 << 10];
        let mut enough = std::pin::pin!(tokio::time::sleep(Duration::from_millis(2 * IDLE_MS)));
        loop {
            tokio::select! {
                biased;
                () = &mut enough => break,
                read = client.read_exact(&mut piece) => drop(read.expect("it goes on while it is read")),
            }
        }
        assert!(dropped.try_recv().is_err());
        let gone = tokio::task::spawn_blocking(move || dropped.recv_timeout(PATIENCE));
        gone.await.unwrap().expect("it ends when it is not");
        // What was on its way comes, and then no proper end.
        let mut rest = Vec::new();
        let end = client.read_to_end(&mut rest).await;
        assert!(end.is_err() || !rest.ends_with(b"0\r\n\r\n"));
    }
}
