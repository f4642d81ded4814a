//! Receivers that try to hold, flood or confuse the gateway.

use std::time::Duration;

use postrider::core::attempt::{FailureKind, Outcome};
use postrider::engine::Courier;
use tokio::sync::mpsc;

use super::support::*;

#[tokio::test]
async fn an_endless_body_is_cut_and_its_connection_closed() {
    let (closed, mut was_closed) = mpsc::unbounded_channel();
    let receiver = Receiver::start(move |mut conn| {
        let closed = closed.clone();
        async move {
            conn.read_request().await?;
            conn.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            let chunk = [b"400\r\n".as_slice(), &[b'x'; 1_024], b"\r\n"].concat();
            while conn.write(&chunk).await.is_ok() {}
            let _ = closed.send(());
            Ok(())
        }
    })
    .await;
    let egress = receiver.egress();
    let report = egress.attempt(job(&receiver.url(), 60_000)).await;
    assert_status(&report, 200);
    assert_eq!((report.response.len(), report.response_truncated), (16 << 10, true));
    assert_eq!(was_closed.recv().await, Some(()));
}

#[tokio::test]
async fn long_bodies_are_kept_in_part() {
    for (length, kept, is_reused) in
        [(100, 100, true), (16 << 10, 16 << 10, true), (60_000, 16 << 10, true), (1 << 20, 16 << 10, false)]
    {
        let receiver = Receiver::answering(response("200 OK", "", &"x".repeat(length))).await;
        let egress = receiver.egress();
        let report = egress.attempt(job(&receiver.url(), 5_000)).await;
        assert_status(&report, 200);
        assert_eq!(report.response.len(), kept, "{length}");
        assert_eq!(report.response_truncated, length > kept, "{length}");
        assert_status(&egress.attempt(job(&receiver.url(), 5_000)).await, 200);
        assert_eq!(receiver.connections() == 1, is_reused, "{length}");
    }
}

#[tokio::test]
async fn large_heads_are_refused() {
    let many: String = (0..101).map(|i| format!("x-{i}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "x".repeat(17 << 10));
    let sum: String = (0..40).map(|i| format!("x-{i}: {}\r\n", "x".repeat(500))).collect();
    for headers in [many, long, sum] {
        let receiver = Receiver::answering(response("200 OK", &headers, "")).await;
        assert_failed(&receiver.attempt(5_000).await, FailureKind::Protocol);
        assert_eq!(receiver.connections(), 1);
    }
    let most: String = (0..98).map(|i| format!("x-{i}: 1\r\n")).collect();
    let receiver = Receiver::answering(response("200 OK", &most, "")).await;
    let report = receiver.attempt(5_000).await;
    assert_status(&report, 200);
    assert_eq!(report.response_headers.len(), 99);
}

#[tokio::test]
async fn one_deadline_covers_everything() {
    // Each receiver goes on for ever; the number of connections shows that nothing was tried again.
    let silent = Receiver::start(|mut conn| async move {
        conn.read_request().await?;
        conn.wait_closed().await;
        Ok(())
    });
    let trickled_head = Receiver::start(|mut conn| async move {
        conn.read_request().await?;
        conn.write(b"HTTP/1.1 200 OK\r\n").await?;
        loop {
            conn.write(b"x: 1\r\n").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let trickled_body = Receiver::start(|mut conn| async move {
        conn.read_request().await?;
        conn.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await?;
        loop {
            conn.write(b"x").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let unread_request = Receiver::start(|mut conn| async move {
        std::future::pending::<()>().await;
        conn.write(b"").await
    });
    let head = "waiting for the head of the response";
    // More than the buffers of both sockets hold; only the last one does not read it.
    let large = 8 << 20;
    let cases = [
        (silent.await, 10, head),
        (trickled_head.await, 10, head),
        (trickled_body.await, 10, "reading the body of the response"),
        (unread_request.await, large, head),
    ];
    let running = cases.map(|(receiver, body_bytes, doing)| {
        tokio::spawn(async move {
            let job = job_of(&receiver.url(), 1_000, None, &[], &vec![b'x'; body_bytes]);
            // Unsigned, because signing so much takes long in a debug build.
            (receiver.egress().attempt(unsigned(job)).await, receiver, doing)
        })
    });
    for case in running {
        let (report, receiver, doing) = case.await.unwrap();
        let detail = assert_failed(&report, FailureKind::Timeout);
        assert_eq!(detail, format!("the deadline of 1000 ms passed while {doing}"));
        assert!((1_000_000..10_000_000).contains(&report.timings.total_us), "{:?}", report.timings);
        assert!(report.timings.connect_us.is_some());
        assert_eq!(report.timings.first_byte_us.is_some(), doing != head);
        assert_eq!(report.response.is_empty(), doing == head);
        assert_eq!(receiver.connections(), 1);
    }
}

#[tokio::test]
async fn a_dropped_attempt_leaves_nothing_open() {
    let (closed, mut was_closed) = mpsc::unbounded_channel();
    let receiver = Receiver::start(move |mut conn| {
        let closed = closed.clone();
        async move {
            conn.read_request().await?;
            let _ = closed.send(false);
            conn.wait_closed().await;
            let _ = closed.send(true);
            Ok(())
        }
    })
    .await;
    let egress = receiver.egress();
    let attempt = tokio::spawn({
        let job = job(&receiver.url(), 60_000);
        async move { egress.attempt(job).await }
    });
    assert_eq!(was_closed.recv().await, Some(false));
    attempt.abort();
    assert_eq!(was_closed.recv().await, Some(true));
}

#[tokio::test]
async fn connections_that_break_are_resets() {
    let reset_at_once = Receiver::start(|conn| async move { conn.stream.set_zero_linger() });
    let reset_after_receipt = Receiver::start(|mut conn| async move {
        conn.read_request().await?;
        conn.stream.set_zero_linger()
    });
    let closed_after_receipt = Receiver::start(|mut conn| async move { conn.read_request().await });
    let cut_head = Receiver::start(|mut conn| async move {
        conn.read_request().await?;
        conn.write(b"HTTP/1.1 200 OK\r\ncontent-le").await
    });
    let cut_body = Receiver::start(|mut conn| async move {
        conn.read_request().await?;
        conn.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await
    });
    let cut_chunks = Receiver::start(|mut conn| async move {
        conn.read_request().await?;
        conn.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await
    });
    for (receiver, name) in [
        (reset_at_once.await, "reset at once"),
        (reset_after_receipt.await, "reset after receipt"),
        (closed_after_receipt.await, "closed after receipt"),
        (cut_head.await, "cut head"),
        (cut_body.await, "cut body"),
        (cut_chunks.await, "cut chunks"),
    ] {
        let report = receiver.attempt(5_000).await;
        let detail = assert_failed(&report, FailureKind::Reset);
        assert!(!detail.is_empty(), "{name}");
        // A fresh connection that breaks is the schedule's business, not ours.
        assert_eq!(receiver.connections(), 1, "{name}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_failure() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "220 mail.example ESMTP\r\n\r\n",
        "<html>HTTP/0.9 is long gone</html>\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        let receiver = Receiver::answering(garbage).await;
        assert_failed(&receiver.attempt(5_000).await, FailureKind::Protocol);
        assert_eq!(receiver.connections(), 1, "{garbage:?}");
    }
}

#[tokio::test]
async fn one_that_speaks_first_is_a_failure() {
    let receiver = Receiver::start(|mut conn| async move {
        conn.write(b"SSH-2.0-OpenSSH_9.6\r\n").await?;
        conn.wait_closed().await;
        Ok(())
    })
    .await;
    let report = receiver.attempt(60_000).await;
    // The bytes may come before or after the request goes out.
    let is_failure = matches!(report.outcome, Outcome::Failed { kind: FailureKind::Protocol | FailureKind::Reset, .. });
    assert!(is_failure, "{:?}", report.outcome);
}

#[tokio::test]
async fn informational_responses_are_skipped_but_not_for_ever() {
    let some = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let receiver = Receiver::answering([&some[..], &response("200 OK", "", "ok")].concat()).await;
    let report = receiver.attempt(5_000).await;
    assert_status(&report, 200);
    assert_eq!(&report.response[..], b"ok");

    let flood = Receiver::start(|mut conn| async move {
        conn.read_request().await?;
        loop {
            conn.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
    })
    .await;
    let report = flood.attempt(60_000).await;
    assert!(assert_failed(&report, FailureKind::Protocol).contains("1xx"));
}

#[tokio::test]
async fn an_upgrade_nobody_asked_for_is_an_answer_and_ends_the_connection() {
    let receiver =
        Receiver::answering("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
    let egress = receiver.egress();
    for connections in 1..=2 {
        assert_status(&egress.attempt(job(&receiver.url(), 5_000)).await, 101);
        assert_eq!(receiver.connections(), connections);
    }
}
