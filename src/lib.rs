//! postrider: a durable webhook gateway in one binary.
//!
//! Modules depend on each other in one direction only:
//! `core ← env ← journal ← index ← store ← engine ← {ingress, egress, api} ← daemon ← cli`; `config` knows `core` only,
//! `telemetry` and `http` (the server parts that both listeners share) nothing. See `docs/ARCHITECTURE.md`.

pub mod api;
pub mod cli;
pub mod config;
pub mod core;
pub mod daemon;
pub mod egress;
pub mod engine;
pub mod env;
pub mod http;
pub mod index;
pub mod ingress;
pub mod journal;
pub mod store;
pub mod telemetry;
