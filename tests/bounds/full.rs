//! Where intake stops: too much pending, or a journal full of it. Then it says so, deliveries go on, and it opens again.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::load::{endpoint, impatient, publish, wait_until};
use super::support::client::Client;
use super::support::gateway::Site;
use super::switched::Switched;

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
    let endpoint_down = Switched::down();
    let config = format!(
        "{}[limits]\npending = 50\n",
        impatient(&endpoint("app", &format!("http://{}", endpoint_down.address), "bulk"))
    );
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
    let endpoint_down = Switched::down();
    let limits = format!(
        "[retention]\nbytes = {RETENTION_BYTES}\n[limits]\nsegment_bytes = {SEGMENT_BYTES}\nbatch_bytes = \"128KiB\"\n\
         body_bytes = \"32KiB\"\napi_body_bytes = \"32KiB\"\nfree_bytes = 0\n"
    );
    let site = Site::new(&format!(
        "{}{limits}",
        impatient(&endpoint("app", &format!("http://{}", endpoint_down.address), "bulk"))
    ));
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
