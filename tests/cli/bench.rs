//! `postrider bench`: every scenario comes to its end, whatever happens is counted, and nothing is left behind.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Done, Gateway, SECRET, end, keys, postrider, run};

/// A moment with few connections, beside other tests.
const BRIEF: &[&str] = &["--seconds", "0.5", "--connections", "4", "--json"];

/// Looks, 10 ms apart, before what must happen is taken for something that never will.
const LOOKS_MAX: usize = 6_000;

fn bench(home: &Path, args: &[&str]) -> Done {
    run(home, &[&["bench"], args, BRIEF].concat(), b"")
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("expected a count, got {value}"))
}

fn left_in(home: &Path) -> Vec<String> {
    std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_scenario_comes_to_its_end_beside_its_references() {
    let home = tempfile::tempdir().unwrap();
    let report = bench(home.path(), &["--data", ".", "--endpoints", "3"]).expect(0).json();
    let fields = ["disk", "error", "interrupted", "machine", "ok", "references", "scenarios", "settings", "versions"];
    assert_eq!(keys(&report), fields);
    assert_eq!((&report["ok"], &report["interrupted"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(keys(&report["references"]), ["append", "bare", "grouped", "overwrite"]);
    assert!(count(&report["disk"]["append"]["sync_us"]["p99"]) > 0);
    assert_eq!(report["references"]["bare"]["accepted"], report["references"]["bare"]["sent"]);
    let settings = keys(&report["settings"]);
    assert_eq!(
        settings,
        ["body_bytes", "connections", "endpoints", "rate_per_s", "seconds", "seed", "target", "warm_up_s"]
    );
    assert_eq!(report["versions"]["gateway"], report["versions"]["load"]);
    let rows = report["scenarios"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["accept", "inbound", "cycle", "fan-out"]);
    for (row, each) in rows.iter().zip([0, 0, 1, 3]) {
        assert_eq!(count(&row["endpoints"]), each, "{row}");
        assert!(count(&row["accepted"]) > 0 && row["accepted"] == row["sent"], "{row}");
        assert!(row["events_per_s"].as_f64().unwrap() > 0.0 && row["ratios"]["bare"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["accepts_per_s"].as_f64().unwrap() > 0.0, "{row}");
        assert!(count(&row["answer_us"]["p50"]) <= count(&row["answer_us"]["p99"]), "{row}");
        assert_eq!(keys(&row["gateway"]), ["cpu_us", "disk_bytes", "rss_bytes"]);
        assert_eq!(row.get("deliveries").is_some(), each > 0, "{row}");
        if each > 0 {
            let deliveries = &row["deliveries"];
            assert_eq!(count(&deliveries["expected"]), each * count(&row["accepted"]), "{row}");
            assert_eq!(deliveries["arrived"], deliveries["expected"], "{row}");
            assert_eq!((&deliveries["lost"], &deliveries["repeated"]), (&Value::from(0), &Value::from(0)), "{row}");
            assert!(deliveries["per_s"].as_f64().unwrap() > 0.0 && deliveries["arrival_us"].is_null(), "{row}");
        }
    }
    assert_eq!(left_in(home.path()), Vec::<String>::new());
}

#[test]
fn an_open_loop_sends_what_is_planned() {
    let home = tempfile::tempdir().unwrap();
    // As many connections as requests at least, so that none goes unsent however slow the disk is.
    let args = ["bench", "cycle", "--data", ".", "--rate", "200", "--seconds", "0.5", "--connections", "200", "--json"];
    let planned = |seed| run(home.path(), &[&args[..], &["--seed", seed]].concat(), b"").expect(0).json();
    let report = planned("7");
    assert_eq!(
        (keys(&report["references"]), &report["settings"]["seed"]),
        (vec!["append", "overwrite"], &Value::from(7))
    );
    let row = &report["scenarios"][0];
    // A hundred on average; ten standard deviations to either side are never seen.
    assert!((1..200).contains(&count(&row["sent"])), "{row}");
    assert_eq!((&row["unsent"], &row["deliveries"]["arrived"]), (&Value::from(0), &row["accepted"]));
    assert!(count(&row["deliveries"]["arrival_us"]["p50"]) > 0, "{row}");
    assert_eq!(planned("7")["scenarios"][0]["sent"], row["sent"]);
}

/// A benchmark that goes on for long, with its gateway, whose connections it has.
fn under_way(home: &Path) -> (Child, u32) {
    let args = ["bench", "accept", "--data", ".", "--seconds", "600", "--rate", "50", "--connections", "16", "--json"];
    let mut child = postrider(home).args(args).spawn().unwrap();
    for _ in 0..LOOKS_MAX {
        if let ([gateway], 16..) = (&children(child.id())[..], sockets(child.id())) {
            return (child, *gateway);
        }
        assert_eq!(child.try_wait().unwrap(), None, "it ended too soon");
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it does not begin to send");
}

/// Processes that this one started.
fn children(parent: u32) -> Vec<u32> {
    let is_child = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(1).is_some_and(|number| number == parent.to_string())
    };
    let names = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).filter(is_child).collect()
}

fn sockets(process: u32) -> usize {
    let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return 0 };
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

#[test]
fn an_interrupt_ends_it_and_prints_what_there_is() {
    let home = tempfile::tempdir().unwrap();
    let (child, gateway) = under_way(home.path());
    signal("-INT", child.id());
    let report = end(child, b"").expect(0).json();
    assert_eq!((&report["interrupted"], &report["ok"]), (&Value::Bool(true), &Value::Bool(true)));
    assert!(!Path::new(&format!("/proc/{gateway}")).exists());
    assert_eq!(left_in(home.path()), Vec::<String>::new());
}

#[test]
fn a_second_interrupt_ends_it_at_once_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, gateway) = under_way(home.path());
    // What is under way gets no answer any more, which the first interrupt lets the benchmark wait for.
    signal("-STOP", gateway);
    for _ in 0..LOOKS_MAX {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        signal("-INT", child.id());
        std::thread::sleep(Duration::from_millis(10));
    }
    let report = end(child, b"").expect(130).json();
    assert_eq!((&report["error"], &report["scenarios"]), (&Value::from("interrupted twice"), &Value::Array(vec![])));
    assert!(!Path::new(&format!("/proc/{gateway}")).exists());
    assert_eq!(left_in(home.path()), Vec::<String>::new());
}

#[test]
fn what_was_measured_before_a_failure_is_printed() {
    let home = tempfile::tempdir().unwrap();
    let (child, gateway) = under_way(home.path());
    signal("-KILL", gateway);
    let done = end(child, b"").expect(1);
    assert!(done.stderr.contains("error: the gateway failed"), "{}", done.stderr);
    let report = done.json();
    assert!(report["error"].as_str().unwrap().starts_with("the gateway failed") && report["ok"] == false, "{report}");
    assert!(count(&report["disk"]["append"]["sync_us"]["p50"]) > 0, "{report}");
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
    let (target, version) = (&cycle["settings"]["target"], &cycle["versions"]["gateway"]);
    assert_eq!((target, version), (&Value::from(gateway.management.as_str()), &Value::Null));
    let source = format!("{}/in/stripe", gateway.ingress);
    let inbound = bench(home.path(), &["inbound", "--target", &source, "--secret", SECRET]).expect(0).json();
    assert!(count(&inbound["scenarios"][0]["accepted"]) > 0, "{inbound}");
    // Forged webhooks are refused, which is an error of the run.
    let forged = bench(home.path(), &["inbound", "--target", &source, "--secret", "another"]).expect(1).json();
    let row = &forged["scenarios"][0];
    assert_eq!((&row["accepted"], &row["refused"][0]["status"]), (&Value::from(0), &Value::from(401)));
    assert_eq!(row["refused"][0]["count"], row["sent"]);
}

/// What a server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Accept,
    Refuse,
    HangUp,
}

/// Answers on one connection, until it hangs up; tells of each request which load it is of and what was done with it.
fn answer(mut stream: TcpStream, told: &Sender<(String, Deed)>) {
    for n in 1.. {
        let mut request = Vec::new();
        // That is how the body of an event ends.
        while !request.ends_with(b"\"}}") {
            let mut piece = [0; 4_096];
            match stream.read(&mut piece) {
                Ok(bytes @ 1..) => request.extend_from_slice(&piece[..bytes]),
                _ => return,
            }
        }
        let (_, run) = std::str::from_utf8(&request).unwrap().split_once("\"run\":\"").unwrap();
        let (deed, status) = match n {
            5 => (Deed::HangUp, ""),
            _ if n % 3 == 0 => (Deed::Refuse, "503 Service Unavailable"),
            _ => (Deed::Accept, "202 Accepted"),
        };
        told.send((run[..16].to_owned(), deed)).unwrap();
        if deed == Deed::HangUp {
            return;
        }
        let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes());
    }
}

#[test]
fn what_a_server_did_is_what_the_report_says_and_ends_with_1() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let (teller, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, teller) = (stream.unwrap(), teller.clone());
            std::thread::spawn(move || answer(stream, &teller));
        }
    });
    let home = tempfile::tempdir().unwrap();
    let args = ["accept", "--target", &target, "--token", "t"];
    let report = bench(home.path(), &args).expect(1).json();
    let row = &report["scenarios"][0];
    let told: Vec<_> = told.try_iter().collect();
    // The load that is measured comes after one to warm up.
    let measured = told.iter().filter(|(run, _)| *run == told.last().unwrap().0);
    let mut did = BTreeMap::new();
    measured.for_each(|(_, deed)| *did.entry(*deed).or_insert(0) += 1);
    let refused = &row["refused"][0];
    assert_eq!(
        (&report["ok"], refused["status"].as_u64(), row["unsent"].as_u64()),
        (&Value::Bool(false), Some(503), Some(0))
    );
    for (deed, counted) in
        [(Deed::Accept, &row["accepted"]), (Deed::Refuse, &refused["count"]), (Deed::HangUp, &row["broken"])]
    {
        assert_eq!((deed, did[&deed]), (deed, count(counted)), "{row}");
    }
    assert_eq!(count(&row["sent"]), did.values().sum::<u64>(), "{row}");
    // Who was hung up on has waited for as long as an answer may take.
    assert!(count(&row["answer_us"]["max"]) >= 30_000_000, "{row}");
    let text = run(home.path(), &[&["bench"], &args[..], &["--seconds", "0.5"]].concat(), b"").expect(1).stdout;
    assert!(text.contains(" answered 503, ") && text.contains(" without an answer"), "{text}");
    assert!(text.starts_with(&format!("gateway: {target}, of unknown version")), "{text}");
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
        (&["accept", "--seed", "1"], 2),
        (&["accept", "--endpoints", "3"], 2),
        (&["fan-out", "--endpoints", "3", "--target", "http://127.0.0.1:1"], 2),
        (&["accept", "--secret", "s", "--target", "http://127.0.0.1:1"], 2),
        (&["accept", "--sink", "127.0.0.1:0", "--target", "http://127.0.0.1:1"], 2),
        (&["inbound", "--token", "t", "--target", "http://127.0.0.1:1/in/stripe", "--secret", "s"], 2),
        (&["accept", "--target", "http://127.0.0.1:1", "--token", "t"], 7),
        (&["accept", "--data", "nowhere"], 6),
    ] {
        let done = run(home.path(), &[&["bench"], args].concat(), b"").expect(code);
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(left_in(home.path()), Vec::<String>::new());
}

#[test]
fn a_refusal_names_the_flag_and_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let target = ["accept", "--target", "http://127.0.0.1:1"];
    let unset = run(home.path(), &[&["bench"], &target[..], &["--token", "env:NOT_SET"]].concat(), b"").expect(3);
    assert!(unset.stderr.contains("--token: "), "{}", unset.stderr);
    let idle = run(home.path(), &[&["bench"], &target[..], &["--secret", "s"]].concat(), b"").expect(2);
    assert!(idle.stderr.contains("--secret has no effect here: it is for inbound"), "{}", idle.stderr);
    let limited = |limit: &str, args: &str| {
        let script = format!("ulimit {limit} && exec \"$0\" bench accept {args}");
        let output = Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_postrider")]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = limited("-n 100", "--connections 64");
    assert!(code == Some(2) && told.contains("36 at most") && told.contains("ulimit -Hn"), "{told}");
    // A soft limit is raised: that it is refused is for another reason.
    let (code, told) = limited("-S -n 100", "--connections 64 --target http://127.0.0.1:1 --token t");
    assert!(code == Some(7) && told.contains("can't be reached"), "{told}");
}
