//! The watch: a thread that ends the store when a read of the key space does not return.
//!
//! Nobody can give up such a read, and whoever makes it holds the key space: soon the writer and the applier wait for it, then
//! every reader, and callers would hear 503 for ever. A write has its own deadline.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::shared::Shared;
use crate::env::Disk;
use crate::index::{Tree, TreeError};

/// How often it looks.
const TICK: Duration = Duration::from_secs(10);

/// Ticks that a read may see pass: it has taken 30 s at least.
const TICKS_MAX: u64 = 4;

/// Runs until the other end of `stopped` is gone, or a read hangs.
pub(super) fn run<D: Disk>(tree: &Tree, shared: &Arc<Shared<D>>, stopped: &Receiver<()>) {
    while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        if tree.tick() >= TICKS_MAX {
            shared.fail(&TreeError::ReadStalled);
            return;
        }
    }
}
