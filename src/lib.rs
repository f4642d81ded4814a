//! postrider: a durable webhook gateway in one binary.
//!
//! Modules depend on each other in one direction only:
//! `core ← env ← journal ← index ← store ← engine ← {ingress, egress, api} ← daemon ← cli`; `config` knows `core` only and
//! `telemetry` nothing. See `docs/ARCHITECTURE.md`.

pub mod core;
pub mod engine;
pub mod env;
pub mod store;
pub mod telemetry;
