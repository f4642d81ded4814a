//! Erasure: no byte of an erased body is left, and an interrupted erasure is never taken for damage.

use std::sync::Arc;

use postrider::env::MemDisk;
use postrider::journal::{BodyState, ErasedCount, Event, Journal, Severity, verify};

use crate::model::*;

const SECRET: &[u8] = b"body-to-be-forgotten";

fn secret(key: u128, kind: u8) -> Rec {
    Rec { kind, key, meta: b"kept".to_vec(), body: SECRET.repeat(3) }
}

fn holds_secret(disk: &MemDisk) -> Vec<String> {
    let holding =
        files(disk).into_iter().filter(|(_, content)| content.windows(SECRET.len()).any(|window| window == SECRET));
    holding.map(|(name, _)| name).collect()
}

fn states<D: postrider::env::Disk>(journal: &Journal<D>, key: u128) -> Vec<BodyState> {
    let reader = journal.reader();
    let found = reader.find(key).unwrap();
    found
        .iter()
        .map(|found| {
            let frame = reader.frame_at(found.segment, found.offset).unwrap();
            frame.records[found.index as usize].state
        })
        .collect()
}

/// Bodies of the key 5 in sealed segments, in one still to be sealed, in a dropped and recycled one, and in the last
/// frame.
fn journal_full_of_secrets(disk: &Arc<MemDisk>) -> Journal<MemDisk> {
    let mut journal = open(disk, 1);
    for number in 1..=16 {
        let mut records = batch(number, 12 << 10);
        records.push(secret(5, 9));
        put(&mut journal, &records);
        if number < 14 {
            run_jobs(&mut journal);
        }
        while journal.segments().len() > 4 && journal.segments()[0].sealed {
            journal.drop_oldest().unwrap();
        }
    }
    put(&mut journal, &[secret(5, 9), secret(6, 9), secret(5, 8)]);
    journal.drop_oldest().unwrap();
    journal
}

/// How many operations of the disk it takes to erase these keys one after the other.
fn operations_to_erase(state: &MemDisk, keys: &[u128]) -> u64 {
    let disk = Arc::new(state.fork());
    let mut journal = open(&disk, 2);
    let before = disk.operations();
    for key in keys {
        journal.erase(*key, &|_| true).unwrap();
    }
    disk.operations() - before
}

#[test]
fn after_an_erasure_no_byte_of_the_bodies_is_anywhere() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = journal_full_of_secrets(&disk);
    let in_flight = journal.take_jobs();
    assert!(holds_secret(&disk).iter().any(|name| name.starts_with("spare")), "a recycled file holds it, too");
    let count = journal.erase(6, &|_| true).unwrap();
    assert_eq!(count, ErasedCount { bodies: 1, bytes: 60 });
    let count = journal.erase(5, &|kind| kind == 9).unwrap();
    assert_eq!(count.bodies as usize + 1, states(&journal, 5).len());
    assert_eq!(states(&journal, 5).last(), Some(&BodyState::Intact), "another kind stays");
    let count = journal.erase(5, &|_| true).unwrap();
    assert_eq!(count.bodies, 1);
    assert_eq!(holds_secret(&disk), [""; 0]);
    assert!(states(&journal, 5).iter().all(|state| *state == BodyState::Zeroed));
    assert_eq!(journal.erase(5, &|_| true).unwrap(), ErasedCount::default());
    // What a helper had in its hands meanwhile brings nothing back.
    for job in in_flight {
        journal.done(job.run()).unwrap();
    }
    run_jobs(&mut journal);
    put(&mut journal, &batch(50, 100));
    assert_eq!(holds_secret(&disk), [""; 0]);
    let before = batches(&journal);
    drop(journal);
    let journal = open(&disk, 2);
    assert_eq!(batches(&journal), before);
    assert!(states(&journal, 5).iter().all(|state| *state == BodyState::Zeroed));
    drop(journal);
    let mut zeroed = 0;
    let report = verify(&*disk, dir(), &mut |event| match event {
        Event::ZeroedBody(body) => {
            assert!(body.key == 5 || body.key == 6);
            zeroed += 1;
        }
        Event::Finding(finding) => panic!("{finding:?}"),
        _ => {}
    })
    .unwrap();
    assert_eq!(report.zeroed_bodies, zeroed);
}

#[test]
fn an_erasure_from_the_last_frame_survives_reopening_with_the_frame() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    put(&mut journal, &batch(1, 100));
    let at = put(&mut journal, &[secret(5, 9)]);
    journal.erase(5, &|_| true).unwrap();
    drop(journal);
    disk.crash(|_| false);
    for incarnation in 2..5 {
        let journal = open(&disk, incarnation);
        let found = batches(&journal);
        assert_eq!(found.len(), 3, "an empty batch protects it");
        assert_eq!(found[1].sequence, at.sequence);
        assert_eq!(found[1].records[0].meta, b"kept");
        assert_eq!(states(&journal, 5), [BodyState::Zeroed]);
    }
}

#[test]
fn an_erasure_interrupted_at_any_operation_is_finished_or_never_began() {
    let state = Arc::new(MemDisk::new());
    drop(journal_full_of_secrets(&state));
    for count in 0..operations_to_erase(&state, &[5, 6]) {
        for seed in 0..4 {
            let disk = Arc::new(state.fork());
            let mut journal = open(&disk, 2);
            let erased_before = batches(&journal).len();
            disk.fail_after(count);
            let first = journal.erase(5, &|_| true);
            let both = first.is_ok() && journal.erase(6, &|_| true).is_ok();
            assert!(!both);
            drop(journal);
            match seed {
                3 => disk.heal(),
                _ => disk.crash(keeper(seed)),
            }
            let what = format!("failing after {count}, cut {seed}");
            verify(&*disk, dir(), &mut |event| {
                if let Event::Finding(finding) = event {
                    assert_ne!(finding.severity, Severity::Damage, "{what}: {finding:?}");
                }
            })
            .unwrap();
            let (journal, recovery) = try_open(&disk, 3).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(batches(&journal).len() >= erased_before, "{what}");
            let states = states(&journal, 5);
            assert!(!states.contains(&BodyState::Damaged), "{what}: {states:?}");
            if first.is_ok() || recovery.erasure_finished {
                assert!(states.iter().all(|state| *state == BodyState::Zeroed), "{what}: {states:?}");
            }
        }
    }
}

#[test]
fn an_erasure_whose_list_was_not_durable_is_finished_although_the_power_goes_meanwhile() {
    let state = Arc::new(MemDisk::new());
    drop(journal_full_of_secrets(&state));
    for count in 0..operations_to_erase(&state, &[5]) {
        let killed = Arc::new(state.fork());
        let mut journal = open(&killed, 2);
        killed.fail_after(count);
        assert!(journal.erase(5, &|_| true).is_err());
        drop(journal);
        // The process ends, not the machine: what it did is there, and may still be lost.
        killed.heal();
        for (redone, seed) in (0..).flat_map(|redone| (0..3).map(move |seed| (redone, seed))) {
            let disk = Arc::new(killed.fork());
            disk.fail_after(redone);
            if try_open(&disk, 3).is_ok() {
                break;
            }
            disk.crash(keeper(seed));
            let what = format!("failing after {count}, then after {redone}, cut {seed}");
            let (journal, _) = try_open(&disk, 4).unwrap_or_else(|error| panic!("{what}: {error}"));
            let states = states(&journal, 5);
            assert!(!states.contains(&BodyState::Damaged), "{what}: {states:?}");
        }
    }
}
