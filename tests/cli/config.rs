//! `postrider config check`.

use crate::support::{SECRET, keys, run};

const GOOD: &str = r#"
[[source]]
name = "stripe"
provider = "stripe"
secrets = ["env:STRIPE_SECRET"]

[[endpoint]]
name = "app"
url = "http://127.0.0.1:3000/webhooks"
sources = ["stripe"]
event_types = ["order.*"]
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"#;

#[test]
fn a_good_configuration_is_summed_up() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("postrider.toml"), GOOD.replace("env:STRIPE_SECRET", SECRET)).unwrap();
    let done = run(home.path(), &["config", "check"], b"").expect(0);
    assert_eq!(
        done.stdout,
        "ok\ndata        ./postrider-data\ningress     http://0.0.0.0:8080\nmanagement  http://127.0.0.1:8081\n\
         source      stripe at /in/stripe\nendpoint    app takes source stripe, order.*\n"
    );
    let json = run(home.path(), &["config", "check", "--json"], b"").expect(0).json();
    assert_eq!(keys(&json), ["data_dir", "endpoints", "listeners", "ok", "sources", "warnings"]);
    assert_eq!(json["endpoints"][0]["sources"][0], "stripe");
    assert!(!json.to_string().contains(SECRET));
}

#[test]
fn all_that_is_wrong_is_told_and_the_code_is_3() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("bad.toml");
    std::fs::write(&file, GOOD.replace("http://127", "ftp://127")).unwrap();
    let args = ["config", "check", "--config", "bad.toml"];
    let done = run(home.path(), &args, b"").expect(3);
    let lines: Vec<_> = done.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("bad.toml:5: source[0].secrets[0]"), "{}", lines[0]);
    assert!(lines[1].starts_with("bad.toml:9: endpoint[0].url"), "{}", lines[1]);
    let json = run(home.path(), &[&args[..], &["--json"]].concat(), b"").expect(3).json();
    assert_eq!(keys(&json), ["errors", "ok"]);
    assert_eq!((&json["errors"][1]["line"], &json["errors"][1]["key"]), (&9.into(), &"endpoint[0].url".into()));
}

#[test]
fn serve_and_commands_that_need_the_configuration_end_with_3_too() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("postrider.toml"), "[listen]\ningress = 7\n").unwrap();
    for args in [&["serve"][..], &["events"], &["journal", "verify"]] {
        let done = run(home.path(), args, b"").expect(3);
        assert!(done.stderr.contains("postrider.toml:2: listen.ingress"), "{args:?} {}", done.stderr);
    }
}

#[test]
fn a_secret_that_only_the_gateway_has_is_no_obstacle_to_its_clients() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("postrider.toml"), format!("{GOOD}\n[listen]\nmanagement = \"127.0.0.1:1\"\n"))
        .unwrap();
    run(home.path(), &["serve"], b"").expect(3);
    let done = run(home.path(), &["events"], b"").expect(7);
    assert!(done.stderr.contains("http://127.0.0.1:1 "), "{}", done.stderr);
}
