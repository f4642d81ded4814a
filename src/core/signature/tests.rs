//! What a stranger may send, and what must come of it.
//!
//! Each hostile case is one line with the code that it must be refused with. The known answers of providers are in
//! `tests/vectors.rs`.

use super::*;
use crate::core::headers::Headers;
use crate::core::secret::Secret;
use proptest::prelude::*;

const NOW_S: i64 = 1_767_225_617;
const WHSEC: &str = "whsec_ZGV2ZWxvcGVyLWdhdGV3YXktc2VjcmV0LTAwMQ==";
const BODY: &[u8] = br#"{"id":"evt_1","type":"invoice.paid"}"#;

fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().map(|text| Secret::new(*text)).collect()
}

fn request<'a>(headers: &'a Headers, body: &'a [u8]) -> Request<'a> {
    Request { method: "POST", url: "https://hooks.example.com/in/x", headers, body }
}

/// The code that `headers` and `body` are refused with, `ok` when they are not.
fn outcome(scheme: &Scheme, secrets: &[Secret], headers: &Headers, body: &[u8]) -> &'static str {
    scheme.verify(secrets, &request(headers, body), NOW_S, None).map_or_else(|reject| reject.code(), |()| "ok")
}

/// A well-signed request of a built-in provider, to be damaged.
struct Case {
    scheme: Scheme,
    secrets: Vec<Secret>,
    fields: Vec<(String, Vec<u8>)>,
}

impl Case {
    fn of(id: &str, secret: &str, fields: &[(&str, &str)]) -> Self {
        let scheme = provider(id).unwrap();
        let mut all: Vec<(String, String)> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let headers: Headers = all.iter().cloned().collect();
        all.extend(scheme.sign(&Secret::new(secret), &request(&headers, BODY), NOW_S).unwrap());
        let fields = all.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        Self { scheme, secrets: secrets(&[secret]), fields }
    }

    fn github() -> Self {
        Self::of("github", "It's a Secret to Everybody", &[("X-GitHub-Delivery", "d-1")])
    }

    fn stripe() -> Self {
        Self::of("stripe", "whsec_9f8b0c1d2e3f4a5b", &[])
    }

    fn standard() -> Self {
        Self::of("standard_webhooks", WHSEC, &[("webhook-id", "msg_1")])
    }

    fn value(&self, name: &str) -> String {
        let (_, value) = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).unwrap();
        String::from_utf8(value.clone()).unwrap()
    }

    fn headers(&self) -> Headers {
        self.fields.iter().cloned().collect()
    }

    fn outcome(&self) -> &'static str {
        outcome(&self.scheme, &self.secrets, &self.headers(), BODY)
    }

    /// What happens with other secrets.
    fn with_secrets(&self, texts: &[&str]) -> &'static str {
        outcome(&self.scheme, &secrets(texts), &self.headers(), BODY)
    }

    /// What happens with another value of one header.
    fn with(&self, name: &str, value: impl AsRef<[u8]>) -> &'static str {
        let others = self.fields.iter().filter(|(known, _)| !known.eq_ignore_ascii_case(name)).cloned();
        let headers: Headers = others.chain([(name.to_owned(), value.as_ref().to_vec())]).collect();
        outcome(&self.scheme, &self.secrets, &headers, BODY)
    }

    /// What happens when one header is not there.
    fn without(&self, name: &str) -> &'static str {
        let headers: Headers =
            self.fields.iter().filter(|(known, _)| !known.eq_ignore_ascii_case(name)).cloned().collect();
        outcome(&self.scheme, &self.secrets, &headers, BODY)
    }

    /// What happens when one header is there twice, with the same value.
    fn twice(&self, name: &str) -> &'static str {
        let again = (name.to_owned(), self.value(name).into_bytes());
        let headers: Headers = self.fields.iter().cloned().chain([again]).collect();
        outcome(&self.scheme, &self.secrets, &headers, BODY)
    }
}

#[test]
fn without_a_secret_nothing_verifies() {
    for case in [Case::github(), Case::stripe(), Case::standard()] {
        assert_eq!(case.outcome(), "ok");
        assert_eq!(case.with_secrets(&[]), "no_secret");
        assert_eq!(case.with_secrets(&[""]), "no_secret");
        assert_eq!(case.with_secrets(&[case.secrets[0].expose(), ""]), "no_secret");
        assert_eq!(case.with_secrets(&["AAAA"; SECRETS_MAX + 1]), "too_many_secrets");
        assert_eq!(case.with_secrets(&["AAAA"]), "signature_mismatch");
        assert_eq!(case.with_secrets(&["AAAA", case.secrets[0].expose()]), "ok");
    }
    assert_eq!(Case::standard().with_secrets(&["whsec_"]), "no_secret");
    assert_eq!(Case::standard().with_secrets(&["whsec_no base64"]), "secret_malformed");
}

/// A key of no bytes is what a forger would guess first.
#[test]
fn what_an_empty_key_signed_is_refused() {
    let forged = format!("sha256={}", mac::Encoding::Hex.encode(&mac::Mac::new(Algorithm::Sha256, b"").finish()));
    let headers: Headers = [("X-Hub-Signature-256", forged)].into_iter().collect();
    assert_eq!(outcome(&provider("github").unwrap(), &secrets(&[""]), &headers, b""), "no_secret");
}

#[test]
fn the_secret_is_taken_as_the_provider_means_it() {
    let bare = WHSEC.strip_prefix("whsec_").unwrap();
    let unpadded = bare.trim_end_matches('=');
    for spelling in [bare, unpadded, &format!("whsec_{unpadded}")] {
        assert_eq!(Case::standard().with_secrets(&[spelling]), "ok", "{spelling}");
    }
    // Stripe's key is the whole text, so the same secret without its prefix is another one.
    assert_eq!(Case::stripe().with_secrets(&["9f8b0c1d2e3f4a5b"]), "signature_mismatch");
}

#[test]
fn the_signature_header_must_be_there_once() {
    for (case, name) in [
        (Case::github(), "X-Hub-Signature-256"),
        (Case::stripe(), "Stripe-Signature"),
        (Case::standard(), "webhook-signature"),
    ] {
        assert_eq!(case.without(name), "signature_missing");
        assert_eq!(case.twice(name), "signature_repeated");
        for value in ["", " ", "sha256=", "v1", "v1=", "v1,", ",", "=", "t=1767225617", "v1,v1,v1", "\u{fc}", "é"] {
            assert_eq!(case.with(name, value), "signature_malformed", "{value}");
        }
        for value in [&b"\xff\xfe"[..], b"v1=\0", b"sha256=00\x7f", &b"x".repeat(SIGNATURE_HEADER_BYTES_MAX + 1)] {
            assert_eq!(case.with(name, value), "signature_malformed");
        }
        let too_long = case.value(name) + &" ".repeat(SIGNATURE_HEADER_BYTES_MAX);
        assert_eq!(case.with(name, too_long), "signature_malformed");
    }
}

#[test]
fn hex_has_one_spelling() {
    let case = Case::github();
    let name = "X-Hub-Signature-256";
    let hex = case.value(name).strip_prefix("sha256=").unwrap().to_owned();
    for value in [
        hex.clone(),
        format!("sha1={hex}"),
        format!("SHA256={hex}"),
        format!("sha256 ={hex}"),
        format!("sha256={}", hex.to_uppercase()),
        format!("sha256={}", &hex[1..]),
        format!("sha256={}", &hex[2..]),
        format!("sha256={hex}00"),
        format!("sha256= {hex}"),
        format!("sha256={hex} "),
        format!("sha256=0x{hex}"),
        format!("sha256={hex},sha256={hex}"),
    ] {
        assert_eq!(case.with(name, &value), "signature_malformed", "{value}");
    }
}

#[test]
fn base64_has_one_spelling() {
    let case = Case::standard();
    let name = "webhook-signature";
    let base64 = case.value(name).strip_prefix("v1,").unwrap().to_owned();
    let url_safe = base64.replace('+', "-").replace('/', "_").replace("Z", "-");
    for value in [
        base64.clone(),
        format!("v2,{base64}"),
        "v1,AAAA".to_owned(),
        format!("v1a,{base64}"),
        format!("V1,{base64}"),
        format!("v1={base64}"),
        format!("v1, {base64}"),
        format!("v1,{}", base64.trim_end_matches('=')),
        format!("v1,{base64}="),
        format!("v1,{url_safe}_"),
        format!("v1,{} {}", &base64[..21], &base64[21..]),
    ] {
        assert_eq!(case.with(name, &value), "signature_malformed", "{value}");
    }
}

#[test]
fn any_of_several_signatures_may_match() {
    let case = Case::standard();
    let right = case.value("webhook-signature");
    let wrong = format!("v1,{}=", "A".repeat(43));
    let ahead = |count: usize| format!("{}{right}", format!("{wrong} ").repeat(count));
    assert_eq!(case.with("webhook-signature", ahead(1)), "ok");
    assert_eq!(case.with("webhook-signature", ahead(SIGNATURES_MAX - 1)), "ok");
    assert_eq!(case.with("webhook-signature", ahead(SIGNATURES_MAX)), "signature_malformed");
    assert_eq!(case.with("webhook-signature", format!("v1a,xyz v2,{right} nonsense  v1,!! {right}")), "ok");
    assert_eq!(case.with("webhook-signature", format!("{wrong} {wrong}")), "signature_mismatch");

    let case = Case::stripe();
    let value = case.value("Stripe-Signature");
    let (time, right) = value.split_once(',').unwrap();
    let wrong = format!("v1={}", "0".repeat(64));
    assert_eq!(case.with("Stripe-Signature", format!("{time},{wrong},{right}")), "ok");
    assert_eq!(case.with("Stripe-Signature", format!("{right},v0=00,{time}")), "ok");
    assert_eq!(case.with("Stripe-Signature", format!("{time},{wrong},v0={}", &right[3..])), "signature_mismatch");
}

#[test]
fn a_tampered_body_does_not_verify() {
    for case in [Case::github(), Case::stripe(), Case::standard()] {
        for at in [0, BODY.len() / 2, BODY.len() - 1] {
            let mut body = BODY.to_vec();
            body[at] ^= 1;
            assert_eq!(outcome(&case.scheme, &case.secrets, &case.headers(), &body), "signature_mismatch");
        }
        assert_eq!(outcome(&case.scheme, &case.secrets, &case.headers(), b""), "signature_mismatch");
        let longer = [BODY, b"\n"].concat();
        assert_eq!(outcome(&case.scheme, &case.secrets, &case.headers(), &longer), "signature_mismatch");
    }
}

#[test]
fn a_timestamp_is_digits_and_there_once() {
    let malformed = ["", " ", "-5", "+1767225617", " 1767225617", "1767225617 ", "1767225617.0", "0x69", "abc", "١٢"];
    let huge = format!("1{}", "0".repeat(30));
    let case = Case::standard();
    for value in malformed.into_iter().chain([huge.as_str()]) {
        assert_eq!(case.with("webhook-timestamp", value), "timestamp_malformed", "{value}");
    }
    assert_eq!(case.without("webhook-timestamp"), "timestamp_missing");
    assert_eq!(case.twice("webhook-timestamp"), "timestamp_repeated");
    assert_eq!(case.with("webhook-timestamp", "1767225617000"), "timestamp_too_new");
    // The same second spelled otherwise is another message.
    assert_eq!(case.with("webhook-timestamp", "01767225617"), "signature_mismatch");

    let case = Case::stripe();
    let value = case.value("Stripe-Signature");
    let (_, signature) = value.split_once(',').unwrap();
    for time in ["", "-5", "+1767225617", " 1767225617", "1e9", &huge] {
        assert_eq!(case.with("Stripe-Signature", format!("t={time},{signature}")), "timestamp_malformed", "{time}");
    }
    assert_eq!(case.with("Stripe-Signature", signature), "timestamp_missing");
    // The first counts, as in stripe-python: a second one changes nothing, whatever it says.
    assert_eq!(case.with("Stripe-Signature", format!("{value},t=1")), "ok");
    assert_eq!(case.with("Stripe-Signature", format!("t={NOW_S},t=1,{signature}")), "ok");
    assert_eq!(case.with("Stripe-Signature", format!("t={},{value}", NOW_S - 1)), "signature_mismatch");
}

#[test]
fn the_tolerance_has_two_sharp_ends() {
    for (case, future) in [(Case::standard(), "timestamp_too_new"), (Case::stripe(), "ok")] {
        let headers = case.headers();
        let at = |now_s: i64, tolerance_s: Option<u64>| {
            let verdict = case.scheme.verify(&case.secrets, &request(&headers, BODY), now_s, tolerance_s);
            verdict.map_or_else(|reject| reject.code(), |()| "ok")
        };
        assert_eq!(at(NOW_S + 300, None), "ok");
        assert_eq!(at(NOW_S + 301, None), "timestamp_too_old");
        assert_eq!(at(NOW_S - 300, None), "ok");
        assert_eq!(at(NOW_S - 301, None), future);
        assert_eq!(at(NOW_S + 11, Some(10)), "timestamp_too_old");
        assert_eq!(at(NOW_S + 10_000, Some(10_000)), "ok");
        assert_eq!(at(NOW_S, Some(0)), "ok");
        assert_eq!(at(i64::MAX, None), "timestamp_too_old");
        assert_eq!(at(i64::MIN, None), future);
    }
}

#[test]
fn a_signed_id_is_there_once_and_has_no_full_stop() {
    let case = Case::standard();
    assert_eq!(case.without("webhook-id"), "header_missing");
    assert_eq!(case.twice("webhook-id"), "header_repeated");
    assert_eq!(case.with("webhook-id", "msg_2"), "signature_mismatch");
    assert_eq!(case.with("webhook-id", "msg.1"), "header_malformed");

    // One MAC, two readings: `a` sent at 1767225617 with the body `1767225618.x`, and the same with the parts moved.
    let scheme = &case.scheme;
    let honest: Headers = [("webhook-id", "a"), ("webhook-timestamp", "1767225617")].into_iter().collect();
    let body = b"1767225618.x";
    let signed = scheme.sign(&case.secrets[0], &request(&honest, body), NOW_S).unwrap().pop().unwrap();
    let moved = [("webhook-id", "a.1767225617"), ("webhook-timestamp", "1767225618"), ("webhook-signature", &signed.1)];
    assert_eq!(outcome(scheme, &case.secrets, &moved.into_iter().collect(), b"x"), "header_malformed");
}

#[test]
fn any_body_can_be_signed() {
    let deep = [&b"[".repeat(10_000)[..], &b"]".repeat(10_000)].concat();
    let bodies: [&[u8]; 6] =
        [b"", b"\xff\xfe\x00", b"not json", b"\xef\xbb\xbf{\"id\":\"a\"}", b"{\"id\":\"a\",\"id\":\"b\"}", &deep];
    let wanted_ids = [None, None, None, None, Some("b"), None];
    let scheme = provider("stripe").unwrap();
    let secret = secrets(&["whsec_x"]);
    for (body, wanted) in bodies.into_iter().zip(wanted_ids) {
        let none = Headers::new();
        let headers: Headers = scheme.sign(&secret[0], &request(&none, body), NOW_S).unwrap().into_iter().collect();
        assert_eq!(outcome(&scheme, &secret, &headers, body), "ok");
        assert_eq!(scheme.event_id(&request(&headers, body)).as_deref(), wanted);
    }
}

#[test]
fn identity_is_read_in_one_go_or_not_at_all() {
    let none = Headers::new();
    let stripe = provider("stripe").unwrap();
    let both = stripe.identity(&request(&none, BODY));
    assert_eq!((both.id.as_deref(), both.event_type.as_deref()), (Some("evt_1"), Some("invoice.paid")));
    assert_eq!(stripe.event_type(&request(&none, BODY)).as_deref(), Some("invoice.paid"));
    let half = stripe.identity(&request(&none, br#"{"type":7,"id":["a"]}"#));
    assert_eq!((half.id, half.event_type.as_deref()), (None, Some("7")));

    let github = provider("github").unwrap();
    let of = |fields: &[(&str, &[u8])]| github.identity(&request(&fields.iter().copied().collect(), b"")).id;
    assert_eq!(of(&[("x-github-delivery", b"d")]).as_deref(), Some("d"));
    assert_eq!(of(&[("x-github-delivery", b"d"), ("X-GitHub-Delivery", b"d")]), None);
    assert_eq!(of(&[("x-github-delivery", b"")]), None);
    assert_eq!(of(&[("x-github-delivery", b"\xff")]), None);
    assert_eq!(of(&[("x-github-delivery", &b"x".repeat(FIELD_BYTES_MAX))]).map(|id| id.len()), Some(FIELD_BYTES_MAX));
    assert_eq!(of(&[("x-github-delivery", &b"x".repeat(FIELD_BYTES_MAX + 1))]), None);
}

fn own(text: &str) -> Scheme {
    Scheme::try_from(toml::from_str::<HmacConfig>(text).unwrap()).unwrap()
}

#[test]
fn further_signature_headers() {
    let secret = secrets(&["k"]);
    let none = Headers::new();
    let signed = own("header = 'sig'").sign(&secret[0], &request(&none, BODY), NOW_S).unwrap().pop().unwrap().1;
    let zeros = "0".repeat(64);
    let (right, wrong) = (signed.as_str(), zeros.as_str());
    let any = own("header = 'a'\nalso = ['b', 'c']");
    let fallback = own("header = 'a'\nalso = ['b']\nalso_mode = 'fallback'");
    for (scheme, fields, want) in [
        (&any, &[("a", right)][..], "ok"),
        (&any, &[("c", right)], "ok"),
        (&any, &[("a", wrong), ("c", right)], "ok"),
        (&any, &[("a", "not hex"), ("c", right)], "ok"),
        (&any, &[("a", wrong), ("b", wrong)], "signature_mismatch"),
        (&any, &[("a", "not hex"), ("b", "neither")], "signature_malformed"),
        (&any, &[("a", right), ("b", wrong), ("b", wrong)], "signature_repeated"),
        (&any, &[("d", right)], "signature_missing"),
        (&fallback, &[("b", right)], "ok"),
        (&fallback, &[("a", right), ("b", wrong)], "ok"),
        (&fallback, &[("a", wrong), ("b", right)], "signature_mismatch"),
        (&fallback, &[("a", ""), ("b", right)], "signature_malformed"),
    ] {
        assert_eq!(outcome(scheme, &secret, &fields.iter().copied().collect(), BODY), want, "{fields:?}");
    }
}

#[test]
fn required_headers_and_times_in_the_body() {
    let text =
        "header = 's'\nrequire_headers = { version = '1' }\ntimestamp = { from = 'body', name = 'at', unit = 'ms' }";
    let (scheme, secret) = (own(text), secrets(&["k"]));
    let body = format!(r#"{{"at":{NOW_S}999}}"#);
    let none = Headers::new();
    let fields = scheme.sign(&secret[0], &request(&none, body.as_bytes()), NOW_S).unwrap();
    assert_eq!(fields[0], ("version".to_owned(), "1".to_owned()));
    let headers: Headers = fields.iter().cloned().collect();
    assert_eq!(outcome(&scheme, &secret, &headers, body.as_bytes()), "ok");
    assert_eq!(outcome(&scheme, &secret, &headers, br#"{"at":null}"#), "timestamp_missing");
    assert_eq!(outcome(&scheme, &secret, &headers, br#"{"at":-1}"#), "timestamp_malformed");
    assert_eq!(outcome(&scheme, &secret, &headers, br#"{"at":1.5}"#), "timestamp_malformed");
    assert_eq!(outcome(&scheme, &secret, &headers, br#"{"at":1}"#), "timestamp_too_old");
    let version =
        |value: &str| -> Headers { fields[1..].iter().cloned().chain([("version".into(), value.into())]).collect() };
    assert_eq!(outcome(&scheme, &secret, &version("2"), body.as_bytes()), "header_malformed");
    assert_eq!(outcome(&scheme, &secret, &fields[1..].iter().cloned().collect(), body.as_bytes()), "header_missing");
    assert!(matches!(scheme.sign(&secret[0], &request(&none, b"{}"), NOW_S), Err(SignError::Request(_))));
}

#[test]
fn what_cannot_verify_is_not_signed() {
    let none = Headers::new();
    let standard = provider("standard_webhooks").unwrap();
    let sign = |secret: &str, now_s| standard.sign(&Secret::new(secret), &request(&none, b""), now_s).unwrap_err();
    assert_eq!(sign("", 0), SignError::Secret(KeyError::Empty));
    assert_eq!(sign("!", 0), SignError::Secret(KeyError::NotBase64));
    assert_eq!(sign(WHSEC, -1), SignError::Time { now_s: -1 });
    assert_eq!(sign(WHSEC, 0), SignError::Request(Reject::HeaderMissing { name: "webhook-id".to_owned() }));
}

#[test]
fn no_message_tells_the_secret_or_the_signature() {
    let case = Case::github();
    let right = case.value("X-Hub-Signature-256");
    let wrong: Headers = [("X-Hub-Signature-256", format!("sha256={}", "0".repeat(64)))].into_iter().collect();
    let reject = case.scheme.verify(&case.secrets, &request(&wrong, BODY), NOW_S, None).unwrap_err();
    let text = format!("{reject} {reject:?}");
    assert!(!text.contains(&right[7..]) && !text.contains("Everybody"), "{text}");
    let reject = case_malformed_secret();
    let text = format!("{reject} {reject:?} {:?}", std::error::Error::source(&reject));
    assert!(!text.contains("hunter2"), "{text}");
}

fn case_malformed_secret() -> Reject {
    let case = Case::standard();
    case.scheme.verify(&secrets(&["whsec_hunter2!"]), &request(&case.headers(), BODY), NOW_S, None).unwrap_err()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// No header, however made, panics or verifies.
    #[test]
    fn no_header_panics(value in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        "(t=[0-9]{0,3},?|v1[=,][0-9a-fA-F=+/ ]{0,8}|sha256=|[ ,=]){0,6}".prop_map(String::into_bytes),
    ]) {
        for case in [Case::github(), Case::stripe(), Case::standard()] {
            for name in ["X-Hub-Signature-256", "Stripe-Signature", "webhook-signature"] {
                if case.without(name) != "ok" {
                    prop_assert_ne!(case.with(name, &value), "ok");
                }
            }
        }
    }
}
