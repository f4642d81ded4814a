//! `[[endpoint]]`: a URL that takes deliveries, what it takes, how it is signed for and when it is tried again.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Config;
use super::error::Report;
use super::secrets::SecretReader;
use super::settings::{TIMEOUT_MS_MAX, TIMEOUT_MS_MIN, milliseconds};
use super::source::{Sources, read_application, read_name, read_secret, read_secret_list};
use super::suggest::{did_you_mean, listed};
use super::tree::{Node, Table, quoted};
use crate::core::endpoint::{Endpoint, app_id, endpoint_id, source_id};
use crate::core::error::chain;
use crate::core::id::SourceId;
use crate::core::pattern::Pattern;
use crate::core::retry::{DEFAULT_SCHEDULE_S, RetryError, RetryPolicy};
use crate::core::secret::Secret;
use crate::core::signature::Profile;
use crate::core::url::EndpointUrl;

/// The keys of the table.
pub(super) const KEYS: [&str; 11] = [
    "name",
    "application",
    "url",
    "sources",
    "event_types",
    "secret",
    "secrets",
    "profile",
    "retry",
    "timeout_s",
    "in_flight",
];

/// The keys of `retry`: those of a list, of a preset and of an exponential schedule.
pub(super) const RETRY_KEYS: [&str; 7] = ["schedule_s", "preset", "base_s", "factor", "cap_s", "retries", "jitter"];

/// The names of the profiles.
const PROFILES: [Profile; 4] = [Profile::StandardWebhooks, Profile::XWebhook, Profile::Stripe, Profile::GitHub];

/// Most sources and most patterns of one endpoint.
const TAKEN_MAX: usize = 1_000;

/// The jitter of a schedule that doesn't say.
const JITTER: f64 = 0.1;

/// The growth of an exponential schedule that doesn't say.
const FACTOR: f64 = 2.0;

const RETRY_FORMS: &str = "a table such as { schedule_s = [60, 300], jitter = 0.1 }, { preset = \"standard-webhooks\" } or \
                           { base_s = 10, factor = 2.0, cap_s = 3600, retries = 8 }";

/// Reads every endpoint; `config` holds the limits and takes the literal addresses.
pub(super) fn read_all(
    nodes: &[Node<'_>],
    sources: &Sources,
    config: &mut Config,
    secrets: &mut SecretReader<'_>,
    report: &mut Report,
) -> Vec<Endpoint> {
    let mut reader = EndpointReader { sources, config, secrets, report, names: BTreeSet::new() };
    nodes.iter().filter_map(|node| reader.read(node)).collect()
}

struct EndpointReader<'a, 'b> {
    sources: &'a Sources,
    config: &'a mut Config,
    secrets: &'a mut SecretReader<'b>,
    report: &'a mut Report,
    /// Application and name of what was read, as a name is one endpoint's within its application.
    names: BTreeSet<(String, String)>,
}

/// What an endpoint takes.
struct Taken {
    sources: Vec<SourceId>,
    event_types: Vec<Pattern>,
}

impl EndpointReader<'_, '_> {
    fn read(&mut self, node: &Node<'_>) -> Option<Endpoint> {
        let table = &node.table("an [[endpoint]] table", self.report)?;
        table.check_keys(&KEYS, self.report);
        // Each part is read whatever became of those before it, so that all errors are told.
        let name = read_name(table, self.report);
        let app_name = read_application(table, self.report);
        self.check_unique(table, name.as_deref(), app_name.as_deref());
        let url = self.url(table);
        let taken = self.taken(table, app_name.as_deref());
        let profile = self.profile(table);
        let secrets = self.signing_secrets(table, profile, taken.as_ref());
        let retry = self.retry(table);
        let timeout_ms = self.timeout_ms(table);
        let in_flight_max = self.in_flight(table);
        let (name, app_name, taken) = (name?, app_name?, taken?);
        Some(Endpoint {
            id: endpoint_id(&app_name, &name),
            app: app_id(&app_name),
            name,
            app_name,
            url: url?,
            sources: taken.sources,
            event_types: taken.event_types,
            secrets: secrets?,
            profile: profile?,
            retry: retry?,
            timeout_ms: timeout_ms?,
            in_flight_max: in_flight_max?,
        })
    }

    fn check_unique(&mut self, table: &Table<'_>, name: Option<&str>, app: Option<&str>) {
        let (Some(name), Some(app)) = (name, app) else { return };
        if !self.names.insert((app.to_owned(), name.to_owned())) {
            let message = format!("expected a name of its own in application {app:?}, got {name:?} again");
            self.report.error(table.spot_of("name"), &message);
        }
    }

    fn url(&mut self, table: &Table<'_>) -> Option<String> {
        let node = table.require("url", "a URL such as \"https://example.com/webhooks\"", self.report)?;
        let text = node.text("a URL such as \"https://example.com/webhooks\"", self.report)?;
        let url = match EndpointUrl::parse(text) {
            Ok(url) => url,
            Err(e) => {
                let message = format!("{e}; what is there isn't shown, since a URL may hold a secret");
                self.report.error(node.spot(), &message);
                return None;
            }
        };
        let is_literal = is_private_literal(&url);
        if !url.is_https() && !is_loopback(&url) {
            let host = url.host();
            let message = format!("deliveries to {host} are not encrypted; use https:// unless the network is yours");
            self.report.warn(node.spot(), &message);
        }
        let (ports, port) = (self.config.egress.ports.as_deref(), url.port());
        if !is_literal && ports.is_some_and(|ports| !ports.contains(&port)) {
            let message = format!("deliveries to port {port} will be refused, since egress.ports does not list it");
            self.report.warn(node.spot(), &message);
        }
        let literal = (url.host().to_owned(), port);
        if is_literal && !self.config.literals.contains(&literal) {
            self.config.literals.push(literal);
        }
        Some(text.to_owned())
    }

    fn taken(&mut self, table: &Table<'_>, app: Option<&str>) -> Option<Taken> {
        let sources = table.get("sources").map(|node| self.source_ids(&node, app));
        let event_types = table.get("event_types").map(|node| self.patterns(&node));
        if is_nothing(sources.as_ref()) && is_nothing(event_types.as_ref()) {
            let message = "expected `sources` (inbound) or `event_types` (published) or both, got neither: this endpoint \
                           would take nothing";
            self.report.error(table.spot(), message);
            return None;
        }
        // An omitted list is an empty one; a wrong one has been reported.
        let (sources, event_types) = (sources.unwrap_or(Some(Vec::new())), event_types.unwrap_or(Some(Vec::new())));
        Some(Taken { sources: sources?, event_types: event_types? })
    }

    fn source_ids(&mut self, node: &Node<'_>, app: Option<&str>) -> Option<Vec<SourceId>> {
        let items = self.few(node, "a list of the names of sources")?;
        let mut ids = Some(Vec::new());
        for item in items {
            let known = || self.sources.applications.keys().map(String::as_str);
            let expected = format!("the name of a source, {}", listed(known()));
            let Some(name) = item.text(&expected, self.report) else {
                ids = None;
                continue;
            };
            match self.sources.applications.get(name) {
                None => {
                    let hint = did_you_mean(name, known());
                    item.expected(&format!("{expected}{hint}"), self.report);
                    ids = None;
                }
                Some(of) => {
                    if app.is_some_and(|app| app != of && !of.is_empty()) {
                        let message = format!(
                            "this endpoint takes the events of a source of another application, {of:?}; is that meant?"
                        );
                        self.report.warn(item.spot(), &message);
                    }
                    if let Some(ids) = &mut ids {
                        ids.push(source_id(name));
                    }
                }
            }
        }
        ids
    }

    fn patterns(&mut self, node: &Node<'_>) -> Option<Vec<Pattern>> {
        let expected = "an event type pattern such as \"order.created\", \"order.*\" or \"**\"";
        let items = self.few(node, "a list of event type patterns such as [\"order.*\"]")?;
        let read = items.iter().map(|item| {
            let pattern = item.text(expected, self.report)?.parse();
            pattern.map_err(|_| item.expected(expected, self.report)).ok()
        });
        // Every pattern is read, so that all that is wrong with them is told.
        let read: Vec<_> = read.collect();
        read.into_iter().collect()
    }

    fn few<'t>(&mut self, node: &Node<'t>, what: &str) -> Option<Vec<Node<'t>>> {
        let items = node.list(what, self.report)?;
        if items.len() > TAKEN_MAX {
            node.blind(&format!("{what}, at most {TAKEN_MAX}"), &format!("{} of them", items.len()), self.report);
            return None;
        }
        Some(items)
    }

    fn profile(&mut self, table: &Table<'_>) -> Option<Profile> {
        let Some(node) = table.get("profile") else { return Some(Profile::default()) };
        let known = || PROFILES.iter().map(|p| p.name());
        let expected = format!("a profile, one of {}", listed(known()));
        let name = node.text(&expected, self.report)?;
        let profile = Profile::parse(name);
        if profile.is_none() {
            node.expected(&format!("{expected}{}", did_you_mean(name, known())), self.report);
        }
        profile
    }

    /// The secrets that sign. None at all means that inbound events pass on with their provider's signature only.
    fn signing_secrets(
        &mut self,
        table: &Table<'_>,
        profile: Option<Profile>,
        taken: Option<&Taken>,
    ) -> Option<Vec<Secret>> {
        let check = |secret: &Secret| match profile {
            Some(profile) => profile.validate_secret(secret).map_err(|e| chain(&e)),
            None => Ok(()),
        };
        match (table.get("secret"), table.get("secrets")) {
            (Some(_), Some(several)) => {
                several.blind("either `secret` or `secrets`", "both", self.report);
                None
            }
            (Some(one), None) => Some(vec![read_secret(&one, self.secrets, self.report, check)?]),
            (None, Some(several)) => {
                let secrets = read_secret_list(&several, self.secrets, self.report, check)?;
                if secrets.len() > 1 && matches!(profile, Some(Profile::XWebhook | Profile::GitHub)) {
                    let message = "this profile has room for one signature, so only the first secret signs";
                    self.report.warn(several.spot(), message);
                }
                Some(secrets)
            }
            (None, None) if taken.is_some_and(|taken| !taken.event_types.is_empty()) => {
                let message = "expected a secret, got nothing: published events (`event_types`) are always signed";
                self.report.error(table.spot_of("secret"), message);
                None
            }
            (None, None) => Some(Vec::new()),
        }
    }

    fn retry(&mut self, table: &Table<'_>) -> Option<RetryPolicy> {
        let Some(node) = table.get("retry") else { return Some(RetryPolicy::default()) };
        let retry = node.table(RETRY_FORMS, self.report)?;
        retry.check_keys(&RETRY_KEYS, self.report);
        let has = |key: &str| retry.get(key).is_some();
        let forms = [has("schedule_s"), has("preset"), ["base_s", "factor", "cap_s", "retries"].iter().any(|k| has(k))];
        if forms.iter().filter(|form| **form).count() != 1 {
            let got = if forms.contains(&true) { "keys of several of them" } else { "none of their keys" };
            self.report.error(retry.spot(), &format!("expected {RETRY_FORMS}, got {got}"));
            return None;
        }
        let jitter = self.number(&retry, "jitter", "a number between 0 and 1");
        let policy = match forms {
            [true, ..] => RetryPolicy::list(&self.delays(&retry)?, jitter?.unwrap_or(JITTER)),
            [_, true, _] => {
                let preset = retry.require("preset", "a preset", self.report)?;
                let name = preset.text("the preset \"default\", \"standard-webhooks\" or \"svix\"", self.report)?;
                RetryPolicy::preset(name, jitter?)
            }
            _ => self.exponential(&retry, jitter?.unwrap_or(JITTER))?,
        };
        policy.map_err(|e| self.report.error(retry.spot(), &e.to_string())).ok()
    }

    fn delays(&mut self, retry: &Table<'_>) -> Option<Vec<u64>> {
        let expected = "a list of whole seconds such as [60, 300]";
        let node = retry.require("schedule_s", expected, self.report)?;
        let mut delays = Some(Vec::new());
        for item in node.list(expected, self.report)? {
            match (item.whole(), &mut delays) {
                (Some(seconds), Some(delays)) => delays.push(seconds),
                (Some(_), None) => {}
                (None, _) => {
                    item.expected("a whole number of seconds", self.report);
                    delays = None;
                }
            }
        }
        delays
    }

    fn exponential(&mut self, retry: &Table<'_>, jitter: f64) -> Option<Result<RetryPolicy, RetryError>> {
        let base = self.whole(retry, "base_s", None);
        let cap = self.whole(retry, "cap_s", DEFAULT_SCHEDULE_S.last().copied());
        let retries = self.whole(retry, "retries", None);
        let factor = self.number(retry, "factor", "a number between 1 and 100");
        // A count past usize is past the most retries too.
        let retries = usize::try_from(retries?).unwrap_or(usize::MAX);
        Some(RetryPolicy::exponential(base?, factor?.unwrap_or(FACTOR), cap?, retries, jitter))
    }

    fn whole(&mut self, table: &Table<'_>, key: &str, default: Option<u64>) -> Option<u64> {
        let expected = if key.ends_with("_s") { "a whole number of seconds" } else { "a whole number" };
        if default.is_some() && table.get(key).is_none() {
            return default;
        }
        let node = table.require(key, expected, self.report)?;
        let number = node.whole();
        if number.is_none() {
            node.expected(expected, self.report);
        }
        number
    }

    /// A number that may be left out: then `Some(None)`.
    fn number(&mut self, table: &Table<'_>, key: &str, expected: &str) -> Option<Option<f64>> {
        let Some(node) = table.get(key) else { return Some(None) };
        let number = node.number();
        if number.is_none() {
            node.expected(expected, self.report);
        }
        number.map(Some)
    }

    fn timeout_ms(&mut self, table: &Table<'_>) -> Option<u64> {
        let Some(node) = table.get("timeout_s") else { return Some(self.config.limits.delivery.attempt_timeout_ms) };
        let ms = node.number().and_then(|seconds| milliseconds(seconds, 1_000));
        let ms = ms.filter(|ms| (TIMEOUT_MS_MIN..=TIMEOUT_MS_MAX).contains(ms));
        if ms.is_none() {
            let (min, max) = (TIMEOUT_MS_MIN as f64 / 1e3, TIMEOUT_MS_MAX / 1_000);
            node.expected(&format!("a number of seconds between {min} and {max}"), self.report);
        }
        ms
    }

    fn in_flight(&mut self, table: &Table<'_>) -> Option<usize> {
        let delivery = &self.config.limits.delivery;
        let Some(node) = table.get("in_flight") else { return Some(delivery.endpoint_in_flight_max) };
        let max = delivery.in_flight_max;
        let count = node.whole().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=max).contains(n));
        if count.is_none() {
            node.expected(&format!("a whole number between 1 and {max}, which is limits.in_flight"), self.report);
        }
        count
    }
}

/// Whether a list is omitted or empty; one that couldn't be read was meant to hold something.
fn is_nothing<T>(list: Option<&Option<Vec<T>>>) -> bool {
    list.is_none_or(|read| read.as_ref().is_some_and(Vec::is_empty))
}

/// Whether the URL leads to this machine, by its text alone.
fn is_loopback(url: &EndpointUrl) -> bool {
    url.host() == "localhost" || url.ip().is_some_and(|ip| ip.is_loopback())
}

/// Whether the host is `localhost` or a literal loopback or private address (RFC 1918, RFC 4193): the one kind that the
/// operator's own file may name though deliveries don't go there otherwise.
fn is_private_literal(url: &EndpointUrl) -> bool {
    match url.ip() {
        Some(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private(),
        Some(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        None => url.host() == "localhost",
    }
}

/// Warns of sources that nobody takes from: their events are kept but go nowhere.
pub(super) fn warn_of_untaken(nodes: &[Node<'_>], sources: &Sources, endpoints: &[Endpoint], report: &mut Report) {
    let is_taken = |id: SourceId| endpoints.iter().any(|e| e.sources.contains(&id));
    for source in sources.complete.iter().filter(|s| !is_taken(s.id)) {
        let name = |node: &&Node<'_>| {
            node.value().as_table().and_then(|t| t.get("name")?.get_ref().as_str()) == Some(&source.name)
        };
        if let Some(node) = nodes.iter().find(name) {
            let message = format!("no endpoint takes the events of source {}", quoted(&source.name));
            report.warn(node.spot(), &message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_spellings_are_private_literals() {
        let is = |host: &str| is_private_literal(&EndpointUrl::parse(&format!("http://{host}/")).unwrap());
        let literals = ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1"];
        for host in literals.into_iter().chain(["[::1]", "[fd00::1]"]) {
            assert!(is(host), "{host}");
        }
        // Names resolve to anything; odd spellings, the cloud's metadata address and tunnels are no one's app.
        let others = ["example.com", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "169.254.169.254", "0.0.0.0"];
        for host in others.into_iter().chain(["100.64.0.1", "8.8.8.8", "[::]", "[fe80::1]", "[::ffff:127.0.0.1]"]) {
            assert!(!is(host), "{host}");
        }
    }
}
