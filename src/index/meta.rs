//! Family `m`: one key, what the tree says of itself. It changes in the same atomic batch as everything it speaks of.

use bincode::{Decode, Encode};

use super::FAMILIES;

/// The one key of the family.
pub const KEY: &[u8] = b"m";

/// Grows when a key or value changes its form; a tree of another format is rebuilt.
pub const FORMAT: u32 = 3;

/// The last frame that is folded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Applied {
    /// Number of its segment.
    pub segment: u64,
    /// Byte offset in the segment.
    pub offset: u64,
    /// Its sequence number.
    pub sequence: u64,
    /// Its checksum: the journal must still hold this very frame.
    pub crc: u32,
}

/// What the tree says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Meta {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// `None` in a tree that nothing was folded into.
    pub applied: Option<Applied>,
    /// The highest segment that was dropped; it and those below may be deleted.
    pub dropped_through: Option<u64>,
    /// The lowest event id that was never dropped or carried.
    pub first_kept: u128,
    /// For each of [`FAMILIES`], how many keys it has and the sum of their hashes.
    pub sums: [Sum; FAMILIES.len()],
}

/// A count of keys and an order-independent sum of their hashes: what silently lost keys are noticed by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Sum {
    /// How many keys.
    pub keys: u64,
    /// Wrapping sum over a hash of each key with its value.
    pub hash: u64,
}

impl Default for Meta {
    fn default() -> Self {
        Self { format: FORMAT, applied: None, dropped_through: None, first_kept: 0, sums: Default::default() }
    }
}

impl Meta {
    /// The value of the key.
    pub fn encode(&self) -> Vec<u8> {
        bincode::encode_to_vec(self, bincode::config::standard()).expect("every field has an encoding")
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let config = bincode::config::standard().with_limit::<4_096>();
        let (meta, read) = bincode::decode_from_slice(bytes, config).ok()?;
        (read == bytes.len()).then_some(meta)
    }
}

impl Sum {
    /// Counts a key in.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.keys = self.keys.wrapping_add(1);
        self.hash = self.hash.wrapping_add(hash(key, value));
    }

    /// Counts a key out.
    pub fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.keys = self.keys.wrapping_sub(1);
        self.hash = self.hash.wrapping_sub(hash(key, value));
    }
}

/// The place of a family in [`Meta::sums`].
pub fn family_slot(family: u8) -> Option<usize> {
    FAMILIES.iter().position(|f| *f == family)
}

/// 64 bits over key and value: two CRC32C with different starts, as damage and not malice is what it must tell.
fn hash(key: &[u8], value: &[u8]) -> u64 {
    let low = crc32c::crc32c_append(crc32c::crc32c(key), value);
    let high = crc32c::crc32c_append(crc32c::crc32c_append(0x9e37_79b9, value), key);
    (u64::from(high) << 32) | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_round_trips_and_refuses_trailing_bytes() {
        let applied = Applied { segment: 3, offset: 4_096, sequence: 77, crc: 0xdead_beef };
        let meta = Meta { applied: Some(applied), dropped_through: Some(2), first_kept: 9, ..Meta::default() };
        let mut bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes), Some(meta));
        bytes.push(0);
        assert_eq!(Meta::decode(&bytes), None);
    }

    #[test]
    fn sums_do_not_depend_on_order_and_notice_a_swap_of_values() {
        let (mut a, mut b, mut c) = (Sum::default(), Sum::default(), Sum::default());
        a.add(b"k1", b"v1");
        a.add(b"k2", b"v2");
        b.add(b"k2", b"v2");
        b.add(b"k1", b"v1");
        c.add(b"k1", b"v2");
        c.add(b"k2", b"v1");
        assert_eq!(a, b);
        assert_ne!(a, c);
        a.remove(b"k1", b"v1");
        a.remove(b"k2", b"v2");
        assert_eq!(a, Sum::default());
    }
}
