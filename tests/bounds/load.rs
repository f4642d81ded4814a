//! Publishing much, and looking at what a process takes.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::PATIENCE;
use crate::support::client::{Answer, Client};

/// Connections that publish at once.
const PUBLISHERS: usize = 16;

/// What can't be waited for is looked at so often.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// An endpoint for one type of event in the configuration.
pub fn endpoint(name: &str, url: &str, event_type: &str) -> String {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    format!(
        "[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\nevent_types = [\"{event_type}\"]\nsecret = \"{secret}\"\n"
    )
}

/// Its deliveries are tried again every second, many times.
pub fn impatient(endpoint: &str) -> String {
    format!("{endpoint}retry = {{ base_s = 1, factor = 1, cap_s = 1, retries = 50, jitter = 0.1 }}\n")
}

/// Publishes an event of this type.
pub fn publish(client: &mut Client, event_type: &str, payload: &str) -> Answer {
    let body = format!("{{\"eventType\":\"{event_type}\",\"payload\":{payload}}}");
    let headers = [("content-type".to_owned(), "application/json".to_owned())];
    client.ask("POST", "/api/v1/app/default/msg", &headers, body.as_bytes()).unwrap()
}

/// Publishes `count` events over several connections. A full queue says so; then the event is sent again.
pub fn publish_many(management: SocketAddr, token: &str, event_type: &str, count: u64) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..PUBLISHERS {
            scope.spawn(|| {
                let mut client = Client::with_token(management, token);
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let payload = format!("{{\"filler\":\"{}\"}}", "x".repeat(200));
                    loop {
                        match publish(&mut client, event_type, &payload).status {
                            202 => break,
                            503 => {}
                            other => panic!("status {other}"),
                        }
                    }
                }
            });
        }
    });
}

/// Looks again and again until it is so, for as long as patience lasts.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let looks = PATIENCE.as_millis() / LOOK_AGAIN.as_millis();
    let found = (0..looks).any(|_| {
        let found = is_so();
        if !found {
            std::thread::sleep(LOOK_AGAIN);
        }
        found
    });
    assert!(found, "{what} did not come about");
}

/// A figure of a running gateway.
pub fn metric(client: &mut Client, name: &str) -> u64 {
    let page = client.get("/metrics").unwrap().body;
    let page = String::from_utf8(page).unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {page}")).parse::<f64>().unwrap() as u64
}

/// The memory of a process now and at its highest, in bytes.
pub fn memory_of(process: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    };
    (kib("VmRSS") << 10, kib("VmHWM") << 10)
}

/// Descriptors that a process has open.
pub fn descriptors_of(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}
