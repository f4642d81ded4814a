//! A disk that takes everything and keeps nothing, so that only the journal's own work is measured.

use std::hint::black_box;
use std::io;
use std::path::Path;

use postrider::env::{Disk, DiskFile, Space};

/// The disk.
pub struct NoDisk;

/// A file of it.
pub struct NoFile;

impl Disk for NoDisk {
    type File = NoFile;

    fn create_new(&self, _: &Path) -> io::Result<NoFile> {
        Ok(NoFile)
    }

    fn open(&self, _: &Path, _: bool) -> io::Result<NoFile> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn unlink(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: u64::MAX, total_bytes: u64::MAX })
    }
}

impl DiskFile for NoFile {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_all_at(&self, buffer: &[u8], _: u64) -> io::Result<()> {
        black_box(buffer);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
}
