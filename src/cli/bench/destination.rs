//! Where requests go.

use hyper::Uri;

use crate::core::secret::Secret;

/// A place that takes requests.
#[derive(Debug, Clone)]
pub struct Destination {
    /// `host:port`.
    pub authority: String,
    /// Path of the requests.
    pub path: String,
    /// What authorises them.
    pub token: Option<Secret>,
}

/// Where events are published, under a management address. Answers leave the payload out, as whoever publishes has it.
pub const PUBLISH_PATH: &str = "/api/v1/app/default/msg?with_content=false";

impl Destination {
    /// What a URL of plain HTTP names; `None` for anything else.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority().filter(|a| uri.scheme_str() == Some("http") && !a.as_str().contains('@'))?;
        let authority = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(Self { authority, path, token: None })
    }

    /// The place where events are published at a management address.
    pub fn publish(authority: &str, token: Option<Secret>) -> Self {
        Self { authority: authority.to_owned(), path: PUBLISH_PATH.to_owned(), token }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_http_url() {
        let parsed = |url| Destination::parse(url).map(|target| (target.authority, target.path));
        let is = |authority: &str, path: &str| Some((authority.to_owned(), path.to_owned()));
        assert_eq!(parsed("http://a:8080/in/stripe?x=1"), is("a:8080", "/in/stripe?x=1"));
        assert_eq!(parsed("http://[::1]"), is("[::1]:80", "/"));
        for bad in ["", "a:8080", "https://a", "http://u@a", "ftp://a/"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
