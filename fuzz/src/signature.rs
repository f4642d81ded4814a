//! Signatures of every scheme. The input is the scheme (a provider's name, or TOML as of `[source.hmac]`), a line of three
//! dashes, header lines, an empty line, the body.

use postrider::core::headers::Headers;
use postrider::core::secret::Secret;
use postrider::core::signature::{
    FIELD_BYTES_MAX, HmacConfig, Profile, Reject, Request, Scheme, provider, provider_ids,
};

use super::input::{secret_of, split_once};

const NOW_S: i64 = 1_767_225_617;
/// Whatever is not judged by its time.
const ANY_AGE: Option<u64> = Some(u64::MAX);

pub fn run(bytes: &[u8]) {
    let (scheme, rest) = split_once(bytes, b"\n---\n");
    let (fields, body) = split_once(rest, b"\n\n");
    let Some((scheme, is_builtin)) = std::str::from_utf8(scheme).ok().and_then(parse_scheme) else { return };
    let headers = headers(fields);
    let secret = Secret::new(secret_of(bytes));
    forged(&scheme, &headers, body, &secret);
    signed(&scheme, is_builtin, headers, body, &secret);
    sent(body, &secret);
}

fn parse_scheme(text: &str) -> Option<(Scheme, bool)> {
    if let Some(scheme) = provider(text) {
        return Some((scheme, true));
    }
    let config: HmacConfig = toml::from_str(text).ok()?;
    match Scheme::try_from(config) {
        Ok(scheme) => Some((scheme, false)),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

fn headers(lines: &[u8]) -> Headers {
    let lines = lines.split(|byte| *byte == b'\n').map(|line| split_once(line, b": "));
    lines.filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value))).collect()
}

fn request<'a>(headers: &'a Headers, body: &'a [u8]) -> Request<'a> {
    Request { method: "POST", url: "https://hooks.example.com/in/x", headers, body }
}

/// Nobody knew the secret, so nothing verifies; and what is read out of a request is bounded.
fn forged(scheme: &Scheme, headers: &Headers, body: &[u8], secret: &Secret) {
    let request = request(headers, body);
    for tolerance_s in [None, ANY_AGE] {
        let verdict = scheme.verify(std::slice::from_ref(secret), &request, NOW_S, tolerance_s);
        let reject = verdict.expect_err("a forgery verifies");
        assert!(!reject.code().is_empty() && !reject.to_string().contains(secret.expose()));
    }
    assert_eq!(scheme.verify(&[], &request, NOW_S, ANY_AGE), Err(Reject::NoSecret));
    let identity = scheme.identity(&request);
    // Text that nobody asks for need not be UTF-8, so of a body that is not, asking for less may find more.
    if std::str::from_utf8(body).is_ok() {
        assert_eq!(identity.id, scheme.event_id(&request));
        assert_eq!(identity.event_type, scheme.event_type(&request));
    }
    for text in [identity.id, identity.event_type].into_iter().flatten() {
        assert!((1..=FIELD_BYTES_MAX).contains(&text.len()));
    }
}

/// What is signed verifies, and not once its body is another.
fn signed(scheme: &Scheme, is_builtin: bool, headers: Headers, body: &[u8], secret: &Secret) {
    // Of the headers that signing adds none may be there before.
    let Ok(added) = scheme.sign(secret, &request(&headers, body), NOW_S) else { return };
    let is_added = |name: &str| added.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    let mut headers: Headers = headers.iter().filter(|(name, _)| !is_added(name)).collect();
    let Ok(added) = scheme.sign(secret, &request(&headers, body), NOW_S) else { return };
    for (name, value) in added {
        headers.push(&name, value.as_bytes());
    }
    let secrets = [Secret::new("another"), secret.clone()];
    let secrets = if scheme.check_secret(&secrets[0]).is_ok() { &secrets[..] } else { &secrets[1..] };
    let verdict = scheme.verify(secrets, &request(&headers, body), NOW_S, ANY_AGE);
    // A user's scheme may look into further headers, and these are the input's.
    let by_other_headers = matches!(
        verdict,
        Err(Reject::SignatureMalformed { .. } | Reject::SignatureRepeated { .. } | Reject::HeaderMalformed { .. })
    );
    assert!(verdict.is_ok() || !is_builtin && by_other_headers, "{verdict:?}");
    if is_builtin {
        let other = [body, b"!"].concat();
        let verdict = scheme.verify(secrets, &request(&headers, &other), NOW_S, ANY_AGE);
        assert_eq!(verdict, Err(Reject::SignatureMismatch));
        let trusting = Secret::new(secret_of(&other));
        let verdict = scheme.verify(&[trusting], &request(&headers, body), NOW_S, ANY_AGE);
        assert_eq!(verdict, Err(Reject::SignatureMismatch));
    }
}

/// What is sent to endpoints verifies by the providers' rules that it follows.
fn sent(body: &[u8], secret: &Secret) {
    let profiles = [Profile::StandardWebhooks, Profile::Stripe, Profile::GitHub];
    let secret = std::slice::from_ref(secret);
    for (id, profile) in provider_ids().zip([profiles[2], profiles[0], profiles[1]]) {
        let headers = profile.headers(secret, "msg_1", NOW_S, body).expect("the secret is good for every profile");
        let headers: Headers = headers.into_iter().collect();
        let scheme = provider(id).expect("it was listed");
        assert_eq!(scheme.verify(secret, &request(&headers, body), NOW_S, None), Ok(()), "{id} and {}", profile.name());
    }
}
