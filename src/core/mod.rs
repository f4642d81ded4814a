//! The words and rules of a webhook gateway, as pure data and functions.
//!
//! **Invariant:** nothing here reads a clock, draws a random number, does I/O, logs, or knows tokio, hyper or sled. Time and
//! chance are passed in, so every rule can be tested, replayed and simulated.

pub mod attempt;
pub mod cidr;
pub mod delivery;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod fact;
pub mod headers;
pub mod id;
pub mod limits;
pub mod passing;
pub mod pattern;
pub mod retry;
pub mod secret;
pub mod signature;
pub mod time;
pub mod url;
