//! A disk that never returns from a call: whatever waits for it then, a gateway whose storage failed comes to its end.

use super::session::{Stage, api, load};
use super::shim::{Fault, HANG, Watch};
use super::states::number;

/// Readers of all kinds at once, more than the runtime has threads.
const READERS: usize = 8;

/// sled has half a minute for a batch, so this is not for every run.
#[test]
fn a_key_space_that_hangs_ends_the_process_while_others_read() {
    if number("POSTRIDER_HANGS").is_none() {
        println!("SKIPPED: it takes a minute; POSTRIDER_HANGS=1 runs it");
        return;
    }
    for (kind, n) in [("write", 8), ("sync", 8)] {
        let stage = Stage::new(1 << 30);
        let fault = Fault { kind, n, errno: HANG, always: true };
        let mut gateway = stage.spawn(Watch { fault: Some(fault), fault_in: Some("/index/"), ..Watch::default() });
        assert!(gateway.is_ready(), "{}", stage.site.log());
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
            load(&stage.site, "hang", 100_000);
        });
        assert_eq!(gateway.exit_code(), Some(6), "{kind}: {}", stage.site.log());
        let log = stage.site.log();
        assert!(log.lines().any(|line| line.starts_with("error: ")), "{log}");
    }
}
