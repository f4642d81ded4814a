//! `GET /api/v1/dead-letter`: deliveries that will not be tried again on their own.

use hyper::StatusCode;

use super::paging;
use super::problem::{Answer, Problem};
use super::shapes::DeadShape;
use super::{Api, Call};
use crate::core::endpoint::DEFAULT_APP;
use crate::http::json;
use crate::store::{DeadLetter, DeadQuery, Store, StoreError};

impl<S: Store> Api<S> {
    pub(super) async fn list_dead(&self, call: Call<'_>) -> Answer {
        let mut query = call.query;
        let (limit, cursor) = paging::asked(&mut query, &self.limits)?;
        let (since_ms, until_ms) = (query.time_ms("since")?, query.time_ms("until")?);
        let (app, endpoint) = (query.text("application"), query.text("endpoint"));
        query.finish()?;
        if app.is_some() && endpoint.is_none() {
            return Err(Problem::invalid(
                "application",
                "expected only together with endpoint, whose name it qualifies",
            ));
        }
        let known = self.known_endpoints();
        let app = app.as_deref().unwrap_or(DEFAULT_APP);
        let endpoint = endpoint.map(|text| known.find(app, &text)).transpose()?;
        let found = self.store.dead(DeadQuery { endpoint, since_ms, until_ms, cursor, limit }).await?;
        let mut event_types = Vec::with_capacity(found.data.len());
        for letter in &found.data {
            let event = match self.store.event(letter.delivery.event).await {
                // The letter is in the key space; only its event's type can't be told.
                Err(StoreError::Unreadable { .. }) => None,
                found => found?,
            };
            event_types.push(event.and_then(|event| event.meta.event_type.clone()));
        }
        let mut event_types = event_types.into_iter();
        let shape = |letter: &DeadLetter| {
            DeadShape::new(letter, known.name(letter.delivery.endpoint), event_types.next().flatten())
        };
        Ok(json(StatusCode::OK, &paging::page(cursor, &found.data, found.next, DeadLetter::key, shape)))
    }
}
