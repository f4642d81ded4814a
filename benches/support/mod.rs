//! What the benches share that compare with a reference in the same run: rounds, and the arithmetic of the report.
//!
//! | file | owns |
//! |---|---|
//! | `options` | the command line |
//! | `report` | medians, ratios, the table, the JSON file |
//! | `place`, `event`, `attempt` | stores on the disk, and what they are given |
//! | `cases`, `errand`, `nowhere` | what `micro` times and `counted` counts |
//!
//! `report` and `options` are here; the others are named by the benches that use them.
//!
//! **Invariant:** whatever is compared is driven in the same way with bodies of the same length, in one run, taking turns:
//! other work on the machine hits all of them alike, so the ratios hold where the figures do not.

pub mod options;
pub mod report;

use std::path::Path;
use std::process::ExitCode;

use postrider::cli::bench::machine::Machine;
use tokio::runtime::Handle;

use options::Options;
use report::Report;

/// A bench that could not be run; for people.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A bench.
pub struct Bench {
    /// As `cargo bench --bench` knows it.
    pub name: &'static str,
    /// What a point is told by, and what the series are: for `--help`.
    pub about: &'static str,
    /// Series that others are held against.
    pub references: &'static [&'static str],
}

impl Bench {
    /// Runs the bench in rounds as the command line says, and reports.
    pub fn run(&self, round: impl FnMut(&Options, &mut Report) -> Result<(), Error>) -> ExitCode {
        match self.rounds(round) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    }

    fn rounds(&self, mut round: impl FnMut(&Options, &mut Report) -> Result<(), Error>) -> Result<(), Error> {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        // `cargo test --benches` runs this too, without a word; that only has to compile.
        if !arguments.iter().any(|argument| argument == "--bench") {
            println!("nothing is measured without --bench; run `cargo bench --bench {}`", self.name);
            return Ok(());
        }
        let Some(options) = Options::parse(arguments.into_iter())? else {
            println!("{}\n\n{}", self.about, options::HELP);
            return Ok(());
        };
        let machine = Machine::describe();
        println!("{machine}; {options}");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let _within = runtime.enter();
        let mut report = Report::new(self.references);
        for number in 1..=options.rounds {
            eprintln!("round {number} of {}", options.rounds);
            round(&options, &mut report)?;
        }
        println!("\n{}", report.table());
        println!("{}", report.save(self.name, &options, &machine)?.display());
        Ok(())
    }
}

/// Waits for what is asynchronous.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    Handle::current().block_on(future)
}

/// On the disk that the build is on: a file system in memory would make every sync free.
pub fn disk_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}
