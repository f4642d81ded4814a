//! The management listener from outside, over real sockets and the store in memory.

mod access;
mod dead_and_replay;
mod messages;
mod operation;
mod publish;
mod schema;
mod support;
