//! Lives of a real gateway, recorded.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use postrider::core::id::EventId;

use super::drops::dropped;
use super::events::{Clients, ENDPOINTS, PROVIDER_SECRET, SOURCES, source_of, taker_of};
use super::model::Model;
use super::promise::Promise;
use super::record::{self, Record};
use super::shim::{Fault, HANG, Watch, fault_begins};
use super::support::PATIENCE;
use super::support::client::Client;
use super::support::gateway::{Gateway, Site};
use super::support::receiver::{Reply, serve};

/// What all events are signed with.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Bytes of a journal segment: the least there may be.
pub const SEGMENT_BYTES: u64 = 64 << 10;

/// Bytes that the journal may take where segments are to be dropped: three sealed ones stay, beside the one that is written,
/// the one that is prepared, a spare, and two in reserve.
pub const TIGHT_BYTES: u64 = 8 * SEGMENT_BYTES;

/// Bytes of a batch.
pub const BATCH_BYTES: usize = 32 << 10;

/// A gateway's place, with an endpoint server and the record of all its lives.
pub struct Stage {
    pub site: Site,
    pub arrivals: Receiver<(String, String)>,
    log: tempfile::TempDir,
    retention_bytes: u64,
    received: Mutex<BTreeMap<String, String>>,
}

impl Stage {
    /// The journal may take so many bytes.
    pub fn new(retention_bytes: u64) -> Self {
        let (sender, arrivals) = channel();
        let sender = Mutex::new(sender);
        let address = serve(move |request| {
            let id = request.header("webhook-id").to_owned();
            let reply = match request.path.as_str() {
                "/steady" => Reply::Status(200),
                "/refusing" => Reply::Status(400),
                _ => Reply::Status(503),
            };
            // Whoever has seen enough does not listen.
            let _ = sender.lock().unwrap().send((request.path, id));
            reply
        });
        let mut config = format!(
            "[retention]\nbytes = {retention_bytes}\n[limits]\nsegment_bytes = {SEGMENT_BYTES}\nbatch_bytes = {BATCH_BYTES}\n\
             header_bytes = \"8KiB\"\nbody_bytes = \"8KiB\"\napi_body_bytes = \"8KiB\"\nfree_bytes = \"64KiB\"\ndrain_s = 2\n"
        );
        for source in SOURCES {
            let from = format!("name = \"{source}\"\nprovider = \"{source}\"");
            config.push_str(&format!("[[source]]\n{from}\nsecrets = [\"{PROVIDER_SECRET}\"]\n"));
        }
        for (name, types, source) in ENDPOINTS {
            let to = format!("name = \"{name}\"\nurl = \"http://{address}/{name}\"\nevent_types = [\"{types}\"]");
            let sources = source.map(|source| format!("\nsources = [\"{source}\"]")).unwrap_or_default();
            config.push_str(&format!("[[endpoint]]\n{to}{sources}\nsecret = \"{SECRET}\"\n"));
        }
        Self {
            site: Site::new(&config),
            arrivals,
            log: tempfile::tempdir().unwrap(),
            retention_bytes,
            received: Mutex::default(),
        }
    }

    fn log(&self) -> PathBuf {
        self.log.path().join("record")
    }

    /// A file beside the record, which no gateway sees.
    pub fn aside(&self, name: &str) -> PathBuf {
        self.log.path().join(name)
    }

    /// Starts a gateway under the shim, which may end before it serves.
    pub fn spawn(&self, watch: Watch) -> Gateway {
        let mut command = self.site.serve();
        watch.set(&mut command, self.site.home(), &self.log());
        Gateway::spawn(command)
    }

    /// Starts a gateway that serves.
    pub fn start(&self) -> Gateway {
        let mut gateway = self.spawn(Watch::default());
        assert!(gateway.is_ready(), "the gateway ended with {:?}:\n{}", gateway.exit_code(), self.site.log());
        gateway
    }

    /// Starts a gateway that serves, and whose calls on files below that place fail once [`fault_begins`](Self::fault_begins)
    /// was called.
    pub fn start_with(&self, fault: Fault, place: &'static str) -> Gateway {
        let mut gateway = self.spawn(Watch { fault: Some(fault), fault_in: Some(place), ..Watch::default() });
        assert!(gateway.is_ready(), "{}", self.site.log());
        gateway
    }

    /// From here on calls fail.
    pub fn fault_begins(&self) {
        fault_begins(&self.log());
    }

    /// Stops it in order.
    pub fn stop(&self, mut gateway: Gateway) {
        gateway.terminate();
        assert_eq!(gateway.exit_code(), Some(0), "{}", self.site.log());
    }

    /// Notes which event is which: what a provider is answered does not say it.
    pub fn note(&self, taken: &[(String, String)]) {
        let received = taken.iter().filter(|(key, _)| source_of(key).is_some());
        self.received.lock().unwrap().extend(received.map(|(key, id)| (id.clone(), key.clone())));
    }

    /// Keys of the received events, by id.
    pub fn received(&self) -> BTreeMap<String, String> {
        self.received.lock().unwrap().clone()
    }

    /// All that was recorded so far.
    pub fn records(&self) -> Vec<Record> {
        record::read(&self.log())
    }

    /// The record, which is complete: played back it gives what lies there.
    fn story(self, name: &'static str, erased: Vec<String>) -> Story {
        let root = self.site.home().to_owned();
        let records = self.records();
        let dropped = dropped(&records, self.retention_bytes).unwrap();
        let before = Promise::of(self.received());
        let story = Story { name, records, root, erased, dropped, before, backup: None };
        story.assert_complete(&["log", "postrider.toml"]);
        story
    }
}

/// A client of a site's management API.
pub fn api(site: &Site) -> Client {
    Client::with_token(site.management, &site.token())
}

/// A recorded story.
#[derive(Clone)]
pub struct Story {
    pub name: &'static str,
    pub records: Vec<Record>,
    pub root: PathBuf,
    /// Events whose content was erased, in the order of the requests.
    pub erased: Vec<String>,
    /// Events that were dropped with their segment, with the record from which on they may be gone.
    pub dropped: BTreeMap<EventId, usize>,
    /// What was promised before the record began.
    pub before: Promise,
    /// The backup that is taken or restored in it.
    pub backup: Option<(Copying, Arc<[u8]>)>,
}

/// What is done with a backup.
#[derive(Debug, Clone, Copy)]
pub enum Copying {
    Taken,
    Restored,
}

impl Story {
    /// Played back it gives what lies there, apart from what these names begin, and all answers that came.
    pub fn assert_complete(&self, apart_from: &[&str]) {
        let mut model = Model::new(&self.root);
        let mut promise = self.before.clone();
        for record in &self.records {
            model.take(record);
            promise.hear(record);
        }
        model.assert_is(&self.root, apart_from);
        promise.assert_heard();
    }
}

/// Sends so many events on each of three connections, some of them twice. Ends early when the gateway does. Returns keys and
/// ids of those that were answered.
pub fn load(stage: &Stage, round: &str, each: usize) -> Vec<(String, String)> {
    let site = &stage.site;
    let send = |sender: usize| {
        let mut clients = Clients::new(site);
        let mut taken = Vec::new();
        for n in 0..each {
            let waiting = if n % 16 == 12 { "github" } else { "held" };
            let kind = ["order", "stripe", "refused", "order", waiting, "stripe", "order", "erase"][n % 8];
            let key = format!("{kind}-{round}-{sender}-{n}");
            let is_twice = [3, 5, 12].contains(&(n % 16));
            for _ in 0..1 + usize::from(is_twice) {
                match clients.send(&key) {
                    Ok(id) => taken.extend(id.map(|id| (key.clone(), id))),
                    Err(_) => return taken,
                }
            }
        }
        taken
    };
    let taken: Vec<_> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..3).map(|sender| scope.spawn(move || send(sender))).collect();
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
    });
    stage.note(&taken);
    taken
}

/// Waits until the steady endpoint has got these.
pub fn wait_for(stage: &Stage, taken: &[(String, String)]) {
    let steady = taken.iter().filter(|(key, _)| taker_of(key) == "steady");
    let mut missing: HashSet<_> = steady.map(|(_, id)| id.as_str()).collect();
    while !missing.is_empty() {
        let (path, id) = stage.arrivals.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{e}: {missing:?}"));
        if path == "/steady" {
            missing.remove(id.as_str());
        }
    }
}

fn erase(api: &mut Client, id: &str) {
    let answer = api.ask("DELETE", &format!("/api/v1/app/default/msg/{id}/content"), &[], b"").unwrap();
    assert_eq!(answer.status, 204);
}

fn killed_in_the_start(stage: &Stage, records: u64) {
    let mut gateway = stage.spawn(Watch { kill_after: Some(records), ..Watch::default() });
    assert!(!gateway.is_ready(), "it serves before {records} records");
    assert_eq!(gateway.exit_code(), None, "{}", stage.site.log());
}

/// Killed between the write of a batch and its sync; then its event is sent again, and answered as a duplicate.
fn killed_before_a_sync(stage: &Stage) {
    let fault = Fault { kind: "sync", n: 1, errno: HANG, always: true };
    let gateway = stage.start_with(fault, "/journal/");
    stage.fault_begins();
    assert_eq!(Clients::new(&stage.site).send("stripe-unsynced").unwrap(), None);
    gateway.kill();
    let gateway = stage.start();
    let id = Clients::new(&stage.site).send("stripe-unsynced").unwrap().unwrap();
    stage.note(&[("stripe-unsynced".to_owned(), id)]);
    stage.stop(gateway);
}

/// The first start of all, after some that did not get that far, a few events, a stop in order.
pub fn first_start() -> Story {
    let stage = Stage::new(1 << 30);
    // A start that dies between making a name and making it durable leaves that to the next.
    for records in 2..16 {
        killed_in_the_start(&stage, records);
    }
    let gateway = stage.start();
    let mut clients = Clients::new(&stage.site);
    for key in ["order-1", "stripe-2", "held-3", "refused-4", "github-5"] {
        let id = clients.send(key).unwrap().unwrap();
        stage.note(&[(key.to_owned(), id)]);
    }
    stage.stop(gateway);
    stage.story("first start", Vec::new())
}

/// Load over several segments, an erasure, a restart, a kill, a kill in the start, and one more life.
pub fn busy_lives() -> Story {
    let stage = Stage::new(1 << 30);
    let gateway = stage.start();
    let taken = load(&stage, "a", 24);
    wait_for(&stage, &taken);
    let mut erased: Vec<String> =
        taken.into_iter().filter(|(key, _)| key.starts_with("erase-")).map(|(_, id)| id).collect();
    erased.dedup();
    erased.truncate(4);
    let mut api = api(&stage.site);
    erased.iter().for_each(|id| erase(&mut api, id));
    stage.stop(gateway);
    // Killed under load, then while it starts.
    let mut gateway = stage.spawn(Watch { kill_after: Some(260), ..Watch::default() });
    assert!(gateway.is_ready(), "{}", stage.site.log());
    load(&stage, "b", 1_000);
    assert_eq!(gateway.exit_code(), None);
    for records in [9, 17, 30] {
        killed_in_the_start(&stage, records);
    }
    killed_before_a_sync(&stage);
    let gateway = stage.start();
    load(&stage, "c", 5);
    stage.stop(gateway);
    stage.story("busy lives", erased)
}

/// So much load that segments are dropped, with what is held carried out of them: the oldest, and only for want of room.
pub fn retention() -> Story {
    let stage = Stage::new(TIGHT_BYTES);
    let gateway = stage.start();
    for round in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        let taken = load(&stage, round, 24);
        wait_for(&stage, &taken);
    }
    stage.stop(gateway);
    let story = stage.story("retention", Vec::new());
    assert!(story.dropped.len() > 100, "{} events were dropped", story.dropped.len());
    let need_not = dropped(&story.records, 2 * TIGHT_BYTES);
    assert!(need_not.is_err(), "in a journal that may take more none of this had to go");
    story
}
