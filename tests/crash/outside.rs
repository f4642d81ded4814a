//! How it starts and stops: exit codes, what it says, and what becomes of attempts in flight.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::audit::Size;
use super::endpoints::SECRET;
use super::support::PATIENCE;
use super::support::client::Client;
use super::support::gateway::{Gateway, Site, free_ports};
use super::support::receiver::{Reply, Request, serve};

/// `nobody`, to whom a file of root's is read-only.
const NOBODY: u32 = 65_534;

/// Small segments: a start writes one ahead.
const SMALL: &str = "[limits]\nsegment_bytes = \"1MiB\"\nbatch_bytes = \"512KiB\"\nbody_bytes = \"256KiB\"\napi_body_bytes = \"256KiB\"\n";

fn endpoint(url: &str) -> String {
    format!("[[endpoint]]\nname = \"app\"\nurl = \"{url}\"\nevent_types = [\"**\"]\nsecret = \"{SECRET}\"\n{SMALL}")
}

/// Publishes an event and returns its id.
fn publish(site: &Site, payload: &str) -> String {
    let mut api = Client::with_token(site.management, &site.token());
    let body = format!("{{\"eventType\":\"order.created\",\"payload\":{payload}}}");
    let json = [("content-type".to_owned(), "application/json".to_owned())];
    let answer = api.ask("POST", "/api/v1/app/default/msg", &json, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.json());
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// An endpoint whose answers wait until the test gives them.
struct Patient {
    site: Site,
    arrived: Receiver<Request>,
    answers: Sender<Reply>,
}

impl Patient {
    fn new() -> Self {
        let (arrivals, arrived) = channel();
        let (answers, replies) = channel();
        let (arrivals, replies) = (Mutex::new(arrivals), Arc::new(Mutex::new(replies)));
        let address = serve(move |request| {
            arrivals.lock().unwrap().send(request).unwrap();
            // The test's end closes the channel.
            replies.lock().unwrap().recv().unwrap_or(Reply::HangUp)
        });
        Self { site: Site::new(&endpoint(&format!("http://{address}/"))), arrived, answers }
    }

    fn attempt(&self) -> Request {
        self.arrived.recv_timeout(PATIENCE).unwrap()
    }
}

/// Waits until the gateway says that it takes no more.
fn wait_until_draining(site: &Site) {
    let mut probe = Client::new(site.management);
    loop {
        let answer = probe.get("/readyz").expect("the management listener serves until attempts have ended");
        if answer.json()["status"] == "draining" {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A gateway that has to end by itself: its exit code, and what it said.
fn ends(site: &Site, command: std::process::Command) -> (Option<i32>, String) {
    let before = site.log().len();
    let mut gateway = Gateway::spawn(command);
    assert!(!gateway.is_ready(), "it serves");
    (gateway.exit_code(), site.log()[before..].to_owned())
}

#[test]
fn a_second_process_is_told_who_holds_the_store() {
    let site = Site::new(SMALL);
    let first = site.start();
    let [ingress, management] = free_ports();
    let mut second =
        site.command(&["serve", "--ingress", &ingress.to_string(), "--management", &management.to_string()]);
    second.arg("--data").arg(site.data());
    let (code, said) = ends(&site, second);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&format!("process {}", first.id())), "{said}");
    // The first did not notice.
    publish(&site, "1");
    let mut tool = site.command(&["journal", "verify", "--data"]);
    assert_eq!(tool.arg(site.data()).status().unwrap().code(), Some(4));
    // A lock ends with its process, however that ends.
    first.kill();
    site.start().kill();
}

#[test]
fn sigterm_lets_attempts_finish_and_nothing_is_sent_twice() {
    let patient = Patient::new();
    let site = &patient.site;
    let mut gateway = site.start();
    let id = publish(site, "{\"n\": 1}");
    assert_eq!(patient.attempt().header("webhook-id"), id);
    gateway.terminate();
    wait_until_draining(site);
    let refused = Client::new(site.ingress).ask("POST", "/in/nobody", &[], b"{}").map(|answer| answer.status);
    assert!(refused.is_err() || refused.as_ref().is_ok_and(|status| *status == 503), "{refused:?}");
    patient.answers.send(Reply::Status(200)).unwrap();
    assert_eq!(gateway.exit_code(), Some(0), "{}", site.log());
    // What finished during the stop is settled: the next life has nothing to do.
    let gateway = site.start();
    let mut api = Client::with_token(site.management, &site.token());
    let deliveries = api.get(&format!("/api/v1/app/default/msg/{id}/delivery")).unwrap().json();
    assert_eq!(deliveries["data"][0]["status"], "delivered", "{deliveries}");
    assert!(patient.arrived.try_recv().is_err());
    gateway.kill();
}

#[test]
fn a_second_sigterm_does_not_wait_and_the_attempt_is_made_again() {
    let patient = Patient::new();
    let site = &patient.site;
    let mut gateway = site.start();
    let id = publish(site, "{\"n\": 2}");
    let first = patient.attempt();
    gateway.terminate();
    wait_until_draining(site);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0), "{}", site.log());
    patient.answers.send(Reply::HangUp).unwrap();
    patient.answers.send(Reply::Status(200)).unwrap();
    let gateway = site.start();
    let second = patient.attempt();
    assert_eq!((second.header("webhook-id"), &second.body), (id.as_str(), &first.body));
    gateway.kill();
}

#[test]
fn a_port_in_use_and_a_bad_configuration_have_codes_of_their_own() {
    let site = Site::new(SMALL);
    for taken in [site.ingress, site.management] {
        let _listener = std::net::TcpListener::bind(taken).unwrap();
        let (code, said) = ends(&site, site.serve());
        assert_eq!(code, Some(8), "{said}");
        assert!(said.contains(&taken.to_string()), "{said}");
    }
    let site = Site::new("\n[limits]\nbody_bytes = \"a lot\"\n");
    let (code, said) = ends(&site, site.serve());
    assert_eq!(code, Some(3), "{said}");
    for part in ["postrider.toml:3", "limits.body_bytes", "a lot"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    assert!(!site.data().exists(), "a configuration that can't be used makes no store");
}

/// A store with some events in several lives; returns the file of the first segment that has events.
fn store_with_history(site: &Site) -> PathBuf {
    for n in 0..3 {
        let gateway = site.start();
        for _ in 0..5 {
            publish(site, &format!("{{\"life\": {n}}}"));
        }
        gateway.kill();
    }
    let mut segments: Vec<_> = fs::read_dir(site.data().join("journal")).unwrap().map(|e| e.unwrap().path()).collect();
    segments.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("seg-"));
    segments.sort();
    segments[0].clone()
}

/// The number in a segment's file name.
fn segment_of(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().trim_start_matches("seg-").to_owned()
}

#[test]
fn damage_in_the_middle_stops_the_start_and_is_told_with_its_place() {
    // The second frame is past the header block of 4 KiB; what is flipped is its record, not the payload in it, which
    // would be the matter of that one event.
    let flip: fn(&mut Vec<u8>) = |bytes| bytes[4_096 + 300] ^= 0x40;
    let cut: fn(&mut Vec<u8>) = |bytes| bytes.truncate(4_096 + 300);
    for (what, damage) in [("flipped", flip), ("cut", cut)] {
        let site = Site::new(SMALL);
        let segment = store_with_history(&site);
        let mut bytes = fs::read(&segment).unwrap();
        damage(&mut bytes);
        fs::write(&segment, &bytes).unwrap();
        fs::remove_dir_all(site.data().join("index")).unwrap();
        let (code, said) = ends(&site, site.serve());
        assert_eq!(code, Some(5), "{what}: {said}");
        for part in [segment_of(&segment).as_str(), "byte ", "journal verify", "journal salvage"] {
            assert!(said.contains(part), "{what}: no {part:?} in {said}");
        }
        assert_eq!(fs::read(&segment).unwrap(), bytes, "a start that is refused changes nothing");
        let journal = |command: &str| {
            let mut command = site.command(&["journal", command, "--data"]);
            command.arg(site.data()).output().unwrap().status.code()
        };
        assert_eq!(journal("verify"), Some(1), "{what}");
        let _ = journal("salvage");
        assert_eq!(journal("verify"), Some(0), "{what}: {}", site.log());
        // The other lives' events are there.
        let gateway = site.start();
        let mut api = Client::with_token(site.management, &site.token());
        let listed = api.get("/api/v1/app/default/msg?limit=100").unwrap().json();
        assert!(listed["data"].as_array().unwrap().len() >= 10, "{what}: {listed}");
        gateway.kill();
    }
}

#[test]
fn a_data_directory_that_can_not_be_written_is_a_storage_failure() {
    let site = Site::new(SMALL);
    let mut below_a_file = site.command(&["serve", "--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0"]);
    below_a_file.arg("--data").arg(site.home().join("postrider.toml").join("data"));
    let (code, said) = ends(&site, below_a_file);
    assert_eq!(code, Some(6), "{said}");

    site.start().kill();
    let modes = |mode: u32, file_mode: u32| {
        for path in [site.data(), site.data().join("journal")] {
            for file in fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
                fs::set_permissions(file, fs::Permissions::from_mode(file_mode)).unwrap();
            }
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    fs::set_permissions(site.home(), fs::Permissions::from_mode(0o755)).unwrap();
    modes(0o555, 0o444);
    let mut command = site.serve();
    if fs::metadata(site.home()).unwrap().permissions().mode() & 0o200 != 0 && is_root() {
        // Root writes where it likes, so somebody else has to try.
        command.uid(NOBODY).gid(NOBODY);
    }
    let (code, said) = ends(&site, command);
    modes(0o755, 0o644);
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains(&site.data().display().to_string()), "{said}");
    site.start().kill();
}

fn is_root() -> bool {
    let id = std::process::Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

#[test]
fn starting_over_and_over_leaves_nothing_behind() {
    let site = Site::new(SMALL);
    let gateway = site.start();
    publish(&site, "1");
    gateway.kill();
    let mut sizes = Vec::new();
    for n in 0..12 {
        let mut gateway = site.start();
        if n % 2 == 0 {
            gateway.kill();
        } else {
            gateway.terminate();
            assert_eq!(gateway.exit_code(), Some(0));
        }
        sizes.push(Size::of(&site.data()));
    }
    for size in &sizes {
        assert!(size.segments <= 2 && size.spares <= 2 && size.journal_bytes <= 4 << 20, "{sizes:?}");
    }
    let (early, late) = (sizes[2], sizes[sizes.len() - 1]);
    assert!(late.index_bytes <= early.index_bytes + 4_096, "{sizes:?}");
}

#[test]
fn connections_and_deliveries_leave_no_file_open() {
    let address = serve(|_| Reply::Status(200));
    let site = Site::new(&endpoint(&format!("http://{address}/")));
    let gateway = site.start();
    let files_open = || fs::read_dir(format!("/proc/{}/fd", gateway.id())).unwrap().count();
    let work = || {
        for n in 0..60 {
            // Each on a connection of its own.
            publish(&site, &n.to_string());
            Client::new(site.management).get("/healthz").unwrap();
            Client::new(site.ingress).ask("POST", "/in/nobody", &[], b"").unwrap();
        }
    };
    work();
    let before = files_open();
    work();
    // Connections that the client has closed are noticed a moment later.
    let mut after = files_open();
    for _ in 0..1_000 {
        if after <= before {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
        after = files_open();
    }
    assert!(after <= before, "{before} files open, and after as much again {after}");
    gateway.kill();
}

/// What metrics say of one figure.
fn figure(api: &mut Client, name: &str) -> u64 {
    let page = String::from_utf8(api.get("/metrics").unwrap().body).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}

/// Once the ids to remember took more than the journal may, dropping a segment freed no more than carrying its ids took:
/// an idle gateway wrote them anew for ever, and the journal was over its limit.
#[test]
fn more_ids_than_the_journal_has_room_for_do_not_keep_it_busy() {
    const RETENTION_BYTES: u64 = 256 << 10;
    let limits = "segment_bytes = \"64KiB\"\nbatch_bytes = \"32KiB\"\nheader_bytes = \"8KiB\"\nbody_bytes = \"8KiB\"\n\
                  api_body_bytes = \"8KiB\"";
    let site = Site::new(&format!("[retention]\nbytes = {RETENTION_BYTES}\n[limits]\n{limits}\n"));
    let gateway = site.start();
    let token = site.token();
    let publish = |api: &mut Client, key: String| {
        let headers = [("content-type", "application/json"), ("idempotency-key", &key)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let body = b"{\"eventType\":\"order.created\",\"payload\":1}";
        let answer = api.ask("POST", "/api/v1/app/default/msg", &headers, body).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.json());
        answer.json()["id"].clone()
    };
    std::thread::scope(|scope| {
        for sender in 0..24 {
            let mut api = Client::with_token(site.management, &token);
            scope.spawn(move || (0..120).for_each(|n| drop(publish(&mut api, format!("{sender}-{n}")))));
        }
    });
    let mut api = Client::with_token(site.management, &token);
    let newest = publish(&mut api, "newest".to_owned());
    // It comes to rest.
    let mut records = 0;
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(50));
        let now = figure(&mut api, "postrider_journal_records_total");
        if now == records {
            break;
        }
        records = now;
    }
    assert_eq!(figure(&mut api, "postrider_journal_records_total"), records, "it writes with nothing to do");
    let size = Size::of(&site.data());
    assert!(size.journal_bytes <= RETENTION_BYTES + (64 << 10), "{size:?}");
    let keys = figure(&mut api, "postrider_dedup_keys");
    assert!((100..24 * 120).contains(&keys), "{keys} keys");
    assert!(site.log().contains("ids are forgotten before"), "{}", site.log());
    assert_eq!(publish(&mut api, "newest".to_owned()), newest);
    gateway.kill();
    // A key space that is built anew knows the same ids.
    fs::remove_dir_all(site.data().join("index")).unwrap();
    let gateway = site.start();
    let mut api = Client::with_token(site.management, &token);
    assert_eq!(publish(&mut api, "newest".to_owned()), newest);
    assert_eq!(figure(&mut api, "postrider_dedup_keys"), keys);
    gateway.kill();
}
