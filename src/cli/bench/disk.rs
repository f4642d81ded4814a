//! What the disk does without any HTTP: the most that durable answers can be.
//!
//! One writer that appends and syncs; one that overwrites zero-filled space, which spares the file system its own log; and
//! group commit, in which many wait for one writer that syncs all they brought at once.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::latency::{Latency, Quantiles};
use crate::env::{Clock as _, RealClock};

/// Bytes of zeros to overwrite before starting over.
const ZEROS_BYTES: usize = 64 << 20;

/// Bytes of a group from which on no further record joins it; the gateway's batches end there too.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// What one writer comes to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Synced {
    /// Records per second, each synced.
    pub per_s: f64,
    /// Microseconds of a write and its sync.
    pub sync_us: Quantiles,
}

/// A file that goes with its handle.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn make(dir: &Path) -> io::Result<Self> {
        let path = dir.join("sync-test");
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path })
    }

    fn zeros(dir: &Path) -> io::Result<Self> {
        let scratch = Self::make(dir)?;
        scratch.file.write_all_at(&vec![0; ZEROS_BYTES], 0)?;
        scratch.file.sync_all()?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is in a directory that goes as well.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One writer that appends each record to a file in `dir` and syncs it.
///
/// # Errors
/// Those of the disk.
pub fn append_alone(dir: &Path, record_bytes: usize, lasts: Duration) -> io::Result<Synced> {
    write_alone(&Scratch::make(dir)?.file, u64::MAX, record_bytes, lasts)
}

/// One writer that overwrites zeros and syncs each record.
///
/// # Errors
/// Those of the disk.
pub fn overwrite_alone(dir: &Path, record_bytes: usize, lasts: Duration) -> io::Result<Synced> {
    write_alone(&Scratch::zeros(dir)?.file, ZEROS_BYTES as u64, record_bytes, lasts)
}

fn write_alone(file: &File, wrap_at: u64, record_bytes: usize, lasts: Duration) -> io::Result<Synced> {
    let (clock, record, latency) = (RealClock::new(), vec![b'x'; record_bytes], Latency::default());
    let (mut at, mut count, mut now_us) = (0, 0_u64, 0);
    // One at least, so that there is something to tell.
    while count == 0 || now_us < lasts.as_micros() as u64 {
        file.write_all_at(&record, at)?;
        file.sync_data()?;
        let ended_us = clock.mono_us();
        latency.record(ended_us - now_us);
        now_us = ended_us;
        count += 1;
        at += record_bytes as u64;
        if at + record_bytes as u64 > wrap_at {
            at = 0;
        }
    }
    Ok(Synced { per_s: per_second(count, now_us), sync_us: latency.quantiles().unwrap_or_default() })
}

/// Records per second of `waiters` that share a file in `dir`, which is appended to and synced.
///
/// # Errors
/// Those of the disk.
pub async fn append_grouped(dir: &Path, waiters: usize, record_bytes: usize, lasts: Duration) -> io::Result<f64> {
    write_grouped(Scratch::make(dir)?, u64::MAX, waiters, record_bytes, lasts).await
}

/// The same where the file is zero-filled and overwritten.
///
/// # Errors
/// Those of the disk.
pub async fn overwrite_grouped(dir: &Path, waiters: usize, record_bytes: usize, lasts: Duration) -> io::Result<f64> {
    write_grouped(Scratch::zeros(dir)?, ZEROS_BYTES as u64, waiters, record_bytes, lasts).await
}

async fn write_grouped(
    scratch: Scratch,
    wrap_at: u64,
    waiters: usize,
    record_bytes: usize,
    lasts: Duration,
) -> io::Result<f64> {
    let (mut at, mut buffer) = (0, Vec::new());
    let write = move |group: &[Vec<u8>]| {
        buffer.clear();
        group.iter().for_each(|record| buffer.extend_from_slice(record));
        if at + buffer.len() as u64 > wrap_at {
            at = 0;
        }
        scratch.file.write_all_at(&buffer, at)?;
        at += buffer.len() as u64;
        scratch.file.sync_data()
    };
    grouped(waiters, record_bytes, lasts, write).await
}

/// Records per second of `waiters` that each hand a record to one writer and wait until it is durable. The writer takes all
/// that wait, up to 8 MiB, to `write`, which makes them durable at once.
///
/// # Errors
/// Those of `write`.
pub async fn grouped(
    waiters: usize,
    record_bytes: usize,
    lasts: Duration,
    write: impl FnMut(&[Vec<u8>]) -> io::Result<()> + Send + 'static,
) -> io::Result<f64> {
    let (sender, records) = bounded(waiters);
    let writer = std::thread::spawn(move || commit_groups(&records, write));
    let clock = RealClock::new();
    let until_us = lasts.as_micros() as u64;
    let mut tasks = JoinSet::new();
    for _ in 0..waiters {
        let (sender, clock) = (sender.clone(), clock.clone());
        tasks.spawn(async move {
            let mut count = 0_u64;
            while clock.mono_us() < until_us {
                let (answer, answered) = oneshot::channel();
                let sent = sender.try_send((vec![b'x'; record_bytes], answer));
                if sent.is_err() || answered.await.is_err() {
                    break;
                }
                count += 1;
            }
            count
        });
    }
    drop(sender);
    let count: u64 = tasks.join_all().await.into_iter().sum();
    let took_us = clock.mono_us();
    writer.join().map_err(|_| io::Error::other("the writer panicked"))??;
    Ok(per_second(count, took_us))
}

type Waiting = (Vec<u8>, oneshot::Sender<()>);

fn commit_groups(records: &Receiver<Waiting>, mut write: impl FnMut(&[Vec<u8>]) -> io::Result<()>) -> io::Result<()> {
    let (mut group, mut answers) = (Vec::new(), Vec::new());
    while let Ok(first) = records.recv() {
        let mut bytes = 0;
        for (record, answer) in std::iter::once(first).chain(records.try_iter()) {
            bytes += record.len();
            group.push(record);
            answers.push(answer);
            if bytes >= GROUP_BYTES_MAX {
                break;
            }
        }
        write(&group)?;
        group.clear();
        // Who stopped waiting needs no answer.
        for answer in answers.drain(..) {
            let _ = answer.send(());
        }
    }
    Ok(())
}

fn per_second(count: u64, window_us: u64) -> f64 {
    count as f64 * 1e6 / window_us.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_way_of_writing_is_measured_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let lasts = Duration::from_millis(20);
        for synced in [append_alone(dir.path(), 100, lasts), overwrite_alone(dir.path(), 100, lasts)] {
            let synced = synced.unwrap();
            assert!(synced.per_s > 0.0 && synced.sync_us.max >= synced.sync_us.p50, "{synced:?}");
        }
        assert!(append_grouped(dir.path(), 8, 100, lasts).await.unwrap() > 0.0);
        assert!(overwrite_grouped(dir.path(), 8, 100, lasts).await.unwrap() > 0.0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(append_alone(&dir.path().join("nowhere"), 100, lasts).is_err());
    }

    #[tokio::test]
    async fn a_group_ends_when_it_is_large_and_a_failing_disk_ends_all() {
        let (lasts, bytes) = (Duration::from_millis(20), GROUP_BYTES_MAX / 2);
        let write = move |group: &[Vec<u8>]| match group.len() {
            1 | 2 => Ok(()),
            many => Err(io::Error::other(format!("a group of {many}"))),
        };
        assert!(grouped(6, bytes, lasts, write).await.unwrap() > 0.0);
        let full = grouped(6, 100, lasts, |_| Err(io::ErrorKind::StorageFull.into())).await;
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
