//! The checkpoint: what must outlive the segments that said it. Today that is the standing of the endpoints.
//!
//! Written whenever a segment is sealed (temporary file, fsync, rename), and read when the key space is rebuilt. A segment
//! is dropped only when a checkpoint covers it.

use std::io;
use std::path::Path;

use bincode::{Decode, Encode};

use crate::core::fact::EndpointNote;
use crate::env::Disk;
use crate::index::{State, TreeError};

/// Its name in the journal's directory.
pub(super) const FILE: &str = "checkpoint";
const MAGIC: &[u8; 4] = b"PRC1";

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Checkpoint {
    /// Every frame up to this sequence number is covered.
    pub(super) sequence: u64,
    /// Every endpoint known by then.
    pub(super) notes: Vec<EndpointNote>,
}

impl Checkpoint {
    /// Of all that is folded.
    pub(super) fn of(state: &State) -> Result<Self, TreeError> {
        let sequence = state.folded().map_or(0, |applied| applied.sequence);
        super::read::all_notes(state).map(|notes| Self { sequence, notes })
    }

    /// Puts the checkpoint in the place of the one before.
    pub(super) fn write<D: Disk>(&self, disk: &D, journal_dir: &Path) -> io::Result<()> {
        disk.replace_file(&journal_dir.join(FILE), &self.encode())
    }

    /// The file's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let body = bincode::encode_to_vec(self, bincode::config::standard())
            .expect("every field of a checkpoint has an encoding");
        let mut bytes = Vec::with_capacity(body.len() + 8);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The newest checkpoint; `None` before the first. A damaged one is an error: what it said may stand nowhere else.
    pub(super) fn read<D: Disk>(disk: &D, journal_dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match disk.read_file(&journal_dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        Self::decode(&bytes).map(Some).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the checkpoint file is damaged: its checksum does not match")
        })
    }

    /// Reads what [`encode`](Self::encode) made.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (crc, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let config = bincode::config::standard().with_limit::<{ 64 << 20 }>();
        bincode::decode_from_slice(body, config).ok().map(|(checkpoint, _)| checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fact::Standing;
    use crate::core::id::EndpointId;
    use crate::env::{DiskFile, MemDisk};

    #[test]
    fn it_reads_what_it_wrote_and_notices_every_flip() {
        let disk = MemDisk::new();
        let dir = Path::new("/j");
        disk.create_dir_all(dir).unwrap();
        assert_eq!(Checkpoint::read(&disk, dir).unwrap(), None);
        let note = EndpointNote {
            id: EndpointId::from_u128(1),
            app: "default".into(),
            name: "app".into(),
            version: 3,
            standing: Standing::Gone { since_ms: 7 },
        };
        let checkpoint = Checkpoint { sequence: 9, notes: vec![note] };
        checkpoint.write(&disk, dir).unwrap();
        checkpoint.write(&disk, dir).unwrap();
        assert_eq!(Checkpoint::read(&disk, dir).unwrap(), Some(checkpoint));
        let path = dir.join(FILE);
        let bytes = disk.read_file(&path).unwrap();
        for i in 0..bytes.len() {
            disk.open(&path, true).unwrap().write_all_at(&[bytes[i] ^ 0x10], i as u64).unwrap();
            assert!(Checkpoint::read(&disk, dir).is_err(), "byte {i}");
            disk.open(&path, true).unwrap().write_all_at(&bytes[i..=i], i as u64).unwrap();
        }
    }
}
