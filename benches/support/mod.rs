//! What the gateway's benches are made of: a load generator, the things it is pointed at, and the arithmetic of the report.
//!
//! | file | owns |
//! |---|---|
//! | `load` | connections that send prepared requests in a closed loop |
//! | `request` | the bytes of those requests |
//! | `server` | the gateway and the bare server, each a process of its own |
//! | `sink` | the endpoint that deliveries arrive at |
//! | `disk` | what the disk does without any HTTP |
//! | `machine` | processor time, bytes written, and which machine this is |
//! | `report` | medians, ratios, the table, the JSON file |
//! | `options` | the command line |
//!
//! **Invariant:** whatever is compared is driven by the same generator with bodies of the same length, in one run, taking
//! turns: other work on the machine hits all of them alike, so the ratios hold where the figures do not.

pub mod disk;
pub mod load;
pub mod machine;
pub mod options;
pub mod report;
pub mod request;
pub mod server;
pub mod sink;

/// A bench that could not be run; for people.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of every body.
pub const BODY_BYTES: usize = 1_024;
