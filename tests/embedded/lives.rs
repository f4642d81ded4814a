//! Random lives in which segments are dropped all the time, with clean ends and kills in between: what was promised is
//! kept, and a key space built anew from what is left of the journal shows the same as the one that was carried along.

use postrider::core::limits::StoreLimits;
use postrider::env::{Entropy, RealDisk, SeededEntropy};

use crate::story::{Habits, Story};
use crate::support::{Home, Picture, kinds, limits, runtime};

/// `POSTRIDER_SEEDS` asks for more than the ordinary few.
fn seeds() -> u64 {
    std::env::var("POSTRIDER_SEEDS").map_or(3, |count| count.parse().unwrap())
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
    kinds(&RealDisk, &home.journal()).get("carried").copied().unwrap_or(0)
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
