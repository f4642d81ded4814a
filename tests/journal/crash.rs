//! Crashes: failing disks, killed processes and power cuts at every single operation.

use std::sync::Arc;

use postrider::env::{MemDisk, Piece};
use postrider::journal::{Event, Severity, verify};

use crate::model::*;

/// What a process that may have died in the middle of it is known to have done.
#[derive(Default, Debug, Clone)]
struct Told {
    /// Batches whose sync returned.
    acknowledged: Vec<Batch>,
    /// The batch whose sync didn't.
    unsure: Option<Batch>,
    /// Sequence before which segments may be dropped.
    dropped_before: u64,
}

/// A life with rotation, sealing, recycling, dropping and reopening in it. Stops at the first error.
fn live(disk: &Arc<MemDisk>, told: &mut Told) -> Option<()> {
    for incarnation in 1..=3 {
        let mut journal = try_open(disk, incarnation).ok()?.0;
        told.unsure = None;
        for step in 0..9 {
            let sequence = journal.next_sequence();
            let records = batch(incarnation * 100 + step, 9_000 + step as usize * 3_000);
            let batch = Batch { sequence, time_ms: sequence, records };
            told.unsure = Some(batch.clone());
            journal.append_batch(batch.time_ms, &refs(&batch.records)).ok()?;
            journal.sync().ok()?;
            told.unsure = None;
            told.acknowledged.push(batch);
            // Every third batch no helper comes round, so that rotation also does its work inline.
            if step % 3 != 0 {
                for job in journal.take_jobs() {
                    journal.done(job.run()).ok()?;
                }
            }
            let infos = journal.segments();
            if infos.len() > 3 && infos[0].sealed {
                told.dropped_before = infos[1].first_sequence;
                journal.drop_oldest().ok()?;
            }
        }
    }
    Some(())
}

/// Opens after a crash and checks that nothing acknowledged is lost and nothing else is there.
fn check(disk: &Arc<MemDisk>, incarnation: u64, told: &Told, what: &str) {
    let mut torn = 0;
    let report = verify(&**disk, dir(), &mut |event| {
        if let Event::Finding(finding) = event {
            assert_ne!(finding.severity, Severity::Damage, "{what}: {finding:?}");
            torn += u64::from(finding.severity == Severity::TornTail);
        }
    });
    // A disk whose directory never became durable has nothing to verify.
    if let Ok(report) = report {
        assert_eq!((report.damage, report.torn_tails), (0, torn), "{what}");
    }
    let (mut journal, recovery) = try_open(disk, incarnation).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = batches(&journal);
    let all: Vec<&Batch> = told.acknowledged.iter().chain(&told.unsure).collect();
    let first = found.first().map_or(recovery.next_sequence, |batch| batch.sequence);
    assert!(first <= told.dropped_before.max(1), "{what}: first is {first}");
    let expected: Vec<&Batch> = all.into_iter().filter(|batch| batch.sequence >= first).collect();
    let sure = told.acknowledged.iter().filter(|batch| batch.sequence >= first).count();
    assert!(found.len() >= sure, "{what}: {} of {sure} acknowledged", found.len());
    assert!(found.iter().eq(expected[..found.len()].iter().copied()), "{what}");
    let reader = journal.reader();
    for record in found.iter().flat_map(|batch| &batch.records) {
        assert_eq!(reader.find(record.key).unwrap().len(), 1, "{what}");
    }
    // And it takes batches again.
    put(&mut journal, &batch(9_999, 100));
}

#[test]
fn nothing_acknowledged_is_lost_whatever_operation_fails_and_whatever_the_power_cut_keeps() {
    let whole = Arc::new(MemDisk::new());
    let mut told = Told::default();
    live(&whole, &mut told).unwrap();
    assert!(told.dropped_before > 1 && told.acknowledged.len() == 27);
    for count in 0..whole.operations() {
        let disk = Arc::new(MemDisk::new());
        let mut told = Told::default();
        disk.fail_after(count);
        assert!(live(&disk, &mut told).is_none());
        for seed in 0..4 {
            let disk = Arc::new(disk.fork());
            disk.crash(keeper(seed));
            check(&disk, 50, &told, &format!("failing after {count}, power cut {seed}"));
        }
        // The process dies and the machine doesn't.
        disk.heal();
        check(&disk, 50, &told, &format!("failing after {count}, no power cut"));
        disk.crash(|_| false);
        check_kept(&disk, &told, count);
    }
}

/// After a second open in one piece, what the first showed must be durable, acknowledged or not.
fn check_kept(disk: &Arc<MemDisk>, told: &Told, count: u64) {
    let found = batches(&open(disk, 60));
    let acknowledged = told.acknowledged.len();
    assert_eq!(found.last().unwrap().records, batch(9_999, 100), "after {count}");
    assert!(found.len() <= acknowledged + 2);
}

#[test]
fn recovery_itself_may_be_interrupted_at_every_operation_and_again() {
    for (state, told) in interesting_states() {
        let clean = Arc::new(state.fork());
        let before = clean.operations();
        drop(open(&clean, 70));
        let operations = clean.operations() - before;
        assert!(operations > 3);
        for count in 0..operations {
            for seed in 0..3 {
                let disk = Arc::new(state.fork());
                disk.fail_after(count);
                assert!(try_open(&disk, 70).is_err());
                disk.crash(keeper(seed));
                check(&Arc::new(disk.fork()), 71, &told, &format!("open failing after {count}, cut {seed}"));
                // Twice is tried with the cut by chance only; that is where states differ most.
                if seed == 2 {
                    interrupt_again(&disk, &told, count, seed);
                }
            }
            let disk = Arc::new(state.fork());
            disk.fail_after(count);
            assert!(try_open(&disk, 70).is_err());
            disk.heal();
            // What its sync failed to write can still be read, until the power goes.
            interrupt_again(&Arc::new(disk.fork()), &told, count, 0);
            check(&disk, 71, &told, &format!("open failing after {count}, killed"));
        }
    }
}

fn interrupt_again(state: &Arc<MemDisk>, told: &Told, first: u64, seed: u64) {
    for count in 0..12 {
        let disk = Arc::new(state.fork());
        disk.fail_after(count);
        if try_open(&disk, 72).is_ok() {
            break;
        }
        disk.crash(keeper(seed));
        let what = format!("opens failing after {first} and {count}, cut {seed}");
        check(&disk, 73, told, &what);
    }
}

/// Disks as a killed process leaves them: unsynced last frame, full segment, rotation just done, nothing at all.
fn interesting_states() -> Vec<(MemDisk, Told)> {
    let mut states = Vec::new();
    for (batches, bytes, unsynced) in
        [(0, 0, false), (1, 100, false), (3, 500, true), (2, 35_000, false), (5, 25_000, true)]
    {
        let disk = Arc::new(MemDisk::new());
        let mut told = Told::default();
        let mut journal = open(&disk, 1);
        for number in 1..=batches {
            let records = batch(number, bytes);
            put(&mut journal, &records);
            told.acknowledged.push(Batch { sequence: number, time_ms: number * 10, records });
        }
        if unsynced {
            let records = batch(99, bytes);
            let time_ms = 99;
            journal.append_batch(time_ms, &refs(&records)).unwrap();
            told.unsure = Some(Batch { sequence: batches + 1, time_ms, records });
        }
        drop(journal);
        states.push((disk.fork(), told));
    }
    states.extend(begun_states());
    states
}

/// A rotation that died before its first frame was whole, and what the next open makes of that: segments with nothing in
/// them, once behind an unsealed one and once behind a sealed one.
fn begun_states() -> Vec<(MemDisk, Told)> {
    let disk = Arc::new(MemDisk::new());
    let mut told = Told::default();
    let mut journal = open(&disk, 1);
    let records = batch(1, 60_000);
    put(&mut journal, &records);
    told.acknowledged.push(Batch { sequence: 1, time_ms: 10, records });
    run_jobs(&mut journal);
    // The name, its sync, the header and its sync succeed.
    disk.fail_after(4);
    journal.append_batch(20, &refs(&batch(2, 5_000))).unwrap_err();
    disk.heal();
    drop(journal);
    let after_open = Arc::new(disk.fork());
    let (journal, recovery) = try_open(&after_open, 2).unwrap();
    assert_eq!(recovery.copied, None, "the header proves that the batch before it was synced");
    assert!(recovery.torn_bytes > 0);
    assert_eq!(journal.segments().len(), 2);
    drop(journal);
    vec![(disk.fork(), told.clone()), (after_open.fork(), told)]
}

#[test]
fn a_footer_is_never_taken_for_whole_when_a_page_of_it_was_lost() {
    for count in 0..8 {
        let disk = Arc::new(MemDisk::new());
        let mut journal = open(&disk, 1);
        let at = put(&mut journal, &batch(1, 40_000));
        put(&mut journal, &batch(2, 40_000));
        // The first job is the sealing; of what it writes the cut takes the page's first sector alone.
        let job = journal.take_jobs().remove(0);
        disk.fail_after(count);
        drop(job.run());
        drop(journal);
        let page = at.end()..at.end() + 512;
        disk.crash(|piece| !matches!(piece, Piece::Sector(at) if page.contains(&at)));
        let journal = open(&disk, 2);
        for key in [11, 12, 21, 22] {
            let found = journal.reader().find(key).unwrap();
            assert_eq!(found.len(), 1, "{key} after {count}");
        }
    }
}

#[test]
fn a_batch_that_was_written_and_not_synced_is_made_durable_by_the_next_open() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    put(&mut journal, &batch(1, 100));
    journal.append_batch(20, &refs(&batch(2, 100))).unwrap();
    drop(journal);
    let (journal, recovery) = try_open(&disk, 2).unwrap();
    assert_eq!(recovery.copied.unwrap().sequence, 2);
    assert_eq!(batches(&journal).len(), 2);
    drop(journal);
    disk.crash(|_| false);
    assert_eq!(batches(&open(&disk, 3)).len(), 2);
}

#[test]
fn a_batch_whose_sync_failed_is_lost_or_made_durable_but_never_shown_and_then_lost() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    put(&mut journal, &batch(1, 100));
    journal.append_batch(20, &refs(&batch(2, 100))).unwrap();
    // The pages are marked clean: a later sync of the same file would succeed and write nothing.
    disk.fail_after(0);
    journal.sync().unwrap_err();
    disk.heal();
    drop(journal);
    assert_eq!(batches(&open(&disk, 2)).len(), 2);
    disk.crash(|_| false);
    assert_eq!(batches(&open(&disk, 3)).len(), 2);
}

#[test]
fn a_tear_at_every_byte_of_the_last_frame_drops_that_frame_alone() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    put(&mut journal, &batch(1, 100));
    put(&mut journal, &batch(2, 100));
    let at = put(&mut journal, &batch(3, 100));
    drop(journal);
    let name = segment_name(at.segment);
    for cut in 0..at.len as usize {
        for fill in [0, 0xa5] {
            let torn = Arc::new(disk.fork());
            let mut changed = false;
            patch(
                &*torn,
                &name,
                at.offset,
                |bytes| {
                    changed = bytes[cut..].iter().any(|byte| *byte != fill);
                    bytes[cut..].fill(fill);
                },
                at.len as usize,
            );
            let found = batches(&open(&torn, 2)).len();
            assert_eq!(found, if changed { 2 } else { 3 }, "torn at {cut} with {fill}");
        }
    }
}

#[test]
fn a_torn_frame_whose_body_never_reached_the_disk_is_no_erased_one() {
    let disk = Arc::new(MemDisk::new());
    let mut journal = open(&disk, 1);
    put(&mut journal, &batch(1, 100));
    // Head, table and meta are in the first sectors; the body in later ones, which the cut loses.
    let record = Rec { kind: 1, key: 5, meta: vec![7; 4096], body: vec![9; 4096] };
    let at = journal.append_batch(2, &refs(&[record])).unwrap();
    drop(journal);
    let body_from = at.offset + 48 + 32 + 4096;
    disk.crash(|piece| !matches!(piece, Piece::Sector(at) if at >= body_from));
    let zeroed = disk.fork();
    patch(&zeroed, &segment_name(1), body_from, |body| body.fill(0), 4096);
    let (journal, recovery) = try_open(&Arc::new(zeroed.fork()), 2).unwrap();
    assert_eq!(batches(&journal).len(), 1);
    assert_eq!(recovery.torn_bytes, u64::from(at.len));
    // An open that dies after it began the segment for a copy of the frame before the torn one leaves no damage either.
    for count in 0.. {
        let disk = Arc::new(zeroed.fork());
        disk.fail_after(count);
        let opened = try_open(&disk, 2).is_ok();
        disk.heal();
        assert_eq!(verify(&*disk, dir(), &mut |_| {}).unwrap().damage, 0, "after {count} operations");
        assert_eq!(batches(&open(&disk, 3)).len(), 1);
        if opened {
            break;
        }
    }
}
