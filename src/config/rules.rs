//! What settings must be to each other, checked once all sources have been read.
//!
//! An error stands where the operator wrote one of the two settings; the defaults keep every rule.

use std::net::SocketAddr;

use super::error::Report;
use super::settings::Origins;
use super::{Config, size};

/// Bytes of a stored record beside body and headers: ids, times, names, checksums, with room to spare.
const RECORD_OVERHEAD_BYTES: u64 = 4 << 10;

/// Segments that the journal needs beside the ones it drops: one written, one prepared, two for settles and for carrying
/// what is pending.
const SEGMENTS_MIN: u64 = 4;

/// Batches that a segment must hold, so that sealing stays rare beside writing.
const BATCHES_PER_SEGMENT_MIN: u64 = 2;

/// Memory that the process takes whatever its limits: code, threads, buffers of connections, what is known of dedup keys (64 MiB
/// at most), what the allocator holds free.
const PROCESS_BYTES: u64 = 128 << 20;

/// sled holds so many times its cache.
const CACHE_FACTOR: u64 = 3;

/// Memory that a pending delivery takes, as estimated: its entries in the key space, the count by age, and what the allocator
/// holds free around them, which is more than half. A process with 2,000,000 came to 567 MiB (docs/durability.md).
const PENDING_BYTES: u64 = 192;

/// A setting with what the rule is about: its value, or its value and what comes on top.
struct Side {
    key: &'static str,
    value: u64,
    /// What the other side must hold for it.
    needs: u64,
}

/// Fits defaults to what was written.
pub(super) fn fit_defaults(config: &mut Config, origins: &Origins) {
    // As many as have room beside everything else.
    if origins.written("limits.pending").is_none() {
        let room = config.limits.process_bytes_max.saturating_sub(standing_bytes(config));
        config.limits.store.pending_max = (room / PENDING_BYTES).clamp(1, config.limits.store.pending_max);
    }
    let delivery = &mut config.limits.delivery;
    // Whoever lowers the total has no reason to think of the share of one endpoint.
    if origins.written("limits.endpoint_in_flight").is_none() {
        delivery.endpoint_in_flight_max = delivery.endpoint_in_flight_max.min(delivery.in_flight_max);
    }
}

/// Memory of everything but the deliveries that are pending.
fn standing_bytes(config: &Config) -> u64 {
    let (ingress, store) = (&config.limits.ingress, &config.limits.store);
    PROCESS_BYTES
        + (ingress.memory_bytes_max + store.queue_bytes_max + store.batch_bytes_max + store.recent_bytes_max) as u64
        + store.lag_bytes_max
        + CACHE_FACTOR * store.cache_bytes
}

/// Checks every rule.
pub(super) fn check(config: &Config, origins: &Origins, report: &mut Report) {
    let (ingress, store) = (&config.limits.ingress, &config.limits.store);
    let (delivery, api) = (&config.limits.delivery, &config.limits.api);
    let request = ingress.body_bytes_max + ingress.header_bytes_max as u64 + RECORD_OVERHEAD_BYTES;
    let message = api.body_bytes_max + RECORD_OVERHEAD_BYTES;
    let mut rules = Rules { origins, report };
    let body = |needs| Side { key: "limits.body_bytes", value: ingress.body_bytes_max, needs };
    let api_body = |needs| Side { key: "limits.api_body_bytes", value: api.body_bytes_max, needs };
    let batch = |needs| Side { key: "limits.batch_bytes", value: store.batch_bytes_max as u64, needs };
    let segment = |needs| Side { key: "limits.segment_bytes", value: store.segment_bytes, needs };
    let queue = || exactly("limits.queue_bytes", store.queue_bytes_max);
    let memory = || exactly("limits.memory_bytes", ingress.memory_bytes_max);
    let bytes = size::written;
    rules.holds(body(request), batch(0), bytes, "a request with its headers must fit into a batch");
    rules.holds(api_body(message), batch(0), bytes, "a message must fit into a batch");
    rules.holds(body(request), queue(), bytes, "a request with its headers must fit into the queue");
    rules.holds(api_body(message), queue(), bytes, "a message must fit into the queue");
    rules.holds(body(ingress.body_bytes_max), memory(), bytes, "a body must fit into the memory for bodies");
    let batches = BATCHES_PER_SEGMENT_MIN * store.batch_bytes_max as u64;
    rules.holds(batch(batches), segment(0), bytes, "a segment must hold two batches");
    let segments = SEGMENTS_MIN * store.segment_bytes;
    let retention = Side { key: "retention.bytes", value: store.retention_bytes, needs: 0 };
    rules.holds(segment(segments), retention, bytes, "the journal needs four segments");
    let pending = Side {
        key: "limits.pending",
        value: store.pending_max,
        needs: standing_bytes(config) + PENDING_BYTES * store.pending_max,
    };
    let process = Side { key: "limits.process_bytes", value: config.limits.process_bytes_max, needs: 0 };
    let written = |n: u64| if n == store.pending_max { n.to_string() } else { size::written(n) };
    rules.holds(pending, process, written, "bodies, queue, cache and pending deliveries must fit into the memory");
    let kept = exactly("limits.response_kept_bytes", delivery.response_bytes_kept);
    let read = exactly("limits.response_read_bytes", delivery.response_bytes_read);
    rules.holds(kept, read, bytes, "what is kept must be read");
    let count = |n: u64| n.to_string();
    let each = exactly("limits.endpoint_in_flight", delivery.endpoint_in_flight_max);
    let all = || exactly("limits.in_flight", delivery.in_flight_max);
    rules.holds(each, all(), count, "one endpoint's attempts are among all attempts");
    let window = exactly("limits.window", delivery.window_max);
    rules.holds(all(), window, count, "what is in flight is in the window");
    check_listeners(config, origins, report);
}

fn exactly(key: &'static str, value: usize) -> Side {
    Side { key, value: value as u64, needs: value as u64 }
}

struct Rules<'a> {
    origins: &'a Origins,
    report: &'a mut Report,
}

impl Rules<'_> {
    /// The large setting must be at least what the small one needs.
    fn holds(&mut self, small: Side, large: Side, written: impl Fn(u64) -> String, why: &str) {
        if small.needs <= large.value {
            return;
        }
        let (at, message) = if self.origins.written(large.key).is_some() || self.origins.written(small.key).is_none() {
            let (least, got) = (written(small.needs), written(large.value));
            let of = format!("{} = {}", small.key, written(small.value));
            (large.key, format!("expected at least {least} for {of}, got {got}: {why}"))
        } else {
            let of = format!("{} = {}", large.key, written(large.value));
            (small.key, format!("expected less for {of}, got {}: {why}", written(small.value)))
        };
        self.report.error(self.origins.spot(at), &message);
    }
}

/// Two listeners can't share an address, and a management listener that others reach is worth a word.
fn check_listeners(config: &Config, origins: &Origins, report: &mut Report) {
    let (ingress, management) = (config.listeners.ingress, config.listeners.management);
    let is_everywhere = |a: SocketAddr| a.ip().is_unspecified();
    let is_same_ip = ingress.ip() == management.ip() || is_everywhere(ingress) || is_everywhere(management);
    // Port 0 means any free one.
    if ingress.port() == management.port() && ingress.port() != 0 && is_same_ip {
        let written = origins.written("listen.management").or(origins.written("listen.ingress"));
        let at = written.cloned().unwrap_or_else(|| origins.spot("listen.management"));
        report.error(at, &format!("expected two addresses, got {ingress} for ingress and {management} for management"));
    }
    if !management.ip().is_loopback() {
        let text = format!(
            "the management API at {management} can be reached from other machines; only its token protects it, and it is \
             not encrypted"
        );
        report.warn(origins.spot("listen.management"), &text);
    }
}
