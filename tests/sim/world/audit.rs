//! A look at everything that the store shows, held against the model.

use std::collections::{BTreeMap, BTreeSet};

use postrider::core::delivery::{DeliveryId, DeliveryState};
use postrider::core::id::{EndpointId, EventId};
use postrider::store::{Cursor, DeadQuery, EventQuery, Store, StoreError};

use super::stage::lock;
use super::watched::Watched;

/// Events of one page; small, so that there are several.
const PAGE: usize = 20;

/// Looks at everything. With `settled`, nothing is under way: what is seen now is what counts from here, and what was asked
/// for and is not there never happened.
///
/// # Errors
/// Those of the store. Unreadable is one only where nothing is damaged.
pub async fn audit(store: &Watched, endpoints: &[EndpointId], settled: bool) -> Result<(), StoreError> {
    let listed = listed(store, settled).await?;
    if let (true, Some(listed)) = (settled, &listed) {
        lock(&store.model).decide(listed);
    }
    let known = lock(&store.model).ids();
    let mut states = BTreeMap::new();
    for id in known {
        match store.event(id).await {
            Ok(Some(event)) => {
                if settled {
                    lock(&store.model).finds_content(id, event.erased);
                    store.look_for_erased(id, event.erased);
                }
                if listed.as_ref().is_some_and(|listed| !listed.contains(&id)) {
                    store.stage.breach(format!("{id} is there and not listed"));
                }
            }
            Ok(None) => {
                if listed.as_ref().is_some_and(|listed| listed.contains(&id)) {
                    store.stage.breach(format!("{id} is listed and not there"));
                }
                continue;
            }
            Err(StoreError::Unreadable { .. }) => continue,
            Err(error) => return Err(error),
        }
        for delivery in store.deliveries(id).await?.unwrap_or_default() {
            lock(&store.model).seen(delivery.id, delivery.state, settled);
            states.insert(delivery.id, delivery.state);
        }
        if let Err(error @ StoreError::Failed(_)) = store.attempts(id).await {
            return Err(error);
        }
    }
    if settled && listed.is_some() {
        lock(&store.model).forget_unanswered();
    }
    if listed.is_some() && lock(&store.model).unanswered() == 0 {
        lists(store, endpoints, &states).await?;
    }
    notes(store, settled);
    Ok(())
}

/// The ids of all events that are listed; `None` where damage hides some.
async fn listed(store: &Watched, settled: bool) -> Result<Option<BTreeSet<EventId>>, StoreError> {
    let (mut ids, mut cursor, mut unreadable) = (BTreeSet::new(), Cursor::Start, 0);
    loop {
        let page = store.events(EventQuery { cursor, limit: PAGE, ..EventQuery::default() }).await?;
        for event in page.data {
            let id = event.meta.id;
            if !ids.insert(id) {
                store.stage.breach(format!("{id} is listed twice"));
            }
            if lock(&store.model).known(id).is_none() && settled {
                lock(&store.model).adopt(&event);
            }
        }
        unreadable += page.unreadable;
        match page.next {
            Some(next) => cursor = Cursor::OlderThan(next),
            None => break,
        }
    }
    if unreadable > 0 && !lock(&store.model).damaged {
        store.stage.breach(format!("{unreadable} events are said to be damaged, none is"));
    }
    Ok((unreadable == 0).then_some(ids))
}

/// What is pending, and what is dead, by their own lists and counts.
async fn lists(
    store: &Watched,
    endpoints: &[EndpointId],
    states: &BTreeMap<DeliveryId, DeliveryState>,
) -> Result<(), StoreError> {
    let of = |wanted: fn(&DeliveryState) -> bool| -> BTreeSet<DeliveryId> {
        states.iter().filter(|(_, state)| wanted(state)).map(|(id, _)| *id).collect()
    };
    let pending = of(|state| matches!(state, DeliveryState::Pending(_)));
    let mut found = BTreeSet::new();
    for endpoint in endpoints {
        let due = store.pending(*endpoint, None, usize::MAX).await?;
        found.extend(due.into_iter().map(|due| DeliveryId { endpoint: *endpoint, event: due.event }));
    }
    let damaged = lock(&store.model).damaged;
    // Whether a damaged event's deliveries are pending is known to the lists alone.
    let fits = |listed: &BTreeSet<DeliveryId>, wanted: &BTreeSet<DeliveryId>| {
        if damaged { listed.is_superset(wanted) } else { listed == wanted }
    };
    if !fits(&found, &pending) || found.len() as u64 != store.stats().pending {
        let stats = store.stats().pending;
        store.stage.breach(format!("pending: {} by state, {} listed, {stats} counted", pending.len(), found.len()));
    }
    let dead = of(|state| matches!(state, DeliveryState::Dead(_)));
    let page = store.dead(DeadQuery { limit: usize::MAX, ..DeadQuery::default() }).await?;
    let found: BTreeSet<_> = page.data.iter().map(|letter| letter.delivery).collect();
    if !fits(&found, &dead) || found.len() as u64 != store.stats().dead {
        let stats = store.stats().dead;
        store.stage.breach(format!("dead: {} by state, {} listed, {stats} counted", dead.len(), found.len()));
    }
    Ok(())
}

/// How endpoints stand.
fn notes(store: &Watched, settled: bool) {
    let notes = store.endpoint_notes();
    let mut model = lock(&store.model);
    for told in model.told() {
        if !notes.iter().any(|note| note.id == told) {
            store.stage.breach(format!("the standing of {told} is forgotten"));
        }
    }
    for note in notes {
        model.stands(note.id, note.standing.as_str(), settled, store.now_ms());
    }
}
