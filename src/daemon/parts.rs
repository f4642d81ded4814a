//! The parts of a gateway, made from a configuration and an open store.

use std::collections::HashSet;
use std::sync::Arc;

use super::token::Token;
use super::{DaemonError, Running};
use crate::api::{Api, Hosts, Readiness};
use crate::config::Config;
use crate::core::endpoint::Catalog;
use crate::core::fact::Standing;
use crate::egress::{Egress, EgressConfig, Guard, ca_from_pem};
use crate::engine::Engine;
use crate::env::{Clock, Entropy};
use crate::ingress::Ingress;
use crate::store::embedded::EmbeddedStore;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// Everything that runs.
pub(super) struct Parts {
    pub(super) store: Arc<EmbeddedStore>,
    pub(super) ingress: Arc<Ingress<EmbeddedStore>>,
    pub(super) api: Arc<Api<EmbeddedStore>>,
    pub(super) engine: Engine<EmbeddedStore, Egress>,
    pub(super) readiness: Arc<Readiness>,
    catalog: Arc<Catalog>,
}

impl Parts {
    /// Makes the parts; nothing runs yet.
    pub(super) fn new(
        config: Config,
        store: Arc<EmbeddedStore>,
        token: Token,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        running: &Running,
    ) -> Result<Self, DaemonError> {
        let metrics = Arc::new(Metrics::default());
        let readiness = Arc::new(Readiness::default());
        tell_opening(&store, &readiness, token, running);
        let egress = Arc::new(egress(&config, running, Arc::clone(&clock))?);
        let catalog = Arc::new(config.catalog);
        let limits = config.limits;
        let ingress =
            Ingress::new(Arc::clone(&store), Arc::clone(&catalog), limits.ingress, Arc::clone(&metrics), clock);
        let engine = Engine::new(
            Arc::clone(&store),
            egress,
            Arc::clone(&catalog),
            limits.delivery,
            Arc::clone(&metrics),
            entropy,
        );
        let api = Api {
            store: Arc::clone(&store),
            catalog: Arc::clone(&catalog),
            token_sha256: token.sha256,
            hosts: Hosts::new(running.management, []),
            limits: limits.api,
            metrics,
            gauges: Box::new(Vec::new),
            readiness: Arc::clone(&readiness),
        };
        Ok(Self { store, ingress: Arc::new(ingress), api: Arc::new(api), engine, readiness, catalog })
    }

    /// Tells the store which endpoints there are. An operator's word and a 410 outlast a restart; an endpoint that is no
    /// longer configured loses its pending deliveries to the dead letters, from where they can be replayed when it is back.
    pub(super) async fn tell_standings(&self) -> Result<(), StoreError> {
        let notes = self.store.endpoint_notes();
        let kept: HashSet<_> =
            notes.iter().filter(|n| !matches!(n.standing, Standing::Removed { .. })).map(|n| n.id).collect();
        for endpoint in self.catalog.endpoints().filter(|e| !kept.contains(&e.id)) {
            self.store.set_standing(endpoint.id, &endpoint.app_name, &endpoint.name, Standing::Enabled).await?;
        }
        for note in notes.iter().filter(|n| self.catalog.endpoint(n.id).is_none()) {
            let removed = Standing::Removed { since_ms: self.store.now_ms() };
            self.store.set_standing(note.id, &note.app, &note.name, removed).await?;
        }
        Ok(())
    }
}

fn egress(config: &Config, running: &Running, clock: Arc<dyn Clock>) -> Result<Egress, DaemonError> {
    let extra_ca = match &config.egress.ca_file {
        Some(path) => {
            let pem = std::fs::read(path).map_err(|source| DaemonError::CaFile { path: path.clone(), source })?;
            ca_from_pem(&pem)?
        }
        None => Vec::new(),
    };
    let guard = Guard {
        allow: config.egress.allow.clone(),
        ports: config.egress.ports.clone(),
        own: vec![running.ingress, running.management],
        literals: config.literals.iter().cloned().collect(),
    };
    let settings = EgressConfig { limits: config.limits.delivery.clone(), guard, extra_ca, ..EgressConfig::default() };
    Ok(Egress::new(settings, clock)?)
}

fn tell_opening(store: &EmbeddedStore, readiness: &Readiness, token: Token, running: &Running) {
    let opened = store.opened();
    if token.new {
        tracing::info!(path = %running.token.display(), "made a management token");
    }
    if let Some(why) = &opened.rebuilt {
        tracing::info!(why, "built the key space from the journal");
    }
    if opened.journal.torn_bytes > 0 {
        tracing::info!(bytes = opened.journal.torn_bytes, "left out a batch that was never acknowledged");
    }
    if opened.clock_behind_ms > 0 {
        let note = format!(
            "the wall clock is {} s behind the journal; time goes on from the journal's",
            opened.clock_behind_ms / 1_000
        );
        tracing::warn!("{note}");
        readiness.note("clock", note);
    }
}
