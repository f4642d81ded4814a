//! Messages of an application: listed, shown, with their deliveries and attempts, and their content erased.
//!
//! **Invariant:** a message is found under its own application only.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{Response, StatusCode};

use super::input::shown;
use super::paging;
use super::problem::{Answer, Problem};
use super::shapes::{AttemptShape, DeliveryShape, ListShape, MessageShape};
use super::{Api, Call};
use crate::core::delivery::DeliveryState;
use crate::core::event::Event;
use crate::core::id::{EndpointId, EventId, SourceId};
use crate::http::{Content, json};
use crate::store::{Cursor, Delivery, EventQuery, Store};

/// Bytes of content on one page; a page ends early rather than hold more.
const PAGE_BYTES_MAX: usize = 8 << 20;

impl<S: Store> Api<S> {
    pub(super) async fn list_messages(&self, call: Call<'_>) -> Answer {
        let app = self.app(call.parameter(0))?;
        let mut query = call.query;
        let (limit, cursor) = paging::asked(&mut query, &self.limits)?;
        let (since_ms, until_ms) = (query.time_ms("after")?, query.time_ms("before")?);
        let event_type = query.text("event_types").map(Cow::into_owned);
        let with_content = query.flag("with_content")?.unwrap_or(true);
        query.finish()?;
        if event_type.as_deref().is_some_and(|t| t.is_empty() || t.contains(',')) {
            return Err(Problem::invalid("event_types", "expected one event type; ask again for each further one"));
        }
        let asked = EventQuery { app: Some(app), source: None, event_type, since_ms, until_ms, cursor, limit };
        let mut found = self.store.events(asked).await?;
        if with_content {
            let left_out = fit(&mut found.data, matches!(cursor, Cursor::NewerThan(_)));
            found.next = left_out.or(found.next);
        }
        let mut page = paging::page(
            cursor,
            &found.data,
            found.next,
            |event| event.meta.id,
            |event| MessageShape::new(event, self.source_of(event), with_content),
        );
        page.unreadable = Some(found.unreadable).filter(|count| *count > 0);
        Ok(json(StatusCode::OK, &page))
    }

    pub(super) async fn show_message(&self, call: Call<'_>) -> Answer {
        let event = self.message(&call).await?;
        let mut query = call.query;
        let with_content = query.flag("with_content")?.unwrap_or(true);
        query.finish()?;
        Ok(json(StatusCode::OK, &MessageShape::new(&event, self.source_of(&event), with_content)))
    }

    pub(super) async fn list_deliveries(&self, call: Call<'_>) -> Answer {
        let id = self.message(&call).await?.meta.id;
        call.query.finish()?;
        let deliveries = self.store.deliveries(id).await?.ok_or_else(|| no_message(&id.to_string()))?;
        let delivered = deliveries.iter().any(|d| d.state == DeliveryState::Delivered);
        // The state of a delivered one holds no count: what happened to it is in its attempts.
        let recorded = if delivered { self.attempts_by_endpoint(id).await? } else { HashMap::new() };
        let known = self.known_endpoints();
        let shape = |delivery: &Delivery| {
            let endpoint = delivery.id.endpoint;
            DeliveryShape::new(delivery, known.name(endpoint), recorded.get(&endpoint).copied().unwrap_or(0))
        };
        Ok(json(StatusCode::OK, &ListShape { data: deliveries.iter().map(shape).collect() }))
    }

    pub(super) async fn list_attempts(&self, call: Call<'_>) -> Answer {
        let id = self.message(&call).await?.meta.id;
        call.query.finish()?;
        let attempts = self.store.attempts(id).await?.ok_or_else(|| no_message(&id.to_string()))?;
        let known = self.known_endpoints();
        let data = attempts.iter().map(|record| AttemptShape::new(record, known.name(record.endpoint))).collect();
        Ok(json(StatusCode::OK, &ListShape { data }))
    }

    pub(super) async fn erase(&self, call: Call<'_>) -> Answer {
        let id = self.message(&call).await?.meta.id;
        call.query.finish()?;
        if !self.store.erase(id).await? {
            return Err(no_message(&id.to_string()));
        }
        let mut reply = Response::new(Content::whole(Bytes::new()));
        *reply.status_mut() = StatusCode::NO_CONTENT;
        Ok(reply)
    }

    /// The message that the path `/app/{app}/msg/{id}` names.
    async fn message(&self, call: &Call<'_>) -> Result<Arc<Event>, Problem> {
        let (app, text) = (self.app(call.parameter(0))?, call.parameter(1));
        let id: EventId = text.parse().map_err(|_| no_message(text))?;
        let event = self.store.event(id).await?;
        event.filter(|event| event.meta.app == app).ok_or_else(|| no_message(text))
    }

    /// The highest number of an attempt at each endpoint.
    async fn attempts_by_endpoint(&self, id: EventId) -> Result<HashMap<EndpointId, u32>, Problem> {
        let mut highest = HashMap::new();
        for record in self.store.attempts(id).await?.unwrap_or_default() {
            let number = highest.entry(record.endpoint).or_insert(0);
            *number = record.attempt.number.max(*number);
        }
        Ok(highest)
    }

    fn source_of(&self, event: &Event) -> Option<String> {
        // A source that is no longer configured has lost its name, but not that it was one.
        let name = |id: SourceId| self.catalog.source_name(id).map_or_else(|| id.to_string(), str::to_owned);
        event.meta.source.map(name)
    }
}

pub(super) fn no_message(text: &str) -> Problem {
    let detail = format!("there is no message {:?} here; it may be past retention", shown(text));
    Problem::unknown("unknown_message", detail)
}

/// Drops what does not fit on a page, beginning at the end of the walk, and says where the walk goes on if anything was
/// dropped. The first one always fits.
fn fit(events: &mut Vec<Arc<Event>>, newer: bool) -> Option<EventId> {
    let mut bytes = 0;
    let mut fits = |event: &&Arc<Event>| {
        bytes += event.body.len();
        bytes <= PAGE_BYTES_MAX
    };
    let count =
        if newer { events.iter().rev().take_while(&mut fits).count() } else { events.iter().take_while(fits).count() };
    let kept = count.max(1);
    if kept >= events.len() {
        return None;
    }
    if newer {
        events.drain(..events.len() - kept);
        events.first().map(|event| event.meta.id)
    } else {
        events.truncate(kept);
        events.last().map(|event| event.meta.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::EventMeta;
    use crate::core::headers::Headers;
    use crate::core::id::AppId;

    fn event(n: u128, bytes: usize) -> Arc<Event> {
        let meta = EventMeta {
            id: EventId::from_u128(n),
            app: AppId::MIN,
            source: None,
            event_type: None,
            external_id: None,
            accepted_ms: 0,
            headers: Headers::new(),
            endpoints: Vec::new(),
        };
        Arc::new(Event { meta: meta.into(), body: vec![0; bytes].into(), erased: false })
    }

    fn fitted(sizes: &[usize], newer: bool) -> (Vec<u128>, Option<u128>) {
        // Newest first, as pages are: the last one has the number 0.
        let mut events: Vec<_> = sizes.iter().rev().enumerate().map(|(n, bytes)| event(n as u128, *bytes)).collect();
        events.reverse();
        let next = fit(&mut events, newer);
        (events.iter().map(|e| e.meta.id.as_u128()).collect(), next.map(|id| id.as_u128()))
    }

    #[test]
    fn a_page_ends_before_it_is_too_large() {
        let half = PAGE_BYTES_MAX / 2;
        assert_eq!(fitted(&[half, half, 0], false), (vec![2, 1, 0], None));
        assert_eq!(fitted(&[half, half, 1], false), (vec![2, 1], Some(1)));
        assert_eq!(fitted(&[1, half, half], true), (vec![1, 0], Some(1)));
        assert_eq!(fitted(&[PAGE_BYTES_MAX + 1, 1], false), (vec![1], Some(1)));
        assert_eq!(fitted(&[1, PAGE_BYTES_MAX + 1], true), (vec![0], Some(0)));
        assert_eq!(fitted(&[], false), (vec![], None));
    }
}
