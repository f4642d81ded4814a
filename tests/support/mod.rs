//! The gateway from outside: the real binary as a child process, and the plain HTTP that its neighbours speak. Everything
//! here blocks, so that a test reads like the story it tells.
//!
//! A test takes the files it needs (`#[path = "../support/mod.rs"] mod support;`); nothing of the crate is used.

pub mod client;
pub mod gateway;
pub mod receiver;

use std::time::Duration;

/// How long a test waits for what must come; far more than it takes, and an error when it passes.
pub const PATIENCE: Duration = Duration::from_secs(60);
