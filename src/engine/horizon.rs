//! How far a lane's memory is complete.

use crate::core::id::EventId;
use crate::store::DueKey;

/// Up to where every pending delivery of an endpoint is known in memory. What lies beyond is only in the store.
///
/// The order of the variants is the order of knowledge: the smaller of two horizons is the one that both can vouch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Horizon {
    /// Nothing is known.
    Nothing,
    /// Everything up to and including this key is known.
    Upto(DueKey),
    /// Everything is known.
    All,
}

impl Horizon {
    /// Everything below `key` is known, but not `key` itself.
    pub fn below(key: DueKey) -> Self {
        if let Some(event) = key.event.as_u128().checked_sub(1) {
            return Self::Upto(DueKey { event: EventId::from_u128(event), ..key });
        }
        match key.due_ms.checked_sub(1) {
            Some(due_ms) => Self::Upto(DueKey { due_ms, event: EventId::MAX }),
            None => Self::Nothing,
        }
    }

    /// Whether a delivery with this key must be in memory.
    pub fn covers(self, key: DueKey) -> bool {
        match self {
            Self::Nothing => false,
            Self::Upto(last) => key <= last,
            Self::All => true,
        }
    }

    /// After which key to read on in the store; `None` reads from the start.
    pub const fn after(self) -> Option<DueKey> {
        match self {
            Self::Upto(key) => Some(key),
            Self::Nothing | Self::All => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(due_ms: u64, event: u128) -> DueKey {
        DueKey { due_ms, event: EventId::from_u128(event) }
    }

    #[test]
    fn below_is_the_key_right_before() {
        assert_eq!(Horizon::below(key(5, 7)), Horizon::Upto(key(5, 6)));
        assert_eq!(Horizon::below(key(5, 0)), Horizon::Upto(key(4, u128::MAX)));
        assert_eq!(Horizon::below(key(0, 0)), Horizon::Nothing);
        assert!(!Horizon::below(key(5, 7)).covers(key(5, 7)));
        assert!(Horizon::below(key(5, 7)).covers(key(5, 6)));
    }

    #[test]
    fn less_knowledge_is_smaller() {
        assert!(Horizon::Nothing < Horizon::Upto(key(0, 0)));
        assert!(Horizon::Upto(key(1, 0)) < Horizon::Upto(key(1, 1)));
        assert!(Horizon::Upto(key(u64::MAX, u128::MAX)) < Horizon::All);
        assert!(Horizon::All.covers(key(u64::MAX, u128::MAX)) && !Horizon::Nothing.covers(key(0, 0)));
    }
}
