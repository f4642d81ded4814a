//! A gateway in a world where everything that can go wrong does, and where the same dice give the same run.
//!
//! Real are the engine, the store with its journal, recovery and retention, and all codecs. Simulated are the disk, the
//! key space under the store (a map in memory instead of sled), the network, time and randomness. One thread runs it all.
//! A model hears of every call and every answer, and decides what may be seen afterwards.
//!
//! A run is several lives of a process on one disk. In each, acts are drawn and performed; then the process ends, and the
//! next one finds what the end has left. The last life has no troubles: everything must settle in it.

mod act;
mod audit;
mod backup;
mod clock;
pub mod coverage;
mod disk;
mod inode;
mod life;
pub mod logs;
mod model;
mod names;
mod net;
mod shape;
mod stage;
mod start;
mod watched;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use postrider::core::delivery::DeliveryId;
use postrider::core::endpoint::{DEFAULT_APP, app_id};
use postrider::core::event::{DedupKey, DedupScope, NewEvent, body_fingerprint};
use postrider::core::fact::Standing;
use postrider::core::id::{EndpointId, EventId};
use postrider::index::MemTree;
use postrider::store::Store;
use postrider::store::embedded::journal_dir;
use tokio::time::sleep;

use self::act::{Act, Ending};
use self::audit::audit;
use self::backup::Backups;
use self::coverage::{Coverage, Kind};
use self::disk::{Fault, SimDisk};
use self::life::{Life, failure};
use self::model::Model;
use self::net::Mood;
use self::shape::{ENDPOINTS, Shape, endpoint, endpoints};
pub use self::stage::Dice;
use self::stage::{Stage, lock};
use self::start::Started;
use self::watched::UNIQUE;

/// Where every run starts, unix milliseconds.
const START_MS: u64 = 1_700_000_000_000;

/// Acts of one life at most.
const ACTS_MAX: u64 = 80;

/// Hours in which everything must have settled once nothing goes wrong any more: the longest schedule, and what a
/// `Retry-After` adds.
const SETTLES_WITHIN_H: u64 = 40 * 24;

/// What is left of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The first breach of a promise.
    pub breach: Option<String>,
    /// A digest of all that happened, and how much that was.
    pub digest: (u64, u64),
    pub coverage: Coverage,
    /// The trace, if it was asked for.
    pub text: String,
}

/// Everything that outlives a process.
pub struct World {
    stage: Arc<Stage>,
    disk: SimDisk,
    keys: MemTree,
    model: Arc<Mutex<Model>>,
    moods: Arc<Mutex<BTreeMap<EndpointId, Mood>>>,
    shape: Shape,
    /// What has always been on the disk; the data directory is in it.
    home: PathBuf,
    data: PathBuf,
    backups: Backups,
    /// Which endpoints the configuration names.
    configured: u8,
    /// What the time really is, and by how much the wall clock is off.
    true_ms: u64,
    step_ms: Arc<AtomicI64>,
    events: u64,
    /// The key space was damaged, so the next start must notice.
    index_damaged: bool,
    /// The key space was told to fail.
    index_failing: bool,
    /// Nothing goes wrong any more.
    calm: bool,
    over: bool,
    /// The first segment, by which is seen whether any was dropped.
    oldest: Option<PathBuf>,
}

/// One run, as the dice fall. `home` is a real directory, for lock files alone.
pub fn run(dice: Dice, home: PathBuf, keep_text: bool) -> Outcome {
    let stage = Arc::new(Stage::new(dice, keep_text));
    let _ = logs::take_errors();
    let mut world = World::new(Arc::clone(&stage), home);
    let lives = 1 + stage.dice().below(5);
    for _ in 0..lives {
        world.live();
        if world.over || stage.breached().is_some() {
            break;
        }
    }
    world.settle();
    let (breach, digest, coverage) = (stage.breached(), stage.digest(), stage.coverage());
    Outcome { breach, digest, coverage, text: stage.take_text() }
}

impl World {
    fn new(stage: Arc<Stage>, home: PathBuf) -> Self {
        let shape = Shape::draw(&mut stage.dice());
        let model = Model::new(Arc::clone(&stage), shape.terms());
        stage.note(format_args!("{shape:?}"));
        let moods = (0..ENDPOINTS).map(|n| (endpoint(n), stage.dice().pick(&[Mood::Good, Mood::Mixed, Mood::Mixed])));
        let moods = Arc::new(Mutex::new(moods.collect()));
        Self {
            disk: SimDisk::new(Arc::clone(&stage), &home),
            keys: MemTree::new(),
            model: Arc::new(Mutex::new(model)),
            moods,
            shape,
            data: home.join("data"),
            home,
            backups: Backups::default(),
            configured: 0b11,
            true_ms: START_MS,
            step_ms: Arc::default(),
            events: 0,
            index_damaged: false,
            index_failing: false,
            calm: false,
            over: false,
            oldest: None,
            stage,
        }
    }

    /// Numbers of the endpoints that the configuration names.
    fn configured(&self) -> impl Iterator<Item = usize> + '_ {
        (0..ENDPOINTS).filter(|n| self.configured & (1 << n) != 0)
    }

    /// One process from its start to its end.
    fn live(&mut self) {
        lock(&self.model).begin_life();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime of one thread needs nothing");
        let ending = runtime.block_on(self.live_within());
        // Here the process is gone: whatever its tasks were about to do never happens.
        drop(runtime);
        self.judge_errors();
        self.die(ending);
    }

    async fn live_within(&mut self) -> Ending {
        self.change_disks();
        let Some(Started { store, crew, clock }) = self.start().await else { return Ending::Kill };
        let life = match Life::begin(self, store, crew, Arc::clone(&clock)).await {
            Ok(life) => life,
            Err(error) => {
                self.stage.note(format_args!("a life that ended early: {}", error.to_string().len()));
                self.true_ms = clock.true_ms() + 1_000;
                return Ending::Kill;
            }
        };
        let ending = if self.calm { self.settle_within(&life).await } else { self.act(&life).await };
        life.end(self, ending).await;
        self.true_ms = clock.true_ms() + 1_000;
        ending
    }

    /// Draws and performs acts until the process ends.
    async fn act(&mut self, life: &Life) -> Ending {
        for _ in 0..ACTS_MAX {
            let act = Act::draw(&mut self.stage.dice());
            let now_ms = life.store.now_ms();
            self.stage.note(format_args!("{now_ms} act {act:?}"));
            lock(&self.model).saw(now_ms);
            if let Act::End(ending) = act {
                self.stage.cover(match ending {
                    Ending::Clean => return ending,
                    Ending::Kill => Kind::Kill,
                    Ending::PowerCut => Kind::PowerCut,
                });
                return ending;
            }
            self.perform(act, life).await;
            // Others have their turn, and sometimes more than one.
            let wait_ms = self.stage.dice().pick(&[0, 1, 5, 50]);
            self.pass(life, wait_ms).await;
            if self.disk.dead().is_some() {
                return Ending::Kill;
            }
            if failure(&life.store).await.is_some() {
                self.stage.cover(Kind::StoreFailed);
                return self.stage.dice().pick(&[Ending::Kill, Ending::PowerCut]);
            }
            self.judge_errors();
            if self.stage.breached().is_some() {
                return Ending::Kill;
            }
        }
        Ending::Clean
    }

    /// Lets time pass, unless the process dies or its storage fails.
    async fn pass(&self, life: &Life, ms: u64) {
        tokio::select! {
            biased;
            () = self.disk.death() => {}
            _ = life.store.store.failed() => {}
            () = sleep(Duration::from_millis(ms)) => {}
        }
    }

    async fn perform(&mut self, act: Act, life: &Life) {
        match act {
            Act::Accept { to, body_bytes, key, same_body } => {
                let event = self.event(to, body_bytes, key, same_body);
                let store = Arc::clone(&life.store);
                tokio::spawn(async move { store.accept(event).await });
            }
            Act::Burst { events, to, body_bytes } => {
                for _ in 0..events {
                    let event = self.event(to, body_bytes, None, false);
                    let store = Arc::clone(&life.store);
                    tokio::spawn(async move { store.accept(event).await });
                }
            }
            Act::Redrive { which, to } => {
                let Some(event) = self.pick(which) else { return };
                let (store, delivery) = (Arc::clone(&life.store), DeliveryId { endpoint: endpoint(to), event });
                tokio::spawn(async move { store.redrive(delivery).await });
            }
            Act::Erase { which } => {
                let Some(event) = self.pick(which) else { return };
                let store = Arc::clone(&life.store);
                tokio::spawn(async move { store.erase(event).await });
            }
            Act::Stand { at, open } => self.stand(life, at, open),
            Act::Mood { at, mood } => drop(lock(&self.moods).insert(endpoint(at), mood)),
            Act::Pass { ms } => {
                self.pass(life, ms).await;
                self.judge_idle(life).await;
            }
            Act::StepWall { by_ms } => {
                self.step_ms.store(by_ms, Ordering::Relaxed);
                self.stage.cover(if by_ms < 0 { Kind::ClockBack } else { Kind::ClockForward });
            }
            Act::KeepHouse => {
                let store = Arc::clone(&life.store);
                tokio::spawn(async move { store.store.keep_house().await });
            }
            Act::BackUp => self.back_up(life),
            Act::Audit => drop(audit(&life.store, &endpoints(), false).await),
            trouble => self.trouble(trouble, life),
        }
    }

    /// Something goes wrong, or will.
    fn trouble(&mut self, act: Act, life: &Life) {
        match act {
            Act::Arm { after, fault } => self.disk.arm(after, fault),
            Act::ArmRead { after } => self.disk.arm_read(after),
            Act::Room { bytes } => self.disk.leave_room(bytes),
            Act::SlowSync { ms } => {
                self.disk.slow_down(ms);
                self.stage.cover(Kind::SlowSync);
            }
            Act::Pace { ms } => {
                life.pace_ms.store(ms, Ordering::Relaxed);
                self.stage.cover(Kind::SlowWriter);
            }
            Act::FailIndex { full } => {
                let kind = if full { std::io::ErrorKind::StorageFull } else { std::io::ErrorKind::Other };
                self.keys.fail_next(kind);
                self.index_failing = true;
                self.stage.cover(Kind::IndexFailed);
            }
            Act::Flip { which, at, bit, checkpoint } => self.flip(which, at, bit, checkpoint),
            _ => {}
        }
    }

    /// After a while everything that can be done is done, unless something keeps it.
    async fn judge_idle(&self, life: &Life) {
        if self.disk.dead().is_none() && failure(&life.store).await.is_none() {
            let endpoints: Vec<_> = self.configured().map(endpoint).collect();
            let slow_ms = self.disk.busy_ms() - life.busy_before_ms;
            lock(&self.model).judge_idle(&endpoints, life.store.now_ms(), slow_ms);
        }
    }

    fn stand(&self, life: &Life, at: usize, open: bool) {
        // An endpoint that is not configured is not to be had in the API.
        if self.configured & (1 << at) == 0 {
            return;
        }
        let since_ms = life.store.now_ms();
        let standing = if open { Standing::Enabled } else { Standing::Disabled { since_ms } };
        let store = Arc::clone(&life.store);
        tokio::spawn(async move { store.set_standing(endpoint(at), DEFAULT_APP, "endpoint", standing).await });
    }

    fn pick(&self, which: u64) -> Option<EventId> {
        let ids = lock(&self.model).ids();
        (!ids.is_empty()).then(|| ids[(which % ids.len() as u64) as usize])
    }

    fn event(&mut self, to: u8, body_bytes: u16, key: Option<u8>, same_body: bool) -> NewEvent {
        self.events += 1;
        let takers = to & self.configured;
        let mark = if same_body { u64::MAX - u64::from(key.unwrap_or(0)) } else { self.events };
        let body: Vec<u8> =
            Dice::seeded(mark).next().to_le_bytes().into_iter().cycle().take(usize::from(body_bytes)).collect();
        let dedup = key.map(|key| {
            let scope = if key.is_multiple_of(2) { DedupScope::Inbound } else { DedupScope::Idempotency };
            DedupKey::new(scope, 7, &key.to_string())
        });
        NewEvent {
            app: app_id(DEFAULT_APP),
            source: None,
            event_type: Some(if same_body { "order.repeated" } else { UNIQUE }.to_owned()),
            external_id: Some(self.events.to_string()),
            headers: [("content-type", "application/octet-stream")].into_iter().collect(),
            fingerprint: body_fingerprint(&body),
            body: Bytes::from(body),
            dedup: dedup.into_iter().collect(),
            endpoints: (0..ENDPOINTS).filter(|n| takers & (1 << n) != 0).map(endpoint).collect(),
        }
    }

    /// Flips a bit in a segment that is not the last, or in the checkpoint.
    fn flip(&mut self, which: u64, at: u64, bit: u8, checkpoint: bool) {
        let mut files = self.disk.files(&journal_dir(&self.data));
        let wanted = if checkpoint { "checkpoint" } else { "seg-" };
        files.retain(|(path, len)| {
            *len > 0 && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(wanted))
        });
        if !checkpoint {
            files.pop();
        }
        if files.is_empty() {
            return;
        }
        let (path, len) = &files[(which % files.len() as u64) as usize];
        self.disk.flip(path, at % len, bit);
        lock(&self.model).damaged = true;
        self.stage.cover(if checkpoint { Kind::FlipCheckpoint } else { Kind::FlipSegment });
    }

    /// An ERROR means a bug or data at risk; here it is explained by what was done to the process, or breaks a promise.
    fn judge_errors(&self) {
        let explained = self.disk.has_struck() || self.index_failing || lock(&self.model).damaged;
        for error in logs::take_errors() {
            if !explained {
                self.stage.breach(format!("an ERROR without a cause:{error}"));
            }
        }
    }

    /// The last life: nothing goes wrong, every endpoint takes everything, and everything settles.
    fn settle(&mut self) {
        if self.over || self.stage.breached().is_some() {
            return;
        }
        self.calm = true;
        lock(&self.moods).clear();
        self.disk.leave_room(None);
        self.disk.slow_down(0);
        self.live();
    }

    async fn settle_within(&self, life: &Life) -> Ending {
        for n in self.configured() {
            self.stand(life, n, true);
        }
        life.store.store.keep_house().await;
        for _ in 0..SETTLES_WITHIN_H {
            if life.store.stats().pending == 0 {
                break;
            }
            self.pass(life, 3_600_000).await;
        }
        let pending = life.store.stats().pending;
        if pending > 0 {
            self.stage.breach(format!("{pending} deliveries never settle"));
        }
        if let Err(error) = audit(&life.store, &endpoints(), false).await {
            self.stage.breach(format!("the last look failed: {error}"));
        }
        Ending::Clean
    }

    /// What the end of a process leaves, and what is different at the next start.
    fn die(&mut self, ending: Ending) {
        let dead = self.disk.dead();
        if self.backups.end_life() {
            self.stage.cover(Kind::BackupCut);
        }
        match dead {
            Some(Fault::PowerCut) => self.stage.cover(Kind::PowerCutMidway),
            Some(_) => self.stage.cover(Kind::KillMidway),
            None => {}
        }
        let oldest = self.disk.files(&journal_dir(&self.data)).into_iter().map(|(path, _)| path);
        let oldest = oldest.filter(|path| path.to_string_lossy().contains("seg-")).min();
        if oldest.is_some() && oldest != self.oldest {
            if self.oldest.is_some() {
                self.stage.cover(Kind::Dropped);
            }
            self.oldest = oldest;
        }
        self.disk.heal();
        self.keys.heal();
        self.index_failing = false;
        if dead == Some(Fault::PowerCut) || (ending == Ending::PowerCut && dead.is_none()) {
            self.disk.cut_power();
        }
        if self.calm {
            return;
        }
        if ending != Ending::Clean || dead.is_some() {
            self.spoil_index();
        }
        let mut dice = self.stage.dice();
        self.true_ms += dice.pick(&[0, 10, 60_000, 86_400_000]);
        if dice.one_in(4) {
            self.disk.leave_room(None);
        }
        if dice.one_in(4) {
            self.configured = dice.below(1 << ENDPOINTS) as u8;
            self.stage.cover(Kind::EndpointsChanged);
        }
        self.stage.note(format_args!("end {ending:?} {dead:?} at {}, then {:04b}", self.true_ms, self.configured));
    }

    /// sled keeps some prefix of what was applied, or nothing, or something damaged.
    fn spoil_index(&mut self) {
        let mut dice = self.stage.dice();
        match dice.below(10) {
            0..=1 => {
                self.keys.rewind(1 + dice.below(3) as usize);
                self.stage.cover(Kind::IndexBehind);
            }
            2 => {
                self.keys.lose();
                self.index_damaged = false;
                self.stage.cover(Kind::IndexLost);
            }
            3 => {
                let (which, lose) = (dice.next(), dice.one_in(2));
                let damaged = &mut self.index_damaged;
                self.keys.damage(|keys| {
                    let Some(key) = keys.keys().nth(which as usize % keys.len().max(1)).cloned() else { return };
                    *damaged = true;
                    if lose {
                        keys.remove(&key);
                    } else {
                        keys.entry(key).or_default().push(0xa5);
                    }
                });
                self.stage.cover(Kind::IndexDamaged);
            }
            _ => {}
        }
    }
}
