//! Pages over an ordered map, newest first: the one rule for cursors that both listings follow.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::store::types::{Cursor, Page};

/// The page of `map` that `cursor` and `limit` ask for, of those entries that `pick` takes.
///
/// The entries come newest first whichever way the walk goes. `next` is the key of the last one in the direction of the
/// walk, and only there when the walk has more to give.
pub(super) fn page<K: Ord + Copy, V, T>(
    map: &BTreeMap<K, V>,
    cursor: Cursor<K>,
    limit: usize,
    pick: impl Fn(&K, &V) -> Option<T>,
) -> Page<T, K> {
    let picked = |(key, value): (&K, &V)| pick(key, value).map(|entry| (*key, entry));
    // One more than asked for tells whether anything is left.
    let take = limit.saturating_add(1);
    let newer = matches!(cursor, Cursor::NewerThan(_));
    let mut walk: Vec<(K, T)> = match cursor {
        Cursor::Start => map.iter().rev().filter_map(picked).take(take).collect(),
        Cursor::OlderThan(key) => map.range(..key).rev().filter_map(picked).take(take).collect(),
        Cursor::NewerThan(key) => {
            map.range((Bound::Excluded(key), Bound::Unbounded)).filter_map(picked).take(take).collect()
        }
    };
    let more = walk.len() > limit;
    walk.truncate(limit);
    let next = if more { walk.last().map(|(key, _)| *key) } else { None };
    if newer {
        walk.reverse();
    }
    Page { data: walk.into_iter().map(|(_, entry)| entry).collect(), next, unreadable: 0 }
}
