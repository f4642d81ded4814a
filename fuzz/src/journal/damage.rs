//! Operations on the files of a journal, as an input asks for them.

use std::path::{Path, PathBuf};

use postrider::env::{Disk, DiskFile, MemDisk};

use super::super::input::Input;
use super::build::dir;

/// What may be asked of the reading side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// So few flipped bits that every checksum notices them.
    Flips(usize),
    /// Anything, also files and checksums that somebody made up.
    Forged,
}

/// A CRC32C notices every change of up to this many bits.
const FLIPS_NOTICED_MAX: usize = 3;
/// Operations of one input.
const OPERATIONS_MAX: usize = 12;
/// Bytes that a file is grown to at most.
const FILE_BYTES_MAX: u64 = 96 << 10;

const HEADER_BYTES: usize = 4096;
const TRAILER_BYTES: usize = 256;
const FRAME_HEAD_BYTES: usize = 48;

/// Names that a file may get: those of segments and spares, of the list of erasures, and one that means nothing.
const NAMES: [&str; 8] = [
    "seg-0000000000000001.wal",
    "seg-0000000000000002.wal",
    "seg-0000000000000004.wal",
    "seg-0000000000000005.wal",
    "seg-ffffffffffffffff.wal",
    "spare-0000000000000003.wal",
    "erase.todo",
    "something",
];

/// Does what the input says to the files, and says what that amounts to.
pub fn apply(disk: &MemDisk, operations: &[u8]) -> Damage {
    let mut input = Input::new(operations);
    let (mut flips, mut is_forged) = (0, false);
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        let operation = input.u8() % 6;
        if operation == 0 {
            flips += usize::from(flip(disk, &mut input));
        } else {
            is_forged = true;
            change(disk, operation, &mut input);
        }
    }
    if is_forged || flips > FLIPS_NOTICED_MAX { Damage::Forged } else { Damage::Flips(flips) }
}

/// Flips a bit; false when there is no file to do it to.
fn flip(disk: &MemDisk, input: &mut Input<'_>) -> bool {
    let (which, at, bit) = (input.u8(), u64::from(input.u16()), input.u8() % 8);
    let Some((path, mut content)) = file(disk, which) else { return false };
    let at = at as usize % content.len().max(1);
    match content.get_mut(at) {
        Some(byte) => *byte ^= 1 << bit,
        None => return false,
    }
    put(disk, &path, &content);
    true
}

fn change(disk: &MemDisk, operation: u8, input: &mut Input<'_>) {
    let (which, at) = (input.u8(), usize::from(input.u16()));
    let name = dir().join(NAMES[usize::from(input.u8()) % NAMES.len()]);
    let existing = file(disk, which);
    match (operation, existing) {
        // Bytes written over others, or after them.
        (1, Some((path, mut content))) => {
            let len = usize::from(input.u8());
            let bytes = input.take(len);
            content.resize(content.len().max(at + bytes.len()), 0);
            content[at..at + bytes.len()].copy_from_slice(bytes);
            put(disk, &path, &content);
        }
        // Cut off, or grown with zeros.
        (2, Some((path, mut content))) => {
            content.resize(at, 0);
            put(disk, &path, &content);
        }
        (3, Some((path, _))) => disk.unlink(&path).expect("it is there"),
        // Under another name, in whose place whatever it is.
        (4, Some((path, _))) => disk.rename(&path, &name).expect("it is there"),
        // A file of its own, of bytes of the input; the last operation, as it takes them all.
        (5, _) => put(disk, &name, input.rest()),
        _ => {}
    }
}

/// The file of this number, in the order of names.
fn file(disk: &MemDisk, which: u8) -> Option<(PathBuf, Vec<u8>)> {
    let mut names = disk.list(dir()).expect("a directory");
    names.sort();
    let path = dir().join(names.get(usize::from(which) % names.len().max(1))?);
    let content = disk.read_file(&path).expect("it is there");
    Some((path, content))
}

fn put(disk: &MemDisk, path: &Path, content: &[u8]) {
    let file = match disk.open(path, true) {
        Ok(file) => file,
        Err(_) => disk.create_new(path).expect("the name is free"),
    };
    let len = (content.len() as u64).min(FILE_BYTES_MAX);
    file.set_len(len).expect("there is room");
    file.write_all_at(&content[..len as usize], 0).expect("there is room");
}

/// Makes the checksums of every segment right: those of its header, its frames and its trailer.
pub fn reseal(disk: &MemDisk) {
    for name in disk.list(dir()).expect("a directory") {
        let path = dir().join(&name);
        let mut content = disk.read_file(&path).expect("it is there");
        if name.starts_with("seg-") && content.len() >= HEADER_BYTES {
            checksum(&mut content[..HEADER_BYTES]);
            reseal_frames(&mut content);
            let trailer_at = content.len() - TRAILER_BYTES;
            if trailer_at >= HEADER_BYTES && content[trailer_at..].starts_with(b"PRJE") {
                checksum(&mut content[trailer_at..]);
            }
            put(disk, &path, &content);
        }
    }
}

/// A block whose last four bytes are the checksum of the others.
fn checksum(block: &mut [u8]) {
    let at = block.len() - 4;
    let crc = crc32c::crc32c(&block[..at]);
    block[at..].copy_from_slice(&crc.to_le_bytes());
}

/// Frames one after the other, as far as their lengths go; `frame.rs` of the journal has the layout.
fn reseal_frames(content: &mut [u8]) {
    let mut at = HEADER_BYTES;
    let mut prev_crc = None;
    while let Some(frame) = content.get_mut(at..).filter(|frame| frame.starts_with(b"PRJF")) {
        if frame.len() < FRAME_HEAD_BYTES {
            return;
        }
        let number = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
        let (total_len, meta_len) = (number(frame, 4), number(frame, 40));
        let Some(metas) = FRAME_HEAD_BYTES.checked_add(meta_len).filter(|end| *end <= frame.len()) else { return };
        if let Some(prev_crc) = prev_crc {
            frame[32..36].copy_from_slice(&u32::to_le_bytes(prev_crc));
        }
        // The incarnation and the checksum itself count as zeros.
        let mut covered = frame[..metas].to_vec();
        covered[8..16].fill(0);
        covered[44..48].fill(0);
        let crc = crc32c::crc32c(&covered);
        frame[44..48].copy_from_slice(&crc.to_le_bytes());
        prev_crc = Some(crc);
        at = match at.checked_add(total_len.max(1)) {
            Some(next) => next,
            None => return,
        };
    }
}
