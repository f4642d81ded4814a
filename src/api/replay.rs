//! `POST /api/v1/replay`: deliveries made due again, one by one or as many as match a filter.
//!
//! **Invariants**
//! - Every delivery that matches is counted once: replayed, due already, or skipped for a reason that is told.
//! - One request looks at a bounded number of deliveries for a bounded time; it says where to go on.
//! - The walk goes from newer to older and a replayed delivery leaves it or stays behind it, so that repeating with the
//!   iterator ends.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::StatusCode;
use tokio::task::JoinSet;

use super::input::{Fields, shown};
use super::messages::no_message;
use super::paging::{self, Place};
use super::problem::{Answer, Problem};
use super::shapes::ReplayShape;
use super::{Api, Call};
use crate::core::delivery::DeliveryId;
use crate::core::endpoint::DEFAULT_APP;
use crate::core::event::Event;
use crate::core::id::{EndpointId, EventId};
use crate::core::pattern::Pattern;
use crate::http::json;
use crate::store::{Cursor, DeadKey, DeadLetter, DeadQuery, EventQuery, Redriven, Refusal, Store, StoreError};

/// Deliveries that one request replays at most.
const REPLAY_MAX: usize = 10_000;

/// Deliveries that it replays when it names no limit.
const REPLAY_DEFAULT: usize = 1_000;

/// Dead letters or events that one request looks at.
const SCAN_MAX: usize = 20_000;

/// Dead letters looked at, and redrives awaited, at once: they share group commits.
const DEAD_AT_ONCE: usize = 256;

/// Events looked at at once; each may hold a body of a megabyte.
const EVENTS_AT_ONCE: usize = 64;

/// What a request asks for.
enum Wanted {
    Message { id: EventId, endpoint: Option<EndpointId> },
    Dead(Filter, Cursor<DeadKey>),
    All(Filter, Cursor<EventId>),
}

/// Which deliveries of a range.
struct Filter {
    endpoint: Option<EndpointId>,
    event_type: Option<Pattern>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
    limit: usize,
}

impl Filter {
    fn takes_type(&self, event: &Event) -> bool {
        let takes = |pattern: &Pattern| event.meta.event_type.as_deref().is_some_and(|t| pattern.matches(t));
        self.event_type.as_ref().is_none_or(takes)
    }
}

/// How much of a request's share is used up.
struct Walk {
    done: ReplayShape,
    scanned: usize,
    counted: usize,
    until_ms: u64,
}

impl Walk {
    fn count(&mut self, outcome: Redriven) {
        self.counted += 1;
        let skipped = match outcome {
            Redriven::Due => return self.done.replayed += 1,
            Redriven::AlreadyDue => return self.done.already_due += 1,
            Redriven::Unknown => &mut self.done.reasons.unknown,
            Redriven::Erased => &mut self.done.reasons.erased,
            Redriven::EndpointRemoved => &mut self.done.reasons.endpoint_removed,
        };
        *skipped += 1;
        self.done.skipped += 1;
    }

    /// So many that may match can't be read. They are told and passed over, as the others are not to wait for them.
    fn count_unreadable(&mut self, count: u64) {
        self.counted += count as usize;
        self.done.reasons.unreadable += count;
        self.done.skipped += count;
    }

    fn goes_on(&self, filter: &Filter, now_ms: u64) -> bool {
        self.counted < filter.limit && self.scanned < SCAN_MAX && now_ms < self.until_ms
    }

    fn stopped_at<K: Place>(mut self, next: Option<K>) -> ReplayShape {
        self.done.more = next.is_some();
        self.done.iterator = next.map(|place| place.write());
        self.done
    }
}

impl<S: Store> Api<S> {
    pub(super) async fn replay(&self, call: Call<'_>) -> Answer {
        call.query.finish()?;
        let body = self.read_json(call.headers, call.body).await?;
        let done = match self.wanted(Fields::parse(&body)?)? {
            Wanted::Message { id, endpoint } => self.replay_message(id, endpoint).await?,
            Wanted::Dead(filter, cursor) => self.replay_dead(&filter, cursor).await?,
            Wanted::All(filter, cursor) => self.replay_all(&filter, cursor).await?,
        };
        Ok(json(StatusCode::OK, &done))
    }

    fn wanted(&self, mut fields: Fields<'_>) -> Result<Wanted, Problem> {
        let message: Option<EventId> = fields.parsed("messageId")?;
        let (app, endpoint) = (fields.text("application")?, fields.text("endpoint")?);
        if app.is_some() && endpoint.is_none() {
            return Err(Problem::invalid(
                "application",
                "expected only together with endpoint, whose name it qualifies",
            ));
        }
        let find = |text: Cow<'_, str>| self.known_endpoints().find(app.as_deref().unwrap_or(DEFAULT_APP), &text);
        let endpoint = endpoint.map(find).transpose()?;
        match message {
            Some(id) => {
                // What only a filter has is refused here as unknown.
                fields.finish()?;
                Ok(Wanted::Message { id, endpoint })
            }
            None => filter(fields, endpoint),
        }
    }

    async fn replay_message(&self, id: EventId, endpoint: Option<EndpointId>) -> Result<ReplayShape, Problem> {
        let text = id.to_string();
        let mut deliveries = self.store.deliveries(id).await?.ok_or_else(|| no_message(&text))?;
        deliveries.retain(|delivery| endpoint.is_none_or(|endpoint| delivery.id.endpoint == endpoint));
        if let (Some(endpoint), true) = (endpoint, deliveries.is_empty()) {
            let detail = format!("{text} did not go to {endpoint}: an endpoint gets what matched it on acceptance");
            return Err(Problem::unknown("unknown_delivery", detail));
        }
        let mut walk = self.walk();
        let ids: Vec<_> = deliveries.iter().map(|delivery| delivery.id).collect();
        for some in ids.chunks(DEAD_AT_ONCE) {
            self.redrive(some.iter().copied(), &mut walk).await?;
        }
        Ok(walk.stopped_at::<EventId>(None))
    }

    async fn replay_dead(&self, filter: &Filter, mut cursor: Cursor<DeadKey>) -> Result<ReplayShape, Problem> {
        let mut walk = self.walk();
        loop {
            let (Filter { endpoint, since_ms, until_ms, .. }, left) = (filter, filter.limit - walk.counted);
            let limit = left.min(DEAD_AT_ONCE);
            let query = DeadQuery { endpoint: *endpoint, since_ms: *since_ms, until_ms: *until_ms, cursor, limit };
            let page = self.store.dead(query).await?;
            let mut matching = Vec::with_capacity(page.data.len());
            for letter in &page.data {
                match self.takes_dead(filter, letter).await {
                    Ok(Some(true)) => matching.push(letter.delivery),
                    Ok(Some(false)) => {}
                    // Nobody can tell any more what type it had, so it is told rather than passed over.
                    Ok(None) => walk.count(Redriven::Unknown),
                    Err(StoreError::Unreadable { .. }) => walk.count_unreadable(1),
                    Err(error) => return Err(error.into()),
                }
            }
            walk.scanned += page.data.len();
            self.redrive(matching, &mut walk).await?;
            match page.next {
                Some(next) if walk.goes_on(filter, self.store.now_ms()) => cursor = Cursor::OlderThan(next),
                next => return Ok(walk.stopped_at(next)),
            }
        }
    }

    async fn replay_all(&self, filter: &Filter, mut cursor: Cursor<EventId>) -> Result<ReplayShape, Problem> {
        let mut walk = self.walk();
        loop {
            let (since_ms, until_ms) = (filter.since_ms, filter.until_ms);
            let query = EventQuery { since_ms, until_ms, cursor, limit: EVENTS_AT_ONCE, ..EventQuery::default() };
            let page = self.store.events(query).await?;
            walk.count_unreadable(page.unreadable);
            let mut last = None;
            for event in &page.data {
                // Checked before each event, whose deliveries stay together.
                if !walk.goes_on(filter, self.store.now_ms()) && last.is_some() {
                    return Ok(walk.stopped_at(last));
                }
                self.redrive(filter.deliveries_of(event), &mut walk).await?;
                walk.scanned += 1;
                last = Some(event.meta.id);
            }
            match page.next {
                Some(next) if walk.goes_on(filter, self.store.now_ms()) => cursor = Cursor::OlderThan(next),
                next => return Ok(walk.stopped_at(next)),
            }
        }
    }

    /// Whether a dead letter's event has a type that is asked for; `None` when the event is past retention.
    async fn takes_dead(&self, filter: &Filter, letter: &DeadLetter) -> Result<Option<bool>, StoreError> {
        if filter.event_type.is_none() {
            return Ok(Some(true));
        }
        let event = self.store.event(letter.delivery.event).await?;
        Ok(event.map(|event| filter.takes_type(&event)))
    }

    async fn redrive(&self, ids: impl IntoIterator<Item = DeliveryId>, walk: &mut Walk) -> Result<(), StoreError> {
        let mut tasks = JoinSet::new();
        for id in ids {
            let store = Arc::clone(&self.store);
            tasks.spawn(async move { store.redrive(id).await });
        }
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(Err(StoreError::Unreadable { .. })) => walk.count_unreadable(1),
                Ok(outcome) => walk.count(outcome?),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is being shut down under us.
                    Err(_) => return Err(Refusal::Stopping.into()),
                },
            }
        }
        Ok(())
    }

    fn walk(&self) -> Walk {
        // Half of the request's time leaves room for the chunk that is under way when it is over.
        let until_ms = self.store.now_ms().saturating_add(self.limits.request_timeout_ms / 2);
        Walk { done: ReplayShape::default(), scanned: 0, counted: 0, until_ms }
    }
}

impl Filter {
    fn deliveries_of(&self, event: &Event) -> Vec<DeliveryId> {
        if !self.takes_type(event) {
            return Vec::new();
        }
        let asked = |endpoint: &&EndpointId| self.endpoint.is_none_or(|asked| asked == **endpoint);
        let id = |endpoint: &EndpointId| DeliveryId { endpoint: *endpoint, event: event.meta.id };
        event.meta.endpoints.iter().filter(asked).map(id).collect()
    }
}

/// Reads what is left of the fields as a filter.
fn filter(mut fields: Fields<'_>, endpoint: Option<EndpointId>) -> Result<Wanted, Problem> {
    let status = fields.text("status")?;
    let filter = Filter {
        endpoint,
        event_type: fields.parsed("eventType")?,
        since_ms: fields.time_ms("since")?,
        until_ms: fields.time_ms("until")?,
        limit: fields.count("limit", REPLAY_MAX)?.unwrap_or(REPLAY_DEFAULT),
    };
    let iterator = fields.text("iterator")?.map(|text| match text.strip_prefix('-') {
        Some(_) => Err(Problem::invalid("iterator", "expected that of an earlier replay, which has no - before it")),
        None => Ok(text),
    });
    let iterator = iterator.transpose()?;
    fields.finish()?;
    let narrowed = filter.endpoint.is_some() || filter.event_type.is_some() || filter.since_ms.is_some();
    let narrowed = narrowed || filter.until_ms.is_some();
    match status.as_deref() {
        // Saying "dead" aloud is a criterion: every dead letter. "all" alone would send the whole history again.
        Some("dead") => Ok(Wanted::Dead(filter, paging::cursor(iterator.as_deref())?)),
        None if narrowed => Ok(Wanted::Dead(filter, paging::cursor(iterator.as_deref())?)),
        Some("all") if narrowed => Ok(Wanted::All(filter, paging::cursor(iterator.as_deref())?)),
        None => Err(Problem::invalid(
            "body",
            "expected messageId, or one of endpoint, eventType, since, until, or \"status\": \"dead\" for every dead letter",
        )),
        Some("all") => Err(Problem::invalid(
            "status",
            "\"all\" replays delivered events too: expected endpoint, eventType, since or until with it",
        )),
        Some(other) => {
            Err(Problem::invalid("status", format_args!("expected \"dead\" or \"all\", got {:?}", shown(other))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_ends_by_count_scan_or_time() {
        let filter = Filter { endpoint: None, event_type: None, since_ms: None, until_ms: None, limit: 2 };
        let walk = |counted, scanned| Walk { done: ReplayShape::default(), scanned, counted, until_ms: 100 };
        assert!(walk(1, SCAN_MAX - 1).goes_on(&filter, 99));
        assert!(!walk(2, 0).goes_on(&filter, 0));
        assert!(!walk(0, SCAN_MAX).goes_on(&filter, 0));
        assert!(!walk(0, 0).goes_on(&filter, 100));
    }

    #[test]
    fn every_outcome_is_counted_once() {
        let mut walk = Walk { done: ReplayShape::default(), scanned: 0, counted: 0, until_ms: 0 };
        use Redriven::{AlreadyDue, Due, EndpointRemoved, Erased, Unknown};
        for outcome in [Due, AlreadyDue, Unknown, Erased, EndpointRemoved] {
            walk.count(outcome);
        }
        let done = walk.stopped_at::<EventId>(None);
        assert_eq!((done.replayed, done.already_due, done.skipped), (1, 1, 3));
        assert_eq!((done.reasons.unknown, done.reasons.erased, done.reasons.endpoint_removed), (1, 1, 1));
    }
}
