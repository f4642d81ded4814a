//! The store through lives of a process among faults. The bytes are the dice of the simulation, two for each throw, and a
//! seed goes on where they end. So a fuzzer steers all that the simulation can do, and the simulation's model judges.

#[allow(dead_code, reason = "the simulation's own test looks at more of what a run has come to")]
#[path = "../../tests/sim/world/mod.rs"]
mod world;

use world::{Dice, logs, run as simulate};

pub fn run(bytes: &[u8]) {
    // For the lock file alone; everything else is simulated.
    let data = tempfile::tempdir().expect("a directory for the lock");
    let _logs = tracing::subscriber::set_default(logs::Logs { show: false });
    let outcome = simulate(Dice::read_from(bytes), data.path().to_owned(), false);
    assert_eq!(outcome.breach, None);
}
