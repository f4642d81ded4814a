//! Rules of `set_standing`: the notes on endpoints, and what removal does to their deliveries.

use postrider::core::delivery::{Dead, DeadReason, DeliveryId, DeliveryState, Next, Pending};
use postrider::core::fact::{EndpointNote, Standing};
use postrider::store::{Redriven, Store};

use crate::harness::{
    Ear, Form, Picture, accept, backlog, delivery, endpoint, event_for, graveyard, kill, open, settle, state,
};

async fn set(store: &impl Store, n: usize, standing: Standing) {
    store.set_standing(endpoint(n), "default", &format!("endpoint-{n}"), standing).await.expect("the store works");
}

pub async fn a_note_changes_only_when_the_standing_does<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    assert!(store.endpoint_notes().is_empty());
    let note = |version, standing| {
        let (app, name) = ("default".to_owned(), "endpoint-0".to_owned());
        EndpointNote { id: endpoint(0), app, name, version, standing }
    };
    let disabled = |since_ms| Standing::Disabled { since_ms };
    for (standing, expected) in [
        (Standing::Enabled, note(1, Standing::Enabled)),
        (Standing::Enabled, note(1, Standing::Enabled)),
        (disabled(5), note(2, disabled(5))),
        // It has been disabled since the first time.
        (disabled(9), note(2, disabled(5))),
        (Standing::Gone { since_ms: 9 }, note(3, Standing::Gone { since_ms: 9 })),
        (Standing::Removed { since_ms: 10 }, note(4, Standing::Removed { since_ms: 10 })),
        (Standing::Removed { since_ms: 11 }, note(4, Standing::Removed { since_ms: 10 })),
        (Standing::Enabled, note(5, Standing::Enabled)),
    ] {
        set(&*store, 0, standing).await;
        assert_eq!(store.endpoint_notes(), [expected]);
    }
    set(&*store, 1, disabled(1)).await;
    let mut notes = store.endpoint_notes();
    notes.sort_by_key(|note| note.version);
    assert_eq!((notes.len(), notes[0].id, notes[0].version), (2, endpoint(1), 1));
}

pub async fn every_change_of_standing_is_told<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let mut ear = Ear::at(&*store);
    for standing in [Standing::Enabled, Standing::Disabled { since_ms: 1 }, Standing::Removed { since_ms: 2 }] {
        set(&*store, 0, standing).await;
        ear.until("the standing", |ear| ear.standings == [endpoint(0)]).await;
        ear.standings.clear();
    }
}

pub async fn removal_buries_the_pending_deliveries_of_that_endpoint_alone<F: Form>() {
    let (_form, store, clock) = open::<F>().await;
    let mut events = Vec::new();
    for _ in 0..4 {
        events.push(accept(&*store, event_for(&[0, 1])).await);
    }
    let id = |n: usize| DeliveryId { endpoint: endpoint(0), event: events[n].meta.id };
    let fresh = Pending::fresh(events[0].meta.accepted_ms);
    settle(&*store, id(0), fresh, Next::Delivered).await;
    kill(&*store, id(1), fresh).await;
    let died = state(&*store, id(1)).await;
    settle(&*store, id(2), fresh, Next::Retry { due_ms: u64::MAX }).await;
    clock.advance(9);

    set(&*store, 0, Standing::Removed { since_ms: store.now_ms() }).await;
    let buried = |attempts| Dead { reason: DeadReason::EndpointRemoved, at_ms: store.now_ms(), attempts };
    assert_eq!(state(&*store, id(0)).await, DeliveryState::Delivered);
    assert_eq!(state(&*store, id(1)).await, died);
    assert_eq!(state(&*store, id(2)).await, DeliveryState::Dead(buried(1)));
    assert_eq!(state(&*store, id(3)).await, DeliveryState::Dead(buried(0)));
    assert!(backlog(&*store, 0).await.is_empty());
    assert_eq!(backlog(&*store, 1).await.len(), 4);
    assert_eq!((store.stats().pending, store.stats().dead), (4, 3));
    assert_eq!(graveyard(&*store).await.len(), 3);
}

/// An event may be accepted with the endpoints of a configuration that is on its way out; and a removal that a crash cut
/// short must be completed when it is asked for again.
pub async fn removal_again_buries_what_came_meanwhile<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let removed = Standing::Removed { since_ms: store.now_ms() };
    set(&*store, 0, removed).await;
    let (id, _) = delivery(&*store).await;
    assert_eq!(backlog(&*store, 0).await.len(), 1);
    set(&*store, 0, removed).await;
    assert!(backlog(&*store, 0).await.is_empty());
    let reason = DeadReason::EndpointRemoved;
    assert_eq!(state(&*store, id).await, DeliveryState::Dead(Dead { reason, at_ms: store.now_ms(), attempts: 0 }));
    assert_eq!(store.endpoint_notes()[0].version, 1);
}

pub async fn disabling_leaves_the_backlog<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    delivery(&*store).await;
    let before = backlog(&*store, 0).await;
    for standing in [Standing::Disabled { since_ms: 1 }, Standing::Gone { since_ms: 2 }, Standing::Enabled] {
        set(&*store, 0, standing).await;
        assert_eq!(backlog(&*store, 0).await, before);
    }
    // A disabled endpoint still takes events; they wait.
    set(&*store, 0, Standing::Disabled { since_ms: 3 }).await;
    delivery(&*store).await;
    assert_eq!(backlog(&*store, 0).await.len(), 2);
}

pub async fn a_removed_endpoint_can_come_back<F: Form>() {
    let (_form, store, _clock) = open::<F>().await;
    let (id, _) = delivery(&*store).await;
    set(&*store, 0, Standing::Removed { since_ms: store.now_ms() }).await;
    let mut before = Picture::of(&*store, 1).await;
    set(&*store, 0, Standing::Enabled).await;
    // What was buried stays so until someone replays it.
    before.set_notes(store.endpoint_notes());
    assert_eq!(Picture::of(&*store, 1).await, before);
    assert_eq!(store.redrive(id).await.unwrap(), Redriven::Due);
    assert_eq!(backlog(&*store, 0).await.len(), 1);
}
