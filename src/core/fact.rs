//! Facts: what the journal remembers, one immutable record each.
//!
//! The state of the store is the fold of all facts in order. A fact is folded without asking whether it may be: that was
//! decided when it was written. So folding the newest facts once more (as recovery does with the last frame) changes
//! nothing.
//!
//! On disk a fact is a kind byte, a key (the event it is about, so that a segment's footer can find it), its bincode form
//! and, apart from it, a *body*: the event's bytes or the kept bytes of a response. Bodies stand apart so that they can be
//! overwritten with zeros when a content is erased.

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::attempt::Attempt;
use super::delivery::{Dead, DeliveryId, Next, Pending};
use super::event::{DedupKey, EventMeta};
use super::id::{EndpointId, EventId};

/// Something that happened. The order of the variants is part of the journal's format: append only.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Fact {
    /// An event came in; its deliveries are pending from [`EventMeta::accepted_ms`] on. Body: the event's bytes.
    Accepted {
        /// The event.
        meta: Arc<EventMeta>,
        /// The keys it claims.
        dedup: Vec<DedupKey>,
        /// Unix milliseconds (engine time) until which they hold.
        dedup_expires_ms: u64,
        /// Fingerprint of the body, to tell a repetition from a conflict.
        fingerprint: u64,
    },
    /// An attempt ended. Body: the kept bytes of the response.
    Settled {
        /// Which delivery.
        delivery: DeliveryId,
        /// The state that the attempt was made in.
        was: Pending,
        /// What happened.
        attempt: Attempt,
        /// What becomes of it.
        next: Next,
    },
    /// A delivery was made due again.
    Redriven {
        /// Which delivery.
        delivery: DeliveryId,
        /// Its new state.
        pending: Pending,
    },
    /// A pending delivery became a dead letter without an attempt.
    Buried {
        /// Which delivery.
        delivery: DeliveryId,
        /// Its new state.
        dead: Dead,
    },
    /// An endpoint's standing changed.
    EndpointNoted(EndpointNote),
    /// The content of an event was erased: its bytes and those of the responses to it are zeros from here on.
    Erased {
        /// Which event.
        event: EventId,
        /// Unix milliseconds (engine time).
        at_ms: u64,
    },
    /// Dedup keys of a segment that is about to be dropped and whose window is still open.
    DedupCarried {
        /// Key, and what it stands for.
        entries: Vec<(DedupKey, DedupEntry)>,
    },
    /// An event of a segment that is about to be dropped, some of whose deliveries are pending. Body: the event's bytes.
    Carried {
        /// The event.
        meta: Arc<EventMeta>,
        /// Its pending deliveries.
        pending: Vec<(EndpointId, Pending)>,
        /// Its dead letters, whose settles may be dropped as well. What is in neither list was delivered.
        dead: Vec<(EndpointId, Dead)>,
    },
    /// Everything in a segment is past retention or carried; the segment may go.
    Dropped {
        /// Its number.
        segment: u64,
        /// The lowest event id that was neither dropped nor carried.
        first_kept: EventId,
    },
}

/// What a dedup key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct DedupEntry {
    /// The first event under the key.
    pub event: EventId,
    /// Fingerprint of its body.
    pub fingerprint: u64,
    /// Unix milliseconds (engine time) until which the key holds.
    pub expires_ms: u64,
}

/// What the store remembers of an endpoint: who it is and whether it takes deliveries. Its URL, secrets and policy come
/// from the configuration at each start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct EndpointNote {
    /// Which endpoint.
    pub id: EndpointId,
    /// Its application's name.
    pub app: String,
    /// Its name.
    pub name: String,
    /// Grows by one with each change.
    pub version: u64,
    /// Whether it takes deliveries.
    pub standing: Standing,
}

/// Whether an endpoint takes deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Standing {
    /// It does.
    Enabled,
    /// It answered 410 Gone; its deliveries wait until someone enables it.
    Gone {
        /// Unix milliseconds (engine time).
        since_ms: u64,
    },
    /// An operator disabled it; its deliveries wait.
    Disabled {
        /// Unix milliseconds (engine time).
        since_ms: u64,
    },
    /// It is no longer configured; its pending deliveries are dead letters.
    Removed {
        /// Unix milliseconds (engine time).
        since_ms: u64,
    },
}

impl Standing {
    /// Whether deliveries may be attempted.
    pub const fn is_enabled(&self) -> bool {
        matches!(self, Self::Enabled)
    }

    /// The word for it in JSON and logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Gone { .. } => "gone",
            Self::Disabled { .. } => "disabled",
            Self::Removed { .. } => "removed",
        }
    }
}

/// Bytes that are not a fact of this version.
#[derive(Debug, thiserror::Error)]
pub enum FactError {
    /// The bytes make no fact.
    #[error("a record of kind {kind} does not decode: {source}")]
    Malformed {
        /// The kind that the journal's record table gives.
        kind: u8,
        /// What is wrong with them.
        source: bincode::error::DecodeError,
    },
    /// They make a fact and go on.
    #[error("a record of kind {kind} does not decode: the fact takes {read_bytes} bytes of {bytes}")]
    Longer {
        /// The kind that the journal's record table gives.
        kind: u8,
        /// How many bytes the fact takes.
        read_bytes: usize,
        /// How many there are.
        bytes: usize,
    },
}

impl Fact {
    /// The byte that names the kind in the journal's record table.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Accepted { .. } => kind::ACCEPTED,
            Self::Settled { .. } => kind::SETTLED,
            Self::Redriven { .. } => kind::REDRIVEN,
            Self::Buried { .. } => kind::BURIED,
            Self::EndpointNoted(_) => kind::ENDPOINT_NOTED,
            Self::Erased { .. } => kind::ERASED,
            Self::DedupCarried { .. } => kind::DEDUP_CARRIED,
            Self::Carried { .. } => kind::CARRIED,
            Self::Dropped { .. } => kind::DROPPED,
        }
    }

    /// The event that the fact is about as a number, 0 for none: what footers are sorted by.
    pub fn key(&self) -> u128 {
        match self {
            Self::Accepted { meta, .. } | Self::Carried { meta, .. } => meta.id.as_u128(),
            Self::Settled { delivery, .. } | Self::Redriven { delivery, .. } | Self::Buried { delivery, .. } => {
                delivery.event.as_u128()
            }
            Self::Erased { event, .. } => event.as_u128(),
            Self::EndpointNoted(_) | Self::DedupCarried { .. } | Self::Dropped { .. } => 0,
        }
    }

    /// Appends the bincode form to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        bincode::encode_into_std_write(self, out, bincode::config::standard())
            .expect("writing to memory does not fail and every field has an encoding");
    }

    /// Reads what [`encode_into`](Self::encode_into) wrote, all of it. `kind` only serves the error message.
    pub fn decode(kind: u8, meta: &[u8]) -> Result<Self, FactError> {
        // The limit keeps a damaged length from asking for memory: no fact is larger than a batch.
        let config = bincode::config::standard().with_limit::<{ 16 << 20 }>();
        match bincode::decode_from_slice(meta, config) {
            Ok((fact, read_bytes)) if read_bytes == meta.len() => Ok(fact),
            Ok((_, read_bytes)) => Err(FactError::Longer { kind, read_bytes, bytes: meta.len() }),
            Err(source) => Err(FactError::Malformed { kind, source }),
        }
    }
}

/// The kind bytes, as the journal stores them.
pub mod kind {
    #![allow(missing_docs, reason = "each is named after its fact")]
    pub const ACCEPTED: u8 = 1;
    pub const SETTLED: u8 = 2;
    pub const REDRIVEN: u8 = 3;
    pub const BURIED: u8 = 4;
    pub const ENDPOINT_NOTED: u8 = 5;
    pub const ERASED: u8 = 6;
    pub const DEDUP_CARRIED: u8 = 7;
    pub const CARRIED: u8 = 8;
    pub const DROPPED: u8 = 9;

    /// Kinds whose body holds (a response to) an event's content.
    pub const fn has_content(kind: u8) -> bool {
        matches!(kind, ACCEPTED | SETTLED | CARRIED)
    }

    /// The word for a kind in dumps.
    pub const fn name(kind: u8) -> &'static str {
        match kind {
            ACCEPTED => "accepted",
            SETTLED => "settled",
            REDRIVEN => "redriven",
            BURIED => "buried",
            ENDPOINT_NOTED => "endpoint",
            ERASED => "erased",
            DEDUP_CARRIED => "dedup_carried",
            CARRIED => "carried",
            DROPPED => "dropped",
            _ => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_takes_all_of_its_bytes() {
        let fact = Fact::Erased { event: EventId::from_u128(1), at_ms: 3 };
        let mut meta = Vec::new();
        fact.encode_into(&mut meta);
        assert_eq!(Fact::decode(kind::ERASED, &meta).unwrap(), fact);
        meta.push(0);
        let error = Fact::decode(kind::ERASED, &meta).unwrap_err().to_string();
        let (read, bytes) = (meta.len() - 1, meta.len());
        assert_eq!(error, format!("a record of kind 6 does not decode: the fact takes {read} bytes of {bytes}"));
        assert!(matches!(Fact::decode(kind::ERASED, &meta[..read - 1]), Err(FactError::Malformed { .. })));
    }
}
