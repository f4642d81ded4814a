//! A backup and its restore, recorded, and what a power cut may leave of them: of the backup the whole file or none, of the
//! restore the whole store or nothing and the way free for another.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use postrider::env::SeededEntropy;
use postrider::store::embedded::{RestoreError, check, restore};

use super::promise::{Promise, opening};
use super::record::{self, Record};
use super::session::{Copying, Stage, Story, load, wait_for};
use super::shim::Watch;

/// The backup, in a directory of its own.
const FILE: &str = "the.backup";

/// The target, in a directory that isn't there either.
const TARGET: &str = "new/data";

/// Records of a running gateway's backup, and of its restore.
pub fn taken_and_restored() -> (Story, Story) {
    let stage = Stage::new(1 << 30);
    let gateway = stage.start();
    let taken = load(&stage, "a", 24);
    wait_for(&stage, &taken);
    let (home, backups) = (stage.site.home().to_owned(), stage.aside("backups"));
    fs::create_dir(&backups).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (file, token) = (text(&backups.join(FILE)), text(&stage.site.data().join("token")));
    let server = format!("http://{}", stage.site.management);
    let arguments = ["backup", "--to", &file, "--server", &server, "--token-file", &token];
    let taking = watched(&stage, &arguments, &backups);
    stage.stop(gateway);
    let before = hear(Promise::of(stage.received()), &stage.records());
    let (target, config) = (text(&home.join(TARGET)), text(&home.join("postrider.toml")));
    let restoring = watched(&stage, &["restore", "--from", &file, "--data", &target, "--config", &config], &home);
    let backup: Arc<[u8]> = fs::read(&file).unwrap().into();
    let story = |name, root: &Path, records, before, copying| Story {
        name,
        records,
        root: root.to_owned(),
        erased: Vec::new(),
        dropped: BTreeMap::new(),
        before,
        backup: Some((copying, Arc::clone(&backup))),
    };
    let taken = story("backup", &backups, taking, Promise::default(), Copying::Taken);
    let restored = story("restore", &home, restoring, before, Copying::Restored);
    for (story, apart_from) in [(&taken, &[][..]), (&restored, &["log", "postrider.toml", "data"])] {
        story.assert_complete(apart_from);
        assert!(hear(story.before.clone(), &story.records).done, "{} did not say that it is done", story.name);
    }
    (taken, restored)
}

/// The record of a command that works below `dir`.
fn watched(stage: &Stage, arguments: &[&str], dir: &Path) -> Vec<Record> {
    let log = stage.aside(arguments[0]);
    let mut command = stage.site.command(arguments);
    Watch::default().set(&mut command, dir, &log);
    assert!(command.output().unwrap().status.success(), "{}", stage.site.log());
    record::read(&log)
}

fn hear(mut promise: Promise, records: &[Record]) -> Promise {
    records.iter().for_each(|record| promise.hear(record));
    promise
}

/// Says what is wrong with what a backup left in `home`.
pub fn check_taken(backup: &[u8], promise: &Promise, home: &Path) -> Result<(), String> {
    match fs::read(home.join(FILE)) {
        Ok(found) if found == backup => check(&found[..], &mut |_| {}).map(drop).map_err(|error| error.to_string()),
        Ok(found) => Err(format!("the backup has {} bytes, and not those that were written", found.len())),
        Err(error) if promise.done => Err(format!("the backup was done, and there is none: {error}")),
        Err(_) => Ok(()),
    }
}

/// Says what is wrong with what a restore left in `home`.
pub fn check_restored(
    story: &Story,
    backup: &[u8],
    promise: &Promise,
    home: &Path,
    random: &SeededEntropy,
) -> Result<(), String> {
    let target = home.join(TARGET);
    if !target.exists() {
        if promise.done {
            return Err("the restore was done, and there is nothing".to_owned());
        }
        again(backup, &target)?;
    }
    promise.check(story, &target, random)
}

/// Restores once more, after the leftover is removed that the first attempt names.
fn again(backup: &[u8], target: &Path) -> Result<(), String> {
    let leftover = target.with_file_name("data.restoring");
    let restore = || restore(backup, opening(target, &mut |_, _| {}), &mut |_| {});
    if leftover.exists() {
        match restore() {
            Err(RestoreError::Begun { dir }) if dir.ends_with(TARGET.to_owned() + ".restoring") => {}
            other => return Err(format!("beside a leftover a restore ended in {other:?}")),
        }
        fs::remove_dir_all(&leftover).unwrap();
    }
    restore().map(drop).map_err(|error| format!("it can't be restored again: {error}"))
}
