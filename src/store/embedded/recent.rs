//! Events that were just accepted, kept for their first attempts so that these need not read the journal. Bounded in bytes;
//! the oldest go first. An event goes early when each of its deliveries has had one: a retry is a while away, and reads the
//! journal.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::core::event::Event;
use crate::core::id::EventId;

/// What an event costs besides its body.
const OVERHEAD_BYTES: usize = 512;

/// A bounded table of events.
#[derive(Debug)]
pub(super) struct Recent {
    inner: Mutex<Inner>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// With the deliveries that wait for their first attempt.
    events: HashMap<EventId, (Arc<Event>, usize)>,
    order: VecDeque<EventId>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), bytes_max }
    }

    /// Keeps events for a while.
    pub(super) fn keep(&self, events: impl IntoIterator<Item = Arc<Event>>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            inner.bytes += cost(&event);
            inner.order.push_back(event.meta.id);
            let deliveries = event.meta.endpoints.len();
            inner.events.insert(event.meta.id, (event, deliveries));
        }
        // Events forgotten early leave their place in the order behind; it goes when its turn comes, or when such places
        // outnumber the events.
        while inner.bytes > self.bytes_max || inner.order.len() > 2 * inner.events.len() + 1_024 {
            let Some(oldest) = inner.order.pop_front() else { break };
            inner.forget(oldest);
        }
    }

    /// The event, if it is still here.
    pub(super) fn get(&self, id: EventId) -> Option<Arc<Event>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).events.get(&id).map(|(event, _)| Arc::clone(event))
    }

    /// One delivery of each of these events had its first attempt.
    pub(super) fn attempted(&self, ids: impl IntoIterator<Item = EventId>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            let Some((_, left)) = inner.events.get_mut(&id) else { continue };
            *left = left.saturating_sub(1);
            if *left == 0 {
                inner.forget(id);
            }
        }
    }

    /// Nothing below this event is needed any more, or it is found in the journal.
    pub(super) fn forget_below(&self, first: EventId) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner.order.front().is_some_and(|oldest| *oldest < first) {
            let Some(oldest) = inner.order.pop_front() else { break };
            inner.forget(oldest);
        }
    }

    /// The events must not be found again.
    pub(super) fn forget(&self, ids: impl IntoIterator<Item = EventId>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        ids.into_iter().for_each(|id| inner.forget(id));
    }
}

impl Inner {
    fn forget(&mut self, id: EventId) {
        if let Some((event, _)) = self.events.remove(&id) {
            self.bytes -= cost(&event);
        }
    }
}

fn cost(event: &Event) -> usize {
    event.body.len() + event.meta.headers.total_bytes() + OVERHEAD_BYTES
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::endpoint::app_id;
    use crate::core::event::EventMeta;
    use crate::core::headers::Headers;
    use crate::core::id::EndpointId;
    use bytes::Bytes;

    /// An event's description with nothing in it but this.
    pub(in super::super) fn meta(id: EventId, endpoints: Vec<EndpointId>) -> EventMeta {
        EventMeta {
            id,
            app: app_id("default"),
            source: None,
            event_type: None,
            external_id: None,
            accepted_ms: 0,
            headers: Headers::default(),
            endpoints,
        }
    }

    fn event(n: u128, bytes: usize) -> Arc<Event> {
        let meta = meta(EventId::from_u128(n), vec![EndpointId::MIN, EndpointId::MAX]);
        Arc::new(Event { meta: meta.into(), body: Bytes::from(vec![0; bytes]), erased: false })
    }

    #[test]
    fn the_oldest_go_first_and_the_bytes_are_bounded() {
        let recent = Recent::new(3 * (1_000 + OVERHEAD_BYTES));
        recent.keep((0..5).map(|n| event(n, 1_000)));
        let has = |n| recent.get(EventId::from_u128(n)).is_some();
        assert_eq!([has(0), has(1), has(2), has(3), has(4)], [false, false, true, true, true]);
        recent.forget([EventId::from_u128(3)]);
        assert!(!has(3));
        recent.keep([event(9, 10)]);
        assert!(has(2) && has(9));
    }

    #[test]
    fn events_below_one_go_together() {
        let recent = Recent::new(1 << 20);
        recent.keep((0..5).map(|n| event(n, 10)));
        recent.forget_below(EventId::from_u128(3));
        let has = |n| recent.get(EventId::from_u128(n)).is_some();
        assert_eq!([has(0), has(2), has(3), has(4)], [false, false, true, true]);
    }

    #[test]
    fn an_event_goes_when_its_last_delivery_had_its_first_attempt() {
        let recent = Recent::new(1 << 20);
        recent.keep([event(1, 10)]);
        let id = EventId::from_u128(1);
        recent.attempted([id]);
        assert!(recent.get(id).is_some());
        recent.attempted([id, id]);
        assert!(recent.get(id).is_none());
    }

    #[test]
    fn the_order_does_not_grow_without_events() {
        let recent = Recent::new(1 << 20);
        for n in 0..10_000 {
            recent.keep([event(n, 1)]);
            recent.forget([EventId::from_u128(n)]);
        }
        assert!(recent.inner.lock().unwrap().order.len() <= 1_100);
    }
}
