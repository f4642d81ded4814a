//! The batch frame: what one group commit writes, and how it reads back. Pure.
//!
//! ```text
//!    0        4           8             16         24        32         36             40         44    48
//!    ├────────┼───────────┼─────────────┼──────────┼─────────┼──────────┼──────────────┼──────────┼─────┤
//!    │ "PRJF" │ total_len │ incarnation │ sequence │ time_ms │ prev_crc │ record_count │ meta_len │ crc │ head
//!    ├────────┴───┬───────┴──┬──────────┴┬─────────┴┬────────┼──────────┴─┬────────────┴──────────┴─────┘
//!    │ key (u128) │ meta_len │ body_len  │ body_crc │ kind+0 │ × records  │  table: 32 bytes each
//!    ├────────────┴──────────┴───────────┴──────────┴────────┼────────────┘
//!    │ metas, one after the other                            │  head.meta_len counts table and metas
//!    ├───────────────────────────────────────────────────────┤
//!    │ bodies, one after the other, then zeros up to 8 bytes │
//!    └───────────────────────────────────────────────────────┘
//! ```
//!
//! Invariants:
//! - `crc` covers head, table and metas, with itself and the incarnation read as zero. The table holds the CRC of every
//!   body, so the chain of `prev_crc` vouches for every byte before it, and a body can be erased without breaking it.
//! - The incarnation is guarded by being equal to the one in the segment's (checked) header. Leaving it out of the CRC lets
//!   a frame be copied into a later segment under the same CRC, so that what refers to it by sequence and CRC stays true.
//! - Padding is zero; a frame with other padding is not valid.

use std::ops::Range;

use bytes::Bytes;

use super::format::{NUMBER_MAX, u32_at, u64_at, u128_at};

/// Bytes of a frame before its table.
pub(super) const HEAD_BYTES: usize = 48;
/// Bytes of one record in the table.
pub(super) const ENTRY_BYTES: usize = 32;
/// Frames start at multiples of this.
pub(super) const ALIGN: u64 = 8;
/// How a frame begins.
pub(super) const FRAME_MAGIC: [u8; 4] = *b"PRJF";

const INCARNATION_AT: Range<usize> = 8..16;
const CRC_AT: Range<usize> = 44..48;

/// A record to append. The journal doesn't know what `kind`, `key` and the bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// The caller's record type.
    pub kind: u8,
    /// What the record can be found by later; zero for none.
    pub key: u128,
    /// The part that is never erased.
    pub meta: &'a [u8],
    /// The part that can be erased.
    pub body: &'a [u8],
}

/// Where a frame is, and what identifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameAt {
    /// Number of the segment that holds it.
    pub segment: u64,
    /// Byte offset in the segment's file.
    pub offset: u64,
    /// Bytes it takes there.
    pub len: u32,
    /// Its place in the journal's order. Contiguous; the first frame ever has 1.
    pub sequence: u64,
    /// CRC32C of all but its bodies. With the sequence it identifies the frame, wherever it is copied to.
    pub crc: u32,
}

impl FrameAt {
    /// Offset of the byte after the frame.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// Whether a body still has the bytes that were appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyState {
    /// Its CRC matches.
    Intact,
    /// All zeros, with the CRC of something else: erased, if the caller meant that.
    Zeroed,
    /// Neither.
    Damaged,
}

/// One record of a frame that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The caller's record type.
    pub kind: u8,
    /// What the record can be found by; zero for none.
    pub key: u128,
    /// Whether the body can be trusted.
    pub state: BodyState,
    pub(super) meta: Range<usize>,
    pub(super) body: Range<usize>,
    pub(super) body_crc: u32,
}

/// A frame that was read, with its bytes held once.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Where it is.
    pub at: FrameAt,
    /// The time the caller gave the batch.
    pub time_ms: u64,
    /// Its records, in the order they were appended.
    pub records: Vec<Record>,
    pub(super) head: FrameHead,
    pub(super) data: Bytes,
}

impl Frame {
    /// A record's meta.
    ///
    /// # Panics
    /// When there is no such record in this frame.
    pub fn meta(&self, index: usize) -> Bytes {
        self.data.slice(self.records[index].meta.clone())
    }

    /// A record's body, without copying. Look at [`Record::state`] before you trust it.
    ///
    /// # Panics
    /// When there is no such record in this frame.
    pub fn body(&self, index: usize) -> Bytes {
        self.data.slice(self.records[index].body.clone())
    }

    /// The records as they would be appended again.
    pub fn refs(&self) -> impl Iterator<Item = RecordRef<'_>> {
        self.records.iter().map(|record| RecordRef {
            kind: record.kind,
            key: record.key,
            meta: &self.data[record.meta.clone()],
            body: &self.data[record.body.clone()],
        })
    }

    /// Whether every body is as it was appended.
    pub(super) fn is_intact(&self) -> bool {
        let mut states = self.records.iter().map(|record| record.state);
        states.all(|state| state == BodyState::Intact)
    }

    /// The same frame under another incarnation.
    pub(super) fn restamped(&self, incarnation: u64) -> Vec<u8> {
        let mut copy = self.data.to_vec();
        copy[INCARNATION_AT].copy_from_slice(&incarnation.to_le_bytes());
        copy
    }
}

/// Why bytes are not the frame that was expected there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The file ends too early.
    #[error("expected a frame, the segment ends before it does")]
    Short,
    /// No frame begins here.
    #[error("expected a frame, found bytes that begin none")]
    NoFrame,
    /// Lengths contradict each other or the limits.
    #[error("expected a frame, its lengths contradict each other")]
    Lengths,
    /// Head, table or metas changed.
    #[error("a frame's checksum does not match its content")]
    Checksum,
    /// Padding is not zero.
    #[error("a frame's padding is not zero")]
    Padding,
    /// A whole frame, but not the one that belongs here.
    #[error("expected frame {expected}, found frame {found} of another place or time")]
    Foreign {
        /// Sequence that belongs here.
        expected: u64,
        /// Sequence that is here.
        found: u64,
    },
    /// A body is neither what was appended nor erased.
    #[error("a record's body does not match its checksum")]
    Body,
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub total_len: u32,
    pub incarnation: u64,
    pub sequence: u64,
    pub time_ms: u64,
    pub prev_crc: u32,
    pub record_count: u32,
    pub meta_len: u32,
    pub crc: u32,
}

impl FrameHead {
    /// Reads a head whose lengths agree with each other; its CRC is for [`meta_crc`] to check.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        if bytes.len() < HEAD_BYTES {
            return Err(Flaw::Short);
        }
        if bytes[..4] != FRAME_MAGIC {
            return Err(Flaw::NoFrame);
        }
        let head = Self {
            total_len: u32_at(bytes, 4),
            incarnation: u64_at(bytes, 8),
            sequence: u64_at(bytes, 16),
            time_ms: u64_at(bytes, 24),
            prev_crc: u32_at(bytes, 32),
            record_count: u32_at(bytes, 36),
            meta_len: u32_at(bytes, 40),
            crc: u32_at(bytes, 44),
        };
        let table = u64::from(head.record_count) * ENTRY_BYTES as u64;
        let least = HEAD_BYTES as u64 + u64::from(head.meta_len);
        let total = u64::from(head.total_len);
        if table > u64::from(head.meta_len) || least > total || !total.is_multiple_of(ALIGN) {
            return Err(Flaw::Lengths);
        }
        if head.sequence > NUMBER_MAX {
            return Err(Flaw::NoFrame);
        }
        Ok(head)
    }
}

/// The CRC that a frame's head should hold. `bytes` has at least head, table and metas.
pub(super) fn meta_crc(bytes: &[u8], meta_len: u32) -> u32 {
    let crc = crc32c::crc32c(&bytes[..INCARNATION_AT.start]);
    let crc = crc32c::crc32c_append(crc, &[0; 8]);
    let crc = crc32c::crc32c_append(crc, &bytes[INCARNATION_AT.end..CRC_AT.start]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &bytes[HEAD_BYTES..HEAD_BYTES + meta_len as usize])
}

/// What a frame is stamped with beside its records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub incarnation: u64,
    pub sequence: u64,
    pub time_ms: u64,
    pub prev_crc: u32,
}

/// Bytes that a frame of these records takes, padding included.
pub(super) fn frame_len(records: &[RecordRef<'_>]) -> u64 {
    let parts = records.iter().map(|record| (ENTRY_BYTES + record.meta.len() + record.body.len()) as u64);
    (HEAD_BYTES as u64 + parts.sum::<u64>()).next_multiple_of(ALIGN)
}

/// Writes a frame into the emptied buffer and returns its CRC. `body_crc` tells each body's CRC by index.
///
/// The caller has checked [`frame_len`] against limits that fit in 32 bits.
pub(super) fn encode_frame(
    buffer: &mut Vec<u8>,
    stamp: Stamp,
    records: &[RecordRef<'_>],
    body_crc: impl Fn(usize) -> u32,
) -> u32 {
    buffer.clear();
    buffer.resize(HEAD_BYTES, 0);
    for (index, record) in records.iter().enumerate() {
        buffer.extend_from_slice(&record.key.to_le_bytes());
        buffer.extend_from_slice(&(record.meta.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&(record.body.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&body_crc(index).to_le_bytes());
        buffer.extend_from_slice(&[record.kind, 0, 0, 0]);
    }
    for record in records {
        buffer.extend_from_slice(record.meta);
    }
    let meta_len = (buffer.len() - HEAD_BYTES) as u32;
    for record in records {
        buffer.extend_from_slice(record.body);
    }
    buffer.resize(buffer.len().next_multiple_of(ALIGN as usize), 0);
    let total_len = buffer.len() as u32;
    buffer[..4].copy_from_slice(&FRAME_MAGIC);
    buffer[4..8].copy_from_slice(&total_len.to_le_bytes());
    buffer[INCARNATION_AT].copy_from_slice(&stamp.incarnation.to_le_bytes());
    buffer[16..24].copy_from_slice(&stamp.sequence.to_le_bytes());
    buffer[24..32].copy_from_slice(&stamp.time_ms.to_le_bytes());
    buffer[32..36].copy_from_slice(&stamp.prev_crc.to_le_bytes());
    buffer[36..40].copy_from_slice(&(records.len() as u32).to_le_bytes());
    buffer[40..44].copy_from_slice(&meta_len.to_le_bytes());
    let crc = meta_crc(buffer, meta_len);
    buffer[CRC_AT].copy_from_slice(&crc.to_le_bytes());
    crc
}

impl Frame {
    /// Reads a whole frame: `data` holds exactly it. Says nothing about whether it belongs where it was found.
    pub(super) fn decode(data: Bytes, segment: u64, offset: u64) -> Result<Self, Flaw> {
        let head = FrameHead::parse(&data)?;
        if data.len() != head.total_len as usize {
            return Err(Flaw::Short);
        }
        if meta_crc(&data, head.meta_len) != head.crc {
            return Err(Flaw::Checksum);
        }
        let records = decode_records(&data, &head)?;
        let at = FrameAt { segment, offset, len: head.total_len, sequence: head.sequence, crc: head.crc };
        Ok(Self { at, time_ms: head.time_ms, records, head, data })
    }
}

/// Reads the table and judges each body. Lengths in it must fill the frame exactly.
fn decode_records(data: &[u8], head: &FrameHead) -> Result<Vec<Record>, Flaw> {
    let metas_end = HEAD_BYTES + head.meta_len as usize;
    let mut meta_at = HEAD_BYTES + head.record_count as usize * ENTRY_BYTES;
    let mut body_at = metas_end;
    let mut records = Vec::with_capacity(head.record_count as usize);
    for index in 0..head.record_count as usize {
        let entry = &data[HEAD_BYTES + index * ENTRY_BYTES..][..ENTRY_BYTES];
        let meta = meta_at..meta_at + u32_at(entry, 16) as usize;
        let body = body_at..body_at + u32_at(entry, 20) as usize;
        if meta.end > metas_end || body.end > data.len() {
            return Err(Flaw::Lengths);
        }
        meta_at = meta.end;
        body_at = body.end;
        let body_crc = u32_at(entry, 24);
        records.push(Record {
            kind: entry[28],
            key: u128_at(entry, 0),
            state: judge_body(&data[body.clone()], body_crc),
            meta,
            body,
            body_crc,
        });
    }
    if meta_at != metas_end || body_at.next_multiple_of(ALIGN as usize) != data.len() {
        return Err(Flaw::Lengths);
    }
    if data[body_at..].iter().any(|&byte| byte != 0) {
        return Err(Flaw::Padding);
    }
    Ok(records)
}

fn judge_body(body: &[u8], crc: u32) -> BodyState {
    if crc32c::crc32c(body) == crc {
        BodyState::Intact
    } else if body.iter().all(|&byte| byte == 0) {
        BodyState::Zeroed
    } else {
        BodyState::Damaged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (u8, u128, Vec<u8>, Vec<u8>);

    fn owned() -> impl Strategy<Value = Vec<Owned>> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        proptest::collection::vec((any::<u8>(), any::<u128>(), bytes(), bytes()), 0..6)
    }

    fn refs(records: &[Owned]) -> Vec<RecordRef<'_>> {
        records.iter().map(|(kind, key, meta, body)| RecordRef { kind: *kind, key: *key, meta, body }).collect()
    }

    fn encode(records: &[Owned]) -> (Vec<u8>, u32) {
        let mut buffer = Vec::new();
        let stamp = Stamp { incarnation: 7, sequence: 9, time_ms: 11, prev_crc: 13 };
        let refs = refs(records);
        let crc = encode_frame(&mut buffer, stamp, &refs, |index| crc32c::crc32c(refs[index].body));
        assert_eq!(buffer.len() as u64, frame_len(&refs));
        (buffer, crc)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_frame_reads_back(records in owned()) {
            let (buffer, crc) = encode(&records);
            let frame = Frame::decode(buffer.into(), 1, 4096).unwrap();
            prop_assert_eq!((frame.at.sequence, frame.at.crc, frame.time_ms), (9, crc, 11));
            prop_assert_eq!((frame.head.incarnation, frame.head.prev_crc), (7, 13));
            prop_assert!(frame.is_intact());
            prop_assert_eq!(frame.refs().collect::<Vec<_>>(), refs(&records));
        }

        #[test]
        fn a_copy_differs_in_nothing_but_the_incarnation(records in owned()) {
            let (buffer, crc) = encode(&records);
            let frame = Frame::decode(buffer.into(), 1, 4096).unwrap();
            let copy = Frame::decode(frame.restamped(8).into(), 2, 4096).unwrap();
            prop_assert_eq!((copy.head.incarnation, copy.at.crc), (8, crc));
            prop_assert_eq!(copy.refs().collect::<Vec<_>>(), refs(&records));
        }

        #[test]
        fn any_flip_is_noticed(records in owned(), at: prop::sample::Index, bit in 0..8) {
            let (mut buffer, _) = encode(&records);
            let at = at.index(buffer.len());
            buffer[at] ^= 1_u8 << bit;
            match Frame::decode(buffer.into(), 1, 4096) {
                Err(_) => {}
                Ok(frame) => prop_assert!(frame.head.incarnation != 7 || !frame.is_intact()),
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(magic) = bytes.get_mut(..4) {
                magic.copy_from_slice(&FRAME_MAGIC);
            }
            let _ = Frame::decode(bytes.into(), 1, 4096);
        }
    }

    #[test]
    fn an_erased_body_is_told_from_a_damaged_one() {
        let (buffer, _) = encode(&[(1, 2, vec![3], vec![4; 16])]);
        let body = HEAD_BYTES + ENTRY_BYTES + 1;
        let mut erased = buffer.clone();
        erased[body..body + 16].fill(0);
        let frame = Frame::decode(erased.into(), 1, 4096).unwrap();
        assert_eq!(frame.records[0].state, BodyState::Zeroed);
        let mut damaged = buffer;
        damaged[body] = 0;
        let frame = Frame::decode(damaged.into(), 1, 4096).unwrap();
        assert_eq!(frame.records[0].state, BodyState::Damaged);
    }
}
