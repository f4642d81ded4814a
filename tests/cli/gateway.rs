//! Commands that ask a running gateway, and what `serve` ends with.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Gateway, SECRET, keys, postrider, run};

/// Looks before a test gives up.
const LOOKS: usize = 1_000;

/// An endpoint that answers 404 until it is mended, then 200.
struct Endpoint {
    port: u16,
    mended: Arc<AtomicBool>,
}

impl Endpoint {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, mended) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let is_mended = Arc::clone(&mended);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let status = if is_mended.load(Ordering::SeqCst) { "200 OK" } else { "404 Not Found" };
                answer(stream, status);
            }
        });
        Self { port, mended }
    }
}

/// Reads a whole small request and answers it.
fn answer(mut stream: TcpStream, status: &str) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&request) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
    let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn write_config(home: &Path, port: u16) {
    let text = format!(
        "[limits]\nfree_bytes = 0\n[[source]]\nname = \"forge\"\nprovider = \"github\"\nsecrets = [\"{SECRET}\"]\n\
         [[endpoint]]\nname = \"app\"\nurl = \"http://127.0.0.1:{port}/\"\nsources = [\"forge\"]\nevent_types = [\"order.*\"]\nsecret = \"{SECRET}\"\n"
    );
    std::fs::write(home.join("postrider.toml"), text).unwrap();
}

/// A gateway with one endpoint, and a message that it refused.
struct World {
    home: tempfile::TempDir,
    endpoint: Endpoint,
    gateway: Gateway,
}

impl World {
    fn start() -> Self {
        let (home, endpoint) = (tempfile::tempdir().unwrap(), Endpoint::start());
        write_config(home.path(), endpoint.port);
        let gateway = Gateway::start(home.path());
        Self { home, endpoint, gateway }
    }

    fn ask(&self, args: &[&str]) -> crate::support::Done {
        self.gateway.ask(self.home.path(), args)
    }

    fn json(&self, args: &[&str]) -> Value {
        self.ask(&[args, &["--json"]].concat()).expect(0).json()
    }

    /// Publishes; the message's id.
    fn publish(&self, payload: &str) -> String {
        self.ask(&["send", "--type", "order.created", payload]).expect(0).stdout.trim().to_owned()
    }

    /// Waits until the message's one delivery has this status.
    fn wait_until(&self, id: &str, status: &str) {
        for _ in 0..LOOKS {
            if self.json(&["deliveries", id])["data"][0]["status"] == status {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{id} did not become {status}");
    }
}

#[test]
fn from_publishing_to_the_replay_of_a_dead_letter() {
    let world = World::start();
    let id = world.publish("{\"order\":  7}");
    world.wait_until(&id, "dead");

    let shown = world.json(&["events", &id]);
    assert_eq!((&shown["id"], &shown["eventType"]), (&id.clone().into(), &"order.created".into()));
    let text = world.ask(&["events", &id]).expect(0).stdout;
    assert!(text.ends_with("content\n{\"order\":  7}\n"), "{text}");
    let listed = world.json(&["events", "--type", "order.created", "--limit", "5"]);
    assert_eq!(keys(&listed), ["data", "done", "iterator", "prevIterator"]);
    assert!(listed["data"][0].get("payload").is_none() && listed["data"][0]["id"] == id);
    assert_eq!(world.json(&["events", "--content"])["data"][0]["payload"]["order"], 7);

    let attempts = world.json(&["deliveries", &id, "--attempts"]);
    assert_eq!(attempts["data"][0]["status"], 404);
    let text = world.ask(&["deliveries", &id, "--attempts"]).expect(0).stdout;
    assert!(text.contains("dead") && text.contains("404") && text.contains("dead rejected"), "{text}");
    let text = world.ask(&["dead", "--endpoint", "app"]).expect(0).stdout;
    assert!(text.contains(&id) && text.contains("rejected"), "{text}");
    assert_eq!(world.json(&["dead"])["data"][0]["messageId"], id);

    world.endpoint.mended.store(true, Ordering::SeqCst);
    let done = world.json(&["replay", "--endpoint", "app", "--since", "2020-01-01T00:00:00Z"]);
    assert_eq!(keys(&done), ["alreadyDue", "iterator", "more", "reasons", "replayed", "skipped"]);
    assert_eq!((&done["replayed"], &done["more"]), (&1.into(), &false.into()));
    world.wait_until(&id, "delivered");
    let text = world.ask(&["replay", &id]).expect(0).stdout;
    assert_eq!(text, "replayed 1, already due 0, skipped 0\n");
}

#[test]
fn endpoints_are_listed_and_switched() {
    let world = World::start();
    world.endpoint.mended.store(true, Ordering::SeqCst);
    let text = world.ask(&["endpoint", "disable", "app"]).expect(0).stdout;
    assert_eq!(text, "app is disabled\n");
    assert_eq!(world.json(&["endpoint", "list"])["data"][0]["standing"], "disabled");
    let id = world.publish("1");
    assert_eq!(world.json(&["deliveries", &id])["data"][0]["status"], "pending");
    world.ask(&["endpoint", "enable", "app"]).expect(0);
    world.wait_until(&id, "delivered");
    let text = world.ask(&["endpoint", "list"]).expect(0).stdout;
    assert!(text.starts_with("NAME") && text.contains("enabled") && text.contains("order.*"), "{text}");
}

#[test]
fn what_is_signed_by_the_command_line_is_received() {
    let world = World::start();
    let signed = run(world.home.path(), &["sign", "--provider", "github", "--secret", SECRET, "--id", "d-1"], b"{}");
    let headers = signed.expect(0).stdout.replace('\n', "\r\n");
    let authority = world.gateway.ingress.trim_start_matches("http://");
    let mut stream = TcpStream::connect(authority).unwrap();
    let head = format!("POST /in/forge HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\ncontent-length: 2\r\n");
    write!(stream, "{head}{headers}\r\n{{}}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let event = &world.json(&["events"])["data"][0];
    assert_eq!((&event["source"], &event["eventId"]), (&"forge".into(), &"d-1".into()));
    assert_eq!(world.gateway.terminate(), Some(0));
}

#[test]
fn what_is_published_and_what_the_gateway_refuses() {
    let world = World::start();
    std::fs::write(world.home.path().join("p.json"), "{\"big\": 12345678901234567890.10}").unwrap();
    let send = ["send", "--type", "order.created", "--event-id", "o-1", "--json", "@p.json"];
    let answer = world.ask(&send).expect(0);
    assert!(answer.stdout.contains("{\"big\": 12345678901234567890.10}"), "{}", answer.stdout);
    assert_eq!(keys(&answer.json()), ["eventId", "eventType", "id", "payload", "timestamp"]);
    let conflict = world.ask(&send).expect(1);
    assert!(conflict.stderr.contains("event_id_conflict: "), "{}", conflict.stderr);
    let keyed = ["send", "--type", "order.created", "--idempotency-key", "k-1", "7"];
    assert_eq!(world.ask(&keyed).expect(0).stdout, world.ask(&keyed).expect(0).stdout);
    for (args, code) in [
        (&["deliveries", "msg_00000000000000000000000000"][..], "unknown_message"),
        (&["events", "--app", "nobody"], "unknown_application"),
        (&["endpoint", "enable", "nobody"], "unknown_endpoint"),
        (&["send", "--type", "no type", "1"], "invalid"),
    ] {
        let refused = world.ask(args).expect(1);
        assert!(
            refused.stderr.contains(&format!("error: {code}: ")) && refused.stdout.is_empty(),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn a_wrong_token_is_explained_and_none_is_a_configuration_error() {
    let world = World::start();
    let server = ["events", "--server", &world.gateway.management, "--token-file"];
    std::fs::write(world.home.path().join("other"), "not-the-token-of-this-gateway").unwrap();
    let wrong = run(world.home.path(), &[&server[..], &["other"]].concat(), b"").expect(1);
    assert!(wrong.stderr.contains("unauthorized") && wrong.stderr.contains("read from other"), "{}", wrong.stderr);
    let none = run(world.home.path(), &[&server[..], &["nowhere"]].concat(), b"").expect(3);
    assert!(none.stderr.contains("the token file nowhere can't be read"), "{}", none.stderr);
    let mut command = postrider(world.home.path());
    command.args(["events", "--server", &world.gateway.management]);
    command.env("POSTRIDER_TOKEN_FILE", world.home.path().join(&world.gateway.token_file));
    assert!(command.output().unwrap().status.success());
    let token = std::fs::read_to_string(world.home.path().join(&world.gateway.token_file)).unwrap();
    assert!(!wrong.stderr.contains(token.trim()));
}

#[test]
fn where_nothing_or_something_else_listens() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let server = format!("http://{address}");
    let done = run(home.path(), &["send", "--type", "a", "1", "--server", &server], b"").expect(7);
    assert!(done.stderr.contains(&server), "{}", done.stderr);
    let other = Endpoint::start();
    std::fs::write(home.path().join("token"), "some token or other").unwrap();
    let server = format!("http://127.0.0.1:{}", other.port);
    run(home.path(), &["dead", "--token-file", "token", "--server", &server], b"").expect(7);
}

#[test]
fn serve_says_why_it_can_not() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let done = run(home.path(), &["serve", "--ingress", &address, "--management", "127.0.0.1:0"], b"").expect(8);
    assert!(done.stderr.contains(&address) && done.stdout.is_empty(), "{}", done.stderr);
    std::fs::write(home.path().join("file"), "").unwrap();
    let serve = ["serve", "--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0", "--data", "file/data"];
    run(home.path(), &serve, b"").expect(6);
}

#[test]
fn a_running_gateway_keeps_others_from_its_store() {
    let world = World::start();
    for command in ["verify", "dump", "rebuild", "salvage"] {
        run(world.home.path(), &["journal", command, "--data", "data"], b"").expect(4);
    }
}
