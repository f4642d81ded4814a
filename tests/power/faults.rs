//! Each call of a session fails in turn, once or from then on. Whatever happens, the gateway serves or ends with a code and a
//! message that are documented; what it answered is durable at that moment; and the next start goes on with all of it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use postrider::env::{Entropy, RealEntropy, SeededEntropy};

use super::drops::dropped;
use super::events::Clients;
use super::model::{Fate, Model, below, write_tree};
use super::promise::Promise;
use super::record::{KINDS, Record};
use super::session::{Stage, Story, TIGHT_BYTES, wait_for};
use super::shim::{Fault, Watch};
use super::states::{number, quiet_sled, scratch};

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// A write of half of the bytes.
const SHORT: i32 = 0;

/// What may fail, and with what.
const FAULTS: [(&str, i32); 12] = [
    ("write", EIO),
    ("write", ENOSPC),
    ("write", SHORT),
    ("write", EROFS),
    ("sync", EIO),
    ("open", EIO),
    ("open", EMFILE),
    ("rename", EIO),
    ("unlink", EIO),
    ("truncate", EIO),
    ("mkdir", EIO),
    ("read", EIO),
];

/// Sessions of an ordinary run.
const SAMPLES: usize = 14;

/// Events of a session: they fill seven segments, of which four may be kept.
const EVENTS: usize = 90;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// It did not start, with this exit code.
    NoStart(Option<i32>),
    /// It stopped of its own accord, with this exit code.
    Stopped(Option<i32>),
    /// It served to the end and stopped in order.
    Served,
}

/// A session: start, events, deliveries, segments sealed and dropped, stop. Returns the events that were answered.
fn session(stage: &Stage, watch: Watch) -> (End, Vec<(String, String)>) {
    let mut gateway = stage.spawn(watch);
    if !gateway.is_ready() {
        return (End::NoStart(gateway.exit_code()), Vec::new());
    }
    let mut taken = Vec::new();
    // A client whose connection breaks tries once more, as the gateway may only have refused that one.
    let mut broken = 0;
    let mut clients = Clients::new(&stage.site);
    for n in 0..EVENTS {
        let waiting = if n % 12 == 9 { "github" } else { "held" };
        let kind = ["order", "stripe", "refused", waiting, "order", "order"][n % 6];
        let key = format!("{kind}-{}-{n}", if n % 4 == 3 { "small" } else { "large" });
        match clients.send(&key) {
            Ok(id) => taken.extend(id.map(|id| (key, id))),
            Err(_) if broken < 2 => broken += 1,
            Err(_) => break,
        }
    }
    gateway.terminate();
    let code = gateway.exit_code();
    stage.note(&taken);
    (if code == Some(0) { End::Served } else { End::Stopped(code) }, taken)
}

/// A session with a fault, and what must hold after it.
fn suffer(fault: Fault) -> Result<End, String> {
    let stage = Stage::new(TIGHT_BYTES);
    let (end, taken) = session(&stage, Watch { fault: Some(fault), ..Watch::default() });
    let said = stage.site.log();
    check_end(end, &said)?;
    let (model, promise, story) = recorded(&stage);
    // If the power goes now, what was answered is there.
    let random = SeededEntropy::new(fault.n);
    for fate in [Fate::Lost, Fate::Some] {
        let home = tempfile::tempdir_in(scratch()).unwrap();
        let tree = model.cut(fate, &random);
        promise.check_files(&story, &tree).map_err(|why| format!("{fate:?}: {why}"))?;
        write_tree(&tree, home.path());
        promise.check(&story, &home.path().join("data"), &random).map_err(|why| format!("{fate:?}: {why}"))?;
    }
    // If it does not, the next start has all of it, and delivers it.
    let mut gateway = stage.spawn(Watch::default());
    if !gateway.is_ready() {
        return Err(format!("it does not start again: {:?}\n{}", gateway.exit_code(), stage.site.log()));
    }
    // A delivery whose event could not be read is made again only after a while.
    if fault.kind != "read" {
        wait_for(&stage, &taken);
    }
    gateway.terminate();
    if gateway.exit_code() != Some(0) {
        return Err(format!("it does not stop in order:\n{}", stage.site.log()));
    }
    let (_, promise, story) = recorded(&stage);
    promise.check(&story, &stage.site.data(), &random).map_err(|why| format!("at the end: {why}"))?;
    Ok(end)
}

/// The disk and the promises of all lives so far.
fn recorded(stage: &Stage) -> (Model, Promise, Story) {
    let records = stage.records();
    let (mut model, mut promise) = (Model::new(stage.site.home()), Promise::of(stage.received()));
    for record in &records {
        model.take(record);
        promise.hear(record);
    }
    let (name, root) = ("a session with a fault", stage.site.home().to_owned());
    let dropped = dropped(&records, TIGHT_BYTES).unwrap();
    let story = Story { name, records, root, erased: Vec::new(), dropped, before: Promise::default(), backup: None };
    (model, promise, story)
}

fn check_end(end: End, said: &str) -> Result<(), String> {
    // sled panics where a last sync fails, when all is applied; that is told and does no harm.
    let is_ours = |line: &&str| !line.contains("sled-0.34") && !line.contains("sled panicked while closing");
    let bug = |line: &&str| line.contains("panicked") || line.contains("this is a bug");
    let panicked = said.lines().filter(is_ours).find(bug);
    let explained = said.lines().any(|line| line.starts_with("error: "));
    // A configuration that can't be read has a code of its own.
    let config = said.contains("postrider.toml");
    let documented = match end {
        End::Served => true,
        End::NoStart(Some(3)) => explained && config,
        End::NoStart(code) | End::Stopped(code) => explained && code == Some(6),
    };
    match (documented, panicked) {
        (true, None) => Ok(()),
        _ => Err(format!(
            "{end:?} is not as documented:\n{}",
            said.lines().rev().take(12).collect::<Vec<_>>().join("\n")
        )),
    }
}

/// How many calls of each kind a session makes in which nothing fails.
fn calls_of_a_session() -> BTreeMap<&'static str, u64> {
    let stage = Stage::new(TIGHT_BYTES);
    let (end, taken) = session(&stage, Watch::default());
    assert_eq!((end, taken.len()), (End::Served, EVENTS), "{}", stage.site.log());
    assert!(stage.site.log().contains("dropped the oldest"), "{}", stage.site.log());
    // Reads that work leave no record; there are at least as many as files opened.
    let mut calls: BTreeMap<_, _> = KINDS.into_iter().map(|kind| (kind, 0)).collect();
    for record in stage.records() {
        let kind = match record {
            Record::Open { .. } => "open",
            Record::Write { .. } => "write",
            Record::SyncBegin { .. } => "sync",
            Record::Rename { .. } => "rename",
            Record::Remove { .. } => "unlink",
            Record::Truncate { .. } => "truncate",
            Record::MakeDir { .. } => "mkdir",
            Record::Failed { kind } => KINDS[kind as usize],
            _ => continue,
        };
        *calls.get_mut(kind).unwrap() += 1;
    }
    let opened = calls["open"];
    calls.insert("read", opened);
    calls
}

/// The faults to try: all, or some of each kind.
fn faults(calls: &BTreeMap<&'static str, u64>, random: &SeededEntropy) -> Vec<Fault> {
    if std::env::var("POSTRIDER_FAULTS").is_ok_and(|text| text == "all") {
        let each = |(kind, errno): (&'static str, i32)| {
            let nth = (1..=calls[kind]).flat_map(|n| [(n, false), (n, true)]);
            nth.map(move |(n, always)| Fault { kind, n, errno, always })
        };
        return FAULTS.into_iter().flat_map(each).collect();
    }
    let samples = number("POSTRIDER_FAULTS").map_or(SAMPLES, |count| count as usize);
    let one = |at: usize| {
        let (kind, errno) = FAULTS[at % FAULTS.len()];
        let n = 1 + below(random, calls[kind] as usize) as u64;
        Fault { kind, n, errno, always: random.next_u64().is_multiple_of(2) }
    };
    (0..samples).map(one).collect()
}

#[test]
fn whichever_call_fails_nothing_that_was_answered_is_lost() {
    quiet_sled();
    let seed = number("POSTRIDER_CRASH_SEED").unwrap_or_else(|| RealEntropy.next_u64());
    let calls = calls_of_a_session();
    let faults = faults(&calls, &SeededEntropy::new(seed));
    println!("POSTRIDER_CRASH_SEED={seed} {} faults; calls of a session: {calls:?}", faults.len());
    let (left, ends, bad) = (Mutex::new(faults.iter()), Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some(fault) = left.lock().unwrap().next() else { return };
                    // A gateway that hangs is a panic of whoever waits for it.
                    let suffered = catch_unwind(AssertUnwindSafe(|| suffer(*fault)));
                    match suffered.unwrap_or_else(|_| Err("see above".to_owned())) {
                        Ok(end) => *ends.lock().unwrap().entry((fault.kind, end)).or_insert(0) += 1,
                        Err(why) => bad.lock().unwrap().push(format!("{fault}: {why}")),
                    }
                }
            });
        }
    });
    let (ends, bad) = (ends.into_inner().unwrap(), bad.into_inner().unwrap());
    println!("{} faults, {} bad; {ends:#?}", faults.len(), bad.len());
    assert!(bad.is_empty(), "{} of {} faults are bad:\n{}", bad.len(), faults.len(), bad.join("\n"));
}
