//! `postrider verify` and `postrider sign`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::json;

use crate::support::{Done, SECRET, keys, run};

/// Known answers of the built-in providers.
const BUILTIN: &str = include_str!("../vectors/builtin.json");

#[derive(Deserialize)]
struct File {
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
struct Provider {
    id: String,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body_b64: String,
    secrets: Vec<String>,
    now: i64,
    tolerance_s: Option<u64>,
    expect: String,
    expect_id: Option<String>,
    expect_type: Option<String>,
}

impl Vector {
    fn verify(&self, provider: &str, body: &[u8]) -> Done {
        let home = tempfile::tempdir().unwrap();
        let mut args = vec!["verify".to_owned(), "--json".to_owned(), "--provider".to_owned(), provider.to_owned()];
        let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
        flag("--at", self.now.to_string());
        flag("--method", self.method.clone());
        flag("--url", self.url.clone());
        self.secrets.iter().for_each(|secret| flag("--secret", secret.clone()));
        self.headers.iter().for_each(|(name, value)| flag("-H", format!("{name}: {value}")));
        self.tolerance_s.iter().for_each(|s| flag("--tolerance-s", s.to_string()));
        run(home.path(), &args, body)
    }
}

#[test]
fn known_answers_and_what_is_changed_in_them() {
    let file: File = serde_json::from_str(BUILTIN).unwrap();
    for provider in &file.providers {
        for vector in &provider.vectors {
            let body = BASE64.decode(vector.body_b64.as_bytes()).unwrap();
            assert_eq!(vector.expect, "accept", "{}", vector.id);
            let verdict = vector.verify(&provider.id, &body).expect(0).json();
            let (id, event_type) = (&vector.expect_id, &vector.expect_type);
            let expected = json!({
                "verdict": "accept", "reason": null, "detail": null, "event_id": id, "event_type": event_type,
            });
            assert_eq!(verdict, expected, "{}", vector.id);
            let verdict = vector.verify(&provider.id, b"another body").expect(1).json();
            assert_eq!(keys(&verdict), ["detail", "event_id", "event_type", "reason", "verdict"]);
            assert_eq!((&verdict["verdict"], &verdict["reason"]), (&"reject".into(), &"signature_mismatch".into()));
            assert!(verdict["event_id"].is_null() && verdict["event_type"].is_null());
        }
    }
}

#[test]
fn people_are_told_why() {
    let home = tempfile::tempdir().unwrap();
    let args = ["verify", "--provider", "stripe", "--secret", "s"];
    let done = run(home.path(), &args, b"{}").expect(1);
    assert_eq!(done.stdout, "reject: header Stripe-Signature with the signature is missing (signature_missing)\n");
    let header = ["-H", "Stripe-Signature: t=1,v1=00"];
    let repeated = run(home.path(), &[&args[..], &header, &header].concat(), b"{}").expect(1);
    assert!(repeated.stdout.contains("(signature_repeated)"), "{}", repeated.stdout);
    let old = run(home.path(), &[&args[..], &header, &["--at", "1000", "--json"]].concat(), b"{}").expect(1).json();
    assert_eq!(old["reason"], "signature_malformed");
}

#[test]
fn bytes_that_are_no_text_reach_the_verifier() {
    let home = tempfile::tempdir().unwrap();
    let mut args: Vec<OsString> =
        ["verify", "--provider", "github", "--secret", "s", "--json", "-H"].map(Into::into).into();
    args.push(OsString::from_vec(b"X-Hub-Signature-256: sha256=\xff\xfe".to_vec()));
    let verdict = run(home.path(), &args, b"{}").expect(1).json();
    assert_eq!(verdict["reason"], "signature_malformed");
}

#[test]
fn secrets_come_from_variables_and_files_and_any_may_have_signed() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("secret"), "from a file\n").unwrap();
    let sign = ["sign", "--provider", "github", "--secret", "from a file", "--id", "d-1"];
    let signed = run(home.path(), &sign, b"body").expect(0).stdout;
    let headers: Vec<_> = signed.lines().collect();
    assert_eq!(headers[0], "X-GitHub-Delivery: d-1");
    let verify = |secrets: &[&str]| {
        let mut args = vec!["verify", "--provider", "github", "--json"];
        headers.iter().for_each(|header| args.extend(["-H", header]));
        secrets.iter().for_each(|secret| args.extend(["--secret", secret]));
        run(home.path(), &args, b"body")
    };
    assert_eq!(verify(&["file:secret"]).expect(0).json()["event_id"], "d-1");
    verify(&["-another", "literal:from a file"]).expect(0);
    verify(&["another"]).expect(1);
    assert_eq!(verify(&[""]).expect(1).json()["reason"], "no_secret");
    let missing = verify(&["env:POSTRIDER_TEST_NO_SUCH"]).expect(3);
    assert!(missing.stderr.contains("env:POSTRIDER_TEST_NO_SUCH"), "{}", missing.stderr);
}

#[test]
fn a_scheme_of_ones_own_is_read_from_a_file() {
    let home = tempfile::tempdir().unwrap();
    let scheme = "header = \"X-Shop\"\nencoding = \"base64\"\nid = { json = \"order.id\" }\n";
    std::fs::write(home.path().join("shop.toml"), scheme).unwrap();
    std::fs::write(home.path().join("body"), "{\"order\": {\"id\": 7}}").unwrap();
    let scheme = ["--provider", "hmac", "--hmac-config", "shop.toml", "--secret", "s", "--body", "body"];
    let header = run(home.path(), &[&["sign"], &scheme[..]].concat(), b"").expect(0).stdout;
    let verify = [&["verify", "--json", "-H", header.trim()], &scheme[..]].concat();
    assert_eq!(run(home.path(), &verify, b"").expect(0).json()["event_id"], "7");
    std::fs::write(home.path().join("shop.toml"), "heather = \"X-Shop\"\n").unwrap();
    let wrong = run(home.path(), &verify, b"").expect(3);
    assert!(wrong.stderr.contains("shop.toml") && wrong.stderr.contains("heather"), "{}", wrong.stderr);
}

#[test]
fn what_is_signed_is_the_published_answer_and_verifies() {
    let home = tempfile::tempdir().unwrap();
    let body = br#"{"test": 2432232314}"#;
    let at = ["--at", "1614265330", "--id", "msg_p5jXN8AQM9LWM0D4loKWxJek", "--secret", SECRET];
    let expected = "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek\nwebhook-timestamp: 1614265330\n\
                    webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\n";
    for by in [["--provider", "standard_webhooks"], ["--profile", "standard-webhooks"]] {
        let signed = run(home.path(), &[&["sign"], &by[..], &at].concat(), body).expect(0);
        assert_eq!(signed.stdout, expected, "{by:?}");
    }
    let json =
        run(home.path(), &[&["sign", "--json", "--profile", "x-webhook"], &at[..]].concat(), body).expect(0).json();
    assert_eq!(keys(&json), ["headers"]);
    assert_eq!(keys(&json["headers"][0]), ["name", "value"]);
    assert_eq!(json["headers"][2]["name"], "X-Webhook-Signature");
    for provider in ["stripe", "github", "standard_webhooks"] {
        let signed = run(home.path(), &["sign", "--provider", provider, "--secret", SECRET], body).expect(0).stdout;
        let mut verify = vec!["verify", "--provider", provider, "--secret", SECRET];
        signed.lines().for_each(|header| verify.extend(["-H", header]));
        run(home.path(), &verify, body).expect(0);
    }
}
