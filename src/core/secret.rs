//! A string that must not leak: webhook secrets and tokens.
//!
//! Invariant: the text leaves a [`Secret`] only through [`Secret::expose`]. There is no `Display`, no `Serialize`,
//! and `Debug` prints a placeholder, so a secret that ends up in a log line or an error shows nothing, not even
//! its length.

use std::fmt;
use std::hint::black_box;

/// A secret text, as the operator wrote it.
///
/// Memory isn't wiped on drop: the text has been copied by the configuration reader and the allocator before it
/// arrives here, so wiping this one copy would promise more than it keeps.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`. An empty text is allowed here; whoever uses the secret rejects it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Each call is a place to review: it must go into a MAC or a file, never into a message.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty, which no scheme accepts.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Compares in a time that depends on the lengths only, as a secret may be compared with what a stranger sent.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        if a.len() != b.len() {
            return false;
        }
        let mut difference = 0u8;
        for (x, y) in a.iter().zip(b) {
            // `black_box` keeps the compiler from leaving the loop at the first difference.
            difference = black_box(difference | (x ^ y));
        }
        difference == 0
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_text() {
        let secret = Secret::new("whsec_hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(format!("{:?}", Some(secret)), "Some(Secret(…))");
    }

    #[test]
    fn equality_is_that_of_the_text() {
        assert_eq!(Secret::new("abc"), Secret::new("abc"));
        assert_ne!(Secret::new("abc"), Secret::new("abd"));
        assert_ne!(Secret::new("abc"), Secret::new("abcd"));
        assert_eq!(Secret::new(""), Secret::new(""));
        assert!(Secret::new("").is_empty());
    }
}
