//! The pure parts by themselves: `cargo bench --bench micro`. Each runs at least once per event or attempt, so their sum is
//! the least that the gateway's own code costs.

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use postrider::core::attempt::{Attempt, Outcome, Timings};
use postrider::core::delivery::{DeliveryId, Next, Pending};
use postrider::core::endpoint::{app_id, endpoint_id};
use postrider::core::event::{DedupKey, DedupScope, EventMeta, body_fingerprint};
use postrider::core::fact::{DedupEntry, Fact};
use postrider::core::headers::Headers;
use postrider::core::id::{AttemptId, EventId};
use postrider::core::pattern::Pattern;
use postrider::core::retry::RetryPolicy;
use postrider::core::secret::Secret;
use postrider::core::signature::{self, Profile, Request};
use postrider::env::{Disk, DiskFile, Space};
use postrider::index;
use postrider::journal::{Journal, Options, RecordRef};

/// Bytes of a body, as in the gateway's bench.
const BODY_BYTES: usize = 1_024;

/// Records of a batch: what 64 connections bring at once.
const BATCH: usize = 64;

/// The time that is signed.
const UNIX_S: i64 = 1_700_000_000;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn body() -> Vec<u8> {
    let start = r#"{"id":"evt_000000000001","type":"invoice.paid","data":""#;
    format!("{start}{}\"}}", "x".repeat(BODY_BYTES - start.len() - 2)).into_bytes()
}

fn event_id() -> EventId {
    EventId::at(1_700_000_000_000, 7)
}

fn signatures(c: &mut Criterion) {
    let mut group = c.benchmark_group("signature");
    group.throughput(Throughput::Bytes(BODY_BYTES as u64));
    let (body, secrets, id) = (body(), [Secret::new(SECRET)], event_id().to_string());
    for profile in [Profile::StandardWebhooks, Profile::Stripe, Profile::GitHub] {
        group.bench_function(format!("sign {}", profile.name()), |b| {
            b.iter(|| profile.headers(&secrets, &id, UNIX_S, black_box(&body)).unwrap());
        });
    }
    for (provider, profile) in
        [("standard_webhooks", Profile::StandardWebhooks), ("stripe", Profile::Stripe), ("github", Profile::GitHub)]
    {
        let scheme = signature::provider(provider).unwrap();
        let mut headers: Headers = [("host", "hooks.example"), ("user-agent", "x")].into_iter().collect();
        for (name, value) in profile.headers(&secrets, &id, UNIX_S, &body).unwrap() {
            headers.push(name, value.as_bytes());
        }
        let request =
            Request { method: "POST", url: "https://hooks.example/in/x", headers: &headers, body: black_box(&body) };
        group.bench_function(format!("verify {provider}"), |b| {
            b.iter(|| scheme.verify(&secrets, &request, UNIX_S, None).unwrap());
        });
        group.bench_function(format!("identity {provider}"), |b| b.iter(|| scheme.identity(&request)));
    }
    group.bench_function("fingerprint", |b| b.iter(|| body_fingerprint(black_box(&body))));
    group.bench_function("dedup key", |b| {
        b.iter(|| DedupKey::new(DedupScope::Inbound, 7, black_box("evt_000000000001")));
    });
    group.finish();
}

fn accepted() -> Fact {
    let fields = [("content-type", "application/json"), ("user-agent", "Stripe/1.0"), ("stripe-signature", SECRET)];
    let meta = EventMeta {
        id: event_id(),
        app: app_id("default"),
        source: None,
        event_type: Some("invoice.paid".into()),
        external_id: Some("evt_000000000001".into()),
        accepted_ms: event_id().ms(),
        headers: fields.into_iter().collect(),
        endpoints: vec![endpoint_id("default", "app")],
    };
    let dedup = vec![DedupKey::new(DedupScope::Inbound, 7, "evt_000000000001")];
    Fact::Accepted { meta, dedup, dedup_expires_ms: event_id().ms() + 1, fingerprint: 7 }
}

fn settled() -> Fact {
    let fields = [("date", "Thu, 01 Jan 2026 00:00:00 GMT"), ("content-length", "0")];
    let (started_ms, ended_ms) = (event_id().ms(), event_id().ms() + 2);
    let attempt = Attempt {
        id: AttemptId::at(started_ms, 9),
        number: 1,
        started_ms,
        ended_ms,
        timings: Timings { first_byte_us: Some(900), total_us: 1_000, ..Timings::default() },
        outcome: Outcome::Answered { status: 204, retry_after_ms: None },
        remote: Some("127.0.0.1:3000".into()),
        response_headers: fields.into_iter().collect(),
        response_truncated: false,
    };
    Fact::Settled { delivery: delivery(), was: Pending::fresh(started_ms), attempt, next: Next::Delivered }
}

fn delivery() -> DeliveryId {
    DeliveryId { endpoint: endpoint_id("default", "app"), event: event_id() }
}

fn facts(c: &mut Criterion) {
    let mut group = c.benchmark_group("fact");
    for (name, fact) in [("accepted", accepted()), ("settled", settled())] {
        let mut encoded = Vec::new();
        group.bench_function(format!("encode {name}"), |b| {
            b.iter(|| {
                encoded.clear();
                black_box(&fact).encode_into(&mut encoded);
            });
        });
        let bytes = encoded.clone();
        let kind = fact.kind();
        group.bench_function(format!("decode {name}"), |b| b.iter(|| Fact::decode(kind, black_box(&bytes)).unwrap()));
    }
    group.finish();
}

fn keys(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    let (id, pending) = (delivery(), Pending { due_ms: 1_700_000_060_000, attempts: 1, failures: 1 });
    let dedup = DedupKey::new(DedupScope::Inbound, 7, "evt_000000000001");
    let entry = DedupEntry { event: id.event, fingerprint: 7, expires_ms: 9 };
    group.bench_function("due key and value", |b| {
        b.iter(|| (index::due::key(id.endpoint, pending.due_ms, black_box(id.event)), index::due::value(&pending)));
    });
    let (key, value) = (index::due::key(id.endpoint, pending.due_ms, id.event), index::due::value(&pending));
    group.bench_function("parse due key and value", |b| {
        b.iter(|| (index::due::parse_key(black_box(&key)), index::due::parse_value(pending.due_ms, black_box(&value))));
    });
    group.bench_function("dedup key and value", |b| {
        b.iter(|| (index::dedup::key(black_box(&dedup)), index::dedup::value(&entry)));
    });
    let (key, value) = (index::dedup::key(&dedup), index::dedup::value(&entry));
    group.bench_function("parse dedup key and value", |b| {
        b.iter(|| (index::dedup::parse_key(black_box(&key)), index::dedup::parse_value(black_box(&value))));
    });
    group.finish();
}

fn rules(c: &mut Criterion) {
    let mut group = c.benchmark_group("rule");
    for pattern in ["invoice.paid", "invoice.*", "**", "*.*.failed"] {
        let parsed: Pattern = pattern.parse().unwrap();
        group.bench_function(format!("match {pattern}"), |b| b.iter(|| parsed.matches(black_box("invoice.paid"))));
    }
    let policy = RetryPolicy::default();
    group.bench_function("retry delay", |b| b.iter(|| policy.delay_ms(black_box(3), 0.5)));
    group.bench_function("event id as text", |b| b.iter(|| black_box(event_id()).to_string()));
    group.finish();
}

/// A disk that takes everything and keeps nothing, so that only the journal's own work is measured.
struct NoDisk;

struct NoFile;

impl Disk for NoDisk {
    type File = NoFile;

    fn create_new(&self, _: &Path) -> io::Result<NoFile> {
        Ok(NoFile)
    }

    fn open(&self, _: &Path, _: bool) -> io::Result<NoFile> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn unlink(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: u64::MAX, total_bytes: u64::MAX })
    }
}

impl DiskFile for NoFile {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_all_at(&self, buffer: &[u8], _: u64) -> io::Result<()> {
        black_box(buffer);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
}

fn journal(c: &mut Criterion) {
    let mut group = c.benchmark_group("journal");
    group.throughput(Throughput::Elements(BATCH as u64));
    let (fact, body) = (accepted(), body());
    let mut meta = Vec::new();
    fact.encode_into(&mut meta);
    let record = RecordRef { kind: fact.kind(), key: fact.key(), meta: &meta, body: &body };
    let records = vec![record; BATCH];
    let options = Options { segment_bytes: 1 << 20, ..Options::default() };
    group.bench_function("frame of 64 records", |b| {
        b.iter_batched_ref(
            || {
                let (mut journal, _) = Journal::open(Arc::new(NoDisk), Path::new("none"), options, 1, 1).unwrap();
                // The second batch finds the buffer of the first, as every one but the first does.
                journal.append_batch(1, &records).unwrap();
                journal.sync().unwrap();
                journal
            },
            |journal| {
                journal.append_batch(1, black_box(&records)).unwrap();
                journal.sync().unwrap();
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_millis(900));
    targets = signatures, facts, keys, rules, journal
}
criterion_main!(benches);
