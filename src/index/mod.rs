//! The one ordered key space: the fold of the journal, kept in one sled tree and a table in memory before it.
//!
//! First byte of a key = its family; integers are big-endian, so that byte order is logical order.
//!
//! | family | key after the first byte | value | holds | file |
//! |---|---|---|---|---|
//! | `m` | – | [`Meta`] | format, applied position, per family a count and a sum | [`meta`] |
//! | `c` | endpoint | [`EndpointNote`](crate::core::fact::EndpointNote) | who the endpoints are and whether they take deliveries | [`note`] |
//! | `d` | endpoint, event | pending or dead | deliveries that did not settle at the first try | [`delivery`] |
//! | `e` | event, 1 if carried | segment, offset | where a batch starts, by its first event; and each carried event | [`event`] |
//! | `k` | run, scope, hash | event, fingerprint, expiry | dedup keys | [`dedup`] |
//! | `q` | shard, endpoint, due, event | attempts, failures | pending deliveries in the order they fall due | [`due`] |
//! | `x` | time of death, endpoint, event | reason, attempts | dead letters | [`dead`] |
//! | `z` | event | – | events whose content was erased | [`erased`] |
//!
//! Entries of `d`, `e`, `k`, `q`, `x` and `z` share keys of sled's by the hundred (`block.rs`), and dedup keys are kept in runs by
//! time (`runs.rs`); the tables above know nothing of either.
//!
//! **Invariants**
//! - The tree is the fold of a *prefix* of the journal; the prefix's end is a key in the same atomic batch.
//! - The tree can be deleted at any time: nothing is in it that the journal does not say.
//! - No event bytes, response bytes or texts of dedup keys are in it.
//! - A key that is new is not searched for in sled where memory can tell: nearly every dedup key is.
//! - A delivery that settles before the table in memory is applied never reaches sled: it cancels out.

mod apply;
mod block;
pub mod dead;
pub mod dedup;
pub mod delivery;
pub mod due;
pub mod erased;
pub mod event;
mod fold;
mod home;
mod key;
mod keys;
mod ledger;
mod merging;
pub mod meta;
pub mod note;
mod reads;
mod runs;
mod state;
mod table;
mod tree;
mod tree_mem;

pub use fold::{Effects, Place, entry_of, fold, is_fresh};
pub use home::Home;
pub use ledger::Ledger;
pub use meta::{Applied, Meta};
pub use state::{Layered, State};
pub use table::Table;
pub use tree::{Tree, TreeError};
pub use tree_mem::MemTree;

/// First bytes of the keys that are counted and summed.
pub const FAMILIES: [u8; 7] = [b'c', b'd', b'e', b'k', b'q', b'x', b'z'];
