//! The journal: the one place whose word counts for what was accepted.
//!
//! It appends batches of records to segment files, makes each batch durable with one write and one sync, and finds records
//! again by place, by sequence and by key. It knows nothing of what records mean. It is synchronous and starts no thread:
//! slow work is handed out as [`Job`]s.
//!
//! ```text
//!    seg-…04.wal  sealed    │ header │ frame 10 │ frame 11 │ … │ frame 14 │ footer │
//!    seg-…05.wal  active    │ header │ frame 15 │ frame 16 │ zeros written ahead … │
//!    spare-…7.wal           a file ready to become seg-…06, zeros or a dropped segment's old bytes
//!    erase.todo             only while bodies are being erased
//! ```
//!
//! Bytes: a segment's header is in `format.rs`, frames in `frame.rs`, footers in `footer.rs`.
//!
//! # What is promised
//! - A batch whose [`Journal::sync`] returned is there after any crash and power cut, if the disk keeps what it synced.
//! - A batch is there whole or not at all, and never without those before it.
//! - What was durable and is damaged or missing is reported, never skipped. The exception: damage inside the very last
//!   frame can't be told from a batch that a crash interrupted, and drops it.
//! - After an error of a write or sync nothing more is written by this process.
//!
//! # What is assumed of the medium
//! Sectors of 512 bytes are written whole or not at all, in any order until a sync; a sync that returned without error is
//! true; a name is durable after its directory is synced; bytes that aren't written to don't change, or change in ways
//! that a CRC32C notices.
//!
//! # What is absent on purpose
//! No lock (the store keeps a second process out), no clock, no compression, no record types, no partial batches.

mod copy;
mod erase;
mod footer;
mod format;
mod frame;
mod job;
mod layout;
mod open;
mod reader;
mod salvage;
mod scan;
mod segment;
mod spare;
mod survey;
mod verify;
mod writer;

pub use copy::{Copy, CopyError, Piece};
pub use erase::{EraseError, ErasedCount};
pub use frame::{BodyState, Flaw, Frame, FrameAt, Record, RecordRef};
pub use job::{Job, JobDone, PrepareJob, SealJob};
pub use open::{OpenError, Recovery};
pub use reader::{Found, Frames, ReadError, ReadFrom, Reader};
pub use salvage::{Beside, Lost, LostRecord, SalvageError, SalvageReport, salvage};
pub use segment::{IoFault, SegmentInfo, segment_path};
pub use verify::{Event, Finding, Severity, VerifyError, VerifyReport, ZeroedBody, verify};
pub use writer::{AppendError, Journal, WriteError};

/// Sizes of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a segment's header and frames, 64 KiB to 1 GiB. Its footer comes on top.
    pub segment_bytes: u64,
    /// Bytes of one batch's frame. A segment's room is the limit where that is less.
    pub batch_bytes_max: u64,
    /// Records of one batch.
    pub records_max: u32,
    /// Files of dropped segments that are kept for new ones.
    pub spares_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, batch_bytes_max: 8 << 20, records_max: 4096, spares_max: 2 }
    }
}

impl Options {
    /// The least a segment may be.
    pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
    /// The most a segment may be, so that offsets and record counts fit in 32 bits.
    pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

    fn check(&self) -> Result<(), OpenError> {
        let (min, max) = (Self::SEGMENT_BYTES_MIN, Self::SEGMENT_BYTES_MAX);
        if (min..=max).contains(&self.segment_bytes) {
            return Ok(());
        }
        Err(OpenError::Options { option: "segment_bytes", got: self.segment_bytes, min, max })
    }
}
