//! What operators see: metrics in the Prometheus text format, and logs on stderr.
//!
//! **Invariant:** nothing of the gateway is known here; whoever counts names what is counted. No secret, body or URL goes in.

mod log;
mod metrics;

pub use log::init_logging;
pub use metrics::{Counter, Gauge, Metrics};
