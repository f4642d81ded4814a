//! The command line: how long, how often, which.

use std::time::Duration;

use super::Error;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Counted at each point.
    pub measured: Duration,
    /// Before it at each point.
    pub warm_up: Duration,
    /// Rounds, of which the medians are taken.
    pub rounds: usize,
    /// Connections of each point.
    pub connections: Vec<usize>,
    /// Parts of names; what holds none of them is left out. Empty leaves nothing out.
    pub only: Vec<String>,
}

/// What `--help` says.
pub const HELP: &str = "Options after `cargo bench --bench gateway --`:
  --seconds S          counted at each point [default: 1.5]
  --warm-up S          before it [default: 0.7]
  --rounds N           rounds that the medians are taken of [default: 3]
  --connections A,B    [default: 1,16,64,256]
  WORD…                only what has such a word in its name: bare, disk, plain, inbound, cycle, fan-out";

impl Options {
    /// Reads them; `None` asks for help.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, Error> {
        let mut options = Self {
            measured: Duration::from_millis(1_500),
            warm_up: Duration::from_millis(700),
            rounds: 3,
            connections: vec![1, 16, 64, 256],
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
                "--connections" => {
                    options.connections = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
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
}
