//! What a configuration is read from, beside its defaults: the environment, the file system, the command line. All of it
//! is passed in, so that tests need neither a process of their own nor a global variable.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::LogLevel;

/// Flags of the command line; each wins over every other source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config`: the file, which must exist.
    pub config: Option<PathBuf>,
    /// `--data`: the data folder.
    pub data: Option<PathBuf>,
    /// `--ingress`: the public listener.
    pub ingress: Option<SocketAddr>,
    /// `--management`: the management listener.
    pub management: Option<SocketAddr>,
    /// `--token-file`: the token's file.
    pub token_file: Option<PathBuf>,
    /// `--log`: the log level.
    pub log: Option<LogLevel>,
}

/// The environment's variables. There is no `Debug`: any of them may be a secret.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

/// A variable that isn't UTF-8.
pub(super) struct NotUtf8;

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    /// Takes what `std::env::vars_os` gives. Names that aren't UTF-8 can't be asked for and are left out.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let pair = |(name, value): (K, V)| Some((name.into().into_string().ok()?, value.into()));
        Self(variables.into_iter().filter_map(pair).collect())
    }
}

impl Environment {
    /// The value of a variable. An empty one counts as not set, as container files can't unset what they inherit.
    pub(super) fn get(&self, name: &str) -> Result<Option<&str>, NotUtf8> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let text = value.to_str().ok_or(NotUtf8)?;
        Ok(Some(text).filter(|t| !t.is_empty()))
    }

    /// The names that start so, sorted.
    pub(super) fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.keys().map(String::as_str).filter(move |name| name.starts_with(prefix))
    }
}

/// What was read from a file.
#[derive(Clone, Default)]
pub struct Content {
    /// Its bytes, at most one more than was asked for.
    pub bytes: Vec<u8>,
    /// Whether users other than its owner and group may read it.
    pub is_public: bool,
}

/// The file system.
pub trait Files {
    /// Reads a file, but no more than `bytes_max` and one, so that a wrong path can't fill the memory.
    ///
    /// # Errors
    /// Those of the operating system.
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Content>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Content> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        // Opening a folder works on Unix, and reading it fails with a message that no one understands.
        if metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let mut bytes = Vec::new();
        file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Content { bytes, is_public: is_public(&metadata) })
    }
}

#[cfg(unix)]
fn is_public(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    /// The bit that lets everyone read.
    const OTHERS_READ: u32 = 0o004;
    metadata.permissions().mode() & OTHERS_READ != 0
}

/// Access lists elsewhere say who may read; they aren't looked at.
#[cfg(not(unix))]
fn is_public(_: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_variables_count_as_not_set() {
        let environment = Environment::from_iter([("A", "1"), ("B", "")]);
        assert!(matches!(environment.get("A"), Ok(Some("1"))));
        assert!(matches!(environment.get("B"), Ok(None)));
        assert!(matches!(environment.get("C"), Ok(None)));
    }

    #[test]
    fn files_are_read_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [b'x'; 100]).unwrap();
        assert_eq!(SystemFiles.read(&path, 200).unwrap().bytes.len(), 100);
        assert_eq!(SystemFiles.read(&path, 10).unwrap().bytes.len(), 11);
        assert_eq!(SystemFiles.read(dir.path(), 10).err().unwrap().kind(), io::ErrorKind::IsADirectory);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_all_may_read_is_public() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        for (mode, public) in [(0o600, false), (0o640, false), (0o644, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(SystemFiles.read(&path, 10).unwrap().is_public, public, "{mode:o}");
        }
    }
}
