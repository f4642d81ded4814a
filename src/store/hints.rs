//! How the store tells the engine that deliveries became pending, without either waiting for the other.
//!
//! A bounded mailbox per endpoint: past its capacity only the lowest key that was left out is remembered, and the engine
//! reads from there out of the store.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::types::{Due, DueKey};
use crate::core::id::EndpointId;

/// Hints that an endpoint's mailbox holds.
const LANE_HINTS_MAX: usize = 4_096;

/// News of pending deliveries, by endpoint.
#[derive(Debug, Default)]
pub struct Hints {
    lanes: Mutex<HashMap<EndpointId, LaneHints>>,
    news: Notify,
}

/// What became pending at one endpoint since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LaneHints {
    /// Deliveries that became pending or changed their due time, in commit order.
    pub due: Vec<Due>,
    /// The lowest key that did not fit: from here on the store knows more.
    pub left_out: Option<DueKey>,
    /// The endpoint's standing changed.
    pub standing_changed: bool,
}

impl Hints {
    /// Tells of deliveries that became pending. Wakes the engine once.
    pub fn push(&self, news: impl IntoIterator<Item = (EndpointId, Due)>) {
        let mut any = false;
        {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            for (endpoint, due) in news {
                any = true;
                let lane = lanes.entry(endpoint).or_default();
                if lane.due.len() < LANE_HINTS_MAX {
                    lane.due.push(due);
                } else {
                    let key = due.key();
                    lane.left_out = Some(lane.left_out.map_or(key, |lowest| lowest.min(key)));
                }
            }
        }
        if any {
            self.news.notify_one();
        }
    }

    /// Tells that an endpoint was enabled, disabled or removed.
    pub fn standing_changed(&self, endpoint: EndpointId) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(endpoint).or_default().standing_changed = true;
        drop(lanes);
        self.news.notify_one();
    }

    /// Takes all that is there.
    pub fn take(&self) -> HashMap<EndpointId, LaneHints> {
        std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something may be there.
    pub async fn wait(&self) {
        self.news.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::delivery::Pending;
    use crate::core::id::EventId;

    #[test]
    fn past_the_capacity_the_lowest_key_left_out_is_kept() {
        let hints = Hints::default();
        let endpoint = EndpointId::from_u128(1);
        let due = |n: u64| Due { event: EventId::from_u128(u128::from(n)), pending: Pending::fresh(n) };
        let many = LANE_HINTS_MAX as u64;
        hints.push((0..many).map(|n| (endpoint, due(n))));
        hints.push([(endpoint, due(many + 7)), (endpoint, due(many + 3))]);
        let taken = hints.take().remove(&endpoint).unwrap();
        assert_eq!(taken.due.len(), LANE_HINTS_MAX);
        assert_eq!(taken.left_out, Some(due(many + 3).key()));
        assert!(hints.take().is_empty());
    }
}
