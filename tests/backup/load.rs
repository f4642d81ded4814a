//! A backup under load, and a second life on what was made of it.

use std::collections::HashSet;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::place::{SMALL, api, backup, endpoint, file, payload, publish, restore, traces};
use super::support::PATIENCE;
use super::support::client::Client;
use super::support::gateway::Site;
use super::support::receiver::{Reply, serve};

/// Ids of what an endpoint got.
type Arrived = Arc<Mutex<Vec<String>>>;

/// An endpoint that takes everything, but the first at the second try.
fn receiver() -> (String, Arrived) {
    let arrived = Arrived::default();
    let (seen, first) = (Arc::clone(&arrived), AtomicBool::new(true));
    let address = serve(move |request| {
        if request.path != "/" || first.swap(false, Ordering::Relaxed) {
            return Reply::HangUp;
        }
        seen.lock().unwrap().push(request.header("webhook-id").to_owned());
        Reply::Status(200)
    });
    (format!("http://{address}/"), arrived)
}

/// An address that nobody listens on, for as long as it is held.
fn nobody() -> (TcpListener, String) {
    // Bound and never accepted from: attempts wait for an answer until they time out.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (listener, url)
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if holds() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("never came to pass: {what}");
}

#[test]
fn all_that_was_acknowledged_before_it_began_lives_on() {
    let (prompt, promptly) = receiver();
    let (_held, silent) = nobody();
    let site = Site::new(&format!("{}{}{SMALL}", endpoint("prompt", &prompt), endpoint("late", &silent)));
    let gateway = site.start();
    let token = site.token();
    let acknowledged: Mutex<Vec<(String, String)>> = Mutex::default();
    let stop = AtomicBool::new(false);
    let count = || acknowledged.lock().unwrap().len();
    let (before, taken) = std::thread::scope(|scope| {
        for writer in 0..3 {
            let (mut api, acknowledged, stop) = (Client::with_token(site.management, &token), &acknowledged, &stop);
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("{writer}-{n}");
                    let id = publish(&mut api, &key, &payload(&key));
                    acknowledged.lock().unwrap().push((key, id));
                }
            });
        }
        wait_until("there are segments", || count() > 300);
        let before = acknowledged.lock().unwrap().clone();
        let taken = backup(&site).expect(0).json();
        // Intake went on meanwhile, and goes on.
        let after = count();
        wait_until("intake goes on", || count() > after);
        stop.store(true, Ordering::Relaxed);
        (before, taken)
    });
    gateway.kill();
    assert!(taken["events"].as_u64().unwrap() >= before.len() as u64, "{taken}");
    assert_eq!(taken["bytes"], file(&site).metadata().unwrap().len());
    assert_eq!(file(&site).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(traces(&site), ["the.backup"]);

    // The endpoint that did not answer does so in the second life.
    let (late, lately) = receiver();
    let other = Site::new(&format!("{}{}{SMALL}", endpoint("prompt", &prompt), endpoint("late", &late)));
    let made = restore(&site, &other).expect(0).json();
    assert_eq!(made["backup"]["events"], taken["events"]);
    let events = taken["events"].as_u64().unwrap();
    let line = made["pending"].as_array().unwrap().iter().find(|line| line["endpoint"] == "late").unwrap().clone();
    assert_eq!((&line["deliveries"], &line["application"]), (&events.into(), &"default".into()));
    let may_repeat: HashSet<_> = made["may_repeat"].as_array().unwrap().iter().map(|l| l.to_string()).collect();
    assert!(may_repeat.len() as u64 >= events, "every delivery once: {}", may_repeat.len());
    let first_life = promptly.lock().unwrap().len();

    let gateway = other.start();
    assert_ne!(other.token(), token, "the token is not in a backup");
    let mut api = api(&other);
    for (key, id) in &before {
        let found = api.get(&format!("/api/v1/app/default/msg/{id}")).unwrap();
        assert_eq!((found.status, found.json()["payload"]["n"].as_str()), (200, Some(key.as_str())));
        assert_eq!(publish(&mut api, key, &payload(key)), *id, "the same request gets the same answer");
    }
    let arrived = || lately.lock().unwrap().iter().cloned().collect::<HashSet<_>>();
    wait_until("what was pending is delivered", || arrived().len() as u64 >= events);
    assert!(before.iter().all(|(_, id)| arrived().contains(id)));
    // What had arrived in the first life and was known to is not sent again.
    let repeated = promptly.lock().unwrap().len() - first_life;
    let was_pending = may_repeat.iter().filter(|l| !l.contains(line["endpoint_id"].as_str().unwrap())).count();
    assert!(repeated <= was_pending, "{repeated} sent again of {was_pending}");
    gateway.kill();
}

#[test]
fn erased_content_is_in_no_backup_that_begins_later() {
    const MARK: &str = "4111-1111-1111-1111 belongs to Mallory";
    let site = Site::new(SMALL);
    let gateway = site.start();
    let mut api = api(&site);
    let id = publish(&mut api, "1", &payload(MARK));
    let erased = api.ask("DELETE", &format!("/api/v1/app/default/msg/{id}/content"), &[], b"").unwrap();
    assert_eq!(erased.status, 204);
    backup(&site).expect(0);
    let holds = |bytes: &[u8]| bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes());
    assert!(!holds(&std::fs::read(file(&site)).unwrap()));
    gateway.kill();
    let other = Site::new(SMALL);
    restore(&site, &other).expect(0);
    let gateway = other.start();
    let shown = super::place::api(&other).get(&format!("/api/v1/app/default/msg/{id}")).unwrap().json();
    assert_eq!(shown["erased"], true, "{shown}");
    gateway.kill();
}

#[test]
fn a_stopped_store_is_backed_up_by_itself() {
    let site = Site::new(SMALL);
    let gateway = site.start();
    let id = publish(&mut api(&site), "1", &payload("1"));
    let data = site.data().display().to_string();
    let arguments = ["backup", "--offline", "--to", "the.backup", "--data", &data];
    let refused = super::place::run(&site, &arguments).expect(4);
    assert!(refused.stderr.contains(&format!("process {}", gateway.id())), "{}", refused.stderr);
    assert_eq!(traces(&site), [""; 0]);
    gateway.kill();
    super::place::run(&site, &arguments).expect(0);
    let other = Site::new(SMALL);
    let made = restore(&site, &other).expect(0).json();
    assert_eq!((&made["backup"]["events"], made["may_repeat"].as_array().map(Vec::len)), (&1.into(), Some(0)));
    let gateway = other.start();
    assert_eq!(super::place::api(&other).get(&format!("/api/v1/app/default/msg/{id}")).unwrap().status, 200);
    gateway.kill();
}
