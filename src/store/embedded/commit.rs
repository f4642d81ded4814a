//! The writer's work without its thread: decide what each command becomes, write the facts as one batch, sync, fold, answer.
//!
//! Decisions are made against the folded state and against what the batch under construction holds already. Only after
//! the sync are the facts folded and the answers given, so whatever is answered or seen is durable.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::checkpoint::Checkpoint;
use super::draft::{Draft, Verdict};
use super::queue::{Command, NO_BODY, Reply};
use super::retention::{Carry, DropPlan};
use super::shared::Shared;
use crate::core::delivery::{Dead, DeadReason, DeliveryId};
use crate::core::error::chain;
use crate::core::event::DedupKey;
use crate::core::fact::{EndpointNote, Fact, Standing, kind};
use crate::core::id::{EndpointId, EventId};
use crate::core::limits::StoreLimits;
use crate::env::{Disk, Entropy};
use crate::index::event::At;
use crate::index::{Applied, Effects, Place, State, TreeError, delivery, entry_of, fold};
use crate::journal::{Copy, FrameAt, Job, Journal, RecordRef};
use crate::store::{Due, Hints, StoreError};

/// Pending deliveries looked up at a time when an endpoint is removed.
const BURY_BATCH: usize = 4_096;

/// Writes the journal and folds it.
pub(super) struct Committer<D: Disk> {
    journal: Journal<D>,
    disk: Arc<D>,
    data: PathBuf,
    shared: Arc<Shared<D>>,
    entropy: Arc<dyn Entropy>,
    last_id: EventId,
    segment: u64,
    encoded: Vec<u8>,
}

impl<D: Disk> Committer<D> {
    /// Goes on after `last_id`.
    pub(super) fn new(
        journal: Journal<D>,
        (disk, data): (Arc<D>, PathBuf),
        shared: Arc<Shared<D>>,
        entropy: Arc<dyn Entropy>,
        last_id: EventId,
    ) -> Self {
        let mut committer = Self { journal, disk, data, shared, entropy, last_id, segment: 0, encoded: Vec::new() };
        committer.look_for_room();
        committer.count_journal();
        committer
    }

    /// Closes intake where there is no room for another segment. The housekeeper opens it again.
    fn look_for_room(&self) {
        if self.shared.disk_is_full(&self.disk, &self.data) {
            self.shared.set_disk_full();
        }
    }

    /// Carries commands out in order, in as few batches as may be. After an error the storage has failed for good.
    pub(super) fn run(&mut self, commands: Vec<Command<D>>) -> Result<(), StoreError> {
        let mut commands = VecDeque::from(commands);
        while let Some(command) = commands.pop_front() {
            if command.stands_alone() {
                self.run_alone(command)?;
                continue;
            }
            commands.push_front(command);
            let draft = self.draft(&mut commands)?;
            self.commit(draft)?;
        }
        Ok(())
    }

    /// Work for the housekeeper.
    pub(super) fn take_jobs(&mut self) -> Vec<Job<D>> {
        self.journal.take_jobs()
    }

    /// Takes commands from the front for as long as they fit into one batch together.
    fn draft(&mut self, commands: &mut VecDeque<Command<D>>) -> Result<Draft, StoreError> {
        let shared = Arc::clone(&self.shared);
        let state = shared.state();
        let mut draft = Draft::new(&shared.limits, shared.time.now_ms(), self.last_id, &*self.entropy);
        let room = shared.room();
        while let Some(command) = commands.pop_front() {
            if command.stands_alone() {
                commands.push_front(command);
                break;
            }
            // They came in before intake was closed.
            let command = match (command, room) {
                (Command::Accept { reply, .. }, Err(refusal)) => {
                    // Nobody may be waiting any more.
                    let _ = reply.send(Err(refusal.into()));
                    continue;
                }
                (command, _) => command,
            };
            match draft.add(command, &state).map_err(|e| shared.fail(&e))? {
                Verdict::Taken => {}
                Verdict::NextBatch(command) => {
                    commands.push_front(command);
                    break;
                }
            }
        }
        Ok(draft)
    }

    fn commit(&mut self, draft: Draft) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        draft.keep_events(&shared.recent);
        if let Err(error) = self.write(&draft.facts) {
            draft.fail(&error);
            return Err(error);
        }
        self.last_id = draft.last_id;
        shared.counts.stale_settles.fetch_add(draft.stale, Ordering::Relaxed);
        shared.recent.attempted(draft.attempted.iter().copied());
        draft.answer();
        Ok(())
    }

    fn run_alone(&mut self, command: Command<D>) -> Result<(), StoreError> {
        match command {
            Command::Erase { id, endpoints, reply } => self.answering(reply, |c| c.erase(id, &endpoints)),
            Command::SetStanding { id, app, name, standing, reply } => {
                self.answering(reply, |c| c.set_standing(id, app, name, standing))
            }
            Command::Copy { reply } => self.answering(reply, Self::copy),
            Command::Drop { plan, reply } => self.answering(reply, |c| c.drop_segment(&plan)),
            Command::Sweep { keys } => self.sweep(&keys),
            Command::JobDone(done) => {
                if let Err(error) = self.journal.done(done) {
                    if super::ballast::is_disk_full(&error) {
                        // What is left of the segment is for settles; the housekeeper opens intake again.
                        self.shared.set_disk_full();
                    }
                    tracing::warn!(error = %chain(&error), "a journal job failed and is tried again");
                }
                self.count_journal();
                Ok(())
            }
            Command::Accept { .. } | Command::Settle { .. } | Command::Redrive { .. } | Command::Stop => Ok(()),
        }
    }

    fn answering<T>(
        &mut self,
        reply: Reply<T>,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<(), StoreError> {
        let result = work(self);
        let failed = result.as_ref().err().cloned();
        // Nobody may be waiting any more; the work is done all the same.
        let _ = reply.send(result);
        failed.map_or(Ok(()), Err)
    }

    fn erase(&mut self, id: EventId, endpoints: &[EndpointId]) -> Result<(), StoreError> {
        let at_ms = self.shared.time.now_ms();
        let deliveries = endpoints.iter().map(|endpoint| DeliveryId { endpoint: *endpoint, event: id });
        let burials = self.burials(deliveries, DeadReason::ContentErased)?;
        self.write_all(&burials)?;
        // The record first: should the zeros be cut short, the next start reads it and writes them again. Folded last, so
        // that the key space never claims to be past an erasure that was not carried out.
        let erased = [(Fact::Erased { event: id, at_ms }, NO_BODY)];
        let at = self.append(&erased)?;
        self.journal.erase(id.as_u128(), &kind::has_content).map_err(|e| self.shared.fail(&e))?;
        self.shared.recent.forget([id]);
        self.fold(&erased, at)?;
        // Last: what is read again must be read with the key space knowing of it, as an empty body has no bytes that tell.
        self.shared.frames.forget();
        Ok(())
    }

    fn set_standing(
        &mut self,
        id: EndpointId,
        app: String,
        name: String,
        standing: Standing,
    ) -> Result<(), StoreError> {
        let known = super::read::note(&self.shared.state(), id).map_err(|e| self.shared.fail(&e))?;
        let same = |note: &EndpointNote| std::mem::discriminant(&note.standing) == std::mem::discriminant(&standing);
        if !known.as_ref().is_some_and(same) {
            let version = known.map_or(1, |note| note.version + 1);
            let note = EndpointNote { id, app, name, version, standing };
            self.write(&[(Fact::EndpointNoted(note), NO_BODY)])?;
        }
        if matches!(standing, Standing::Removed { .. }) {
            self.bury_all(id)?;
        }
        Ok(())
    }

    fn bury_all(&mut self, endpoint: EndpointId) -> Result<(), StoreError> {
        // Every round goes on behind the one before, so that this ends whatever the key space says.
        let mut after = None;
        loop {
            let due = super::read::pending(&self.shared.state(), endpoint, after, BURY_BATCH);
            let due = due.map_err(|e| self.shared.fail(&e))?;
            let Some(last) = due.last() else { return Ok(()) };
            after = Some(last.key());
            let deliveries = due.iter().map(|due| DeliveryId { endpoint, event: due.event });
            let facts = self.burials(deliveries, DeadReason::EndpointRemoved)?;
            self.write_all(&facts)?;
        }
    }

    /// Facts that make the pending ones of these deliveries dead letters.
    fn burials(
        &self,
        deliveries: impl Iterator<Item = DeliveryId>,
        reason: DeadReason,
    ) -> Result<Vec<(Fact, Bytes)>, StoreError> {
        let (state, at_ms) = (self.shared.state(), self.shared.time.now_ms());
        let mut facts = Vec::new();
        for delivery in deliveries {
            let entry = entry_of(&state, delivery).map_err(|e| self.shared.fail(&e))?;
            if let Some(delivery::Entry::Pending(pending)) = entry {
                let dead = Dead { reason, at_ms, attempts: pending.attempts };
                facts.push((Fact::Buried { delivery, dead }, NO_BODY));
            }
        }
        Ok(facts)
    }

    /// Between two batches all that is durable is folded, and nothing of a segment is half carried.
    fn copy(&mut self) -> Result<Option<(Copy<D>, Checkpoint)>, StoreError> {
        let checkpoint = Checkpoint::of(&self.shared.state()).map_err(|e| self.shared.fail(&e))?;
        Ok(self.journal.copy().map(|copy| (copy, checkpoint)))
    }

    /// Carries what must stay and drops the segment; false when the plan no longer holds.
    fn drop_segment(&mut self, plan: &DropPlan) -> Result<bool, StoreError> {
        let oldest = self.journal.segments().first().is_some_and(|s| s.number == plan.segment && s.sealed);
        let oldest = oldest && !self.shared.reader.is_pinned(plan.segment);
        let (limits, now_ms) = (&self.shared.limits, self.shared.time.now_ms());
        let carry = plan.carry(&self.shared.state(), limits, now_ms).map_err(|e| self.shared.fail(&e))?;
        let (true, Some(Carry { facts, forgotten })) = (oldest, carry) else { return Ok(false) };
        self.write_all(&facts)?;
        // Without a later event everything below the next id to be given out goes.
        let first_kept = self.shared.state().ledger.first_after(plan.segment).unwrap_or(self.last_id.successor());
        self.write(&[(Fact::Dropped { segment: plan.segment, first_kept }, NO_BODY)])?;
        self.forget_keys(&forgotten);
        self.shared.recent.forget_below(first_kept);
        self.journal.drop_oldest().map_err(|e| self.shared.fail(&e))?;
        self.shared.frames.forget();
        self.count_journal();
        Ok(true)
    }

    /// Their records are gone with the segment, so a rebuild would not know them either.
    fn forget_keys(&self, keys: &[DedupKey]) {
        if keys.is_empty() {
            return;
        }
        let mut state = self.shared.state_mut();
        keys.iter().for_each(|key| forget_key(&mut state, key));
        tracing::warn!(
            keys = keys.len(),
            "ids are forgotten before retention.dedup_days: there are more than half of retention.bytes holds"
        );
    }

    fn sweep(&mut self, keys: &[DedupKey]) -> Result<(), StoreError> {
        let now_ms = self.shared.time.now_ms();
        let mut state = self.shared.state_mut();
        for key in keys {
            let found = super::read::dedup(&state, key).map_err(|e| self.shared.fail(&e))?;
            if found.is_some_and(|entry| entry.expires_ms <= now_ms) {
                forget_key(&mut state, key);
            }
        }
        Ok(())
    }

    /// Writes, syncs and folds facts in as many batches as they need.
    fn write_all(&mut self, facts: &[(Fact, Bytes)]) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        chunks(facts, &shared.limits).into_iter().try_for_each(|chunk| self.write(chunk))
    }

    /// Writes, syncs and folds facts as one batch.
    fn write(&mut self, facts: &[(Fact, Bytes)]) -> Result<(), StoreError> {
        if facts.is_empty() {
            return Ok(());
        }
        let at = self.append(facts)?;
        self.fold(facts, at)
    }

    fn append(&mut self, facts: &[(Fact, Bytes)]) -> Result<FrameAt, StoreError> {
        self.encoded.clear();
        let mut ends = Vec::with_capacity(facts.len());
        for (fact, _) in facts {
            fact.encode_into(&mut self.encoded);
            ends.push(self.encoded.len());
        }
        let mut start = 0;
        let records: Vec<_> = facts
            .iter()
            .zip(ends)
            .map(|((fact, body), end)| {
                let meta = &self.encoded[start..end];
                start = end;
                RecordRef { kind: fact.kind(), key: fact.key(), meta, body }
            })
            .collect();
        let shared = &self.shared;
        let at = self.journal.append_batch(shared.time.now_ms(), &records).map_err(|e| shared.fail(&e))?;
        let started_us = shared.time.mono_us();
        self.journal.sync().map_err(|e| shared.fail(&e))?;
        let took_us = shared.time.mono_us().saturating_sub(started_us);
        shared.counts.syncs.fetch_add(1, Ordering::Relaxed);
        shared.counts.sync_us.fetch_add(took_us, Ordering::Relaxed);
        shared.counts.sync_us_max.fetch_max(took_us, Ordering::Relaxed);
        shared.counts.records.fetch_add(records.len() as u64, Ordering::Relaxed);
        if at.segment != self.segment {
            self.segment = at.segment;
            self.look_for_room();
            self.count_journal();
        }
        Ok(at)
    }

    fn fold(&mut self, facts: &[(Fact, Bytes)], at: FrameAt) -> Result<(), StoreError> {
        let shared = &self.shared;
        let effects = {
            let mut state = shared.state_mut();
            let effects = fold_frame(&mut state, facts.iter().map(|(fact, _)| fact), at);
            shared.lag.folded(u64::from(at.len), facts.len() as u64, shared.time.mono_us());
            shared.counts.pending.store(state.ledger.pending, Ordering::Relaxed);
            effects.map_err(|e| shared.fail(&e))?
        };
        tell(&shared.hints, effects);
        Ok(())
    }

    fn count_journal(&mut self) {
        let counts = &self.shared.counts;
        counts.journal_bytes.store(self.journal.total_bytes(), Ordering::Relaxed);
        counts.journal_used_bytes.store(self.journal.used_bytes(), Ordering::Relaxed);
        counts.journal_segments.store(self.journal.segments().len() as u64, Ordering::Relaxed);
    }
}

/// Folds the facts of one frame and notes the frame as the last one folded.
pub(super) fn fold_frame<'f>(
    state: &mut State,
    facts: impl Iterator<Item = &'f Fact>,
    at: FrameAt,
) -> Result<Effects, TreeError> {
    let mut place = Place::new(At { segment: at.segment, offset: at.offset });
    let mut effects = Effects::default();
    for fact in facts {
        fold(state, fact, &mut place, &mut effects)?;
    }
    let applied = Applied { segment: at.segment, offset: at.offset, sequence: at.sequence, crc: at.crc };
    state.meta.applied = Some(applied);
    Ok(effects)
}

fn tell(hints: &Hints, effects: Effects) {
    hints.push(effects.pending.into_iter().map(|(endpoint, event, pending)| (endpoint, Due { event, pending })));
    effects.standing.into_iter().for_each(|endpoint| hints.standing_changed(endpoint));
}

/// Cuts facts into batches within the limits.
fn chunks<'f>(mut facts: &'f [(Fact, Bytes)], limits: &StoreLimits) -> Vec<&'f [(Fact, Bytes)]> {
    let mut chunks = Vec::new();
    while !facts.is_empty() {
        let mut bytes = 0;
        let fits = facts.iter().take(limits.batch_records_max).take_while(|(fact, body)| {
            bytes += body.len() + super::draft::fact_bytes(fact);
            bytes <= limits.batch_bytes_max
        });
        let (chunk, rest) = facts.split_at(fits.count().max(1));
        chunks.push(chunk);
        facts = rest;
    }
    chunks
}

fn forget_key(state: &mut State, key: &DedupKey) {
    state.table().remove(crate::index::dedup::key(key));
    state.forgotten();
}
