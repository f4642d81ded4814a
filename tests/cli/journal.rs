//! `postrider journal …` on stores that are made here through the library.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use postrider::core::attempt::{Attempt, Outcome, Timings};
use postrider::core::delivery::{DeliveryId, Next, Pending};
use postrider::core::event::{DedupKey, DedupScope, NewEvent, body_fingerprint};
use postrider::core::headers::Headers;
use postrider::core::id::{AppId, AttemptId, EndpointId, EventId};
use postrider::core::limits::StoreLimits;
use postrider::env::{RealClock, RealEntropy};
use postrider::store::embedded::{EmbeddedStore, Opening, StoreLock};
use postrider::store::{Accepted, Settle, Store};
use serde_json::Value;

use crate::support::{Done, keys, run};

/// What must not be shown unless it is asked for.
const CREDENTIAL: &str = "credential-of-a-stranger";

/// Bodies of the events, each once in the journal.
const BODIES: [&str; 4] =
    ["{\"n\":\"first body\"}", "{\"n\":\"second body\"}", "\u{1}third body", "{\"n\":\"last body\"}"];

/// A stopped store of four events; the first is delivered.
struct Built {
    home: tempfile::TempDir,
    ids: Vec<EventId>,
}

fn open(data: PathBuf) -> EmbeddedStore {
    EmbeddedStore::open(Opening {
        data,
        // Small files, as they are searched here byte by byte.
        limits: StoreLimits {
            segment_bytes: 1 << 20,
            batch_bytes_max: 256 << 10,
            free_bytes_min: 0,
            ..StoreLimits::default()
        },
        clock: Arc::new(RealClock::new()),
        entropy: Arc::new(RealEntropy),
        rebuild: false,
        progress: &mut |_, _| {},
    })
    .unwrap()
}

fn event(body: &'static str) -> NewEvent {
    NewEvent {
        app: AppId::named("", "default"),
        source: None,
        event_type: Some("order.created".to_owned()),
        external_id: Some("order-7".to_owned()),
        headers: [("x-provider-token", CREDENTIAL)].into_iter().collect(),
        body: Bytes::from_static(body.as_bytes()),
        dedup: vec![DedupKey::new(DedupScope::EventId, 7, body)],
        fingerprint: body_fingerprint(body.as_bytes()),
        endpoints: vec![EndpointId::named("default", "app")],
    }
}

fn settle(event: EventId, was: Pending, now_ms: u64) -> Settle {
    let attempt = Attempt {
        id: AttemptId::at(now_ms, 1),
        number: 1,
        started_ms: now_ms,
        ended_ms: now_ms,
        timings: Timings { total_us: 1_500, ..Timings::default() },
        outcome: Outcome::Answered { status: 200, retry_after_ms: None },
        remote: Some("192.0.2.1:443".to_owned()),
        response_headers: Headers::new(),
        response_truncated: false,
    };
    let delivery = DeliveryId { endpoint: EndpointId::named("default", "app"), event };
    Settle { delivery, was, attempt, response: Bytes::from_static(b"thanks"), next: Next::Delivered }
}

/// Builds the store, and erases the event of this index.
fn build(erase: Option<usize>) -> Built {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path().join("data"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ids = runtime.block_on(async {
        let mut ids = Vec::new();
        for body in BODIES {
            let Accepted::New { event } = store.accept(event(body)).await.unwrap() else { panic!("it is new") };
            if ids.is_empty() {
                let was = Pending::fresh(event.meta.accepted_ms);
                store.settle(settle(event.meta.id, was, store.now_ms())).await.unwrap();
            }
            ids.push(event.meta.id);
        }
        if let Some(index) = erase {
            assert!(store.erase(ids[index]).await.unwrap());
        }
        ids
    });
    store.close();
    Built { home, ids }
}

impl Built {
    fn journal(&self, args: &[&str]) -> Done {
        run(self.home.path(), &[&["journal"], args, &["--data", "data"]].concat(), b"")
    }

    /// Overwrites the only place in the journal that holds `text`.
    fn overwrite(&self, text: &str, with: u8) {
        let dir = self.home.path().join("data/journal");
        let mut places = 0;
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            places += usize::from(overwrite_in(&path, text.as_bytes(), with));
        }
        assert_eq!(places, 1);
    }
}

fn overwrite_in(path: &Path, text: &[u8], with: u8) -> bool {
    let mut bytes = std::fs::read(path).unwrap();
    let Some(at) = bytes.windows(text.len()).position(|window| window == text) else { return false };
    bytes[at..at + text.len()].fill(with);
    std::fs::write(path, bytes).unwrap();
    true
}

#[test]
fn a_good_journal_verifies_and_is_counted() {
    let built = build(None);
    let json = built.journal(&["verify", "--json"]).expect(0).json();
    let names =
        ["bytes", "damage", "erased_bodies", "findings", "frames", "notes", "ok", "records", "segments", "torn_tails"];
    assert_eq!(keys(&json), names);
    // Four events and one settle.
    assert_eq!((&json["ok"], &json["records"], &json["damage"]), (&true.into(), &5.into(), &0.into()), "{json}");
    let text = built.journal(&["verify"]).expect(0).stdout;
    assert!(text.contains("5 records") && text.ends_with("ok\n"), "{text}");
}

#[test]
fn a_damaged_body_is_found_salvaged_and_named() {
    let built = build(None);
    built.overwrite(BODIES[1], b'x');
    let json = built.journal(&["verify", "--json"]).expect(1).json();
    assert_eq!(json["damage"], 1, "{json}");
    let finding = &json["findings"][0];
    assert_eq!(keys(finding), ["offset", "segment", "severity", "what"]);
    assert_eq!((finding["severity"].as_str(), finding["segment"].as_str().map(str::len)), (Some("damage"), Some(16)));
    built.journal(&["dump"]).expect(1);

    let json = built.journal(&["salvage", "--json"]).expect(1).json();
    assert_eq!(keys(&json), ["checkpoint_lost", "damaged_dir", "frames", "lost", "lost_records", "rebuilt", "records"]);
    let lost = &json["lost_records"][0];
    assert_eq!(keys(lost), ["index", "key", "kind", "offset", "segment", "sequence"]);
    assert_eq!((&lost["key"], &lost["kind"]), (&built.ids[1].to_string().into(), &"accepted".into()), "{json}");
    let pending = &json["rebuilt"]["pending"];
    assert_eq!((json["lost_records"].as_array().unwrap().len(), pending), (1, &2.into()), "{json}");

    built.journal(&["verify"]).expect(0);
    let again = built.journal(&["salvage"]).expect(0);
    assert!(again.stdout.contains("saved") && !again.stdout.contains("lost:"), "{}", again.stdout);
}

#[test]
fn a_body_of_zeros_is_damage_unless_a_record_says_that_it_was_erased() {
    let erased = build(Some(1));
    let json = erased.journal(&["verify", "--json"]).expect(0).json();
    assert_eq!((&json["erased_bodies"], &json["notes"]), (&1.into(), &1.into()), "{json}");
    let lost = build(None);
    lost.overwrite(BODIES[1], 0);
    let json = lost.journal(&["verify", "--json"]).expect(1).json();
    assert_eq!((&json["erased_bodies"], &json["damage"]), (&0.into(), &1.into()), "{json}");
    let what = json["findings"][0]["what"].as_str().unwrap();
    assert!(what.contains(&lost.ids[1].to_string()), "{what}");
}

#[test]
fn a_dump_tells_everything_but_content() {
    let built = build(None);
    let dump = built.journal(&["dump", "--json"]).expect(0).stdout;
    assert!(!dump.contains("body\"}") && !dump.contains(CREDENTIAL) && dump.contains("x-provider-token"), "{dump}");
    let lines: Vec<Value> = dump.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    let names = [
        "body_bytes",
        "body_state",
        "fact",
        "index",
        "key",
        "kind",
        "meta_bytes",
        "offset",
        "segment",
        "sequence",
        "time",
    ];
    assert_eq!(keys(&lines[0]), names);
    let accepted =
        ["accepted", "application", "dedup", "dedup_expires", "endpoints", "event_id", "event_type", "fingerprint"];
    assert_eq!(keys(&lines[0]["fact"]), [&accepted[..], &["headers", "source"]].concat());
    assert_eq!(lines[0]["fact"]["dedup"][0]["scope"], "event_id");
    let settled = lines.iter().find(|line| line["kind"] == "settled").unwrap();
    assert_eq!(settled["key"], built.ids[0].to_string());
    assert_eq!(keys(&settled["fact"]), ["attempt", "endpoint", "next", "was"]);
    assert_eq!((&settled["fact"]["attempt"]["status"], &settled["body_bytes"]), (&200.into(), &6.into()));
}

#[test]
fn a_dump_of_one_event_with_its_content() {
    let built = build(None);
    let id = built.ids[2].to_string();
    let args = ["dump", "--bodies", "--event", &id];
    let line = built.journal(&[&args[..], &["--json"]].concat()).expect(0).json();
    assert_eq!((&line["key"], &line["body"]), (&id.clone().into(), &BODIES[2].into()));
    let text = built.journal(&args).expect(0).stdout;
    assert!(text.contains(CREDENTIAL) && text.contains("third body"), "{text}");
    assert!(!text.trim_end().contains(char::is_control), "control characters must not reach the terminal: {text:?}");
}

#[test]
fn the_key_space_is_rebuilt() {
    let built = build(None);
    std::fs::remove_dir_all(built.home.path().join("data/index")).unwrap();
    for _ in 0..2 {
        let json = built.journal(&["rebuild", "--json"]).expect(0).json();
        let names = ["dead_letters", "dedup_keys", "journal_bytes", "journal_segments", "pending", "torn_bytes"];
        assert_eq!(keys(&json), names);
        assert_eq!((&json["pending"], &json["dedup_keys"]), (&3.into(), &4.into()), "{json}");
    }
    let text = built.journal(&["rebuild"]).expect(0).stdout;
    assert!(text.contains("3 pending deliveries"), "{text}");
}

#[test]
fn a_held_store_is_left_alone_and_its_holder_named() {
    let built = build(None);
    let lock = StoreLock::take(&built.home.path().join("data")).unwrap();
    for command in ["verify", "dump", "rebuild", "salvage"] {
        let done = built.journal(&[command]).expect(4);
        assert!(done.stderr.contains(&format!("process {}", std::process::id())), "{}", done.stderr);
    }
    let serve = ["serve", "--data", "data", "--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0"];
    run(built.home.path(), &serve, b"").expect(4);
    drop(lock);
    built.journal(&["verify"]).expect(0);
}

#[test]
fn a_damaged_store_is_not_served() {
    let built = build(None);
    let journal = built.home.path().join("data/journal");
    let segment = std::fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
    // The first event's type: all but bodies is under the checksum of its frame.
    assert_eq!(segment.filter(|path| overwrite_in(path, b"order.created", b'x')).count(), 1);
    let serve = ["serve", "--data", "data", "--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0"];
    let done = run(built.home.path(), &serve, b"").expect(5);
    assert!(done.stderr.contains("journal verify"), "{}", done.stderr);
    built.journal(&["rebuild"]).expect(5);
    built.journal(&["verify"]).expect(1);
    let json = built.journal(&["salvage", "--json"]).expect(1).json();
    let lost = &json["lost"][0];
    assert_eq!(keys(lost), ["bytes", "first_sequence", "keyed_records", "last_sequence", "segment"]);
    run(built.home.path(), &["journal", "verify", "--data", "data"], b"").expect(0);
}

#[test]
fn a_damaged_checkpoint_is_refused_only_where_it_is_needed_and_says_what_to_do() {
    let built = build(None);
    let data = built.home.path().join("data");
    let (checkpoint, index) = (data.join("journal/checkpoint"), data.join("index"));
    std::fs::write(&checkpoint, "no checkpoint").unwrap();
    let serve = ["serve", "--data", "data", "--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0"];
    // The key space says the same, as long as it is whole.
    drop(open(data.clone()));
    std::fs::write(index.join("db"), "no key space").unwrap();
    for command in [&serve[..], &["journal", "rebuild", "--data", "data"]] {
        let done = run(built.home.path(), command, b"").expect(5);
        let path = checkpoint.strip_prefix(built.home.path()).unwrap().display().to_string();
        for part in [path.as_str(), "damaged", "restore a backup", "move the file away"] {
            assert!(done.stderr.contains(part), "no {part:?} in {}", done.stderr);
        }
        assert_eq!(std::fs::read(index.join("db")).unwrap(), b"no key space", "nothing was changed");
    }
    std::fs::rename(&checkpoint, checkpoint.with_extension("away")).unwrap();
    let json = built.journal(&["rebuild", "--json"]).expect(0).json();
    assert_eq!((&json["pending"], &json["dedup_keys"]), (&3.into(), &4.into()), "{json}");
    std::fs::write(&checkpoint, "no checkpoint").unwrap();
    let json = built.journal(&["salvage", "--json"]).expect(1).json();
    assert_eq!((&json["checkpoint_lost"], &json["rebuilt"]["pending"]), (&true.into(), &3.into()), "{json}");
    built.journal(&["salvage"]).expect(0);
}
