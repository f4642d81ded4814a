//! Known answers of webhook providers, from their documentation, their test suites and their SDKs.
//!
//! `vectors/builtin.json` belongs to the built-in providers and is run against their rows of the table.
//! `vectors/generic.json` has the other HMAC providers, each with a description of its scheme; that is turned into
//! the configuration that a user would write. From every accepted request others are derived that must be refused:
//! another body, another secret, another time, a header less, a header twice.

use postrider::core::headers::Headers;
use postrider::core::secret::Secret;
use postrider::core::signature::{HmacConfig, Profile, Request, Scheme, provider, provider_ids};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const BUILTIN: &str = include_str!("vectors/builtin.json");
const GENERIC: &str = include_str!("vectors/generic.json");

#[derive(Deserialize)]
struct File {
    providers: Vec<Provider>,
    /// Providers whose scheme is not an HMAC, with how many vectors are known of each.
    #[serde(default)]
    not_hmac: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Provider {
    id: String,
    config: Value,
    id_source: Value,
    type_source: Value,
    vectors: Vec<Vector>,
}

#[derive(Clone, Deserialize)]
struct Vector {
    id: String,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body_b64: String,
    secrets: Vec<String>,
    /// Unix time in seconds at which to verify.
    now: i64,
    tolerance_s: Option<u64>,
    expect: String,
    expect_id: Option<String>,
    expect_type: Option<String>,
}

fn file(text: &str) -> File {
    serde_json::from_str(text).unwrap()
}

impl Vector {
    fn body(&self) -> Vec<u8> {
        data_encoding::BASE64.decode(self.body_b64.as_bytes()).unwrap()
    }

    fn headers(&self) -> Headers {
        self.headers.iter().cloned().collect()
    }

    fn request<'a>(&'a self, headers: &'a Headers, body: &'a [u8]) -> Request<'a> {
        Request { method: &self.method, url: &self.url, headers, body }
    }

    /// What `scheme` says of this vector: `ok`, or the code of the refusal.
    fn outcome(&self, scheme: &Scheme) -> &'static str {
        let (headers, body) = (self.headers(), self.body());
        let secrets: Vec<Secret> = self.secrets.iter().map(Secret::new).collect();
        let verdict = scheme.verify(&secrets, &self.request(&headers, &body), self.now, self.tolerance_s);
        verdict.map_or_else(|reject| reject.code(), |()| "ok")
    }

    /// This vector with something changed.
    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    /// This vector without the headers of these names.
    fn without(&self, names: &[&str]) -> Self {
        self.with(|v| v.headers.retain(|(name, _)| !names.iter().any(|gone| gone.eq_ignore_ascii_case(name))))
    }
}

/// The configuration a user would write for a scheme described in a vector file, or why none can be written.
fn config_of(provider: &Provider) -> Result<HmacConfig, String> {
    let described = &provider.config;
    let (signature, key) = (&described["signature"], &described["key"]);
    let mut config = json!({
        "algorithm": described["algorithm"], "encoding": described["encoding"], "message": described["message"],
        "header": signature["header"], "format": signature["format"], "key_decode": key["decode"],
    });
    // `build` only says how to sign, and is not needed: it follows from the rest.
    for name in ["prefix", "field", "item_sep", "kv_sep", "trim", "also", "also_mode"] {
        copy(signature, name, &mut config);
    }
    copy(key, "strip_prefix", &mut config);
    if key.get("normalize").is_some() {
        return Err("the secret must be normalized Unicode".to_owned());
    }
    if let Some(required) = described["require_headers"].as_array() {
        let name = |pair: &Value| pair[0].as_str().unwrap().to_owned();
        config["require_headers"] = required.iter().map(|pair| (name(pair), pair[1].clone())).collect();
    }
    if described["timestamp"].is_object() {
        config["timestamp"] = timestamp_of(&described["timestamp"])?;
    }
    for (source, name) in [(&provider.id_source, "id"), (&provider.type_source, "type")] {
        match source["from"].as_str() {
            Some("header") => config[name] = json!({ "header": source["name"] }),
            Some("json") => config[name] = json!({ "json": source["path"] }),
            _ => {}
        }
    }
    serde_json::from_value(config).map_err(|error| error.to_string())
}

fn timestamp_of(described: &Value) -> Result<Value, String> {
    if described.get("fallback").is_some() {
        return Err("the time may be in either of two headers".to_owned());
    }
    let mut timestamp = json!({ "tolerance_s": "off" });
    // Box's `future_s = 0` narrows the future side alone; we have one tolerance for both, so it is left out.
    for name in ["from", "name", "format", "future"] {
        copy(described, name, &mut timestamp);
    }
    if described["format"] == "unix" {
        copy(described, "unit", &mut timestamp);
    }
    if described["tolerance_s"].is_u64() {
        copy(described, "tolerance_s", &mut timestamp);
    }
    Ok(timestamp)
}

fn copy(from: &Value, name: &str, to: &mut Value) {
    if let Some(value) = from.get(name) {
        to[name] = value.clone();
    }
}

/// The scheme of a provider under the generic engine, or why it has none.
fn scheme_of(provider: &Provider) -> Result<Scheme, String> {
    Scheme::try_from(config_of(provider)?).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// Runs a vector and everything derived from it.
fn check(provider: &Provider, scheme: &Scheme, vector: &Vector) {
    assert_eq!(vector.expect, "accept", "{}", vector.id);
    assert_eq!(vector.outcome(scheme), "ok", "{}", vector.id);
    check_identity(scheme, vector);
    check_body_and_secret(&provider.config, scheme, vector);
    check_time(&provider.config, scheme, vector);
    check_headers(&provider.config, scheme, vector);
    check_signing(&provider.config, scheme, vector);
}

fn check_identity(scheme: &Scheme, vector: &Vector) {
    let (headers, body) = (vector.headers(), vector.body());
    let req = vector.request(&headers, &body);
    let identity = scheme.identity(&req);
    assert_eq!(identity.id, vector.expect_id, "{}", vector.id);
    assert_eq!(identity.event_type, vector.expect_type, "{}", vector.id);
    assert_eq!((scheme.event_id(&req), scheme.event_type(&req)), (identity.id, identity.event_type), "{}", vector.id);
}

fn check_body_and_secret(config: &Value, scheme: &Scheme, vector: &Vector) {
    let body = vector.body();
    for at in [0, body.len() / 2, body.len() - 1] {
        let mut flipped = body.clone();
        flipped[at] ^= 1;
        let outcome = vector.with(|v| v.body_b64 = data_encoding::BASE64.encode(&flipped)).outcome(scheme);
        // A time in the body may be what the flip hits, or may be unreadable after it.
        let may_be_time = config["timestamp"]["from"] == "body" && outcome.starts_with("timestamp_");
        assert!(outcome == "signature_mismatch" || may_be_time, "{}: byte {at}: {outcome}", vector.id);
    }
    // This text is hexadecimal and base64 too, so it is a key in every scheme.
    let wrong = "00ffaabb".to_owned();
    assert_eq!(vector.with(|v| v.secrets = vec![wrong.clone()]).outcome(scheme), "signature_mismatch", "{}", vector.id);
    assert_eq!(vector.with(|v| v.secrets.insert(0, wrong)).outcome(scheme), "ok", "{}", vector.id);
    assert_eq!(vector.with(|v| v.secrets.clear()).outcome(scheme), "no_secret", "{}", vector.id);
}

/// Two seconds off, as the vectors' `now` is in whole seconds and some times in milliseconds.
fn check_time(config: &Value, scheme: &Scheme, vector: &Vector) {
    let at = |tolerance_s: u64, now_s: i64| {
        vector.with(|v| (v.tolerance_s, v.now) = (Some(tolerance_s), now_s)).outcome(scheme)
    };
    let tolerance_s = vector.tolerance_s.or(config["timestamp"]["tolerance_s"].as_u64()).unwrap_or(300);
    let off_s = i64::try_from(tolerance_s).unwrap() + 2;
    if config["timestamp"].is_null() {
        assert_eq!(at(1, vector.now + 1_000_000), "ok", "{}", vector.id);
        return;
    }
    assert_eq!(at(tolerance_s, vector.now + off_s), "timestamp_too_old", "{}", vector.id);
    let future = if config["timestamp"]["future"] == "accept" { "ok" } else { "timestamp_too_new" };
    assert_eq!(at(tolerance_s, vector.now - off_s), future, "{}", vector.id);
}

/// Headers that the signature doesn't cover may come and go; the others must be there exactly once.
fn check_headers(config: &Value, scheme: &Scheme, vector: &Vector) {
    let signature_headers = signature_headers(config);
    assert_eq!(vector.without(&signature_headers).outcome(scheme), "signature_missing", "{}", vector.id);
    for (name, value) in &vector.headers {
        let twice = vector.with(|v| v.headers.push((name.clone(), value.clone()))).outcome(scheme);
        if signature_headers.iter().any(|header| header.eq_ignore_ascii_case(name)) {
            assert_eq!(twice, "signature_repeated", "{}", vector.id);
            continue;
        }
        let one_less = vector.without(&[name]).outcome(scheme);
        if is_covered(config, name) {
            assert!(one_less.ends_with("_missing"), "{}: {name}: {one_less}", vector.id);
            assert!(twice.ends_with("_repeated"), "{}: {name}: {twice}", vector.id);
        } else {
            assert_eq!((one_less, twice), ("ok", "ok"), "{}: {name}", vector.id);
        }
    }
}

fn signature_headers(config: &Value) -> Vec<&str> {
    let also = config["signature"]["also"].as_array().into_iter().flatten();
    std::iter::once(&config["signature"]["header"]).chain(also).filter_map(Value::as_str).collect()
}

/// Whether a header other than the signature's takes part in verification.
fn is_covered(config: &Value, name: &str) -> bool {
    let same = |value: &Value| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(name));
    let message = config["message"].as_str().unwrap().to_lowercase();
    message.contains(&format!("{{header:{}}}", name.to_lowercase()))
        || config["timestamp"]["from"] == "header" && same(&config["timestamp"]["name"])
        || config["require_headers"].as_array().into_iter().flatten().any(|pair| same(&pair[0]))
}

/// Signing the request again gives something that verifies, and with one of the secrets the provider's own signature.
fn check_signing(config: &Value, scheme: &Scheme, vector: &Vector) {
    let unsigned = vector.without(&signature_headers(config));
    let (headers, body) = (unsigned.headers(), unsigned.body());
    let mut is_the_providers = false;
    for secret in &vector.secrets {
        let signed = scheme.sign(&Secret::new(secret), &unsigned.request(&headers, &body), vector.now).unwrap();
        let (_, signature) = signed.last().unwrap();
        is_the_providers |= vector.headers.iter().any(|(_, value)| value == signature);
        let again = unsigned.with(|v| {
            v.headers.extend(signed);
            v.secrets = vec![secret.clone()];
        });
        assert_eq!(again.outcome(scheme), "ok", "{}", vector.id);
    }
    // A list may hold more than the one signature, and a time to the millisecond that can't be handed to `sign`.
    assert!(is_the_providers || config["signature"]["format"] == "list", "{}", vector.id);
}

#[test]
fn builtin_providers() {
    let file = file(BUILTIN);
    let ids: Vec<_> = file.providers.iter().map(|provider| provider.id.as_str()).collect();
    assert_eq!(ids, provider_ids().collect::<Vec<_>>(), "every built-in provider has vectors");
    for known in &file.providers {
        let scheme = provider(&known.id).unwrap();
        // The row of the table says what the description says.
        assert_eq!(scheme_of(known).as_ref(), Ok(&scheme), "{}", known.id);
        known.vectors.iter().for_each(|vector| check(known, &scheme, vector));
    }
}

#[test]
fn generic_schemes() {
    let file = file(GENERIC);
    let (mut run, mut refused) = (0, Vec::new());
    for known in &file.providers {
        match scheme_of(known) {
            Ok(scheme) => {
                known.vectors.iter().for_each(|vector| check(known, &scheme, vector));
                run += known.vectors.len();
            }
            Err(why) => refused.push(format!("{} ({} vectors): {why}", known.id, known.vectors.len())),
        }
    }
    let elsewhere: usize = file.not_hmac.values().sum();
    println!(
        "{run} vectors run; {elsewhere} belong to {} schemes that are no HMAC; not expressible:",
        file.not_hmac.len()
    );
    refused.iter().for_each(|line| println!("  {line}"));
    assert!(run >= 87, "only {run} vectors run: {refused:?}");
}

/// The one published answer that every Standard Webhooks library is tested with, in both directions.
#[test]
fn the_golden_one() {
    let (id, body, now_s) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#, 1_614_265_330);
    let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let secrets = [Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
    let scheme = provider("standard_webhooks").unwrap();

    let unsigned: Headers = [("webhook-id", id)].into_iter().collect();
    let req = Request { method: "POST", url: "", headers: &unsigned, body };
    let signed = scheme.sign(&secrets[0], &req, now_s).unwrap();
    assert_eq!(signed[0], ("webhook-timestamp".to_owned(), now_s.to_string()));
    assert_eq!(signed[1], ("webhook-signature".to_owned(), signature.to_owned()));

    let sent = Profile::StandardWebhooks.headers(&secrets, id, now_s, body).unwrap();
    assert_eq!(sent[2], ("webhook-signature", signature.to_owned()));
    let headers: Headers = sent.into_iter().collect();
    let req = Request { method: "POST", url: "", headers: &headers, body };
    assert_eq!(scheme.verify(&secrets, &req, now_s, None), Ok(()));
}
