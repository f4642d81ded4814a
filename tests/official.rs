//! A live gateway against the official Python libraries of Standard Webhooks and Stripe: what it sends is accepted by them
//! and refused once a byte is changed; what they sign it takes, and nothing else.
//!
//! Needs a Python that has `standardwebhooks` and `stripe`: `POSTRIDER_PYTHON=…/bin/python cargo test --test official`.
//! Without the variable it says that it skipped. `.ci/run` sets it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};

/// How long anything may take before the test says that it does not come.
const PATIENCE: Duration = Duration::from_secs(60);

const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_STANDARD_SECRET: &str = "whsec_plJ3nmyCDGBKInavdOK15jsl";
const STRIPE_SECRET: &str = "whsec_a_stripe_secret_is_not_base64";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Shaped as Stripe's library expects an event to be, with bytes that a JSON parser would write otherwise.
const PAYLOAD: &str = r#"{ "id":"evt_1", "object":"event", "type":"order.created", "data":{"object":{"object":"order","n":1.50,"who":"Zoë \u00e9"}} }"#;

/// The interpreter that has the libraries; `None`, said aloud, when nobody named one.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("POSTRIDER_PYTHON").filter(|value| !value.is_empty());
    if python.is_none() {
        static SAID: Once = Once::new();
        // Written to the stream itself, because what a passing test prints is not shown.
        SAID.call_once(|| {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: the official verifiers, since POSTRIDER_PYTHON names no Python with `standardwebhooks` and \
                 `stripe`; see the head of tests/official.rs"
            );
        });
    }
    python.map(PathBuf::from)
}

/// Puts questions to the libraries.
fn ask(python: &Path, questions: &Value) -> Vec<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/official/verify.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", python.display()));
    child.stdin.take().unwrap().write_all(questions.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "verify.py failed: are `standardwebhooks` and `stripe` installed?");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A request as it arrived, header names in lower case.
#[derive(Debug, Clone)]
struct Received {
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Received {
    fn question(&self, library: &str, secret: &str) -> Value {
        let body = BASE64.encode(&self.body);
        json!({"ask": "verify", "library": library, "secret": secret, "headers": self.headers, "body": body})
    }

    fn with_header(&self, name: &str, change: impl Fn(&str) -> String) -> Self {
        let mut changed = self.clone();
        let value = changed.headers.get_mut(name).unwrap_or_else(|| panic!("no header {name} in {self:?}"));
        *value = change(value);
        changed
    }

    fn with_body(&self, body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..self.clone() }
    }
}

/// Takes every request on a free port, answers 200, and passes it on.
fn receiver() -> (SocketAddr, Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (sender, received) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            thread::spawn(move || receive(&stream, &sender));
        }
    });
    (addr, received)
}

/// Serves one connection until the other side is done.
fn receive(stream: &TcpStream, sender: &Sender<Received>) -> Option<()> {
    let mut lines = BufReader::new(stream);
    loop {
        let request_line = line(&mut lines)?;
        let path = request_line.split(' ').nth(1)?.to_owned();
        let mut headers = BTreeMap::new();
        while let Some((name, value)) = line(&mut lines)?.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        lines.read_exact(&mut body).ok()?;
        let mut writer = stream;
        writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
        sender.send(Received { path, headers, body }).ok()?;
    }
}

/// One line without its end; `None` at the end of the stream.
fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let len = reader.read_line(&mut line).ok()?;
    (len > 0).then(|| line.trim_end().to_owned())
}

/// The real binary on free ports, killed at the end.
struct Gateway {
    child: Child,
    ingress: String,
    management: String,
    token: String,
    _dir: tempfile::TempDir,
}

impl Gateway {
    fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config_path = dir.path().join("postrider.toml");
        std::fs::write(&config_path, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .args(["serve", "--log", "warn", "--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0", "--config"])
            .arg(&config_path)
            .arg("--data")
            .arg(dir.path().join("data"))
            // Meant for this test; the gateway would wonder about it.
            .env_remove("POSTRIDER_PYTHON")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut told = |word: &str| {
            let line = line(&mut said).unwrap_or_else(|| panic!("the gateway ended before it said its {word}"));
            line.strip_prefix(word).unwrap_or_else(|| panic!("expected the {word}, got {line:?}")).trim().to_owned()
        };
        let address = |url: String| url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let ingress = address(told("ingress"));
        let management = address(told("management"));
        let token = std::fs::read_to_string(told("token")).unwrap().trim().to_owned();
        Self { child, ingress, management, token, _dir: dir }
    }

    fn publish(&self) {
        let body = format!(r#"{{"eventType":"order.created","payload":{PAYLOAD}}}"#);
        let headers =
            [("authorization", format!("Bearer {}", self.token)), ("content-type", "application/json".into())];
        let answer = post(&self.management, "/api/v1/app/default/msg", headers, body.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Posts over a connection of its own; gives the whole answer as text.
fn post<N: AsRef<str>>(addr: &str, path: &str, headers: impl IntoIterator<Item = (N, String)>, body: &[u8]) -> String {
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{}: {value}\r\n", name.as_ref());
    }
    request += &format!("content-length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[request.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The next request for each of these paths, in their order.
fn await_each<const N: usize>(received: &Receiver<Received>, paths: [&str; N]) -> [Received; N] {
    let mut found = paths.map(|_| None);
    while found.iter().any(Option::is_none) {
        let request = received.recv_timeout(PATIENCE).expect("the gateway delivers");
        let at = paths.iter().position(|p| *p == request.path).unwrap_or_else(|| panic!("unexpected: {request:?}"));
        found[at] = Some(request);
    }
    found.map(|request| request.expect("each has come"))
}

#[test]
fn what_the_gateway_sends_is_accepted_by_the_official_libraries_and_refused_when_tampered_with() {
    let Some(python) = python() else { return };
    let (addr, received) = receiver();
    let gateway = Gateway::start(&format!(
        r#"
        [[endpoint]]
        name = "standard"
        url = "http://{addr}/standard"
        event_types = ["order.*"]
        secret = "{STANDARD_SECRET}"

        [[endpoint]]
        name = "rotating"
        url = "http://{addr}/rotating"
        event_types = ["order.*"]
        secrets = ["{STANDARD_SECRET}", "{OLD_STANDARD_SECRET}"]

        [[endpoint]]
        name = "stripe"
        url = "http://{addr}/stripe"
        event_types = ["order.*"]
        profile = "stripe"
        secret = "{STRIPE_SECRET}"
        "#
    ));
    gateway.publish();
    let [standard, rotating, stripe] = await_each(&received, ["/standard", "/rotating", "/stripe"]);
    for request in [&standard, &rotating, &stripe] {
        assert_eq!(request.body, PAYLOAD.as_bytes(), "the payload arrives as the bytes that were published");
    }

    let accepted = [
        standard.question("standardwebhooks", STANDARD_SECRET),
        rotating.question("standardwebhooks", STANDARD_SECRET),
        rotating.question("standardwebhooks", OLD_STANDARD_SECRET),
        stripe.question("stripe", STRIPE_SECRET),
    ];
    let other_body = PAYLOAD.replace("1.50", "1.51");
    let later = |t: &str| (t.parse::<i64>().unwrap() + 1).to_string();
    let refused = [
        standard.with_body(other_body.as_bytes()).question("standardwebhooks", STANDARD_SECRET),
        standard.with_header("webhook-timestamp", later).question("standardwebhooks", STANDARD_SECRET),
        standard.with_header("webhook-id", |id| format!("{id}x")).question("standardwebhooks", STANDARD_SECRET),
        standard.question("standardwebhooks", OTHER_SECRET),
        rotating.question("standardwebhooks", OTHER_SECRET),
        stripe.with_body(other_body.as_bytes()).question("stripe", STRIPE_SECRET),
        stripe.with_header("stripe-signature", |s| s.replacen("t=1", "t=2", 1)).question("stripe", STRIPE_SECRET),
        stripe.question("stripe", OTHER_SECRET),
    ];
    let questions: Vec<Value> = accepted.iter().chain(&refused).cloned().collect();
    let answers = ask(&python, &Value::from(questions.clone()));
    assert_eq!(answers.len(), questions.len());
    for (i, (question, answer)) in questions.iter().zip(&answers).enumerate() {
        assert_eq!(answer["accepted"], i < accepted.len(), "{question}\nwas answered\n{answer}");
    }
}

#[test]
fn what_the_official_libraries_sign_is_taken_and_nothing_else() {
    let Some(python) = python() else { return };
    let (addr, received) = receiver();
    let gateway = Gateway::start(&format!(
        r#"
        [[source]]
        name = "standard"
        provider = "standard_webhooks"
        secrets = ["{STANDARD_SECRET}"]

        [[source]]
        name = "stripe"
        provider = "stripe"
        secrets = ["{STRIPE_SECRET}"]

        [[endpoint]]
        name = "app"
        url = "http://{addr}/app"
        sources = ["standard", "stripe"]
        "#
    ));
    for (source, library, secret) in
        [("standard", "standardwebhooks", STANDARD_SECRET), ("stripe", "stripe", STRIPE_SECRET)]
    {
        let body = BASE64.encode(PAYLOAD.as_bytes());
        let question =
            |secret: &str| json!({"ask": "sign", "library": library, "secret": secret, "id": "msg_1", "body": body});
        let signed = ask(&python, &json!([question(secret), question(OTHER_SECRET)]));
        let headers = |answer: &Value| {
            let headers = answer["headers"].as_object().unwrap().clone();
            headers.into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned())).collect::<Vec<_>>()
        };
        let path = format!("/in/{source}");
        let taken = post(&gateway.ingress, &path, headers(&signed[0]), PAYLOAD.as_bytes());
        assert!(taken.starts_with("HTTP/1.1 200 "), "{library}: {taken}");
        let [passed_on] = await_each(&received, ["/app"]);
        assert_eq!(passed_on.body, PAYLOAD.as_bytes());

        let forged = post(&gateway.ingress, &path, headers(&signed[1]), PAYLOAD.as_bytes());
        assert!(forged.starts_with("HTTP/1.1 401 "), "{library}: {forged}");
        let tampered = post(&gateway.ingress, &path, headers(&signed[0]), &PAYLOAD.as_bytes()[1..]);
        assert!(tampered.starts_with("HTTP/1.1 401 "), "{library}: {tampered}");
    }
}
