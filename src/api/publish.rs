//! `POST /api/v1/app/{app}/msg`: an application's event becomes a message, once.
//!
//! **Invariants**
//! - The payload is stored and delivered as the bytes that were sent: white space, order of keys, digits of numbers.
//! - The idempotency key is bound to the whole request body. It is looked at before `eventId`, so that a repeated request
//!   gets its first answer although its `eventId` is taken, by itself.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde_json::value::RawValue;

use super::input::{Fields, shown};
use super::problem::{Answer, Problem};
use super::shapes::PublishedShape;
use super::{Api, Call, IDEMPOTENCY_KEY};
use crate::core::event::{DedupKey, DedupScope, NewEvent, body_fingerprint};
use crate::core::id::{AppId, EventId};
use crate::core::pattern::check_event_type;
use crate::core::time::format_ms;
use crate::http::{Reply, json_with_room};
use crate::store::{Accepted, Store};

/// Longest idempotency key or `eventId`, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// What metrics call this way in.
const VIA: &str = "published";

/// A publication as it was sent.
struct Publication<'a> {
    event_type: Cow<'a, str>,
    event_id: Option<Cow<'a, str>>,
    payload: &'a RawValue,
}

impl<'a> Publication<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Problem> {
        let mut fields = Fields::parse(body)?;
        let event_type = fields.text("eventType")?;
        let event_id = fields.text("eventId")?;
        let payload = fields.raw("payload");
        fields.finish()?;
        let event_type =
            event_type.ok_or_else(|| Problem::invalid("eventType", "expected one such as \"order.created\""))?;
        check_event_type(&event_type).map_err(|error| Problem::invalid("eventType", error))?;
        if let Some(id) = &event_id {
            check_key("eventId", id)?;
        }
        let payload = payload.ok_or_else(|| Problem::invalid("payload", "expected any JSON value"))?;
        Ok(Self { event_type, event_id, payload })
    }

    fn answer(&self, id: EventId, accepted_ms: u64, with_content: bool) -> Reply {
        let payload = with_content.then_some(self.payload);
        let shape = PublishedShape {
            id,
            event_type: &self.event_type,
            event_id: self.event_id.as_deref(),
            payload,
            timestamp: format_ms(accepted_ms),
        };
        json_with_room(StatusCode::ACCEPTED, &shape, payload.map_or(0, |payload| payload.get().len()))
    }
}

impl<S: Store> Api<S> {
    pub(super) async fn publish(&self, mut call: Call<'_>) -> Answer {
        let app = self.app(call.parameter(0))?;
        let with_content = call.query.flag("with_content")?.unwrap_or(true);
        call.query.finish()?;
        let key = idempotency_key(call.headers)?;
        let body = self.read_json(call.headers, call.body).await?;
        let publication = Publication::parse(&body)?;
        match self.store.accept(self.new_event(app, key.as_deref(), &body, &publication)).await? {
            Accepted::New { event } => {
                self.metrics.accepted.inc(VIA);
                Ok(publication.answer(event.meta.id, event.meta.accepted_ms, with_content))
            }
            Accepted::Duplicate { id, scope: DedupScope::Idempotency, same_body: true } => {
                self.metrics.duplicates.inc(VIA);
                // The body is the first one's, so all but id and time stands in it. Past retention the id still tells the
                // time: it was made of it.
                let first = self.store.event(id).await?;
                let accepted_ms = first.map_or(id.ms(), |event| event.meta.accepted_ms);
                Ok(publication.answer(id, accepted_ms, with_content))
            }
            Accepted::Duplicate { id, scope: DedupScope::Idempotency, same_body: false } => {
                self.metrics.duplicate_other_body.inc(VIA);
                let detail = format!("this idempotency-key came with another body before, which became {id}");
                Err(Problem::conflict("idempotency_conflict", detail))
            }
            Accepted::Duplicate { id, scope: DedupScope::EventId | DedupScope::Inbound, .. } => {
                self.metrics.duplicates.inc(VIA);
                Err(Problem::conflict("event_id_conflict", format!("this eventId is that of {id} already")))
            }
        }
    }

    fn new_event(&self, app: AppId, key: Option<&str>, body: &Bytes, publication: &Publication<'_>) -> NewEvent {
        let dedup_key = |scope, text: &str| DedupKey::new(scope, app.as_u128(), text);
        let idempotency = key.map(|key| dedup_key(DedupScope::Idempotency, key));
        let event_id = publication.event_id.as_deref().map(|id| dedup_key(DedupScope::EventId, id));
        NewEvent {
            app,
            source: None,
            event_type: Some(publication.event_type.clone().into_owned()),
            external_id: publication.event_id.clone().map(Cow::into_owned),
            headers: [("content-type", "application/json")].into_iter().collect(),
            body: body.slice_ref(publication.payload.get().as_bytes()),
            // Only a key is ever compared by it.
            fingerprint: if idempotency.is_some() || event_id.is_some() { body_fingerprint(body) } else { 0 },
            dedup: idempotency.into_iter().chain(event_id).collect(),
            endpoints: self.catalog.takers_of_type(app, &publication.event_type),
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::invalid(IDEMPOTENCY_KEY.as_str(), "expected the header once"));
    }
    // Bytes that are no text become a character that the check refuses.
    let key = String::from_utf8_lossy(first.as_bytes()).into_owned();
    check_key(IDEMPOTENCY_KEY.as_str(), &key)?;
    Ok(Some(key))
}

fn check_key(field: &str, text: &str) -> Result<(), Problem> {
    if (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    let got = shown(text);
    Err(Problem::invalid(field, format_args!("expected 1 to {KEY_BYTES_MAX} visible ASCII characters, got {got:?}")))
}
