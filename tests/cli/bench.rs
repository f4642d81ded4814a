//! `postrider bench`: every scenario comes to its end, whatever happens is counted, and nothing is left behind.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Done, Gateway, SECRET, end, keys, postrider, run};

/// A moment with few connections, beside other tests.
const BRIEF: &[&str] = &["--seconds", "0.5", "--connections", "4", "--endpoints", "3", "--json"];

fn bench(home: &Path, args: &[&str]) -> Done {
    run(home, &[&["bench"], args, BRIEF].concat(), b"")
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("expected a count, got {value}"))
}

/// Holds the counts of a scenario against each other.
#[track_caller]
fn consistent(row: &Value) {
    let refused: u64 = row["refused"].as_array().unwrap().iter().map(|refused| count(&refused["count"])).sum();
    assert_eq!(count(&row["sent"]), count(&row["accepted"]) + refused + count(&row["broken"]), "{row}");
}

fn left_in(home: &Path) -> Vec<String> {
    std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_scenario_comes_to_its_end_beside_its_references() {
    let home = tempfile::tempdir().unwrap();
    let report = bench(home.path(), &["--data", "."]).expect(0).json();
    let fields = ["disk", "interrupted", "machine", "ok", "references", "scenarios", "settings", "versions"];
    assert_eq!(keys(&report), fields);
    assert_eq!((&report["ok"], &report["interrupted"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(keys(&report["references"]), ["append", "bare", "grouped", "overwrite"]);
    assert!(count(&report["disk"]["append"]["sync_us"]["p99"]) > 0);
    let rows = report["scenarios"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["accept", "inbound", "cycle", "fan-out"]);
    for (row, each) in rows.iter().zip([0, 0, 1, 3]) {
        consistent(row);
        assert!(count(&row["accepted"]) > 0 && row["accepted"] == row["sent"], "{row}");
        assert!(row["events_per_s"].as_f64().unwrap() > 0.0 && row["ratios"]["bare"].as_f64().unwrap() > 0.0, "{row}");
        assert!(count(&row["answer_us"]["p50"]) <= count(&row["answer_us"]["p99"]), "{row}");
        assert_eq!(keys(&row["gateway"]), ["cpu_us", "disk_bytes", "rss_bytes"]);
        assert_eq!(row.get("deliveries").is_some(), each > 0, "{row}");
        if each > 0 {
            let deliveries = &row["deliveries"];
            assert_eq!(count(&deliveries["expected"]), each * count(&row["accepted"]), "{row}");
            assert_eq!(deliveries["arrived"], deliveries["expected"], "{row}");
            assert!(count(&deliveries["arrival_us"]["p50"]) > 0, "{row}");
        }
    }
    assert_eq!(left_in(home.path()), Vec::<String>::new());
}

#[test]
fn an_open_loop_sends_what_is_planned() {
    let home = tempfile::tempdir().unwrap();
    let report = bench(home.path(), &["cycle", "--data", ".", "--rate", "200"]).expect(0).json();
    assert_eq!(keys(&report["references"]), ["append", "overwrite"]);
    let row = &report["scenarios"][0];
    consistent(row);
    // A hundred on average; ten standard deviations to either side are never seen.
    assert!((1..200).contains(&count(&row["sent"])), "{row}");
    assert_eq!((&row["unsent"], &row["deliveries"]["arrived"]), (&Value::from(0), &row["accepted"]));
}

#[test]
fn an_interrupt_ends_it_and_prints_what_there_is() {
    let home = tempfile::tempdir().unwrap();
    let mut command = postrider(home.path());
    let args = ["bench", "accept", "cycle", "--data", ".", "--seconds", "600", "--rate", "50", "--json"];
    let child = command.args(args).spawn().unwrap();
    // The first gateway serves, or is about to: its journal is in a directory of the gateway's in that of the run.
    let inside = |dir: &Path| left_in(dir).iter().map(|name| dir.join(name)).collect::<Vec<_>>();
    let has_journal = |run: &PathBuf| inside(run).iter().any(|gateway| gateway.join("data/journal").exists());
    while !inside(home.path()).iter().any(has_journal) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let report = end(child, b"").expect(0).json();
    assert_eq!((&report["interrupted"], &report["ok"]), (&Value::Bool(true), &Value::Bool(true)));
    report["scenarios"].as_array().unwrap().iter().for_each(consistent);
    assert_eq!(left_in(home.path()), Vec::<String>::new());
}

#[test]
fn a_gateway_elsewhere_is_measured_with_its_deliveries() {
    let home = tempfile::tempdir().unwrap();
    let sink = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = format!(
        "[[source]]\nname = \"stripe\"\nprovider = \"stripe\"\nsecrets = [\"{SECRET}\"]\n\
         [[endpoint]]\nname = \"bench\"\nurl = \"http://{sink}/\"\nevent_types = [\"bench.made\"]\nsecret = \"{SECRET}\"\n"
    );
    std::fs::write(home.path().join("postrider.toml"), config).unwrap();
    let gateway = Gateway::start(home.path());
    let token = format!("file:{}", gateway.token_file);
    let target = ["--target", &gateway.management, "--token", &token];
    let cycle = bench(home.path(), &[&["cycle", "--sink", &sink], &target[..]].concat()).expect(0).json();
    let row = &cycle["scenarios"][0];
    assert!(count(&row["accepted"]) > 0 && row["deliveries"]["arrived"] == row["accepted"], "{row}");
    assert_eq!((cycle.get("disk"), row.get("gateway"), keys(&cycle["references"])), (None, None, vec![]));
    let source = format!("{}/in/stripe", gateway.ingress);
    let inbound = bench(home.path(), &["inbound", "--target", &source, "--secret", SECRET]).expect(0).json();
    assert!(count(&inbound["scenarios"][0]["accepted"]) > 0, "{inbound}");
    // Forged webhooks are refused, which is an error of the run.
    let forged = bench(home.path(), &["inbound", "--target", &source, "--secret", "another"]).expect(1).json();
    let row = &forged["scenarios"][0];
    consistent(row);
    assert_eq!((&row["accepted"], &row["refused"][0]["status"]), (&Value::from(0), &Value::from(401)));
}

#[test]
fn refusals_are_counted_by_status_and_end_with_1() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut request = [0; 4_096];
                while stream.read(&mut request).unwrap_or(0) > 0 {
                    let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}");
                }
            });
        }
    });
    let home = tempfile::tempdir().unwrap();
    let args = ["accept", "--target", &target, "--token", "t"];
    let report = bench(home.path(), &args).expect(1).json();
    let row = &report["scenarios"][0];
    consistent(row);
    assert_eq!(
        (&report["ok"], &row["accepted"], &row["answer_us"]),
        (&Value::Bool(false), &Value::from(0), &Value::Null)
    );
    assert_eq!((&row["refused"][0]["status"], &row["refused"][0]["count"]), (&Value::from(503), &row["sent"]));
    let told = run(home.path(), &[&["bench"], &args[..], &["--seconds", "0.5"]].concat(), b"").expect(1).stdout;
    assert!(told.contains("answered 503"), "{told}");
}

#[test]
fn what_can_not_be_measured_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for (args, code) in [
        (&["--target", "http://127.0.0.1:1"][..], 2),
        (&["accept", "--target", "127.0.0.1:1"], 2),
        (&["inbound", "--target", "http://127.0.0.1:1", "--secret", "s"], 2),
        (&["accept", "--rate", "0"], 2),
        (&["accept", "--seconds", "inf"], 2),
        (&["accept", "--sink", "127.0.0.1:0"], 2),
        (&["--connections", "1024", "--body", "1048576"], 2),
        (&["accept", "--target", "http://127.0.0.1:1", "--token", "t"], 7),
        (&["accept", "--data", "nowhere"], 6),
    ] {
        let done = run(home.path(), &[&["bench"], args].concat(), b"").expect(code);
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(left_in(home.path()), Vec::<String>::new());
}
