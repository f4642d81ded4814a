//! Applying a table as one batch: entries of the packed families go into their blocks, all others stand alone.
//! Dedup keys are sorted into runs first.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::ops::Bound;

use super::block::{self, BYTES_MAX, BYTES_MIN, Entry, Packer, is_packed};
use super::dedup;
use super::keys::{Batch, Keys};
use super::merging::{Merging, tail_of};
use super::meta::{Sum, family_slot};
use super::runs::{Learning, Runs, Turnover};
use super::tree::TreeError;

/// A change that a table asks for: a key's value, or its removal.
type Change<'t> = (&'t [u8], Option<&'t [u8]>);

/// A batch under construction.
pub(super) struct Applying<'t> {
    pub(super) keys: &'t Keys,
    /// Where its dedup keys are.
    pub(super) runs: &'t Runs,
    /// What the batch does to them.
    pub(super) turnover: Turnover,
    /// What is to be written.
    pub(super) batch: Batch,
    /// Per family the count and sum after the batch.
    pub(super) sums: &'t mut [Sum; super::FAMILIES.len()],
}

impl Applying<'_> {
    /// Takes changes in the order of their keys.
    pub(super) fn take<'c>(&mut self, changes: impl Iterator<Item = Change<'c>>) -> Result<(), TreeError> {
        let mut changes = changes.peekable();
        while let Some((key, value)) = changes.peek().copied() {
            let family = *key.first().ok_or(TreeError::Foreign("an empty key"))?;
            let slot = family_slot(family).ok_or(TreeError::Foreign("a key of no family"))?;
            if family == dedup::FAMILY {
                self.dedup_keys(slot, &mut changes)?;
            } else if is_packed(key) {
                self.block(slot, key, &mut changes)?;
            } else {
                self.alone(slot, key, value)?;
                changes.next();
            }
        }
        Ok(())
    }

    fn alone(&mut self, slot: usize, key: &[u8], value: Option<&[u8]>) -> Result<(), TreeError> {
        let old = self.keys.get(key)?;
        if let Some(old) = &old {
            self.sums[slot].remove(key, old);
        }
        match value {
            Some(value) => {
                self.sums[slot].add(key, value);
                self.batch.push((key.into(), Some(value.into())));
            }
            None if old.is_some() => self.batch.push((key.into(), None)),
            None => {}
        }
        Ok(())
    }

    /// Takes the changes of dedup keys: each new entry goes into a new run, and out of the one that it was in.
    fn dedup_keys<'c>(
        &mut self,
        slot: usize,
        changes: &mut Peekable<impl Iterator<Item = Change<'c>>>,
    ) -> Result<(), TreeError> {
        let (mut fresh, mut gone) = (Vec::new(), BTreeSet::new());
        while let Some((key, value)) = changes.next_if(|(key, _)| key.first() == Some(&dedup::FAMILY)) {
            match self.runs.look_up(key, |stored| self.keys.find(stored))? {
                // It was carried to another segment of the journal, and says what it said.
                Some((_, old)) if value.is_some_and(|value| *value == *old) => continue,
                Some((run, _)) => {
                    *self.turnover.gone.entry(run).or_default() += 1;
                    gone.insert(dedup::stored_key(run, key));
                }
                None => {}
            }
            fresh.extend(value.map(|value| (key, value)));
        }
        if !fresh.is_empty() {
            self.new_run(slot, &fresh, &mut gone)?;
        }
        let mut gone = gone.iter().map(|key| (&key[..], None)).peekable();
        while let Some((key, _)) = gone.peek() {
            self.block(slot, key, &mut gone)?;
        }
        Ok(())
    }

    /// Makes a new run of these entries and of those in the runs that it takes in. Of what has gone, that in other runs is left.
    fn new_run(
        &mut self,
        slot: usize,
        fresh: &[(&[u8], &[u8])],
        gone: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), TreeError> {
        let (number, absorbed) = self.runs.next(fresh.len() as u64)?;
        let mut merging = Merging::default();
        for run in &absorbed {
            let blocks = self.keys.blocks_of(&dedup::stored_key(*run, &[dedup::FAMILY]))?;
            self.batch.extend(blocks.iter().map(|(first, _)| (first.clone(), None)));
            merging.add(blocks)?;
        }
        let (mut packer, mut learning) = (Packer::default(), Learning::default());
        let mut fresh = fresh.iter().peekable();
        loop {
            let next = merging.first();
            let fresh_first = fresh.next_if(|(key, _)| next.is_none_or(|(stored, _)| key[1..] < *tail_of(stored)));
            let entry: Entry = if let Some((key, value)) = fresh_first {
                (dedup::stored_key(number, key).into(), (*value).into())
            } else if let Some((old, value)) = merging.pop()? {
                self.sums[slot].remove(&old, &value);
                if gone.remove(&old[..]) {
                    continue;
                }
                (dedup::key_in_run(number, &old).into(), value)
            } else {
                break;
            };
            self.sums[slot].add(&entry.0, &entry.1);
            learning.take(&entry.0);
            packer.push(entry);
            if packer.bytes() > 4 * BYTES_MAX {
                packer.pack_most(&mut |key, block| self.batch.push((key.into(), Some(block.into()))));
            }
        }
        packer.pack_all(&mut |key, block| self.batch.push((key.into(), Some(block.into()))));
        self.runs.announce(learning);
        self.turnover.absorbed = absorbed;
        Ok(())
    }

    /// Takes the changes that fall into the block around `key`, and into those that it is joined with.
    fn block<'c>(
        &mut self,
        slot: usize,
        key: &[u8],
        changes: &mut Peekable<impl Iterator<Item = Change<'c>>>,
    ) -> Result<(), TreeError> {
        let end = block::after(block::scope(key));
        let from = self.keys.at_or_before(key)?.map_or_else(|| key.into(), |(first, _)| first);
        let mut blocks = self.keys.range(Bound::Included(&from), Bound::Excluded(&end));
        let (mut packer, mut replaced, mut changed) = (Packer::default(), Vec::new(), false);
        let mut next = blocks.next().transpose()?;
        loop {
            let old = match next.take() {
                Some((first, bytes)) => {
                    let old = block::unpack(&first, &bytes)?;
                    replaced.push(first);
                    old
                }
                None => Vec::new(),
            };
            next = blocks.next().transpose()?;
            let limit = next.as_ref().map_or(&end[..], |(first, _)| first);
            let mut old = old.into_iter().peekable();
            while let Some((key, value)) = changes.next_if(|(key, _)| *key < limit) {
                while let Some(entry) = old.next_if(|(k, _)| **k < *key) {
                    packer.push(entry);
                }
                let had = old.next_if(|(k, _)| **k == *key);
                changed |= had.is_some() || value.is_some();
                self.change(slot, key, had, value, &mut packer);
                if packer.bytes() > 4 * BYTES_MAX {
                    self.replace(&mut replaced);
                    packer.pack_most(&mut |key, block| self.batch.push((key.into(), Some(block.into()))));
                }
            }
            old.for_each(|entry| packer.push(entry));
            if !changed || packer.bytes() >= BYTES_MIN || next.is_none() {
                break;
            }
        }
        if changed {
            self.replace(&mut replaced);
            packer.pack_all(&mut |key, block| self.batch.push((key.into(), Some(block.into()))));
        }
        Ok(())
    }

    fn change(&mut self, slot: usize, key: &[u8], had: Option<Entry>, value: Option<&[u8]>, packer: &mut Packer) {
        if let Some((_, old)) = had {
            self.sums[slot].remove(key, &old);
        }
        if let Some(value) = value {
            self.sums[slot].add(key, value);
            packer.push((key.into(), value.into()));
        }
    }

    /// Takes the old blocks out before new ones come in, of which one may have the key of an old one.
    fn replace(&mut self, replaced: &mut Vec<sled::IVec>) {
        self.batch.extend(replaced.drain(..).map(|key| (key, None)));
    }
}
