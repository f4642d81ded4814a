//! The command line from outside: the real binary, its output, its exit codes.

mod bench;
mod config;
mod demo;
mod gateway;
mod help;
mod journal;
mod signatures;
mod support;
