//! What every part of a run has in common: the dice, the trace, what was covered, and the first breach of a promise.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::coverage::{Coverage, Kind};

/// Random numbers that repeat: from a seed (splitmix64), or read from bytes for as long as there are any, so that a fuzzer
/// can choose them one by one.
#[derive(Debug)]
pub struct Dice {
    seed: u64,
    bytes: VecDeque<u8>,
}

impl Dice {
    pub const fn seeded(seed: u64) -> Self {
        Self { seed, bytes: VecDeque::new() }
    }

    /// Two bytes for each number; after the last ones a seed goes on.
    pub fn read_from(bytes: &[u8]) -> Self {
        Self { seed: 0, bytes: bytes.iter().copied().collect() }
    }

    pub fn next(&mut self) -> u64 {
        if let (Some(low), Some(high)) = (self.bytes.pop_front(), self.bytes.pop_front()) {
            return u64::from(low) | u64::from(high) << 8;
        }
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not zero.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Shared by everything that simulates; one thread uses it.
#[derive(Debug)]
pub struct Stage {
    dice: Mutex<Dice>,
    trace: Mutex<Trace>,
    coverage: Mutex<Coverage>,
    breach: Mutex<Option<String>>,
}

/// A digest of all that happened, and, if wanted, its text.
#[derive(Debug)]
struct Trace {
    digest: u64,
    events: u64,
    text: Option<String>,
}

/// Mixes text into a digest (FNV-1a) without keeping it.
impl Write for Trace {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for byte in part.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(text) = &mut self.text {
            text.push_str(part);
        }
        Ok(())
    }
}

impl Stage {
    pub fn new(dice: Dice, keep_text: bool) -> Self {
        let text = keep_text.then(String::new);
        Self {
            dice: Mutex::new(dice),
            trace: Mutex::new(Trace { digest: 0xcbf2_9ce4_8422_2325, events: 0, text }),
            coverage: Mutex::default(),
            breach: Mutex::default(),
        }
    }

    pub fn dice(&self) -> MutexGuard<'_, Dice> {
        lock(&self.dice)
    }

    /// Notes that something happened.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let mut trace = lock(&self.trace);
        trace.events += 1;
        let _ = trace.write_fmt(what);
        let _ = trace.write_str("\n");
    }

    pub fn cover(&self, kind: Kind) {
        lock(&self.coverage).hit(kind);
    }

    /// A promise is broken; the first one counts.
    pub fn breach(&self, what: String) {
        self.note(format_args!("BREACH {what}"));
        lock(&self.breach).get_or_insert(what);
    }

    pub fn breached(&self) -> Option<String> {
        lock(&self.breach).clone()
    }

    pub fn digest(&self) -> (u64, u64) {
        let trace = lock(&self.trace);
        (trace.digest, trace.events)
    }

    pub fn take_text(&self) -> String {
        lock(&self.trace).text.take().unwrap_or_default()
    }

    pub fn coverage(&self) -> Coverage {
        lock(&self.coverage).clone()
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
