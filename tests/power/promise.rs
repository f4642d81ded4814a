//! What a gateway has answered and delivered by a moment, and whether a data directory keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider::core::delivery::DeliveryState;
use postrider::core::event::{DedupKey, DedupScope, Event, NewEvent};
use postrider::core::id::{AppId, EndpointId, EventId, SourceId};
use postrider::core::limits::StoreLimits;
use postrider::env::{RealClock, SeededEntropy};
use postrider::store::embedded::{EmbeddedStore, Opening, Progress};
use postrider::store::{Accepted, Cursor, EventQuery, Store};

use super::events::{payload_of, source_of, taker_of};
use super::model::{Tree, below};
use super::record::Record;
use super::session::{BATCH_BYTES, SEGMENT_BYTES, Story};

/// Events of each state whose deliveries and keys are looked at, beside the newest.
const LOOKED_AT: usize = 12;

/// How often a lock is tried, and how long to wait in between.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// What has left the process.
#[derive(Debug, Default, Clone)]
pub struct Promise {
    /// Keys of received events, by id.
    received: Arc<BTreeMap<String, String>>,
    /// The events that were answered, with their keys if those are known.
    answered: BTreeMap<EventId, Option<String>>,
    /// Attempts: the event, and the endpoint's name.
    attempted: BTreeSet<(EventId, String)>,
    /// Erasures that were answered.
    erased: usize,
    /// A backup or a restore said that it is done.
    pub done: bool,
    /// Records of the story so far.
    heard: usize,
}

impl Promise {
    /// Nothing yet. What a provider is answered has no key, so somebody has to know the received events.
    pub fn of(received: BTreeMap<String, String>) -> Self {
        Self { received: Arc::new(received), ..Self::default() }
    }

    /// Takes the next record in: what matters is what was sent on a socket.
    pub fn hear(&mut self, record: &Record) {
        self.heard += 1;
        let Record::Send { bytes: sent } = record else { return };
        self.done |= sent.starts_with(b"wrote ") || sent.starts_with(b"restored ");
        let Some(end) = sent.windows(4).position(|four| four == b"\r\n\r\n") else { return };
        let head = String::from_utf8_lossy(&sent[..end]);
        if head.starts_with("HTTP/1.1 202") {
            let answer: serde_json::Value = serde_json::from_slice(&sent[end + 4..]).unwrap();
            let key = answer["payload"]["key"].as_str().unwrap();
            self.answered.insert(answer["id"].as_str().unwrap().parse().unwrap(), Some(key.to_owned()));
        } else if let Some(id) = received_id(&head, &sent[end + 4..]) {
            // Where the gateway was killed with the answer on its way nobody noted it.
            self.answered.insert(id.parse().unwrap(), self.received.get(&id).cloned());
        } else if head.starts_with("HTTP/1.1 204") {
            self.erased += 1;
        } else if let Some(rest) = head.strip_prefix("POST /") {
            let endpoint = rest.split(' ').next().unwrap().to_owned();
            // A command of ours asks for other things.
            let id = head.lines().find_map(|line| line.strip_prefix("webhook-id: "));
            self.attempted.extend(id.map(|id| (id.parse().unwrap(), endpoint)));
        }
    }

    /// Panics unless it has heard the answers to all received events that somebody knows.
    pub fn assert_heard(&self) {
        let missed = |id: &&String| !self.answered.contains_key(&id.parse().unwrap());
        let missed: Vec<_> = self.received.keys().filter(missed).collect();
        assert!(missed.is_empty(), "the record misses the answers about {missed:?}");
    }

    /// How much it is; two of a story that are as much are the same.
    pub fn amount(&self) -> usize {
        self.answered.len() + self.attempted.len() + self.erased + usize::from(self.done)
    }

    /// Whether what lies in the files of a state is as it must be before anything is opened.
    pub fn check_files(&self, story: &Story, tree: &Tree) -> Result<(), String> {
        // Half a token would be refused by the next start, and a lost one would lock the operator out.
        for (name, bytes) in [("data/token", 69), ("data/token.sha256", 65)] {
            let len = tree.get(name).map(|content| content.as_ref().map_or(0, Vec::len));
            if len.is_some_and(|len| len != bytes) || (len.is_none() && self.amount() > 0) {
                return Err(format!("{name} has {len:?} bytes"));
            }
        }
        let Some(id) = story.erased[..self.erased].last() else { return Ok(()) };
        let id: EventId = id.parse().unwrap();
        let payload = payload_of(self.answered[&id].as_ref().unwrap());
        let (from, bytes) = (payload.find("\"pad\"").unwrap() + 8, 24);
        let secret = &payload.as_bytes()[from..from + bytes];
        for (path, content) in tree {
            let Some(content) = content else { continue };
            if path.starts_with("data/journal/") && contains(content, secret) {
                return Err(format!("{path} holds bytes of {id}, which was erased"));
            }
        }
        Ok(())
    }

    /// Opens a data directory and says what is wrong with it.
    pub fn check(&self, story: &Story, data: &Path, random: &SeededEntropy) -> Result<(), String> {
        let store = open(data)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let checked = runtime.block_on(self.check_store(story, &store, random));
        drop(store);
        checked?;
        // What the recovery made of it is as good a place to start from.
        if below(random, 8) == 0 {
            let store = open(data).map_err(|why| format!("the second time: {why}"))?;
            let found = runtime.block_on(all_events(&store)).map_err(|why| format!("the second time: {why}"))?;
            self.check_events(story, &found).map_err(|why| format!("the second time: {why}"))?;
        }
        Ok(())
    }

    async fn check_store(&self, story: &Story, store: &EmbeddedStore, random: &SeededEntropy) -> Result<(), String> {
        let found = all_events(store).await?;
        self.check_events(story, &found)?;
        let known: Vec<_> = self.answered.iter().filter_map(|(id, key)| Some((id, key.as_ref()?))).collect();
        let newest = known.iter().rev().take(4);
        let some = (0..LOOKED_AT.min(known.len())).map(|_| &known[below(random, known.len())]);
        for (id, key) in newest.chain(some) {
            self.check_key(store, **id, key).await?;
            if found.contains_key(id) {
                self.check_deliveries(store, **id, key).await?;
            }
        }
        // It takes more.
        match store.accept(event_of("order-after-the-cut")).await {
            Ok(Accepted::New { .. }) => Ok(()),
            other => Err(format!("a new event was not taken: {other:?}")),
        }
    }

    /// Nothing that was answered is missing, nothing is there twice, every body is whole.
    fn check_events(&self, story: &Story, found: &BTreeMap<EventId, Arc<Event>>) -> Result<(), String> {
        let mut keys = BTreeSet::new();
        let erased: BTreeSet<EventId> = story.erased[..self.erased].iter().map(|id| id.parse().unwrap()).collect();
        for (id, event) in found {
            if event.erased {
                if !story.erased.contains(&id.to_string()) {
                    return Err(format!("{id} is erased, and nobody asked for it"));
                }
                continue;
            }
            let body: serde_json::Value = serde_json::from_slice(&event.body).map_err(|e| format!("{id}: {e}"))?;
            let key = body["key"].as_str().ok_or_else(|| format!("{id} has no key: {body}"))?;
            let whole = event.body == payload_of(key) || key == "order-after-the-cut";
            let source = source_of(key).map(source_id);
            let other = self.answered.get(id).and_then(Option::as_ref).filter(|answered| *answered != key);
            if !whole || other.is_some() || event.meta.source != source {
                return Err(format!("{id} has another body or source than it came with: {body}"));
            }
            if erased.contains(id) {
                return Err(format!("{id} was erased and is there again"));
            }
            if !keys.insert(key.to_owned()) {
                return Err(format!("{key} is there twice, now as {id}"));
            }
        }
        self.check_missing(story, found)
    }

    /// An event that is done goes with its segment, which had to go, and not before; one that is pending never.
    fn check_missing(&self, story: &Story, found: &BTreeMap<EventId, Arc<Event>>) -> Result<(), String> {
        for (id, key) in self.answered.iter().filter(|(id, _)| !found.contains_key(id)) {
            let done = key.as_ref().is_some_and(|key| {
                let taker = taker_of(key);
                taker != "held" && self.attempted.contains(&(*id, taker.to_owned()))
            });
            let dropped = story.dropped.get(id).is_some_and(|from| *from < self.heard);
            if !(dropped && done) {
                return Err(format!("{id} ({key:?}) was answered and is gone; done: {done}, dropped: {dropped}"));
            }
        }
        match self.attempted.iter().find(|(id, _)| !self.answered.contains_key(id) && !found.contains_key(id)) {
            Some((id, endpoint)) => Err(format!("{id} was delivered to {endpoint} and is gone")),
            None => Ok(()),
        }
    }

    async fn check_key(&self, store: &EmbeddedStore, id: EventId, key: &str) -> Result<(), String> {
        match store.accept(event_of(key)).await {
            Ok(Accepted::Duplicate { id: first, .. }) if first == id => Ok(()),
            other => Err(format!("{key} was taken as {id}; sent again it is {other:?}")),
        }
    }

    /// No delivery has ended that was not attempted.
    async fn check_deliveries(&self, store: &EmbeddedStore, id: EventId, key: &str) -> Result<(), String> {
        let deliveries = store.deliveries(id).await.map_err(|e| format!("deliveries of {id}: {e}"))?;
        let deliveries = deliveries.ok_or_else(|| format!("{id} is listed and has no deliveries"))?;
        if deliveries.len() != 1 {
            return Err(format!("{id} ({key}) has the deliveries {deliveries:?}"));
        }
        for delivery in deliveries {
            let name = taker_of(key);
            if delivery.id.endpoint != endpoint(name) {
                return Err(format!("{id} ({key}) is delivered to {}, and not to {name}", delivery.id.endpoint));
            }
            let attempted = self.attempted.contains(&(id, name.to_owned()));
            let fits = match delivery.state {
                DeliveryState::Pending(_) => true,
                DeliveryState::Delivered => attempted && name == "steady",
                DeliveryState::Dead(_) => attempted && name == "refusing",
            };
            if !fits {
                return Err(format!("{id} ({key}) to {name} is {:?}; attempted: {attempted}", delivery.state));
            }
        }
        Ok(())
    }
}

fn contains(content: &[u8], part: &[u8]) -> bool {
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == part[0]) {
        if rest[at..].starts_with(part) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// The event that a provider was told of, if that is what this answer says.
fn received_id(head: &str, body: &[u8]) -> Option<String> {
    let answer = serde_json::from_slice::<serde_json::Value>(body).ok().filter(|_| head.starts_with("HTTP/1.1 200"))?;
    answer["received"].as_bool()?.then(|| answer["id"].as_str().unwrap().to_owned())
}

fn endpoint(name: &str) -> EndpointId {
    EndpointId::named("default", name)
}

fn source_id(name: &str) -> SourceId {
    SourceId::named("", name)
}

/// How the gateways here open their stores.
pub fn opening<'p>(data: &Path, progress: Progress<'p>) -> Opening<'p> {
    let limits = StoreLimits {
        segment_bytes: SEGMENT_BYTES,
        batch_bytes_max: BATCH_BYTES,
        free_bytes_min: 0,
        cache_bytes: 1 << 20,
        ..StoreLimits::default()
    };
    let (clock, entropy) = (Arc::new(RealClock::new()), Arc::new(SeededEntropy::new(7)));
    Opening { data: data.to_owned(), limits, clock, entropy, rebuild: false, progress }
}

fn open(data: &Path) -> Result<EmbeddedStore, String> {
    for _ in 0..LOCK_TRIES {
        match EmbeddedStore::open(opening(data, &mut |_, _| {})) {
            // A process that another thread starts just now has a copy of the lock until it becomes another program.
            Err(error) if error.is_held() => std::thread::sleep(LOCK_PAUSE),
            opened => return opened.map_err(|error| format!("it does not open: {error} ({error:?})")),
        }
    }
    Err("its lock is not let go of".to_owned())
}

/// The event of a key as ingress or the API makes it.
fn event_of(key: &str) -> NewEvent {
    let app = AppId::named("", "default");
    let payload = if key == "order-after-the-cut" { format!("{{\"key\":\"{key}\"}}") } else { payload_of(key) };
    let source = source_of(key).map(source_id);
    let dedup = match source {
        Some(source) => DedupKey::new(DedupScope::Inbound, source.as_u128(), key),
        None => DedupKey::new(DedupScope::Idempotency, app.as_u128(), key),
    };
    NewEvent {
        app,
        source,
        event_type: Some("order.created".to_owned()),
        external_id: source.map(|_| key.to_owned()),
        headers: [("content-type", "application/json")].into_iter().collect(),
        body: Bytes::from(payload),
        dedup: vec![dedup],
        fingerprint: 0,
        endpoints: vec![endpoint(taker_of(key))],
    }
}

async fn all_events(store: &EmbeddedStore) -> Result<BTreeMap<EventId, Arc<Event>>, String> {
    let mut found = BTreeMap::new();
    let mut cursor = Cursor::Start;
    loop {
        let query = EventQuery { cursor, limit: 250, ..EventQuery::default() };
        let page = store.events(query).await.map_err(|error| format!("the events can't be listed: {error}"))?;
        for event in page.data {
            if let Some(twice) = found.insert(event.meta.id, event) {
                return Err(format!("{} is listed twice", twice.meta.id));
            }
        }
        match page.next {
            Some(next) => cursor = Cursor::OlderThan(next),
            None => return Ok(found),
        }
    }
}
