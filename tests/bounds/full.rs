//! Where intake stops: too much pending, or a journal full of it. Then it says so, deliveries go on, and it opens again.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use super::load::{endpoint, impatient, publish, wait_until};
use super::support::PATIENCE;
use super::support::client::Client;
use super::support::gateway::Site;
use super::support::receiver::{Reply, serve};

/// An endpoint that is down until it is told otherwise, and the ids of what arrived.
struct Endpoint {
    url: String,
    up: Arc<AtomicBool>,
    arrived: Receiver<String>,
}

impl Endpoint {
    fn down() -> Self {
        let (sender, arrived) = channel();
        let (sender, up) = (Mutex::new(sender), Arc::new(AtomicBool::new(false)));
        let is_up = Arc::clone(&up);
        let address = serve(move |request| {
            if !is_up.load(Ordering::SeqCst) {
                return Reply::Status(503);
            }
            sender.lock().unwrap().send(request.header("webhook-id").to_owned()).unwrap();
            Reply::Status(200)
        });
        Self { url: format!("http://{address}"), up, arrived }
    }

    /// Comes up and waits until all of these have arrived.
    fn take(&self, mut missing: HashSet<String>) {
        self.up.store(true, Ordering::SeqCst);
        while !missing.is_empty() {
            missing.remove(&self.arrived.recv_timeout(PATIENCE).unwrap());
        }
    }
}

/// Publishes until intake closes; the ids of what was acknowledged.
fn fill(site: &Site, payload: &str, mut look: impl FnMut()) -> HashSet<String> {
    let mut client = Client::with_token(site.management, &site.token());
    let mut ids = HashSet::new();
    loop {
        let answer = publish(&mut client, "bulk", payload);
        look();
        match answer.status {
            202 => assert!(ids.insert(answer.json()["id"].as_str().unwrap().to_owned())),
            503 => {
                assert!(answer.retry_after.is_some(), "a refusal says when to come again");
                return ids;
            }
            other => panic!("status {other}: {:?}", answer.json()),
        }
        assert!(ids.len() < 5_000, "it never closes");
    }
}

fn wait_until_intake_opens(site: &Site, payload: &str) {
    let mut client = Client::with_token(site.management, &site.token());
    wait_until("open intake", || publish(&mut client, "bulk", payload).status == 202);
}

fn bytes_in(directory: &Path) -> u64 {
    let lengths = fs::read_dir(directory).unwrap().map(|entry| entry.and_then(|e| e.metadata()).map_or(0, |m| m.len()));
    lengths.sum()
}

#[test]
fn past_the_limit_of_pending_deliveries_intake_waits_for_them() {
    let endpoint_down = Endpoint::down();
    let config = format!("{}[limits]\npending = 50\n", impatient(&endpoint("app", &endpoint_down.url, "bulk")));
    let site = Site::new(&config);
    let _gateway = site.start();
    let ids = fill(&site, "1", || ());
    assert_eq!(ids.len(), 50);
    endpoint_down.take(ids);
    wait_until_intake_opens(&site, "2");
}

#[test]
fn a_journal_full_of_pending_events_keeps_within_its_bytes() {
    const SEGMENT_BYTES: u64 = 256 << 10;
    const RETENTION_BYTES: u64 = 2 << 20;
    let endpoint_down = Endpoint::down();
    let limits = format!(
        "[retention]\nbytes = {RETENTION_BYTES}\n[limits]\nsegment_bytes = {SEGMENT_BYTES}\nbatch_bytes = \"128KiB\"\n\
         body_bytes = \"32KiB\"\napi_body_bytes = \"32KiB\"\nfree_bytes = 0\n"
    );
    let site = Site::new(&format!("{}{limits}", impatient(&endpoint("app", &endpoint_down.url, "bulk"))));
    let gateway = site.start();
    let payload = format!("\"{}\"", "x".repeat(8_000));
    let journal = site.data().join("journal");
    let look = || {
        let bytes = bytes_in(&journal);
        assert!(bytes <= RETENTION_BYTES + 4 * SEGMENT_BYTES, "{bytes} bytes of journal");
    };
    let ids = fill(&site, &payload, look);
    assert!(ids.len() > 50, "only {} fit", ids.len());
    // A crash makes no room and loses nothing.
    gateway.kill();
    let _gateway = site.start();
    look();
    endpoint_down.take(ids);
    wait_until_intake_opens(&site, &payload);
    look();
}
