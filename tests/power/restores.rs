//! A restore, recorded, and what a power cut may leave of it: the whole store of the backup, or nothing and the way free for
//! another restore.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use postrider::env::SeededEntropy;
use postrider::store::embedded::{RestoreError, restore};

use super::promise::{Promise, opening};
use super::record::{self, Record};
use super::session::{Stage, Story, load, wait_for};
use super::shim::Watch;

/// The target, in a directory that isn't there either.
const TARGET: &str = "new/data";

/// The record of a restore of a running gateway's backup.
pub fn restored() -> Story {
    let stage = Stage::new(1 << 30);
    let gateway = stage.start();
    let taken = load(&stage.site, "a", 24);
    wait_for(&stage, &taken);
    let (file, log) = (stage.aside("the.backup"), stage.aside("restore"));
    let (token, home) = (stage.site.data().join("token"), stage.site.home().to_owned());
    let server = format!("http://{}", stage.site.management);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let arguments = ["backup", "--to", &text(&file), "--server", &server, "--token-file", &text(&token)];
    assert!(stage.site.command(&arguments).output().unwrap().status.success(), "{}", stage.site.log());
    stage.stop(gateway);
    let mut before = Promise::default();
    for record in stage.records() {
        if let Record::Send { bytes } = record {
            before.hear(&bytes);
        }
    }
    let (target, config) = (text(&home.join(TARGET)), text(&home.join("postrider.toml")));
    let arguments = ["restore", "--from", &text(&file), "--data", &target, "--config", &config];
    let mut command = stage.site.command(&arguments);
    Watch::default().set(&mut command, &home, &log);
    assert!(command.output().unwrap().status.success(), "{}", stage.site.log());
    let (records, backup) = (record::read(&log), Some(Arc::from(fs::read(&file).unwrap())));
    let story = Story { name: "restore", records, root: home, erased: Vec::new(), drops: false, before, backup };
    story.assert_complete(&["log", "postrider.toml", "data"]);
    assert!(heard(&story).restored, "it did not say that it is done");
    story
}

fn heard(story: &Story) -> Promise {
    let mut promise = story.before.clone();
    for record in &story.records {
        if let Record::Send { bytes } = record {
            promise.hear(bytes);
        }
    }
    promise
}

/// Says what is wrong with what lies in `home`.
pub fn check(
    story: &Story,
    backup: &[u8],
    promise: &Promise,
    home: &Path,
    random: &SeededEntropy,
) -> Result<(), String> {
    let target = home.join(TARGET);
    if !target.exists() {
        if promise.restored {
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
