//! The command line: how long, how often, which.

use std::fmt;
use std::time::Duration;

use super::Error;

/// Makes a run short, for whoever wants to see that a bench works.
const SHORT: &str = "POSTRIDER_BENCH_SHORT";

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Counted at each point.
    pub measured: Duration,
    /// Before it at each point.
    pub warm_up: Duration,
    /// Rounds, of which the medians are taken.
    pub rounds: usize,
    /// Fewer events in what is built and read.
    pub short: bool,
    /// Those who wait at once.
    callers: Vec<usize>,
    /// Bytes of a body.
    bodies: Vec<usize>,
    /// Parts of names; what holds none of them is left out. Empty leaves nothing out.
    only: Vec<String>,
}

/// What `--help` says.
pub const HELP: &str = "Options after `cargo bench --bench NAME --`:
  --seconds S          counted at each point [default: 1]
  --warm-up S          before it [default: 0.5]
  --rounds N           rounds that the medians are taken of [default: 3]
  --callers A,B        those who wait at once [default: 1,16,64,256]
  --bodies A,B         bytes of a body [default: 128,1024,16384,262144]
  WORD…                only series that have such a word in their names

With POSTRIDER_BENCH_SHORT=1 the defaults are one round, 0.2 and 0.1 seconds, and a tenth of the events.";

impl Options {
    /// Reads them; `None` asks for help.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, Error> {
        let short = std::env::var_os(SHORT).is_some_and(|value| value != "0");
        let (measured_ms, warm_up_ms, rounds) = if short { (200, 100, 1) } else { (1_000, 500, 3) };
        let mut options = Self {
            measured: Duration::from_millis(measured_ms),
            warm_up: Duration::from_millis(warm_up_ms),
            rounds,
            short,
            callers: vec![1, 16, 64, 256],
            bodies: vec![128, 1 << 10, 16 << 10, 256 << 10],
            only: Vec::new(),
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("expected a value after {argument}"));
            match argument.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--help" | "-h" => return Ok(None),
                "--seconds" => options.measured = Duration::try_from_secs_f64(value()?.parse()?)?,
                "--warm-up" => options.warm_up = Duration::try_from_secs_f64(value()?.parse()?)?,
                "--rounds" => options.rounds = value()?.parse()?,
                "--callers" => options.callers = numbers(&value()?)?,
                "--bodies" => options.bodies = numbers(&value()?)?,
                word if !word.starts_with('-') => options.only.push(word.to_owned()),
                other => return Err(format!("no such option: {other}\n{HELP}").into()),
            }
        }
        Ok(Some(options))
    }

    /// Whether a series of this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }

    /// Numbers of callers with the bytes of a body, as far as they are wanted.
    pub fn points(&self, wanted: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
        let all = self.callers.iter().flat_map(|callers| self.bodies.iter().map(|bytes| (*callers, *bytes)));
        all.filter(|(callers, bytes)| wanted(*callers, *bytes)).collect()
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (measured, warm_up) = (self.measured.as_secs_f64(), self.warm_up.as_secs_f64());
        write!(f, "{} rounds of {measured:.1} s after {warm_up:.1} s; ", self.rounds)?;
        f.write_str("a ratio is the median of the rounds' ratios")
    }
}

fn numbers(text: &str) -> Result<Vec<usize>, Error> {
    Ok(text.split(',').map(str::parse).collect::<Result<_, _>>()?)
}
