//! From pending deliveries to attempts and back: what is due, who may start, what follows.
//!
//! [`Lane`] and [`Plan`] decide and are pure: told the time and what happened, they say what to start, what to load and when
//! to wake. [`Engine`] performs: one task owns the plan, and every attempt is a task of its own.
//!
//! **Invariant:** no sockets and no storage layout here. The engine proposes attempts to a [`Courier`] and tells the store
//! how they ended.

mod attempt;
mod courier;
mod horizon;
mod lane;
mod log;
mod pace;
mod plan;
mod run;

pub use courier::{Courier, Job, Report};
pub use horizon::Horizon;
pub use lane::{Lane, Load, Readiness, Release};
pub use pace::Health;
pub use plan::{Order, Plan};
pub use run::{Drained, Engine, EngineError, Stop};
