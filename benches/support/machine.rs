//! What a process used, what was written, and which machine this is, as Linux tells it. Elsewhere these figures are absent.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

/// Clock ticks per second in `/proc/PID/stat`; 100 on every Linux that is not built otherwise.
const TICKS_S: f64 = 100.0;

/// Bytes of a sector in `/proc/diskstats`, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// Reads what one process used and what its disk wrote.
#[derive(Debug, Clone)]
pub struct Probe {
    process: u32,
    /// `major minor`, as `/proc/diskstats` begins.
    device: Option<(u64, u64)>,
}

/// Figures that only grow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// Seconds of processor time.
    pub cpu_s: f64,
    /// Bytes written to the disk, by whomever.
    pub disk_bytes: u64,
}

impl Used {
    /// What came on top of `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self { cpu_s: self.cpu_s - before.cpu_s, disk_bytes: self.disk_bytes.saturating_sub(before.disk_bytes) }
    }
}

impl Probe {
    /// A probe of a process that writes to the disk of `dir`.
    pub fn new(process: u32, dir: &Path) -> Self {
        let number = fs::metadata(dir).ok().map(|metadata| metadata.dev());
        // glibc's major() and minor() for numbers that fit into the old form, as those of disks do.
        Self { process, device: number.map(|dev| ((dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xf_ff00))) }
    }

    /// The figures now.
    pub fn read(&self) -> Used {
        Used { cpu_s: self.cpu_s().unwrap_or(0.0), disk_bytes: self.disk_bytes().unwrap_or(0) }
    }

    fn cpu_s(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process)).ok()?;
        // The name in parentheses may hold blanks; what follows it does not.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |n: usize| fields.get(n)?.parse::<f64>().ok();
        Some((ticks(11)? + ticks(12)?) / TICKS_S)
    }

    fn disk_bytes(&self) -> Option<u64> {
        let (major, minor) = self.device?;
        let stats = fs::read_to_string("/proc/diskstats").ok()?;
        let rows = stats.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let is_it = |row: &Vec<&str>| row.get(..2).is_some_and(|n| *n == [major.to_string(), minor.to_string()]);
        rows.into_iter().find(is_it)?.get(9)?.parse::<u64>().ok().map(|sectors| sectors * SECTOR_BYTES)
    }
}

/// The machine, for the report.
pub fn describe() -> Value {
    let line = |path: &str, start: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let found = text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
        found.split_once(':').map_or(found.clone(), |(_, value)| value.trim().to_owned())
    };
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "processor": line("/proc/cpuinfo", "model name"),
        "memory": line("/proc/meminfo", "MemTotal"),
        "system": line("/proc/version", ""),
        "load_before": line("/proc/loadavg", ""),
        "postrider": env!("CARGO_PKG_VERSION"),
    })
}
