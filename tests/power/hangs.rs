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
