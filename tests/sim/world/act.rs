//! What may happen next: the transitions of a run, and how one is drawn.

use super::disk::Fault;
use super::net::Mood;
use super::shape::ENDPOINTS;
use super::stage::Dice;

/// Changing disk operations within which an armed fault strikes.
const STRIKES_WITHIN: u64 = 40;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// An event comes in, for the endpoints whose bits are set, perhaps under a key that was used before.
    Accept { to: u8, body_bytes: u16, key: Option<u8>, same_body: bool },
    /// Many large events come in at once, for one endpoint or for none.
    Burst { events: u8, to: u8, body_bytes: u16 },
    /// An operator replays a delivery.
    Redrive { which: u64, to: usize },
    /// An operator erases an event.
    Erase { which: u64 },
    /// An operator opens or closes an endpoint.
    Stand { at: usize, open: bool },
    /// An endpoint changes.
    Mood { at: usize, mood: Mood },
    /// Time passes.
    Pass { ms: u64 },
    /// The wall clock is set.
    StepWall { by_ms: i64 },
    /// The housekeeper looks around.
    KeepHouse,
    /// Something will go wrong with the disk.
    Arm { after: u64, fault: Fault },
    /// A read will fail.
    ArmRead { after: u64 },
    /// The disk gets nearly full, or roomy again.
    Room { bytes: Option<u64> },
    /// Syncs take so long.
    SlowSync { ms: u64 },
    /// The writer falls behind by up to so long.
    Pace { ms: u64 },
    /// The key space fails at the next batch.
    FailIndex { full: bool },
    /// A bit flips in what has long been written.
    Flip { which: u64, at: u64, bit: u8, checkpoint: bool },
    /// A backup is taken.
    BackUp,
    /// Everything is looked at.
    Audit,
    /// The process ends.
    End(Ending),
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It is told to stop.
    Clean,
    /// It is killed.
    Kill,
    /// The machine loses its power.
    PowerCut,
}

impl Act {
    pub fn draw(dice: &mut Dice) -> Self {
        match dice.below(100) {
            0..=41 => Self::accept(dice),
            42..=44 => Self::Burst {
                events: dice.below(30) as u8,
                to: dice.pick(&[0, 1, 2]),
                body_bytes: dice.pick(&[700, 3_000, 6_000]),
            },
            45..=56 => Self::Pass { ms: pause(dice) },
            57..=61 => Self::Redrive { which: dice.next(), to: dice.below(ENDPOINTS as u64) as usize },
            62..=64 => Self::Erase { which: dice.next() },
            65..=67 => Self::Stand { at: dice.below(ENDPOINTS as u64) as usize, open: dice.one_in(2) },
            68..=74 => {
                let moods = [Mood::Good, Mood::Good, Mood::Mixed, Mood::Mixed, Mood::Down, Mood::Rejecting, Mood::Gone];
                Self::Mood { at: dice.below(ENDPOINTS as u64) as usize, mood: dice.pick(&moods) }
            }
            75..=76 => Self::StepWall { by_ms: dice.below(2 * DAY_MS) as i64 - DAY_MS as i64 },
            77..=79 => Self::KeepHouse,
            80..=93 => Self::trouble(dice),
            94..=96 => Self::Audit,
            _ => Self::End(dice.pick(&[Ending::Clean, Ending::Kill, Ending::PowerCut])),
        }
    }

    fn accept(dice: &mut Dice) -> Self {
        Self::Accept {
            to: dice.below(1 << ENDPOINTS) as u8,
            body_bytes: dice.pick(&[0, 3, 40, 500, 700, 3_000, 6_000]),
            key: (!dice.one_in(3)).then(|| dice.below(12) as u8),
            same_body: dice.one_in(2),
        }
    }

    fn trouble(dice: &mut Dice) -> Self {
        let within = dice.pick(&[3, 10, STRIKES_WITHIN]);
        let after = dice.below(within);
        match dice.below(20) {
            0..=3 => Self::Arm { after, fault: Fault::PowerCut },
            4..=6 => Self::Arm { after, fault: Fault::Kill },
            7..=9 => Self::Arm { after, fault: Fault::Error },
            10 => Self::Arm { after, fault: Fault::Broken },
            11 => Self::ArmRead { after: after / 4 },
            12..=13 => Self::Room { bytes: Some(dice.below(256 << 10)) },
            14 => Self::Room { bytes: None },
            15 => Self::SlowSync { ms: dice.pick(&[0, 0, 30, 3_000]) },
            16 => Self::Pace { ms: dice.pick(&[1, 1, 50, 5_000]) },
            17 => Self::FailIndex { full: dice.one_in(2) },
            // Rare: after it a run says less.
            18 if dice.one_in(3) => {
                Self::Flip { which: dice.next(), at: dice.next(), bit: dice.below(8) as u8, checkpoint: dice.one_in(4) }
            }
            18 => Self::KeepHouse,
            _ => Self::BackUp,
        }
    }
}

fn pause(dice: &mut Dice) -> u64 {
    let at_most = dice.pick(&[10, 1_000, 5_000, MINUTE_MS, 10 * MINUTE_MS, 120 * MINUTE_MS, DAY_MS, 5 * DAY_MS]);
    1 + dice.below(at_most)
}
