//! Backups of the living store, taken piece by piece while everything else goes on, and stores that are made of them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::env::{Disk as _, SeededEntropy};
use postrider::index::{Home, MemTree};
use postrider::store::embedded::{BackupError, Opening, RestoreError, check, restore_on};
use postrider::store::{Store as _, StoreError};
use tokio::time::sleep;

use super::clock::SimClock;
use super::coverage::Kind;
use super::disk::Fault;
use super::life::Life;
use super::model::Model;
use super::stage::lock;
use super::watched::{TELLING_BYTES, UNIQUE, Watched};
use super::{EndpointId, EventId, World};

/// Changing disk operations of a restore within which an armed fault strikes.
const STRIKES_WITHIN: u64 = 40;

/// Bytes at the end of a backup that are the digest and the counts.
const END_BYTES: u64 = 128;

/// Milliseconds that a reader takes for one piece at most; a slow one may have to give up.
const PACES_MS: [u64; 4] = [0, 5, 5_000, 7_200_000];

/// Bytes of a whole backup, and what may be in it.
pub struct Backup {
    bytes: Vec<u8>,
    model: Model,
}

/// The backups of a run.
#[derive(Clone, Default)]
pub struct Backups {
    whole: Arc<Mutex<Vec<Arc<Backup>>>>,
    /// How many are asked for or under way.
    taking: Arc<AtomicU64>,
}

impl Backups {
    /// The process has ended, and with it what was under way; whether anything was.
    pub fn end_life(&self) -> bool {
        self.taking.swap(0, Ordering::Relaxed) > 0
    }

    /// Takes a backup as one does who reads slowly.
    pub async fn take(self, store: Arc<Watched>) {
        let others = self.taking.fetch_add(1, Ordering::Relaxed);
        let begun = lock(&store.model).clone();
        store.stage.note(format_args!("{} backup begins", store.now_ms()));
        match store.store.backup().await {
            Ok(backup) => {
                let (mut bytes, pace_ms) = (Vec::new(), store.stage.dice().pick(&PACES_MS));
                for piece in backup.chunks {
                    bytes.extend_from_slice(&piece);
                    let pause_ms = store.stage.dice().below(pace_ms + 1);
                    sleep(Duration::from_millis(pause_ms)).await;
                }
                self.judge(&store, &begun, bytes);
            }
            Err(StoreError::BackupRuns) if others > 0 => store.stage.cover(Kind::BackupBusy),
            Err(StoreError::BackupRuns) => store.stage.breach("a backup is said to run, none does".to_owned()),
            Err(_) => {}
        }
        self.taking.fetch_sub(1, Ordering::Relaxed);
    }

    /// The backup has ended: is it whole, and may it be what it is?
    fn judge(&self, store: &Watched, begun: &Model, bytes: Vec<u8>) {
        let stage = &store.stage;
        stage.note(format_args!("{} backup ends {}", store.now_ms(), bytes.len()));
        let model = lock(&store.model).in_backup(begun);
        match check(&bytes[..], &mut |_| {}) {
            Ok(_) => {}
            Err(BackupError::GivenUp { why }) => {
                stage.cover(Kind::BackupGivenUp);
                let for_room = model.is_tight() && why.contains("needed the room");
                if !(for_room || model.damaged || store.disk.has_struck()) {
                    stage.breach(format!("a backup was given up without a cause: {why}"));
                }
                return;
            }
            Err(error) => return stage.breach(format!("a backup is not whole: {error}")),
        }
        for (id, new) in begun.erased().filter(|(_, new)| new.event_type.as_deref() == Some(UNIQUE)) {
            let told = new.body.get(..TELLING_BYTES);
            if told.is_some_and(|told| bytes.windows(TELLING_BYTES).any(|window| window == told)) {
                stage.breach(format!("{id} was erased, its bytes are in a later backup"));
            }
        }
        stage.cover(Kind::BackupTaken);
        lock(&self.whole).push(Arc::new(Backup { bytes, model }));
    }
}

impl World {
    pub fn back_up(&self, life: &Life) {
        let asked = if self.stage.dice().one_in(8) { 2 } else { 1 };
        for _ in 0..asked {
            tokio::spawn(self.backups.clone().take(Arc::clone(&life.store)));
        }
    }

    /// Perhaps the disk is lost between two lives, and another one is filled from a backup.
    pub fn change_disks(&mut self) {
        let whole = lock(&self.backups.whole).clone();
        if whole.is_empty() || self.stage.dice().one_in(2) {
            return;
        }
        let backup = &whole[self.stage.dice().below(whole.len() as u64) as usize];
        self.stage.note(format_args!("another disk, a backup of {} bytes", backup.bytes.len()));
        lock(&self.model).restore(&backup.model);
        (self.index_damaged, self.oldest) = (false, None);
        self.refuses_damage(&backup.bytes);
        let goes_wrong = !self.calm && !self.stage.dice().one_in(3);
        if goes_wrong && self.restore(backup, true) {
            return;
        }
        if !self.restore(backup, false) && self.stage.breached().is_none() {
            self.stage.breach("a backup is not restored, and nothing is in the way".to_owned());
        }
    }

    /// `changes` is how many a restore makes: what matters most is at its end.
    fn arm_restore(&self, changes: u64) {
        let mut dice = self.stage.dice();
        let within = dice.pick(&[10, STRIKES_WITHIN]);
        let after = if dice.one_in(3) { changes - 1 - dice.below(3) } else { dice.below(within) };
        match dice.below(7) {
            0..=2 => self.disk.arm(after, Fault::PowerCut),
            3..=4 => self.disk.arm(after, Fault::Kill),
            5 => self.disk.arm(after, Fault::Error),
            _ => self.disk.arm_read(after),
        }
    }

    /// Restores onto an empty disk; false when that was cut short and has left nothing.
    fn restore(&mut self, backup: &Backup, goes_wrong: bool) -> bool {
        self.empty_disk();
        if goes_wrong {
            // Once as a rehearsal.
            let _ = self.make_of(&backup.bytes);
            let changes = self.disk.changes();
            self.empty_disk();
            self.arm_restore(changes);
        }
        let restored = self.make_of(&backup.bytes);
        let dead = self.disk.dead();
        let struck = self.disk.has_struck();
        self.disk.heal();
        if dead == Some(Fault::PowerCut) || (restored.is_ok() && !self.calm && self.stage.dice().one_in(2)) {
            self.disk.cut_power();
            // Nothing of sled's is durable.
            self.keys.lose();
        }
        let is_there = self.disk.is_dir(&self.data);
        match restored {
            Ok(pending) => {
                self.stage.cover(Kind::Restored);
                if !is_there {
                    self.stage.breach("a restored store is gone after a power cut".to_owned());
                }
                let surely: Vec<_> = lock(&self.model).surely_pending().collect();
                if let Some(missing) = surely.iter().find(|delivery| !pending.contains(delivery)) {
                    self.stage.breach(format!("{missing:?} may be repeated, and the restore did not say so"));
                }
                true
            }
            Err(error) if !struck => {
                let error = postrider::core::error::chain(&error);
                self.stage.breach(format!("a whole backup is refused: {error}"));
                true
            }
            Err(_) => {
                self.stage.cover(match (dead, is_there) {
                    (None, _) => Kind::RestoreFailed,
                    (_, false) => Kind::RestoreCut,
                    (_, true) => Kind::RestoreCutWhole,
                });
                // It said that it failed, so until a start has seen to the name of what is there all the same, a power cut may
                // take it away; here that is done at once.
                is_there && self.disk.sync_dir(&self.home).is_ok()
            }
        }
    }

    fn empty_disk(&mut self) {
        self.disk.replace(&self.home);
        self.keys = MemTree::new();
    }

    fn make_of(&self, bytes: &[u8]) -> Result<Vec<(EndpointId, EventId)>, RestoreError> {
        let clock = SimClock::new(self.true_ms, self.disk.clone(), Arc::clone(&self.step_ms));
        let seed = self.stage.dice().next();
        let mut making = self.data.clone().into_os_string();
        making.push(".restoring");
        let mut opening = Opening {
            data: PathBuf::from(making),
            limits: self.shape.limits.clone(),
            clock: Arc::new(clock),
            entropy: Arc::new(SeededEntropy::new(seed)),
            rebuild: false,
            progress: &mut |_, _| {},
        };
        let (disk, home) = (Arc::new(self.disk.clone()), Home::Memory(self.keys.clone()));
        restore_on(&disk, &home, bytes, &mut opening, &self.data, &mut |_| {}).map(|restored| restored.pending)
    }

    /// Of a backup that is cut short or has a flipped bit nothing is made.
    fn refuses_damage(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        {
            let mut dice = self.stage.dice();
            let len = bytes.len() as u64;
            // The end says of itself what it is worth, and is but a small part.
            let at = if dice.one_in(4) { len - 1 - dice.below(END_BYTES) } else { dice.below(len) } as usize;
            if dice.one_in(4) {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << dice.below(8);
            }
        }
        self.empty_disk();
        match self.make_of(&bytes) {
            Err(RestoreError::Backup(_)) if !self.disk.is_dir(&self.data) => self.stage.cover(Kind::BackupDamaged),
            Err(error) => self.stage.breach(format!("a damaged backup was met with: {error}")),
            Ok(_) => self.stage.breach("a damaged backup was restored".to_owned()),
        }
    }
}
