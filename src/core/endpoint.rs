//! Sources, endpoints, and the catalog that says which endpoint takes what.

use std::collections::HashMap;
use std::sync::Arc;

use super::id::{AppId, EndpointId, SourceId};
use super::pattern::Pattern;
use super::retry::RetryPolicy;
use super::secret::Secret;
use super::signature::{Profile, Scheme};

/// The application that always exists.
pub const DEFAULT_APP: &str = "default";

/// An inbound URL with its verification scheme: `POST /in/{name}`.
#[derive(Debug)]
pub struct Source {
    /// Derived from the name.
    pub id: SourceId,
    /// The last part of its URL.
    pub name: String,
    /// The application that its events belong to.
    pub app: AppId,
    /// That application's name.
    pub app_name: String,
    /// How its requests are verified, and where their id and type stand.
    pub scheme: Scheme,
    /// Any of them may have signed.
    pub secrets: Vec<Secret>,
    /// Seconds that a timestamp may be off; `None` takes the scheme's.
    pub tolerance_s: Option<u64>,
}

/// A URL that takes deliveries.
#[derive(Debug)]
pub struct Endpoint {
    /// Derived from application and name.
    pub id: EndpointId,
    /// Unique within its application.
    pub name: String,
    /// The application it belongs to.
    pub app: AppId,
    /// That application's name.
    pub app_name: String,
    /// `http` or `https`, with neither user nor password.
    pub url: String,
    /// Inbound sources it takes.
    pub sources: Vec<SourceId>,
    /// Published event types it takes.
    pub event_types: Vec<Pattern>,
    /// Each signs; several during a rotation.
    pub secrets: Vec<Secret>,
    /// The form of the signature headers.
    pub profile: Profile,
    /// When failed deliveries are tried again.
    pub retry: RetryPolicy,
    /// Milliseconds that one attempt may take in all.
    pub timeout_ms: u64,
    /// Attempts in flight at once.
    pub in_flight_max: usize,
}

/// All sources and endpoints of one configuration. Immutable: a new configuration is a new catalog.
#[derive(Debug, Default)]
pub struct Catalog {
    sources: HashMap<String, Source>,
    endpoints: HashMap<EndpointId, Arc<Endpoint>>,
    apps: HashMap<String, AppId>,
    by_source: HashMap<SourceId, Vec<EndpointId>>,
    by_app: HashMap<AppId, Vec<EndpointId>>,
    source_names: HashMap<SourceId, String>,
}

impl Catalog {
    /// A catalog of these sources and endpoints; `default` and every application they name exist.
    pub fn new(sources: Vec<Source>, mut endpoints: Vec<Endpoint>) -> Self {
        let mut apps = HashMap::from([(DEFAULT_APP.to_owned(), app_id(DEFAULT_APP))]);
        apps.extend(endpoints.iter().map(|e| (e.app_name.clone(), e.app)));
        apps.extend(sources.iter().map(|s| (s.app_name.clone(), s.app)));
        let (mut by_source, mut by_app) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        // In the order of their ids, so that the same catalog always gives the same lists.
        endpoints.sort_unstable_by_key(|e| e.id);
        for endpoint in &endpoints {
            by_app.entry(endpoint.app).or_default().push(endpoint.id);
            for source in &endpoint.sources {
                let takers = by_source.entry(*source).or_default();
                if takers.last() != Some(&endpoint.id) {
                    takers.push(endpoint.id);
                }
            }
        }
        Self {
            by_source,
            by_app,
            apps,
            source_names: sources.iter().map(|s| (s.id, s.name.clone())).collect(),
            sources: sources.into_iter().map(|s| (s.name.clone(), s)).collect(),
            endpoints: endpoints.into_iter().map(|e| (e.id, Arc::new(e))).collect(),
        }
    }

    /// The source of this name.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.sources.get(name)
    }

    /// The name of a source.
    pub fn source_name(&self, id: SourceId) -> Option<&str> {
        self.source_names.get(&id).map(String::as_str)
    }

    /// Every source, in no order.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.values()
    }

    /// The endpoint with this id.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&id)
    }

    /// The endpoint that `text` means: its id, or its name in the application.
    pub fn endpoint_by_text(&self, app: &str, text: &str) -> Option<&Arc<Endpoint>> {
        match text.parse::<EndpointId>() {
            Ok(id) => self.endpoints.get(&id),
            Err(_) => self.endpoints.get(&EndpointId::named(app, text)),
        }
    }

    /// Every endpoint, in no order.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values()
    }

    /// The application of this name or id.
    pub fn app(&self, text: &str) -> Option<AppId> {
        self.apps.get(text).copied().or_else(|| {
            let id = text.parse::<AppId>().ok()?;
            self.apps.values().any(|a| *a == id).then_some(id)
        })
    }

    /// The endpoints that take what this source receives.
    pub fn takers_of_source(&self, source: SourceId) -> Vec<EndpointId> {
        self.by_source.get(&source).cloned().unwrap_or_default()
    }

    /// The endpoints of `app` that take this published event type.
    pub fn takers_of_type(&self, app: AppId, event_type: &str) -> Vec<EndpointId> {
        let takes = |id: &&EndpointId| self.endpoints[*id].event_types.iter().any(|p| p.matches(event_type));
        self.by_app.get(&app).into_iter().flatten().filter(takes).copied().collect()
    }
}

/// The id of an application.
pub fn app_id(name: &str) -> AppId {
    AppId::named("", name)
}

/// The id of a source.
pub fn source_id(name: &str) -> SourceId {
    SourceId::named("", name)
}

/// The id of an endpoint.
pub fn endpoint_id(app: &str, name: &str) -> EndpointId {
    EndpointId::named(app, name)
}
