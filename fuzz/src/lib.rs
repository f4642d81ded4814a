//! The bodies of the fuzz targets: plain functions over bytes, each of which fails when something that always holds does not.
//!
//! libFuzzer calls them with whatever it thinks of (`fuzz_targets/`), and `tests/fuzz_corpus.rs` of the gateway, which takes
//! this file in as a module, with what is committed under `corpus/`. So nothing here needs a nightly toolchain; fuzzing does:
//!
//! ```text
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run --sanitizer none journal /tmp/found fuzz/corpus/journal -- -max_total_time=1800 -max_len=8192
//! ```
//!
//! There is no unsafe code of ours for a sanitizer to watch, and without one it is twice as fast. An input that fails becomes
//! a file of the corpus with a telling name, and where it shows a bug of the gateway also an ordinary test.
//!
//! | target | what it is fed | what must hold beside "no panic, no hang, no memory without bound" |
//! |---|---|---|
//! | `config` | a configuration file | errors name a line that exists; no secret is told; reading twice gives the same |
//! | `facts` | a record's meta | decoding what was encoded gives the same fact, in no more bytes |
//! | `http` | a connection's bytes | only a payload that was signed is stored, byte for byte; a 200 stands for each |
//! | `journal` | damage done to a journal's files | what reads back was written; sound by `verify` = can be opened and read; salvage leaves a sound journal |
//! | `keys` | a key and a value | decoding then encoding gives the same bytes; order of bytes = order of parts |
//! | `names` | URLs, ranges, patterns, ids | written and read again they are the same; patterns match as their definition says |
//! | `signature` | a scheme, headers, a body | nothing verifies that was not signed; what is signed verifies; a changed body does not |
//! | `store` | the dice of a simulated run | no promise of the store is broken, as the model of `tests/sim` judges |
//! | `times` | Retry-After, RFC 3339 | written and read again they are the same; digits mean what they say |

pub mod config;
pub mod facts;
pub mod http;
mod input;
pub mod journal;
pub mod keys;
pub mod names;
pub mod signature;
pub mod store;
pub mod times;

/// A target's name, which is also that of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 9] = [
    ("config", config::run),
    ("facts", facts::run),
    ("http", http::run),
    ("journal", journal::run),
    ("keys", keys::run),
    ("names", names::run),
    ("signature", signature::run),
    ("store", store::run),
    ("times", times::run),
];
