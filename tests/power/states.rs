//! The states that a power cut could have left, each opened by the real code.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use postrider::env::{Entropy, RealEntropy, SeededEntropy};

use super::copies;
use super::model::{FATES, Fate, Model, Tree, below, write_tree};
use super::promise::Promise;
use super::record::Record;
use super::session::{Copying, Story, busy_lives, first_start, retention};

/// States of an ordinary run.
const STATES: usize = 120;

/// States that are looked at until a fault that was put in must have been found.
const STATES_OF_A_FAULT: usize = 600;

/// A number from the environment.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: expected a number, got {text:?}")))
}

/// What becomes of the key space, of which sled makes next to nothing durable.
#[derive(Debug, Clone, Copy)]
enum IndexFate {
    /// As the cut leaves it.
    AsItIs,
    Gone,
    Empty,
    /// Every file of it cut off somewhere.
    Short,
}

/// One state, to be built.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// Records before the cut.
    cut: usize,
    fate: Fate,
    index: IndexFate,
    seed: u64,
}

impl Case {
    fn any(records: usize, random: &SeededEntropy) -> Self {
        use IndexFate::{AsItIs, Empty, Gone, Short};
        let index = [AsItIs, AsItIs, Gone, Empty, Short][below(random, 5)];
        let fate = FATES[below(random, FATES.len())];
        // The end, at which all has been said, is worth more than one look.
        let cut = if below(random, 16) == 0 { records } else { below(random, records + 1) };
        Self { cut, fate, index, seed: random.next_u64() }
    }

    fn build(&self, model: &Model, random: &SeededEntropy) -> Tree {
        let mut tree = model.cut(self.fate, random);
        match self.index {
            IndexFate::AsItIs => {}
            IndexFate::Gone => tree.retain(|path, _| !path.contains("data/index")),
            IndexFate::Empty => tree.retain(|path, _| !path.contains("data/index/")),
            IndexFate::Short => {
                let files = tree.iter_mut().filter(|(path, _)| path.contains("data/index/"));
                for content in files.filter_map(|(_, content)| content.as_mut()) {
                    content.truncate(below(random, content.len() + 1));
                }
            }
        }
        tree
    }
}

/// What a search has seen.
#[derive(Default)]
struct Seen {
    states: HashSet<u64>,
    bad: Vec<String>,
}

/// Builds and checks so many states of a story, on all processors; ends early when `enough` bad ones were found.
fn search(story: &Story, wanted: usize, enough: usize, random: &SeededEntropy) -> Seen {
    let seen = Mutex::new(Seen::default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    // Some are built twice: until the first writes there are few.
    for _ in 0..8 {
        let missing = wanted.saturating_sub(seen.lock().unwrap().states.len());
        let mut cases: Vec<_> = (0..missing).map(|_| Case::any(story.records.len(), random)).collect();
        cases.sort_by_key(|case| case.cut);
        std::thread::scope(|scope| {
            for worker in 0..workers {
                let cases: Vec<_> = cases.iter().skip(worker).step_by(workers).copied().collect();
                let seen = &seen;
                scope.spawn(move || work(story, &cases, enough, seen));
            }
        });
        if seen.lock().unwrap().bad.len() >= enough {
            break;
        }
    }
    seen.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn work(story: &Story, cases: &[Case], enough: usize, seen: &Mutex<Seen>) {
    let (mut model, mut promise) = (Model::new(&story.root), story.before.clone());
    let mut done = 0;
    for case in cases {
        if seen.lock().unwrap().bad.len() >= enough {
            return;
        }
        for record in &story.records[done..case.cut] {
            model.take(record);
            promise.hear(record);
        }
        done = case.cut;
        let random = SeededEntropy::new(case.seed);
        let tree = case.build(&model, &random);
        if !seen.lock().unwrap().states.insert(fingerprint(&tree, promise.amount())) {
            continue;
        }
        if let Err(why) = check(story, &promise, &tree, &random) {
            seen.lock().unwrap().bad.push(format!("{}, {case:?}: {why}", story.name));
        }
    }
}

fn check(story: &Story, promise: &Promise, tree: &Tree, random: &SeededEntropy) -> Result<(), String> {
    let home = tempfile::tempdir_in(scratch()).unwrap();
    write_tree(tree, home.path());
    match &story.backup {
        Some((Copying::Taken, backup)) => return copies::check_taken(backup, promise, home.path()),
        Some((Copying::Restored, backup)) => {
            return copies::check_restored(story, backup, promise, home.path(), random);
        }
        None => {}
    }
    promise.check_files(story, tree)?;
    promise.check(story, &home.path().join("data"), random)
}

fn fingerprint(tree: &Tree, promised: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    promised.hash(&mut hasher);
    for (path, content) in tree {
        path.hash(&mut hasher);
        content.as_ref().map(|content| (content.len(), crc32c::crc32c(content))).hash(&mut hasher);
    }
    hasher.finish()
}

/// Memory, where there is such a file system: what is checked here is not the disk.
pub fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// sled panics on some damage, which the store catches; the noise would hide what matters.
pub fn quiet_sled() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.location().is_some_and(|at| at.file().contains("sled-0.34")) {
                loud(panic);
            }
        }));
    });
}

fn seed() -> SeededEntropy {
    let seed = number("POSTRIDER_CRASH_SEED").unwrap_or_else(|| RealEntropy.next_u64());
    eprintln!("POSTRIDER_CRASH_SEED={seed}");
    SeededEntropy::new(seed)
}

#[test]
fn whatever_a_power_cut_leaves_holds_what_was_answered() {
    quiet_sled();
    let random = seed();
    let wanted = number("POSTRIDER_CRASH_STATES").map_or(STATES, |count| count as usize);
    let (mut states, mut bad) = (0, Vec::new());
    let (taken, restored) = copies::taken_and_restored();
    for (story, share) in [(first_start(), 2), (busy_lives(), 7), (retention(), 6), (taken, 1), (restored, 4)] {
        let seen = search(&story, wanted * share / 20, usize::MAX, &random);
        println!("{}: {} states of {} records", story.name, seen.states.len(), story.records.len());
        states += seen.states.len();
        bad.extend(seen.bad);
    }
    println!("{states} states, {} bad", bad.len());
    assert!(bad.is_empty(), "{} of {states} states are bad:\n{}", bad.len(), bad[..bad.len().min(20)].join("\n"));
}

/// The record as it would be if some files and directories were never synced.
fn without_syncs(story: Story, of: impl Fn(&str) -> bool) -> Story {
    let mut open = HashMap::new();
    let records = story.records.into_iter().filter(|record| match record {
        Record::Open { fd, path, .. } => {
            open.insert(*fd, path.clone());
            true
        }
        // An end whose beginning is not known means nothing.
        Record::SyncBegin { fd, .. } => !of(&open[fd]),
        _ => true,
    });
    Story { records: records.collect(), ..story }
}

/// The search finds what it is there to find: the same lives without a kind of sync have states that break a promise.
#[test]
fn without_a_kind_of_sync_there_are_states_that_break_a_promise() {
    quiet_sled();
    let random = seed();
    let is_segment = |path: &str| path.ends_with(".wal");
    let is_journal = |path: &str| path.ends_with("/journal");
    let is_data = |path: &str| path.ends_with("/data");
    let is_token = |path: &str| path.contains("/token");
    let is_restoring = |path: &str| path.ends_with(".restoring");
    let is_parent = |path: &str| path.ends_with("/new");
    let is_backup = |path: &str| path.ends_with(".partial");
    let is_backups = |path: &str| path.ends_with("/backups");
    let (lives, (taken, restore)) = (busy_lives(), copies::taken_and_restored());
    for (story, what, of) in [
        (&lives, "segments", &is_segment as &dyn Fn(&str) -> bool),
        (&lives, "the journal's directory", &is_journal),
        (&lives, "the data directory", &is_data),
        (&lives, "the token", &is_token),
        (&taken, "the file", &is_backup),
        (&taken, "its directory", &is_backups),
        (&restore, "segments", &is_segment),
        (&restore, "the journal's directory", &is_journal),
        (&restore, "the new store's directory", &is_restoring),
        (&restore, "the directory that it is put in", &is_parent),
    ] {
        let seen = search(&without_syncs(story.clone(), of), STATES_OF_A_FAULT, 1, &random);
        println!("{} without syncs of {what}: bad state {} ({:?})", story.name, seen.states.len(), seen.bad.first());
        assert!(!seen.bad.is_empty(), "{} states without a sync of {what}, and none is bad", seen.states.len());
    }
}
