//! What both listeners share of HTTP: accepting connections, bounding requests in size and time, and JSON answers.
//!
//! | file | owns |
//! |---|---|
//! | `serve` | the accept loop, connections and their end |
//! | `conn` | the phase that a connection is in, which decides how long it may stay there |
//! | `head` | checks on a request's head that hyper leaves to us |
//! | `body` | reading a body within its limits |
//! | `budget` | bytes of bodies in memory over all requests |
//! | `reply` | JSON answers and problem bodies |
//! | `content` | the body of an answer, in memory or made while it leaves |
//!
//! **Invariants**
//! - Nothing of the gateway is known here: no source, no event, no store.
//! - HTTP/1.1 only. Providers post one small request at a time, so multiplexing gains nothing, while HTTP/2 would bring
//!   its floods (100,000 PING or SETTINGS frames are answered by the library without a limit) to a port open to anyone.
//! - No parser of our own beside hyper's: two readings of one request are what request smuggling is made of.

mod body;
mod budget;
mod conn;
mod content;
mod head;
mod reply;
mod serve;

pub use body::{BodyError, BodyLimits, read_body, read_body_within};
pub use budget::{MemoryBudget, Reservation};
pub use content::{Chunks, Content, Stream};
pub use head::{HeadError, TARGET_BYTES_MAX, check_head};
pub use reply::{ProblemCode, Reply, close, json, json_with_room, problem, with_allow, with_retry_after};
pub use serve::{ServerLimits, serve, serve_connection};
