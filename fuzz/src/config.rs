//! The configuration file.

use std::io;
use std::path::Path;

use postrider::config::{Config, ConfigErrors, Content, Environment, Files, Overrides, Place};

/// Secrets of the environment and of a file, which nothing may repeat.
const SECRETS: [&str; 2] = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_TXVjaCBiZXR0ZXIgaGlkZGVuIHRoYW4gdGhhdA"];

/// The file, and one with a secret that it may name.
struct Texts<'a>(&'a [u8]);

impl Files for Texts<'_> {
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Content> {
        let bytes = match path.to_str() {
            Some("postrider.toml") => self.0,
            Some("secret") => SECRETS[1].as_bytes(),
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Content { bytes: bytes.iter().copied().take(bytes_max + 1).collect(), is_public: false })
    }
}

fn load(bytes: &[u8]) -> Result<Config, ConfigErrors> {
    let environment: Environment = [("SECRET", SECRETS[0])].into_iter().collect();
    Config::load(&Overrides::default(), &environment, &Texts(bytes))
}

pub fn run(bytes: &[u8]) {
    let (first, second) = (load(bytes), load(bytes));
    assert_eq!(told(&first), told(&second), "one file is read in two ways");
    let text = told(&first);
    for secret in SECRETS {
        // Whoever wrote the secret itself into the file's names and keys told it already.
        let is_written = String::from_utf8_lossy(bytes).contains(secret);
        assert!(is_written || !text.contains(secret), "a secret is told: {text}");
    }
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    match first {
        Err(errors) => {
            assert!(errors.iter().next().is_some(), "refused without a reason");
            for error in errors.iter() {
                assert!(!error.message.is_empty() && error.to_string().lines().count() == 1, "{error}");
                match &error.at.place {
                    Place::File { line: Some(line), column, .. } => {
                        assert!((1..=lines).contains(line) && *column != Some(0), "{error} of {lines} lines");
                    }
                    // Only a file that is no text at all has no line to name.
                    Place::File { line: None, .. } => assert!(std::str::from_utf8(bytes).is_err(), "{error}"),
                    other => panic!("the file is all there is, but {other:?} is blamed: {error}"),
                }
            }
        }
        Ok(config) => {
            for source in config.catalog.sources() {
                assert!(!source.secrets.is_empty() && config.catalog.source(&source.name).is_some());
                for secret in &source.secrets {
                    assert!(source.scheme.check_secret(secret).is_ok(), "{} can verify nothing", source.name);
                }
            }
        }
    }
}

fn told(result: &Result<Config, ConfigErrors>) -> String {
    match result {
        // The debug form lists maps in any order, so only their parts are compared.
        Ok(config) => {
            let mut names: Vec<_> = config.catalog.sources().map(|source| format!("{source:?}")).collect();
            names.sort();
            format!("{:?} {:?} {names:?}", config.warnings, config.data_dir)
        }
        Err(errors) => errors.to_string(),
    }
}
