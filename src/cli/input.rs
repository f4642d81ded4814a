//! What commands have in common: reading bodies, header fields, secrets and settings, and a bar that shows progress.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::exit::{self, Failure};
use crate::config::{Config, ConfigErrors, Environment, Overrides, SystemFiles, resolve_secret};
use crate::core::headers::Headers;
use crate::core::secret::Secret;

/// Bytes of a body that are read: more than any listener takes.
const BODY_BYTES_MAX: u64 = 256 << 20;

/// Which configuration and data directory a command is about.
#[derive(Debug, Default, clap::Args)]
pub(super) struct StoreArgs {
    /// Configuration file; ./postrider.toml is read if it exists
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Data directory, where journal, key space and token are
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}

impl StoreArgs {
    /// The settings; sources, endpoints and their secrets are left alone.
    pub(super) fn settings(&self) -> Result<Config, Failure> {
        settings(&Overrides { config: self.config.clone(), data: self.data.clone(), ..Overrides::default() })
    }
}

/// The settings under these flags, without sources, endpoints and secrets.
pub(super) fn settings(flags: &Overrides) -> Result<Config, Failure> {
    Config::load_settings(flags, &environment(), &SystemFiles).map_err(|errors| config_failure(&errors))
}

/// The process's environment.
pub(super) fn environment() -> Environment {
    std::env::vars_os().collect()
}

/// The failure of a command whose configuration is wrong.
pub(super) fn config_failure(errors: &ConfigErrors) -> Failure {
    Failure::new(exit::CONFIG, format_args!("the configuration is wrong:\n{errors}"))
}

/// The content of a file, or of stdin for none and for `-`.
pub(super) fn read_body(path: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let named = path.filter(|path| *path != Path::new("-"));
    let mut body = Vec::new();
    let read = match named {
        Some(path) => File::open(path).and_then(|file| file.take(BODY_BYTES_MAX + 1).read_to_end(&mut body)),
        None => io::stdin().lock().take(BODY_BYTES_MAX + 1).read_to_end(&mut body),
    };
    let name = named.map_or_else(|| "stdin".to_owned(), |path| path.display().to_string());
    read.map_err(|error| Failure::new(exit::USAGE, format_args!("{name} can't be read: {error}")))?;
    if body.len() as u64 > BODY_BYTES_MAX {
        return Err(Failure::new(exit::USAGE, format_args!("{name} holds more than {BODY_BYTES_MAX} bytes")));
    }
    Ok(body)
}

/// The fields of `-H 'Name: value'`, in their order, repetitions kept. The value's bytes are what follows the colon and one
/// space; nothing else is trimmed, as a signature may cover it.
pub(super) fn headers<T: AsRef<OsStr>>(fields: &[T]) -> Result<Headers, Failure> {
    let mut headers = Headers::new();
    for field in fields {
        let bytes = field.as_ref().as_bytes();
        let colon = bytes.iter().position(|b| *b == b':');
        let (name, value) = colon.map(|at| (&bytes[..at], &bytes[at + 1..])).unwrap_or_default();
        let name = std::str::from_utf8(name).unwrap_or_default();
        if name.is_empty() || !name.bytes().all(is_name_byte) {
            let shown = String::from_utf8_lossy(bytes);
            return Err(Failure::usage(format_args!("expected a header such as 'Name: value', got {shown:?}")));
        }
        headers.push(name, value.strip_prefix(b" ").unwrap_or(value));
    }
    Ok(headers)
}

/// The characters of a field name ([RFC 9110 §5.6.2](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2)).
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The secrets that `env:NAME`, `file:PATH` or the texts themselves stand for, which this flag was given.
pub(super) fn secrets(flag: &str, texts: &[String]) -> Result<Vec<Secret>, Failure> {
    let environment = environment();
    let secret = |text: &String| {
        // An empty text verifies nothing, and the scheme says so; it must not be taken for a usage error.
        if text.is_empty() {
            return Ok(Secret::new(""));
        }
        resolve_secret(text, &environment, &SystemFiles)
            .map_err(|error| Failure::new(exit::CONFIG, format_args!("{flag}: {error}")))
    };
    texts.iter().map(secret).collect()
}

/// A bar of bytes on stderr; nothing where stderr is no terminal.
pub(super) fn progress_bar(what: &'static str) -> ProgressBar {
    bar("{msg} [{bar:40}] {bytes}/{total_bytes} {eta}").with_message(what)
}

/// A bar of milliseconds of which only the length is shown.
pub(super) fn time_bar() -> ProgressBar {
    bar("{msg:24} [{bar:40}] {percent} %")
}

fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template(template);
    // A template that does not parse would only cost the looks.
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    #[test]
    fn header_bytes_are_kept_and_repetitions_too() {
        let raw = OsString::from_vec(b"X-Raw:\xff b ".to_vec());
        let fields = [OsString::from("A: 1"), raw, OsString::from("a:  2"), OsString::from("B:")];
        let headers = headers(&fields).unwrap();
        let all: Vec<_> = headers.iter().collect();
        let expected: [(&str, &[u8]); 4] = [("a", b"1"), ("x-raw", b"\xff b "), ("a", b" 2"), ("b", b"")];
        assert_eq!(all, expected);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bad in ["", "no colon", ": value", "two words: x", "ü: x"] {
            assert!(headers(&[bad]).is_err(), "{bad}");
        }
    }
}
