//! Random damages to the directory of the key space, of every kind that a disk, a crash or a person makes: each is noticed
//! and the key space built anew, or it touched nothing. What the store shows is the same in every case.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use postrider::env::{Entropy, SeededEntropy};

use crate::damage::{Scene, flip, truncate, written};
use crate::support::{body_of, files};

/// `POSTRIDER_FLIPS` asks for more than the ordinary 200 in all.
fn damages_wanted() -> u64 {
    std::env::var("POSTRIDER_FLIPS").map_or(200, |count| count.parse().unwrap()) / 2
}

#[test]
fn random_damage_after_a_clean_close_changes_nothing() {
    campaign(&Scene::closed(), damages_wanted(), 11);
}

#[test]
fn random_damage_after_a_kill_changes_nothing() {
    campaign(&Scene::killed(), damages_wanted(), 12);
}

fn campaign(scene: &Scene, count: u64, seed: u64) {
    let dice = Dice(SeededEntropy::new(seed));
    // How many of each kind there were, and after how many the key space was built anew.
    let mut tally: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for case in 0..count {
        let kind = Kind::of(case, &dice);
        let seed = dice.0.next_u64();
        let what = format!("after {kind:?} of seed {seed}");
        let rebuilt = scene.survives(&what, |index| kind.damage(index, &Dice(SeededEntropy::new(seed))));
        if kind == Kind::Key {
            assert!(rebuilt, "a key was changed by sled's own hand, and nobody noticed {what}");
        }
        let (of_kind, of_them_rebuilt) = tally.entry(kind.name()).or_default();
        *of_kind += 1;
        *of_them_rebuilt += u64::from(rebuilt);
    }
    println!("damages and rebuilds by kind: {tally:?}");
    assert!(tally["flips"].1 > 0, "no flip was ever noticed: they missed");
    assert!(tally["keys"].0 > 0, "no key was ever changed");
}

/// Chance that repeats from its seed.
struct Dice(SeededEntropy);

impl Dice {
    /// A number below `end`.
    fn below(&self, end: u64) -> u64 {
        self.0.next_u64() % end.max(1)
    }

    fn one_of<'t, T>(&self, all: &'t [T]) -> &'t T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// A place in a file: mostly where something is written, for most of sled's files are zeros.
    fn place(&self, path: &Path) -> u64 {
        let (len, written) = (fs::metadata(path).unwrap().len(), written(path));
        if written.is_empty() || self.below(8) == 0 { self.below(len) } else { *self.one_of(&written) }
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Flip,
    Flips,
    Cut,
    Growth,
    Sector,
    Missing,
    Leftover,
    Swap,
    /// Through sled itself, so that all of its own checksums are right: only the sums of the key space tell.
    Key,
}

impl Kind {
    /// Half of all are single flips; keys come at fixed places, so that the shortest campaign has some.
    fn of(case: u64, dice: &Dice) -> Self {
        const OTHERS: [Kind; 7] =
            [Kind::Flips, Kind::Cut, Kind::Growth, Kind::Sector, Kind::Missing, Kind::Leftover, Kind::Swap];
        match case % 8 {
            0 => Self::Key,
            1..=4 => Self::Flip,
            _ => *dice.one_of(&OTHERS),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Flip | Self::Flips => "flips",
            Self::Cut => "cuts",
            Self::Growth => "growths",
            Self::Sector => "sectors",
            Self::Missing => "missing files",
            Self::Leftover => "leftovers",
            Self::Swap => "swaps",
            Self::Key => "keys",
        }
    }

    fn damage(self, index: &Path, dice: &Dice) {
        let files: Vec<PathBuf> =
            files(index).into_iter().filter(|path| fs::metadata(path).unwrap().len() > 0).collect();
        let path = dice.one_of(&files);
        let len = fs::metadata(path).unwrap().len();
        match self {
            Self::Flip => flip(path, dice.place(path), 1 << dice.below(8)),
            Self::Flips => (0..2 + dice.below(20)).for_each(|_| flip(path, dice.place(path), 1 << dice.below(8))),
            Self::Cut => truncate(path, dice.below(len)),
            Self::Growth => grow(path, dice),
            Self::Sector => {
                let bytes = *dice.one_of(&[512, 4096]);
                let noise = if dice.below(2) == 0 { vec![0; bytes] } else { body_of(dice.below(1 << 40), bytes) };
                let mut content = fs::read(path).unwrap();
                let at = dice.place(path) as usize / bytes * bytes;
                let end = content.len().min(at + bytes);
                content[at..end].copy_from_slice(&noise[..end - at]);
                fs::write(path, content).unwrap();
            }
            Self::Missing => fs::remove_file(path).unwrap(),
            Self::Leftover => leave(index, &files, dice),
            Self::Swap => {
                let (one, other) = (fs::read(path).unwrap(), dice.one_of(&files));
                fs::write(path, fs::read(other).unwrap()).unwrap();
                fs::write(other, one).unwrap();
            }
            Self::Key => change_a_key(index, dice),
        }
    }
}

/// More than was written: zeros, noise, or its own beginning once more.
fn grow(path: &Path, dice: &Dice) {
    let mut content = fs::read(path).unwrap();
    let len = 1 + dice.below(20_000) as usize;
    let more = match dice.below(3) {
        0 => vec![0; len],
        1 => body_of(dice.below(1 << 40), len),
        _ => content[..len.min(content.len())].to_vec(),
    };
    content.extend(more);
    fs::write(path, content).unwrap();
}

/// What a crash or a person leaves beside the files: snapshots half written or of another time, copies, strangers.
fn leave(index: &Path, files: &[PathBuf], dice: &Dice) {
    let source = fs::read(dice.one_of(files)).unwrap();
    let part = source[..dice.below(source.len() as u64) as usize].to_vec();
    let lsn = *dice.one_of(&[0, 1, 0xABC, 1 << 23, u64::MAX >> 1]);
    let (name, content) = match dice.below(5) {
        0 => (format!("snap.{lsn:016X}.generating"), part),
        1 => (format!("snap.{lsn:016X}"), part),
        2 => (format!("snap.{lsn:016X}"), source),
        3 => ("db.bak".to_owned(), source),
        _ => (format!("blobs/{lsn}"), part),
    };
    fs::create_dir_all(index.join("blobs")).unwrap();
    fs::write(index.join(name), content).unwrap();
}

/// Opens the directory as sled and removes a key, changes a value, moves a key, or adds one.
fn change_a_key(index: &Path, dice: &Dice) {
    let config = sled::Config::new().path(index).segment_size(8 << 20).mode(sled::Mode::HighThroughput);
    let db = config.use_compression(false).flush_every_ms(None).open().unwrap();
    let keys: Vec<sled::IVec> = db.iter().keys().map(|key| key.unwrap()).collect();
    let key = dice.one_of(&keys).to_vec();
    let value = db.get(&key).unwrap().unwrap().to_vec();
    let mut other = if value.is_empty() { key.clone() } else { value.clone() };
    let at = dice.below(other.len() as u64) as usize;
    other[at] ^= 1 << dice.below(8);
    match dice.below(4) {
        1 if !value.is_empty() => drop(db.insert(&key, other).unwrap()),
        2 if value.is_empty() => {
            db.remove(&key).unwrap();
            db.insert(other, value).unwrap();
        }
        3 => {
            let mut longer = key;
            longer.push(0);
            db.insert(longer, value).unwrap();
        }
        _ => drop(db.remove(&key).unwrap()),
    }
    db.flush().unwrap();
}
