//! Which faults and states the runs have reached, so that none of them is covered in name only.

/// Declares the kinds with the words for them.
macro_rules! kinds {
    ($($name:ident => $text:literal,)*) => {
        /// Something that must happen in some run.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($name,)* }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

kinds! {
    PowerCut => "power cut at a quiet moment",
    PowerCutMidway => "power cut in the middle of a disk operation",
    PowerCutOpening => "power cut while the store is opened",
    PowerCutClosing => "power cut while the store is closed",
    Kill => "process killed at a quiet moment",
    KillMidway => "process killed in the middle of a disk operation",
    KillOpening => "process killed while the store is opened",
    CleanStop => "clean stop",
    WriteLost => "unsynced sector lost",
    WriteKept => "unsynced sector kept",
    Torn512 => "write torn at 512 bytes",
    Torn4096 => "write torn at 4 KiB",
    Reordered => "later sector kept, earlier one lost",
    LengthLost => "unsynced growth or length of a file lost",
    NameLost => "unsynced name change lost",
    SyncFailed => "sync failed, its pages dropped",
    WriteFailed => "write failed",
    WriteShort => "write cut short",
    ReadFailed => "read failed",
    NameFailed => "create, rename, unlink or directory sync failed",
    StaysBroken => "disk stays broken after the first error",
    NoSpace => "no space left",
    IntakeClosed => "intake refused for want of room",
    SlowSync => "slow sync",
    SlowWriter => "writer far behind",
    StoreFailed => "store stopped for a storage error",
    OpenFailed => "opening failed for a storage error",
    FlipSegment => "bit flipped in a sealed segment",
    FlipCheckpoint => "bit flipped in the checkpoint",
    DamageRefused => "damage refused at the start",
    DamageUnreadable => "damage reported by a read",
    DamageWithheld => "damaged bytes not sent to an endpoint",
    Salvaged => "journal salvaged",
    IndexBehind => "key space behind the journal after a crash",
    IndexLost => "key space gone after a crash",
    IndexDamaged => "key space damaged",
    IndexFailed => "key space failed to apply",
    Rebuilt => "key space built anew",
    CopiedLast => "last frame copied at the start",
    TornTail => "torn tail cut off",
    ErasureFinished => "interrupted erasure finished",
    Rotated => "several segments",
    Dropped => "segment dropped by retention",
    Forgotten => "event past retention",
    BackupTaken => "backup taken while everything goes on",
    BackupGivenUp => "backup given up",
    BackupBusy => "backup refused while another is taken",
    BackupCut => "process ended in the middle of a backup",
    BackupDamaged => "damaged or cut backup refused",
    Restored => "store made of a backup",
    RestoreFailed => "restore failed for a storage error",
    RestoreCut => "restore cut short, nothing there",
    RestoreCutWhole => "restore cut short, all there",
    ClockForward => "wall clock stepped forward",
    ClockBack => "wall clock stepped back",
    ClockBehind => "wall clock behind the journal at the start",
    Accepted => "event accepted",
    Adopted => "unanswered event found after a crash",
    Vanished => "unanswered event gone after a crash",
    Duplicate => "duplicate answered",
    DuplicateAfterCrash => "duplicate of an event from before a crash answered",
    KeyReused => "dedup key free again after its window",
    Redriven => "delivery redriven",
    Erased => "event erased",
    Disabled => "endpoint disabled",
    Removed => "endpoint removed",
    EndpointsChanged => "configured endpoints changed between lives",
    EndpointGone => "endpoint answered 410",
    Delivered => "delivered",
    Retried => "delivered after retries",
    DeadMaxRetries => "dead after the whole schedule",
    DeadRejected => "dead for a 4xx",
    AttemptRepeated => "attempt repeated after a crash",
    StaleSettle => "settle came too late",
    NetTimeout => "network: timeout",
    NetResetBefore => "network: reset before receipt",
    NetResetAfter => "network: reset after receipt",
    NetSlow => "network: slow answer",
    NetLostAnswer => "network: answer lost",
    NetRedirect => "network: redirect",
    NetGarbage => "network: garbage",
    NetConnect => "network: no connection",
    NetServerError => "network: 5xx",
    NetRetryAfterSeconds => "network: Retry-After in seconds",
    NetRetryAfterDate => "network: Retry-After as a date",
    NetRetryAfterPast => "network: Retry-After in the past",
    NetRetryAfterHuge => "network: Retry-After of ages",
    NetRetryAfterGarbage => "network: Retry-After of garbage",
}

/// How often each kind happened.
#[derive(Debug, Clone)]
pub struct Coverage([u64; Kind::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; Kind::ALL.len()])
    }
}

impl Coverage {
    pub fn hit(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// Kinds that never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        Kind::ALL.iter().filter(|kind| self.of(**kind) == 0).map(|kind| kind.text()).collect()
    }
}
