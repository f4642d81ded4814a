//! Bytes of request bodies in memory, bounded over all requests together.
//!
//! Invariant: what is reserved is given back when its [`Reservation`] is dropped, on every path.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes may be held at once. Clones share the same budget.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    left: Arc<AtomicUsize>,
}

/// Bytes taken from a budget until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    bytes: usize,
}

impl MemoryBudget {
    /// A budget of `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes_max)) }
    }

    /// Bytes that nobody holds now; another request may take them the next moment.
    pub fn left_bytes(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// An empty reservation, to be [grown](Reservation::grow).
    pub fn reservation(&self) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }

    fn take(&self, bytes: usize) -> bool {
        // Relaxed is enough: the counter guards no other memory.
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

impl Reservation {
    /// Takes `bytes` more; false, and nothing taken, when the budget has fewer left.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.budget.take(bytes);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    /// Bytes taken so far.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = MemoryBudget::new(10);
        let mut first = budget.reservation();
        let mut second = budget.reservation();
        assert!(first.grow(6) && first.grow(1));
        assert!(!second.grow(4), "only 3 are left");
        assert!(second.grow(3));
        assert_eq!((first.bytes(), second.bytes(), budget.left_bytes()), (7, 3, 0));
        drop(first);
        assert_eq!(budget.left_bytes(), 7);
        drop(second);
        assert_eq!(budget.left_bytes(), 10);
    }
}
