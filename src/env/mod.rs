//! The outside world as traits: time, randomness and the disk.
//!
//! Everything above this module is handed a [`Clock`], an [`Entropy`] and a [`Disk`] and never reaches for the real ones
//! itself. So a test decides what time it is, and a simulation can lose the writes that a power cut would lose.
//!
//! Invariant: no other module calls `now()` or draws a random number; the linter's list of disallowed methods says so.

mod clock;
mod disk;
mod disk_mem;
mod entropy;

pub use clock::{Clock, ManualClock, RealClock};
pub(crate) use disk::parent;
pub use disk::{Disk, DiskFile, RealDisk, Space};
pub use disk_mem::{MemDisk, MemFile, Piece};
pub use entropy::{Entropy, RealEntropy, SeededEntropy};
