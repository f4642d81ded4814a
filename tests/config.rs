//! The configuration from outside: the promised file loads, sources win in their order, every mistake gets its line and its
//! key, and no secret ever shows.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use postrider::config::{Config, ConfigErrors, Content, Environment, Files, LogLevel, Overrides, SystemFiles};
use postrider::core::id::EndpointId;
use postrider::core::retry::RetryPolicy;
use proptest::prelude::*;

/// A good Standard Webhooks secret.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Files in memory, each with whether everyone may read it.
#[derive(Default)]
struct Texts(BTreeMap<PathBuf, (Vec<u8>, bool)>);

impl Texts {
    fn with(mut self, path: &str, bytes: impl AsRef<[u8]>, is_public: bool) -> Self {
        self.0.insert(path.into(), (bytes.as_ref().to_vec(), is_public));
        self
    }
}

impl Files for Texts {
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Content> {
        let (bytes, is_public) = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        let bytes = bytes.iter().copied().take(bytes_max + 1).collect();
        Ok(Content { bytes, is_public: *is_public })
    }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().copied().collect()
}

/// Loads a text as `./postrider.toml`.
fn load(text: &str) -> Result<Config, ConfigErrors> {
    let environment = environment(&[("SECRET", SECRET), ("EMPTY", "")]);
    Config::load(&Overrides::default(), &environment, &Texts::default().with("postrider.toml", text, false))
}

fn errors(text: &str) -> String {
    load(text).map(|_| "no error".to_owned()).unwrap_or_else(|e| e.to_string())
}

/// A good source and a good endpoint, then more.
fn with_good(more: &str) -> String {
    let good = "[[source]]\nname = \"s\"\nprovider = \"github\"\nsecrets = [\"x\"]\n\n[[endpoint]]\nname = \"e\"\nurl = \
                \"https://a.example/\"\nsources = [\"s\"]\n";
    format!("{good}{more}")
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let config = Config::load(&Overrides::default(), &Environment::default(), &Texts::default()).unwrap();
    assert_eq!(config.listeners.ingress.to_string(), "0.0.0.0:8080");
    assert_eq!(config.listeners.management.to_string(), "127.0.0.1:8081");
    assert_eq!(config.data_dir, Path::new("./postrider-data"));
    assert_eq!(config.log, LogLevel::Info);
    assert!(config.warnings.is_empty());
}

/// The file that the issue promises, word for word but for the secret's dots.
#[test]
fn the_promised_file_loads() {
    let text = r#"
[[source]]
name = "stripe"            # POST /in/stripe
provider = "stripe"        # ids as in the vectors: "github", "standard_webhooks", or "hmac"
secrets = ["env:STRIPE_WEBHOOK_SECRET"]

[[endpoint]]
name = "app"
url = "http://127.0.0.1:3000/webhooks"
sources = ["stripe"]       # inbound sources it takes; and / or
event_types = ["order.*"]  # published event types it takes
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
retry = { schedule_s = [60, 300, 900, 3600, 14400, 43200], jitter = 0.1 }
timeout_s = 30

[egress]
allow = ["10.1.0.0/16"]    # private targets beyond an endpoint's own literal address in this file
"#;
    let environment = environment(&[("STRIPE_WEBHOOK_SECRET", "whsec_stripes_own")]);
    let files = Texts::default().with("postrider.toml", text, false);
    let config = Config::load(&Overrides::default(), &environment, &files).unwrap();
    let source = config.catalog.source("stripe").unwrap();
    assert_eq!(source.secrets[0].expose(), "whsec_stripes_own");
    let app = config.catalog.endpoint_by_text("default", "app").unwrap();
    assert_eq!(app.id, EndpointId::named("default", "app"));
    assert_eq!(app.secrets[0].expose(), SECRET);
    assert_eq!((&app.retry, app.timeout_ms, app.in_flight_max), (&RetryPolicy::default(), 30_000, 64));
    assert_eq!(config.catalog.takers_of_source(source.id), [app.id]);
    assert_eq!(config.catalog.takers_of_type(app.app, "order.created"), [app.id]);
    assert_eq!(config.literals, [("127.0.0.1".to_owned(), 3000)]);
    assert_eq!(config.egress.allow, ["10.1.0.0/16".parse().unwrap()]);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn as_much_may_be_pending_as_the_memory_has_room_for() {
    let pending = |text| {
        let files = Texts::default().with("postrider.toml", text, false);
        Config::load(&Overrides::default(), &Environment::default(), &files).map(|c| c.limits.store.pending_max)
    };
    assert_eq!(pending("").unwrap(), 2_500_000);
    assert_eq!(pending("[limits]\nprocess_bytes = \"744MiB\"").unwrap(), 1 << 20);
    assert_eq!(pending("[limits]\nprocess_bytes = \"744MiB\"\npending = 5").unwrap(), 5);
    assert!(pending("[limits]\npending = 20000000").is_err());
    assert_eq!(pending("[limits]\nprocess_bytes = \"8GiB\"\npending = 20000000").unwrap(), 20_000_000);
}

#[test]
fn sources_win_in_their_order() {
    let text = "[listen]\ningress = \"127.0.0.1:1\"\n[retention]\ndays = 1.5\n[limits]\nbody_bytes = \"2MiB\"\n[data]\ndir = \"d\"";
    let files = Texts::default().with("/etc/p.toml", text, false);
    let mut flags = Overrides { config: Some("/etc/p.toml".into()), ..Overrides::default() };
    let config = Config::load(&flags, &Environment::default(), &files).unwrap();
    assert_eq!(config.listeners.ingress.port(), 1);
    assert_eq!(config.limits.store.retention_ms, 129_600_000);
    assert_eq!(config.limits.ingress.body_bytes_max, 2 << 20);
    assert_eq!(config.data_dir, Path::new("/etc/d"));

    let variables = [
        ("POSTRIDER_INGRESS", "127.0.0.1:2"),
        ("POSTRIDER_DATA", "here"),
        ("POSTRIDER_LIMITS_BODY_BYTES", "3MiB"),
        ("POSTRIDER_LOG", "debug"),
        ("POSTRIDER_RETENTION_DAYS", ""),
        ("POSTRIDER_TOKEN_FILE", "t"),
    ];
    let config = Config::load(&flags, &environment(&variables), &files).unwrap();
    assert_eq!(config.listeners.ingress.port(), 2);
    assert_eq!(config.data_dir, Path::new("here"));
    assert_eq!(config.token_file.as_deref(), Some(Path::new("t")));
    assert_eq!(config.limits.ingress.body_bytes_max, 3 << 20);
    assert_eq!((config.log, config.limits.store.retention_ms), (LogLevel::Debug, 129_600_000));

    flags.ingress = Some("127.0.0.1:3".parse().unwrap());
    flags.management = Some("127.0.0.1:4".parse().unwrap());
    flags.data = Some("there".into());
    flags.token_file = Some("u".into());
    flags.log = Some(LogLevel::Warn);
    let config = Config::load(&flags, &environment(&variables), &files).unwrap();
    assert_eq!((config.listeners.ingress.port(), config.listeners.management.port()), (3, 4));
    assert_eq!((config.data_dir.as_path(), config.log), (Path::new("there"), LogLevel::Warn));
    assert_eq!(config.token_file.as_deref(), Some(Path::new("u")));
}

#[test]
fn the_file_is_found_by_flag_variable_or_name() {
    let text = |level: &str| format!("[log]\nlevel = \"{level}\"");
    let files = Texts::default().with("postrider.toml", text("error"), false).with("v.toml", text("warn"), false).with(
        "f.toml",
        text("debug"),
        false,
    );
    let load = |config: Option<&str>, variables: &[(&str, &str)]| {
        let flags = Overrides { config: config.map(Into::into), ..Overrides::default() };
        Config::load(&flags, &environment(variables), &files).map(|c| c.log)
    };
    assert_eq!(load(None, &[]), Ok(LogLevel::Error));
    assert_eq!(load(None, &[("POSTRIDER_CONFIG", "v.toml")]), Ok(LogLevel::Warn));
    assert_eq!(load(Some("f.toml"), &[("POSTRIDER_CONFIG", "v.toml")]), Ok(LogLevel::Debug));
    let missing = load(Some("x.toml"), &[]).unwrap_err().to_string();
    assert_eq!(missing, "x.toml: expected a readable configuration file, got an error: entity not found");
}

/// Each bad file with all that is said about it.
#[test]
fn every_mistake_gets_its_line_and_its_key() {
    for (text, expected) in TOP_LEVEL.iter().chain(SETTINGS).chain(SOURCES).chain(RULES) {
        assert_eq!(errors(&text[1..]).lines().collect::<Vec<_>>(), expected.to_vec(), "{text}");
    }
    for (more, expected) in ENDPOINTS {
        assert_eq!(errors(&with_good(&more[1..])).lines().collect::<Vec<_>>(), expected.to_vec(), "{more}");
    }
}

const TOP_LEVEL: &[(&str, &[&str])] = &[
    (
        r#"
[listen
"#,
        &[r#"postrider.toml:1: expected TOML, got a syntax error: unclosed table, expected `]`"#],
    ),
    (
        r#"
x = 1

[listn]
"#,
        &[
            r#"postrider.toml:1: x: expected a known key, got "x""#,
            r#"postrider.toml:3: listn: expected a known key, got "listn" (did you mean "listen"?)"#,
        ],
    ),
    (
        r#"
listen = 3
"#,
        &[r#"postrider.toml:1: listen: expected a [listen] table, got 3"#],
    ),
    (
        r#"
[source]
name = "a"
"#,
        &[r#"postrider.toml:1: source: expected tables that begin with [[source]], got a table"#],
    ),
    (
        r#"
[log]
level = "info"
level = "info"
"#,
        &[r#"postrider.toml:3: expected TOML, got a syntax error: duplicate key"#],
    ),
];

const SETTINGS: &[(&str, &[&str])] = &[
    (
        r#"
[listen]
ingress = "localhost:80"
"#,
        &[
            r#"postrider.toml:2: listen.ingress: expected an IP address and port such as "127.0.0.1:8081", got "localhost:80""#,
        ],
    ),
    (
        r#"
[retention]

  days = "30"
"#,
        &[r#"postrider.toml:3: retention.days: expected a number of days above 0 and up to 3650, got "30""#],
    ),
    (
        r#"
[retention]
bytes = "10 G"
"#,
        &[
            r#"postrider.toml:2: retention.bytes: expected a number of bytes, or a size such as "64MiB", between 256KiB and 1024TiB, got "10 G""#,
        ],
    ),
    (
        r#"
[limits]
headers = -1
body_timeout_s = inf
"#,
        &[
            r#"postrider.toml:2: limits.headers: expected a whole number between 16 and 10000, got -1"#,
            r#"postrider.toml:3: limits.body_timeout_s: expected a number of seconds between 0.01 and 3600, got inf"#,
        ],
    ),
    (
        r#"
[limits]
bodybytes = 1
"#,
        &[r#"postrider.toml:2: limits.bodybytes: expected a known key, got "bodybytes" (did you mean "body_bytes"?)"#],
    ),
    (
        r#"
[log]
level = "loud"
"#,
        &[r#"postrider.toml:2: log.level: expected "error", "warn", "info", "debug" or "trace", got "loud""#],
    ),
    (
        r#"
[data]
dir = ""
"#,
        &[r#"postrider.toml:2: data.dir: expected a path, got """#],
    ),
    (
        r#"
[egress]
allow = [
  "10.1.0.0/16",
  "10.1.2.3/16",
  5,
]
"#,
        &[
            r#"postrider.toml:4: egress.allow[1]: expected the first address of the range, 10.1.0.0/16, got "10.1.2.3/16""#,
            r#"postrider.toml:5: egress.allow[2]: expected a network such as "10.1.0.0/16", got 5"#,
        ],
    ),
    (
        r#"
[egress]
ports = []
"#,
        &[
            r#"postrider.toml:2: egress.ports: expected a list of ports such as [443], with one at least, at most 1000, got 0 of them"#,
        ],
    ),
    (
        r#"
[egress]
ports = [443, 0]
"#,
        &[r#"postrider.toml:2: egress.ports[1]: expected a port between 1 and 65535, got 0"#],
    ),
    (
        r#"
[egress]
ca_file = "no.pem"
"#,
        &[r#"postrider.toml:2: egress.ca_file: expected PEM certificates in no.pem, got an error: entity not found"#],
    ),
];

const RULES: &[(&str, &[&str])] = &[
    (
        r#"
[limits]
process_bytes = "512MiB"
"#,
        &[
            r#"postrider.toml:2: limits.process_bytes: expected at least 578814144B for limits.pending = 1, got 512MiB: bodies, queue, cache and pending deliveries must fit into the memory"#,
        ],
    ),
    (
        r#"
[limits]
body_bytes = "16MiB"
"#,
        &[
            r#"postrider.toml:2: limits.body_bytes: expected less for limits.batch_bytes = 8MiB, got 16MiB: a request with its headers must fit into a batch"#,
        ],
    ),
    (
        r#"
[limits]
batch_bytes = "1MiB"
"#,
        &[
            r#"postrider.toml:2: limits.batch_bytes: expected at least 1044KiB for limits.body_bytes = 1MiB, got 1MiB: a request with its headers must fit into a batch"#,
            r#"postrider.toml:2: limits.batch_bytes: expected at least 1028KiB for limits.api_body_bytes = 1MiB, got 1MiB: a message must fit into a batch"#,
        ],
    ),
    (
        r#"
[limits]
segment_bytes = "8MiB"
"#,
        &[
            r#"postrider.toml:2: limits.segment_bytes: expected at least 16MiB for limits.batch_bytes = 8MiB, got 8MiB: a segment must hold two batches"#,
        ],
    ),
    (
        r#"
[retention]
bytes = "200MiB"
"#,
        &[
            r#"postrider.toml:2: retention.bytes: expected at least 256MiB for limits.segment_bytes = 64MiB, got 200MiB: the journal needs four segments"#,
        ],
    ),
    (
        r#"
[limits]
in_flight = 10
endpoint_in_flight = 20
"#,
        &[
            r#"postrider.toml:2: limits.in_flight: expected at least 20 for limits.endpoint_in_flight = 20, got 10: one endpoint's attempts are among all attempts"#,
        ],
    ),
    (
        r#"
[limits]
in_flight = 20000
"#,
        &[
            r#"postrider.toml:2: limits.in_flight: expected less for limits.window = 10000, got 20000: what is in flight is in the window"#,
        ],
    ),
    (
        r#"
[listen]
management = "127.0.0.1:8080"
"#,
        &[
            r#"postrider.toml:2: listen.management: expected two addresses, got 0.0.0.0:8080 for ingress and 127.0.0.1:8080 for management"#,
        ],
    ),
];

const SOURCES: &[(&str, &[&str])] = &[
    (
        r#"
[[source]]
"#,
        &[
            r#"postrider.toml:1: source[0].name: expected a name of 1 to 63 characters a-z 0-9 _ -, the first of them a letter or digit, got nothing"#,
            r#"postrider.toml:1: source[0].provider: expected a provider, one of "github", "standard_webhooks", "stripe" or "hmac", got nothing"#,
            r#"postrider.toml:1: source[0].secrets: expected a list of secrets such as ["env:NAME"], got nothing"#,
        ],
    ),
    (
        r#"
[[source]]
name = "A b"
provider = "githib"
secrets = []
"#,
        &[
            r#"postrider.toml:2: source[0].name ("A b"): expected a name of 1 to 63 characters a-z 0-9 _ -, the first of them a letter or digit, got "A b""#,
            r#"postrider.toml:3: source[0].provider ("A b"): expected a provider, one of "github", "standard_webhooks", "stripe" or "hmac" (did you mean "github"?), got "githib""#,
            r#"postrider.toml:4: source[0].secrets ("A b"): expected a list of 1 to 16 secrets such as ["env:NAME"], got 0 of them"#,
        ],
    ),
    (
        r#"
[[source]]
name = "a"
provider = "github"
secrets = ["x"]
[[source]]
name = "a"
provider = "github"
secret = "x"
"#,
        &[
            r#"postrider.toml:5: source[1].name ("a"): expected a name of its own, got "a" again"#,
            r#"postrider.toml:5: source[1].secrets ("a"): expected a list of secrets such as ["env:NAME"], got nothing"#,
            r#"postrider.toml:8: source[1].secret ("a"): expected a known key, got "secret" (did you mean "secrets"?)"#,
        ],
    ),
    (
        r#"
[[source]]
name = "a"
provider = "github"
secrets = [
  "env:NO_SUCH",
  "env:EMPTY",
  "env:my-secret!",
  "file:no.such",
  "",
  7,
]
"#,
        &[
            r#"postrider.toml:5: source[0].secrets[0] ("a"): expected a value for env:NO_SUCH, got no such variable, or an empty one"#,
            r#"postrider.toml:6: source[0].secrets[1] ("a"): expected a value for env:EMPTY, got no such variable, or an empty one"#,
            r#"postrider.toml:7: source[0].secrets[2] ("a"): expected the name of a variable after env:, of letters, digits and _, got another text; write literal:… for a secret that begins so"#,
            r#"postrider.toml:8: source[0].secrets[3] ("a"): expected a readable file at file:no.such, got an error: entity not found"#,
            r#"postrider.toml:9: source[0].secrets[4] ("a"): expected a secret: "env:NAME", "file:PATH" or the secret itself, got an empty text"#,
            r#"postrider.toml:10: source[0].secrets[5] ("a"): expected a secret: "env:NAME", "file:PATH" or the secret itself, got a whole number"#,
        ],
    ),
    (
        r#"
[[source]]
name = "a"
provider = "standard_webhooks"
secrets = "x"
tolerance_s = 0
"#,
        &[
            r#"postrider.toml:4: source[0].secrets ("a"): expected a list of 1 to 16 secrets such as ["env:NAME"], got a text"#,
            r#"postrider.toml:5: source[0].tolerance_s ("a"): expected a whole number of seconds between 1 and 2592000, got 0"#,
        ],
    ),
    (
        r#"
[[source]]
name = "a"
provider = "standard_webhooks"
secrets = ["not base64!"]
"#,
        &[
            r#"postrider.toml:4: source[0].secrets[0] ("a"): expected a secret that can be used, got one that can't: the secret is not base64 in the standard alphabet; copy it as the provider shows it"#,
        ],
    ),
    (
        r#"
[[source]]
name = "a"
provider = "hmac"
secrets = ["x"]
"#,
        &[
            r#"postrider.toml:1: source[0].hmac ("a"): expected a [source.hmac] table for provider = "hmac", got nothing"#,
        ],
    ),
    (
        r#"
[[source]]
name = "a"
provider = "github"
secrets = ["x"]
[source.hmac]
header = "X"
"#,
        &[
            r#"postrider.toml:5: source[0].hmac ("a"): expected no [source.hmac] table for provider = "github", got one; for a scheme of your own write provider = "hmac""#,
        ],
    ),
    (
        r#"
[[source]]
name = "a"
provider = "hmac"
secrets = ["x"]
[source.hmac]
header = "X"
encoding = "hexx"
"#,
        &[
            r#"postrider.toml:7: source[0].hmac ("a"): unknown variant `hexx`, expected one of `hex`, `base64`, `base64url`"#,
        ],
    ),
    (
        r#"
[[source]]
name = "a"
provider = "hmac"
secrets = ["x"]
[source.hmac]
header = "X"
message = "{bodi}"
"#,
        &[
            r#"postrider.toml:5: source[0].hmac ("a"): `message` can't be read: unknown placeholder `{bodi}`; known are {body}, {ts}, {url}, {method}, {header:Name}, {json:path}"#,
        ],
    ),
];

/// After the nine lines of [`with_good`].
const ENDPOINTS: &[(&str, &[&str])] = &[
    (
        r#"
[[endpoint]]
name = "x"
url = "https://a.example/"
"#,
        &[
            r#"postrider.toml:10: endpoint[1] ("x"): expected `sources` (inbound) or `event_types` (published) or both, got neither: this endpoint would take nothing"#,
        ],
    ),
    (
        r#"
[[endpoint]]
name = "e"
url = "https://a.example/"
sources = ["s"]
"#,
        &[
            r#"postrider.toml:10: endpoint[1].name ("e"): expected a name of its own in application "default", got "e" again"#,
        ],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "https://a.example/"
sources = ["ss", 4]
"#,
        &[
            r#"postrider.toml:13: endpoint[1].sources[0] ("x"): expected the name of a source, "s" (did you mean "s"?), got "ss""#,
            r#"postrider.toml:13: endpoint[1].sources[1] ("x"): expected the name of a source, "s", got 4"#,
        ],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "https://a.example/"
event_types = ["order.*", "a*"]
secret = "env:SECRET"
"#,
        &[
            r#"postrider.toml:13: endpoint[1].event_types[1] ("x"): expected an event type pattern such as "order.created", "order.*" or "**", got "a*""#,
        ],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "https://a.example/"
event_types = ["order.*"]
"#,
        &[
            r#"postrider.toml:10: endpoint[1].secret ("x"): expected a secret, got nothing: published events (`event_types`) are always signed"#,
        ],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "https://user:pw@a.example/"
sources = ["s"]
"#,
        &[
            r#"postrider.toml:12: endpoint[1].url ("x"): expected a URL without user or password; endpoints authenticate deliveries by their signature; what is there isn't shown, since a URL may hold a secret"#,
        ],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "a.example"
sources = ["s"]
profile = "standard_webhooks"
"#,
        &[
            r#"postrider.toml:12: endpoint[1].url ("x"): expected a URL that starts with http:// or https://; what is there isn't shown, since a URL may hold a secret"#,
            r#"postrider.toml:14: endpoint[1].profile ("x"): expected a profile, one of "standard-webhooks", "x-webhook", "stripe" or "github" (did you mean "standard-webhooks"?), got "standard_webhooks""#,
        ],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "https://a.example/"
sources = ["s"]
secret = "not base64!"
timeout_s = 0
in_flight = 5000
"#,
        &[
            r#"postrider.toml:14: endpoint[1].secret ("x"): expected a secret that can be used, got one that can't: the secret can't be used to sign: the secret is not base64 in the standard alphabet; copy it as the provider shows it"#,
            r#"postrider.toml:15: endpoint[1].timeout_s ("x"): expected a number of seconds between 0.01 and 600, got 0"#,
            r#"postrider.toml:16: endpoint[1].in_flight ("x"): expected a whole number between 1 and 1024, which is limits.in_flight, got 5000"#,
        ],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "https://a.example/"
sources = ["s"]
secret = "env:SECRET"
secrets = ["env:SECRET"]
"#,
        &[r#"postrider.toml:15: endpoint[1].secrets ("x"): expected either `secret` or `secrets`, got both"#],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "https://a.example/"
sources = ["s"]
retry = { schedule_s = [60, -1], preset = "svix" }
"#,
        &[
            r#"postrider.toml:14: endpoint[1].retry ("x"): expected a table such as { schedule_s = [60, 300], jitter = 0.1 }, { preset = "standard-webhooks" } or { base_s = 10, factor = 2.0, cap_s = 3600, retries = 8 }, got keys of several of them"#,
        ],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "https://a.example/"
sources = ["s"]
retry = { schedule_s = [60, -1], jitter = "a" }
"#,
        &[
            r#"postrider.toml:14: endpoint[1].retry.schedule_s[1] ("x"): expected a whole number of seconds, got -1"#,
            r#"postrider.toml:14: endpoint[1].retry.jitter ("x"): expected a number between 0 and 1, got "a""#,
        ],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "https://a.example/"
sources = ["s"]
retry = { preset = "svixx" }
"#,
        &[
            r#"postrider.toml:14: endpoint[1].retry ("x"): expected the preset "default", "standard-webhooks" or "svix", got "svixx""#,
        ],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "https://a.example/"
sources = ["s"]
retry = { base_s = 10, factor = 0.5 }
"#,
        &[r#"postrider.toml:14: endpoint[1].retry.retries ("x"): expected a whole number, got nothing"#],
    ),
    (
        r#"
[[endpoint]]
name = "x"
url = "https://a.example/"
sources = ["s"]
retry = { schedule_s = [1], jitter = 2 }
application = ""
"#,
        &[
            r#"postrider.toml:14: endpoint[1].retry ("x"): expected jitter between 0 and 1, got 2"#,
            r#"postrider.toml:15: endpoint[1].application ("x"): expected a name of 1 to 63 characters a-z 0-9 _ -, the first of them a letter or digit, got """#,
        ],
    ),
];

#[test]
fn an_endpoint_is_not_blamed_for_its_sources_mistake() {
    let text = "[[source]]\nname = \"s\"\nprovider = \"github\"\nsecrets = []\n[[endpoint]]\nname = \"e\"\nurl = \"https://a.example/\"\nsources = [\"s\"]";
    let errors = errors(text);
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.starts_with("postrider.toml:4: source[0].secrets"), "{errors}");
}

#[test]
fn mistakes_of_all_sources_are_told_together() {
    let variables = [("POSTRIDER_LOG", "loud"), ("POSTRIDER_DATA", "a"), ("POSTRIDER_DATA_DIR", "b")];
    let flags = Overrides { management: Some("127.0.0.1:8080".parse().unwrap()), ..Overrides::default() };
    let files = Texts::default().with("postrider.toml", "[limits]\nwindow = 0", false);
    let errors = Config::load(&flags, &environment(&variables), &files).unwrap_err();
    assert_eq!(
        errors.to_string().lines().collect::<Vec<_>>(),
        [
            "postrider.toml:2: limits.window: expected a whole number between 1 and 10000000, got 0",
            "POSTRIDER_DATA_DIR: data.dir: expected one of POSTRIDER_DATA and POSTRIDER_DATA_DIR, got both",
            "POSTRIDER_LOG: log.level: expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\", got \"loud\"",
            "--management: listen.management: expected two addresses, got 0.0.0.0:8080 for ingress and 127.0.0.1:8080 for management",
        ]
    );
    let json = serde_json::to_value(&errors).unwrap();
    assert_eq!(json[0]["line"], 2);
    assert_eq!(json[0]["column"], 10);
    assert_eq!(json[1]["variable"], "POSTRIDER_DATA_DIR");
    assert_eq!(json[3]["flag"], "--management");
}

#[test]
fn what_is_odd_but_allowed_is_a_warning() {
    let text = r#"
[[source]]
name = "idle"
provider = "github"
secrets = ["file:open.secret", "env:POSTRIDER_GITHUB"]

[[source]]
name = "acme"
provider = "github"
secrets = ["literal:env:x"]
application = "acme"

[[endpoint]]
name = "plain"
url = "http://a.example:8000/"
sources = ["acme"]
profile = "github"
secrets = ["a", "b"]

[listen]
management = "0.0.0.0:8081"

[egress]
ports = [443]
"#;
    let files = Texts::default().with("postrider.toml", text, false).with("open.secret", "x\n", true);
    let variables = [("POSTRIDER_GITHUB", "y"), ("POSTRIDER_INGRES", "z"), ("OTHER", "")];
    let config = Config::load(&Overrides::default(), &environment(&variables), &files).unwrap();
    assert_eq!(
        config.warnings,
        [
            "postrider.toml:2: source[0]: no endpoint takes the events of source \"idle\"",
            "postrider.toml:5: source[0].secrets[0] (\"idle\"): file:open.secret can be read by every user of this machine; take that right away (chmod o-r)",
            "postrider.toml:15: endpoint[0].url (\"plain\"): deliveries to a.example are not encrypted; use https:// unless the network is yours",
            "postrider.toml:15: endpoint[0].url (\"plain\"): deliveries to port 8000 will be refused, since egress.ports does not list it",
            "postrider.toml:16: endpoint[0].sources[0] (\"plain\"): this endpoint takes the events of a source of another application, \"acme\"; is that meant?",
            "postrider.toml:18: endpoint[0].secrets (\"plain\"): this profile has room for one signature, so only the first secret signs",
            "postrider.toml:21: listen.management: the management API at 0.0.0.0:8081 can be reached from other machines; only its token protects it, and it is not encrypted",
            "POSTRIDER_INGRES: this variable sets nothing (did you mean \"POSTRIDER_INGRESS\"?)",
        ]
    );
    assert_eq!(config.catalog.source("idle").unwrap().secrets[0].expose(), "x");
    assert_eq!(config.catalog.source("acme").unwrap().secrets[0].expose(), "env:x");
}

#[test]
fn secrets_come_from_files_beside_the_configuration() {
    let text = "[[source]]\nname = \"s\"\nprovider = \"github\"\nsecrets = [\"file:a\", \"file:/abs\"]";
    let files = Texts::default()
        .with("/etc/p/p.toml", text, false)
        .with("/etc/p/a", "one\r\n", false)
        .with("/abs", "two\n\n", false);
    let flags = Overrides { config: Some("/etc/p/p.toml".into()), ..Overrides::default() };
    let config = Config::load(&flags, &Environment::default(), &files).unwrap();
    let secrets: Vec<_> = config.catalog.source("s").unwrap().secrets.iter().map(|s| s.expose().to_owned()).collect();
    assert_eq!(secrets, ["one", "two\n"]);
    for (bytes, expected) in [
        (vec![0xff], "UTF-8 in file:a, got other bytes"),
        (vec![b'x'; 70_000], "at most 65536 bytes in file:a, got more"),
        (vec![b'\n'], "an empty text from file:a"),
    ] {
        let files =
            Texts::default().with("/etc/p/p.toml", text, false).with("/etc/p/a", bytes, false).with("/abs", "x", false);
        let errors = Config::load(&flags, &Environment::default(), &files).unwrap_err().to_string();
        assert!(errors.contains(expected), "{errors}");
    }
}

/// The same through the machine's own files, as `postrider serve` reads them.
#[cfg(unix)]
#[test]
fn real_files_are_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let text = "[[source]]\nname = \"s\"\nprovider = \"github\"\nsecrets = [\"file:s.secret\"]";
    std::fs::write(
        &path,
        with_good("").replace("[[source]]\nname = \"s\"\nprovider = \"github\"\nsecrets = [\"x\"]", text),
    )
    .unwrap();
    std::fs::write(dir.path().join("s.secret"), "hush\n").unwrap();
    let flags = Overrides { config: Some(path), ..Overrides::default() };
    for (mode, warnings) in [(0o644, 1), (0o600, 0)] {
        std::fs::set_permissions(dir.path().join("s.secret"), std::fs::Permissions::from_mode(mode)).unwrap();
        let config = Config::load(&flags, &Environment::default(), &SystemFiles).unwrap();
        assert_eq!(config.catalog.source("s").unwrap().secrets[0].expose(), "hush");
        assert_eq!(config.warnings.len(), warnings, "{:?}", config.warnings);
    }
    let flags = Overrides { config: Some(dir.path().into()), ..Overrides::default() };
    let errors = Config::load(&flags, &Environment::default(), &SystemFiles).unwrap_err().to_string();
    assert!(errors.ends_with("got an error: is a directory"), "{errors}");
}

#[test]
fn defaults_follow_what_is_written() {
    let text = with_good("[limits]\nin_flight = 10\nattempt_timeout_s = 7.5");
    let config = load(&text).unwrap();
    let endpoint = config.catalog.endpoints().next().unwrap();
    assert_eq!((endpoint.in_flight_max, endpoint.timeout_ms), (10, 7_500));
}

/// What no output may hold: long enough that chance doesn't write it.
const MARKER: &str = "MARKERc2VjcmV0";

/// Ways to write a secret, and to get it wrong. `right` is the key and brackets that fit; most are right, as a mistake in
/// one place keeps the others from being read.
fn secret_line(right: (&'static str, &'static str, &'static str)) -> impl Strategy<Value = String> {
    let fine = [format!("\"whsec_{MARKER}\""), format!("\"literal:{MARKER}\""), format!("\"{MARKER}\"")];
    let references = ["\"env:MARKED\"".to_owned(), "\"file:marked\"".to_owned()];
    let wrong = [
        format!("\"{MARKER}!\""),
        format!("\"env:{MARKER}+/=\""),
        format!("'\u{7f}{MARKER}'"),
        MARKER.to_owned(),
        format!("\"{MARKER}"),
        format!("{{ a = \"{MARKER}\" }}"),
        format!("\"\"\"\n{MARKER}\n\"\"\""),
    ];
    let text = prop_oneof![
        3 => prop::sample::select(fine.to_vec()),
        3 => prop::sample::select(references.to_vec()),
        1 => prop::sample::select(wrong.to_vec()),
    ];
    let around = vec![
        ("secret", "", ""),
        ("secrets", "[", "]"),
        ("secrets", "", ""),
        ("secert", "", ""),
        ("secret.x", "", ""),
        ("secrets", "[[", "]]"),
        ("secrets", "[4, ", "]"),
        ("secrets", "[", ""),
        ("secret", "", " x"),
    ];
    let around = prop_oneof![4 => Just(right), 1 => prop::sample::select(around)];
    (around, text).prop_map(|((key, open, close), text)| format!("{key} = {open}{text}{close}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn a_secret_never_shows(
        source in secret_line(("secrets", "[", "]")),
        endpoint in secret_line(("secret", "", "")),
        provider in prop::sample::select(vec!["stripe", "github", "standard_webhooks", "none"]),
        profile in prop::sample::select(vec!["standard-webhooks", "x-webhook", "stripe", "none"]),
        url in prop_oneof![
            3 => Just("https://a.example/"),
            1 => Just("https://u:MARKERc2VjcmV0@a.example/"),
            1 => Just("https://a.example/MARKERc2VjcmV0 x"),
        ],
        is_utf8 in prop::bool::weighted(0.8),
    ) {
        let text = format!(
            "[[source]]\nname = \"s\"\nprovider = \"{provider}\"\n{source}\n[[endpoint]]\nname = \"e\"\nurl = \"{url}\"\n\
             sources = [\"s\"]\nevent_types = [\"*\"]\nprofile = \"{profile}\"\n{endpoint}\n"
        );
        let mut marked = MARKER.as_bytes().to_vec();
        if !is_utf8 {
            marked.push(0xff);
        }
        let files = Texts::default().with("postrider.toml", &text, false).with("marked", marked, true);
        let environment = environment(&[("MARKED", MARKER), ("POSTRIDER_UNKNOWN", MARKER)]);
        let shown = match Config::load(&Overrides::default(), &environment, &files) {
            Ok(config) => format!("{config:?}"),
            Err(e) => format!("{e}\n{e:?}\n{}", serde_json::to_string(&e).unwrap()),
        };
        prop_assert!(!shown.contains(MARKER), "{text}\n{shown}");
    }

    #[test]
    fn any_file_is_read_without_panic(text in "(\\[\\[?(source|endpoint|limits|egress)\\]?\\]\n|(name|url|secrets|retry|sources|allow|bytes) = (\"\\PC{0,8}\"|\\[\"x\"\\]|-?[0-9]{1,30}|\\{ base_s = 1 \\})\n){0,12}") {
        let _ = load(&text);
    }
}
