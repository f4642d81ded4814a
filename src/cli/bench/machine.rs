//! Which machine this is, what a process used of it, and what was written, as Linux tells it. Elsewhere these figures are
//! absent.

use std::fmt::{self, Display};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

/// Clock ticks per second in `/proc/PID/stat`; 100 on every Linux that is not built otherwise.
const TICKS_S: f64 = 100.0;

/// Bytes of a sector in `/proc/diskstats`, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// The machine, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Model of its processor.
    pub processor: Option<String>,
    /// Processors that this process may use.
    pub cores: Option<usize>,
    /// Its memory.
    pub memory_bytes: Option<u64>,
    /// Name and release of its kernel.
    pub kernel: Option<String>,
    /// Load averages when the run began: a machine that is busy already measures something else.
    pub load: Option<String>,
}

impl Machine {
    /// This machine.
    pub fn describe() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        let kernel = |name: &str| Some(read(&format!("/proc/sys/kernel/{name}"))?.trim().to_owned());
        let load = read("/proc/loadavg").map(|text| text.split_whitespace().take(3).collect::<Vec<_>>().join(" "));
        Self {
            processor: read("/proc/cpuinfo").and_then(|text| field(&text, "model name")),
            cores: std::thread::available_parallelism().ok().map(usize::from),
            memory_bytes: read("/proc/meminfo").and_then(|text| kilobytes(&field(&text, "MemTotal")?)),
            kernel: kernel("ostype").zip(kernel("osrelease")).map(|(name, release)| format!("{name} {release}")),
            load,
        }
    }
}

impl Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, memory_bytes, kernel, load } = self;
        let (processor, cores) = (known(processor.as_ref()), known(cores.as_ref()));
        let (memory, kernel) = (known(memory_bytes.map(|bytes| bytes >> 20)), known(kernel.as_ref()));
        let load = known(load.as_ref());
        write!(f, "processor {processor}, cores {cores}, memory {memory} MiB, kernel {kernel}, load average {load}")
    }
}

/// A figure for people.
pub fn known(figure: Option<impl Display>) -> String {
    figure.map_or_else(|| "unknown".to_owned(), |figure| figure.to_string())
}

/// Type and device of the file system that holds `dir`, such as `ext4 on /dev/vda1`.
pub fn file_system(dir: &Path) -> Option<String> {
    let (major, minor) = device(dir)?;
    mounted(&fs::read_to_string("/proc/self/mountinfo").ok()?, &format!("{major}:{minor}"))
}

/// Reads what one process used and what its disk wrote.
#[derive(Debug, Clone)]
pub struct Probe {
    process: u32,
    /// Numbers, as `/proc/diskstats` begins.
    device: Option<(u64, u64)>,
}

/// Figures that only grow; absent where the system does not tell them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// Seconds of processor time.
    pub cpu_s: Option<f64>,
    /// Bytes written to the disk, by whomever. (`/proc/PID/io` would tell the process apart, but counts whole folios, which
    /// are a megabyte where the kernel has large ones.)
    pub disk_bytes: Option<u64>,
}

impl Used {
    /// What came on top of `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            cpu_s: self.cpu_s.zip(before.cpu_s).map(|(now, before)| now - before),
            disk_bytes: self.disk_bytes.zip(before.disk_bytes).map(|(now, before)| now.saturating_sub(before)),
        }
    }
}

impl Probe {
    /// A probe of a process that writes to the disk of `dir`.
    pub fn new(process: u32, dir: &Path) -> Self {
        Self { process, device: device(dir) }
    }

    /// The figures now.
    pub fn read(&self) -> Used {
        Used { cpu_s: cpu_s(&self.text("stat")), disk_bytes: self.disk_bytes() }
    }

    /// Bytes of memory that the process has now.
    pub fn rss_bytes(&self) -> Option<u64> {
        kilobytes(&field(&self.text("status"), "VmRSS")?)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.process)).unwrap_or_default()
    }

    fn disk_bytes(&self) -> Option<u64> {
        let (major, minor) = self.device?;
        let stats = fs::read_to_string("/proc/diskstats").ok()?;
        let rows = stats.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let is_it = |row: &Vec<&str>| row.get(..2).is_some_and(|n| *n == [major.to_string(), minor.to_string()]);
        rows.into_iter().find(is_it)?.get(9)?.parse::<u64>().ok().map(|sectors| sectors * SECTOR_BYTES)
    }
}

/// glibc's major() and minor() for numbers that fit into the old form, as those of disks do.
fn device(dir: &Path) -> Option<(u64, u64)> {
    let number = fs::metadata(dir).ok()?.dev();
    Some(((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00)))
}

fn mounted(mounts: &str, device: &str) -> Option<String> {
    let line = mounts.lines().find(|line| line.split_whitespace().nth(2) == Some(device))?;
    let mut words = line.split_once(" - ")?.1.split_whitespace();
    Some(format!("{} on {}", words.next()?, words.next()?))
}

fn cpu_s(stat: &str) -> Option<f64> {
    // The name in parentheses may hold blanks; what follows it does not.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_S)
}

/// The value of the first line `name: value`.
fn field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

fn kilobytes(text: &str) -> Option<u64> {
    Some(text.strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_writes_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 1 1 1";
        assert_eq!(cpu_s(stat), Some(3.0));
        assert_eq!(field("VmRSSX:\t1 kB\nVmRSS:\t 4096 kB\n", "VmRSS").as_deref(), Some("4096 kB"));
        assert_eq!(field("model name\t: X 1\nmodel name\t: X 1\n", "model name").as_deref(), Some("X 1"));
        assert_eq!((kilobytes("2 kB"), kilobytes("2")), (Some(2_048), None));
        let mounts = "22 1 0:5 / /proc rw - proc proc rw\n23 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n";
        assert_eq!(mounted(mounts, "254:1").as_deref(), Some("ext4 on /dev/vda1"));
        assert_eq!(mounted(mounts, "8:1"), None);
    }

    #[test]
    fn this_process_is_probed() {
        let probe = Probe::new(std::process::id(), Path::new("."));
        let before = probe.read();
        if cfg!(target_os = "linux") {
            assert!(probe.read().since(&before).cpu_s.is_some_and(|s| s >= 0.0));
            assert!(probe.rss_bytes().is_some_and(|bytes| bytes > 1 << 16));
        }
    }

    #[test]
    fn what_is_not_known_is_no_zero() {
        let nothing = Probe::new(u32::MAX, Path::new("/nowhere")).read();
        assert_eq!(nothing, Used { cpu_s: None, disk_bytes: None });
        // A process that has ended meanwhile used an unknown amount, and not a negative one.
        let before = Used { cpu_s: Some(2.0), disk_bytes: Some(512) };
        assert_eq!(nothing.since(&before), nothing);
        let machine = Machine { processor: None, cores: None, memory_bytes: None, kernel: None, load: None };
        assert_eq!(machine.to_string().matches("unknown").count(), 5, "{machine}");
    }
}
