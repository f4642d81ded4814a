//! The story: the key space stood at the journal's last frame, which the next start copied to its new segment; then sled
//! lost all of that life. Folding the frame once more took its deliveries for new ones, so those that were settled
//! afterwards cancelled out before the tree heard of them, and stayed pending in it.

use postrider::core::delivery::{DeliveryState, Next};

use crate::support::{
    Home, accept, backlog, body_of, copy_dir, delivery, event_with, limits, pending_state, runtime, settle, state,
};

#[test]
fn what_was_settled_after_the_copied_frame_stays_settled() {
    let home = Home::new(limits());
    let aside = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let event = accept(&home.open(), event_with(&[0], &body_of(1, 100), &[])).await.meta.id;
        copy_dir(&home.index(), aside.path());
        {
            let store = home.open();
            let id = delivery(0, event);
            settle(&store, id, pending_state(&store, id).await, Next::Delivered).await;
        }
        home.forget_index();
        copy_dir(aside.path(), &home.index());
        let store = home.open();
        assert!(store.opened().rebuilt.is_none(), "the key space is whole, only behind");
        assert_eq!(state(&store, delivery(0, event)).await, DeliveryState::Delivered);
        assert!(backlog(&store, 0).await.is_empty());
    });
}
