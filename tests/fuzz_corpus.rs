//! Every fuzz target over its committed corpus: what fuzzing found once stays found, and no target falls behind the code.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::path::{Path, PathBuf};

/// The files of a target's corpus, sorted.
fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_holds_on_its_corpus() {
    for (target, run) in fuzz::TARGETS {
        let files = corpus(target);
        assert!(files.len() >= 5, "the corpus of {target} has only {} files", files.len());
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            let held = std::panic::catch_unwind(|| run(&bytes));
            assert!(held.is_ok(), "{target} fails on {}", file.display());
        }
    }
}

/// Cheap mutations of the corpus, for where there is no fuzzer: every target stands a little of it.
#[test]
fn every_target_holds_on_what_is_near_its_corpus() {
    for (target, run) in fuzz::TARGETS {
        for file in corpus(target).iter().take(8) {
            let bytes = std::fs::read(file).unwrap();
            for at in (0..bytes.len()).step_by(bytes.len() / 6 + 1) {
                let (mut flipped, mut without) = (bytes.clone(), bytes.clone());
                flipped[at] ^= 1 << (at % 8);
                without.remove(at);
                for near in [&flipped[..], &without, &bytes[..at]] {
                    let held = std::panic::catch_unwind(|| run(near));
                    assert!(held.is_ok(), "{target} fails near {} at byte {at}", file.display());
                }
            }
        }
    }
}
