//! What is refused, with which exit code, and that it leaves no trace.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::place::{SMALL, api, backup, backup_arguments, file, payload, publish, restore, run, traces};
use super::support::gateway::{Gateway, Site};

/// A gateway with an event, and a backup of it.
fn backed_up() -> (Site, Gateway) {
    let site = Site::new(SMALL);
    let gateway = site.start();
    publish(&mut api(&site), "1", &payload("1"));
    backup(&site).expect(0);
    (site, gateway)
}

/// Another byte at a place of a file.
fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn an_existing_file_is_replaced_only_by_force() {
    let (site, gateway) = backed_up();
    let before = fs::read(file(&site)).unwrap();
    publish(&mut api(&site), "2", &payload("2"));
    let refused = backup(&site).expect(2);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(fs::read(file(&site)).unwrap(), before);
    let arguments = backup_arguments(&site, None);
    let forced: Vec<_> = arguments.iter().map(String::as_str).chain(["--force"]).collect();
    let text = run(&site, &forced).expect(0).stdout;
    assert!(text.starts_with("wrote the.backup: 2 events"), "{text}");
    gateway.kill();
    // Nobody answers: what is there stays.
    let after = fs::read(file(&site)).unwrap();
    run(&site, &forced).expect(7);
    assert_eq!(fs::read(file(&site)).unwrap(), after);
    assert_eq!(traces(&site), ["the.backup"]);
    // A directory that can't be written to.
    run(&site, &["backup", "--offline", "--to", "no/such/dir/file", "--data", "data"]).expect(6);
}

#[test]
fn a_damaged_backup_is_refused_with_its_place_and_makes_nothing() {
    let (site, gateway) = backed_up();
    gateway.kill();
    let other = Site::new(SMALL);
    let check = |site: &Site| run(site, &["restore", "--check", "--from", "the.backup"]);
    assert!(check(&site).expect(0).stdout.ends_with("ok\n"));
    let whole = fs::read(file(&site)).unwrap();
    let half = whole.len() as u64 / 2;
    overwrite(&file(&site), half, &[!whole[half as usize]]);
    for refused in [check(&site), restore(&site, &other)] {
        let refused = refused.expect(1);
        assert!(refused.stderr.contains("damaged at byte "), "{}", refused.stderr);
    }
    fs::write(file(&site), &whole[..whole.len() - 1]).unwrap();
    check(&site).expect(1);
    restore(&site, &other).expect(1);
    assert!(!other.data().exists() && traces(&other).is_empty());
    fs::remove_file(file(&site)).unwrap();
    restore(&site, &other).expect(6);
}

#[test]
fn a_later_format_is_refused_by_name() {
    let (site, gateway) = backed_up();
    gateway.terminate();
    gateway.kill_ending();
    // Heads with a version of their own, and checksums to fit.
    let relabel = |path: &Path, head_bytes: usize| {
        let mut head = fs::read(path).unwrap()[..head_bytes].to_vec();
        head[4..8].copy_from_slice(&99_u32.to_le_bytes());
        let crc = crc32c::crc32c(&head[..head_bytes - 4]);
        head[head_bytes - 4..].copy_from_slice(&crc.to_le_bytes());
        overwrite(path, 0, &head);
    };
    relabel(&file(&site), 64);
    let other = Site::new(SMALL);
    let refused = restore(&site, &other).expect(1);
    assert!(refused.stderr.contains("version 99"), "{}", refused.stderr);
    assert!(!other.data().exists());

    let mut segments: Vec<_> =
        fs::read_dir(site.data().join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("seg-"));
    segments.sort();
    relabel(segments.last().unwrap(), 4_096);
    let before = fs::read(segments.last().unwrap()).unwrap();
    let mut serving = Gateway::spawn(site.serve());
    assert!(!serving.is_ready());
    assert_eq!(serving.exit_code(), Some(5), "{}", site.log());
    let said = site.log();
    assert!(
        said.contains("version 99") && said.contains("reads 1") && said.contains("use the one that wrote it"),
        "{said}"
    );
    let data = site.data().display().to_string();
    for command in ["verify", "dump", "rebuild", "salvage"] {
        let refused = run(&site, &["journal", command, "--data", &data]).expect(5);
        assert!(refused.stderr.contains("version 99"), "{command}: {}", refused.stderr);
    }
    run(&site, &["backup", "--offline", "--force", "--to", "the.backup", "--data", &data]).expect(5);
    assert_eq!(fs::read(segments.last().unwrap()).unwrap(), before, "nothing was changed");
}

#[test]
fn a_second_process_is_told_who_holds_the_store() {
    let (site, gateway) = backed_up();
    let holder = format!("process {}", gateway.id());
    let data = site.data().display().to_string();
    let file = file(&site).display().to_string();
    for arguments in [
        &["journal", "verify"][..],
        &["journal", "dump"],
        &["journal", "rebuild"],
        &["journal", "salvage"],
        &["backup", "--offline", "--to", "other.backup"],
        &["restore", "--from", &file],
    ] {
        let refused = run(&site, &[arguments, &["--data", &data]].concat()).expect(4);
        assert!(refused.stderr.contains(&holder), "{arguments:?}: {}", refused.stderr);
    }
    assert_eq!(traces(&site), ["the.backup"]);
    // The first did not notice, and once it is gone the directory is in the way, not its holder.
    publish(&mut api(&site), "2", &payload("2"));
    gateway.kill();
    run(&site, &["restore", "--from", &file, "--data", &data]).expect(2);
    run(&site, &["journal", "verify", "--data", &data]).expect(0);
}

/// The first damage that verification meets is enough for a code of its own, wherever it is.
#[test]
fn verification_reads_everything() {
    let (site, gateway) = backed_up();
    let mut api = api(&site);
    for n in 0..200 {
        publish(&mut api, &format!("more-{n}"), &payload(&n.to_string()));
    }
    gateway.kill();
    site.start().kill();
    let data = site.data().display().to_string();
    let verify = || run(&site, &["journal", "verify", "--data", &data, "--json"]);
    verify().expect(0);
    let journal = site.data().join("journal");
    let segment = journal.join("seg-0000000000000001.wal");
    let length = fs::metadata(&segment).unwrap().len();
    let whole = fs::read(&segment).unwrap();
    // Header, frames, a body, the index: in a segment that no start reads.
    for at in [10, 4_095, 4_100, 4_096 + 200, 20_000, 40_000, length - 3_000] {
        overwrite(&segment, at, &[whole[at as usize] ^ 0x20]);
        let found = verify().expect(1).json();
        let finding = found["findings"].as_array().unwrap().iter().find(|f| f["severity"] == "damage").unwrap();
        assert_eq!(finding["segment"], "0000000000000001", "at {at}: {found}");
        overwrite(&segment, at, &whole[at as usize..=at as usize]);
    }
    // The trailer says nothing that the frames don't say: the next start writes it again.
    overwrite(&segment, length - 1, &[whole[length as usize - 1] ^ 0x20]);
    let found = verify().expect(0).json();
    assert!(found["findings"][0]["severity"] == "note" && found["findings"][0]["segment"] == "0000000000000001");
    site.start().kill();
    verify().expect(0);
}
