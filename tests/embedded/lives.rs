//! Random lives in which segments are dropped all the time, with clean ends and kills in between: what was promised is
//! kept, and a key space built anew from what is left of the journal shows the same as the one that was carried along.

use postrider::core::limits::StoreLimits;
use postrider::env::{Entropy, RealDisk, SeededEntropy};
use postrider::store::Store;

use crate::story::{Habits, Story};
use crate::support::{Home, Picture, accept, all_events, body_of, event_with, kinds, limits, runtime, until};

/// `POSTRIDER_SEEDS` asks for more than the ordinary few.
fn seeds() -> u64 {
    std::env::var("POSTRIDER_SEEDS").map_or(2, |count| count.parse().unwrap())
}

#[test]
fn a_rebuilt_key_space_equals_the_one_that_was_carried_along() {
    let carried: usize = (0..seeds()).map(life).sum();
    assert!(carried > 0, "nothing was ever carried: these lives teach nothing");
}

/// Nothing is past retention under these.
fn generous(tight: &StoreLimits) -> StoreLimits {
    StoreLimits { retention_bytes: 1 << 40, retention_ms: u64::MAX, ..tight.clone() }
}

/// Lives a life; how many carried events its journal held in the end.
fn life(seed: u64) -> usize {
    let runtime = runtime();
    let random = SeededEntropy::new(seed);
    let tight = StoreLimits {
        retention_bytes: (5 + random.next_u64() % 4) * (64 << 10),
        retention_ms: 400_000,
        dedup_ms: 300_000,
        ..limits()
    };
    let mut home = Home::new(tight.clone());
    let habits = Habits { accept: 35, settle: 52, pause_ms: 300, body_bytes: 3_000, ..Habits::default() };
    let mut story = Story::new(seed, habits, home.clock.clone());
    for round in 0..4 {
        let when = format!("with seed {seed} in round {round}");
        home.limits = tight.clone();
        let store = home.open();
        runtime.block_on(story.live(&store, 250, tight.dedup_ms));
        let killed = random.next_u64().is_multiple_of(3);
        if killed {
            home = home.copy();
        }
        drop(store);
        compare(&runtime, &mut home, &mut story, killed, &when);
        // Time passes while it is closed, and the next start finds much of it old.
        if random.next_u64().is_multiple_of(2) {
            home.clock.advance(random.next_u64() % 200_000);
        }
    }
    let carried = kinds(&RealDisk, &home.journal()).get("carried").copied().unwrap_or(0);
    home.limits = tight;
    runtime.block_on(end(&home, &mut story, seed));
    carried
}

/// When all is delivered and old, all goes: had a count gone wrong on the way, some segment would stay for ever.
async fn end(home: &Home, story: &mut Story, seed: u64) {
    let store = home.open();
    story.live(&store, 150, home.limits.dedup_ms).await;
    story.deliver_all(&store).await;
    let mut young = Vec::new();
    for n in 0..12 {
        // What was delivered makes room only once somebody looks.
        until("intake is open", async || {
            store.keep_house().await;
            store.intake().is_ok()
        })
        .await;
        // Enough for the segment that is written now to be sealed.
        young.push(accept(&store, event_with(&[], &body_of(n, 8_000), &[])).await.meta.id);
    }
    home.clock.advance(2 * home.limits.retention_ms);
    until("all that is old is dropped", async || {
        store.keep_house().await;
        all_events(&store).await.iter().all(|event| young.contains(&event.meta.id))
    })
    .await;
    let stats = store.stats();
    assert_eq!((stats.pending, stats.dead, stats.oldest_pending_ms), (0, 0, None), "with seed {seed}");
    until("every key is forgotten", async || store.stats().dedup_keys == 0).await;
}

fn compare(runtime: &tokio::runtime::Runtime, home: &mut Home, story: &mut Story, killed: bool, when: &str) {
    home.limits = generous(&home.limits);
    let keys = story.open_keys(home.clock_ms());
    let store = home.open();
    // A kill may leave a key space that is behind the oldest segment, or empty.
    assert!(killed || store.opened().rebuilt.is_none(), "{:?} {when}", store.opened().rebuilt);
    runtime.block_on(story.assert_kept(&store, when));
    let before = runtime.block_on(Picture::of(&store, &keys));
    drop(store);
    home.forget_index();
    let store = home.open();
    assert!(store.opened().rebuilt.is_some(), "{when}");
    let after = runtime.block_on(Picture::of(&store, &keys));
    before.assert_same(&after, &format!("after a rebuild {when}"));
    runtime.block_on(story.assert_kept(&store, &format!("after a rebuild {when}")));
}
