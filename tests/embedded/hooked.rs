//! A disk in memory that asks first: a test can look at the disk, hold an operation up, or let it fail or panic.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use postrider::env::{Disk, DiskFile, MemDisk, MemFile, Space};

/// What is about to be done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Reading,
    Syncing,
}

type Hook = Arc<dyn Fn(Doing) -> io::Result<()> + Send + Sync>;

/// The disk.
#[derive(Clone, Default)]
pub struct HookedDisk {
    pub inner: MemDisk,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl HookedDisk {
    /// Asks `hook` before everything from now on.
    pub fn ask(&self, hook: impl Fn(Doing) -> io::Result<()> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    fn asked(&self, doing: Doing) -> io::Result<()> {
        // Not under the lock: what is held up must not hold up others.
        let hook = self.hook.lock().unwrap().clone();
        hook.map_or(Ok(()), |hook| hook(doing))
    }

    fn file(&self, inner: MemFile) -> HookedFile {
        HookedFile { inner, disk: self.clone() }
    }
}

/// An open file of it.
pub struct HookedFile {
    inner: MemFile,
    disk: HookedDisk,
}

impl Disk for HookedDisk {
    type File = HookedFile;

    fn create_new(&self, path: &Path) -> io::Result<HookedFile> {
        self.inner.create_new(path).map(|file| self.file(file))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<HookedFile> {
        self.inner.open(path, write).map(|file| self.file(file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.inner.unlink(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.inner.space(dir)
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.asked(Doing::Reading)?;
        self.inner.read_at(buffer, offset)
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_all_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.asked(Doing::Syncing)?;
        self.inner.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.inner.sync_all()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}
