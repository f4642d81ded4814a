//! What the real binary does when it is killed, stopped, crowded out or handed a broken disk, seen from outside.
//!
//! `rounds` kills it at random moments under load (`CRASH_ROUNDS`, 20 if not set; `CRASH_SEED` makes the same events and the
//! same lives again, though never to the microsecond). `outside` is how it starts and stops.

mod audit;
mod endpoints;
mod event;
mod ledger;
mod load;
mod outside;
mod rounds;
#[path = "../support/mod.rs"]
mod support;
