//! The pure parts by themselves: `cargo bench --bench micro`. How many instructions they take is guarded by `counted`.

#[path = "support/attempt.rs"]
mod attempt;
#[path = "support/cases.rs"]
mod cases;
#[path = "support/nowhere.rs"]
mod nowhere;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn micro(c: &mut Criterion) {
    for mut case in cases::all() {
        c.bench_function(&case.name, |b| b.iter(|| (case.run)()));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(900));
    targets = micro
}
criterion_main!(benches);
