//! The store's work without its threads: whoever drives it decides what happens when, and a run can be repeated.
//!
//! What the threads do in loops is done here in steps. A step never waits: what a thread would wait for is done first.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::Hands;
use super::applier::{self, Applying};
use super::housekeeper::Housekeeper;
use super::shared::Shared;
use super::writer::Writer;
use crate::env::Disk;

/// Those who do the work of an [`EmbeddedStore`](super::EmbeddedStore) that has no threads.
pub struct Crew<D: Disk> {
    writer: Arc<Mutex<Writer<D>>>,
    housekeeper: Housekeeper<D>,
    shared: Arc<Shared<D>>,
    bell: Arc<Notify>,
    /// The other end of the writer's nudges, which nobody follows here.
    _applying: Applying,
}

impl<D: Disk> Crew<D> {
    pub(super) fn new(hands: Hands<D>, shared: Arc<Shared<D>>, bell: Arc<Notify>) -> Self {
        let Hands { mut writer, mut housekeeper, applying } = hands;
        writer.hand_out_jobs();
        let writer = Arc::new(Mutex::new(writer));
        housekeeper.writer = Some(Arc::clone(&writer));
        Self { writer, housekeeper, shared, bell, _applying: applying }
    }

    /// Rings when there is something for the writer to do, or somebody wants the house kept.
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Commits all that waits; false when the storage has failed.
    pub fn write(&mut self) -> bool {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).work_off()
    }

    /// Moves what was folded into the key space; false when the storage has failed.
    pub fn apply(&mut self) -> bool {
        self.shared.failure().is_none() && applier::apply(&self.shared).is_ok()
    }

    /// Carries out one chore; false when none waits.
    pub fn keep_house(&mut self) -> bool {
        self.shared.failure().is_none() && self.housekeeper.step()
    }
}
