//! The rules of delivering, told once more and apart from the code that keeps them: what follows an attempt, in which order
//! attempts are made, how many at once, and that none is forgotten.

use postrider::core::attempt::Outcome;
use postrider::core::delivery::{DeadReason, DeliveryId, Next, Pending};
use postrider::core::id::{EndpointId, EventId};
use postrider::engine::Job;
use postrider::store::Settle;

use super::super::shape::JITTER;
use super::Model;

/// The longest that a receiver can put off a retry.
const PUT_OFF_MAX_MS: u64 = 12 * 3_600_000;

/// Milliseconds after which what is due has been begun, if nothing keeps it.
const BEGUN_WITHIN_MS: u64 = 2_000;

/// Whether this follows an attempt with this outcome, after so many failures in a row.
fn follows(next: Next, outcome: &Outcome, schedule_s: &[u64], failures: u32, ended_ms: u64) -> bool {
    let asked_ms = match outcome {
        Outcome::Answered { status: 200..=299, .. } => return next == Next::Delivered,
        Outcome::Answered { status: 410, .. } => return next == Next::Dead { reason: DeadReason::Gone },
        Outcome::Answered { status: 408 | 425 | 429 | 300..=399 | 500.., retry_after_ms } => {
            retry_after_ms.unwrap_or(0)
        }
        Outcome::Answered { .. } => return next == Next::Dead { reason: DeadReason::Rejected },
        Outcome::Failed { .. } => 0,
    };
    match (next, schedule_s.get(failures as usize)) {
        (Next::Retry { due_ms }, Some(delay_s)) => {
            let (at_least_ms, asked_ms) = (delay_s * 1_000, asked_ms.min(PUT_OFF_MAX_MS));
            let at_most_ms = (at_least_ms as f64 * (1.0 + JITTER)) as u64;
            (at_least_ms.max(asked_ms)..=at_most_ms.max(asked_ms)).contains(&(due_ms - ended_ms))
        }
        (next, None) => next == Next::Dead { reason: DeadReason::MaxRetries },
        _ => false,
    }
}

impl Model {
    pub(super) fn judge_next(&self, settle: &Settle) {
        let Settle { delivery, was, next, attempt, .. } = settle;
        let Some(schedule_s) = self.terms.schedules_s.get(&delivery.endpoint) else { return };
        if !follows(*next, &attempt.outcome, schedule_s, was.failures, attempt.ended_ms) {
            let Pending { failures, .. } = was;
            self.breach(format!(
                "{next:?} at {} after {failures} failures and {:?}",
                attempt.ended_ms, attempt.outcome
            ));
        }
    }

    /// At one endpoint what fell due first goes first, and of what fell due together the older event.
    pub(super) fn judge_order(&self, id: DeliveryId) {
        let key = |event: EventId| {
            let course = self.events.get(&event)?.courses.get(&id.endpoint)?;
            course.waits().map(|pending| (pending.due_ms, event, course))
        };
        let Some((due_ms, ..)) = key(id.event).filter(|_| !self.failed) else { return };
        let earlier = self.events.keys().filter_map(|event| key(*event)).find(|(other_ms, event, course)| {
            let waits = !self.leases.contains(&DeliveryId { event: *event, ..id }) && course.is_settled_for(0);
            waits && (*other_ms, *event) < (due_ms, id.event)
        });
        if let Some((other_ms, event, _)) = earlier {
            let (endpoint, this) = (id.endpoint, id.event);
            self.breach(format!("{this}, due at {due_ms}, went to {endpoint} before {event}, due at {other_ms}"));
        }
    }

    /// One more attempt is under way.
    pub(super) fn count_in(&mut self, job: &Job) {
        let (endpoint, max) = (job.endpoint.id, job.endpoint.in_flight_max);
        *self.running.entry(endpoint).or_default() += 1;
        let (here, all) = (self.running[&endpoint], self.running.values().sum::<usize>());
        if here > max || all > self.terms.in_flight_max {
            self.breach(format!("{here} attempts at {endpoint} at once, at most {max}; {all} in all"));
        }
    }

    /// It has ended.
    pub fn attempt_ends(&mut self, endpoint: EndpointId) {
        *self.running.entry(endpoint).or_default() -= 1;
    }

    /// While nothing is under way, nothing may be due that could be. `slow_ms` is the time that the disk took from everybody.
    pub fn judge_idle(&self, endpoints: &[EndpointId], now_ms: u64, slow_ms: u64) {
        if self.damaged || !self.leases.is_empty() {
            return;
        }
        let late_ms = now_ms.saturating_sub(BEGUN_WITHIN_MS + slow_ms);
        let is_open = |endpoint: &EndpointId| {
            let standing = self.standings.get(endpoint);
            standing.is_some_and(|standing| standing.state == Some("enabled") && standing.asked.is_empty())
        };
        for endpoint in endpoints.iter().filter(|endpoint| is_open(endpoint)) {
            let waits = self.events.iter().find_map(|(event, known)| {
                let course = known.courses.get(endpoint)?;
                let is_known = course.is_settled_for(u128::from(BEGUN_WITHIN_MS));
                course.waits().filter(|pending| is_known && pending.due_ms < late_ms).map(|pending| (event, pending))
            });
            if let Some((event, pending)) = waits {
                self.breach(format!("{event} waits for {endpoint} since {}, it is {now_ms}", pending.due_ms));
            }
        }
    }
}
