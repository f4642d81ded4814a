//! Real power cuts, by `tests/powercut.py`: some in an ordinary run, more with `POSTRIDER_CUTS`.

use std::path::Path;
use std::process::Command;

use super::states::number;

/// Cuts of an ordinary run.
const CUTS: u64 = 2;

/// What the script ends with where it can't run.
const SKIPPED: i32 = 77;

fn cut(cuts: u64, more: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/powercut.py");
    let mut command = Command::new("python3");
    command.arg(script).args(["--binary", env!("CARGO_BIN_EXE_postrider"), "--cuts", &cuts.to_string()]).args(more);
    match command.output() {
        Err(error) => println!("SKIPPED: no python3: {error}"),
        Ok(output) => {
            let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            print!("{said}");
            assert!(output.status.success() || output.status.code() == Some(SKIPPED), "{said}{errors}");
        }
    }
}

#[test]
fn a_power_cut_of_a_real_file_system_loses_nothing() {
    cut(number("POSTRIDER_CUTS").unwrap_or(CUTS), &[]);
}

/// The cuts are such that it matters whether anything is synced.
#[test]
fn a_gateway_whose_syncs_do_nothing_loses_events() {
    cut(1, &["--lie"]);
}
