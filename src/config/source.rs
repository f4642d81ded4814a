//! `[[source]]`: an inbound URL and how its requests are verified.

use std::collections::BTreeMap;

use super::error::Report;
use super::secrets::SecretReader;
use super::suggest::{did_you_mean, listed};
use super::tree::{Node, Table, quoted};
use crate::core::endpoint::{DEFAULT_APP, Source, app_id, source_id};
use crate::core::error::chain;
use crate::core::secret::Secret;
use crate::core::signature::{HmacConfig, SECRETS_MAX, Scheme, provider, provider_ids};

/// The keys of the table.
pub(super) const KEYS: [&str; 6] = ["name", "provider", "secrets", "tolerance_s", "application", "hmac"];

/// The provider that `[source.hmac]` describes.
const OWN: &str = "hmac";

/// The longest tolerance, in seconds: thirty days, past which a timestamp says nothing.
const TOLERANCE_S_MAX: u64 = 2_592_000;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// What names look like.
const NAME: &str = "a name of 1 to 63 characters a-z 0-9 _ -, the first of them a letter or digit";

/// What was read.
#[derive(Default)]
pub(super) struct Sources {
    /// The ones without error.
    pub(super) complete: Vec<Source>,
    /// Every name, also of those with errors, so that an endpoint that takes one of them isn't blamed for it.
    pub(super) applications: BTreeMap<String, String>,
}

/// Reads every source.
pub(super) fn read_all(nodes: &[Node<'_>], secrets: &mut SecretReader<'_>, report: &mut Report) -> Sources {
    let mut sources = Sources::default();
    for node in nodes {
        let Some(table) = node.table("a [[source]] table", report) else { continue };
        table.check_keys(&KEYS, report);
        let name = read_name(&table, report);
        let application = read_application(&table, report);
        if let Some(name) = &name {
            let known = sources.applications.insert(name.clone(), application.clone().unwrap_or_default());
            if known.is_some() {
                report.error(table.spot_of("name"), &format!("expected a name of its own, got {name:?} again"));
            }
        }
        let scheme = read_scheme(&table, report);
        let secrets = read_secrets(&table, scheme.as_ref(), secrets, report);
        let tolerance_s = read_tolerance(&table, report);
        if let (Some(name), Some(application), Some(scheme), Some(secrets)) = (name, application, scheme, secrets) {
            let (id, app) = (source_id(&name), app_id(&application));
            sources.complete.push(Source { id, name, app, app_name: application, scheme, secrets, tolerance_s });
        }
    }
    sources
}

/// The key `name`, which must be there.
pub(super) fn read_name(table: &Table<'_>, report: &mut Report) -> Option<String> {
    checked_name(&table.require("name", NAME, report)?, report)
}

/// The key `application`, or the default one.
pub(super) fn read_application(table: &Table<'_>, report: &mut Report) -> Option<String> {
    match table.get("application") {
        Some(node) => checked_name(&node, report),
        None => Some(DEFAULT_APP.to_owned()),
    }
}

fn checked_name(node: &Node<'_>, report: &mut Report) -> Option<String> {
    let text = node.text(NAME, report)?;
    let is_alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let rest_fits = text.bytes().all(|b| is_alphanumeric(b) || b == b'_' || b == b'-');
    let fits = text.bytes().next().is_some_and(is_alphanumeric) && rest_fits && text.len() <= NAME_BYTES_MAX;
    if !fits {
        node.expected(NAME, report);
    }
    fits.then(|| text.to_owned())
}

/// The scheme of a built-in provider, or the one that `[source.hmac]` describes.
fn read_scheme(table: &Table<'_>, report: &mut Report) -> Option<Scheme> {
    let known = || provider_ids().chain([OWN]);
    let expected = format!("a provider, one of {}", listed(known()));
    let node = table.require("provider", &expected, report)?;
    let id = node.text(&expected, report)?;
    let hmac = table.get("hmac");
    if id == OWN {
        let hmac = match hmac {
            Some(hmac) => hmac,
            None => table.require("hmac", "a [source.hmac] table for provider = \"hmac\"", report)?,
        };
        let config: HmacConfig = hmac.deserialize(report)?;
        let scheme = Scheme::try_from(config);
        return scheme.map_err(|e| report.error(hmac.spot(), &chain(&e))).ok();
    }
    if let Some(hmac) = hmac {
        let expected = format!("no [source.hmac] table for provider = {}", quoted(id));
        hmac.blind(&expected, "one; for a scheme of your own write provider = \"hmac\"", report);
    }
    let scheme = provider(id);
    if scheme.is_none() {
        node.expected(&format!("{expected}{}", did_you_mean(id, known())), report);
    }
    scheme
}

/// The secrets, of which any may have signed.
fn read_secrets(
    table: &Table<'_>,
    scheme: Option<&Scheme>,
    reader: &mut SecretReader<'_>,
    report: &mut Report,
) -> Option<Vec<Secret>> {
    let expected = "a list of secrets such as [\"env:NAME\"]";
    let node = table.require("secrets", expected, report)?;
    read_secret_list(&node, reader, report, |secret| match scheme {
        Some(scheme) => scheme.check_secret(secret).map_err(|e| chain(&e)),
        None => Ok(()),
    })
}

/// A list of 1 to [`SECRETS_MAX`] secrets, each of which passes `check`.
pub(super) fn read_secret_list(
    node: &Node<'_>,
    reader: &mut SecretReader<'_>,
    report: &mut Report,
    check: impl Fn(&Secret) -> Result<(), String>,
) -> Option<Vec<Secret>> {
    let expected = format!("a list of 1 to {SECRETS_MAX} secrets such as [\"env:NAME\"]");
    let Some(items) = node.value().as_array() else {
        node.blind(&expected, super::tree::kind(node.value()), report);
        return None;
    };
    if items.is_empty() || items.len() > SECRETS_MAX {
        node.blind(&expected, &format!("{} of them", items.len()), report);
        return None;
    }
    let nodes = node.list(&expected, report)?;
    // Every secret is read, so that all that is wrong with them is told.
    let read: Vec<_> = nodes.iter().map(|item| read_secret(item, reader, report, &check)).collect();
    read.into_iter().collect()
}

/// One secret that passes `check`.
pub(super) fn read_secret(
    node: &Node<'_>,
    reader: &mut SecretReader<'_>,
    report: &mut Report,
    check: impl Fn(&Secret) -> Result<(), String>,
) -> Option<Secret> {
    let secret = reader.read(node, report)?;
    match check(&secret) {
        Ok(()) => Some(secret),
        Err(why) => {
            node.blind("a secret that can be used", &format!("one that can't: {why}"), report);
            None
        }
    }
}

fn read_tolerance(table: &Table<'_>, report: &mut Report) -> Option<u64> {
    let node = table.get("tolerance_s")?;
    let seconds = node.whole().filter(|s| (1..=TOLERANCE_S_MAX).contains(s));
    if seconds.is_none() {
        node.expected(&format!("a whole number of seconds between 1 and {TOLERANCE_S_MAX}"), report);
    }
    seconds
}
