//! What a power cut and a failing disk leave of the real binary's data, from the system calls that it really made.
//!
//! A shim (`tests/shim/shim.c`, loaded before the C library) records what a gateway does to its data directory, and what it
//! answers, in one order; or lets the n-th call of a kind fail.
//!
//! - `states` builds from a record the states that a power cut could have left, opens each with the real code, and holds it
//!   against what was answered by then; `copies` has those of a backup and of a restore. `POSTRIDER_CRASH_STATES` says how many, `POSTRIDER_CRASH_SEED` which.
//! - `faults` lets each call fail in turn: `POSTRIDER_FAULTS=all`, or a number of samples.
//! - `hangs` is a disk that never returns, under the key space (`POSTRIDER_HANGS=1`).
//! - `crowded` is a disk that runs full, one that becomes read-only, and too few descriptors.
//! - `cuts` pulls the plug of a real ext4: `POSTRIDER_CUTS` says how often. It needs root and a loop device.
//!
//! # What is assumed of disk and kernel
//! A file's bytes and length are durable once an fsync or fdatasync that began after them returned; names once their directory
//! was synced; `sync_file_range` makes nothing durable. Anything else may be there or not, in any combination, writes torn
//! at 512 or 4,096 bytes. What is durable does not change.
//!
//! # What this does not see
//! Calls that go around the C library: each record is held against the directory that is left, byte for byte, which shows
//! that there are none. Disks that lie about a sync, or that change what was not written.

mod copies;
mod crowded;
mod cuts;
mod drops;
mod events;
mod faults;
mod hangs;
mod model;
mod promise;
mod record;
mod session;
mod shim;
mod states;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod support;
#[path = "../support/switched.rs"]
mod switched;
