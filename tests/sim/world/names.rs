//! Names of files and directories, as a running system sees them, or as a power cut would leave them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::inode::Inode;

#[derive(Default, Clone)]
pub struct Names {
    pub files: BTreeMap<PathBuf, Arc<Mutex<Inode>>>,
    pub dirs: BTreeSet<PathBuf>,
}

/// A change that is durable once the directory which holds the name was synced.
#[derive(Clone)]
pub enum NameChange {
    Link(PathBuf, Arc<Mutex<Inode>>),
    Unlink(PathBuf),
    MakeDir(PathBuf),
    MoveDir(PathBuf, PathBuf),
}

impl Names {
    /// Those of a disk on which `home` and what is above it have always been.
    pub fn below(home: &Path) -> Self {
        Self { files: BTreeMap::new(), dirs: home.ancestors().map(Path::to_owned).collect() }
    }

    /// What is in a directory whose own name is lost is lost with it.
    pub fn forget_orphans(&mut self) {
        let dirs = self.dirs.clone();
        let is_held = |path: &PathBuf| path.ancestors().skip(1).all(|dir| dirs.contains(dir));
        self.dirs.retain(is_held);
        self.files.retain(|path, _| is_held(path));
    }
}

impl NameChange {
    pub fn apply(&self, names: &mut Names) {
        match self {
            Self::Link(path, inode) => {
                // A file has one name, so a link of one that has another is a rename, and atomic.
                names.files.retain(|_, other| !Arc::ptr_eq(other, inode));
                names.files.insert(path.clone(), Arc::clone(inode));
            }
            Self::Unlink(path) => drop(names.files.remove(path)),
            Self::MakeDir(path) => drop(names.dirs.insert(path.clone())),
            Self::MoveDir(from, to) => {
                let files = std::mem::take(&mut names.files);
                names.files = files.into_iter().map(|(path, inode)| (moved(&path, from, to), inode)).collect();
                let dirs = std::mem::take(&mut names.dirs);
                names.dirs = dirs.iter().map(|path| moved(path, from, to)).collect();
            }
        }
    }

    /// The directory that holds the name.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::MakeDir(path) | Self::MoveDir(_, path) => path.parent(),
        }
    }

    /// Another change became durable before this one; where that moved the directory, this one follows.
    pub fn follow(&mut self, other: &Self) {
        let Self::MoveDir(from, to) = other else { return };
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::MakeDir(path) => *path = moved(path, from, to),
            Self::MoveDir(..) => {}
        }
    }
}

/// A path after a directory got another name.
fn moved(path: &Path, from: &Path, to: &Path) -> PathBuf {
    match path.strip_prefix(from) {
        // Joining nothing would add a slash.
        Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
        Ok(rest) => to.join(rest),
        Err(_) => path.to_owned(),
    }
}
