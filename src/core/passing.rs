//! Which headers of a received request stay with the event and are handed on.

use super::headers::Headers;

/// Fields about the connection ([RFC 9110 §7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1)), about the message's
/// framing, for the gateway's own host, or with credentials that were meant for us and not for an endpoint.
const STAYING: [&str; 13] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// Fields for or from proxies: `Proxy-Authorization`, `Proxy-Connection` and the like.
const PROXY_PREFIX: &str = "proxy-";

/// The fields that pass through, in their order, repetitions kept.
pub fn passing(headers: &Headers) -> impl Iterator<Item = (&str, &[u8])> {
    let named = named_by_connection(headers);
    let passes = move |name: &str| {
        !STAYING.contains(&name)
            && !name.starts_with(PROXY_PREFIX)
            && !named.iter().any(|n| n.eq_ignore_ascii_case(name))
    };
    headers.iter().filter(move |(name, _)| passes(name))
}

/// What `Connection` names is meant for this connection alone. A name that is not text names nothing.
fn named_by_connection(headers: &Headers) -> Vec<&str> {
    let values = headers.get_all("connection").filter_map(|value| std::str::from_utf8(value).ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pass(fields: &[(&str, &str)]) -> Vec<String> {
        let headers: Headers = fields.iter().copied().collect();
        passing(&headers).map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect()
    }

    #[test]
    fn the_providers_own_headers_pass_in_order() {
        let kept = pass(&[
            ("Host", "gateway"),
            ("Stripe-Signature", "t=1,v1=a"),
            ("Content-Type", "application/json"),
            ("X-Twice", "1"),
            ("Content-Length", "3"),
            ("x-twice", "2"),
            ("X-Forwarded-For", "10.0.0.1"),
        ]);
        assert_eq!(
            kept,
            [
                "stripe-signature=t=1,v1=a",
                "content-type=application/json",
                "x-twice=1",
                "x-twice=2",
                "x-forwarded-for=10.0.0.1"
            ]
        );
    }

    #[test]
    fn hop_by_hop_and_credentials_stay() {
        for name in STAYING.iter().chain(&["Proxy-Authorization", "proxy-connection", "Proxy-Authenticate"]) {
            assert_eq!(pass(&[(name, "x"), ("a", "b")]), ["a=b"], "{name}");
        }
    }

    #[test]
    fn what_connection_names_stays() {
        let kept = pass(&[
            ("Connection", "close, X-Hop ,,"),
            ("x-hop", "1"),
            ("connection", "OTHER"),
            ("other", "2"),
            ("x", "3"),
        ]);
        assert_eq!(kept, ["x=3"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn passing_twice_changes_nothing(fields in prop::collection::vec(("[a-z-]{1,10}", "[ -~]{0,10}"), 0..12)) {
            let headers: Headers = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let once: Headers = passing(&headers).collect();
            prop_assert_eq!(passing(&once).collect::<Headers>(), once.clone());
            prop_assert!(once.len() <= headers.len());
        }
    }
}
