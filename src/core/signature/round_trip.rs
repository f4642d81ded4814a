//! Everything signed verifies, and nothing else: for every scheme a user can write, and for the built-in ones.

use super::*;
use crate::core::headers::Headers;
use crate::core::secret::Secret;
use proptest::prelude::*;

const NOW_S: i64 = 1_767_225_617;

fn request<'a>(headers: &'a Headers, body: &'a [u8]) -> Request<'a> {
    Request { method: "POST", url: "https://hooks.example.com/in/x", headers, body }
}

/// Any scheme a user can write, as TOML, and a secret for it.
fn own_scheme() -> impl Strategy<Value = (String, &'static str)> {
    let formats = prop::sample::select(vec![
        "",
        "format='prefix'\nprefix='sha='",
        "format='list'\nfield='v1'",
        "format='list'\nfield='s'\nitem_sep=' '\nkv_sep=','",
        "format='list'\nfield='s'\nitem_sep='; '\nkv_sep=':'\ntrim=true",
    ]);
    let keys = prop::sample::select(vec![
        ("key_decode='utf8'", "pässword"),
        ("key_decode='base64'", "c2VjcmV0LXRleHQ"),
        ("key_decode='base64'\nstrip_prefix=['whsec_']", "whsec_c2VjcmV0"),
        ("key_decode='hex'", "00ffAA"),
    ]);
    // The second of each is the path in `own_body` where a time of that form is.
    let forms = prop::sample::select(vec![("unit='s'", "s"), ("unit='ms'", "ms"), ("format='iso8601'", "iso")]);
    let places = prop::sample::select(vec!["none", "header", "sig_field", "body"]);
    let messages = ["{body}", "{header:x-id}.{body}", "{method}{{{url}}}{body}", "{json:n}|{json:a.b}"];
    let hashes = prop::sample::select(vec!["sha256", "sha1", "sha512"]);
    let encodings = prop::sample::select(vec!["hex", "base64", "base64url"]);
    let all = (formats, keys, places, forms, prop::sample::select(messages.to_vec()), hashes, encodings);
    all.prop_map(|(format, (key, secret), place, (form, path), message, hash, encoding)| {
        let timestamp = |from, name| (format!("timestamp={{from='{from}',name='{name}',{form}}}"), "{ts}");
        let (time, ts) = match place {
            "header" => timestamp("header", "t"),
            "body" => timestamp("body", path),
            "sig_field" if format.contains("list") => timestamp("sig_field", "t"),
            _ => (String::new(), ""),
        };
        let fixed = format!("header='sig'\nalgorithm='{hash}'\nencoding='{encoding}'\nmessage='{ts}{message}'");
        (format!("{fixed}\n{format}\n{key}\n{time}"), secret)
    })
}

/// A body with everything that [`own_scheme`] may look for.
fn own_body(text: &str) -> String {
    let b = serde_json::to_string(text).unwrap();
    format!(r#"{{"s":{NOW_S},"ms":{NOW_S}000,"iso":"2026-01-01T00:00:17Z","n":1.0,"a":{{"b":{b},"c":"x"}}}}"#)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Signing and verifying agree for every scheme a user can write, and a changed body never verifies.
    #[test]
    fn own_schemes_verify_what_they_sign(
        (text, secret) in own_scheme(),
        body in "[a-z \\\\\n\"é]{1,30}".prop_map(|text| own_body(&text)),
        id in "[a-zA-Z0-9_-]{1,20}",
    ) {
        let scheme = Scheme::try_from(toml::from_str::<HmacConfig>(&text).unwrap()).unwrap();
        // The first secret is valid in every encoding, and the wrong one.
        let secrets = [Secret::new("AAAA"), Secret::new(secret)];
        let mut headers: Headers = [("x-id", &id)].into_iter().collect();
        let signed = scheme.sign(&secrets[1], &request(&headers, body.as_bytes()), NOW_S).unwrap();
        for (name, value) in &signed {
            headers.push(name, value.as_bytes());
        }
        let verify = |secrets: &[Secret], body: &str| {
            scheme.verify(secrets, &request(&headers, body.as_bytes()), NOW_S, None)
        };
        prop_assert_eq!(verify(&secrets, &body), Ok(()), "{}", text);
        prop_assert_eq!(verify(&secrets[..1], &body), Err(Reject::SignatureMismatch), "{}", text);
        prop_assert_eq!(verify(&secrets, &body.replace("1.0", "1.1")), Err(Reject::SignatureMismatch), "{}", text);
    }

    /// So do the built-in providers, for any body and time.
    #[test]
    fn providers_verify_what_they_sign(
        body in prop::collection::vec(any::<u8>(), 0..200),
        key in prop::collection::vec(any::<u8>(), 1..80),
        now_s in 0i64..1 << 40,
        flip in any::<prop::sample::Index>(),
    ) {
        let secret = [Secret::new(format!("whsec_{}", data_encoding::BASE64.encode(&key)))];
        for id in provider_ids() {
            let scheme = provider(id).unwrap();
            let unsigned: Headers = [("webhook-id", "msg_1")].into_iter().collect();
            let mut headers = unsigned.clone();
            for (name, value) in scheme.sign(&secret[0], &request(&unsigned, &body), now_s).unwrap() {
                headers.push(&name, value.as_bytes());
            }
            prop_assert_eq!(scheme.verify(&secret, &request(&headers, &body), now_s, None), Ok(()));
            if !body.is_empty() {
                let mut other = body.clone();
                let at = flip.index(other.len());
                other[at] ^= 0x80;
                let verdict = scheme.verify(&secret, &request(&headers, &other), now_s, None);
                prop_assert_eq!(verdict, Err(Reject::SignatureMismatch));
            }
        }
    }
}
