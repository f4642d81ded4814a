//! The embedded store against what a disk, a crash, time and a flood do to it: through the public interface, with small
//! segments, on real files and on a disk in memory that fails when told to.

mod damage;
mod lives;
mod retention;
mod story;
mod support;
