//! What must be true when all is quiet: the API, the journal and the ledger say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::event::Kind;
use super::ledger::{ENDPOINTS, Ledger, REFUSING, takers};
use super::support::PATIENCE;
use super::support::client::Client;
use super::support::gateway::{Gateway, Site};

/// What may lie in a data directory. Anything else would be a leftover.
const DATA_NAMES: [&str; 7] = ["LOCK", "ballast", "index", "index.damaged", "journal", "token", "token.sha256"];

/// Messages whose deliveries are looked at one by one.
const LOOKED_AT: usize = 150;

/// Bytes and files of a data directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size {
    pub journal_bytes: u64,
    pub segments: usize,
    pub spares: usize,
    pub index_bytes: u64,
}

impl Size {
    /// Measures, and refuses what does not belong there.
    pub fn of(data: &Path) -> Self {
        for name in names(data) {
            // Made beside the name that it gets in the end.
            let name = name.trim_end_matches(".tmp");
            assert!(DATA_NAMES.contains(&name), "{name} was left in the data directory");
        }
        let journal = names(&data.join("journal"));
        let count = |prefix: &str| journal.iter().filter(|name| name.starts_with(prefix)).count();
        let (segments, spares) = (count("seg-"), count("spare-"));
        assert!(journal.len() <= segments + spares + 3, "{journal:?}");
        assert!(spares <= 3, "{journal:?}");
        Self { journal_bytes: bytes(&data.join("journal")), segments, spares, index_bytes: bytes(&data.join("index")) }
    }

    /// The greater of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            journal_bytes: self.journal_bytes.max(other.journal_bytes),
            segments: self.segments.max(other.segments),
            spares: self.spares.max(other.spares),
            index_bytes: self.index_bytes.max(other.index_bytes),
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Bytes of all files below; one that goes meanwhile counts as gone.
fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// What was found.
#[derive(Debug)]
pub struct Audited {
    /// Messages within retention.
    #[expect(dead_code, reason = "for the report")]
    pub listed: usize,
    /// Records of the journal by kind.
    #[expect(dead_code, reason = "for the report")]
    pub records: BTreeMap<String, usize>,
}

/// Checks everything, stopping the gateway on the way.
pub fn audit(site: &Site, ledger: &Ledger, mut gateway: Gateway) -> Audited {
    let mut api = Client::with_token(site.management, &site.token());
    wait_until_nothing_is_pending(&mut api);
    let listed = list(&mut api, "/api/v1/app/default/msg?with_content=false&limit=250");
    let listed: BTreeMap<String, Value> = listed.into_iter().map(|message| (id_of(&message, "id"), message)).collect();
    check_messages(ledger, &listed);
    check_dead_letters(ledger, &mut api, &listed);
    check_deliveries(ledger, &mut api, &listed);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0), "{}", site.log());
    let records = check_journal(site, ledger, &listed);
    // What was listed before a stop in order is listed after it, as far as the new life has not begun with dropping some.
    let gateway = site.start();
    let mut api = Client::with_token(site.management, &site.token());
    let again = list(&mut api, "/api/v1/app/default/msg?with_content=false&limit=250");
    let again: BTreeSet<_> = again.iter().map(|message| id_of(message, "id")).collect();
    gateway.kill();
    let unlisted: Vec<_> = Journal::read(site).held.difference(&again).take(10).cloned().collect();
    assert!(unlisted.is_empty(), "in the journal and not listed: {unlisted:?}");
    let risen: Vec<_> = again.iter().filter(|id| !listed.contains_key(*id)).take(10).collect();
    assert!(risen.is_empty(), "not listed, and listed again: {risen:?}");
    check_log(&site.log());
    let wrong = ledger.book().wrong.clone();
    assert!(wrong.is_empty(), "{wrong:#?}");
    Audited { listed: listed.len(), records }
}

fn wait_until_nothing_is_pending(api: &mut Client) {
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        let page = api.get("/metrics").unwrap();
        let page = String::from_utf8(page.body).unwrap();
        let pending = page.lines().find_map(|line| line.strip_prefix("postrider_deliveries_pending ")).map(str::trim);
        match pending {
            Some("0") => return,
            Some(_) => std::thread::sleep(PAUSE),
            None => panic!("no count of pending deliveries in:\n{page}"),
        }
    }
    panic!("deliveries stay pending");
}

fn id_of(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

/// Every page of a list.
fn list(api: &mut Client, path: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut next = path.to_owned();
    loop {
        let answer = api.get(&next).unwrap();
        assert_eq!(answer.status, 200, "{next}: {}", answer.json());
        let page = answer.json();
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        if page["done"] == true {
            return all;
        }
        next = format!("{path}&iterator={}", id_of(&page, "iterator"));
    }
}

/// Each listed message is an event that was sent, under the id that all others know it by.
fn check_messages(ledger: &Ledger, listed: &BTreeMap<String, Value>) {
    let mut book = ledger.book();
    for (id, message) in listed {
        let Some(&at) = book.by_id.get(id) else {
            book.wrong(format!("{id} is listed, nothing pending, and it never arrived anywhere: {message}"));
            continue;
        };
        let event = book.entries[at].event.clone();
        if event.kind.has_key() && event.kind != Kind::Keyed && message["eventId"] != event.key() {
            book.wrong(format!("{id} is listed with another eventId than {}: {message}", event.key()));
        }
        if message["eventType"] != event.event_type() {
            book.wrong(format!("{id} is listed with another type than {}: {message}", event.event_type()));
        }
    }
}

/// Dead is what nobody will take, and only that.
fn check_dead_letters(ledger: &Ledger, api: &mut Client, listed: &BTreeMap<String, Value>) {
    let dead = list(api, "/api/v1/dead-letter?limit=250");
    let dead: BTreeSet<_> =
        dead.iter().map(|letter| (id_of(letter, "messageId"), id_of(letter, "endpointName"))).collect();
    let book = ledger.book();
    let is_refused = |id: &&String| takers(book.entries[book.by_id[*id]].event.kind).contains(&REFUSING);
    let refused = listed.keys().filter(is_refused);
    let expected: BTreeSet<_> = refused.map(|id| (id.clone(), "refusing".to_owned())).collect();
    assert_eq!(dead, expected, "dead letters");
}

/// The state of each delivery is that of the endpoint.
fn check_deliveries(ledger: &Ledger, api: &mut Client, listed: &BTreeMap<String, Value>) {
    let book = ledger.book();
    for id in listed.keys().step_by((listed.len() / LOOKED_AT).max(1)) {
        let kind = book.entries[book.by_id[id]].event.kind;
        let deliveries = api.get(&format!("/api/v1/app/default/msg/{id}/delivery")).unwrap().json();
        let deliveries = deliveries["data"].as_array().unwrap().iter();
        let found: BTreeMap<_, _> = deliveries.map(|d| (id_of(d, "endpointName"), id_of(d, "status"))).collect();
        let state = |at: usize| if at == REFUSING { "dead" } else { "delivered" };
        let expected = takers(kind).iter().map(|&at| (ENDPOINTS[at].to_owned(), state(at).to_owned())).collect();
        assert_eq!(found, expected, "{id} {kind:?}");
    }
}

/// The journal is whole, and what it holds is what is listed.
fn check_journal(site: &Site, ledger: &Ledger, listed: &BTreeMap<String, Value>) -> BTreeMap<String, usize> {
    let Journal { held, accepted, records } = Journal::read(site);
    assert_eq!(held, listed.keys().cloned().collect(), "the journal's events, and those listed");
    let book = ledger.book();
    // Whole segments go, oldest first: after the oldest that was not carried, none is missing.
    let oldest = accepted.first().expect("a run leaves events behind");
    let kept = book.entries.iter().filter(|e| e.acknowledged).filter_map(|e| e.id.as_ref()).filter(|id| *id > oldest);
    let lost: Vec<_> = kept.filter(|id| !held.contains(*id)).take(10).collect();
    assert!(lost.is_empty(), "acknowledged, within retention, and gone: {lost:?}");
    records
}

/// The journal of a stopped gateway.
struct Journal {
    /// Ids of all its events.
    held: BTreeSet<String>,
    /// Those that are where they came in.
    accepted: BTreeSet<String>,
    /// Its records by kind.
    records: BTreeMap<String, usize>,
}

impl Journal {
    /// Reads it, and makes sure that it is whole and holds no event twice.
    fn read(site: &Site) -> Self {
        let run = |command: &str| {
            let mut command = site.command(&["journal", command, "--json", "--data"]);
            let output = command.arg(site.data()).output().unwrap();
            assert!(output.status.success(), "{command:?}: {:?}", output.status);
            String::from_utf8(output.stdout).unwrap()
        };
        run("verify");
        let mut journal = Self { held: BTreeSet::new(), accepted: BTreeSet::new(), records: BTreeMap::new() };
        for line in run("dump").lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let kind = id_of(&record, "kind");
            if matches!(kind.as_str(), "accepted" | "carried") {
                journal.held.insert(id_of(&record, "key"));
            }
            if kind == "accepted" {
                assert!(journal.accepted.insert(id_of(&record, "key")), "accepted twice: {record}");
            }
            *journal.records.entry(kind).or_default() += 1;
        }
        journal
    }
}

/// An error in the log is a bug or data at risk.
fn check_log(log: &str) {
    let bad: Vec<_> = log.lines().filter(|line| line.contains("ERROR") || line.contains("panicked")).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
