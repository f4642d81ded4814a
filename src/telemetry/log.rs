//! Logs: `tracing` events as lines on stderr, so that stdout stays for data.

use std::io;

use tracing::level_filters::LevelFilter;

/// Sends log lines of `level` and above to stderr. Later calls change nothing.
pub fn init_logging(level: LevelFilter) {
    // An embedding program or another test may have set a subscriber before; theirs stays.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .try_init();
}
