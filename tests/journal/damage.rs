//! Damage: every flipped byte is found, and nothing changed or missing passes silently.

use std::sync::Arc;

use postrider::env::{Disk, MemDisk};
use postrider::journal::{BodyState, Event, OpenError, ReadFrom, Severity, verify};

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

/// Offsets worth flipping in a segment: all that isn't zero, and a sample of the zeros that checksums cover.
fn offsets(content: &[u8], end: usize) -> Vec<usize> {
    (0..end).filter(|at| content[*at] != 0 || at % 97 == 0 || (4096..4300).contains(at)).collect()
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

#[test]
fn a_flip_of_any_byte_is_found_and_never_passes_silently() {
    let (disk, written) = small_journal();
    let journal_files = files(&*disk);
    let last_name = segment_name(4);
    for (name, content) in journal_files.iter().filter(|(name, _)| name.starts_with("seg-")) {
        let is_last = *name == last_name;
        let end = if is_last { frames_end(content) } else { content.len() };
        let last_frame = if is_last { last_frame_at(content) } else { usize::MAX };
        for at in offsets(content, end) {
            let damaged = Arc::new(disk.fork());
            flip(&*damaged, name, at as u64, (at % 8) as u8);
            let found = findings(&damaged);
            let in_last_frame = at >= last_frame;
            // A last frame whose head is unreadable can't be told from space that was never written.
            let unseen = in_last_frame && found.is_empty();
            assert!(unseen || !found.is_empty(), "{name} {at}: nothing found");
            match try_open(&damaged, 9) {
                Ok((journal, _)) => {
                    assert!(!is_last || in_last_frame, "{name} {at}: opened");
                    let (read, error) = read_all(&journal.reader());
                    let missing = usize::from(in_last_frame);
                    let states = body_states(&journal);
                    let whole = read.len() == written.len() - missing && read == written[..read.len()];
                    assert!(whole || error.is_some() || states.contains(&BodyState::Damaged), "{name} {at}");
                }
                Err(OpenError::Damaged { .. }) => {}
                Err(other) => panic!("{name} {at}: {other}"),
            }
        }
    }
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
