//! A dead endpoint with a huge backlog: the gateway keeps within its memory and goes on serving the others.

use std::sync::mpsc::channel;

use super::load::{endpoint, memory_of, metric, publish, publish_many};
use super::support::PATIENCE;
use super::support::client::Client;
use super::support::gateway::{Site, addresses};
use super::support::receiver::{Reply, serve};

/// Dead endpoints, each of which every event of the backlog goes to.
const DEAD: u64 = 4;

/// What the process may take: limits.process_bytes.
const BUDGET_BYTES: u64 = 1 << 30;

/// Pending deliveries; `POSTRIDER_PENDING` asks for another number, of which 2000000 is what was promised.
fn pending_wanted() -> u64 {
    std::env::var("POSTRIDER_PENDING").map_or(20_000, |count| count.parse().unwrap())
}

#[test]
fn memory_stays_within_the_budget_however_much_is_pending() {
    let (received, arrivals) = channel();
    let received = std::sync::Mutex::new(received);
    let healthy = serve(move |request| {
        received.lock().unwrap().send(request.body).unwrap();
        Reply::Status(200)
    });
    // Nobody listens there: every attempt fails at once, and every delivery waits for a retry.
    let [nobody, _] = addresses();
    let dead: String = (0..DEAD).map(|n| endpoint(&format!("dead{n}"), &format!("http://{nobody}"), "bulk")).collect();
    let config =
        format!("{dead}{}\n[log]\nlevel = \"warn\"\n", endpoint("healthy", &format!("http://{healthy}"), "one"));
    let site = Site::new(&config);
    let (gateway, wanted) = (site.start(), pending_wanted());
    // A new connection each time: an idle one is closed after a while.
    let client = || Client::with_token(site.management, &site.token());
    let look = |gateway: u32, when: &str| {
        let (now, highest) = memory_of(gateway);
        let pending = metric(&mut client(), "postrider_deliveries_pending");
        println!("{when}: {pending} pending, {} MiB of memory, {} MiB at the highest", now >> 20, highest >> 20);
        assert!(highest < BUDGET_BYTES, "{when}: {highest} bytes of memory");
        pending
    };
    look(gateway.id(), "empty");
    for part in 1..=4 {
        publish_many(site.management, &site.token(), "bulk", wanted / DEAD / 4);
        let pending = look(gateway.id(), "filling");
        assert!(pending >= wanted / DEAD / 4 * DEAD * part, "{pending}");
        assert_eq!(publish(&mut client(), "one", "{\"part\":1}").status, 202);
        arrivals.recv_timeout(PATIENCE).unwrap();
    }
    gateway.kill();
    let again = site.start();
    assert!(look(again.id(), "after a crash") >= wanted / DEAD / 4 * DEAD * 4);
    assert_eq!(publish(&mut client(), "one", "{\"part\":2}").status, 202);
    arrivals.recv_timeout(PATIENCE).unwrap();
    look(again.id(), "serving");
}
