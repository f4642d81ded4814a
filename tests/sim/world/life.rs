//! One process: it opens the store, works, and ends in one way or another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider::core::endpoint::{Catalog, DEFAULT_APP};
use postrider::core::fact::Standing;
use postrider::engine::{Drained, Engine, EngineError, Stop};
use postrider::env::{Entropy, SeededEntropy};
use postrider::store::embedded::Crew;
use postrider::store::{Store, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::World;
use super::act::Ending;
use super::audit::audit;
use super::clock::SimClock;
use super::coverage::Kind;
use super::disk::SimDisk;
use super::net::SimNet;
use super::shape::{endpoint, endpoints};
use super::stage::Stage;
use super::watched::Watched;

/// Milliseconds after which whoever still waits would wait for ever.
const PATIENCE: Duration = Duration::from_secs(30 * 86_400);

/// A process that runs.
pub struct Life {
    pub store: Arc<Watched>,
    /// Up to how many milliseconds the writer takes before each batch.
    pub pace_ms: Arc<AtomicU64>,
    /// What the disk had taken from everybody when the life began.
    pub busy_before_ms: u64,
    stop: watch::Sender<Stop>,
    engine: JoinHandle<Result<Drained, EngineError>>,
    crew: JoinHandle<Crew<SimDisk>>,
    dismiss: mpsc::UnboundedSender<()>,
}

impl Life {
    /// Looks at what the store shows, tells it of its endpoints as a gateway does, and starts to deliver.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn begin(
        world: &World,
        store: Arc<Watched>,
        crew: Crew<SimDisk>,
        clock: Arc<SimClock>,
    ) -> Result<Self, StoreError> {
        let pace_ms = Arc::new(AtomicU64::new(1));
        let (dismiss, dismissed) = mpsc::unbounded_channel();
        // Before anybody else does anything.
        audit(&store, &endpoints(), true).await?;
        let crew = tokio::spawn(work(crew, dismissed, Arc::clone(&world.stage), Arc::clone(&pace_ms)));
        let catalog = Arc::new(Catalog::new(Vec::new(), world.configured().map(|n| world.shape.endpoint(n)).collect()));
        tell_standings(&store, &catalog).await?;
        let (timed, seed) = (Arc::clone(&store), world.stage.dice().next());
        let courier = Arc::new(SimNet {
            stage: Arc::clone(&world.stage),
            model: Arc::clone(&world.model),
            clock: clock.clone(),
            moods: Arc::clone(&world.moods),
            now_ms: Box::new(move || timed.now_ms()),
        });
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed));
        let limits = world.shape.delivery.clone();
        let engine = Engine::new(Arc::clone(&store), courier, catalog, limits, Arc::default(), entropy);
        let (stop, stopped) = watch::channel(Stop::No);
        let engine = tokio::spawn(engine.run(stopped));
        let busy_before_ms = world.disk.busy_ms();
        Ok(Self { store, pace_ms, busy_before_ms, stop, engine, crew, dismiss })
    }

    /// Ends as it was told to. After a kill there is nothing to be done: everything is dropped as it is.
    pub async fn end(self, world: &World, ending: Ending) {
        if self.engine.is_finished() && failure(&self.store).await.is_none() {
            world.stage.breach("deliveries stopped and nobody knows why".to_owned());
        }
        if ending != Ending::Clean {
            return;
        }
        self.store.store.stop_intake();
        self.stop.send_replace(Stop::Drain);
        match timeout(PATIENCE, self.engine).await {
            Err(_) => world.stage.breach("deliveries never stopped".to_owned()),
            Ok(Err(panic)) => world.stage.breach(format!("the engine panicked: {panic}")),
            Ok(Ok(_)) => {}
        }
        let _ = self.dismiss.send(());
        match timeout(PATIENCE, self.crew).await {
            Ok(Ok(mut crew)) => {
                let _ = crew.write() && crew.apply();
            }
            _ => world.stage.breach("the writer never stopped".to_owned()),
        }
        world.stage.cover(if world.disk.dead().is_some() { Kind::PowerCutClosing } else { Kind::CleanStop });
    }
}

/// Why the store has failed, if it has.
pub async fn failure(store: &Watched) -> Option<Arc<str>> {
    tokio::select! {
        biased;
        why = store.store.failed() => Some(why),
        () = std::future::ready(()) => None,
    }
}

/// The store's threads in one task: whose turn it is, and after how long, is up to the dice.
async fn work(
    mut crew: Crew<SimDisk>,
    mut dismissed: mpsc::UnboundedReceiver<()>,
    stage: Arc<Stage>,
    pace_ms: Arc<AtomicU64>,
) -> Crew<SimDisk> {
    let bell = crew.bell();
    let mut unapplied = false;
    // There are chores from the start.
    bell.notify_one();
    loop {
        tokio::select! {
            biased;
            () = bell.notified() => {}
            _ = dismissed.recv() => return crew,
            () = sleep(Duration::from_secs(1)), if unapplied => {
                crew.apply();
                unapplied = false;
                continue;
            }
        }
        loop {
            let wait_ms = stage.dice().below(pace_ms.load(Ordering::Relaxed) + 1);
            if wait_ms > 0 {
                sleep(Duration::from_millis(wait_ms)).await;
            }
            if !crew.write() || !crew.keep_house() {
                break;
            }
        }
        unapplied = true;
        if stage.dice().one_in(4) {
            crew.apply();
            unapplied = false;
        }
    }
}

/// What the gateway tells the store at each start.
async fn tell_standings(store: &Watched, catalog: &Catalog) -> Result<(), StoreError> {
    let notes = store.endpoint_notes();
    for n in 0..endpoints().len() {
        let id = endpoint(n);
        let note = notes.iter().find(|note| note.id == id);
        let kept = note.is_some_and(|note| !matches!(note.standing, Standing::Removed { .. }));
        match catalog.endpoint(id) {
            Some(endpoint) if !kept => {
                store.set_standing(id, DEFAULT_APP, &endpoint.name, Standing::Enabled).await?;
            }
            None if note.is_some() => {
                let removed = Standing::Removed { since_ms: store.now_ms() };
                store.set_standing(id, DEFAULT_APP, "gone", removed).await?;
            }
            _ => {}
        }
    }
    Ok(())
}
