//! The embedded store against what a disk, a crash, time and a flood do to it: through the public interface, with small
//! segments, on real files and on a disk in memory that fails when told to.

mod backlog;
mod backup;
mod behind;
mod carried;
mod concurrency;
mod damage;
mod erasure;
mod failures;
mod hooked;
mod index_damage;
mod journal_damage;
mod lag;
mod lives;
mod moments;
mod retention;
mod salvage;
#[path = "../support/store.rs"]
mod store;
mod story;
mod support;
mod unreadable;
