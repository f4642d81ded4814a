//! From pending deliveries to attempts and back: what is due, who may start, what follows.
//!
//! **Invariant:** no sockets and no storage layout here. The engine proposes attempts to a [`Courier`] and tells the store
//! how they ended.

mod courier;

pub use courier::{Courier, Job, Report};
