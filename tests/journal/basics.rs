//! Appending, reading, rotation, recycling and the typed refusals.

use std::sync::{Arc, mpsc};

use postrider::env::{Disk, DiskFile, MemDisk, RealDisk};
use postrider::journal::{AppendError, Found, Journal, OpenError, ReadError, ReadFrom, RecordRef, WriteError};
use proptest::prelude::*;

use crate::model::*;

#[test]
fn a_new_journal_is_empty_and_says_so() {
    let disk = Arc::new(MemDisk::new());
    let (journal, recovery) = try_open(&disk, 1).unwrap();
    assert_eq!((recovery.next_sequence, recovery.segments), (1, 1));
    assert_eq!((recovery.copied, recovery.torn_bytes, recovery.last_time_ms), (None, 0, 0));
    assert_eq!(batches(&journal), []);
    let infos = journal.segments();
    assert_eq!((infos.len(), infos[0].records, infos[0].last_sequence), (1, 0, 0));
    assert_eq!(journal.total_bytes(), OPTIONS.segment_bytes);
}

#[test]
fn batches_read_back_before_and_after_reopening() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    let ats: Vec<_> = (1..=5).map(|number| put(&mut journal, &batch(number, 100))).collect();
    let written = batches(&journal);
    assert_eq!(written.len(), 5);
    assert_eq!(written[2].records, batch(3, 100));
    drop(journal);
    for incarnation in 2..6 {
        let (journal, recovery) = try_open(&disk, incarnation).unwrap();
        assert_eq!(batches(&journal), written);
        let copied = recovery.copied.unwrap();
        assert_eq!((copied.sequence, copied.crc), (5, ats[4].crc), "a copy keeps its identity");
        assert_eq!((recovery.last_time_ms, recovery.next_sequence), (50, 6));
        assert_eq!(recovery.segments, 2);
    }
}

#[test]
fn only_synced_batches_are_visible() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    let reader = journal.reader();
    let at = journal.append_batch(7, &refs(&batch(1, 10))).unwrap();
    assert_eq!(read_all(&reader).0, []);
    assert_eq!(reader.find(11).unwrap(), []);
    let unsynced = reader.frame_at(at.segment, at.offset);
    assert!(matches!(unsynced, Err(ReadError::OutOfRange { .. })));
    let refused = journal.append_batch(7, &[]).unwrap_err();
    assert!(matches!(refused, AppendError::NotSynced));
    journal.sync().unwrap();
    assert_eq!(read_all(&reader).0.len(), 1);
    assert_eq!(reader.find(11).unwrap().len(), 1);
}

#[test]
fn too_large_batches_are_refused_and_change_nothing() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    let body = vec![1; 64 << 10];
    let record = RecordRef { kind: 1, key: 1, meta: &[], body: &body };
    let refused = journal.append_batch(1, &[record]).unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { what: "bytes", .. }), "{refused}");
    let small = RecordRef { body: &[], ..record };
    let refused = journal.append_batch(1, &[small; 4097]).unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { what: "records", got: 4097, max: 4096 }));
    // The largest that fits: a segment without its header, the frame's head and one table entry.
    let room = (64 << 10) - 4096 - 48 - 32;
    let largest = RecordRef { body: &body[..room], ..record };
    journal.append_batch(1, &[largest]).unwrap();
    journal.sync().unwrap();
    journal.append_batch(1, &[small]).unwrap();
    journal.sync().unwrap();
    assert_eq!(journal.segments().len(), 2);
    drop(journal);
    assert_eq!(batches(&open(&disk, 2)).len(), 2);
}

#[test]
fn rotation_seals_segments_and_keys_are_found_in_all_of_them() {
    for with_jobs in [true, false] {
        let disk = Arc::new(MemDisk::new());
        let mut journal = open(&disk, 1);
        for number in 1..=40 {
            // The key 7 is in every batch, across footers and memory.
            let mut records = batch(number, 8 << 10);
            records.push(Rec { kind: 9, key: 7, meta: vec![], body: vec![number as u8] });
            put(&mut journal, &records);
            if with_jobs {
                run_jobs(&mut journal);
            }
        }
        let infos = journal.segments();
        assert!(infos.len() > 4);
        assert!(infos[..infos.len() - 1].iter().all(|info| info.sealed == with_jobs));
        assert_eq!(infos.iter().map(|info| info.records).sum::<u64>(), 120);
        let check = |journal: &Journal<MemDisk>| {
            let reader = journal.reader();
            let found = reader.find(7).unwrap();
            let bodies = found.iter().map(|found: &Found| {
                let frame = reader.frame_at(found.segment, found.offset).unwrap();
                u64::from(frame.body(found.index as usize)[0])
            });
            assert_eq!(bodies.collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
            assert_eq!(reader.find(301).unwrap().len(), 1);
            assert_eq!(reader.find(303).unwrap().len(), 0);
            assert_eq!(reader.find(0).unwrap().len(), 0);
            let last = journal.segments().last().unwrap().number;
            assert!(reader.find_from(last, 7).unwrap().len() < 10);
        };
        check(&journal);
        let written = batches(&journal);
        drop(journal);
        let (journal, recovery) = try_open(&disk, 2).unwrap();
        assert!(!recovery.sealed.is_empty());
        check(&journal);
        assert_eq!(batches(&journal), written);
    }
}

#[test]
fn a_footer_of_many_pages_finds_every_key() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    let key = |at: u64| u128::from(at.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 700 + 1);
    for start in (0..1_400).step_by(100) {
        let records: Vec<Rec> =
            (start..start + 100).map(|at| Rec { kind: 1, key: key(at), meta: vec![], body: vec![] }).collect();
        put(&mut journal, &records);
    }
    let expected: Vec<Vec<Found>> = (0..=701).map(|key| journal.reader().find(key).unwrap()).collect();
    assert_eq!(expected.iter().map(Vec::len).sum::<usize>(), 1_400);
    put(&mut journal, &[]);
    drop(journal);
    let journal = open(&disk, 2);
    for (key, expected) in expected.iter().enumerate() {
        assert_eq!(journal.reader().find(key as u128).unwrap(), *expected);
    }
}

#[test]
fn dropped_segments_are_recycled_and_their_frames_never_surface() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    let mut number = 0;
    for round in 0..6 {
        let mut expected = Vec::new();
        // Long enough that a file is recycled within one incarnation, so that only the sequence tells its old frames.
        for _ in 0..85 + 7 * round {
            number += 1;
            put(&mut journal, &batch(number, 6 << 10));
            run_jobs(&mut journal);
            while journal.segments().len() > 2 {
                journal.drop_oldest().unwrap();
            }
        }
        for one in batches(&journal) {
            assert_eq!(one.records, batch(one.sequence, 6 << 10), "content belongs to its sequence");
            expected.push(one);
        }
        assert_eq!(expected.last().unwrap().sequence, number);
        assert!(journal.total_bytes() < 6 * OPTIONS.segment_bytes);
        let spares = files(&*disk).iter().filter(|(name, _)| name.starts_with("spare")).count();
        assert!((1..=3).contains(&spares), "{spares}");
        drop(journal);
        journal = open(&disk, 10 + round);
        assert_eq!(batches(&journal), expected);
    }
}

#[test]
fn the_active_segment_is_never_dropped_and_readers_of_a_dropped_one_are_told() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    assert!(matches!(journal.drop_oldest(), Err(WriteError::NotSealed)));
    let first = put(&mut journal, &batch(1, 40 << 10));
    put(&mut journal, &batch(2, 40 << 10));
    assert!(matches!(journal.drop_oldest(), Err(WriteError::NotSealed)), "its job isn't done");
    let reader = journal.reader();
    let mut frames = reader.frames(ReadFrom::Oldest);
    assert_eq!(frames.next().unwrap().unwrap().at, first);
    run_jobs(&mut journal);
    let mut behind = reader.frames(ReadFrom::At { segment: first.segment, offset: first.offset });
    journal.drop_oldest().unwrap();
    assert!(matches!(behind.next(), Some(Err(ReadError::Gone { segment: 1 }))));
    assert!(matches!(reader.frame_at(first.segment, first.offset), Err(ReadError::Gone { .. })));
    assert!(matches!(reader.frames(ReadFrom::Sequence(1)).next(), Some(Err(ReadError::Gone { segment: 2 }))));
    assert_eq!(reader.find(11).unwrap(), []);
    assert_eq!(batches(&journal).len(), 1);
}

#[test]
fn frames_begin_where_they_are_asked_to_and_follow_the_writer() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    let ats: Vec<_> = (1..=20).map(|number| put(&mut journal, &batch(number, 9 << 10))).collect();
    let reader = journal.reader();
    for (index, at) in ats.iter().enumerate() {
        let mut by_sequence = reader.frames(ReadFrom::Sequence(at.sequence));
        assert_eq!(by_sequence.next().unwrap().unwrap().at, *at);
        let after = ReadFrom::At { segment: at.segment, offset: at.end() };
        let next = reader.frames(after).next().map(|frame| frame.unwrap().at);
        assert_eq!(next.as_ref(), ats.get(index + 1));
    }
    let mut ahead = reader.frames(ReadFrom::Sequence(23));
    let mut follow = reader.frames(ReadFrom::Sequence(20));
    assert!(follow.next().is_some() && follow.next().is_none());
    for number in 21..=40 {
        let at = put(&mut journal, &batch(number, 9 << 10));
        assert_eq!(follow.next().unwrap().unwrap().at, at);
        let seen = ahead.next().map(|frame| frame.unwrap().at.sequence);
        assert_eq!(seen, (number >= 23).then_some(number));
    }
}

#[test]
fn a_failed_write_or_sync_is_final() {
    for failing in 0..2 {
        let disk = Arc::new(MemDisk::new());
        let mut journal = open(&disk, 1);
        put(&mut journal, &batch(1, 100));
        disk.fail_after(failing);
        if journal.append_batch(1, &refs(&batch(2, 100))).is_ok() {
            assert!(matches!(journal.sync(), Err(WriteError::Io(_))));
        }
        disk.heal();
        assert!(matches!(journal.append_batch(1, &[]), Err(AppendError::Poisoned)));
        assert!(matches!(journal.sync(), Err(WriteError::Poisoned)));
        assert!(matches!(journal.drop_oldest(), Err(WriteError::Poisoned)));
        assert!(journal.erase(1, &|_| true).is_err());
    }
}

#[test]
fn failed_jobs_are_done_again_and_put_nothing_at_risk() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    put(&mut journal, &batch(1, 40 << 10));
    put(&mut journal, &batch(2, 40 << 10));
    for job in journal.take_jobs() {
        disk.fail_after(1);
        let done = job.run();
        disk.heal();
        journal.done(done).unwrap_err();
    }
    assert!(journal.take_jobs().is_empty(), "not in a loop");
    put(&mut journal, &batch(3, 40 << 10));
    run_jobs(&mut journal);
    put(&mut journal, &batch(4, 40 << 10));
    run_jobs(&mut journal);
    let sealed = journal.segments().iter().filter(|info| info.sealed).count();
    assert_eq!(sealed, 3);
    assert_eq!(batches(&journal).len(), 4);
}

#[test]
fn another_format_version_is_refused_by_name() {
    let disk = Arc::new(MemDisk::new());
    put(&mut open(&disk, 1), &batch(1, 100));
    patch(
        &*disk,
        &segment_name(1),
        0,
        |block| {
            block[4] = 2;
            let crc = crc32c::crc32c(&block[..4092]);
            block[4092..].copy_from_slice(&crc.to_le_bytes());
        },
        4096,
    );
    let refused = try_open(&disk, 2).err().unwrap();
    assert!(matches!(refused, OpenError::UnknownVersion { segment: 1, found: 2, supported: 1 }), "{refused}");
}

#[test]
fn options_out_of_range_are_refused() {
    let disk = Arc::new(MemDisk::new());
    let options = postrider::journal::Options { segment_bytes: 4096, ..OPTIONS };
    let refused = Journal::open(disk, dir(), options, 1, 1).err().unwrap();
    assert!(matches!(refused, OpenError::Options { option: "segment_bytes", .. }));
}

#[test]
fn other_files_in_the_directory_are_left_alone() {
    let disk = Arc::new(MemDisk::new());
    drop(open(&disk, 1));
    disk.replace_file(&dir().join("checkpoint-1"), b"mine").unwrap();
    drop(open(&disk, 2));
    assert_eq!(disk.read_file(&dir().join("checkpoint-1")).unwrap(), b"mine");
}

#[test]
fn a_reader_on_another_thread_sees_every_batch_once_while_the_writer_rotates() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("deep/journal");
    let (mut journal, _) = Journal::open(Arc::new(RealDisk), &path, OPTIONS, 1, 1).unwrap();
    let reader = journal.reader();
    let (synced, wake) = mpsc::channel();
    let follower = std::thread::spawn(move || {
        let mut frames = reader.frames(ReadFrom::Oldest);
        let mut seen = Vec::new();
        while wake.recv().is_ok() {
            for frame in frames.by_ref() {
                seen.push(to_batch(&frame.unwrap()));
            }
        }
        seen
    });
    for number in 1..=200 {
        put(&mut journal, &batch(number, 3 << 10));
        synced.send(()).unwrap();
        let jobs = journal.take_jobs();
        let done: Vec<_> = std::thread::scope(|scope| {
            let run = |job: postrider::journal::Job<RealDisk>| scope.spawn(move || job.run());
            let threads: Vec<_> = jobs.into_iter().map(run).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for done in done {
            journal.done(done).unwrap();
        }
    }
    drop(synced);
    assert_eq!(follower.join().unwrap(), batches(&journal));
    drop(journal);
    let (journal, _) = Journal::open(Arc::new(RealDisk), &path, OPTIONS, 2, 1).unwrap();
    assert_eq!(batches(&journal).len(), 200);
}

#[derive(Debug, Clone)]
enum Act {
    Put(usize),
    Jobs,
    Drop,
    Reopen,
    Kill,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..30_000_usize).prop_map(Act::Put),
        2 => Just(Act::Jobs),
        1 => Just(Act::Drop),
        1 => Just(Act::Reopen),
        1 => Just(Act::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_history_reads_back_as_it_was_written(acts in proptest::collection::vec(act(), 1..40)) {
        let disk = Arc::new(MemDisk::new());
        let mut journal = open(&disk, 1);
        let mut model: Vec<Batch> = Vec::new();
        for (step, act) in acts.into_iter().enumerate() {
            let incarnation = 2 + step as u64;
            match act {
                Act::Put(bytes) => {
                    let records = batch(step as u64 + 1, bytes);
                    let at = put(&mut journal, &records);
                    model.push(Batch { sequence: at.sequence, time_ms: at.sequence * 10, records });
                }
                Act::Jobs => run_jobs(&mut journal),
                Act::Drop => {
                    if journal.drop_oldest().is_ok() {
                        let first = journal.segments()[0].first_sequence;
                        model.retain(|batch| batch.sequence >= first);
                    }
                }
                Act::Reopen => {
                    drop(journal);
                    journal = open(&disk, incarnation);
                }
                Act::Kill => {
                    drop(journal);
                    disk.crash(|_| false);
                    journal = open(&disk, incarnation);
                }
            }
            prop_assert_eq!(&batches(&journal), &model);
            for batch in &model {
                for record in &batch.records {
                    prop_assert_eq!(journal.reader().find(record.key).unwrap().len(), 1);
                }
            }
        }
        disk.heal();
        let disk_size: u64 = files(&*disk).iter().map(|(_, content)| content.len() as u64).sum();
        prop_assert_eq!(journal.total_bytes(), disk_size);
        let file = disk.open(&dir().join(segment_name(journal.segments()[0].number)), false).unwrap();
        prop_assert!(file.len().unwrap() > 0);
    }
}
