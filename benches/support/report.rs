//! Medians over the rounds, ratios within them, and where they are shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use postrider::cli::bench::load::Ran;
use postrider::cli::bench::machine::{Machine, Used};
use serde_json::{Value, json};

use super::options::Options;
use super::{BODY_BYTES, Error};

/// One series at one number of connections.
type Place = (usize, &'static str);

/// What each series is held against, where that was measured in the same round.
const REFERENCES: [&str; 4] = ["bare", "disk grouped", "disk append", "plain"];

/// All that was measured.
#[derive(Debug, Default)]
pub struct Report {
    /// One entry per round; a series that was left out has none.
    samples: BTreeMap<Place, Vec<Sample>>,
    order: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    rate: f64,
    /// Of the server alone, per answer.
    cpu_us: Option<f64>,
    /// Of the whole disk, per answer.
    disk_bytes: Option<f64>,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

impl Report {
    /// Adds what a load came to: so many answers or events per second, and what the server used for all of them.
    pub fn add(&mut self, series: &'static str, connections: usize, ran: &Ran, rate: f64, used: &Used) {
        let each = |total: f64| Some(total / ran.accepted.max(1) as f64);
        let sample = Sample {
            rate,
            cpu_us: each(used.cpu_s * 1e6),
            disk_bytes: each(used.disk_bytes as f64),
            p50_us: ran.latency.map(|latency| latency.p50),
            p99_us: ran.latency.map(|latency| latency.p99),
        };
        self.push(series, connections, sample);
    }

    /// Adds a rate of which nothing else is known.
    pub fn add_rate(&mut self, series: &'static str, connections: usize, rate: f64) {
        self.push(series, connections, Sample { rate, cpu_us: None, disk_bytes: None, p50_us: None, p99_us: None });
    }

    fn push(&mut self, series: &'static str, connections: usize, sample: Sample) {
        if !self.order.contains(&series) {
            self.order.push(series);
        }
        self.samples.entry((connections, series)).or_default().push(sample);
    }

    /// Lines in the order of connections, then of measuring.
    fn places(&self) -> Vec<Place> {
        let mut places: Vec<_> = self.samples.keys().copied().collect();
        let rank = |series| self.order.iter().position(|known| *known == series);
        places.sort_by_key(|(connections, series)| (*connections, rank(*series)));
        places
    }

    fn median(&self, place: Place, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.get(&place)?.iter().filter_map(of).collect())
    }

    /// The median of the rounds' ratios, not the ratio of medians: what slows a round slows both.
    fn ratio(&self, place: Place, reference: &'static str) -> Option<f64> {
        let (mine, theirs) = (self.samples.get(&place)?, self.samples.get(&(place.0, reference))?);
        let pairs = mine.iter().zip(theirs).filter(|_| place.1 != reference);
        median(pairs.map(|(mine, theirs)| mine.rate / theirs.rate).collect())
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{:>11}  {:<14} {:>9} {:>7} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "connections",
            "what",
            "per s",
            "÷ bare",
            "÷ grouped",
            "÷ append",
            "÷ plain",
            "CPU µs",
            "disk B",
            "p50 ms",
            "p99 ms"
        );
        for place in self.places() {
            let cell = |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
            let of = |figure: fn(&Sample) -> Option<f64>| self.median(place, figure);
            let _ = write!(out, "{:>11}  {:<14} {:>9}", place.0, place.1, cell(of(|s| Some(s.rate)), 0));
            for (reference, width) in REFERENCES.into_iter().zip([7, 9, 8, 8]) {
                let _ = write!(out, " {:>width$}", cell(self.ratio(place, reference), 2));
            }
            let ms = |us: Option<u64>| us.map(|us| us as f64 / 1e3);
            let _ = writeln!(
                out,
                " {:>8} {:>8} {:>8} {:>8}",
                cell(of(|s| s.cpu_us), 1),
                cell(of(|s| s.disk_bytes), 0),
                cell(self.median(place, |s| ms(s.p50_us)), 2),
                cell(self.median(place, |s| ms(s.p99_us)), 2)
            );
        }
        out
    }

    /// The same with every round, for programs.
    pub fn json(&self, options: &Options, machine: &Value) -> Value {
        let series: Vec<_> = self.places().into_iter().map(|place| self.json_of(place)).collect();
        json!({
            "body_bytes": BODY_BYTES,
            "measured_s": options.measured.as_secs_f64(),
            "warm_up_s": options.warm_up.as_secs_f64(),
            "rounds": options.rounds,
            "machine": machine,
            "series": series,
        })
    }

    fn json_of(&self, place: Place) -> Value {
        let json_of = |s: &Sample| json!({"per_s": s.rate, "cpu_us": s.cpu_us, "disk_bytes": s.disk_bytes, "p50_us": s.p50_us, "p99_us": s.p99_us});
        let rounds: Vec<_> = self.samples[&place].iter().map(json_of).collect();
        let ratios: serde_json::Map<_, _> =
            REFERENCES.iter().filter_map(|r| Some(((*r).to_owned(), json!(self.ratio(place, r)?)))).collect();
        let per_s = self.median(place, |s| Some(s.rate));
        json!({"connections": place.0, "what": place.1, "per_s": per_s, "ratios": ratios, "rounds": rounds})
    }

    /// Writes the JSON to `target/bench/NAME.json`.
    pub fn save(&self, name: &str, options: &Options, machine: &Value) -> Result<PathBuf, Error> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("expected a target directory")?;
        let dir = target.join("bench");
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{name}.json"));
        std::fs::write(&path, format!("{:#}\n", self.json(options, machine)))?;
        Ok(path)
    }
}

/// What a machine is called in front of the table.
pub fn headline(options: &Options) -> (String, Value) {
    let machine = Machine::describe();
    let text = format!(
        "{} cores, {}; bodies of {BODY_BYTES} bytes; {} rounds of {:.1} s after {:.1} s; a ratio is the median of the rounds' ratios",
        machine.cores,
        machine.processor,
        options.rounds,
        options.measured.as_secs_f64(),
        options.warm_up.as_secs_f64(),
    );
    (text, json!({"machine": machine, "postrider": env!("CARGO_PKG_VERSION")}))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}
