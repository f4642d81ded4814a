//! Damage: every flipped byte is found, and nothing changed or missing passes silently.

use std::ops::Range;
use std::sync::Arc;

use postrider::env::{Disk, DiskFile, MemDisk};
use postrider::journal::{BodyState, Event, OpenError, ReadError, ReadFrom, Severity, verify};

use crate::model::*;

/// Three small sealed segments and an active one with three frames.
fn small_journal() -> (Arc<MemDisk>, Vec<Batch>) {
    let disk = Arc::new(MemDisk::new());
    for incarnation in 1..=4 {
        let mut journal = open(&disk, incarnation);
        for step in 0..3 {
            put(&mut journal, &batch(incarnation * 10 + step, 60));
        }
        drop(journal);
    }
    // Opening copied the last frame of each segment into the next, so the last one has four.
    let journal = open(&Arc::new(disk.fork()), 5);
    let written = batches(&journal);
    assert_eq!(written.len(), 12);
    (disk, written)
}

fn findings(disk: &MemDisk) -> Vec<(Severity, u64)> {
    let mut found = Vec::new();
    verify(disk, dir(), &mut |event| match event {
        Event::Finding(finding) => found.push((finding.severity, finding.segment)),
        Event::ZeroedBody(body) => found.push((Severity::Note, body.segment)),
        _ => {}
    })
    .unwrap();
    found
}

/// A campaign (`POSTRIDER_FLIPS=2000`) takes every byte; otherwise zeros that checksums cover are sampled.
fn every_byte() -> bool {
    std::env::var("POSTRIDER_FLIPS").is_ok_and(|count| count.parse::<u64>().unwrap() >= 2_000)
}

/// Offsets to flip in a segment.
fn offsets(content: &[u8]) -> Vec<usize> {
    let every = every_byte();
    let frames = 4096..frames_end(content);
    let wanted = |at: &usize| every || content[*at] != 0 || at.is_multiple_of(97) || frames.contains(at);
    // Of the space after the last frame, which holds nothing yet, a little will do.
    let end = if is_sealed(content) { content.len() } else { frames.end + 512 };
    (0..end).filter(wanted).collect()
}

fn is_sealed(content: &[u8]) -> bool {
    content.len() > 4096 + 256 && content[content.len() - 256..].starts_with(b"PRJE")
}

/// The bytes within which a finding names a flip: the header, the frame, the page or the trailer that was hit. `None` in
/// space that holds nothing.
fn part_of(content: &[u8], at: usize) -> Option<Range<usize>> {
    let parts = frames(content).into_iter().map(|(from, len)| from..from + len);
    let end = frames_end(content);
    let pages_end = if is_sealed(content) { content.len() - 256 } else { end };
    let pages = (end..pages_end).step_by(4096).map(|from| from..from + 4096);
    // A footer without its trailer is none: it is told where it should begin.
    let trailer = end..if is_sealed(content) { content.len() } else { end };
    std::iter::once(0..4096).chain(parts).chain(pages).chain([trailer]).find(|part| part.contains(&at))
}

#[test]
fn a_whole_journal_has_no_findings() {
    let (disk, written) = small_journal();
    let mut frames = Vec::new();
    let mut progress = (0, 1);
    let report = verify(&*disk, dir(), &mut |event| match event {
        Event::Frame(frame) => frames.push(to_batch(frame)),
        Event::Progress { done, total } => progress = (done, total),
        other => panic!("{other:?}"),
    })
    .unwrap();
    assert_eq!(frames, written);
    assert_eq!(progress.0, progress.1);
    assert_eq!((report.segments, report.frames, report.records), (4, 12, 24));
}

/// The one exception is a flip inside the very last frame, which can't be told from a torn write; then that frame is dropped
/// and everything before it is there.
#[test]
fn a_flip_of_any_byte_is_found_with_segment_and_offset_but_for_the_very_last_frame() {
    let (disk, written) = small_journal();
    let (mut flips, mut dropped) = (0, 0);
    for number in 1..=4 {
        let name = segment_name(number);
        let content = disk.read_file(&dir().join(&name)).unwrap();
        for at in offsets(&content) {
            let damaged = Arc::new(disk.fork());
            flip(&*damaged, &name, at as u64, (at % 8) as u8);
            let part = part_of(&content, at);
            let is_last = number == 4 && part.as_ref().is_some_and(|part| part.start == last_frame_at(&content));
            let found = places(&damaged);
            let named = |(segment, offset): &(u64, u64)| {
                *segment == number && part.as_ref().is_some_and(|part| part.contains(&(*offset as usize)))
            };
            assert!(is_last || found.iter().any(named) == part.is_some(), "{name} {at}: {found:?} in {part:?}");
            flips += 1;
            dropped += usize::from(opens_as_written_or_not(&damaged, &written, number, &part, is_last));
        }
    }
    println!("{flips} flips, of which {dropped} dropped the very last frame");
    let last = disk.read_file(&dir().join(segment_name(4))).unwrap();
    assert_eq!(dropped, frames_end(&last) - last_frame_at(&last), "each byte of the last frame, and no other");
}

/// Opens and reads: every batch is as it was written, or there is an error that names the place. True when the last batch
/// was dropped without one.
fn opens_as_written_or_not(
    disk: &Arc<MemDisk>,
    written: &[Batch],
    number: u64,
    part: &Option<Range<usize>>,
    is_last: bool,
) -> bool {
    let is_named = |segment: u64, offset: u64| {
        segment == number && part.as_ref().is_some_and(|part| part.contains(&(offset as usize)))
    };
    let journal = match try_open(disk, 9) {
        Ok((journal, _)) => journal,
        Err(OpenError::Damaged { segment, offset, what }) => {
            // Nobody knows a segment that lost its header: the one before it misses it.
            let is_missed = number == 4 && part == &Some(0..4096) && (segment, offset) == (3, 0);
            assert!(
                is_missed || is_named(segment, offset),
                "{what} at {offset} of segment {segment}, not within {part:?}"
            );
            return false;
        }
        Err(other) => panic!("{other}"),
    };
    let (read, error) = read_all(&journal.reader());
    match error {
        Some(ReadError::Damaged { segment, offset, .. }) => assert!(is_named(segment, offset), "at {offset}"),
        Some(other) => panic!("{other}"),
        None if body_states(&journal).contains(&BodyState::Damaged) => {}
        None => {
            let kept = written.len() - usize::from(is_last);
            assert_eq!(read, written[..kept], "changed and not noticed");
            return is_last;
        }
    }
    false
}

/// Segment and offset of all that verification finds.
fn places(disk: &MemDisk) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    verify(disk, dir(), &mut |event| match event {
        Event::Finding(finding) => found.push((finding.segment, finding.offset)),
        Event::ZeroedBody(body) => found.push((body.segment, body.offset)),
        _ => {}
    })
    .unwrap();
    found
}

fn body_states<D: Disk>(journal: &postrider::journal::Journal<D>) -> Vec<BodyState> {
    let frames = journal.reader().frames(ReadFrom::Oldest).flatten();
    frames.flat_map(|frame| frame.records.into_iter().map(|record| record.state)).collect()
}

fn frames(content: &[u8]) -> Vec<(usize, usize)> {
    let mut at = 4096;
    let mut frames = Vec::new();
    while content[at..].starts_with(b"PRJF") {
        let len = u32::from_le_bytes(content[at + 4..at + 8].try_into().unwrap()) as usize;
        frames.push((at, len));
        at += len;
    }
    frames
}

fn frames_end(content: &[u8]) -> usize {
    frames(content).last().map(|(at, len)| at + len).unwrap()
}

fn last_frame_at(content: &[u8]) -> usize {
    frames(content).last().unwrap().0
}

#[test]
fn a_missing_segment_is_noticed_wherever_it_was() {
    let (disk, _) = small_journal();
    for number in 2..=4 {
        let damaged = Arc::new(disk.fork());
        damaged.unlink(&dir().join(segment_name(number))).unwrap();
        assert!(matches!(try_open(&damaged, 9), Err(OpenError::Damaged { .. })), "{number}");
        assert!(findings(&damaged).iter().any(|(severity, _)| *severity == Severity::Damage));
    }
}

#[test]
fn a_lost_header_with_frames_after_it_is_damage_also_in_the_only_segment() {
    let disk = Arc::new(MemDisk::new());
    put(&mut open(&disk, 1), &batch(1, 60));
    patch(&*disk, &segment_name(1), 0, |header| header.fill(0), 4096);
    let refused = try_open(&disk, 2).err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { segment: 1, offset: 0, .. }), "{refused}");
    assert_eq!(findings(&disk)[0], (Severity::Damage, 1));
}

#[test]
fn a_lost_footer_is_made_anew() {
    let (disk, written) = small_journal();
    let (name, content) = files(&*disk)[1].clone();
    flip(&*disk, &name, content.len() as u64 - 100, 3);
    let (journal, recovery) = try_open(&disk, 9).unwrap();
    assert_eq!(recovery.sealed, [2, 4]);
    assert_eq!(batches(&journal), written);
    drop(journal);
    assert!(findings(&disk).is_empty());
}

#[test]
fn an_error_of_the_disk_is_an_error_and_not_an_end() {
    let (disk, _) = small_journal();
    // The first changing operation fails, and from then on every read does.
    disk.fail_after(0);
    disk.create_dir_all(dir()).unwrap_err();
    assert!(matches!(try_open(&disk, 9), Err(OpenError::Io(_))));
    assert!(verify(&*disk, dir(), &mut |_| {}).is_err());
    disk.heal();
    assert_eq!(batches(&open(&disk, 9)).len(), 12);
}

#[test]
fn damage_in_a_full_segment_that_was_never_sealed_is_found_at_open() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    let ats: Vec<_> = (1..=3).map(|number| put(&mut journal, &batch(number, 25_000))).collect();
    assert_eq!(ats[2].segment, 2, "the first segment is full, and nobody ran its job");
    drop(journal);
    assert_eq!(batches(&open(&Arc::new(disk.fork()), 2)).len(), 3);
    for at in [&ats[0], &ats[1]] {
        for offset in [at.offset, at.offset + 20, at.offset + 200, at.end() - 100] {
            let damaged = Arc::new(disk.fork());
            flip(&*damaged, &segment_name(1), offset, 2);
            let refused = try_open(&damaged, 2).err().unwrap();
            assert!(matches!(refused, OpenError::Damaged { segment: 1, .. }), "{refused}");
            assert!(findings(&damaged).contains(&(Severity::Damage, 1)));
        }
    }
}

#[test]
fn a_file_that_never_became_a_segment_is_removed_also_with_old_frames_in_it() {
    let (disk, written) = small_journal();
    let old = disk.read_file(&dir().join(segment_name(1))).unwrap();
    for content in [vec![], vec![0; 64 << 10], old] {
        let disk = Arc::new(disk.fork());
        disk.replace_file(&dir().join(segment_name(5)), &content).unwrap();
        assert_eq!(findings(&disk), [(Severity::Note, 5)]);
        assert_eq!(batches(&open(&disk, 9)), written);
        assert!(findings(&disk).is_empty());
    }
}

/// Found by fuzzing: the number after the highest was worked out from whatever a file is called.
#[test]
fn a_file_with_the_highest_number_is_nobodys_segment() {
    let (disk, written) = small_journal();
    disk.replace_file(&dir().join(segment_name(u64::MAX)), &[0; 64]).unwrap();
    disk.replace_file(&dir().join("spare-ffffffffffffffff.wal"), &[0; 64]).unwrap();
    assert_eq!(batches(&open(&disk, 9)), written);
    assert!(findings(&disk).iter().all(|(severity, _)| *severity == Severity::Note));
}

/// Found by fuzzing: opening refused such a journal, and verification found nothing wrong with it.
#[test]
fn segments_that_all_lost_their_frames_are_damage() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    let ats: Vec<_> = (1..=3).map(|number| put(&mut journal, &batch(number, 25_000))).collect();
    assert_eq!(ats[2].segment, 2);
    drop(journal);
    for number in [1, 2] {
        disk.open(&dir().join(segment_name(number)), true).unwrap().set_len(4096).unwrap();
    }
    let refused = try_open(&disk, 2).err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { segment: 2, offset: 0, .. }), "{refused}");
    assert!(findings(&disk).contains(&(Severity::Damage, 2)));
}
