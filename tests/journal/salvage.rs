//! Salvage: what is whole is kept, what is lost is listed, and no crash loses the rest.

use std::sync::Arc;

use postrider::env::{Disk, MemDisk, RealDisk};
use postrider::journal::{BodyState, Journal, OpenError, SalvageReport, salvage, verify};

use crate::model::*;

/// Three sealed segments of three frames each, and an active one.
fn small_journal() -> (Arc<MemDisk>, Vec<Batch>) {
    let disk = Arc::new(MemDisk::new());
    for incarnation in 1..=4 {
        let mut journal = open(&disk, incarnation);
        for step in 0..3 {
            put(&mut journal, &batch(incarnation * 10 + step, 60));
        }
    }
    let written = batches(&open(&Arc::new(disk.fork()), 5));
    (disk, written)
}

/// A salvaged journal counts from one higher, so that nothing which refers to the old one fits it.
fn moved_up(mut batches: Vec<Batch>) -> Vec<Batch> {
    batches.iter_mut().for_each(|batch| batch.sequence += 1);
    batches
}

fn run(disk: &Arc<MemDisk>) -> SalvageReport {
    salvage(disk, dir(), OPTIONS, 77, 5, None).unwrap()
}

/// Batches without the empty one that ends a salvaged journal.
fn saved(disk: &Arc<MemDisk>) -> Vec<Batch> {
    let mut found = batches(&open(disk, 9));
    assert_eq!(found.pop().unwrap().records, []);
    found
}

#[test]
fn a_whole_journal_stays_as_it_was() {
    let (disk, written) = small_journal();
    let report = run(&disk);
    assert_eq!((report.frames, report.lost.len(), report.lost_records.len()), (12, 0, 0));
    assert_eq!(saved(&disk), moved_up(written));
    let damaged = report.damaged_dir.unwrap();
    assert_eq!(damaged.to_str().unwrap(), "data/journal.damaged-1");
    assert_eq!(disk.list(&damaged).unwrap().len(), 4);
    assert_eq!(run(&disk).damaged_dir.unwrap().to_str().unwrap(), "data/journal.damaged-2");
}

#[test]
fn a_damaged_frame_is_listed_with_its_place_and_its_records() {
    let (disk, written) = small_journal();
    // The second frame of the second segment is number 4: opening copied number 3 to its start.
    flip(&*disk, &segment_name(2), 4096 + 256 + 20, 1);
    let report = run(&disk);
    assert_eq!(report.lost.len(), 1);
    let lost = &report.lost[0];
    assert_eq!((lost.segment, lost.first_sequence, lost.last_sequence), (2, 4, 4));
    assert_eq!(lost.keyed_records, Some(2));
    let (from, to) = lost.bytes.unwrap();
    assert!(from > 4096 && to > from);
    let contents = |batches: &[Batch]| batches.iter().map(|one| one.records.clone()).collect::<Vec<_>>();
    let mut expected = written;
    expected.remove(3);
    let found = saved(&disk);
    assert_eq!(contents(&found), contents(&expected));
    assert!(found.iter().zip(2..).all(|(one, sequence)| one.sequence == sequence));
}

#[test]
fn a_damaged_body_costs_its_record_alone() {
    let (disk, written) = small_journal();
    let content = disk.read_file(&dir().join(segment_name(1))).unwrap();
    let body = content.windows(7).position(|window| window == b"body-11").unwrap();
    flip(&*disk, &segment_name(1), body as u64, 1);
    let report = run(&disk);
    assert_eq!((report.frames, report.records), (12, 23));
    let lost = report.lost_records[0];
    assert_eq!((lost.segment, lost.sequence, lost.index, lost.key, lost.kind), (1, 2, 0, 111, 2));
    assert_eq!(saved(&disk)[1].records, written[1].records[1..]);
}

#[test]
fn a_missing_segment_and_a_lost_header_cost_what_was_in_them() {
    let (disk, written) = small_journal();
    disk.unlink(&dir().join(segment_name(2))).unwrap();
    patch(&*disk, &segment_name(3), 0, |header| header.fill(9), 4096);
    let report = run(&disk);
    assert_eq!(report.lost.len(), 1);
    assert_eq!((report.lost[0].first_sequence, report.lost[0].last_sequence), (3, 5));
    assert_eq!(report.lost[0].bytes, None);
    let found = saved(&disk);
    assert_eq!(found.len(), 9);
    assert_eq!(found[2].records, written[5].records);
}

#[test]
fn an_erased_body_stays_an_erased_one() {
    let (disk, _) = small_journal();
    let mut journal = open(&disk, 6);
    journal.erase(432, &|_| true).unwrap();
    journal.erase(111, &|_| true).unwrap();
    let before = batches(&journal);
    drop(journal);
    let report = run(&disk);
    assert_eq!((report.lost.len(), report.lost_records.len()), (0, 0));
    assert_eq!(saved(&disk), moved_up(before));
    let journal = open(&disk, 10);
    let found = journal.reader().find(111).unwrap()[0];
    let frame = journal.reader().frame_at(found.segment, found.offset).unwrap();
    assert_eq!(frame.records[found.index as usize].state, BodyState::Zeroed);
}

#[test]
fn a_salvage_interrupted_at_any_operation_loses_nothing_and_can_be_run_again() {
    let (state, _) = small_journal();
    flip(&*state, &segment_name(2), 4096 + 256 + 20, 1);
    let whole = Arc::new(state.fork());
    let before = whole.operations();
    run(&whole);
    let expected = saved(&whole);
    let operations = whole.operations() - before;
    let mut between = 0;
    for count in 0..operations {
        for seed in 0..3 {
            let disk = Arc::new(state.fork());
            disk.fail_after(count);
            if salvage(&disk, dir(), OPTIONS, 77, 5, None).is_ok() {
                // Only operations of the closing checks above are left.
                continue;
            }
            disk.crash(keeper(seed));
            match verify(&*disk, dir(), &mut |_| {}) {
                // Done but for the last sync of the directory.
                Ok(report) if report.damage == 0 => {}
                Ok(_) => {
                    run(&disk);
                }
                Err(_) => {
                    between += 1;
                    let refused = try_open(&disk, 8).err().unwrap();
                    assert!(matches!(refused, OpenError::SalvageUnfinished { .. }));
                    run(&disk);
                }
            }
            assert_eq!(saved(&disk), expected, "failing after {count}, cut {seed}");
        }
    }
    assert!(between > 0);
}

#[test]
fn the_real_disk_can_do_all_of_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal");
    let disk = Arc::new(RealDisk);
    let (mut journal, _) = Journal::open(Arc::clone(&disk), &path, OPTIONS, 1, 1).unwrap();
    for number in 1..=30 {
        put(&mut journal, &batch(number, 8 << 10));
        run_jobs(&mut journal);
    }
    journal.drop_oldest().unwrap();
    assert_eq!(journal.erase(152, &|_| true).unwrap().bodies, 1);
    let before = batches(&journal);
    drop(journal);
    let report = salvage(&disk, &path, OPTIONS, 2, 1, None).unwrap();
    assert_eq!(report.frames, before.len() as u64);
    assert!(report.damaged_dir.unwrap().is_dir());
    let (journal, _) = Journal::open(disk, &path, OPTIONS, 3, 1).unwrap();
    let mut after = batches(&journal);
    assert_eq!(after.pop().unwrap().records, []);
    assert_eq!(after, moved_up(before));
}
