//! The gateway under load is killed at random moments, also while it starts, recovers or stops, and started again on the
//! same directory and ports, now and then without its key space. Segments and retention are small, so that the journal
//! rotates, seals, drops and carries meanwhile.

use std::sync::Arc;
use std::time::Duration;

use postrider::env::{Entropy, RealEntropy, SeededEntropy};

use super::audit::{Audited, Size, audit};
use super::endpoints::{Endpoints, SECRET};
use super::event::{Kind, PROVIDER_SECRET};
use super::ledger::Ledger;
use super::load::{self, Target};
use super::support::gateway::{Gateway, Site};

/// Bytes of a journal segment.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Bytes that the journal may take.
const RETENTION_BYTES: u64 = 8 << 20;

/// Bytes that the key space may take, whatever passes through it; sled grows by 8 MiB at a time.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Files that a gateway may have open: connections, segments being read, the key space.
const FILES_OPEN_MAX: usize = 300;

/// Milliseconds of a start in which a kill hits the most.
const START_MS: u64 = 80;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: expected a number, got {text:?}")))
}

fn config(endpoints: &Endpoints, rounds: u64) -> String {
    let mut text = format!(
        r#"
        [[source]]
        name = "stripe"
        provider = "stripe"
        secrets = ["{PROVIDER_SECRET}"]
        [[source]]
        name = "github"
        provider = "github"
        secrets = ["{PROVIDER_SECRET}"]
        [retention]
        bytes = {RETENTION_BYTES}
        dedup_days = 0.0014
        [limits]
        segment_bytes = {SEGMENT_BYTES}
        batch_bytes = "512KiB"
        body_bytes = "256KiB"
        api_body_bytes = "256KiB"
        recent_bytes = "1MiB"
        lag_bytes = "1MiB"
        cache_bytes = "8MiB"
        free_bytes = "1MiB"
        window = 400
        in_flight = 64
        endpoint_in_flight = 16
        "#
    );
    let retry = "{ schedule_s = [0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0], jitter = 0.1 }";
    // Long enough that what is held back outlives the run.
    let patient = format!("{{ base_s = {}, factor = 1.0, retries = 100 }}", 1 + rounds / 25);
    let all = "sources = [\"stripe\", \"github\"]\nevent_types = [\"order.*\"]";
    for (name, takes, retry) in [
        ("steady", all, retry),
        ("flaky", all, retry),
        ("slow", all, retry),
        ("held", "event_types = [\"held.*\"]", patient.as_str()),
        ("refusing", "event_types = [\"refused.*\", \"held.*\"]", retry),
    ] {
        let url = format!("http://{}/{name}", endpoints.address);
        text.push_str(&format!(
            "\n[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\n{takes}\nsecret = \"{SECRET}\"\nretry = {retry}\n"
        ));
    }
    text
}

/// One run.
struct Run {
    site: Site,
    ledger: Arc<Ledger>,
    endpoints: Endpoints,
    random: SeededEntropy,
    kills: u64,
    kills_at_start: u64,
    largest: Size,
    files_open_max: usize,
}

impl Run {
    fn new(rounds: u64, seed: u64) -> Self {
        let ledger = Arc::new(Ledger::new());
        let endpoints = Endpoints::start(&ledger, seed ^ 1);
        let site = Site::new(&config(&endpoints, rounds));
        let random = SeededEntropy::new(seed);
        let largest = Size::default();
        Self { site, ledger, endpoints, random, kills: 0, kills_at_start: 0, largest, files_open_max: 0 }
    }

    /// A moment that nobody chose.
    fn moment(&self, from_ms: u64, to_ms: u64) {
        std::thread::sleep(Duration::from_millis(from_ms + self.random.next_u64() % (to_ms - from_ms)));
    }

    /// A gateway that serves, after none, one or two that did not get that far.
    fn start(&mut self) -> Gateway {
        if self.random.next_u64().is_multiple_of(6) {
            // The key space can be built anew at any time, and that can be cut short as well.
            let _ = std::fs::remove_dir_all(self.site.data().join("index"));
        }
        for _ in 0..self.random.next_u64() % 3 {
            let gateway = self.spawn();
            self.moment(0, START_MS);
            gateway.kill();
            self.ledger.set_down(true);
            self.kills_at_start += 1;
        }
        let mut gateway = self.spawn();
        assert!(gateway.is_ready(), "the gateway ended with {:?}", gateway.exit_code());
        self.measure(&gateway);
        gateway
    }

    fn spawn(&self) -> Gateway {
        let gateway = Gateway::spawn(self.site.serve());
        self.ledger.set_down(false);
        gateway
    }

    /// Kills it; every fourth one while it stops of its own accord.
    fn kill(&mut self, gateway: Gateway) {
        self.measure(&gateway);
        if self.random.next_u64().is_multiple_of(4) {
            gateway.terminate();
            self.moment(0, 60);
            gateway.kill_ending();
        } else {
            gateway.kill();
        }
        self.ledger.set_down(true);
        self.kills += 1;
        let wrong = self.ledger.book().wrong.clone();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Nothing may grow without bound, now or ever.
    fn measure(&mut self, gateway: &Gateway) {
        let size = Size::of(&self.site.data());
        self.largest = self.largest.max(size);
        let files_open = std::fs::read_dir(format!("/proc/{}/fd", gateway.id())).map_or(0, Iterator::count);
        self.files_open_max = self.files_open_max.max(files_open);
        let journal_bytes_max = RETENTION_BYTES + 4 * SEGMENT_BYTES;
        assert!(size.journal_bytes <= journal_bytes_max, "{size:?}");
        assert!(size.index_bytes <= INDEX_BYTES_MAX, "{size:?}");
        assert!(files_open <= FILES_OPEN_MAX, "{files_open} files open");
    }

    fn target(&self) -> Target {
        Target { ingress: self.site.ingress, management: self.site.management, token: self.site.token() }
    }
}

#[test]
fn killed_at_random_moments_it_loses_nothing_and_stores_nothing_twice() {
    let rounds = number("CRASH_ROUNDS").unwrap_or(20);
    let seed = number("CRASH_SEED").unwrap_or_else(|| RealEntropy.next_u64());
    eprintln!("CRASH_SEED={seed} CRASH_ROUNDS={rounds}");
    let mut run = Run::new(rounds, seed);
    let mut gateway = run.start();
    let senders = load::start(&run.ledger, &run.target(), seed ^ 2);
    for _ in 0..rounds {
        run.moment(30, 900);
        run.kill(gateway);
        gateway = run.start();
    }
    run.moment(30, 300);
    run.ledger.stop();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    run.endpoints.release();
    run.ledger.drain(|book| {
        let mut held = book.entries.iter().filter(|entry| entry.acknowledged && entry.event.kind == Kind::Held);
        held.all(|entry| entry.taken[3] > 0)
    });
    run.measure(&gateway);
    let audited = audit(&run.site, &run.ledger, gateway);
    report(&run, rounds, &audited);
}

fn report(run: &Run, rounds: u64, audited: &Audited) {
    let book = run.ledger.book();
    let acknowledged = book.entries.iter().filter(|entry| entry.acknowledged).count();
    let log = run.site.log();
    let told = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    println!(
        "{rounds} rounds in {} s: {} kills under load, {} in start-up; {} events made, {acknowledged} acknowledged\n{:?}\n{audited:?}\nlargest {:?}, {} files open at most; {} segments dropped, {} torn batches, {} key spaces rebuilt",
        run.ledger.now_ms() / 1_000,
        run.kills,
        run.kills_at_start,
        book.entries.len(),
        book.figures,
        run.largest,
        run.files_open_max,
        told("dropped the oldest"),
        told("left out a batch"),
        told("built the key space"),
    );
}
