//! Endpoints and sources: listed without secrets, and endpoints enabled and disabled.
//!
//! They come from the configuration; the store remembers whether an endpoint takes deliveries, and those that are gone.

use std::collections::BTreeMap;

use hyper::StatusCode;

use super::input::shown;
use super::problem::{Answer, Problem};
use super::shapes::{EndpointShape, ListShape, SourceShape};
use super::{Api, Call};
use crate::core::endpoint::{DEFAULT_APP, Endpoint, app_id};
use crate::core::fact::Standing;
use crate::core::id::EndpointId;
use crate::core::time::format_ms;
use crate::http::json;
use crate::store::Store;

/// Every endpoint that is configured or was.
pub(super) struct KnownEndpoints {
    by_id: BTreeMap<EndpointId, Known>,
}

/// What stays of an endpoint when its configuration is gone.
struct Known {
    app: String,
    name: String,
    standing: Standing,
}

impl KnownEndpoints {
    /// The name of an endpoint.
    pub(super) fn name(&self, id: EndpointId) -> Option<String> {
        self.by_id.get(&id).map(|known| known.name.clone())
    }

    /// The endpoint that `text` means: its id, or its name in the application `app` (a name or id).
    pub(super) fn find(&self, app: &str, text: &str) -> Result<EndpointId, Problem> {
        let by_id = text.parse().ok().filter(|id| self.by_id.contains_key(id));
        let is_it = |known: &Known| known.name == text && (known.app == app || app_id(&known.app).to_string() == app);
        let by_name = || self.by_id.iter().find(|(_, known)| is_it(known)).map(|(id, _)| *id);
        by_id.or_else(by_name).ok_or_else(|| {
            let detail = format!("there is no endpoint {:?} in the application {:?}", shown(text), shown(app));
            Problem::unknown("unknown_endpoint", detail)
        })
    }
}

impl<S: Store> Api<S> {
    /// A snapshot of catalog and store together.
    pub(super) fn known_endpoints(&self) -> KnownEndpoints {
        let configured = self.catalog.endpoints().map(|endpoint| {
            let known =
                Known { app: endpoint.app_name.clone(), name: endpoint.name.clone(), standing: Standing::Enabled };
            (endpoint.id, known)
        });
        let mut by_id: BTreeMap<_, _> = configured.collect();
        for note in self.store.endpoint_notes() {
            by_id.insert(note.id, Known { app: note.app, name: note.name, standing: note.standing });
        }
        KnownEndpoints { by_id }
    }

    pub(super) fn list_endpoints(&self, call: Call<'_>) -> Answer {
        call.query.finish()?;
        let known = self.known_endpoints();
        let mut data: Vec<_> = known.by_id.iter().map(|(id, known)| self.endpoint_shape(*id, known)).collect();
        data.sort_by(|a, b| (&a.application, &a.name).cmp(&(&b.application, &b.name)));
        Ok(json(StatusCode::OK, &ListShape { data }))
    }

    pub(super) async fn set_enabled(&self, mut call: Call<'_>, enabled: bool) -> Answer {
        let app = call.query.text("application");
        let text = call.parameter(0).to_owned();
        call.query.finish()?;
        let known = self.known_endpoints();
        let id = known.find(app.as_deref().unwrap_or(DEFAULT_APP), &text)?;
        let Some(Known { app, name, standing }) = known.by_id.get(&id) else { return Err(removed(&text)) };
        // What is not configured has no URL to deliver to, whatever was noted of it.
        if matches!(standing, Standing::Removed { .. }) || self.catalog.endpoint(id).is_none() {
            return Err(removed(name));
        }
        let wanted = if enabled { Standing::Enabled } else { Standing::Disabled { since_ms: self.store.now_ms() } };
        self.store.set_standing(id, app, name, wanted).await?;
        let known = self.known_endpoints();
        let now = known.by_id.get(&id).ok_or_else(|| removed(&text))?;
        Ok(json(StatusCode::OK, &self.endpoint_shape(id, now)))
    }

    pub(super) fn list_sources(&self, call: Call<'_>) -> Answer {
        call.query.finish()?;
        let shape = |source: &crate::core::endpoint::Source| SourceShape {
            id: source.id,
            name: source.name.clone(),
            application_id: source.app,
            path: format!("/in/{}", source.name),
            tolerance_s: source.tolerance_s,
        };
        let mut data: Vec<_> = self.catalog.sources().map(shape).collect();
        data.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(json(StatusCode::OK, &ListShape { data }))
    }

    fn endpoint_shape(&self, id: EndpointId, known: &Known) -> EndpointShape {
        let configured = self.catalog.endpoint(id);
        let (standing, since_ms) = match known.standing {
            Standing::Enabled => (known.standing, None),
            Standing::Gone { since_ms } | Standing::Disabled { since_ms } | Standing::Removed { since_ms } => {
                (known.standing, Some(since_ms))
            }
        };
        EndpointShape {
            id,
            name: known.name.clone(),
            application: known.app.clone(),
            url: configured.map(|endpoint| plain_url(&endpoint.url).to_owned()),
            standing: standing.as_str(),
            since: since_ms.map(format_ms),
            sources: configured.map(|endpoint| self.source_names(endpoint)).unwrap_or_default(),
            event_types: configured.map_or_else(Vec::new, |e| e.event_types.iter().map(ToString::to_string).collect()),
            timeout_s: configured.map(|endpoint| endpoint.timeout_ms as f64 / 1_000.0),
        }
    }

    fn source_names(&self, endpoint: &Endpoint) -> Vec<String> {
        let name = |id| self.catalog.source_name(id).map(str::to_owned);
        endpoint.sources.iter().filter_map(|id| name(*id)).collect()
    }
}

fn removed(name: &str) -> Problem {
    let detail = format!("the endpoint {:?} is no longer configured; add it to the configuration first", shown(name));
    Problem::conflict("endpoint_removed", detail)
}

/// The URL up to its query, in which receivers are wont to hide tokens.
fn plain_url(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}
