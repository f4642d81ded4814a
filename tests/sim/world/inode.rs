//! The bytes of a simulated file: what a reader sees, what is durable, and the changes between the two.

use super::coverage::Kind;
use super::stage::{Dice, Stage};

#[derive(Default)]
pub struct Inode {
    pub content: Vec<u8>,
    pub durable: Vec<u8>,
    pub unsynced: Vec<Change>,
    pub sync_failed: bool,
}

pub enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Inode {
    pub fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            change.apply(&mut self.durable);
        }
    }

    /// What a reader sees once the pages of a failed sync are gone.
    pub fn forget_pages(&mut self) {
        self.content.clone_from(&self.durable);
        self.unsynced.iter().for_each(|change| change.apply(&mut self.content));
    }

    pub fn cut_power(&mut self, stage: &Stage, dice: &mut Dice, sector: usize, keep: u64) {
        let mut lost_before = false;
        for change in std::mem::take(&mut self.unsynced) {
            let (kept, lost) = change.tear(&mut self.durable, sector, |_| {
                let keeps = dice.below(256) < keep;
                if keeps && lost_before {
                    stage.cover(Kind::Reordered);
                }
                lost_before |= !keeps;
                keeps
            });
            if lost > 0 && self.durable.len() < change.end() {
                stage.cover(Kind::LengthLost);
            }
            if let Change::Length(_) = change {
                continue;
            }
            if kept > 0 {
                stage.cover(Kind::WriteKept);
            }
            if lost > 0 {
                stage.cover(Kind::WriteLost);
            }
            if kept > 0 && lost > 0 {
                stage.cover(if sector == 512 { Kind::Torn512 } else { Kind::Torn4096 });
            }
        }
        self.content.clone_from(&self.durable);
    }
}

impl Change {
    /// Where the file would end at least.
    fn end(&self) -> usize {
        match self {
            Self::Length(len) => *len as usize,
            Self::Write(offset, data) => *offset as usize + data.len(),
        }
    }

    pub fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Length(len) => content.resize(*len as usize, 0),
            Self::Write(offset, data) => put(content, *offset as usize, data),
        }
    }

    /// Applies the pieces that `keep` keeps; how many those are, and how many it does not.
    fn tear(&self, content: &mut Vec<u8>, sector: usize, mut keep: impl FnMut(usize) -> bool) -> (u32, u32) {
        let (mut kept, mut lost) = (0, 0);
        match self {
            Self::Length(_) if keep(0) => {
                self.apply(content);
                kept = 1;
            }
            Self::Length(_) => lost = 1,
            Self::Write(offset, data) => {
                let (mut at, mut rest) = (*offset as usize, &data[..]);
                while !rest.is_empty() {
                    // Sectors are aligned in the file, not in the write.
                    let (piece, after) = rest.split_at(rest.len().min(sector - at % sector));
                    if keep(at) {
                        put(content, at, piece);
                        kept += 1;
                    } else {
                        lost += 1;
                    }
                    (at, rest) = (at + piece.len(), after);
                }
            }
        }
        (kept, lost)
    }
}

fn put(content: &mut Vec<u8>, at: usize, data: &[u8]) {
    if content.len() < at + data.len() {
        content.resize(at + data.len(), 0);
    }
    content[at..at + data.len()].copy_from_slice(data);
}
