//! What the disk does without any HTTP: the most that durable answers can be.
//!
//! One writer that appends and syncs; one that overwrites zero-filled space, which spares the file system its own log; and
//! group commit, in which many wait for one writer that syncs all they brought at once.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use postrider::env::{Clock, RealClock};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{BODY_BYTES, Error};

/// Bytes of zeros to overwrite before starting over.
const ZEROS_BYTES: usize = 64 << 20;

/// Records per second of one writer that appends each and syncs it.
pub fn append_alone(dir: &Path, measured: Duration) -> Result<f64, Error> {
    write_alone(&tempfile::tempfile_in(dir)?, u64::MAX, measured)
}

/// Records per second of one writer that overwrites zeros and syncs each.
pub fn overwrite_alone(dir: &Path, measured: Duration) -> Result<f64, Error> {
    let file = tempfile::tempfile_in(dir)?;
    file.write_all_at(&vec![0; ZEROS_BYTES], 0)?;
    file.sync_all()?;
    write_alone(&file, ZEROS_BYTES as u64, measured)
}

fn write_alone(file: &File, wrap_at: u64, measured: Duration) -> Result<f64, Error> {
    let (clock, record) = (RealClock::new(), vec![b'x'; BODY_BYTES]);
    let (mut at, mut count) = (0, 0_u64);
    while clock.mono_us() < measured.as_micros() as u64 {
        file.write_all_at(&record, at)?;
        file.sync_data()?;
        at = (at + BODY_BYTES as u64) % wrap_at;
        count += 1;
    }
    Ok(per_second(count, clock.mono_us()))
}

/// Records per second of `waiters` that each hand a record to one writer and wait until it is synced.
pub async fn append_grouped(dir: &Path, waiters: usize, warm_up: Duration, measured: Duration) -> Result<f64, Error> {
    let file = tempfile::tempfile_in(dir)?;
    let (sender, records) = bounded(waiters);
    let writer = std::thread::spawn(move || write_grouped(&file, &records));
    let clock = RealClock::new();
    let from_us = warm_up.as_micros() as u64;
    let until_us = from_us + measured.as_micros() as u64;
    let mut tasks = JoinSet::new();
    for _ in 0..waiters {
        let (sender, clock) = (sender.clone(), clock.clone());
        tasks.spawn(async move {
            let (mut count, mut now_us) = (0_u64, 0);
            while now_us < until_us {
                let (answer, answered) = oneshot::channel();
                let sent = sender.try_send((vec![b'x'; BODY_BYTES], answer));
                if sent.is_err() || answered.await.is_err() {
                    break;
                }
                now_us = clock.mono_us();
                count += u64::from((from_us..until_us).contains(&now_us));
            }
            count
        });
    }
    drop(sender);
    let count: u64 = tasks.join_all().await.into_iter().sum();
    writer.join().map_err(|_| "the writer panicked")??;
    Ok(per_second(count, until_us - from_us))
}

type Waiting = (Vec<u8>, oneshot::Sender<()>);

fn write_grouped(file: &File, records: &Receiver<Waiting>) -> std::io::Result<()> {
    let (mut at, mut buffer, mut answers) = (0, Vec::new(), Vec::new());
    while let Ok(first) = records.recv() {
        for (record, answer) in std::iter::once(first).chain(records.try_iter()) {
            buffer.extend_from_slice(&record);
            answers.push(answer);
        }
        file.write_all_at(&buffer, at)?;
        file.sync_data()?;
        at += buffer.len() as u64;
        buffer.clear();
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
