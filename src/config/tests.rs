//! What needs the module's insides: the table of settings, and that `docs/postrider.toml` is complete and true.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::settings::{self, SETTINGS};
use super::*;

/// A file system of a few texts.
#[derive(Default)]
struct Texts(BTreeMap<PathBuf, String>);

impl Files for Texts {
    fn read(&self, path: &Path, _: usize) -> io::Result<Content> {
        let text = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Content { bytes: text.clone().into_bytes(), is_public: false })
    }
}

const REFERENCE: &str = include_str!("../../docs/postrider.toml");

/// The reference with its optional lines switched on: those with `#` right before the text.
fn everything_on() -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '[') => rest.to_owned(),
        _ => line.to_owned(),
    };
    REFERENCE.lines().map(on).collect::<Vec<_>>().join("\n")
}

fn load(text: &str) -> Result<Config, ConfigErrors> {
    let entries = [
        ("postrider.toml", text),
        ("forge.secret", "a secret\n"),
        ("ca.pem", "-----BEGIN CERTIFICATE-----\n"),
        ("/ca.pem", "-----BEGIN CERTIFICATE-----\n"),
    ];
    let files = Texts(entries.map(|(path, text)| (PathBuf::from(path), text.to_owned())).into());
    let environment = Environment::from_iter([
        ("STRIPE_WEBHOOK_SECRET", "whsec_stripe"),
        ("SHOP_WEBHOOK_SECRET", "c2hvcA=="),
        ("APP_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ]);
    Config::load(&Overrides::default(), &environment, &files)
}

/// All that isn't a source or an endpoint.
fn settings_of(config: &Config) -> String {
    let Config { listeners, data_dir, token_file, limits, egress, log, .. } = config;
    format!("{listeners:?} {data_dir:?} {token_file:?} {limits:?} {egress:?} {log:?}")
}

#[test]
fn the_reference_is_the_default_configuration() {
    let config = load(REFERENCE).unwrap();
    assert_eq!(settings_of(&config), settings_of(&Config::default()));
    assert_eq!((config.catalog.sources().count(), config.catalog.endpoints().count()), (0, 0));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_reference_loads_with_everything_on() {
    let config = load(&everything_on()).unwrap();
    assert_eq!((config.catalog.sources().count(), config.catalog.endpoints().count()), (3, 3));
    assert_eq!(config.token_file.as_deref(), Some(Path::new("/run/secrets/postrider-token")));
    assert_eq!(config.literals, [("127.0.0.1".to_owned(), 3000)]);
    assert_eq!(config.warnings, Vec::<String>::new());
}

/// The values that the reference shows for an endpoint are those that an endpoint has without them.
#[test]
fn the_reference_shows_an_endpoints_defaults() {
    let shown = load(&everything_on()).unwrap();
    let app = shown.catalog.endpoint_by_text("default", "app").unwrap();
    let bare = "[[endpoint]]\nname = \"app\"\nurl = \"http://localhost/\"\nevent_types = [\"a\"]\nsecret = \"YWI=\"";
    let bare = load(bare).unwrap();
    let bare = bare.catalog.endpoint_by_text("default", "app").unwrap();
    assert_eq!(
        (app.id, &app.retry, app.timeout_ms, app.in_flight_max),
        (bare.id, &bare.retry, bare.timeout_ms, bare.in_flight_max)
    );
    assert_eq!((&app.app_name, app.profile), (&bare.app_name, bare.profile));
}

/// The keys of a `[source.hmac]` table are those its `Deserialize` says it knows.
fn hmac_keys() -> Vec<String> {
    let error = toml::from_str::<crate::core::signature::HmacConfig>("bogus = 1").unwrap_err();
    let quoted = error.message().split('`').skip(3).step_by(2);
    quoted.map(str::to_owned).collect()
}

#[test]
fn every_key_is_in_the_reference() {
    let on: toml::Table = everything_on().parse().unwrap();
    for setting in SETTINGS {
        assert!(on[setting.section].get(setting.key).is_some(), "{}", setting.dotted());
        let variable = setting.short_variable();
        assert!(variable.is_none_or(|v| REFERENCE.contains(v)), "{variable:?}");
    }
    egress::LIST_KEYS.iter().for_each(|key| assert!(on["egress"].get(key).is_some(), "egress.{key}"));
    let tables = |key: &str| on[key].as_array().unwrap().clone();
    let has = |tables: &[toml::Value], key: &str| tables.iter().any(|t| t.get(key).is_some());
    source::KEYS.iter().for_each(|key| assert!(has(&tables("source"), key), "source.{key}"));
    // A table can't hold both ways to give secrets.
    endpoint::KEYS.iter().for_each(|key| assert!(has(&tables("endpoint"), key), "endpoint.{key}"));
    let retries: Vec<_> = tables("endpoint").iter().filter_map(|t| t.get("retry").cloned()).collect();
    endpoint::RETRY_KEYS.iter().for_each(|key| assert!(has(&retries, key), "retry.{key}"));
    let hmacs: Vec<_> = tables("source").iter().filter_map(|t| t.get("hmac").cloned()).collect();
    assert!(hmac_keys().len() > 10);
    hmac_keys().iter().for_each(|key| assert!(has(&hmacs, key), "hmac.{key}"));
}

/// A text that sets this setting to something that isn't its default.
fn other_value(setting: &settings::Setting) -> String {
    let on: toml::Table = REFERENCE.parse().unwrap();
    let default = on.get(setting.section).and_then(|s| s.get(setting.key));
    match (setting.section, default) {
        ("listen", _) => "127.0.0.1:9".to_owned(),
        ("log", _) => "trace".to_owned(),
        ("data" | "egress", _) => "/ca.pem".to_owned(),
        (_, Some(toml::Value::Integer(n))) => (n - 1).to_string(),
        (_, Some(toml::Value::String(text))) => (size::parse(text).unwrap() - 1).to_string(),
        (_, other) => panic!("{}: {other:?}", setting.dotted()),
    }
}

#[test]
fn every_setting_has_a_field_and_a_variable_of_its_own() {
    let files = Texts([(PathBuf::from("/ca.pem"), "-----BEGIN CERTIFICATE-----".to_owned())].into());
    let mut outcomes = BTreeSet::from([settings_of(&Config::default())]);
    for setting in SETTINGS {
        for variable in [Some(setting.variable()), setting.short_variable().map(str::to_owned)].into_iter().flatten() {
            let environment = Environment::from_iter([(variable.clone(), other_value(setting))]);
            let config = Config::load(&Overrides::default(), &environment, &files).unwrap_or_else(|e| panic!("{e}"));
            let is_first = variable == setting.variable();
            assert_eq!(outcomes.insert(settings_of(&config)), is_first, "{variable}");
            assert_eq!(config.warnings, Vec::<String>::new());
        }
    }
}

#[test]
fn variables_are_named_by_section_and_key() {
    let names: BTreeSet<_> = SETTINGS.iter().map(settings::Setting::variable).collect();
    assert_eq!(names.len(), SETTINGS.len());
    for name in ["POSTRIDER_LIMITS_BODY_BYTES", "POSTRIDER_RETENTION_DEDUP_DAYS", "POSTRIDER_EGRESS_CA_FILE"] {
        assert!(names.contains(name), "{name}");
    }
}

#[test]
fn an_impossible_variable_or_file_never_panics() {
    let files = Texts::default();
    for setting in SETTINGS {
        for value in
            ["-1", "1e400", "NaN", "inf", "-inf", "99999999999999999999999", "\u{202e}x", "0x10", "1_0", " 1", ""]
        {
            let environment = Environment::from_iter([(setting.variable(), value)]);
            let _ = Config::load(&Overrides::default(), &environment, &files);
        }
    }
}
