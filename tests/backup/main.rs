//! Backup and restore from outside, with the real binary: under load, cut short, refused; two processes on one data
//! directory; and data directories and backups that earlier versions wrote.

mod cut;
mod load;
mod place;
mod refused;
mod samples;
#[path = "../support/mod.rs"]
mod support;
