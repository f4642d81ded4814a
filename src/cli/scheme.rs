//! Which signature scheme `verify` and `sign` are about, and the request that they look at.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::exit::{self, Failure};
use super::input::{headers, read_body};
use crate::core::error::chain;
use crate::core::headers::Headers;
use crate::core::signature::{HmacConfig, Request, Scheme, provider, provider_ids};

/// The provider that `--hmac-config` describes.
const OWN: &str = "hmac";

/// The parts of a request.
#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    /// TOML file with the keys of a [source.hmac] table, for --provider hmac
    #[arg(long, value_name = "FILE")]
    hmac_config: Option<PathBuf>,
    /// Method of the request
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    method: String,
    /// URL of the request as the provider knows it; some providers sign it
    #[arg(long, value_name = "URL", default_value = "http://localhost/")]
    url: String,
    /// Header of the request, byte for byte; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", allow_hyphen_values = true)]
    headers: Vec<OsString>,
    /// File with the body; - or nothing reads stdin
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
}

/// A request that was read.
pub(super) struct Read {
    method: String,
    url: String,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
}

impl Read {
    /// As the schemes see it.
    pub(super) fn request(&self) -> Request<'_> {
        Request { method: &self.method, url: &self.url, headers: &self.headers, body: &self.body }
    }
}

impl RequestArgs {
    /// Reads body and headers.
    pub(super) fn read(&self) -> Result<Read, Failure> {
        let headers = headers(&self.headers)?;
        let body = read_body(self.body.as_deref())?;
        Ok(Read { method: self.method.clone(), url: self.url.clone(), headers, body })
    }

    /// The scheme of a provider's id.
    pub(super) fn scheme(&self, id: &str) -> Result<Scheme, Failure> {
        match (id, &self.hmac_config) {
            (OWN, Some(path)) => own_scheme(path),
            (OWN, None) => Err(Failure::usage("--provider hmac needs --hmac-config FILE")),
            (_, Some(_)) => Err(Failure::usage("--hmac-config goes with --provider hmac alone")),
            (_, None) => provider(id).ok_or_else(|| {
                let known: Vec<_> = provider_ids().chain([OWN]).collect();
                Failure::usage(format_args!("expected --provider to be one of {}, got {id:?}", known.join(", ")))
            }),
        }
    }
}

fn own_scheme(path: &Path) -> Result<Scheme, Failure> {
    let failure = |why: String| Failure::new(exit::CONFIG, format_args!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failure(error.to_string()))?;
    let config: HmacConfig = toml::from_str(&text).map_err(|error| failure(error.to_string()))?;
    Scheme::try_from(config).map_err(|error| failure(chain(&error)))
}
