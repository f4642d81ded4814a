//! The key space is never trusted more than the journal: whatever happens to its directory, a reopened store shows exactly
//! what it showed before.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use postrider::core::event::DedupKey;
use postrider::env::{Entropy, SeededEntropy};

use crate::story::{Habits, Story};
use crate::support::{Home, PATIENCE, Picture, applied, files, limits, runtime};

/// A store that was lived in, left behind in a copy, and what it showed then.
struct Scene {
    home: Home,
    keys: Vec<DedupKey>,
    picture: Picture,
}

impl Scene {
    /// Ended by closing it.
    fn closed() -> Self {
        Self::lived(true)
    }

    /// Ended in the middle of things: some of it is in the key space, some only in the journal.
    fn killed() -> Self {
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
    fn survives(&self, what: &str, damage: impl FnOnce(&Path)) -> bool {
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
            // What was built is good: the next start has nothing to do.
            if rebuilt {
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

fn flip(path: &Path, at: u64, mask: u8) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at).unwrap();
}

/// Where a file is not zeros: most of sled's are, and a flip there teaches little.
fn written(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).unwrap();
    (0..bytes.len() as u64).filter(|at| bytes[*at as usize] != 0).collect()
}

fn flips(scene: &Scene, count: u64, seed: u64) {
    let random = SeededEntropy::new(seed);
    let index = scene.home.index();
    let files: Vec<(PathBuf, u64, Vec<u64>)> = files(&index)
        .into_iter()
        .map(|path| (path.clone(), fs::metadata(&path).unwrap().len(), written(&path)))
        .filter(|(_, len, _)| *len > 0)
        .collect();
    let mut rebuilt = 0;
    for case in 0..count {
        let (path, len, written) = &files[(random.next_u64() % files.len() as u64) as usize];
        // One in eight anywhere, the others where something is written.
        let at = match (case % 8, written.len() as u64) {
            (0, _) | (_, 0) => random.next_u64() % len,
            (_, places) => written[(random.next_u64() % places) as usize],
        };
        let mask = 1 << (random.next_u64() % 8);
        let name = path.strip_prefix(&index).unwrap();
        let what = format!("after byte {at} of {} was changed by {mask:#04x}", name.display());
        rebuilt += u64::from(scene.survives(&what, |index| flip(&index.join(name), at, mask)));
    }
    assert!(rebuilt > 0, "no flip was ever noticed: they missed");
}

/// `POSTRIDER_FLIPS` asks for more than the ordinary 200 in all.
fn flips_wanted() -> u64 {
    std::env::var("POSTRIDER_FLIPS").map_or(200, |count| count.parse().unwrap()) / 2
}

#[test]
fn a_flipped_byte_after_a_clean_close_changes_nothing() {
    flips(&Scene::closed(), flips_wanted(), 11);
}

#[test]
fn a_flipped_byte_after_a_kill_changes_nothing() {
    flips(&Scene::killed(), flips_wanted(), 12);
}
