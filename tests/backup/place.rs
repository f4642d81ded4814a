//! A gateway to back up: what is published to it, and the commands of its operator.

use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use super::support::client::Client;
use super::support::gateway::Site;

/// What deliveries are signed with.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Small segments, so that a few events fill some.
pub const SMALL: &str = "[limits]\nsegment_bytes = \"64KiB\"\nbatch_bytes = \"32KiB\"\nheader_bytes = \"8KiB\"\nbody_bytes = \"8KiB\"\n\
                         api_body_bytes = \"8KiB\"\n";

/// An endpoint that takes everything that is published.
pub fn endpoint(name: &str, url: &str) -> String {
    format!(
        "[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\nevent_types = [\"**\"]\nsecret = \"{SECRET}\"\nretry = {{ schedule_s = [1] }}\n\n"
    )
}

/// Publishes under an idempotency key and returns the event's id.
pub fn publish(api: &mut Client, key: &str, payload: &str) -> String {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let body = format!("{{\"eventType\":\"order.created\",\"payload\":{payload}}}");
    let answer = api.ask("POST", "/api/v1/app/default/msg", &headers, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.json());
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// A payload of some bytes that tells which it is.
pub fn payload(text: &str) -> String {
    format!("{{\"n\":\"{text}\",\"filling\":\"{}\"}}", "x".repeat(700))
}

/// A client of a site's management listener.
pub fn api(site: &Site) -> Client {
    Client::with_token(site.management, &site.token())
}

/// What a command said and how it ended.
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Its output, which is one JSON value.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// Runs a command of the binary to its end.
pub fn run(site: &Site, arguments: &[&str]) -> Done {
    let mut command = site.command(arguments);
    command.current_dir(site.home()).stderr(std::process::Stdio::piped());
    Done::new(command.output().unwrap())
}

/// Arguments of a backup of the gateway that runs here, or of what stands at `server`.
pub fn backup_arguments(site: &Site, server: Option<&str>) -> Vec<String> {
    let server = server.map_or_else(|| format!("http://{}", site.management), str::to_owned);
    let token = site.data().join("token").display().to_string();
    ["backup", "--to", "the.backup", "--server", &server, "--token-file", &token].map(str::to_owned).to_vec()
}

/// Backs up the gateway that runs here.
pub fn backup(site: &Site) -> Done {
    let arguments = backup_arguments(site, None);
    run(site, &arguments.iter().map(String::as_str).chain(["--json"]).collect::<Vec<_>>())
}

/// The file that [`backup`] makes.
pub fn file(site: &Site) -> PathBuf {
    site.home().join("the.backup")
}

/// Restores a site's backup to another site's data directory.
pub fn restore(from: &Site, to: &Site) -> Done {
    let (file, data, config) = (file(from), to.data(), to.home().join("postrider.toml"));
    let [file, data, config] = [&file, &data, &config].map(|path| path.display().to_string());
    run(to, &["restore", "--from", &file, "--data", &data, "--config", &config, "--json"])
}

/// Names in a site's home that have to do with a backup or a restore.
pub fn traces(site: &Site) -> Vec<String> {
    let names = std::fs::read_dir(site.home()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut traces: Vec<_> = names.filter(|name| name.contains("backup") || name.contains("restoring")).collect();
    traces.sort();
    traces
}
