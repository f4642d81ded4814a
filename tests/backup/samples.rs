//! Data directories and backups that earlier versions wrote open, and hold what they held. `tests/samples/README.md` says how
//! a sample is made.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::place::{SECRET, api, backup, file, publish, run};
use super::support::client::Client;
use super::support::gateway::Site;
use super::support::receiver::{Reply, serve};

/// Every kind of record that the first format has.
const KINDS: [&str; 9] =
    ["accepted", "buried", "carried", "dedup_carried", "dropped", "endpoint", "erased", "redriven", "settled"];

/// Names a directory to write a new sample to.
const MAKE: &str = "POSTRIDER_MAKE_SAMPLE";

const INBOUND_SECRET: &str = "the secret of a sample";
const INBOUND: &str = "{\"n\":\"received\"}";
const INBOUND_ID: &str = "72d3162e-cc78-11e3-81ab-4c9367dc0958";

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples")
}

/// What a sample is made and read with. Nothing in it grows old within ten years.
fn config(url: &str, retention: &str) -> String {
    let mut config = format!(
        "[[source]]\nname = \"github\"\nprovider = \"github\"\nsecrets = [\"{INBOUND_SECRET}\"]\n\n\
         [retention]\ndays = 3650\ndedup_days = 3650\nbytes = \"{retention}\"\n\n{}\n",
        super::place::SMALL
    );
    for (name, types) in [("taken", "[\"order.*\"]"), ("refused", "[\"order.*\"]"), ("waiting", "[\"wait.*\"]")] {
        config += &format!(
            "[[endpoint]]\nname = \"{name}\"\nurl = \"{url}{name}\"\nsecret = \"{SECRET}\"\nsources = [\"github\"]\n\
             event_types = {types}\nretry = {{ schedule_s = [43200], jitter = 0.0 }}\n\n"
        );
    }
    config
}

fn get(api: &mut Client, path: &str) -> Value {
    let answer = api.get(path).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.json());
    answer.json()
}

/// Everything that the management API shows of a store.
fn shown(api: &mut Client) -> Value {
    let messages = get(api, "/api/v1/app/default/msg?limit=250");
    assert_eq!(messages["done"], true);
    let mut each = serde_json::Map::new();
    for message in messages["data"].as_array().unwrap() {
        let id = message["id"].as_str().unwrap();
        let deliveries = get(api, &format!("/api/v1/app/default/msg/{id}/delivery"))["data"].clone();
        let attempts = get(api, &format!("/api/v1/app/default/msg/{id}/attempt"))["data"].clone();
        each.insert(id.to_owned(), json!({ "message": message, "deliveries": deliveries, "attempts": attempts }));
    }
    let mut endpoints = get(api, "/api/v1/endpoint")["data"].clone();
    // The receiver listens elsewhere each time.
    endpoints.as_array_mut().unwrap().iter_mut().for_each(|endpoint| drop(endpoint["url"].take()));
    json!({ "messages": each, "dead": get(api, "/api/v1/dead-letter?limit=250")["data"], "endpoints": endpoints })
}

/// Posts the inbound event, with its provider's headers.
fn post_inbound(site: &Site) -> Value {
    let body = site.home().join("inbound.json");
    fs::write(&body, INBOUND).unwrap();
    let arguments = ["sign", "--provider", "github", "--secret", INBOUND_SECRET, "--id", INBOUND_ID, "--body"];
    let signed = run(site, &[&arguments[..], &[body.to_str().unwrap()]].concat()).expect(0).stdout;
    let mut headers: Vec<_> =
        signed.lines().map(|l| l.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap()).collect();
    headers.push(("X-GitHub-Event".to_owned(), "push".to_owned()));
    let answer = Client::new(site.ingress).ask("POST", "/in/github", &headers, INBOUND.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()
}

/// Publishes an event of this type.
fn publish_type(api: &mut Client, event_type: &str, key: &str, filling: usize) -> String {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let body =
        json!({ "eventType": event_type, "eventId": key, "payload": { "n": key, "filling": "x".repeat(filling) } });
    let answer = api.ask("POST", "/api/v1/app/default/msg", &headers, body.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.json());
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn wait_for(api: &mut Client, what: &str, mut holds: impl FnMut(&mut Client) -> bool) {
    for _ in 0..6_000 {
        if holds(api) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("never came to pass: {what}");
}

fn settled(api: &mut Client, id: &str) -> bool {
    let deliveries = get(api, &format!("/api/v1/app/default/msg/{id}/delivery"))["data"].clone();
    let mut deliveries = deliveries.as_array().unwrap().iter();
    deliveries.all(|delivery| delivery["status"] != "pending" || delivery["attempts"] != 0)
}

fn call(api: &mut Client, method: &str, path: &str, body: &str) {
    let json = [("content-type".to_owned(), "application/json".to_owned())];
    let headers = if body.is_empty() { &[][..] } else { &json[..] };
    let answer = api.ask(method, path, headers, body.as_bytes()).unwrap();
    assert!(matches!(answer.status, 200 | 204), "{method} {path}: {}", answer.status);
}

/// The receiver of the endpoints' deliveries.
fn receiver() -> String {
    let address = serve(|request| match request.path.as_str() {
        "/refused" => Reply::Status(400),
        "/waiting" => Reply::Status(503),
        _ => Reply::Status(204),
    });
    format!("http://{address}/")
}

/// Lives a life with everything in it. Returns what is to be remembered.
fn live(site: &Site) -> Value {
    let gateway = site.start();
    let mut api = api(site);
    // Early ones, which are carried: pending after an attempt, received, erased.
    let waiting = publish_type(&mut api, "wait.early", "waiting", 100);
    let inbound = post_inbound(site)["id"].as_str().unwrap().to_owned();
    for id in [&waiting, &inbound] {
        wait_for(&mut api, "an attempt", |api| settled(api, id));
    }
    // Until their segment is full and dropped.
    let first = publish_type(&mut api, "nobody", "filling", 5_000);
    let segments = |api: &mut Client| {
        let page = String::from_utf8(api.get("/metrics").unwrap().body).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix("postrider_journal_segments ")).unwrap();
        line.parse::<u32>().unwrap()
    };
    for n in 0.. {
        if segments(&mut api) > 1 {
            break;
        }
        publish_type(&mut api, "nobody", &format!("filling-{n}"), 5_000);
    }
    wait_for(&mut api, "the segment is dropped", |api| {
        api.get(&format!("/api/v1/app/default/msg/{first}")).unwrap().status == 404
    });
    call(&mut api, "POST", "/api/v1/endpoint/waiting/disable", "");
    // Late ones: delivered, dead, replayed, erased, pending.
    let replayed = publish_type(&mut api, "order.created", "replayed", 100);
    let erased = publish_type(&mut api, "wait.late", "erased", 100);
    let late = publish_type(&mut api, "wait.late", "late", 100);
    wait_for(&mut api, "an outcome", |api| settled(api, &replayed));
    call(&mut api, "POST", "/api/v1/replay", &json!({ "messageId": replayed, "endpoint": "refused" }).to_string());
    wait_for(&mut api, "another", |api| {
        let attempts = get(api, &format!("/api/v1/app/default/msg/{replayed}/attempt"))["data"].clone();
        attempts.as_array().unwrap().len() == 3
    });
    call(&mut api, "DELETE", &format!("/api/v1/app/default/msg/{erased}/content"), "");
    let shown = shown(&mut api);
    assert!([&waiting, &inbound, &replayed, &erased, &late].iter().all(|id| shown["messages"].get(id).is_some()));
    backup(site).expect(0);
    gateway.terminate();
    gateway.kill_ending();
    json!({ "shown": shown, "inbound": inbound, "waiting": waiting, "replayed": replayed })
}

/// Kinds of the records that a data directory's journal holds.
fn kinds(site: &Site) -> BTreeSet<String> {
    let data = site.data().display().to_string();
    run(site, &["journal", "verify", "--data", &data]).expect(0);
    let dump = run(site, &["journal", "dump", "--json", "--data", &data]).expect(0).stdout;
    let kind = |line: &str| serde_json::from_str::<Value>(line).unwrap()["kind"].as_str().unwrap().to_owned();
    dump.lines().map(kind).collect()
}

/// Keeps of a data directory what a sample needs: the journal, without what is not written yet.
fn keep(site: &Site, sample: &Path) {
    let journal = sample.join("journal");
    fs::create_dir_all(&journal).unwrap();
    for entry in fs::read_dir(site.data().join("journal")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        if name.starts_with("seg-") {
            let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| (at + 1).next_multiple_of(8));
            fs::write(journal.join(name), &bytes[..written]).unwrap();
        } else if name == "checkpoint" {
            fs::write(journal.join(name), bytes).unwrap();
        }
    }
    fs::copy(file(site), sample.join("the.backup")).unwrap();
}

/// Every version's sample, and one that is made now.
#[test]
fn what_earlier_versions_wrote_is_read() {
    let fresh = tempfile::tempdir().unwrap();
    let made = std::env::var_os(MAKE).map_or_else(|| fresh.path().join("now"), PathBuf::from);
    let site = Site::new(&config(&receiver(), "256KiB"));
    let expected = live(&site);
    // One more start seals the segment, and drops nothing.
    fs::write(site.home().join("postrider.toml"), config(&receiver(), "10GiB")).unwrap();
    site.start().kill();
    keep(&site, &made);
    fs::write(made.join("expected.json"), serde_json::to_vec_pretty(&expected).unwrap()).unwrap();
    let mut all: Vec<_> = fs::read_dir(samples()).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.is_dir());
    assert!(!all.is_empty(), "no sample in {}", samples().display());
    all.push(made);
    for sample in &all {
        for restored in [false, true] {
            reads(sample, restored);
        }
    }
}

/// Opens a sample, or restores its backup, and holds it against what was shown when it was made.
fn reads(sample: &Path, restored: bool) {
    let what = format!("{} {}", sample.display(), if restored { "restored" } else { "opened" });
    let expected: Value = serde_json::from_slice(&fs::read(sample.join("expected.json")).unwrap()).unwrap();
    let site = Site::new(&config(&receiver(), "10GiB"));
    let data = site.data();
    if restored {
        let (file, data) = (sample.join("the.backup").display().to_string(), data.display().to_string());
        let config = site.home().join("postrider.toml").display().to_string();
        let made = run(&site, &["restore", "--from", &file, "--data", &data, "--config", &config, "--json"]).expect(0);
        assert_eq!(made.json()["pending"][0]["endpoint"], "waiting", "{what}");
    } else {
        fs::create_dir_all(data.join("journal")).unwrap();
        for entry in fs::read_dir(sample.join("journal")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), data.join("journal").join(entry.file_name())).unwrap();
        }
    }
    let found = kinds(&site);
    assert!(KINDS.iter().all(|kind| found.contains(*kind)), "{what}: {found:?}");
    let gateway = site.start();
    let mut api = api(&site);
    assert_eq!(shown(&mut api), expected["shown"], "{what}");
    // Every dedup key holds: a provider's, a publisher's and an event's own.
    let duplicate = post_inbound(&site);
    assert_eq!((&duplicate["duplicate"], &duplicate["id"]), (&true.into(), &expected["inbound"]), "{what}");
    for (key, event_type) in [("waiting", "wait.early"), ("replayed", "order.created")] {
        assert_eq!(publish_type(&mut api, event_type, key, 100), expected[key], "{what}");
    }
    let taken = json!({ "eventType": "wait.early", "eventId": "waiting", "payload": 1 }).to_string();
    let json = [("content-type".to_owned(), "application/json".to_owned())];
    let conflict = api.ask("POST", "/api/v1/app/default/msg", &json, taken.as_bytes()).unwrap();
    assert_eq!(conflict.status, 409, "{what}");
    // And life goes on.
    let id = publish(&mut api, "new", "1");
    assert!(id.as_str() > expected["replayed"].as_str().unwrap(), "{what}");
    gateway.kill();
}
