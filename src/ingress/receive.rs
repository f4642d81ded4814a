//! The way of one request: head, source, body, signature, identity, store.
//!
//! The order is that of cost: what can be refused by looking is refused before anything is read, and nothing of the body is
//! believed before the signature.

use std::time::Duration;

use hyper::Method;
use hyper::body::{Body, Incoming};
use hyper::header::{HOST, HeaderMap};
use hyper::http::request::Parts;

use super::{Ingress, answer};
use crate::core::endpoint::Source;
use crate::core::event::{DedupKey, DedupScope, NewEvent, body_fingerprint};
use crate::core::headers::Headers;
use crate::core::passing::passing;
use crate::core::signature::{self, Reject};
use crate::http::{Reply, check_head, close, read_body_within};
use crate::store::{Accepted, Store};

/// Where sources live.
const PREFIX: &str = "/in/";

impl<S: Store> Ingress<S> {
    pub(super) async fn receive(&self, head: &Parts, body: Incoming) -> Reply {
        if let Err(error) = check_head(head, self.limits.header_bytes_max) {
            return error.reply(answer::ALLOW);
        }
        let source = match self.admit(head) {
            Ok(source) => source,
            // Where there is a body that was not read, the connection can't be used again.
            Err(refused) if body.is_end_stream() => return *refused,
            Err(refused) => return close(*refused),
        };
        // The reservation is held until the store has answered: so long the bytes are ours.
        let (bytes, _reservation) = match read_body_within(body, &self.body_limits, &self.budget).await {
            Ok(read) => read,
            Err(error) => return answer::body_refused(&error),
        };
        let headers = all_headers(&head.headers);
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let target = Target { host: head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(""), target };
        // Where it is not signed nobody looks at it.
        let url = if source.scheme.signs_url() { target.url("https") } else { String::new() };
        let signed = signature::Request { method: Method::POST.as_str(), url: &url, headers: &headers, body: &bytes };
        if let Err(reject) = self.verify(source, &target, &signed) {
            return answer::rejected(&reject);
        }
        let identity = source.scheme.identity(&signed);
        let dedup = identity.id.as_deref().map(|id| DedupKey::new(DedupScope::Inbound, source.id.as_u128(), id));
        let event = NewEvent {
            app: source.app,
            source: Some(source.id),
            event_type: identity.event_type,
            external_id: identity.id,
            headers: passing(&headers).collect(),
            // Only a key is ever compared by it.
            fingerprint: dedup.as_ref().map_or(0, |_| body_fingerprint(&bytes)),
            body: bytes,
            dedup: dedup.into_iter().collect(),
            endpoints: self.catalog.takers_of_source(source.id),
        };
        self.store(source, event).await
    }

    /// What can be said from the head alone.
    fn admit(&self, head: &Parts) -> Result<&Source, Box<Reply>> {
        let name = head.uri.path().strip_prefix(PREFIX).filter(|name| !name.is_empty() && !name.contains('/'));
        let name = name.ok_or_else(|| Box::new(answer::not_found()))?;
        let source = self.catalog.source(name).ok_or_else(|| Box::new(answer::unknown_source()))?;
        if head.method != Method::POST {
            return Err(Box::new(answer::method_not_allowed()));
        }
        self.store.intake().map_err(|refusal| Box::new(answer::intake_closed(refusal)))?;
        Ok(source)
    }

    /// Verifies the signature over the bytes and all headers as they came.
    ///
    /// Where the URL is signed it is the public one, and a proxy that ends TLS leaves no trustworthy word of its scheme. So
    /// both are tried: whoever can sign either of them holds the secret.
    fn verify(&self, source: &Source, target: &Target<'_>, signed: &signature::Request<'_>) -> Result<(), Reject> {
        let now_s = self.clock.wall_s();
        let verdict = |request| source.scheme.verify(&source.secrets, request, now_s, source.tolerance_s);
        match verdict(signed) {
            Err(Reject::SignatureMismatch) if source.scheme.signs_url() => {
                verdict(&signature::Request { url: &target.url("http"), ..*signed })
            }
            verdict => verdict,
        }
    }

    async fn store(&self, source: &Source, event: NewEvent) -> Reply {
        let deadline = Duration::from_millis(self.limits.accept_timeout_ms);
        let Ok(accepted) = tokio::time::timeout(deadline, self.store.accept(event)).await else {
            return answer::store_slow();
        };
        match accepted {
            Ok(Accepted::New { event }) => {
                self.metrics.accepted.inc("inbound");
                answer::received(event.meta.id)
            }
            Ok(Accepted::Duplicate { id, same_body, .. }) => {
                self.metrics.duplicates.inc("inbound");
                if !same_body {
                    self.metrics.duplicate_other_body.inc("inbound");
                    tracing::warn!(source = source.name, %id, "duplicate with another body than the first; the first stands");
                }
                answer::duplicate(id)
            }
            Err(error) => {
                // Whether the process must stop is for the one who owns the store to say.
                tracing::debug!(source = source.name, %error, "event not stored");
                answer::store_failed(&error)
            }
        }
    }
}

/// The two parts of a URL that a request carries; which scheme the provider was given it does not.
struct Target<'a> {
    host: &'a str,
    target: &'a str,
}

impl Target<'_> {
    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}{}", self.host, self.target)
    }
}

/// hyper keeps repeated fields in order, but groups them by name, which no signature covers.
fn all_headers(fields: &HeaderMap) -> Headers {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}
