//! How a segment file begins, and the small tools every other encoding here shares. Pure: bytes in, bytes out.
//!
//! Integers are little-endian. A segment's first 4 KiB are its header block:
//!
//! ```text
//!    0        4         8         16            24               32         36           44        4092   4096
//!    ├────────┼─────────┼─────────┼─────────────┼────────────────┼──────────┼────────────┼─ zeros ─┼──────┤
//!    │ "PRJ1" │ version │ segment │ incarnation │ first_sequence │ prev_crc │ created_ms │         │ crc  │
//! ```
//!
//! Invariant for every later version: magic, version and the CRC over the whole block stay where they are, so that an
//! unknown version is told from a damaged header.

/// Bytes of a segment's header block; frames start after it.
pub(super) const HEADER_BYTES: u64 = 4096;

/// The one format version this code reads and writes.
pub(super) const VERSION: u32 = 1;

/// Numbers of segments and spares, and sequences of frames, stay up to here, so that each has a next one. A journal that
/// begins a segment every microsecond gets there after a quarter of a million years; what says more was not written by us.
pub(super) const NUMBER_MAX: u64 = 1 << 63;

const MAGIC: [u8; 4] = *b"PRJ1";
const CRC_AT: usize = HEADER_BYTES as usize - 4;

/// What the header block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The segment's number, the same as in its file name.
    pub segment: u64,
    /// Which start of the process wrote this segment.
    pub incarnation: u64,
    /// Sequence of the first frame in it.
    pub first_sequence: u64,
    /// CRC of the frame before that one, in an earlier segment; zero at the journal's very start.
    pub prev_crc: u32,
    /// The writer's wall clock when the segment was started.
    pub created_ms: u64,
}

/// Why a header block can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFlaw {
    /// Not a header, a torn one or a damaged one.
    Invalid,
    /// A whole header of another format.
    UnknownVersion(u32),
}

impl SegmentHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(HEADER_BYTES as usize);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&self.segment.to_le_bytes());
        block.extend_from_slice(&self.incarnation.to_le_bytes());
        block.extend_from_slice(&self.first_sequence.to_le_bytes());
        block.extend_from_slice(&self.prev_crc.to_le_bytes());
        block.extend_from_slice(&self.created_ms.to_le_bytes());
        block.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&block);
        block.extend_from_slice(&crc.to_le_bytes());
        block
    }

    pub fn decode(block: &[u8]) -> Result<Self, HeaderFlaw> {
        let whole = block.len() == HEADER_BYTES as usize && block[..4] == MAGIC;
        if !whole || crc32c::crc32c(&block[..CRC_AT]) != u32_at(block, CRC_AT) {
            return Err(HeaderFlaw::Invalid);
        }
        match u32_at(block, 4) {
            VERSION => {}
            other => return Err(HeaderFlaw::UnknownVersion(other)),
        }
        let header = Self {
            segment: u64_at(block, 8),
            incarnation: u64_at(block, 16),
            first_sequence: u64_at(block, 24),
            prev_crc: u32_at(block, 32),
            created_ms: u64_at(block, 36),
        };
        if header.segment.max(header.first_sequence) > NUMBER_MAX { Err(HeaderFlaw::Invalid) } else { Ok(header) }
    }
}

/// # Panics
/// When fewer than four bytes are there; callers check lengths first.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
}

/// # Panics
/// When fewer than eight bytes are there; callers check lengths first.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"))
}

/// # Panics
/// When fewer than sixteen bytes are there; callers check lengths first.
pub(super) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("a slice of sixteen bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_header_reads_back_and_any_flip_is_noticed(
            segment in 0..=NUMBER_MAX, incarnation: u64, first_sequence in 0..=NUMBER_MAX, prev_crc: u32, created_ms: u64,
            at in 0..HEADER_BYTES as usize, bit in 0..8,
        ) {
            let header = SegmentHeader { segment, incarnation, first_sequence, prev_crc, created_ms };
            let mut block = header.encode();
            prop_assert_eq!(SegmentHeader::decode(&block), Ok(header));
            block[at] ^= 1_u8 << bit;
            prop_assert_eq!(SegmentHeader::decode(&block), Err(HeaderFlaw::Invalid));
        }
    }

    #[test]
    fn a_whole_header_of_another_version_is_named() {
        let header = SegmentHeader { segment: 1, incarnation: 2, first_sequence: 3, prev_crc: 4, created_ms: 5 };
        let mut block = header.encode();
        block[4] = 9;
        let crc = crc32c::crc32c(&block[..CRC_AT]);
        block[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&block), Err(HeaderFlaw::UnknownVersion(9)));
    }

    #[test]
    fn a_number_without_a_next_one_is_not_ours() {
        let header = SegmentHeader { segment: 1, incarnation: 2, first_sequence: 3, prev_crc: 4, created_ms: 5 };
        for wild in
            [SegmentHeader { segment: u64::MAX, ..header }, SegmentHeader { first_sequence: u64::MAX, ..header }]
        {
            assert_eq!(SegmentHeader::decode(&wild.encode()), Err(HeaderFlaw::Invalid));
        }
    }

    #[test]
    fn zeros_and_short_blocks_are_no_header() {
        assert_eq!(SegmentHeader::decode(&[0; 4096]), Err(HeaderFlaw::Invalid));
        assert_eq!(SegmentHeader::decode(b"PRJ1"), Err(HeaderFlaw::Invalid));
    }
}
