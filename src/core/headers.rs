//! Header fields as they were received: an ordered list, names in lower case, values as raw bytes.
//!
//! Invariants: order and repetitions are kept, because a signature may cover them and a repeated header is often
//! an attack; values are not assumed to be text (RFC 9110 §5.5 allows obs-text). How many fields and bytes are
//! allowed is the listener's business, which counts before it fills this list.

use bincode::{Decode, Encode};

/// An ordered list of header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Headers {
    fields: Vec<(String, Vec<u8>)>,
}

/// Why [`Headers::one`] found no single value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HowMany {
    /// No field of that name.
    #[error("header is missing")]
    Missing,
    /// Several fields of that name; which one counts would be a guess.
    #[error("header is sent more than once")]
    Repeated,
}

impl Headers {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a field. The name is stored in lower case, as names compare without regard to case (RFC 9110 §5.1).
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.fields.push((name.to_ascii_lowercase(), value.to_vec()));
    }

    /// All fields in the order received, names in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The values of every field called `name` (any case), in the order received.
    pub fn get_all<'h>(&'h self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.iter().filter(move |(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of the field called `name` (any case).
    ///
    /// # Errors
    /// [`HowMany`] when there is none, or more than one.
    pub fn one(&self, name: &str) -> Result<&[u8], HowMany> {
        let mut values = self.get_all(name);
        let first = values.next().ok_or(HowMany::Missing)?;
        match values.next() {
            None => Ok(first),
            Some(_) => Err(HowMany::Repeated),
        }
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Bytes of all names and values together, without separators.
    pub fn total_bytes(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in fields {
            headers.push(name.as_ref(), value.as_ref());
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Headers {
        [("X-Id", &b"1"[..]), ("Via", b"a"), ("x-ID", b"2"), ("raw", b"\xff\x00")].into_iter().collect()
    }

    #[test]
    fn keeps_order_and_lowers_names() {
        let names: Vec<_> = sample().iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, ["x-id", "via", "x-id", "raw"]);
    }

    #[test]
    fn one_tells_none_from_several() {
        let headers = sample();
        assert_eq!(headers.one("VIA"), Ok(&b"a"[..]));
        assert_eq!(headers.one("raw"), Ok(&b"\xff\x00"[..]));
        assert_eq!(headers.one("absent"), Err(HowMany::Missing));
        assert_eq!(headers.one("X-id"), Err(HowMany::Repeated));
        assert_eq!(headers.get_all("X-ID").collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn counts_fields_and_bytes() {
        assert_eq!(sample().len(), 4);
        assert_eq!(sample().total_bytes(), 4 + 1 + 3 + 1 + 4 + 1 + 3 + 2);
        assert!(Headers::new().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn survives_encoding(fields in prop::collection::vec(("[A-Za-z-]{1,12}", prop::collection::vec(any::<u8>(), 0..40)), 0..12)) {
            let headers: Headers = fields.into_iter().collect();
            let bytes = bincode::encode_to_vec(&headers, bincode::config::standard()).unwrap();
            let (back, used): (Headers, usize) = bincode::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
            prop_assert_eq!(used, bytes.len());
            prop_assert_eq!(back, headers);
        }
    }
}
