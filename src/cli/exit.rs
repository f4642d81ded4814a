//! Exit codes, and what a command fails with. The numbers are a contract: scripts and supervisors act on them.

use std::fmt::{self, Display};
use std::process::ExitCode;

use super::out::note;
use crate::core::error::chain;

/// All went well.
pub const OK: u8 = 0;
/// A negative verdict: a signature that is not right, a request that the gateway refused, damage that was found.
pub const NEGATIVE: u8 = 1;
/// The command line is not one that the program takes.
pub const USAGE: u8 = 2;
/// The configuration is wrong, or a file that it names can't be read.
pub const CONFIG: u8 = 3;
/// Another process holds the store.
pub const HELD: u8 = 4;
/// The store is damaged; `postrider journal verify` says where.
pub const DAMAGED: u8 = 5;
/// Reading or writing the store, or another file, failed.
pub const STORAGE: u8 = 6;
/// The gateway does not answer.
pub const UNREACHABLE: u8 = 7;
/// An address can't be listened on.
pub const BIND: u8 = 8;
/// Ended at once by a second interrupt, as a shell tells an interrupt.
pub const INTERRUPTED: u8 = 130;

/// What `--help` says of the codes.
pub const HELP: &str = "Exit codes: 0 ok, 1 negative verdict or damage found, 2 usage, 3 configuration, 4 store held by \
                        another process, 5 store damaged, 6 storage I/O failed, 7 server unreachable, 8 cannot bind, 130 \
                        interrupted twice";

/// Why a command ended early.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: Option<String>,
}

impl Failure {
    /// Ends with `code` and says why on stderr.
    pub(super) fn new(code: u8, message: impl Display) -> Self {
        Self { code, message: Some(message.to_string()) }
    }

    /// Like [`Failure::new`], with the causes of the error after it.
    pub(super) fn from_error(code: u8, error: &dyn std::error::Error) -> Self {
        Self::new(code, chain(error))
    }

    /// The command line asks for something that can't be.
    pub(super) fn usage(message: impl Display) -> Self {
        Self::new(USAGE, format_args!("{message}; see --help"))
    }

    /// Whoever read the output has seen enough, as `head` does: that is no failure.
    pub(super) const fn nobody_reads() -> Self {
        Self { code: OK, message: None }
    }

    /// Says why, and gives the code.
    pub(super) fn report(&self) -> ExitCode {
        if let Some(message) = &self.message {
            note(format_args!("error: {message}"));
        }
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or("nobody reads the output"))
    }
}

impl std::error::Error for Failure {}
