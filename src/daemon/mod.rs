//! Wiring: from a configuration to a running gateway, and back down again in order.
//!
//! Start: lock and recover the store, bind, tell the store which endpoints exist, then serve. Stop (SIGTERM, SIGINT): no more
//! events in, attempts in flight finish within their deadline, what was written is applied, the store is freed. A second
//! signal does not wait for attempts. A failure of the storage stops the process at once, since only a new start knows what is
//! durable; one that comes while it stops is told by the same exit code.
//!
//! **Invariant:** no rules here. What a part does is decided in the part.

pub mod descriptors;
mod parts;
mod token;

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinHandle};

pub use token::{Token, TokenError, token_path};

use self::parts::Parts;
use crate::api::{self, Phase};
use crate::config::Config;
use crate::egress::{CaError, EgressError};
use crate::engine::{Drained, EngineError, Stop};
use crate::env::{RealClock, RealEntropy};
use crate::store::StoreError;
use crate::store::embedded::{EmbeddedStore, OpenError, Opening, Progress};

/// Milliseconds that requests in progress get when the gateway stops.
const REQUEST_DRAIN_MS: u64 = 5_000;

/// How long an end in order may take once the storage has failed. Requests in progress have their drain time in it; then the
/// process ends whatever still waits, as a call into a failed disk may never return.
const FAILED_END: Duration = Duration::from_secs(10);

/// A file would grow past the limit that the process has for one (`ulimit -f`). Left alone it ends the process without a word;
/// caught, the write fails, and that is a failure of the storage like any other. The number is Linux's.
const SIGXFSZ: i32 = 25;

/// How deliveries end.
type EngineEnd = Result<Drained, EngineError>;

/// Where a running gateway can be reached.
#[derive(Debug, Clone)]
pub struct Running {
    /// The public listener, as bound.
    pub ingress: SocketAddr,
    /// The management listener, as bound.
    pub management: SocketAddr,
    /// The client's copy of the token.
    pub token: PathBuf,
}

/// Why the gateway did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// An address can't be listened on.
    #[error("cannot listen on {address} ({what}): {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The store can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The management token can't be had.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// `egress.ca_file` can't be read.
    #[error("egress.ca_file {}: {source}", path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Deliveries can't be made with this configuration.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The storage failed; what was acknowledged is safe, start again.
    #[error("the gateway stopped, since only a new start knows what is durable")]
    Storage(#[from] StoreError),
    /// The operating system refuses threads, signals or the data directory.
    #[error("{what}: {source}")]
    System {
        /// What for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Kinds of [`DaemonError`], one per exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonErrorKind {
    /// The configuration can't be used.
    Config,
    /// Another process holds the store.
    Held,
    /// The store is damaged.
    Damaged,
    /// Storage I/O failed.
    Storage,
    /// An address can't be listened on.
    Bind,
}

impl DaemonError {
    /// Its kind.
    pub const fn kind(&self) -> DaemonErrorKind {
        match self {
            Self::Bind { .. } => DaemonErrorKind::Bind,
            Self::Open(error) if error.is_held() => DaemonErrorKind::Held,
            Self::Open(error) if error.is_damage() => DaemonErrorKind::Damaged,
            Self::Token(TokenError::Unusable { .. }) | Self::CaFile { .. } | Self::Egress(_) => DaemonErrorKind::Config,
            Self::Open(_) | Self::Token(_) | Self::Storage(_) | Self::System { .. } => DaemonErrorKind::Storage,
        }
    }
}

impl From<CaError> for DaemonError {
    fn from(error: CaError) -> Self {
        Self::Egress(error.into())
    }
}

/// Runs a gateway until a signal stops it. `progress` is told of a rebuild of the key space, `ready` once it serves.
pub fn run(config: Config, progress: Progress<'_>, ready: impl FnOnce(&Running)) -> Result<(), DaemonError> {
    let system = |what| move |source| DaemonError::System { what, source };
    let entropy = Arc::new(RealEntropy);
    let clock = Arc::new(RealClock::new());
    descriptors::make_room(&config.limits);
    has_descriptors().map_err(system("opening the first descriptors"))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(system("starting threads"))?;
    {
        let _within = runtime.enter();
        // Once caught it stays caught; nobody has to listen.
        let _caught = signal(SignalKind::from_raw(SIGXFSZ)).map_err(system("listening for signals"))?;
    }
    let store = EmbeddedStore::open(Opening {
        data: config.data_dir.clone(),
        limits: config.limits.store.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        rebuild: false,
        progress,
    })?;
    // After the store: a second process is told who holds it, not that its port is taken, and makes no second token.
    let ingress = bind(config.listeners.ingress, "ingress")?;
    let management = bind(config.listeners.management, "management")?;
    let token = token::prepare(&config.data_dir, config.token_file.as_deref(), &*entropy)?;
    let outcome = runtime.block_on(async {
        let address = |listener: &std::net::TcpListener| listener.local_addr().map_err(system("reading an address"));
        let running = Running {
            ingress: address(&ingress)?,
            management: address(&management)?,
            token: token_path(&config.data_dir, config.token_file.as_deref()),
        };
        let parts = Parts::new(config, Arc::new(store), token, clock, entropy, &running)?;
        parts.tell_standings().await?;
        serve(parts, ingress, management, &running, ready).await
    });
    // A blocking look-up of a name may hang; nothing waits for it.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    parts: Parts,
    ingress: std::net::TcpListener,
    management: std::net::TcpListener,
    running: &Running,
    ready: impl FnOnce(&Running),
) -> Result<(), DaemonError> {
    let system = |what| move |source| DaemonError::System { what, source };
    let (mut term, mut int) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let (stop_ingress, ingress_stopped) = watch::channel(false);
    let (stop_api, api_stopped) = watch::channel(false);
    let (stop_engine, engine_stopped) = watch::channel(Stop::No);
    let ingress = TcpListener::from_std(ingress).map_err(system("taking the ingress listener over"))?;
    let management = TcpListener::from_std(management).map_err(system("taking the management listener over"))?;
    let receiving = tokio::spawn(Arc::clone(&parts.ingress).serve(ingress, REQUEST_DRAIN_MS, ingress_stopped));
    let managing = tokio::spawn(api::serve(Arc::clone(&parts.api), management, REQUEST_DRAIN_MS, api_stopped));
    let mut delivering = tokio::spawn(parts.engine.run(engine_stopped));
    parts.readiness.enter(Phase::Ready);
    tracing::info!(ingress = %running.ingress, management = %running.management, token = %running.token.display(), "ready");
    ready(running);

    let stopped = tokio::select! {
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        reason = parts.store.failed() => Err(DaemonError::Storage(StoreError::Failed(reason))),
        ended = &mut delivering => Err(engine_end(ended)),
    };
    parts.readiness.enter(Phase::Draining);
    parts.store.stop_intake();
    // Receivers are gone only when their tasks have ended already.
    let _ = stop_ingress.send(true);
    let store = Arc::clone(&parts.store);
    let end = async {
        if stopped.is_ok() {
            drain(&store, delivering, &stop_engine, &mut term, &mut int).await;
        }
        let _ = stop_api.send(true);
        // They end within their drain time.
        let _ = tokio::join!(receiving, managing);
        let closing = Arc::clone(&store);
        let _ = tokio::task::spawn_blocking(move || closing.close()).await;
    };
    let in_order = tokio::select! {
        () = end => true,
        () = overdue(&store) => false,
    };
    let failed = store.failure().map(DaemonError::Storage);
    if !in_order {
        tracing::warn!(seconds = FAILED_END.as_secs(), "something still waits for the storage, and is given up");
    }
    if !in_order || failed.is_some() {
        // Whoever drops it last closes sled, which may wait for ever where its disk has failed. Nothing of it is needed now.
        std::mem::forget(store);
    }
    stopped?;
    failed.map_or(Ok(()), Err)?;
    tracing::info!("stopped");
    Ok(())
}

/// Attempts in flight finish, or are given up at a second signal.
async fn drain(
    store: &EmbeddedStore,
    mut delivering: JoinHandle<EngineEnd>,
    stop_engine: &watch::Sender<Stop>,
    term: &mut Signal,
    int: &mut Signal,
) {
    tracing::info!("stopping: no more events in, attempts in flight finish");
    let _ = stop_engine.send(Stop::Drain);
    let drained = tokio::select! {
        ended = &mut delivering => Some(ended),
        _ = term.recv() => None,
        _ = int.recv() => None,
        _ = store.failed() => None,
    };
    match drained {
        Some(ended) => tell_drained(ended),
        None => {
            hurry(stop_engine);
            tell_drained(delivering.await);
        }
    }
}

/// Resolves when the storage has failed and the time for an end in order is up. A thread of its own looks at the clock: those
/// of the runtime may all wait for the storage.
async fn overdue(store: &EmbeddedStore) {
    store.failed().await;
    let (up, time) = oneshot::channel::<()>();
    let spawned = std::thread::Builder::new().name("failed-end".to_owned()).spawn(move || {
        std::thread::sleep(FAILED_END);
        drop(up);
    });
    // Without a thread the time is up at once.
    drop(spawned);
    let _ = time.await;
}

fn hurry(stop_engine: &watch::Sender<Stop>) {
    tracing::warn!("stopping now; attempts in flight are given up and made again at the next start");
    let _ = stop_engine.send(Stop::Now);
}

fn tell_drained(ended: Result<EngineEnd, JoinError>) {
    match ended {
        Ok(Ok(drained)) => {
            tracing::info!(finished = drained.finished, abandoned = drained.abandoned, "deliveries stopped");
        }
        Ok(Err(error)) => tracing::warn!(%error, "deliveries ended with an error"),
        Err(error) => tracing::error!(%error, "the engine panicked; this is a bug"),
    }
}

/// The engine never ends by itself but for a failure.
fn engine_end(ended: Result<EngineEnd, JoinError>) -> DaemonError {
    match ended {
        Ok(Err(EngineError::Store(error))) => DaemonError::Storage(error),
        Ok(Ok(_)) => DaemonError::Storage(StoreError::Failed("deliveries ended without being told to".into())),
        Err(error) => DaemonError::Storage(StoreError::Failed(error.to_string().into())),
    }
}

/// Tokio panics where it can't have the few descriptors that it begins with; here that is an error.
fn has_descriptors() -> io::Result<()> {
    let few = [(); 4].map(|()| UnixStream::pair());
    few.into_iter().try_for_each(|pair| pair.map(drop))
}

fn on(kind: SignalKind) -> Result<Signal, DaemonError> {
    signal(kind).map_err(|source| DaemonError::System { what: "listening for signals", source })
}

fn bind(address: SocketAddr, what: &'static str) -> Result<std::net::TcpListener, DaemonError> {
    let error = |source| DaemonError::Bind { address, what, source };
    let listener = std::net::TcpListener::bind(address).map_err(error)?;
    listener.set_nonblocking(true).map_err(error)?;
    Ok(listener)
}
