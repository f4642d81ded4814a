//! Opening the store: lock, recover the journal, open the key space or rebuild it, fold what it lacks.
//!
//! The key space is never trusted more than the journal: an error, a panic, missing keys, or a position that the journal
//! contradicts, and its directory is set aside and built anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Opening;
use super::ballast;
use super::checkpoint::Checkpoint;
use super::commit::fold_frame;
use super::lock::{LockError, StoreLock};
use super::time::EngineTime;
use crate::core::error::chain;
use crate::core::fact::{Fact, FactError, kind};
use crate::core::id::EventId;
use crate::core::limits::StoreLimits;
use crate::env::{Disk, RealDisk};
use crate::index::{Applied, Home, State, TreeError, note};
use crate::journal::{BodyState, Frame, Journal, Options, ReadError, ReadFrom, Reader, Recovery, SegmentInfo};

/// Keys of the table in memory past which a rebuild applies it.
const REBUILD_KEYS: usize = 200_000;

/// The store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it, or the lock file can't be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal can't be opened.
    #[error(transparent)]
    Journal(#[from] crate::journal::OpenError),
    /// The journal can't be read.
    #[error("reading the journal")]
    Read(#[from] ReadError),
    /// A record of the journal is not of this version.
    #[error("journal frame {sequence}: the record was written by another version or is damaged")]
    Fact {
        /// Sequence number of the frame.
        sequence: u64,
        /// Which record.
        source: FactError,
    },
    /// The key space failed while it was being built anew.
    #[error("rebuilding the key space")]
    Index(#[from] TreeError),
    /// The checkpoint is damaged, and there is no key space that says the same.
    #[error(
        "{} is damaged, and the key space can't be used either: restore a backup, or move the file away and start again. \
         Without it all events and deliveries are there, but endpoints that were disabled long ago, by an operator or by a \
         410, take deliveries again",
        path.display()
    )]
    Checkpoint {
        /// The file.
        path: PathBuf,
    },
    /// A directory or file can't be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether another process holds the store.
    pub const fn is_held(&self) -> bool {
        matches!(self, Self::Lock(LockError::Held { .. }))
    }

    /// Whether what is on disk is damaged, rather than the disk unwilling.
    pub const fn is_damage(&self) -> bool {
        use crate::journal::OpenError as Journal;
        match self {
            Self::Journal(error) => !matches!(error, Journal::Io(_) | Journal::Options { .. }),
            Self::Read(error) => !matches!(error, ReadError::Io(_)),
            Self::Fact { .. } | Self::Checkpoint { .. } => true,
            Self::Lock(_) | Self::Index(_) | Self::Io { .. } => false,
        }
    }
}

/// What opening found and did.
#[derive(Debug, Clone, Default)]
pub struct Opened {
    /// What the journal's recovery did.
    pub journal: Recovery,
    /// Why the key space was built anew; `None` when it was as it should be.
    pub rebuilt: Option<String>,
    /// Milliseconds that the wall clock is behind the journal.
    pub clock_behind_ms: u64,
}

/// Told of the progress of a rebuild: bytes read and bytes in all.
pub type Progress<'p> = &'p mut dyn FnMut(u64, u64);

/// The parts of an open store.
pub(super) struct Parts<D: Disk> {
    pub(super) lock: StoreLock,
    pub(super) journal: Journal<D>,
    pub(super) state: State,
    pub(super) time: EngineTime,
    pub(super) last_id: EventId,
    pub(super) opened: Opened,
}

/// The journal's directory in a data directory, for commands that work on a stopped store.
pub fn journal_dir(data: &Path) -> PathBuf {
    data.join("journal")
}

/// The key space in a data directory.
pub(super) fn index_home(data: &Path) -> Home {
    Home::Directory(data.join("index"))
}

/// Opens everything under `data`; on a full disk once more with the ballast given up, and again without the damaged key space
/// that was kept: sled may take 8 MiB for opening one that was not closed, and leaves them behind when it fails over it.
pub(super) fn open<D: Disk>(disk: &Arc<D>, home: &Home, opening: &mut Opening<'_>) -> Result<Parts<D>, OpenError> {
    let data = opening.data.clone();
    let give_up_ballast = || ballast::give_up(&**disk, &data);
    let give_up_damaged = || home.give_up_damaged();
    let give_ups: [(_, &dyn Fn() -> bool); 2] =
        [("the ballast", &give_up_ballast), ("the damaged key space", &give_up_damaged)];
    let mut opened = open_once(disk, home, opening);
    for (what, give_up) in give_ups {
        match &opened {
            Err(error) if ballast::is_disk_full(error) && give_up() => {
                tracing::warn!(error = %chain(error), "the disk is full; gave up {what} to start all the same");
                opened = open_once(disk, home, opening);
            }
            _ => {}
        }
    }
    opened
}

fn open_once<D: Disk>(disk: &Arc<D>, home: &Home, opening: &mut Opening<'_>) -> Result<Parts<D>, OpenError> {
    let Opening { data, limits, clock, entropy, rebuild, progress } = opening;
    let (data, limits, clock) = (&*data, &*limits, Arc::clone(clock));
    // On the machine's disk too, whatever the journal's is: the lock and the key space are there.
    let made = disk.make_dir(data).and_then(|()| RealDisk.create_dir_all(data));
    made.map_err(|source| OpenError::Io { path: data.clone(), source })?;
    let lock = StoreLock::take(data)?;
    let mut incarnation = [0; 8];
    entropy.fill(&mut incarnation);
    let incarnation = u64::from_le_bytes(incarnation);
    let options = journal_options(limits);
    let dir = journal_dir(data);
    let (mut journal, recovery) = Journal::open(Arc::clone(disk), &dir, options, incarnation, clock.wall_ms())?;
    let time = EngineTime::start(clock, recovery.last_time_ms);
    let reader = journal.reader();
    let wish = rebuild.then(|| "asked for".to_owned());
    let known = match open_index(&reader, &recovery, home, limits, wish) {
        Ok(state) => caught_up(&mut journal, state)?,
        Err(why) => Err(why),
    };
    let (mut state, rebuilt) = match known {
        Ok(state) => (state, None),
        Err(why) => {
            let state = rebuild_index(disk, &mut journal, (data, home), limits, &why, progress)?;
            // The first start of all makes a key space too, which is nothing to report.
            (state, Some(why).filter(|_| recovery.next_sequence > 1))
        }
    };
    state.ledger = super::count::count(&state)?;
    drop_what_was_to_go(&mut journal, &state)?;
    let last_id = super::count::last_id(&state, &reader)?;
    let opened = Opened { journal: recovery, rebuilt, clock_behind_ms: time.behind_ms() };
    Ok(Parts { lock, journal, state, time, last_id, opened })
}

/// The journal's sizes under these limits.
pub fn journal_options(limits: &StoreLimits) -> Options {
    Options {
        segment_bytes: limits.segment_bytes,
        batch_bytes_max: frame_bytes_max(limits),
        records_max: limits.batch_records_max as u32,
        ..Options::default()
    }
}

/// The batch limit bounds what goes in by an estimate from above; the frame may take what the estimate leaves out.
fn frame_bytes_max(limits: &StoreLimits) -> u64 {
    2 * limits.batch_bytes_max as u64
}

/// Bytes of one fact with its body that are sure to fit into a frame and a segment, whose heads take the rest.
pub(super) fn carried_bytes_max(limits: &StoreLimits) -> usize {
    frame_bytes_max(limits).min(limits.segment_bytes).saturating_sub(8 << 10) as usize
}

/// The key space as it is on disk, if it can be trusted; else why not.
fn open_index<D: Disk>(
    reader: &Reader<D>,
    recovery: &Recovery,
    home: &Home,
    limits: &StoreLimits,
    wish: Option<String>,
) -> Result<State, String> {
    if let Some(wish) = wish {
        return Err(wish);
    }
    if !home.exists() {
        return Err("its directory is missing".to_owned());
    }
    let tree = home.open(limits.cache_bytes).map_err(|e| chain(&e))?;
    let mut meta = tree.check().map_err(|e| chain(&e))?;
    let Some(applied) = meta.applied else {
        return Err("nothing was ever applied to it".to_owned());
    };
    if applied.sequence >= recovery.next_sequence {
        return Err(format!("it is ahead of the journal: {} of {}", applied.sequence, recovery.next_sequence - 1));
    }
    let frame = reader.frames(ReadFrom::Sequence(applied.sequence)).next();
    match frame {
        Some(Ok(frame)) if frame.at.sequence == applied.sequence && frame.at.crc == applied.crc => {
            // The last frame was copied to a new segment: folding it once more moves its events there.
            if (frame.at.segment, frame.at.offset) != (applied.segment, applied.offset) {
                let opens = |s: &SegmentInfo| s.number == frame.at.segment && s.first_sequence == applied.sequence;
                if !reader.segments().iter().any(opens) {
                    return Err("the journal's records are not where it says".to_owned());
                }
                meta.applied = Some(Applied { sequence: applied.sequence - 1, ..applied });
            }
            Ok(State::new(tree, meta))
        }
        Some(Ok(_)) => Err("the journal holds other records at its position".to_owned()),
        Some(Err(error)) => Err(format!("the journal can't be read at its position: {}", chain(&error))),
        None => Err("the journal ends before its position".to_owned()),
    }
}

/// Sets the key space's directory aside and folds the whole journal into a new one.
fn rebuild_index<D: Disk>(
    disk: &Arc<D>,
    journal: &mut Journal<D>,
    (data, home): (&Path, &Home),
    limits: &StoreLimits,
    why: &str,
    progress: Progress<'_>,
) -> Result<State, OpenError> {
    let reader = journal.reader();
    let total: u64 = reader.segments().iter().map(|s| s.bytes).sum();
    // First of all, so that a start which it refuses leaves the key space where it is.
    let checkpoint = Checkpoint::read(&**disk, &journal_dir(data));
    // Its absence is normal in a young journal, which still holds all that it would say.
    let path = journal_dir(data).join("checkpoint");
    let checkpoint = checkpoint.map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => OpenError::Checkpoint { path },
        _ => OpenError::Io { path, source },
    })?;
    let mut checkpoint = checkpoint.unwrap_or_default();
    if home.exists() {
        tracing::warn!(why, "the key space is built anew from the journal");
        home.set_aside()?;
    }
    let tree = home.open(limits.cache_bytes)?;
    // There is nothing to be read; but now the tree knows so, and searches for no dedup key.
    let meta = tree.check()?;
    let mut state = State::new(tree, meta);
    let mut done = 0;
    for frame in reader.frames(ReadFrom::Oldest) {
        let frame = frame?;
        done += u64::from(frame.at.len);
        progress(done, total);
        // It knows the outcome of everything up to its position; folded after it, an old 410 would win over what an
        // operator said since.
        if checkpoint.sequence < frame.at.sequence {
            take_notes(&mut state, &mut checkpoint);
        }
        fold_one(journal, &mut state, &frame)?;
        if state.waiting() > REBUILD_KEYS {
            apply(&mut state)?;
        }
    }
    take_notes(&mut state, &mut checkpoint);
    progress(total, total);
    apply(&mut state)?;
    Ok(state)
}

/// Takes what a checkpoint says, once.
fn take_notes(state: &mut State, checkpoint: &mut Checkpoint) {
    for known in std::mem::take(&mut checkpoint.notes) {
        state.table().insert(note::key(known.id), note::value(&known));
    }
}

/// The key space with all that the journal has; or why it can't take it, as when it is damaged where the check does not see
/// it. A full disk is not its fault.
fn caught_up<D: Disk>(journal: &mut Journal<D>, mut state: State) -> Result<Result<State, String>, OpenError> {
    match catch_up(journal, &mut state) {
        Ok(()) => Ok(Ok(state)),
        Err(OpenError::Index(error)) if !ballast::is_disk_full(&error) => Ok(Err(chain(&error))),
        Err(error) => Err(error),
    }
}

/// Folds what the journal has beyond the key space's position.
fn catch_up<D: Disk>(journal: &mut Journal<D>, state: &mut State) -> Result<(), OpenError> {
    let next = state.folded().map_or(1, |applied| applied.sequence + 1);
    let oldest = journal.reader().segments().first().map_or(1, |s| s.first_sequence);
    for frame in journal.reader().frames(ReadFrom::Sequence(next.max(oldest))) {
        let frame = frame?;
        fold_one(journal, state, &frame)?;
        // The first may be in the tree already, and what is new to a table and ends in it never reaches the tree: it would
        // stay there as it was.
        if frame.at.sequence == next || state.waiting() > REBUILD_KEYS {
            apply(state)?;
        }
    }
    apply(state)
}

fn fold_one<D: Disk>(journal: &mut Journal<D>, state: &mut State, frame: &Frame) -> Result<(), OpenError> {
    let sequence = frame.at.sequence;
    let decode = |(index, record): (usize, &crate::journal::Record)| {
        Fact::decode(record.kind, &frame.meta(index)).map_err(|source| OpenError::Fact { sequence, source })
    };
    let facts = frame.records.iter().enumerate().map(decode).collect::<Result<Vec<_>, _>>()?;
    for fact in &facts {
        if let Fact::Erased { event, .. } = fact {
            finish_erasure(journal, *event)?;
        }
    }
    // Nobody listens yet: the engine reads what is pending when it starts.
    fold_frame(state, facts.iter(), frame.at)?;
    Ok(())
}

/// A crash between the record of an erasure and the erasure itself leaves the bytes where they were.
fn finish_erasure<D: Disk>(journal: &mut Journal<D>, event: EventId) -> Result<(), OpenError> {
    let reader = journal.reader();
    for found in reader.find(event.as_u128())?.into_iter().filter(|found| kind::has_content(found.kind)) {
        let frame = reader.frame_at(found.segment, found.offset)?;
        let index = found.index as usize;
        if frame.records[index].state != BodyState::Zeroed && frame.body(index).iter().any(|byte| *byte != 0) {
            let erased = journal.erase(event.as_u128(), &kind::has_content);
            return erased.map(drop).map_err(|error| journal_io(io::Error::other(error)));
        }
    }
    Ok(())
}

fn journal_io(source: io::Error) -> OpenError {
    OpenError::Io { path: PathBuf::from("journal"), source }
}

fn apply(state: &mut State) -> Result<(), OpenError> {
    if let Some((table, mut meta)) = state.set_aside() {
        state.tree().apply(&table, &mut meta)?;
        state.applied(&meta);
    }
    Ok(())
}

/// A crash between the record of a drop and the drop itself leaves a segment that is not needed any more.
fn drop_what_was_to_go<D: Disk>(journal: &mut Journal<D>, state: &State) -> Result<(), OpenError> {
    let Some(through) = state.meta.dropped_through else { return Ok(()) };
    while journal.segments().first().is_some_and(|oldest| oldest.number <= through && oldest.sealed) {
        journal.drop_oldest().map_err(|error| journal_io(io::Error::other(error)))?;
    }
    Ok(())
}
