//! The bytes of a backup. Pure but for the reader and writer that are passed in.
//!
//! Integers are little-endian.
//!
//! ```text
//!  file      │ head 64 B │ section │ section │ … │ end 128 B │
//!
//!  head      0      4         8            16        60    64
//!            ├──────┼─────────┼────────────┼─ zeros ─┼─────┤
//!            │ PRB1 │ version │ created ms │         │ crc │
//!
//!  section   0      4      8         16       24       28    32
//!            ├──────┼──────┼─────────┼────────┼────────┼─────┼───────────────────┐
//!            │ PRBS │ kind │ segment │ offset │ length │ crc │ payload, ≤ 1 MiB  │
//!
//!  end       0      4      8       16         24       32        40       48              56         64        72        96
//!            ├──────┼──────┼───────┼──────────┼────────┼─────────┼────────┼───────────────┼──────────┼─────────┼─ zeros ─┼─────────┐
//!            │ PRBE │ zero │ bytes │ segments │ frames │ records │ events │ last sequence │ first ms │ last ms │         │ SHA-256 │
//! ```
//!
//! A section's `crc` (CRC32C) covers its head and its payload, so that damage is found, with its place, before anything is
//! done with it; the SHA-256 covers all before it, so that nothing can be left out, added or moved. A backup that was given
//! up ends in a section that says why.
//!
//! Invariants: magic, version and the head's crc stay where they are in every later version. Sections of segments come in
//! the order of segments and offsets, without gaps, after the checkpoint.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// The one version that this code writes and reads.
const VERSION: u32 = 1;

const HEAD_BYTES: usize = 64;
const HEAD_CRC_AT: usize = HEAD_BYTES - 4;
const SECTION_HEAD_BYTES: usize = 32;
const SECTION_CRC_AT: usize = 28;
const END_BYTES: usize = 128;
const DIGEST_AT: usize = 96;

/// Bytes of a section's payload.
pub(super) const SECTION_BYTES_MAX: usize = 1 << 20;

const MAGIC: [u8; 4] = *b"PRB1";
const SECTION_MAGIC: [u8; 4] = *b"PRBS";
const END_MAGIC: [u8; 4] = *b"PRBE";

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The checkpoint file, or part of it.
    Checkpoint,
    /// Bytes of a segment's file.
    Segment,
    /// Why the backup was given up.
    GivenUp,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Checkpoint, Self::Segment, Self::GivenUp];

    const fn number(self) -> u32 {
        match self {
            Self::Checkpoint => 1,
            Self::Segment => 2,
            Self::GivenUp => 3,
        }
    }
}

/// A section that was read, its checksum right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) kind: Kind,
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) payload: Vec<u8>,
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// When it was begun, unix milliseconds.
    pub created_ms: u64,
    /// Bytes of the whole file.
    pub bytes: u64,
    /// Segments of the journal.
    pub segments: u64,
    /// Batches in them.
    pub frames: u64,
    /// Records in those.
    pub records: u64,
    /// Events among them.
    pub events: u64,
    /// Sequence number of the last batch.
    pub last_sequence: u64,
    /// Time of the first batch, unix milliseconds; 0 without one.
    pub first_ms: u64,
    /// Time of the last batch.
    pub last_ms: u64,
}

/// A file is not a whole backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Some byte is not what was written, or some are missing or too many.
    #[error("the backup is damaged at byte {offset}: {what}")]
    Damaged {
        /// Where the damaged part begins.
        offset: u64,
        /// What was expected, and what was found.
        what: String,
    },
    /// It was written by a later version of the program.
    #[error("the backup has format version {found}, this program reads {VERSION}; use the one that wrote it")]
    UnknownVersion {
        /// Its version.
        found: u32,
    },
    /// The gateway could not finish it.
    #[error("the backup was given up: {why}")]
    GivenUp {
        /// Why.
        why: String,
    },
    /// The file can't be read.
    #[error("the backup can't be read: {0}")]
    Io(#[from] io::Error),
}

/// Writes a backup, piece by piece.
pub(super) struct Encoder {
    digest: Sha256,
    bytes: u64,
    created_ms: u64,
}

impl Encoder {
    /// Begins a backup; returns its first bytes.
    pub(super) fn begin(created_ms: u64) -> (Self, Vec<u8>) {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&created_ms.to_le_bytes());
        head.resize(HEAD_CRC_AT, 0);
        head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
        let mut encoder = Self { digest: Sha256::new(), bytes: 0, created_ms };
        encoder.count(&head);
        (encoder, head)
    }

    /// One section.
    ///
    /// # Panics
    /// When the payload is longer than [`SECTION_BYTES_MAX`]; callers cut it.
    pub(super) fn section(&mut self, kind: Kind, segment: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
        assert!(payload.len() <= SECTION_BYTES_MAX, "a section of {} bytes", payload.len());
        let mut section = Vec::with_capacity(SECTION_HEAD_BYTES + payload.len());
        section.extend_from_slice(&SECTION_MAGIC);
        section.extend_from_slice(&kind.number().to_le_bytes());
        section.extend_from_slice(&segment.to_le_bytes());
        section.extend_from_slice(&offset.to_le_bytes());
        section.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        section.extend_from_slice(&[0; 4]);
        section.extend_from_slice(payload);
        let crc = crc32c::crc32c(&section);
        section[SECTION_CRC_AT..SECTION_HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        self.count(&section);
        section
    }

    /// The last bytes. Of the summary, what the encoder knows itself is filled in.
    pub(super) fn end(mut self, summary: Summary) -> (Vec<u8>, Summary) {
        let bytes = self.bytes + END_BYTES as u64;
        let summary = Summary { created_ms: self.created_ms, bytes, ..summary };
        let Summary { segments, frames, records, events, last_sequence, first_ms, last_ms, .. } = summary;
        let mut end = Vec::with_capacity(END_BYTES);
        end.extend_from_slice(&END_MAGIC);
        end.extend_from_slice(&[0; 4]);
        for number in [bytes, segments, frames, records, events, last_sequence, first_ms, last_ms] {
            end.extend_from_slice(&number.to_le_bytes());
        }
        end.resize(DIGEST_AT, 0);
        self.count(&end);
        end.extend_from_slice(&self.digest.finalize());
        (end, summary)
    }

    fn count(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

/// Reads a backup section by section and trusts none of it.
pub(super) struct Decoder<R> {
    source: R,
    digest: Sha256,
    bytes: u64,
    created_ms: u64,
    /// Where the next section of a segment has to begin.
    place: Option<(u64, u64)>,
    segments: u64,
}

impl<R: Read> Decoder<R> {
    /// Reads the head.
    pub(super) fn begin(source: R) -> Result<Self, BackupError> {
        let mut decoder = Self { source, digest: Sha256::new(), bytes: 0, created_ms: 0, place: None, segments: 0 };
        let head = decoder.take(HEAD_BYTES)?;
        if head[..4] != MAGIC || crc32c::crc32c(&head[..HEAD_CRC_AT]) != u32_at(&head, HEAD_CRC_AT) {
            return Err(damaged(0, "expected the head of a backup"));
        }
        match u32_at(&head, 4) {
            VERSION => decoder.created_ms = u64_at(&head, 8),
            found => return Err(BackupError::UnknownVersion { found }),
        }
        Ok(decoder)
    }

    /// Bytes read so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next section, or at the end what the backup says of itself.
    pub(super) fn next(&mut self) -> Result<Result<Section, Summary>, BackupError> {
        let at = self.bytes;
        let head = self.take(SECTION_HEAD_BYTES)?;
        if head[..4] == END_MAGIC {
            return self.end(at, &head).map(Err);
        }
        let length = u32_at(&head, 24) as usize;
        if head[..4] != SECTION_MAGIC || length > SECTION_BYTES_MAX {
            return Err(damaged(at, "expected a section or the end"));
        }
        let payload = self.take(length)?;
        let mut blank = head.clone();
        blank[SECTION_CRC_AT..].fill(0);
        if crc32c::crc32c_append(crc32c::crc32c(&blank), &payload) != u32_at(&head, SECTION_CRC_AT) {
            return Err(damaged(at, "a section's checksum does not match"));
        }
        let number = u32_at(&head, 4);
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.number() == number) else {
            return Err(damaged(at, format!("expected a section of a known kind, got {number}")));
        };
        let section = Section { kind, segment: u64_at(&head, 8), offset: u64_at(&head, 16), payload };
        self.follows(at, &section)?;
        Ok(Ok(section))
    }

    /// Sections come in order and leave nothing out.
    fn follows(&mut self, at: u64, section: &Section) -> Result<(), BackupError> {
        let Section { kind, segment, offset, payload } = section;
        let fits = match (kind, self.place) {
            (Kind::GivenUp, _) => {
                return Err(BackupError::GivenUp { why: String::from_utf8_lossy(payload).into_owned() });
            }
            (Kind::Checkpoint, place) => place.is_none(),
            (Kind::Segment, None) => *offset == 0,
            (Kind::Segment, Some(place)) => (*segment > place.0 && *offset == 0) || (*segment, *offset) == place,
        };
        if !fits {
            return Err(damaged(at, format!("a section of segment {segment:016x} at {offset} is out of order")));
        }
        if *kind == Kind::Segment {
            self.segments += u64::from(*offset == 0);
            self.place = Some((*segment, offset.saturating_add(payload.len() as u64)));
        }
        Ok(())
    }

    fn end(&mut self, at: u64, begun: &[u8]) -> Result<Summary, BackupError> {
        let rest = self.take(DIGEST_AT - SECTION_HEAD_BYTES)?;
        let expected = self.digest.clone().finalize();
        let found = self.take(END_BYTES - DIGEST_AT)?;
        if *found != *expected {
            return Err(damaged(at, "the digest over the whole file does not match"));
        }
        if self.source.read(&mut [0])? != 0 {
            return Err(damaged(self.bytes, "expected the end of the file"));
        }
        let end = [begun, &rest].concat();
        let number = |index: usize| u64_at(&end, 8 + 8 * index);
        let summary = Summary {
            created_ms: self.created_ms,
            bytes: number(0),
            segments: number(1),
            frames: number(2),
            records: number(3),
            events: number(4),
            last_sequence: number(5),
            first_ms: number(6),
            last_ms: number(7),
        };
        if (summary.bytes, summary.segments) != (self.bytes, self.segments) {
            return Err(damaged(at, "the counts at the end are not those of the file"));
        }
        Ok(summary)
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, BackupError> {
        let mut bytes = vec![0; count];
        match self.source.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged(self.bytes, format!("expected {count} more bytes, the file ends before that")));
            }
            Err(error) => return Err(error.into()),
        }
        self.digest.update(&bytes);
        self.bytes += count as u64;
        Ok(bytes)
    }
}

fn damaged(offset: u64, what: impl Into<String>) -> BackupError {
    BackupError::Damaged { offset, what: what.into() }
}

/// # Panics
/// When fewer than four bytes are there; what is read has its full length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
}

/// # Panics
/// When fewer than eight bytes are there; what is read has its full length.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: Summary = Summary {
        created_ms: 77,
        bytes: 0,
        segments: 2,
        frames: 3,
        records: 4,
        events: 5,
        last_sequence: 6,
        first_ms: 7,
        last_ms: 8,
    };

    fn sections() -> Vec<Section> {
        let section = |kind, segment, offset, text: &str| Section { kind, segment, offset, payload: text.into() };
        vec![
            section(Kind::Checkpoint, 0, 0, "notes"),
            section(Kind::Segment, 3, 0, "head"),
            section(Kind::Segment, 3, 4, "frames"),
            section(Kind::Segment, 7, 0, ""),
        ]
    }

    fn encoded(sections: &[Section]) -> (Vec<u8>, Summary) {
        let (mut encoder, mut bytes) = Encoder::begin(77);
        for Section { kind, segment, offset, payload } in sections {
            bytes.extend(encoder.section(*kind, *segment, *offset, payload));
        }
        let (end, summary) = encoder.end(SUMMARY);
        bytes.extend(end);
        (bytes, summary)
    }

    fn decoded(bytes: &[u8]) -> Result<(Vec<Section>, Summary), BackupError> {
        let mut decoder = Decoder::begin(bytes)?;
        let mut sections = Vec::new();
        loop {
            match decoder.next()? {
                Ok(section) => sections.push(section),
                Err(summary) => return Ok((sections, summary)),
            }
        }
    }

    #[test]
    fn it_reads_back() {
        let (bytes, summary) = encoded(&sections());
        assert_eq!(summary, Summary { bytes: bytes.len() as u64, ..SUMMARY });
        assert_eq!(decoded(&bytes).unwrap(), (sections(), summary));
    }

    #[test]
    fn every_flip_is_refused() {
        let (bytes, _) = encoded(&sections());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let error = decoded(&flipped).expect_err("a flipped bit");
                assert!(matches!(error, BackupError::Damaged { .. }), "byte {at} bit {bit}: {error}");
            }
        }
    }

    #[test]
    fn every_truncation_and_anything_after_the_end_is_refused() {
        let (mut bytes, _) = encoded(&sections());
        for len in 0..bytes.len() {
            assert!(matches!(decoded(&bytes[..len]), Err(BackupError::Damaged { .. })), "{len} bytes");
        }
        bytes.push(0);
        assert!(matches!(decoded(&bytes), Err(BackupError::Damaged { .. })));
    }

    #[test]
    fn sections_left_out_repeated_or_swapped_are_refused() {
        let all = sections();
        let (bytes, _) = encoded(&all);
        let bounds: Vec<usize> = all
            .iter()
            .scan(HEAD_BYTES, |at, section| {
                *at += SECTION_HEAD_BYTES + section.payload.len();
                Some(*at)
            })
            .collect();
        let part = |n: usize| &bytes[if n == 0 { HEAD_BYTES } else { bounds[n - 1] }..bounds[n]];
        let (head, end) = (&bytes[..HEAD_BYTES], &bytes[bounds[3]..]);
        for order in
            [&[0, 1, 2][..], &[1, 2, 3], &[0, 1, 1, 2, 3], &[0, 2, 1, 3], &[1, 0, 2, 3], &[0, 3, 1, 2], &[0, 1, 3]]
        {
            let parts: Vec<&[u8]> = order.iter().map(|n| part(*n)).collect();
            let rearranged = [head, &parts.concat(), end].concat();
            assert!(matches!(decoded(&rearranged), Err(BackupError::Damaged { .. })), "{order:?}");
        }
    }

    #[test]
    fn a_gap_is_refused_though_every_checksum_is_right() {
        for (segment, offset) in [(3, 11), (3, 9), (2, 0), (3, 0), (7, 1)] {
            let mut gap = sections();
            gap[3] = Section { segment, offset, ..gap[3].clone() };
            assert!(matches!(decoded(&encoded(&gap).0), Err(BackupError::Damaged { .. })), "{segment} {offset}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let (mut bytes, _) = encoded(&sections());
        bytes[4] = 2;
        let crc = crc32c::crc32c(&bytes[..HEAD_CRC_AT]);
        bytes[HEAD_CRC_AT..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        let error = decoded(&bytes).unwrap_err();
        assert!(matches!(error, BackupError::UnknownVersion { found: 2 }), "{error}");
    }

    #[test]
    fn one_that_was_given_up_says_why() {
        let (mut encoder, mut bytes) = Encoder::begin(77);
        bytes.extend(encoder.section(Kind::GivenUp, 0, 0, b"no room"));
        let error = decoded(&bytes).unwrap_err().to_string();
        assert!(error.contains("no room"), "{error}");
    }
}
