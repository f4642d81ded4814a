//! The built-in providers. Adding one is adding a row.
//!
//! Invariant: a row is what a user would write as `[source.hmac]`, so it needs no code of its own, can be copied
//! into a configuration and changed there, and is checked by the same rules; a test parses every row.

use super::config::HmacConfig;
use super::scheme::Scheme;

/// Ids and schemes, sorted by id.
const PROVIDERS: &[(&str, &str)] = &[
    // docs.github.com "Validating webhook deliveries". There is no timestamp: a replay is told by its delivery id,
    // which a redelivery keeps but the signature does not cover.
    (
        "github",
        r#"
        header = "X-Hub-Signature-256"
        format = "prefix"
        prefix = "sha256="
        id = { header = "X-GitHub-Delivery" }
        type = { header = "X-GitHub-Event" }
        "#,
    ),
    // standardwebhooks.com specification, symmetric signatures (`v1`); other versions in the list are passed over.
    // The secret is base64 with or without `whsec_`. The id is the same on every attempt, the timestamp is not.
    (
        "standard_webhooks",
        r#"
        encoding = "base64"
        header = "webhook-signature"
        format = "list"
        field = "v1"
        item_sep = " "
        kv_sep = ","
        message = "{header:webhook-id}.{ts}.{body}"
        key_decode = "base64"
        strip_prefix = ["whsec_"]
        timestamp = { from = "header", name = "webhook-timestamp", tolerance_s = 300, future = "reject" }
        id = { header = "webhook-id" }
        type = { json = "type" }
        "#,
    ),
    // docs.stripe.com/webhooks "Verify manually", and stripe-python 16.1.0, stripe/_webhook.py. The key is the whole
    // `whsec_…` text, not its base64; any `v1` may match (`v0` is test mode's); only the past is judged.
    (
        "stripe",
        r#"
        header = "Stripe-Signature"
        format = "list"
        field = "v1"
        message = "{ts}.{body}"
        timestamp = { from = "sig_field", name = "t", tolerance_s = 300, future = "accept" }
        id = { json = "id" }
        type = { json = "type" }
        "#,
    ),
];

/// The scheme of the built-in provider `id`, such as `stripe`.
pub fn provider(id: &str) -> Option<Scheme> {
    let (_, text) = PROVIDERS.iter().find(|(known, _)| *known == id)?;
    let config: HmacConfig = toml::from_str(text).expect("the table's rows are constants, and a test reads them all");
    Some(Scheme::try_from(config).expect("the table's rows are constants, and a test checks them all"))
}

/// The ids of all built-in providers, sorted.
pub fn provider_ids() -> impl Iterator<Item = &'static str> {
    PROVIDERS.iter().map(|(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_scheme() {
        for id in provider_ids() {
            assert!(provider(id).is_some(), "{id}");
        }
        assert!(provider("nobody").is_none());
    }

    #[test]
    fn ids_are_sorted_and_unique() {
        let ids: Vec<_> = provider_ids().collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
}
