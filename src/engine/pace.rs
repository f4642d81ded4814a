//! How fast an endpoint is tried that only fails. Pure: time is passed in.
//!
//! An endpoint that refuses connections is quick to try, so a large backlog of it would be tried as fast as the machine can,
//! at the cost of the others. So once it has failed often enough in a row, the place of each further attempt that fails rests
//! for a while before the next one may take it. The first attempt that does not fail ends all rests.

use std::collections::VecDeque;

/// Attempts in a row that must fail before places rest. An endpoint that answers every other time practically never gets here.
pub(super) const FAILURES_BEFORE_REST: u32 = 16;

/// Milliseconds that a place rests, for each place that the endpoint has: whatever their number, it is tried some 60 times per
/// second, at which 500,000 deliveries have had their first attempt after a bit more than two hours.
const REST_MS_PER_PLACE: u64 = 16;

/// Milliseconds that a place rests at most, so that an endpoint which is back is soon noticed.
const REST_MS_MAX: u64 = 1_000;

/// What an attempt says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It took the event, or said that it never will.
    Well,
    /// It gave no answer, or one that asks for another attempt.
    Failing,
}

/// The pace of one endpoint.
#[derive(Debug)]
pub(super) struct Pace {
    rest_ms: u64,
    /// Attempts that failed since the last one that did not.
    failures: u32,
    /// When places may be taken again, in order.
    rests: VecDeque<u64>,
}

impl Pace {
    /// Of an endpoint with so many places.
    pub(super) fn new(places: usize) -> Self {
        let rest_ms = (places as u64).saturating_mul(REST_MS_PER_PLACE).min(REST_MS_MAX);
        Self { rest_ms, failures: 0, rests: VecDeque::new() }
    }

    /// An attempt has ended.
    pub(super) fn ended(&mut self, health: Health, now_ms: u64) {
        match health {
            Health::Well => {
                self.failures = 0;
                self.rests.clear();
            }
            Health::Failing if self.failures < FAILURES_BEFORE_REST => self.failures += 1,
            // Time never goes back, so they stay in order.
            Health::Failing => self.rests.push_back(now_ms.saturating_add(self.rest_ms)),
        }
    }

    /// Places that rest. Call [`pass`](Self::pass) first.
    pub(super) fn resting(&self) -> usize {
        self.rests.len()
    }

    /// When the next rest ends.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.rests.front().copied()
    }

    /// Ends the rests that are over.
    pub(super) fn pass(&mut self, now_ms: u64) {
        while self.rests.front().is_some_and(|until_ms| *until_ms <= now_ms) {
            self.rests.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts per second at an endpoint with so many places, which fail at once, as long as it is not asked more often than
    /// every millisecond.
    fn tries_per_second(places: usize) -> usize {
        let mut pace = Pace::new(places);
        (0..FAILURES_BEFORE_REST).for_each(|_| pace.ended(Health::Failing, 0));
        let mut tries = 0;
        for now_ms in 0..10_000 {
            pace.pass(now_ms);
            while pace.resting() < places {
                pace.ended(Health::Failing, now_ms);
                tries += 1;
            }
        }
        tries / 10
    }

    #[test]
    fn few_places_or_many_a_dead_endpoint_is_tried_about_as_often() {
        for places in [1, 2, 8, 62] {
            assert!((60..=70).contains(&tries_per_second(places)), "{places}: {}", tries_per_second(places));
        }
        assert_eq!(tries_per_second(200), 200);
    }

    #[test]
    fn one_answer_ends_all_rests() {
        let mut pace = Pace::new(4);
        (0..FAILURES_BEFORE_REST + 3).for_each(|_| pace.ended(Health::Failing, 7));
        assert_eq!((pace.resting(), pace.next_ms()), (3, Some(7 + 64)));
        pace.ended(Health::Well, 8);
        assert_eq!((pace.resting(), pace.next_ms()), (0, None));
        pace.ended(Health::Failing, 9);
        assert_eq!(pace.resting(), 0);
    }
}
