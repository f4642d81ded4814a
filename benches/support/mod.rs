//! What the gateway's benches have beside `postrider bench`, whose scenarios they play: rounds, and the arithmetic of the
//! report.
//!
//! | file | owns |
//! |---|---|
//! | `report` | medians, ratios, the table, the JSON file |
//! | `options` | the command line |
//!
//! **Invariant:** whatever is compared is driven by the same generator with bodies of the same length, in one run, taking
//! turns: other work on the machine hits all of them alike, so the ratios hold where the figures do not.

pub mod options;
pub mod report;

/// A bench that could not be run; for people.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of every body.
pub const BODY_BYTES: usize = 1_024;
