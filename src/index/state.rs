//! The whole key space as one ordered map: the table that is being filled, the table that is being applied, the tree.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use super::dedup;
use super::ledger::Ledger;
use super::meta::{Applied, Meta, family_slot};
use super::table::Table;
use super::tree::{Tree, TreeError, is_empty};

/// The layers, from the newest to the oldest.
#[derive(Debug)]
pub struct State {
    active: Table,
    applying: Option<Arc<Table>>,
    tree: Tree,
    /// What the tree will say of itself once everything is applied; its sums are brought up to date by the applier.
    pub meta: Meta,
    /// Counts that are kept as things change.
    pub ledger: Ledger,
    /// Dedup keys claimed, less those forgotten, in the active table and in the one being applied.
    claims: [i64; 2],
}

/// Which way to walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layered {
    /// From the lowest key up.
    Up,
    /// From the highest key down.
    Down,
}

impl State {
    /// The state of a checked tree.
    pub fn new(tree: Tree, meta: Meta) -> Self {
        Self { active: Table::default(), applying: None, tree, meta, ledger: Ledger::default(), claims: [0; 2] }
    }

    /// The table that facts are folded into.
    pub fn table(&mut self) -> &mut Table {
        &mut self.active
    }

    /// Keys that wait to be applied.
    pub fn waiting(&self) -> usize {
        self.active.len() + self.applying.as_ref().map_or(0, |t| t.len())
    }

    /// Sets the active table aside to be applied, with the meta that belongs to it. `None` while another is on its way.
    pub fn set_aside(&mut self) -> Option<(Arc<Table>, Meta)> {
        if self.applying.is_some() {
            return None;
        }
        let table = Arc::new(std::mem::take(&mut self.active));
        self.applying = Some(Arc::clone(&table));
        self.claims = [0, self.claims[0]];
        Some((table, self.meta.clone()))
    }

    /// The table set aside is in the tree.
    pub fn applied(&mut self, meta: &Meta) {
        self.applying = None;
        self.claims[1] = 0;
        self.meta.sums = meta.sums;
    }

    /// A dedup key was claimed.
    pub fn claimed(&mut self) {
        self.claims[0] += 1;
    }

    /// A dedup key was removed.
    pub fn forgotten(&mut self) {
        self.claims[0] -= 1;
    }

    /// How many dedup keys there are. Those applied are counted exactly; of the others one that took the place of an
    /// expired key counts twice until it is applied.
    pub fn dedup_keys(&self) -> u64 {
        let slot = family_slot(dedup::FAMILY).expect("the family is one of those that are summed");
        self.meta.sums[slot].keys.saturating_add_signed(self.claims.iter().sum())
    }

    /// The tree below.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The last frame that was folded.
    pub fn folded(&self) -> Option<Applied> {
        self.meta.applied
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        for table in [Some(&self.active), self.applying.as_deref()].into_iter().flatten() {
            if let Some(said) = table.get(key) {
                return Ok(said.map(<[u8]>::to_vec));
            }
        }
        Ok(self.tree.get(key)?.map(|value| value.to_vec()))
    }

    /// Shows `visit` the keys of a range with their values until it breaks off. Not for dedup keys, which the tree has in
    /// another order.
    pub fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        way: Layered,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        if is_empty(from, to) {
            return Ok(());
        }
        let empty = Table::default();
        let applying = self.applying.as_deref().unwrap_or(&empty);
        let (active, applying, tree) =
            (self.active.range(from, to), applying.range(from, to), self.tree.range(from, to, way));
        let owned = |(key, value): (&[u8], Option<&[u8]>)| Ok((key.into(), value.map(sled::IVec::from)));
        let mut tree = tree.map(|entry| entry.map(|(key, value)| (key, Some(value))));
        match way {
            Layered::Up => merge([&mut active.map(owned), &mut applying.map(owned), &mut tree], way, &mut visit),
            Layered::Down => {
                merge([&mut active.rev().map(owned), &mut applying.rev().map(owned), &mut tree], way, &mut visit)
            }
        }
    }
}

type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;
type Entry = (sled::IVec, Option<sled::IVec>);
type Layer<'a> = &'a mut dyn Iterator<Item = Result<Entry, TreeError>>;

/// Walks three ordered layers as one; of equal keys the newest layer's counts.
fn merge(layers: [Layer<'_>; 3], way: Layered, visit: Visit<'_>) -> Result<(), TreeError> {
    let mut layers = layers.map(Iterator::peekable);
    loop {
        let Some(first) = first_layer(&mut layers, way) else { return Ok(()) };
        let Some(entry) = layers[first].next() else { return Ok(()) };
        let (key, value) = entry?;
        for layer in &mut layers[first + 1..] {
            // Older layers' word on the same key is overruled. An error stays, to be met on the next round.
            layer.next_if(|older| matches!(older, Ok((k, _)) if *k == key));
        }
        if let Some(value) = value
            && visit(&key, &value).is_break()
        {
            return Ok(());
        }
    }
}

/// The layer whose next key comes first; the newer one of equal keys; one that failed before all.
fn first_layer(layers: &mut [Peekable<Layer<'_>>; 3], way: Layered) -> Option<usize> {
    let mut first: Option<(usize, sled::IVec)> = None;
    for (i, layer) in layers.iter_mut().enumerate() {
        let key = match layer.peek() {
            None => continue,
            Some(Err(_)) => return Some(i),
            Some(Ok((key, _))) => key.clone(),
        };
        let comes_first = first.as_ref().is_none_or(|(_, best)| {
            let order = key.cmp(best);
            order == if way == Layered::Up { Ordering::Less } else { Ordering::Greater }
        });
        if comes_first {
            first = Some((i, key));
        }
    }
    first.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::super::home::Home;
    use super::*;
    use crate::core::event::{DedupKey, DedupScope};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u16, u8),
        Remove(u16),
        /// So many keys at once, so that blocks are cut and joined.
        InsertRun(u16, u16),
        RemoveRun(u16, u16),
        SetAside,
        Apply,
    }

    const KEYS: u16 = 600;

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..KEYS, any::<u8>()).prop_map(|(k, v)| Op::Insert(k, v)),
            3 => (0..KEYS).prop_map(Op::Remove),
            2 => (0..KEYS, 1..KEYS).prop_map(|(k, n)| Op::InsertRun(k, n)),
            1 => (0..KEYS, 1..KEYS).prop_map(|(k, n)| Op::RemoveRun(k, n)),
            2 => Just(Op::SetAside),
            2 => Just(Op::Apply),
        ]
    }

    fn key(family: u8, n: u16) -> Vec<u8> {
        if family == dedup::FAMILY {
            return dedup::key(&DedupKey::new(DedupScope::Inbound, 1, &n.to_string()));
        }
        [&[family, 0, 0, 0][..], &n.to_be_bytes()].concat()
    }

    fn insert(state: &mut State, model: &mut BTreeMap<Vec<u8>, Vec<u8>>, key: Vec<u8>, value: Vec<u8>) {
        if model.contains_key(&key) {
            state.table().insert(key.clone(), value.clone());
        } else {
            state.table().insert_new(key.clone(), value.clone());
        }
        model.insert(key, value);
    }

    fn walk(state: &State, from: Bound<&[u8]>, to: Bound<&[u8]>, way: Layered) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut seen = Vec::new();
        let visit = |key: &[u8], value: &[u8]| {
            seen.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        };
        state.scan(from, to, way, visit).unwrap();
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_layers_together_are_one_ordered_map(
            family in prop::sample::select(vec![b'k', b'q']),
            ops in prop::collection::vec(op(), 1..60),
            low in 0..KEYS,
            high in 0..KEYS,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let tree = Home::Directory(dir.path().to_owned()).open(1 << 20).unwrap();
            let meta = tree.check().unwrap();
            let mut state = State::new(tree, meta);
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            let mut aside = None;
            // Neighbours on both sides, which must stay as they are.
            for (family, n) in [(b'e', KEYS - 1), (b'x', 0)] {
                insert(&mut state, &mut model, key(family, n), vec![9; 20]);
            }
            for op in ops {
                match op {
                    Op::Insert(k, v) => insert(&mut state, &mut model, key(family, k), vec![v; 17]),
                    Op::InsertRun(k, n) => {
                        (k..KEYS.min(k + n)).for_each(|k| insert(&mut state, &mut model, key(family, k), vec![k as u8; 17]));
                    }
                    Op::Remove(k) => {
                        state.table().remove(key(family, k));
                        model.remove(&key(family, k));
                    }
                    Op::RemoveRun(k, n) => (k..KEYS.min(k + n)).for_each(|k| {
                        state.table().remove(key(family, k));
                        model.remove(&key(family, k));
                    }),
                    Op::SetAside => aside = state.set_aside().or(aside),
                    Op::Apply => {
                        if let Some((table, mut meta)) = aside.take() {
                            meta.sums = state.meta.sums;
                            state.tree().apply(&table, &mut meta).unwrap();
                            state.applied(&meta);
                            prop_assert_eq!(state.tree().check().unwrap().sums, meta.sums);
                        }
                    }
                }
            }
            for n in 0..KEYS {
                prop_assert_eq!(state.get(&key(family, n)).unwrap(), model.get(&key(family, n)).cloned());
            }
            if family == dedup::FAMILY {
                return Ok(());
            }
            let all: Vec<_> = model.clone().into_iter().collect();
            let not_meta = |found: Vec<(Vec<u8>, Vec<u8>)>| found.into_iter().filter(|(k, _)| k[0] != b'm').collect::<Vec<_>>();
            prop_assert_eq!(&not_meta(walk(&state, Bound::Unbounded, Bound::Unbounded, Layered::Up)), &all);
            let (from, to) = (key(family, low), key(family, high));
            let some: Vec<_> = if low < high { model.range(from.clone()..to.clone()).map(|(k, v)| (k.clone(), v.clone())).collect() } else { vec![] };
            let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
            prop_assert_eq!(&walk(&state, from, to, Layered::Up), &some);
            let mut down = walk(&state, from, to, Layered::Down);
            down.reverse();
            prop_assert_eq!(down, some);
        }
    }
}
