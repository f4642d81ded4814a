//! The disk, passed in.
//!
//! The traits hold exactly what durable storage needs: positioned reads and writes, and the three kinds of sync (a file's
//! data, a file with its metadata, a directory's entries). Nothing here is durable until the matching sync returned.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Room on the file system that holds a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an unprivileged process may still write.
    pub free_bytes: u64,
    /// Bytes that the file system has in all.
    pub total_bytes: u64,
}

/// A file system.
pub trait Disk: Send + Sync + 'static {
    /// An open file of this file system.
    type File: DiskFile;

    /// Creates a file for reading and writing; `AlreadyExists` if the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens an existing file for reading, and for writing too if asked.
    fn open(&self, path: &Path, write: bool) -> io::Result<Self::File>;

    /// Names of everything in a directory, in no particular order. Names that are not UTF-8 are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Renames within one file system, replacing what had the new name. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Durable after [`Disk::sync_dir`].
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory and its missing parents; durable with [`Disk::make_dir`] only.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Room on the file system that holds this directory.
    fn space(&self, dir: &Path) -> io::Result<Space>;

    /// Makes a directory and its missing parents, durably, and each before the next. The name of one that is there is made
    /// durable again, as whoever made it may have died before; where that isn't allowed (at a mount point, say), whoever made it
    /// answers for its name.
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied, ReadOnlyFilesystem};
        let mut missing = Vec::new();
        for ancestor in dir.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            match self.list(ancestor) {
                Err(error) if error.kind() == NotFound => missing.push(ancestor),
                Err(error) => return Err(error),
                Ok(_) => match self.sync_dir(parent(ancestor)) {
                    Err(error) if !matches!(error.kind(), PermissionDenied | InvalidInput | ReadOnlyFilesystem) => {
                        return Err(error);
                    }
                    _ => break,
                },
            }
        }
        missing.into_iter().rev().try_for_each(|path| {
            self.create_dir_all(path)?;
            self.sync_dir(parent(path))
        })
    }

    /// A whole file's content.
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, false)?;
        let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut content = vec![0; len];
        file.read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    /// Puts a file with this content in place, durably and all at once: after a crash it's the old one or the new one.
    fn replace_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        match self.unlink(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.create_new(&temporary)?;
        file.write_all_at(content, 0)?;
        file.sync_all()?;
        self.rename(&temporary, path)?;
        self.sync_dir(parent(path))
    }
}

/// The directory that holds a path; the current one for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// An open file. All access is positioned, so that readers and a writer can share one handle.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads into the buffer; fewer bytes than asked only at the end of the file or after an interruption.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes everything, growing the file as needed. Durable after a sync.
    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the content durable, with as much metadata as reading it back needs (fdatasync).
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the content and all metadata durable (fsync).
    fn sync_all(&self) -> io::Result<()>;

    /// Cuts the file off, or grows it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads as much of the buffer as the file has from there on, and says how much that was.
    fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Fills the buffer, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_full_at(buffer, offset)? < buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn create_new(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(write).open(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(Space {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Disk, DiskFile, RealDisk, Space, parent};
    use std::fs::File;
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    /// Remembers which directories were synced, and fails at the sync of this number.
    struct Syncs {
        done: Mutex<Vec<PathBuf>>,
        fails_at: usize,
    }

    impl Disk for Syncs {
        type File = File;

        fn create_new(&self, path: &Path) -> io::Result<File> {
            RealDisk.create_new(path)
        }

        fn open(&self, path: &Path, write: bool) -> io::Result<File> {
            RealDisk.open(path, write)
        }

        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            RealDisk.list(dir)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            RealDisk.rename(from, to)
        }

        fn unlink(&self, path: &Path) -> io::Result<()> {
            RealDisk.unlink(path)
        }

        fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
            RealDisk.create_dir_all(dir)
        }

        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            let mut done = self.done.lock().unwrap();
            if done.len() == self.fails_at {
                return Err(io::Error::other("told to fail"));
            }
            done.push(dir.to_owned());
            Ok(())
        }

        fn space(&self, dir: &Path) -> io::Result<Space> {
            RealDisk.space(dir)
        }
    }

    #[test]
    fn whenever_the_making_of_directories_ends_the_next_time_makes_every_name_durable() {
        for fails_at in 0..5 {
            let home = tempfile::tempdir().unwrap();
            let dir = home.path().join("a/b/c");
            let disk = Syncs { done: Mutex::default(), fails_at };
            assert_eq!(disk.make_dir(&dir).is_err(), fails_at < 4);
            let disk = Syncs { fails_at: usize::MAX, ..disk };
            disk.make_dir(&dir).unwrap();
            let done = disk.done.into_inner().unwrap();
            for made in dir.ancestors().take(3) {
                assert!(done.iter().any(|synced| synced == parent(made)), "{}, {fails_at}", made.display());
            }
        }
    }

    #[test]
    fn a_real_file_is_written_replaced_listed_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("one");
        RealDisk.replace_file(&path, b"first").unwrap();
        RealDisk.replace_file(&path, b"second").unwrap();
        assert_eq!(RealDisk.read_file(&path).unwrap(), b"second");
        assert_eq!(RealDisk.list(home.path()).unwrap(), ["one"]);
        let taken = RealDisk.create_new(&path).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        RealDisk.unlink(&path).unwrap();
        let space = RealDisk.space(home.path()).unwrap();
        assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes);
    }

    #[test]
    fn a_directory_is_made_with_its_parents_and_again_is_no_error() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/b/c");
        RealDisk.make_dir(&dir).unwrap();
        RealDisk.make_dir(&dir).unwrap();
        RealDisk.create_new(&dir.join("f")).unwrap();
        RealDisk.make_dir(&dir).unwrap();
        assert_eq!(RealDisk.list(&dir).unwrap(), ["f"]);
        assert!(RealDisk.make_dir(&dir.join("f/below")).is_err());
    }

    #[test]
    fn reading_past_the_end_is_a_short_read_or_an_error() {
        let home = tempfile::tempdir().unwrap();
        let file = RealDisk.create_new(&home.path().join("f")).unwrap();
        file.write_all_at(b"abc", 2).unwrap();
        let mut buffer = [9; 8];
        assert_eq!(file.read_full_at(&mut buffer, 1).unwrap(), 4);
        assert_eq!(&buffer[..4], b"\0abc");
        let error = file.read_exact_at(&mut buffer, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
