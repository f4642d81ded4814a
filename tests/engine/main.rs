//! The engine over the store in memory and a scripted courier, on time that jumps.

mod delivery;
mod stopping;
mod virtual_week;
mod world;
