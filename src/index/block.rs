//! Blocks: many neighbouring entries under one key of sled's.
//!
//! sled takes 70 bytes and more of memory for every key, cached or not, and about 9 µs to write one. Entries of the packed
//! families come and go in long runs (deliveries fall due in the order in which their events came, dedup keys are sorted by
//! time first), so some hundred of them share one key, which is that of the first. Only the few endpoints stand alone.
//!
//! ```text
//!  block │ entry │ entry │ …        entry  0       1     2          4
//!                                          ├───────┼─────┼──────────┼──────────┼───────┤
//!                                          │ shared│ rest│ value len│ key rest │ value │
//! ```
//!
//! `shared` is how many bytes an entry's key has in common with the one before it, or with the block's own.

use std::ops::ControlFlow;

use super::dedup;
use super::tree::TreeError;

/// A block larger than this is cut.
pub(super) const BYTES_MAX: usize = 4 << 10;

/// About what blocks are cut to.
const BYTES_CUT: usize = 3 << 10;

/// A block smaller than this is joined with the next one when it is written.
pub(super) const BYTES_MIN: usize = 1 << 10;

/// Bytes before an entry's key.
const HEAD_BYTES: usize = 4;

/// An entry with its whole key.
pub(super) type Entry = (sled::IVec, sled::IVec);

/// Whether a key's entry shares a block with others of its family.
pub(super) fn is_packed(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'd' | b'e' | b'k' | b'q' | b'x' | b'z'))
}

/// What all keys of a block begin with: their family; of dedup keys the run as well, so that a run has blocks of its own.
pub(super) fn scope(key: &[u8]) -> &[u8] {
    let bytes = if key.first() == Some(&dedup::FAMILY) { dedup::RUN_END } else { 1 };
    &key[..bytes.min(key.len())]
}

/// The first key that can follow those which begin with this.
pub(super) fn after(scope: &[u8]) -> Vec<u8> {
    let mut after = scope.to_vec();
    for byte in after.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    after
}

const NO_BLOCK: TreeError = TreeError::Foreign("a block that does not decode");

/// Shows `visit` every entry of a block in order until it breaks off.
pub(super) fn each(
    first: &[u8],
    bytes: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<(), TreeError> {
    let (mut key, mut left) = (first.to_vec(), bytes);
    while let Some((head, rest)) = left.split_first_chunk::<HEAD_BYTES>() {
        let [shared, key_rest, value_high, value_low] = *head;
        let (suffix, rest) = rest.split_at_checked(usize::from(key_rest)).ok_or(NO_BLOCK)?;
        let value_bytes = usize::from(u16::from_be_bytes([value_high, value_low]));
        let (value, rest) = rest.split_at_checked(value_bytes).ok_or(NO_BLOCK)?;
        key.truncate(usize::from(shared));
        key.extend_from_slice(suffix);
        if visit(&key, value).is_break() {
            return Ok(());
        }
        left = rest;
    }
    if left.is_empty() { Ok(()) } else { Err(NO_BLOCK) }
}

/// Every entry of a block.
pub(super) fn unpack(first: &[u8], bytes: &[u8]) -> Result<Vec<Entry>, TreeError> {
    let mut entries = Vec::new();
    each(first, bytes, |key, value| {
        entries.push((key.into(), value.into()));
        ControlFlow::Continue(())
    })?;
    Ok(entries)
}

/// Entries that are being packed, in order.
#[derive(Debug, Default)]
pub(super) struct Packer {
    entries: Vec<Entry>,
    bytes: usize,
}

impl Packer {
    /// Takes the next entry.
    pub(super) fn push(&mut self, entry: Entry) {
        let last = self.entries.last().map_or(&entry.0, |(key, _)| key);
        self.bytes += cost(last, &entry);
        self.entries.push(entry);
    }

    /// Bytes that the entries take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Blocks of all entries but the last few, which later ones may join; with the key of each.
    pub(super) fn pack_most(&mut self, put: &mut impl FnMut(&[u8], Vec<u8>)) {
        while self.bytes > 2 * BYTES_MAX {
            self.pack_first(BYTES_CUT, put);
        }
    }

    /// Blocks of all entries, of about the same size; with the key of each.
    pub(super) fn pack_all(&mut self, put: &mut impl FnMut(&[u8], Vec<u8>)) {
        self.pack_most(put);
        let blocks = if self.bytes > BYTES_MAX { self.bytes.div_ceil(BYTES_CUT) } else { 1 };
        let share = self.bytes.div_ceil(blocks);
        while !self.entries.is_empty() {
            self.pack_first(share, put);
        }
    }

    fn pack_first(&mut self, bytes: usize, put: &mut impl FnMut(&[u8], Vec<u8>)) {
        let Some((first, _)) = self.entries.first() else { return };
        let (mut block, mut last, mut count) = (Vec::with_capacity(bytes + HEAD_BYTES), first, 0);
        for entry in &self.entries {
            let (key, value) = entry;
            let shared = shared(last, key);
            let lengths = (u8::try_from(shared), u8::try_from(key.len() - shared), u16::try_from(value.len()));
            let (Ok(shared_byte), Ok(rest_byte), Ok(value_bytes)) = lengths else {
                unreachable!("keys of the packed families are below 64 bytes and their values too")
            };
            block.extend_from_slice(&[shared_byte, rest_byte]);
            block.extend_from_slice(&value_bytes.to_be_bytes());
            block.extend_from_slice(&key[shared..]);
            block.extend_from_slice(value);
            (last, count) = (key, count + 1);
            if block.len() >= bytes {
                break;
            }
        }
        // What is left begins a block of its own now, and shares nothing with what went before.
        let next = self.entries.get(count);
        self.bytes = self.bytes + next.map_or(0, |next| cost(&next.0, next)) - next.map_or(0, |next| cost(last, next));
        self.bytes -= block.len();
        put(first, block);
        self.entries.drain(..count);
    }
}

fn cost(last: &[u8], (key, value): &Entry) -> usize {
    HEAD_BYTES + key.len() - shared(last, key) + value.len()
}

fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count().min(usize::from(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_scope_ends_where_the_next_one_begins() {
        assert_eq!((scope(b"q12"), after(b"q")), (&b"q"[..], b"r".to_vec()));
        let run = dedup::stored_key(0xff, b"k\x00hash");
        assert_eq!((scope(&run), after(scope(&run))), (&b"k\x00\x00\x00\xff"[..], b"k\x00\x00\x01\x00".to_vec()));
        assert_eq!(after(b"k\xff\xff\xff\xff"), b"l\x00\x00\x00\x00");
        assert_eq!(scope(b"k"), b"k");
    }

    proptest! {
        #[test]
        fn blocks_hold_what_was_packed_in_order_and_within_their_size(
            entries in prop::collection::btree_map(prop::collection::vec(0u8..4, 1..42), prop::collection::vec(any::<u8>(), 0..20), 0..900),
        ) {
            let (mut packer, mut blocks) = (Packer::default(), Vec::new());
            let mut put = |key: &[u8], block: Vec<u8>| blocks.push((key.to_vec(), block));
            for (key, value) in &entries {
                packer.push((key.as_slice().into(), value.as_slice().into()));
                packer.pack_most(&mut put);
            }
            packer.pack_all(&mut put);
            let mut found = BTreeMap::new();
            for (key, block) in &blocks {
                prop_assert!(block.len() <= BYTES_MAX + 128);
                let unpacked = unpack(key, block).unwrap();
                prop_assert_eq!(unpacked[0].0.as_ref(), key.as_slice());
                prop_assert!(found.last_key_value().is_none_or(|(last, _)| last < key));
                found.extend(unpacked.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
            }
            prop_assert_eq!(found, entries);
            prop_assert!(blocks.len() < 2 || blocks.iter().all(|(_, block)| block.len() >= BYTES_MIN));
        }

        #[test]
        fn any_bytes_are_read_without_panic(first: Vec<u8>, bytes: Vec<u8>) {
            let _ = unpack(&first, &bytes);
        }
    }
}
