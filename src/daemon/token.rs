//! The management token: made at the first start, kept by the client in plain text and by the gateway as SHA-256.
//!
//! `DATA/token` (or `--token-file`) is the client's copy, readable by its owner alone. `DATA/token.sha256` is what the gateway
//! goes by: the plain file may be moved away and the token still holds. A plain file with other content replaces the
//! token; deleting both makes a new one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::env::{Disk, Entropy, RealDisk, parent};

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 512;

/// Shortest token that is accepted from a file, in bytes.
const TOKEN_BYTES_MIN: usize = 16;

/// The token can't be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A file can't be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not hold a token.
    #[error("{}: expected a token of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible ASCII characters; delete the file to have one made", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
    },
}

/// The token as the gateway goes by it.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    /// SHA-256 of it.
    pub sha256: [u8; 32],
    /// It was made just now.
    pub new: bool,
}

/// Where the client's copy of the token is.
pub fn token_path(data: &Path, token_file: Option<&Path>) -> PathBuf {
    token_file.map_or_else(|| data.join("token"), Path::to_owned)
}

/// Finds the token, or makes one. `data` exists.
pub fn prepare(data: &Path, token_file: Option<&Path>, entropy: &dyn Entropy) -> Result<Token, TokenError> {
    let plain = token_path(data, token_file);
    let hashed = data.join("token.sha256");
    if let Some(token) = read(&plain)? {
        let token = token.trim_end_matches(['\r', '\n']);
        let fits = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len());
        if !fits || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TokenError::Unusable { path: plain });
        }
        warn_if_readable(&plain);
        let sha256 = Sha256::digest(token.as_bytes()).into();
        keep_hash(&hashed, sha256)?;
        return Ok(Token { sha256, new: false });
    }
    if let Some(hex) = read(&hashed)? {
        let digest = HEXLOWER.decode(hex.trim_end().as_bytes()).ok().and_then(|d| <[u8; 32]>::try_from(d).ok());
        let sha256 = digest.ok_or(TokenError::Unusable { path: hashed })?;
        return Ok(Token { sha256, new: false });
    }
    let mut random = [0; 32];
    entropy.fill(&mut random);
    let token = format!("prt_{}", HEXLOWER.encode(&random));
    write_private(&plain, &format!("{token}\n"))?;
    let sha256 = Sha256::digest(token.as_bytes()).into();
    keep_hash(&hashed, sha256)?;
    Ok(Token { sha256, new: true })
}

fn read(path: &Path) -> Result<Option<String>, TokenError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(TokenError::Unusable { path: path.to_owned() }),
        Err(source) => Err(TokenError::Io { path: path.to_owned(), source }),
    }
}

fn keep_hash(path: &Path, sha256: [u8; 32]) -> Result<(), TokenError> {
    let text = format!("{}\n", HEXLOWER.encode(&sha256));
    if read(path)?.as_deref() == Some(&text) {
        return Ok(());
    }
    write_private(path, &text)
}

/// Written beside its name and then renamed: a start that dies in the middle leaves no half a token, which the next one
/// would refuse. Made with its permissions, so that there is no moment in which others can read it.
fn write_private(path: &Path, text: &str) -> Result<(), TokenError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let write = || {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        RealDisk.sync_dir(parent(path))
    };
    write().map_err(|source| TokenError::Io { path: path.to_owned(), source })
}

fn warn_if_readable(path: &Path) {
    if let Ok(metadata) = fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "the token file can be read by other users; chmod 600 it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SeededEntropy;

    #[test]
    fn made_once_private_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let entropy = SeededEntropy::new(1);
        let first = prepare(dir.path(), None, &entropy).unwrap();
        assert!(first.new);
        let path = dir.path().join("token");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = prepare(dir.path(), None, &entropy).unwrap();
        assert_eq!((again.sha256, again.new), (first.sha256, false));
        // The client may take its copy away.
        fs::remove_file(&path).unwrap();
        assert_eq!(prepare(dir.path(), None, &entropy).unwrap().sha256, first.sha256);
        assert!(!path.exists());
        // A plain file with other content replaces the token.
        fs::write(&path, "another-token-of-mine\n").unwrap();
        let other = prepare(dir.path(), None, &entropy).unwrap();
        assert_eq!(other.sha256, <[u8; 32]>::from(Sha256::digest(b"another-token-of-mine")));
        fs::remove_file(&path).unwrap();
        assert_eq!(prepare(dir.path(), None, &entropy).unwrap().sha256, other.sha256);
    }

    #[test]
    fn a_start_that_died_while_it_made_the_token_leaves_nothing_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        for half in ["", "prt_0123"] {
            fs::write(dir.path().join("token.tmp"), half).unwrap();
            fs::write(dir.path().join("token.sha256.tmp"), half).unwrap();
            let made = prepare(dir.path(), None, &SeededEntropy::new(1)).unwrap();
            assert!(made.new);
            let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["token", "token.sha256"]);
            names.iter().for_each(|name| fs::remove_file(dir.path().join(name)).unwrap());
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine");
        for bad in ["", "short", "with a space in it, long", "ümlaut-ümlaut-ümlaut"] {
            fs::write(&path, bad).unwrap();
            let error = prepare(dir.path(), Some(&path), &SeededEntropy::new(1)).unwrap_err();
            assert!(matches!(error, TokenError::Unusable { .. }), "{bad}");
        }
    }
}
