//! Opening the store, and what may come of it.

use std::sync::Arc;

use postrider::env::{Clock, SeededEntropy};
use postrider::store::embedded::{Crew, EmbeddedStore, OpenError, Opened, Opening, salvage};
use postrider::store::{Store, StoreError};

use super::World;
use super::clock::SimClock;
use super::coverage::Kind;
use super::disk::{Fault, SimDisk};
use super::stage::lock;
use super::watched::Watched;

/// Changing disk operations of an opening within which an armed fault strikes.
const STRIKES_WITHIN: u64 = 16;

/// An open store.
pub struct Started {
    pub store: Arc<Watched>,
    pub crew: Crew<SimDisk>,
    pub clock: Arc<SimClock>,
}

impl World {
    /// Opens the store. `None` when the process has ended over it.
    pub async fn start(&mut self) -> Option<Started> {
        self.arm_opening();
        let clock = Arc::new(SimClock::new(self.true_ms, self.disk.clone(), Arc::clone(&self.step_ms)));
        match self.open(&clock) {
            Ok((store, crew)) => {
                self.found(store.opened());
                let (model, stage) = (Arc::clone(&self.model), Arc::clone(&self.stage));
                Some(Started { store: Arc::new(Watched { store, model, stage, disk: self.disk.clone() }), crew, clock })
            }
            Err(error) => {
                self.refused(&error, &clock).await;
                self.true_ms = clock.true_ms() + 1_000;
                None
            }
        }
    }

    fn open(&self, clock: &Arc<SimClock>) -> Result<(EmbeddedStore<SimDisk>, Crew<SimDisk>), OpenError> {
        let seed = self.stage.dice().next();
        let opening = Opening {
            data: self.data.clone(),
            limits: self.shape.limits.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(seed)),
            rebuild: false,
            progress: &mut |_, _| {},
        };
        EmbeddedStore::open_unmanned(Arc::new(self.disk.clone()), self.keys.clone(), opening)
    }

    fn arm_opening(&mut self) {
        let mut dice = self.stage.dice();
        if self.calm || !dice.one_in(4) {
            return;
        }
        let after = dice.below(STRIKES_WITHIN);
        match dice.below(8) {
            0..=2 => self.disk.arm(after, Fault::PowerCut),
            3..=4 => self.disk.arm(after, Fault::Kill),
            5 => self.disk.arm(after, Fault::Error),
            6 => self.disk.arm_read(2 * after),
            _ => {
                self.keys.fail_next(std::io::ErrorKind::Other);
                self.index_failing = true;
            }
        }
    }

    /// The store is open: what did it find?
    fn found(&mut self, opened: &Opened) {
        let journal = &opened.journal;
        let happened = [
            (journal.copied.is_some(), Kind::CopiedLast),
            (journal.torn_bytes > 0, Kind::TornTail),
            (journal.erasure_finished, Kind::ErasureFinished),
            (journal.segments > 2, Kind::Rotated),
            (opened.rebuilt.is_some(), Kind::Rebuilt),
            (opened.clock_behind_ms > 0, Kind::ClockBehind),
        ];
        happened.iter().filter(|(happened, _)| *happened).for_each(|(_, kind)| self.stage.cover(*kind));
        if std::mem::take(&mut self.index_damaged) && opened.rebuilt.is_none() && journal.next_sequence > 1 {
            self.stage.breach("a damaged key space was taken for whole".to_owned());
        }
        self.stage.note(format_args!("opened {} {} {}", journal.next_sequence, journal.torn_bytes, journal.segments));
    }

    /// The store would not open: may it?
    async fn refused(&mut self, error: &OpenError, clock: &Arc<SimClock>) {
        self.stage.note(format_args!("not opened, damage: {}", error.is_damage()));
        // What was wrong with the key space may be cleared away by now.
        self.index_damaged = false;
        let damaged = lock(&self.model).damaged;
        match self.disk.dead() {
            Some(Fault::PowerCut) => return self.stage.cover(Kind::PowerCutOpening),
            Some(_) => return self.stage.cover(Kind::KillOpening),
            None => {}
        }
        if !error.is_damage() && (self.disk.has_struck() || self.index_failing) {
            self.disk.leave_room(None);
            return self.stage.cover(Kind::OpenFailed);
        }
        if !damaged {
            let error = postrider::core::error::chain(error);
            return self.stage.breach(format!("the store does not open: {error}"));
        }
        self.stage.cover(Kind::DamageRefused);
        self.over = true;
        if error.is_damage() {
            self.salvage(clock).await;
        }
    }

    /// What an operator does about damage: afterwards nothing may be missing that the report does not speak of.
    async fn salvage(&self, clock: &Arc<SimClock>) {
        self.disk.heal();
        self.disk.leave_room(None);
        self.keys.heal();
        let disk = Arc::new(self.disk.clone());
        let report = match salvage(&disk, &self.data, &self.shape.limits, 77, clock.wall_ms()) {
            Ok(salvaged) => salvaged.journal,
            Err(error) => return self.stage.breach(format!("the journal can't be salvaged: {error:?}")),
        };
        self.stage.cover(Kind::Salvaged);
        let store = match self.open(clock) {
            Ok((store, _)) => store,
            Err(error) => return self.stage.breach(format!("the salvaged journal does not open: {error:?}")),
        };
        let stretches: u64 = report.lost.iter().map(|lost| lost.keyed_records.unwrap_or(u64::MAX >> 8)).sum();
        let lost_max = stretches + report.lost_records.len() as u64;
        self.count_lost(&store, lost_max).await;
    }

    async fn count_lost(&self, store: &EmbeddedStore<SimDisk>, lost_max: u64) {
        let ids = lock(&self.model).ids();
        let mut lost = 0;
        for id in ids {
            match store.event(id).await {
                Ok(Some(event)) => {
                    let whole = lock(&self.model).known(id).is_some_and(|known| event.body == known.new.body);
                    if !(whole || event.erased) {
                        self.stage.breach(format!("{id} has other bytes after a salvage"));
                    }
                }
                Ok(None) => lost += u64::from(lock(&self.model).why_not_gone(id, store.now_ms()).is_some()),
                Err(StoreError::Unreadable { .. }) => self.stage.breach(format!("{id} is damaged after a salvage")),
                Err(error) => self.stage.breach(format!("the salvaged store failed: {error}")),
            }
        }
        if lost > lost_max {
            self.stage.breach(format!("{lost} events are lost, the salvage speaks of {lost_max} records"));
        }
    }
}
