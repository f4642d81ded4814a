//! Flips anywhere in a journal as a store leaves it: many sealed segments with footers, carried and erased records, dropped
//! segments and spares. Each is found with its segment and offset, none changes what is read, and salvage keeps all the rest
//! and says exactly what it lost.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use postrider::core::limits::StoreLimits;
use postrider::env::{Disk, DiskFile, Entropy, MemDisk, SeededEntropy};
use postrider::journal::{
    BodyState, Event, Frame, FrameAt, Journal, OpenError, ReadError, ReadFrom, SalvageReport, salvage, verify,
};
use postrider::store::embedded::journal_options;

use crate::story::{Habits, Story};
use crate::support::{Home, kinds, limits, runtime};

const DIR: &str = "journal";
const HEADER_BYTES: u64 = 4096;
const TRAILER_BYTES: u64 = 256;
const PAGE_BYTES: u64 = 4096;

/// `POSTRIDER_FLIPS` asks for more than the ordinary few.
fn flips_wanted() -> u64 {
    std::env::var("POSTRIDER_FLIPS").map_or(60, |count| count.parse().unwrap())
}

/// A record as it reads back, with whether its content was erased.
#[derive(Debug, Clone, PartialEq)]
struct Rec {
    kind: u8,
    key: u128,
    meta: Vec<u8>,
    body: Vec<u8>,
    state: BodyState,
}

/// A batch, and where it is.
#[derive(Debug, Clone)]
struct Written {
    at: FrameAt,
    time_ms: u64,
    records: Vec<Rec>,
}

/// A journal on a disk in memory, and what is in it by sequence.
struct Scene {
    disk: MemDisk,
    frames: BTreeMap<u64, Written>,
    /// Every segment file's name, number and content.
    segments: Vec<(String, u64, Vec<u8>)>,
}

fn dir() -> &'static Path {
    Path::new(DIR)
}

impl Scene {
    /// Left by a kill, so that the last segment is not sealed.
    fn new() -> Self {
        let tight = StoreLimits { retention_bytes: 10 * (64 << 10), ..limits() };
        let home = Home::new(tight);
        let habits = Habits { accept: 40, settle: 48, erase: 3, body_bytes: 3_000, pause_ms: 300, ..Habits::default() };
        let mut story = Story::new(5, habits, home.clock.clone());
        let runtime = runtime();
        let disk = Arc::new(MemDisk::new());
        for _ in 0..4 {
            let store = home.open_on(Arc::clone(&disk));
            runtime.block_on(async {
                story.live(&store, 300, home.limits.dedup_ms).await;
                store.keep_house().await;
            });
        }
        let store = home.open_on(Arc::clone(&disk));
        runtime.block_on(story.live(&store, 60, home.limits.dedup_ms));
        let killed = disk.fork();
        drop(store);
        let kinds = kinds(&killed, &home.journal());
        for kind in ["accepted", "settled", "erased", "carried", "dropped"] {
            assert!(kinds.contains_key(kind), "no record is {kind}: {kinds:?}");
        }
        Self::of(&killed, &home.journal())
    }

    /// A copy of a journal's files.
    fn of(lived_on: &MemDisk, journal: &Path) -> Self {
        let disk = MemDisk::new();
        disk.create_dir_all(dir()).unwrap();
        let mut segments = Vec::new();
        for name in lived_on.list(journal).unwrap() {
            let content = lived_on.read_file(&journal.join(&name)).unwrap();
            put(&disk, &name, &content);
            if let Some(number) = name.strip_prefix("seg-").and_then(|rest| rest.strip_suffix(".wal")) {
                segments.push((name.clone(), u64::from_str_radix(number, 16).unwrap(), content));
            }
        }
        segments.sort();
        let mut frames = BTreeMap::new();
        verify(&disk, dir(), &mut |event| {
            if let Event::Frame(frame) = event {
                frames.insert(frame.at.sequence, written(frame));
            }
        })
        .unwrap();
        assert!(segments.len() > 4 && frames.len() > 100, "{} segments, {} frames", segments.len(), frames.len());
        Self { disk, frames, segments }
    }

    fn last(&self) -> &Written {
        self.frames.last_key_value().unwrap().1
    }

    /// What a byte belongs to.
    fn part(&self, segment: u64, content: &[u8], at: u64) -> Part {
        let frames = self.frames.values().filter(|frame| frame.at.segment == segment).map(|frame| frame.at);
        if at < HEADER_BYTES {
            return Part::Header;
        }
        if let Some(frame) = frames.clone().find(|frame| (frame.offset..frame.end()).contains(&at)) {
            return if frame == self.last().at { Part::Last } else { Part::Frame(frame) };
        }
        let (end, len) = (frames.map(|frame| frame.end()).max().unwrap_or(HEADER_BYTES), content.len() as u64);
        if !content[content.len() - TRAILER_BYTES as usize..].starts_with(b"PRJE") {
            return Part::Blank;
        }
        let page = end + (at - end) / PAGE_BYTES * PAGE_BYTES;
        // Without its trailer a footer is none, and it is told where it should begin.
        if at >= len - TRAILER_BYTES { Part::Footer(end..len) } else { Part::Footer(page..page + PAGE_BYTES) }
    }
}

/// What was hit.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Header,
    Frame(FrameAt),
    /// The very last frame, where damage can't be told from a torn write.
    Last,
    /// A page or the trailer of a footer, and within which bytes that is told.
    Footer(Range<u64>),
    /// Written ahead, and holding nothing.
    Blank,
}

impl Part {
    /// Whether a place names it.
    fn is_named_by(&self, offset: u64) -> bool {
        match self {
            Self::Header => offset == 0,
            Self::Frame(frame) => (frame.offset..frame.end()).contains(&offset),
            Self::Footer(range) => range.contains(&offset),
            Self::Last | Self::Blank => false,
        }
    }
}

fn put(disk: &MemDisk, name: &str, content: &[u8]) {
    let file = disk.create_new(&dir().join(name)).unwrap();
    file.write_all_at(content, 0).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(dir()).unwrap();
}

fn written(frame: &Frame) -> Written {
    let record = |(index, record): (usize, &postrider::journal::Record)| Rec {
        kind: record.kind,
        key: record.key,
        meta: frame.meta(index).to_vec(),
        body: frame.body(index).to_vec(),
        state: record.state,
    };
    Written { at: frame.at, time_ms: frame.time_ms, records: frame.records.iter().enumerate().map(record).collect() }
}

#[test]
fn every_flip_in_a_large_journal_is_found_and_salvage_keeps_all_but_what_it_says_is_lost() {
    let scene = Scene::new();
    let random = SeededEntropy::new(17);
    let mut hit: BTreeMap<&str, u64> = BTreeMap::new();
    for case in 0..flips_wanted() {
        let (name, segment, content) = &scene.segments[(random.next_u64() % scene.segments.len() as u64) as usize];
        // One in eight anywhere, the others where something is written.
        let at = loop {
            let at = random.next_u64() % content.len() as u64;
            if case % 8 == 0 || content[at as usize] != 0 {
                break at;
            }
        };
        let mask = 1 << (random.next_u64() % 8);
        let part = scene.part(*segment, content, at);
        let what = format!("after bit {mask:#04x} of byte {at} of {name} ({part:?}) was flipped");
        let disk = scene.disk.fork();
        let file = disk.open(&dir().join(name), true).unwrap();
        file.write_all_at(&[content[at as usize] ^ mask], at).unwrap();
        file.sync_all().unwrap();
        found(&disk, *segment, &part, &what);
        reads_as_written_or_not(&scene, &Arc::new(disk.fork()), *segment, &part, &what);
        salvaged(&scene, &Arc::new(disk), *segment, at, &part, &what);
        let label = match part {
            Part::Header => "headers",
            Part::Frame(_) => "frames",
            Part::Last => "the very last frame",
            Part::Footer(_) => "footers",
            Part::Blank => "blank space",
        };
        *hit.entry(label).or_default() += 1;
    }
    println!("{} segments, {} frames, flips by what they hit: {hit:?}", scene.segments.len(), scene.frames.len());
    assert!(hit.contains_key("frames"), "the flips missed: {hit:?}");
}

/// Verification names the place. A body that became zeros is told as such, for the caller to judge.
fn found(disk: &MemDisk, segment: u64, part: &Part, what: &str) {
    let mut found = Vec::new();
    let report = verify(disk, dir(), &mut |event| match event {
        Event::Finding(finding) => found.push((finding.segment, finding.offset)),
        Event::ZeroedBody(body) => found.push((body.segment, body.offset)),
        _ => {}
    })
    .unwrap();
    let named = found.iter().any(|(number, offset)| *number == segment && part.is_named_by(*offset));
    assert!(named || matches!(part, Part::Last | Part::Blank), "not found {what}: {found:?}");
    assert!(report.damage == 0 || !matches!(part, Part::Last | Part::Blank), "not damage {what}: {found:?}");
}

/// Everything that reads is as it was written, or is an error that names the place.
fn reads_as_written_or_not(scene: &Scene, disk: &Arc<MemDisk>, segment: u64, part: &Part, what: &str) {
    let named = |number: u64, offset: u64| number == segment && part.is_named_by(offset);
    let journal = match Journal::open(Arc::clone(disk), dir(), journal_options(&limits()), 99, 5) {
        Ok((journal, _)) => journal,
        Err(OpenError::Damaged { segment: number, offset, what: said }) => {
            // The newest segment without its header is missed by the one before it.
            let is_missed = *part == Part::Header && (number + 1, offset) == (segment, 0);
            return assert!(is_missed || named(number, offset), "{said} at {offset} of {number} {what}");
        }
        Err(other) => panic!("{other} {what}"),
    };
    let mut expected = scene.frames.values();
    let mut noticed = false;
    for frame in journal.reader().frames(ReadFrom::Oldest) {
        match frame {
            Ok(frame) => {
                let read = written(&frame);
                let original = expected.next().unwrap_or_else(|| panic!("more than was written {what}"));
                assert_eq!((read.at.sequence, read.time_ms), (original.at.sequence, original.time_ms), "{what}");
                for (read, original) in read.records.iter().zip(&original.records) {
                    let is_changed = read.state != original.state;
                    noticed |= is_changed;
                    assert!(is_changed || read == original, "read as something else {what}");
                }
                assert_eq!(read.records.len(), original.records.len(), "{what}");
            }
            Err(ReadError::Damaged { segment: number, offset, .. }) => {
                assert!(named(number, offset), "an error at {offset} of {number} {what}");
                return;
            }
            Err(other) => panic!("{other} {what}"),
        }
    }
    let missing = expected.count();
    assert_eq!(missing, usize::from(*part == Part::Last), "batches missing {what}");
    assert!(noticed || !matches!(part, Part::Frame(_) | Part::Header), "nothing was noticed {what}");
}

/// Kept and lost are all there was, and the kept is as it was, byte for byte.
fn salvaged(scene: &Scene, disk: &Arc<MemDisk>, segment: u64, at: u64, part: &Part, what: &str) {
    let options = journal_options(&limits());
    let report = salvage(disk, dir(), options, 98, 5, None).unwrap_or_else(|error| panic!("{error} {what}"));
    let expected = left_by(scene, &report, *part == Part::Last, what);
    let (journal, _) = Journal::open(Arc::clone(disk), dir(), options, 99, 5).unwrap();
    let mut kept: Vec<Written> =
        journal.reader().frames(ReadFrom::Oldest).map(|frame| written(&frame.unwrap())).collect();
    assert_eq!(kept.pop().unwrap().records, [], "a salvaged journal ends with an empty batch");
    assert_eq!(kept.len(), expected.len(), "batches kept {what}");
    for (kept, (time_ms, records)) in kept.iter().zip(&expected) {
        assert!(kept.time_ms == *time_ms && kept.records == *records, "another batch than was written {what}");
    }
    drop(journal);
    let sound = verify(&**disk, dir(), &mut |_| {}).unwrap();
    assert_eq!((sound.damage, sound.torn_tails), (0, 0), "{what}");
    // What was lost is what was hit: one frame or one record of it, and nothing for anything else.
    let lost = report.lost.len() + report.lost_records.len();
    match part {
        Part::Frame(frame) => {
            assert!(lost <= 1, "{lost} things lost {what}");
            for lost in &report.lost {
                let (from, to) = lost.bytes.unwrap();
                assert!(lost.segment == segment && (from..to).contains(&at), "{lost:?} {what}");
                assert_eq!((lost.first_sequence, lost.last_sequence), (frame.sequence, frame.sequence), "{what}");
                let keyed = scene.frames[&frame.sequence].records.iter().filter(|record| record.key != 0).count();
                assert!(lost.keyed_records.is_none_or(|told| told == keyed as u64), "{lost:?}, not {keyed} {what}");
            }
            for lost in &report.lost_records {
                assert_eq!((lost.segment, lost.offset, lost.sequence), (segment, frame.offset, frame.sequence));
            }
        }
        _ => assert_eq!(lost, 0, "{report:?} {what}"),
    }
}

/// What was written without what the report says is lost: times and records of the batches.
fn left_by(scene: &Scene, report: &SalvageReport, without_last: bool, what: &str) -> Vec<(u64, Vec<Rec>)> {
    let mut frames = scene.frames.clone();
    if without_last {
        frames.pop_last();
    }
    for lost in &report.lost {
        for sequence in lost.first_sequence..=lost.last_sequence {
            assert!(frames.remove(&sequence).is_some(), "frame {sequence} is lost twice {what}");
        }
    }
    // From the last to the first, so that indexes stay true.
    for lost in report.lost_records.iter().rev() {
        let records = &mut frames.get_mut(&lost.sequence).unwrap().records;
        let record = records.remove(lost.index as usize);
        assert_eq!((record.key, record.kind), (lost.key, lost.kind), "{what}");
    }
    assert_eq!(report.frames, frames.len() as u64, "{what}");
    assert_eq!(report.records, frames.values().map(|frame| frame.records.len() as u64).sum::<u64>(), "{what}");
    frames.into_values().map(|frame| (frame.time_ms, frame.records)).collect()
}
