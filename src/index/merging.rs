//! Several runs of dedup keys, read as one in the order of what follows the run in their keys, a block of each at a time.

use std::vec::IntoIter;

use super::block::{self, Entry};
use super::dedup;
use super::tree::TreeError;

/// Runs that are being read.
#[derive(Debug, Default)]
pub(super) struct Merging(Vec<Source>);

#[derive(Debug)]
struct Source {
    first: Entry,
    entries: IntoIter<Entry>,
    blocks: IntoIter<Entry>,
}

impl Merging {
    /// Adds a run by its blocks.
    pub(super) fn add(&mut self, blocks: Vec<Entry>) -> Result<(), TreeError> {
        let mut source =
            Source { first: Entry::default(), entries: Vec::new().into_iter(), blocks: blocks.into_iter() };
        if source.step()?.is_some() {
            self.0.push(source);
        }
        Ok(())
    }

    /// The entry that comes first.
    pub(super) fn first(&self) -> Option<&Entry> {
        self.0.iter().map(|source| &source.first).min_by_key(|(key, _)| tail_of(key))
    }

    /// Takes it.
    pub(super) fn pop(&mut self) -> Result<Option<Entry>, TreeError> {
        let first = (0..self.0.len()).min_by_key(|at| tail_of(&self.0[*at].first.0));
        let Some(at) = first else { return Ok(None) };
        let popped = self.0[at].step()?;
        Ok(Some(popped.unwrap_or_else(|| self.0.swap_remove(at).first)))
    }
}

impl Source {
    /// Goes on to the next entry and returns the one before; `None` at the end, where it stays.
    fn step(&mut self) -> Result<Option<Entry>, TreeError> {
        loop {
            if let Some(next) = self.entries.next() {
                return Ok(Some(std::mem::replace(&mut self.first, next)));
            }
            let Some((first, bytes)) = self.blocks.next() else { return Ok(None) };
            self.entries = block::unpack(&first, &bytes)?.into_iter();
        }
    }
}

/// What follows the run in a stored key.
pub(super) fn tail_of(stored: &[u8]) -> &[u8] {
    dedup::split_stored(stored).map_or(&[], |(_, tail)| tail)
}

#[cfg(test)]
mod tests {
    use super::block::Packer;
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn runs_are_read_as_one_in_order(tails in prop::collection::btree_map(any::<u64>(), 0u32..5, 0..2_000)) {
            let mut runs: BTreeMap<u32, Packer> = BTreeMap::new();
            for (tail, run) in &tails {
                let key = dedup::stored_key(*run, &[&[dedup::FAMILY][..], &tail.to_be_bytes()].concat());
                runs.entry(*run).or_default().push((key.into(), (&[*run as u8; 32]).into()));
            }
            let mut merging = Merging::default();
            merging.add(Vec::new()).unwrap();
            for packer in runs.values_mut() {
                let mut blocks = Vec::new();
                packer.pack_all(&mut |key, block| blocks.push((key.into(), block.into())));
                merging.add(blocks).unwrap();
            }
            let mut found = Vec::new();
            while let Some(first) = merging.first().cloned() {
                let popped = merging.pop().unwrap();
                prop_assert_eq!(popped.as_ref(), Some(&first));
                let (run, tail) = dedup::split_stored(&first.0).unwrap();
                found.push((u64::from_be_bytes(tail.try_into().unwrap()), run));
            }
            prop_assert!(merging.pop().unwrap().is_none());
            prop_assert!(found.is_sorted());
            prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), tails.into_iter().collect());
        }
    }
}
