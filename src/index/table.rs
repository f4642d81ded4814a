//! The table in memory before the tree: what was folded and not applied yet, as an ordered map of keys to values or to
//! their removal.
//!
//! A key that was *born* here, which no layer below can hold, leaves no trace when it is removed. That is how a delivery
//! that settles at its first try never reaches sled.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Changes on top of lower layers.
#[derive(Debug, Default)]
pub struct Table {
    slots: BTreeMap<Vec<u8>, Slot>,
}

#[derive(Debug)]
struct Slot {
    /// `None` hides what is below.
    value: Option<Vec<u8>>,
    /// No layer below holds the key.
    born: bool,
}

impl Table {
    /// Puts a key that no layer below holds.
    pub fn insert_new(&mut self, key: Vec<u8>, value: Vec<u8>) {
        match self.slots.get_mut(&key) {
            // Removed here before, so a layer below may well hold it.
            Some(slot) => slot.value = Some(value),
            None => {
                self.slots.insert(key, Slot { value: Some(value), born: true });
            }
        }
    }

    /// Puts a key that layers below may hold.
    pub fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        match self.slots.get_mut(&key) {
            Some(slot) => slot.value = Some(value),
            None => {
                self.slots.insert(key, Slot { value: Some(value), born: false });
            }
        }
    }

    /// Removes a key from this layer and hides it in those below.
    pub fn remove(&mut self, key: Vec<u8>) {
        match self.slots.get_mut(&key) {
            Some(slot) if slot.born => {
                self.slots.remove(&key);
            }
            Some(slot) => slot.value = None,
            None => {
                self.slots.insert(key, Slot { value: None, born: false });
            }
        }
    }

    /// What this layer says of a key: nothing, its removal, or its value.
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.slots.get(key).map(|slot| slot.value.as_deref())
    }

    /// What this layer says of the keys of a range, in order from either end.
    pub fn range<'a>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        self.slots.range::<[u8], _>((from, to)).map(|(key, slot)| (key.as_slice(), slot.value.as_deref()))
    }

    /// How many keys it speaks of.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether it speaks of no key.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
impl Table {
    /// These values and, for `None`, removals.
    pub(super) fn of(changes: &[(&[u8], Option<&[u8]>)]) -> Self {
        let mut table = Self::default();
        for (key, value) in changes {
            match value {
                Some(value) => table.insert(key.to_vec(), value.to_vec()),
                None => table.remove(key.to_vec()),
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_born_here_leaves_no_trace() {
        let mut table = Table::default();
        table.insert_new(b"a".to_vec(), b"1".to_vec());
        table.remove(b"a".to_vec());
        assert!(table.is_empty());
    }

    #[test]
    fn a_key_from_below_is_hidden_even_when_it_came_and_went_here() {
        let mut table = Table::default();
        table.remove(b"a".to_vec());
        table.insert_new(b"a".to_vec(), b"1".to_vec());
        assert_eq!(table.get(b"a"), Some(Some(&b"1"[..])));
        table.remove(b"a".to_vec());
        assert_eq!(table.get(b"a"), Some(None));
        table.insert(b"b".to_vec(), b"1".to_vec());
        table.remove(b"b".to_vec());
        assert_eq!(table.get(b"b"), Some(None));
        assert_eq!(table.get(b"c"), None);
    }
}
