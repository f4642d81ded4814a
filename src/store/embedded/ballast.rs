//! The ballast: a file of zeros that is given up when the disk is full, so that a store which stopped for want of room can
//! start again, let its deliveries go on and drop what is past retention. Intake stays closed until there is room.

use std::io;
use std::path::{Path, PathBuf};

use crate::core::error::chain;
use crate::core::limits::StoreLimits;
use crate::env::{Disk, DiskFile};

/// Bytes written at once.
const CHUNK_BYTES: usize = 1 << 20;

fn path(data: &Path) -> PathBuf {
    data.join("ballast")
}

/// Bytes that a start needs: a new segment, and something for the key space.
pub(super) fn ballast_bytes(limits: &StoreLimits) -> u64 {
    limits.segment_bytes + limits.segment_bytes.min(8 << 20)
}

/// Makes the ballast while there is plenty of room. Without it everything works, only a full disk is harder to leave.
pub(super) fn take_on<D: Disk>(disk: &D, data: &Path, limits: &StoreLimits) {
    let bytes = ballast_bytes(limits);
    let roomy = disk.space(data).is_ok_and(|space| space.free_bytes > limits.free_bytes_min.saturating_add(2 * bytes));
    let whole = disk.open(&path(data), false).and_then(|file| file.len()).is_ok_and(|len| len >= bytes);
    if !roomy || whole {
        return;
    }
    // A process that was killed over it left it too light.
    give_up(disk, data);
    if let Err(error) = write(disk, &path(data), bytes) {
        tracing::warn!(error = %error, "no ballast was made");
        give_up(disk, data);
    }
}

fn write<D: Disk>(disk: &D, path: &Path, bytes: u64) -> io::Result<()> {
    let file = disk.create_new(path)?;
    let zeros = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let chunk = (bytes - offset).min(CHUNK_BYTES as u64);
        file.write_all_at(&zeros[..chunk as usize], offset)?;
        offset += chunk;
    }
    file.sync_all()
}

/// Whether an error comes down to a full disk.
pub(super) fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = match error.downcast_ref::<sled::Error>() {
            // sled does not name its cause.
            Some(sled::Error::Io(io)) => Some(io),
            _ => error.downcast_ref::<io::Error>(),
        };
        if io.is_some_and(|e| e.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Gives the ballast up; true when there was one.
pub(super) fn give_up<D: Disk>(disk: &D, data: &Path) -> bool {
    match disk.unlink(&path(data)) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the ballast can't be removed");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::MemDisk;

    #[test]
    fn taken_on_once_and_given_up_once() {
        let disk = MemDisk::new();
        let data = Path::new("/data");
        disk.create_dir_all(data).unwrap();
        let limits = StoreLimits { segment_bytes: 1 << 20, free_bytes_min: 0, ..StoreLimits::default() };
        take_on(&disk, data, &limits);
        let len = |disk: &MemDisk| disk.open(&path(data), false).and_then(|file| file.len());
        assert_eq!(len(&disk).unwrap(), 2 << 20);
        take_on(&disk, data, &limits);
        assert_eq!(len(&disk).unwrap(), 2 << 20);
        give_up(&disk, data);
        disk.create_new(&path(data)).unwrap().write_all_at(&[0; 10], 0).unwrap();
        take_on(&disk, data, &limits);
        assert_eq!(len(&disk).unwrap(), 2 << 20, "one that was cut short is made anew");
        assert!(give_up(&disk, data));
        assert!(!give_up(&disk, data));
        let crowded = StoreLimits { free_bytes_min: u64::MAX / 2, ..limits };
        take_on(&disk, data, &crowded);
        assert!(len(&disk).is_err());
    }
}
