//! `postrider demo`: it comes out as it must, and leaves nothing behind.

use serde_json::Value;

use crate::support::{end, keys, postrider};

#[test]
fn everything_comes_out_as_it_must() {
    let home = tempfile::tempdir().unwrap();
    let mut command = postrider(home.path());
    // Of the caller's own gateway nothing may reach the demo's.
    command.args(["demo", "--json"]).env("TMPDIR", home.path()).env("POSTRIDER_DATA", "/nowhere");
    let done = end(command.spawn().unwrap(), b"").expect(0);
    let report = done.json();
    assert_eq!(keys(&report), ["checks", "duration_ms", "ok", "timeline"]);
    let failed: Vec<_> = report["checks"].as_array().unwrap().iter().filter(|check| check["ok"] != true).collect();
    assert_eq!((&report["ok"], failed), (&Value::Bool(true), vec![]));
    assert!(report["duration_ms"].as_u64().unwrap() < 30_000);
    let timeline = report["timeline"].as_array().unwrap();
    let attempts: Vec<_> = timeline.iter().filter(|moment| moment["what"] == "attempt").collect();
    assert_eq!(keys(attempts[0]), ["at_ms", "endpoint", "message", "next", "number", "result", "what"]);
    assert_eq!(attempts.iter().filter(|a| a["endpoint"] == "broken").count(), 5);
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
