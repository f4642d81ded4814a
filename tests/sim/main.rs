//! Deterministic simulation: years of a gateway's life among faults, each run from one seed, replayed by that seed alone.
//!
//! `SIM_SEEDS=n` runs so many seeds, from `SIM_FROM` on; `SIM_SEED=n` runs one and prints all that happened. Each seed runs
//! twice, and both runs must be the same to the last disk operation.

mod world;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use world::coverage::{Coverage, Kind};
use world::{Dice, Outcome, logs, run};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 60;

/// After so many failures the rest would tell no more.
const FAILURES_MAX: usize = 10;

/// From so many seeds on every kind of fault and state must have happened.
const COVERS_ALL: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("expected a number in {name}: {text}")))
}

/// What all seeds together came to.
#[derive(Default)]
struct Total {
    coverage: Coverage,
    events: u64,
    failed: Vec<(u64, String)>,
}

/// Runs a seed twice.
fn twice(seed: u64, data: &Path) -> Result<Outcome, String> {
    let [first, second] = [(); 2].map(|()| run(Dice::seeded(seed), data.to_owned(), false));
    if let Some(breach) = &first.breach {
        return Err(breach.clone());
    }
    if first.digest != second.digest {
        return Err(format!("two runs differ: {:?} and {:?}", first.digest, second.digest));
    }
    Ok(first)
}

#[allow(clippy::disallowed_methods, reason = "seeds per second are worth knowing")]
fn campaign(from: u64, seeds: u64) -> Total {
    let (next, total, started) = (AtomicU64::new(from), Mutex::new(Total::default()), Instant::now());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let data = tempfile::tempdir().expect("a directory for the lock");
                let _logs = tracing::subscriber::set_default(logs::Logs { show: false });
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let result = twice(seed, data.path());
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    match result {
                        Ok(outcome) => {
                            total.coverage.add(&outcome.coverage);
                            total.events += outcome.digest.1;
                        }
                        Err(why) => {
                            eprintln!("SIM_SEED={seed} fails: {why}");
                            total.failed.push((seed, why));
                            if total.failed.len() >= FAILURES_MAX {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    eprintln!(
        "{seeds} seeds, each twice, in {:.1} s: {} things happened",
        started.elapsed().as_secs_f64(),
        total.events
    );
    total
}

#[test]
fn no_promise_is_broken_whatever_happens() {
    if let Some(seed) = number("SIM_SEED") {
        let data = tempfile::tempdir().expect("a directory for the lock");
        let _logs = tracing::subscriber::set_default(logs::Logs { show: true });
        let outcome = run(Dice::seeded(seed), data.path().to_owned(), true);
        eprintln!("{}", outcome.text);
        assert_eq!(outcome.breach, None, "SIM_SEED={seed}");
        return;
    }
    let (from, seeds) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let total = campaign(from, seeds);
    for kind in Kind::ALL {
        eprintln!("{:>12} {}", total.coverage.of(*kind), kind.text());
    }
    assert!(total.failed.is_empty(), "{} of {seeds} seeds fail, the first: {:?}", total.failed.len(), total.failed[0]);
    let missing = total.coverage.missing();
    assert!(seeds < COVERS_ALL || missing.is_empty(), "these never happened: {missing:?}");
}

/// As a fuzzer does it: any bytes are a run, and no run breaks a promise.
#[test]
fn any_bytes_make_a_run() {
    let data = tempfile::tempdir().expect("a directory for the lock");
    let _logs = tracing::subscriber::set_default(logs::Logs { show: false });
    for step in 0..8u8 {
        let bytes: Vec<u8> = (0..600u32).map(|n| (n as u8).wrapping_mul(step.wrapping_add(41))).collect();
        let outcome = run(Dice::read_from(&bytes), data.path().to_owned(), false);
        assert_eq!(outcome.breach, None, "step {step}");
    }
}

/// What the fuzzer starts from reaches the places that matter, also after the simulation has changed.
#[test]
fn the_fuzzers_corpus_reaches_crash_rebuild_retention_erasure_and_redrive() {
    let data = tempfile::tempdir().expect("a directory for the lock");
    let _logs = tracing::subscriber::set_default(logs::Logs { show: false });
    let mut coverage = Coverage::default();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/store")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        coverage.add(&run(Dice::read_from(&bytes), data.path().to_owned(), false).coverage);
    }
    for kind in [Kind::PowerCutMidway, Kind::KillMidway, Kind::Rebuilt, Kind::Dropped, Kind::Erased, Kind::Redriven] {
        assert!(coverage.of(kind) > 0, "no file of fuzz/corpus/store comes to this: {}", kind.text());
    }
}
