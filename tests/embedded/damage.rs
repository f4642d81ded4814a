//! The key space is never trusted more than the journal: whatever happens to its directory, a reopened store shows exactly
//! what it showed before.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};

use postrider::core::delivery::{Next, Pending};
use postrider::core::event::DedupKey;
use postrider::core::limits::StoreLimits;
use postrider::env::RealDisk;
use postrider::store::embedded::salvage;
use postrider::store::{Store, StoreError};

use crate::story::{Habits, Story};
use crate::support::{
    Home, PATIENCE, Picture, REJECTED, START_MS, accept, applied, backlog, body_of, copy_dir, delivery, event_with,
    files, limits, runtime, settle,
};

/// A store that was lived in, left behind in a copy, and what it showed then.
pub struct Scene {
    pub home: Home,
    keys: Vec<DedupKey>,
    picture: Picture,
}

impl Scene {
    /// Ended by closing it.
    pub fn closed() -> Self {
        Self::lived(true)
    }

    /// Ended in the middle of things: some of it is in the key space, some only in the journal.
    pub fn killed() -> Self {
        Self::lived(false)
    }

    fn lived(close: bool) -> Self {
        let runtime = runtime();
        let home = Home::new(limits());
        let store = home.open();
        let mut story = Story::new(3, Habits::default(), home.clock.clone());
        let dedup_ms = home.limits.dedup_ms;
        runtime.block_on(async {
            story.live(&store, 150, dedup_ms).await;
            applied(&store).await;
            story.live(&store, 50, dedup_ms).await;
        });
        let keys = story.open_keys(home.clock_ms());
        let copied = (!close).then(|| home.copy());
        let picture = runtime.block_on(Picture::of(&store, &keys));
        store.close();
        Self { home: copied.unwrap_or(home), keys, picture }
    }

    /// Damages a copy and opens it. Says whether the key space was built anew.
    pub fn survives(&self, what: &str, damage: impl FnOnce(&Path)) -> bool {
        let home = self.home.copy();
        damage(&home.index());
        let (keys, before) = (self.keys.clone(), self.picture.clone());
        let (done, finished) = mpsc::channel();
        let named = what.to_owned();
        let checking = std::thread::spawn(move || {
            let runtime = runtime();
            let store = home.open();
            let after = runtime.block_on(Picture::of(&store, &keys));
            let rebuilt = store.opened().rebuilt.is_some();
            drop(store);
            before.assert_same(&after, &named);
            // What was built is good: the next start has nothing to do. Some need not be asked.
            if rebuilt && named.len().is_multiple_of(4) {
                assert_eq!(home.open().opened().rebuilt, None, "{named}");
            }
            done.send(rebuilt).unwrap();
        });
        let answer = finished.recv_timeout(PATIENCE);
        assert!(!matches!(answer, Err(mpsc::RecvTimeoutError::Timeout)), "opening hangs: {what}");
        checking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        answer.unwrap()
    }
}

pub fn flip(path: &Path, at: u64, mask: u8) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at).unwrap();
}

/// Where a file is not zeros: most of sled's are, and a flip there teaches little.
pub fn written(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).unwrap();
    (0..bytes.len() as u64).filter(|at| bytes[*at as usize] != 0).collect()
}

/// Both ways of ending, with whatever is done to the directory.
fn both(what: &str, damage: impl Fn(&Path)) -> [bool; 2] {
    static SCENES: OnceLock<[Scene; 2]> = OnceLock::new();
    let scenes = SCENES.get_or_init(|| [Scene::closed(), Scene::killed()]);
    scenes.each_ref().map(|scene| scene.survives(what, &damage))
}

pub fn truncate(path: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// What is done to a file.
type Damage = Box<dyn Fn(&Path)>;

#[test]
fn a_truncated_or_missing_file_changes_nothing() {
    let cut = |of: fn(u64) -> u64| move |path: &Path| truncate(path, of(fs::metadata(path).unwrap().len()));
    let damages: [(&str, Damage); 7] = [
        ("without", Box::new(|path| fs::remove_file(path).unwrap())),
        ("with nothing in", Box::new(cut(|_| 0))),
        ("with one byte of", Box::new(cut(|_| 1))),
        ("with half of", Box::new(cut(|len| len / 2))),
        ("with all but the last byte of", Box::new(cut(|len| len - 1))),
        ("with more than", Box::new(cut(|len| len + 4_096))),
        ("with noise for", Box::new(|path| fs::write(path, body_of(1, 20_000)).unwrap())),
    ];
    // sled's files: the log, its configuration, and snapshots, whose names differ.
    for which in ["db", "conf", "snap."] {
        for (what, damage) in &damages {
            both(&format!("{what} {which}"), |index| {
                files(index).iter().filter(|path| name_of(path).starts_with(which)).for_each(|path| damage(path));
            });
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn lost_sectors_change_nothing() {
    for case in 0..12 {
        let (what, content) = if case % 2 == 0 { ("zeros", vec![0; 512]) } else { ("noise", body_of(case, 512)) };
        both(&format!("with {what} in sector {case}"), |index| {
            let db = index.join("db");
            let written = written(&db);
            let at = written[(case as usize * written.len()) / 12] / 512 * 512;
            let file = fs::OpenOptions::new().write(true).open(db).unwrap();
            file.write_all_at(&content, at).unwrap();
        });
    }
}

#[test]
fn what_does_not_belong_there_changes_nothing() {
    // What a kill leaves while sled writes a snapshot, on which sled itself fails for ever: the key space is good without.
    let generating = both("with a snapshot half written", |index| {
        fs::write(index.join("snap.0000000000000ABC.generating"), body_of(1, 100)).unwrap();
    });
    assert_eq!(generating, [false, false]);
    both("with a snapshot of nothing", |index| {
        fs::write(index.join("snap.FFFFFFFFFFFFFFFF"), body_of(2, 100)).unwrap()
    });
    both("with foreign files", |index| {
        fs::write(index.join("README"), "what is this").unwrap();
        fs::create_dir_all(index.join("blobs")).unwrap();
        fs::write(index.join("blobs").join("123"), body_of(3, 100)).unwrap();
        fs::write(index.join("blobs").join("not a number"), body_of(4, 100)).unwrap();
    });
    // Twice, as the first one set aside must not be in the way of the second.
    for what in ["missing", "missing again"] {
        assert_eq!(
            both(&format!("with the directory {what}"), |index| fs::remove_dir_all(index).unwrap()),
            [true, true]
        );
    }
    let empty = both("with an empty directory", |index| {
        fs::remove_dir_all(index).unwrap();
        fs::create_dir(index).unwrap();
    });
    assert_eq!(empty, [true, true]);
    let file = both("with files in the place of directories", |index| {
        fs::remove_dir_all(index).unwrap();
        fs::write(index, "a file").unwrap();
        fs::write(index.with_extension("damaged"), "another").unwrap();
    });
    assert_eq!(file, [true, true]);
    let older = both("with directories in the place of files", |index| {
        fs::create_dir_all(index.with_extension("damaged").join("older")).unwrap();
        fs::remove_file(index.join("db")).unwrap();
        fs::create_dir(index.join("db")).unwrap();
    });
    assert_eq!(older, [true, true]);
}

/// A key space of the same journal's past is behind, and one of another journal, or of its future, is none of ours.
#[test]
fn a_key_space_of_another_time_or_store_changes_nothing() {
    let scene = Scene::closed();
    let later = scene.home.copy();
    let runtime = runtime();
    runtime.block_on(async {
        let store = later.open();
        for n in 0..40 {
            accept(&store, event_with(&[0], &body_of(n, 2_000), &[])).await;
        }
    });
    let replaced = |index: &Path, by: &Home| {
        fs::remove_dir_all(index).unwrap();
        copy_dir(&by.index(), index);
    };
    assert!(scene.survives("with the key space of its future", |index| replaced(index, &later)));
    let other = Home::new(limits());
    runtime.block_on(Story::new(77, Habits::default(), other.clock.clone()).live(
        &other.open(),
        120,
        other.limits.dedup_ms,
    ));
    assert!(scene.survives("with the key space of another store", |index| replaced(index, &other)));
    // The other way round: the future of the journal with the key space of now.
    let (keys, store) = (Vec::new(), later.open());
    let before = runtime.block_on(Picture::of(&store, &keys));
    drop(store);
    let behind = Scene { home: later, keys, picture: before };
    assert!(!behind.survives("with the key space of its past", |index| replaced(index, &scene.home)));
}

/// The journal's file that says `text`, and where.
fn place_of(journal: &Path, text: &str) -> (PathBuf, u64) {
    let find = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(text.len()).position(|part| part == text.as_bytes())?;
        Some((path, at as u64))
    };
    files(journal).into_iter().find_map(find).expect("some file says it")
}

/// Damage of the journal itself concerns what is damaged: everything else is read, taken in, delivered and dropped.
#[test]
fn damage_in_a_sealed_segment_stops_neither_the_gateway_nor_the_others() {
    let home = Home::new(StoreLimits { retention_ms: 60_000, ..limits() });
    let runtime = runtime();
    let mut store = home.open();
    let mut events = Vec::new();
    for n in 0..3 {
        let body = format!("the bytes of number {n}");
        events.push(runtime.block_on(accept(&store, event_with(&[0], body.as_bytes(), &[]))));
        // A segment for each: opening seals, and takes only the last frame with it.
        runtime.block_on(accept(&store, event_with(&[], b"the last of its segment", &[])));
        drop(store);
        store = home.open();
    }
    drop(store);
    // Of the first the bytes, of the second all that is known of it, of the third the index of its segment.
    let (file, at) = place_of(&home.journal(), "the bytes of number 0");
    flip(&file, at + 4, 1);
    let (file, at) = place_of(&home.journal(), "the bytes of number 1");
    flip(&file, at - 1, 1);
    let (file, _) = place_of(&home.journal(), "the bytes of number 2");
    flip(&file, fs::metadata(&file).unwrap().len() - 300, 1);
    home.clock.advance(120_000);
    let store = home.open();
    runtime.block_on(async {
        store.keep_house().await;
        for damaged in &events[..2] {
            let found = store.event(damaged.meta.id).await;
            assert!(matches!(found, Err(StoreError::Unreadable { .. })), "{found:?}");
        }
        let whole = store.event(events[2].meta.id).await.unwrap().unwrap();
        assert_eq!(*whole, *events[2]);
        let attempts = store.attempts(whole.meta.id).await;
        assert!(matches!(attempts, Err(StoreError::Unreadable { .. })), "{attempts:?}");
        assert_eq!(backlog(&store, 0).await.len(), 3, "nothing pending is dropped, readable or not");
        // The first dies in time, and its segment goes. That of the second can't be read, so nobody knows what it holds.
        let was = Pending::fresh(events[0].meta.accepted_ms);
        settle(&store, delivery(0, events[0].meta.id), was, REJECTED).await;
        store.keep_house().await;
        assert!(store.event(events[0].meta.id).await.unwrap().is_none());
        assert_eq!(backlog(&store, 0).await.len(), 2);
        accept(&store, event_with(&[0], b"life goes on", &[])).await;
        settle(&store, delivery(0, whole.meta.id), Pending::fresh(whole.meta.accepted_ms), Next::Delivered).await;
    });
}

/// Salvaging writes every record anew, under the same numbers but elsewhere. A key space from before must not send readers
/// to the old places.
#[test]
fn a_key_space_from_before_a_salvage_is_built_anew() {
    let Scene { home, keys, .. } = Scene::closed();
    let runtime = runtime();
    // Every start began a segment; the salvaged journal has fewer.
    for n in 0..3 {
        runtime.block_on(accept(&home.open(), event_with(&[0], &body_of(n, 100), &[])));
    }
    let picture = runtime.block_on(Picture::of(&home.open(), &keys));
    let scene = Scene { home, keys, picture };
    let rebuilt = scene.survives("after a salvage", |index| {
        let data = index.parent().unwrap();
        let salvaged = salvage(&Arc::new(RealDisk), data, &limits(), 99, START_MS).unwrap();
        assert!(!salvaged.has_losses() && salvaged.journal.records > 0);
    });
    assert!(rebuilt);
}
