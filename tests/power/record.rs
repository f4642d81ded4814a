//! The shim's record, read.

use std::fs;
use std::path::Path;

/// One entry. Paths are as the process named them.
#[derive(Debug, Clone)]
pub enum Record {
    /// A process began; it has no files open.
    Start,
    /// A file or directory was opened; `made` and `cut` say what that changed.
    Open {
        fd: i32,
        path: String,
        made: bool,
        cut: bool,
    },
    Close {
        fd: i32,
    },
    Write {
        fd: i32,
        at: u64,
        bytes: Vec<u8>,
    },
    /// A sync began. What came before it is durable when its end is recorded.
    SyncBegin {
        fd: i32,
        ticket: u64,
    },
    SyncEnd {
        ticket: u64,
        worked: bool,
    },
    Truncate {
        fd: i32,
        len: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    /// A file or an empty directory went.
    Remove {
        path: String,
    },
    MakeDir {
        path: String,
    },
    /// Bytes that are about to leave through a socket.
    Send {
        bytes: Vec<u8>,
    },
    /// A call failed, by itself or because it was told to.
    Failed {
        kind: u64,
    },
    /// The fault that was asked for begins.
    Fault,
}

const HEAD_BYTES: usize = 28;

/// The kinds of calls by the shim's numbers.
pub const KINDS: [&str; 8] = ["open", "write", "sync", "rename", "unlink", "truncate", "mkdir", "read"];

/// Reads a whole record.
pub fn read(log: &Path) -> Vec<Record> {
    let bytes = fs::read(log).unwrap();
    let mut rest = &bytes[..];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (head, after) = rest.split_at(HEAD_BYTES);
        let len = u32::from_le_bytes(head[24..28].try_into().unwrap()) as usize;
        let (data, after) = after.split_at(len);
        records.push(parse(head, data));
        rest = after;
    }
    records
}

fn parse(head: &[u8], data: &[u8]) -> Record {
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
    let (fd, a, b) = (i32::from_le_bytes(head[4..8].try_into().unwrap()), number(8), number(16));
    let text = || String::from_utf8(data.to_vec()).unwrap();
    match head[0] {
        1 => Record::Start,
        2 => Record::Open { fd, path: text(), made: a & 1 != 0, cut: a & 2 != 0 },
        3 => Record::Close { fd },
        4 => Record::Write { fd, at: a, bytes: data.to_vec() },
        5 => Record::SyncBegin { fd, ticket: a },
        6 => Record::SyncEnd { ticket: a, worked: b == 1 },
        7 => Record::Truncate { fd, len: a },
        8 => {
            let both = text();
            let (from, to) = both.split_once('\0').unwrap();
            Record::Rename { from: from.to_owned(), to: to.to_owned() }
        }
        9 | 11 => Record::Remove { path: text() },
        10 => Record::MakeDir { path: text() },
        12 => Record::Send { bytes: data.to_vec() },
        13 => Record::Failed { kind: a },
        14 => Record::Fault,
        kind => panic!("the shim records nothing of kind {kind}"),
    }
}
