//! The key space fails, or hangs, at a moment of our choice.

use super::events::Clients;
use super::session::{Stage, api, load};
use super::shim::{Fault, HANG};
use super::states::number;

const EIO: i32 = 5;

/// Readers of all kinds at once, more than the runtime has threads.
const READERS: usize = 8;

fn assert_failed(stage: &Stage, code: Option<i32>) {
    let log = stage.site.log();
    assert_eq!(code, Some(6), "{log}");
    assert!(log.lines().any(|line| line.starts_with("error: ")), "{log}");
}

/// What was answered is in the journal, so nothing is lost; but an end that did not write all is not one in order.
#[test]
fn a_last_write_of_the_key_space_that_fails_is_told_by_the_exit_code() {
    for kind in ["write", "sync"] {
        let stage = Stage::new(1 << 30);
        let mut gateway = stage.start_with(Fault { kind, n: 1, errno: EIO, always: true }, "/index/");
        let first = Clients::new(&stage.site).send("github-first").unwrap();
        assert!(first.is_some());
        stage.fault_begins();
        gateway.terminate();
        assert_failed(&stage, gateway.exit_code());
        let gateway = stage.start();
        assert_eq!(Clients::new(&stage.site).send("github-first").unwrap(), first);
        stage.stop(gateway);
    }
}

/// sled has half a minute for a batch, so this is not for every run.
#[test]
fn a_key_space_that_hangs_ends_the_process_while_others_read() {
    if number("POSTRIDER_HANGS").is_none() {
        println!("SKIPPED: it takes a minute; POSTRIDER_HANGS=1 runs it");
        return;
    }
    for kind in ["write", "sync"] {
        let stage = Stage::new(1 << 30);
        let mut gateway = stage.start_with(Fault { kind, n: 1, errno: HANG, always: true }, "/index/");
        stage.fault_begins();
        std::thread::scope(|scope| {
            for reader in 0..READERS {
                let site = &stage.site;
                scope.spawn(move || {
                    let path = ["/api/v1/app/default/msg", "/api/v1/dead-letter", "/metrics", "/readyz"][reader % 4];
                    let mut api = api(site);
                    // It ends when the gateway does.
                    while api.get(path).is_ok() {}
                });
            }
            load(&stage, "hang", 100_000);
        });
        assert_failed(&stage, gateway.exit_code());
    }
}

/// Readers can't give up: whoever waits for the storage holds what all others need. There is a watch for that.
#[test]
fn a_key_space_whose_reads_hang_ends_the_process() {
    if number("POSTRIDER_HANGS").is_none() {
        println!("SKIPPED: it takes two minutes; POSTRIDER_HANGS=1 runs it");
        return;
    }
    let stage = Stage::new(1 << 30);
    let path = stage.site.home().join("postrider.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace("[limits]\n", "[limits]\ncache_bytes = \"1MiB\"\n")).unwrap();
    let gateway = stage.start();
    // More dedup keys than the cache holds.
    let taken = load(&stage, "hang", 15_000);
    stage.stop(gateway);
    let mut gateway = stage.start_with(Fault { kind: "read", n: 1, errno: HANG, always: true }, "/index/");
    stage.fault_begins();
    // Each is looked for, and the load ends when the gateway does.
    load(&stage, "hang", usize::MAX);
    assert_failed(&stage, gateway.exit_code());
    assert!(stage.site.log().contains("a read of the key space did not return"), "{}", stage.site.log());
    let gateway = stage.start();
    let (key, id) = &taken[0];
    assert_eq!(Clients::new(&stage.site).send(key).unwrap().as_ref(), Some(id));
    stage.stop(gateway);
}
