//! Medians over the rounds, ratios within them, and where they are shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use postrider::cli::bench::machine::Machine;
use serde::Serialize;
use serde_json::{Value, json};

use super::Error;
use super::options::Options;

/// A point and a series, by when they first came.
type Place = (usize, usize);

/// All that was measured.
#[derive(Debug)]
pub struct Report {
    /// Series that others are held against, where they were measured at the same point in the same round.
    references: &'static [&'static str],
    points: Vec<String>,
    series: Vec<String>,
    /// One entry per round; a series that was left out has none.
    samples: BTreeMap<Place, Vec<Sample>>,
}

/// One round of one series at one point.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Sample {
    /// Of what is counted.
    pub per_s: f64,
    /// Of the server alone, for each of what is counted.
    pub cpu_us: Option<f64>,
    /// Of the whole disk, for each of what is counted.
    pub disk_bytes: Option<f64>,
    /// Until the answer, half of all.
    pub p50_us: Option<u64>,
    /// The same for 99 of 100.
    pub p99_us: Option<u64>,
}

impl From<f64> for Sample {
    /// A rate of which nothing else is known.
    fn from(per_s: f64) -> Self {
        Self { per_s, ..Self::default() }
    }
}

/// A column beside rate and ratios: its head, its figure, its digits.
type Column = (&'static str, fn(&Sample) -> Option<f64>, usize);

const COLUMNS: [Column; 4] = [
    ("CPU µs", |s| s.cpu_us, 1),
    ("disk B", |s| s.disk_bytes, 0),
    ("p50 ms", |s| Some(s.p50_us? as f64 / 1e3), 2),
    ("p99 ms", |s| Some(s.p99_us? as f64 / 1e3), 2),
];

impl Report {
    /// An empty report.
    pub fn new(references: &'static [&'static str]) -> Self {
        Self { references, points: Vec::new(), series: Vec::new(), samples: BTreeMap::new() }
    }

    /// Adds what a round came to.
    pub fn add(&mut self, point: &str, series: &str, sample: impl Into<Sample>) {
        let place = (number(&mut self.points, point), number(&mut self.series, series));
        self.samples.entry(place).or_default().push(sample.into());
    }

    fn median(&self, place: Place, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.get(&place)?.iter().filter_map(of).collect())
    }

    /// The median of the rounds' ratios, not the ratio of medians: what slows a round slows both. A reference itself is held
    /// against those before it.
    fn ratio(&self, place: Place, reference: &str) -> Option<f64> {
        let mut before = self.references.iter().take_while(|known| **known != self.series[place.1]);
        before.find(|known| **known == reference)?;
        let reference = (place.0, self.series.iter().position(|series| series == reference)?);
        let (mine, theirs) = (self.samples.get(&place)?, self.samples.get(&reference)?);
        median(mine.iter().zip(theirs).map(|(mine, theirs)| mine.per_s / theirs.per_s).collect())
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let known = |column: &&Column| self.samples.values().flatten().any(|sample| column.1(sample).is_some());
        let columns: Vec<_> = COLUMNS.iter().filter(known).collect();
        let ratios: Vec<_> = self.references.iter().map(|reference| format!("÷ {reference}")).collect();
        let mut out = format!("{:<22}  {:<22} {:>10}", "", "", "per s");
        for head in ratios.iter().map(String::as_str).chain(columns.iter().map(|column| column.0)) {
            let _ = write!(out, "  {head:>8}");
        }
        for place in self.samples.keys().copied() {
            let (point, series) = (&self.points[place.0], &self.series[place.1]);
            let cell = |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
            let rate = cell(self.median(place, |s| Some(s.per_s)), 0);
            let _ = write!(out, "\n{point:<22}  {series:<22} {rate:>10}");
            for (reference, head) in self.references.iter().zip(&ratios) {
                let width = head.chars().count().max(8);
                let _ = write!(out, "  {:>width$}", cell(self.ratio(place, reference), 2));
            }
            for (_, figure, digits) in &columns {
                let _ = write!(out, "  {:>8}", cell(self.median(place, figure), *digits));
            }
        }
        out
    }

    /// The same with every round, for programs.
    fn json(&self, options: &Options, machine: &Machine) -> Value {
        let results: Vec<_> = self.samples.keys().map(|place| self.json_of(*place)).collect();
        json!({
            "measured_s": options.measured.as_secs_f64(),
            "warm_up_s": options.warm_up.as_secs_f64(),
            "rounds": options.rounds,
            "short": options.short,
            "machine": machine,
            "postrider": env!("CARGO_PKG_VERSION"),
            "results": results,
        })
    }

    fn json_of(&self, place: Place) -> Value {
        let ratios = self.references.iter().filter_map(|r| Some(((*r).to_owned(), json!(self.ratio(place, r)?))));
        json!({
            "at": self.points[place.0],
            "what": self.series[place.1],
            "per_s": self.median(place, |s| Some(s.per_s)),
            "ratios": ratios.collect::<serde_json::Map<_, _>>(),
            "rounds": self.samples[&place],
        })
    }

    /// Writes the JSON to `target/bench/NAME.json`.
    pub fn save(&self, name: &str, options: &Options, machine: &Machine) -> Result<PathBuf, Error> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("expected a target directory")?;
        let dir = target.join("bench");
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{name}.json"));
        std::fs::write(&path, format!("{:#}\n", self.json(options, machine)))?;
        Ok(path)
    }
}

/// The number of a name, which is new or known.
fn number(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
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
