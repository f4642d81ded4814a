//! What differs from run to run: limits, endpoints and their schedules.

use postrider::core::endpoint::{DEFAULT_APP, Endpoint, app_id, endpoint_id};
use postrider::core::id::EndpointId;
use postrider::core::limits::{DeliveryLimits, StoreLimits};
use postrider::core::retry::RetryPolicy;
use postrider::core::signature::Profile;

use super::model::Terms;
use super::stage::Dice;

/// Endpoints that a run may have.
pub const ENDPOINTS: usize = 4;

/// By which share of it a delay may be longer than the schedule says.
pub const JITTER: f64 = 0.1;

const HOUR_MS: u64 = 3_600_000;

#[derive(Debug, Clone)]
pub struct Shape {
    pub limits: StoreLimits,
    pub delivery: DeliveryLimits,
    pub is_tight: bool,
    /// Seconds between the attempts.
    schedules_s: Vec<&'static [u64]>,
    in_flight_max: Vec<usize>,
}

impl Shape {
    pub fn draw(dice: &mut Dice) -> Self {
        let is_tight = dice.one_in(3);
        let limits = StoreLimits {
            segment_bytes: 64 << 10,
            queue_items_max: dice.pick(&[8_192, 8_192, 8]),
            queue_bytes_max: dice.pick(&[1 << 20, 64 << 10]),
            batch_records_max: dice.pick(&[4_096, 8]),
            batch_bytes_max: dice.pick(&[16 << 10, 12 << 10]),
            lag_bytes_max: dice.pick(&[64 << 20, 4_096]),
            recent_bytes_max: dice.pick(&[1 << 20, 8 << 10, 0]),
            cache_bytes: 1 << 20,
            retention_ms: dice.pick(&[HOUR_MS, 48 * HOUR_MS, 720 * HOUR_MS]),
            retention_bytes: if is_tight { 512 << 10 } else { 1 << 30 },
            dedup_ms: dice.pick(&[HOUR_MS, 168 * HOUR_MS, 168 * HOUR_MS]),
            free_bytes_min: dice.pick(&[0, 64 << 10]),
            pending_max: dice.pick(&[1 << 20, 1 << 20, 10]),
            ..StoreLimits::default()
        };
        let delivery = DeliveryLimits {
            in_flight_max: dice.pick(&[1_024, 2]),
            window_max: dice.pick(&[10_000, 4]),
            ..DeliveryLimits::default()
        };
        let lists: &[&'static [u64]] =
            &[&[60, 300, 900, 3_600, 14_400, 43_200], &[5], &[], &[1, 1, 1, 1], &[5, 300, 86_400]];
        let schedules_s = (0..ENDPOINTS).map(|_| dice.pick(lists)).collect();
        let in_flight_max = (0..ENDPOINTS).map(|_| dice.pick(&[64, 1, 2])).collect();
        Self { limits, delivery, is_tight, schedules_s, in_flight_max }
    }

    pub fn terms(&self) -> Terms {
        let StoreLimits { retention_ms, dedup_ms, .. } = self.limits;
        let schedules_s = (0..ENDPOINTS).map(|n| (endpoint(n), self.schedules_s[n])).collect();
        let (is_tight, in_flight_max) = (self.is_tight, self.delivery.in_flight_max);
        Terms { retention_ms, dedup_ms, is_tight, in_flight_max, schedules_s }
    }

    pub fn endpoint(&self, n: usize) -> Endpoint {
        Endpoint {
            id: endpoint(n),
            name: name(n),
            app: app_id(DEFAULT_APP),
            app_name: DEFAULT_APP.to_owned(),
            url: format!("https://{}.example/", name(n)),
            sources: Vec::new(),
            event_types: Vec::new(),
            secrets: Vec::new(),
            profile: Profile::StandardWebhooks,
            retry: RetryPolicy::list(self.schedules_s[n], JITTER).expect("the lists are within limits"),
            timeout_ms: 30_000,
            in_flight_max: self.in_flight_max[n],
        }
    }
}

fn name(n: usize) -> String {
    format!("endpoint-{n}")
}

pub fn endpoint(n: usize) -> EndpointId {
    endpoint_id(DEFAULT_APP, &name(n))
}

pub fn endpoints() -> Vec<EndpointId> {
    (0..ENDPOINTS).map(endpoint).collect()
}
