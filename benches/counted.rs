//! How many instructions the pure parts take, and an event's way through the store: `cargo bench --bench counted`.
//!
//! Unlike times, instructions hardly depend on what else the machine does, so a change that costs some is found by numbers:
//! those in `counts.toml`, which are compared with and replaced by `cargo bench --bench counted -- --accept`. They are
//! counted by valgrind, from which this executable is started again for each case, once to do it so many times and once not
//! at all; the difference is what the case takes. What would be faster for instructions that valgrind does not know (it has no
//! SHA extensions) is counted in its plain form.
//!
//! Numbers depend on the compiler, the C library, and what valgrind says the processor can do. Where these are others than they were
//! when the numbers were accepted nothing is compared, and that is said.

#[path = "support/attempt.rs"]
mod attempt;
#[path = "support/cases.rs"]
mod cases;
#[path = "support/errand.rs"]
mod errand;
#[path = "support/event.rs"]
mod event;
#[path = "support/nowhere.rs"]
mod nowhere;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use cases::Case;
use errand::Errand;
use serde::{Deserialize, Serialize};

type Error = Box<dyn std::error::Error>;

/// Runs one case under valgrind: its name and how often.
const CASE: &str = "--case";

/// Says what the processor can do.
const FEATURES: &str = "--features";

/// How often a case is done.
const TIMES: u64 = 2_000;

/// The share by which a number may be off. Runs of one build differ by 0.2 % at most, and by a rounded instruction; but the
/// compiler lays the same code out anew when other code changes, which has moved a number by 4 %.
const TOLERANCE: f64 = 0.05;

/// Instructions by which a small number may be off.
const TOLERANCE_MIN: f64 = 2.0;

/// What was accepted.
#[derive(Debug, Serialize, Deserialize)]
struct Counts {
    /// What they hold for.
    conditions: Conditions,
    /// Instructions of each case.
    instructions: BTreeMap<String, u64>,
}

/// What numbers depend on beside the sources.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Conditions {
    /// As `rustc --version` says.
    compiler: String,
    /// The C library, which allocates and copies, as `getconf` says.
    library: String,
    /// What the processor can do, as valgrind makes it out to be.
    processor: String,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let ended = match arguments[..] {
        [CASE, name, times] => repeat(name, times).map(|()| true),
        [FEATURES] => {
            println!("{}", features());
            Ok(true)
        }
        ["--accept", "--bench"] => accept().map(|()| true),
        ["--bench"] => compare(),
        // `cargo test --benches` runs this too; that only has to compile.
        _ => {
            println!("nothing is counted without --bench; run `cargo bench --bench counted`, or with `-- --accept`");
            Ok(true)
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn all() -> Vec<Case> {
    let mut errand = Errand::new();
    let mut all = cases::all();
    all.push(Case { name: "store/accept and settle".into(), run: Box::new(move || errand.run()) });
    all
}

fn repeat(name: &str, times: &str) -> Result<(), Error> {
    let mut case = all().into_iter().find(|case| case.name == name).ok_or("expected the name of a case")?;
    for _ in 0..times.parse()? {
        (case.run)();
    }
    Ok(())
}

fn compare() -> Result<bool, Error> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: there is no valgrind (Debian: apt-get install valgrind)");
        return Ok(true);
    }
    let accepted: Counts = toml::from_str(&std::fs::read_to_string(file())?)?;
    let now = Conditions::now()?;
    if now != accepted.conditions {
        println!("skipped: the accepted numbers hold for {}, this is {now}", accepted.conditions);
        return Ok(true);
    }
    let counted = count_all()?;
    let mut good = accepted.instructions.keys().eq(counted.keys());
    println!("{:<36} {:>10} {:>10} {:>8}", "instructions", "accepted", "now", "change");
    for (name, now) in &counted {
        let Some(then) = accepted.instructions.get(name) else {
            println!("{name:<36} {:>10} {now:>10}", "none");
            continue;
        };
        let change = *now as f64 - *then as f64;
        let off = change.abs() > (*then as f64 * TOLERANCE).max(TOLERANCE_MIN);
        let mark = if off { "  <- off" } else { "" };
        println!("{name:<36} {then:>10} {now:>10} {:>+7.2}%{mark}", 100.0 * change / *then as f64);
        good &= !off;
    }
    if !good {
        println!(
            "expected the same cases and each within {:.0} %; if the change is meant, run \
             `cargo bench --bench counted -- --accept` and commit benches/counts.toml",
            100.0 * TOLERANCE
        );
    }
    Ok(good)
}

fn accept() -> Result<(), Error> {
    let counts = Counts { conditions: Conditions::now()?, instructions: count_all()? };
    std::fs::write(file(), toml::to_string(&counts)?)?;
    println!("accepted; see `git diff benches/counts.toml`");
    Ok(())
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/counts.toml")
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.compiler, self.library, self.processor)
    }
}

impl Conditions {
    fn now() -> Result<Self, Error> {
        let told = |command: &str, argument: &str| {
            let output = Command::new(command).arg(argument).output().map_err(|error| format!("{command}: {error}"))?;
            Ok::<_, Error>(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let (features, _) = under_valgrind(&[FEATURES])?;
        Ok(Self {
            compiler: told("rustc", "--version")?,
            library: told("getconf", "GNU_LIBC_VERSION")?,
            processor: format!("{} {}", std::env::consts::ARCH, features.trim()).trim().to_owned(),
        })
    }
}

/// What code of the crates that this one uses asks of the processor before it chooses between its forms.
#[cfg(target_arch = "x86_64")]
fn features() -> String {
    let known = [
        ("ssse3", is_x86_feature_detected!("ssse3")),
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("sha", is_x86_feature_detected!("sha")),
    ];
    known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

/// Elsewhere the architecture has to do.
#[cfg(not(target_arch = "x86_64"))]
fn features() -> String {
    String::new()
}

fn count_all() -> Result<BTreeMap<String, u64>, Error> {
    let count = |case: Case| Ok((case.name.clone(), count(&case.name)?));
    all().into_iter().map(count).collect()
}

/// Instructions of a case, done once.
fn count(name: &str) -> Result<u64, Error> {
    let total = |times: u64| Ok::<_, Error>(under_valgrind(&[CASE, name, &times.to_string()])?.1);
    let (with, without) = (total(TIMES)?, total(0)?);
    Ok(with.saturating_sub(without).div_ceil(TIMES))
}

/// What this executable prints with these arguments, and its instructions.
fn under_valgrind(arguments: &[&str]) -> Result<(String, u64), Error> {
    const COUNT: &str = "refs:";
    let ran = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(arguments)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let told = String::from_utf8_lossy(&ran.stderr);
    let count = told.lines().find_map(|line| line.split_once(COUNT)).map(|(_, digits)| digits.trim().replace(',', ""));
    let count =
        count.filter(|_| ran.status.success()).ok_or_else(|| format!("expected a count of valgrind: {told}"))?;
    Ok((String::from_utf8(ran.stdout)?, count.parse()?))
}
