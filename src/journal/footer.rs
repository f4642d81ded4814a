//! The footer that a segment gets when it is sealed: a sorted index of its keys, and its totals. Pure.
//!
//! ```text
//!    frames end
//!    ├─────────────────────────┬─ … ─┬──────────────────┤ end of file
//!    │ page: 4 KiB             │     │ trailer: 256 B   │
//!    └─────────────────────────┴─────┴──────────────────┘
//!    page:  "PRJP" crc │ segment │ index count │ zeros │ 127 × (key, offset, record index, kind), sorted by key, offset
//! ```
//!
//! Each page has its own CRC, so that a lookup reads and checks a few pages by binary search and never the whole footer.
//! The trailer holds the totals, the chain's link to the next segment, and a CRC over the pages' CRCs.
//!
//! Invariant: the trailer is the last thing in the file and is written only after all before it is synced. A file that
//! ends in a valid trailer is sealed; any other file isn't, and its footer is made anew from its frames.

use super::format::{NUMBER_MAX, VERSION, u32_at, u64_at, u128_at};
use super::segment::Totals;

pub(super) const PAGE_BYTES: usize = 4096;
pub(super) const TRAILER_BYTES: usize = 256;
/// Keys in a full page.
pub(super) const PAGE_ENTRIES: usize = PAGE_BYTES / ENTRY_BYTES - 1;

const ENTRY_BYTES: usize = 32;
const PAGE_MAGIC: [u8; 4] = *b"PRJP";
const TRAILER_MAGIC: [u8; 4] = *b"PRJE";
const TRAILER_CRC_AT: usize = TRAILER_BYTES - 4;

/// One record's key and place. Ordered as a footer sorts them: by key, then by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyEntry {
    pub key: u128,
    pub offset: u64,
    pub index: u32,
    pub kind: u8,
}

/// What a sealed segment's last bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trailer {
    /// Must be the file's own number, and
    pub segment: u64,
    /// its header's incarnation: a recycled file may hold another segment's trailer.
    pub incarnation: u64,
    /// Offset after the last frame, where the pages begin.
    pub frames_end: u64,
    /// Keys in all pages.
    pub entries: u64,
    /// Pages of 4 KiB.
    pub pages: u64,
    /// CRC over the pages' CRCs, for verification; lookups check the pages they read.
    pub pages_crc: u32,
    /// The least and the greatest key, so that most lookups need no page at all.
    pub key_min: u128,
    /// See `key_min`.
    pub key_max: u128,
    /// The link to the next segment is in here: last sequence and last CRC.
    pub totals: Totals,
}

impl Trailer {
    /// Bytes that the whole file has if nothing was cut off or added.
    pub fn file_bytes(&self) -> u64 {
        let pages = self.pages.saturating_mul(PAGE_BYTES as u64);
        let frames_and_pages = self.frames_end.saturating_add(pages);
        frames_and_pages.saturating_add(TRAILER_BYTES as u64)
    }

    pub fn encode(&self) -> Vec<u8> {
        let totals = &self.totals;
        let mut bytes = Vec::with_capacity(TRAILER_BYTES);
        bytes.extend_from_slice(&TRAILER_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.key_min.to_le_bytes());
        bytes.extend_from_slice(&self.key_max.to_le_bytes());
        for number in [
            self.segment,
            self.incarnation,
            self.frames_end,
            self.entries,
            self.pages,
            totals.records,
            totals.frames,
            totals.first_sequence,
            totals.last_sequence,
            totals.first_time_ms,
            totals.last_time_ms,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.pages_crc.to_le_bytes());
        bytes.extend_from_slice(&totals.last_crc.to_le_bytes());
        bytes.resize(TRAILER_CRC_AT, 0);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` for anything but a whole trailer.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let whole = bytes.len() == TRAILER_BYTES
            && bytes[..4] == TRAILER_MAGIC
            && crc32c::crc32c(&bytes[..TRAILER_CRC_AT]) == u32_at(bytes, TRAILER_CRC_AT);
        if !whole || u32_at(bytes, 4) != VERSION {
            return None;
        }
        let number = |index: usize| u64_at(bytes, 40 + 8 * index);
        let trailer = Self {
            key_min: u128_at(bytes, 8),
            key_max: u128_at(bytes, 24),
            segment: number(0),
            incarnation: number(1),
            frames_end: number(2),
            entries: number(3),
            pages: number(4),
            pages_crc: u32_at(bytes, 128),
            totals: Totals {
                records: number(5),
                frames: number(6),
                first_sequence: number(7),
                last_sequence: number(8),
                first_time_ms: number(9),
                last_time_ms: number(10),
                last_crc: u32_at(bytes, 132),
            },
        };
        (trailer.totals.last_sequence <= NUMBER_MAX).then_some(trailer)
    }
}

/// All pages of a footer, and the CRC over their CRCs. The entries are sorted.
pub(super) fn encode_pages(segment: u64, entries: &[KeyEntry]) -> (Vec<u8>, u32) {
    let mut pages = Vec::with_capacity(entries.len().div_ceil(PAGE_ENTRIES) * PAGE_BYTES);
    let mut pages_crc = 0;
    for (index, entries) in entries.chunks(PAGE_ENTRIES).enumerate() {
        let start = pages.len();
        pages.extend_from_slice(&PAGE_MAGIC);
        pages.extend_from_slice(&[0; 4]);
        pages.extend_from_slice(&segment.to_le_bytes());
        pages.extend_from_slice(&(index as u32).to_le_bytes());
        pages.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        pages.extend_from_slice(&[0; 8]);
        for entry in entries {
            pages.extend_from_slice(&entry.key.to_le_bytes());
            pages.extend_from_slice(&entry.offset.to_le_bytes());
            pages.extend_from_slice(&entry.index.to_le_bytes());
            pages.extend_from_slice(&[entry.kind, 0, 0, 0]);
        }
        pages.resize(start + PAGE_BYTES, 0);
        let crc = crc32c::crc32c(&pages[start..]).to_le_bytes();
        pages[start + 4..start + 8].copy_from_slice(&crc);
        pages_crc = crc32c::crc32c_append(pages_crc, &crc);
    }
    (pages, pages_crc)
}

/// A page's entries, or `None` if it isn't this page of this segment, whole. At least one entry is in it.
pub(super) fn decode_page(page: &[u8], segment: u64, index: u64) -> Option<Vec<KeyEntry>> {
    if page.len() != PAGE_BYTES || page[..4] != PAGE_MAGIC {
        return None;
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&page[..4]), &[0; 4]);
    let crc = crc32c::crc32c_append(crc, &page[8..]);
    let count = u32_at(page, 20) as usize;
    let mine = u64_at(page, 8) == segment && u64::from(u32_at(page, 16)) == index;
    if crc != u32_at(page, 4) || !mine || !(1..=PAGE_ENTRIES).contains(&count) {
        return None;
    }
    let entries = page.chunks(ENTRY_BYTES).skip(1).take(count);
    let decoded = entries.map(|entry| KeyEntry {
        key: u128_at(entry, 0),
        offset: u64_at(entry, 16),
        index: u32_at(entry, 24),
        kind: entry[28],
    });
    Some(decoded.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(count: usize) -> Vec<KeyEntry> {
        let one = |at: usize| KeyEntry {
            key: at as u128 + 1,
            offset: 4096 + at as u64 * 8,
            index: at as u32,
            kind: at as u8,
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn pages_read_back_across_their_boundaries() {
        for count in [0, 1, PAGE_ENTRIES, PAGE_ENTRIES + 1, 3 * PAGE_ENTRIES] {
            let (pages, _) = encode_pages(5, &entries(count));
            let mut read = Vec::new();
            for (index, page) in pages.chunks(PAGE_BYTES).enumerate() {
                read.extend(decode_page(page, 5, index as u64).unwrap());
                assert!(decode_page(page, 6, index as u64).is_none());
                assert!(decode_page(page, 5, index as u64 + 1).is_none());
            }
            assert_eq!(read, entries(count));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_flip_in_page_or_trailer_is_noticed(at in 0..PAGE_BYTES, bit in 0..8, numbers: [u64; 8]) {
            let (mut page, pages_crc) = encode_pages(5, &entries(20));
            page[at] ^= 1_u8 << bit;
            prop_assert!(decode_page(&page, 5, 0).is_none());
            let trailer = Trailer {
                segment: numbers[0], incarnation: numbers[1], frames_end: numbers[2], entries: numbers[3],
                pages: numbers[4], pages_crc, key_min: 3, key_max: u128::MAX,
                totals: Totals { records: numbers[5], frames: numbers[6], first_sequence: numbers[7],
                    last_sequence: 1, first_time_ms: 2, last_time_ms: 3, last_crc: 4 },
            };
            let mut bytes = trailer.encode();
            prop_assert_eq!(bytes.len(), TRAILER_BYTES);
            prop_assert_eq!(Trailer::decode(&bytes), Some(trailer));
            bytes[at % TRAILER_BYTES] ^= 1_u8 << bit;
            prop_assert!(Trailer::decode(&bytes).is_none());
        }
    }
}
