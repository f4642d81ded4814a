//! What a load must count, and that it ends.

use super::*;
use crate::cli::bench::request::{BODY_BYTES_MIN, TYPE_FOR_SINK, tag};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const ACCEPTED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A server that answers each request on a connection with the next of `answers`, and hangs up after the last.
async fn server(answers: &'static [&'static str], pause_ms: u64) -> Destination {
    counting_server(answers, pause_ms).await.0
}

/// The same, and how many of its answers were each of `answers`.
async fn counting_server(answers: &'static [&'static str], pause_ms: u64) -> (Destination, Arc<Vec<AtomicU64>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let counts: Arc<Vec<_>> = Arc::new(answers.iter().map(|_| AtomicU64::new(0)).collect());
    let counted = Arc::clone(&counts);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut buffer = vec![0; 4_096];
                for (answer, count) in answers.iter().zip(&*counted) {
                    if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    count.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    (Destination { authority, path: "/".to_owned(), token: None }, counts)
}

async fn ran(target: &Destination, connections: usize, rate: Option<f64>) -> Ran {
    let load = Load { connections, rate, lasts: Duration::from_millis(200), seed: 3 };
    ran_to_its_end(target, load, &Course::default()).await
}

async fn ran_to_its_end(target: &Destination, load: Load, course: &Course) -> Ran {
    let requests = Requests::published(target, TYPE_FOR_SINK, &tag(1), BODY_BYTES_MIN);
    run(target, requests, load, course).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_sent_is_accepted_refused_or_broken() {
    const ANSWERS: &[&str] = &[ACCEPTED, "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 "];
    let (target, counts) = counting_server(ANSWERS, 0).await;
    let ran = ran(&target, 2, None).await;
    let [accepted, refused, broken] = [0, 1, 2].map(|n| counts[n].load(Ordering::SeqCst));
    assert!(broken > 0, "the server should have hung up at least once");
    assert_eq!((ran.accepted, &ran.refused, ran.broken()), (accepted, &[(503, refused)].into(), broken), "{ran:?}");
    assert!(!ran.is_clean() && ran.per_s() > 0.0, "{ran:?}");
    // However soon it hung up, nobody had an answer.
    assert!(ran.latency.unwrap().max >= ANSWER_TIMEOUT_MS * 1_000, "{ran:?}");
}

/// A server that answers two requests of one connection, and the listener is gone; `then` it lets the connection go.
async fn server_of_two(then: impl Future<Output = ()> + Send + 'static) -> Destination {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(listener);
        for answer in [ACCEPTED, ACCEPTED, ""] {
            assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        then.await;
    });
    Destination { authority, path: "/".to_owned(), token: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_of_the_window_that_was_planned() {
    // The server is gone after two answers: the rest of the window counts too.
    let load = Load { connections: 1, rate: None, lasts: Duration::from_secs(20), seed: 3 };
    let stalled = ran_to_its_end(&server_of_two(async {}).await, load, &Course::default()).await;
    let is = (stalled.accepted, stalled.per_s(), stalled.broken(), stalled.lost);
    assert_eq!(is, (2, 0.1, 1, 1), "{stalled:?}");
    // An answer after its end does not.
    let slow = ran(&server(&[ACCEPTED], 250).await, 1, None).await;
    assert_eq!((slow.accepted, slow.per_s(), slow.is_clean()), (1, 0.0, true), "{slow:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_the_window_and_cuts_off_what_hangs() {
    let course = Course::default();
    let interrupt = course.interrupt.clone();
    let target = server_of_two(async move {
        interrupt.ask();
        std::future::pending().await
    });
    let load = Load { connections: 1, rate: None, lasts: Duration::from_secs(3_600), seed: 3 };
    let ran = ran_to_its_end(&target.await, load, &course).await;
    assert_eq!((ran.sent, ran.accepted, ran.broken(), ran.lost), (3, 2, 1, 0), "{ran:?}");
    assert!(ran.latency.unwrap().max >= INTERRUPTED_TIMEOUT_MS * 1_000, "{ran:?}");
    // Of an hour it would be next to nothing.
    assert!(ran.per_s() > 2.0 / 60.0, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_charges_a_slow_server_from_the_planned_time() {
    // One connection with 20 ms for each answer can take 50 requests a second; 500 are planned.
    let target = server(&[ACCEPTED; 1_000], 20).await;
    let ran = ran(&target, 1, Some(500.0)).await;
    let planned = Schedule::new(3, 0, 500.0).take_while(|at_us| *at_us < 200_000).count() as u64;
    assert_eq!(ran.sent + ran.unsent, planned, "{ran:?}");
    assert!(ran.unsent > 0 && ran.broken() == 0 && !ran.is_clean(), "{ran:?}");
    // A generator that waits for its turn would have measured 20 ms and some.
    assert!(ran.latency.unwrap().p90 > 100_000, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_sends_every_request_that_is_planned() {
    let target = server(&[ACCEPTED; 1_000], 0).await;
    let ran = ran(&target, 16, Some(2_000.0)).await;
    let planned = Schedule::new(3, 0, 2_000.0).take_while(|at_us| *at_us < 200_000).count() as u64;
    assert_eq!((ran.sent, ran.unsent, ran.is_clean()), (planned, 0, true), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_up_on_idle_connections_breaks_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let (hung_up, first) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        drop(listener.accept().await.unwrap());
        hung_up.send(()).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.read(&mut [0; 4_096]).await.unwrap_or(0) > 0 {
            stream.write_all(ACCEPTED.as_bytes()).await.unwrap();
        }
    });
    let target = Destination { authority, path: "/".to_owned(), token: None };
    let stream = connect(&target).await.unwrap();
    first.await.unwrap();
    stream.readable().await.unwrap();
    let until_us = 1 << 40;
    let course = Course::default();
    let requests = Requests::published(&target, TYPE_FOR_SINK, &tag(1), BODY_BYTES_MIN);
    let shared = Arc::new(Shared::new(target, requests, course.clone(), until_us, None));
    let interrupted = tokio::spawn(connection(Arc::clone(&shared), stream));
    while shared.accepted.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    course.interrupt.ask();
    interrupted.await.unwrap();
    let ran = shared.ran(0, until_us, Paced::default());
    assert_eq!((ran.broken(), ran.lost), (0, 0), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_ends_the_load() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Destination { authority: listener.local_addr().unwrap().to_string(), path: "/".into(), token: None };
    tokio::spawn(async move {
        let connection = listener.accept().await;
        drop((listener, connection));
    });
    // In an open loop too, which else would have been on for an hour.
    let requests = || Requests::published(&target, TYPE_FOR_SINK, &tag(1), BODY_BYTES_MIN);
    let load = Load { connections: 1, rate: Some(1_000.0), lasts: Duration::from_secs(3_600), seed: 1 };
    let ran = run(&target, requests(), load, &Course::default()).await.unwrap();
    assert_eq!((ran.sent, ran.broken(), ran.lost, ran.accepted), (1, 1, 1, 0));
    assert!(run(&target, requests(), load, &Course::default()).await.is_err());
}
