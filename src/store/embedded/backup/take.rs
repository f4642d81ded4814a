//! A backup of an open store, as a stream of bytes. Intake and deliveries go on; memory holds one frame and one section.

use bytes::Bytes;

use super::format::{Encoder, Kind, SECTION_BYTES_MAX, Summary};
use crate::core::error::chain;
use crate::core::fact::kind;
use crate::env::Disk;
use crate::journal::{Copy, CopyError, Frame, Piece};
use crate::store::embedded::checkpoint::Checkpoint;

/// Bytes of a summary's estimate that are not the journal's.
const BESIDE_BYTES: u64 = 4 << 10;

/// A backup under way: an iterator over its bytes. What goes wrong is said in the last of them, so that whoever reads knows.
pub(in crate::store::embedded) struct Taking<D: Disk> {
    encoder: Option<Encoder>,
    copy: Copy<D>,
    /// The head, and what the checkpoint file would hold.
    first: Option<Bytes>,
    /// Bytes of one segment that wait for their section, and where the first of them stands.
    waiting: Vec<u8>,
    place: (u64, u64),
    tally: Tally,
}

impl<D: Disk> Taking<D> {
    /// The backup of what `copy` copies, begun at the moment of `checkpoint`.
    pub(in crate::store::embedded) fn new(created_ms: u64, checkpoint: &Checkpoint, copy: Copy<D>) -> Self {
        let (mut encoder, mut first) = Encoder::begin(created_ms);
        for (n, part) in checkpoint.encode().chunks(SECTION_BYTES_MAX).enumerate() {
            first.extend(encoder.section(Kind::Checkpoint, 0, (n * SECTION_BYTES_MAX) as u64, part));
        }
        Self {
            encoder: Some(encoder),
            copy,
            first: Some(first.into()),
            waiting: Vec::new(),
            place: (0, 0),
            tally: Tally { begun: checkpoint.sequence, ..Tally::default() },
        }
    }

    /// Bytes that it will have, as far as can be said.
    pub(in crate::store::embedded) const fn bytes(&self) -> u64 {
        self.copy.bytes() + BESIDE_BYTES
    }

    /// The next bytes; the end is the end of the backup.
    fn more(&mut self, mut encoder: Encoder) -> Vec<u8> {
        let mut out = Vec::new();
        while out.is_empty() {
            match self.copy.next() {
                Some(Ok(piece)) => self.add(&piece, &mut encoder, &mut out),
                Some(Err(error)) => return give_up(encoder, &error),
                None => {
                    self.flush(&mut encoder, &mut out);
                    let (end, summary) = encoder.end(self.tally.summary());
                    let Summary { bytes, events, last_sequence, .. } = summary;
                    tracing::info!(bytes, events, last_sequence, "a backup was taken");
                    out.extend(end);
                    return out;
                }
            }
        }
        self.encoder = Some(encoder);
        out
    }

    fn add(&mut self, piece: &Piece, encoder: &mut Encoder, out: &mut Vec<u8>) {
        match piece {
            Piece::Header { .. } => self.tally.segments += 1,
            Piece::Frame(frame) => self.tally.add(frame),
            Piece::Footer { .. } => {}
        }
        let waiting_to = (self.place.0, self.place.1 + self.waiting.len() as u64);
        if piece.place() != waiting_to {
            self.flush(encoder, out);
            self.place = piece.place();
        }
        self.waiting.extend_from_slice(piece.bytes());
        if self.waiting.len() >= SECTION_BYTES_MAX {
            self.flush(encoder, out);
        }
    }

    /// Turns what waits into sections.
    fn flush(&mut self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        let (segment, mut offset) = self.place;
        for part in self.waiting.chunks(SECTION_BYTES_MAX) {
            out.extend(encoder.section(Kind::Segment, segment, offset, part));
            offset += part.len() as u64;
        }
        self.waiting.clear();
        self.place = (segment, offset);
    }
}

fn give_up(mut encoder: Encoder, error: &CopyError) -> Vec<u8> {
    let why = chain(error);
    tracing::warn!(error = %why, "a backup was given up");
    let end = why.len().min(SECTION_BYTES_MAX);
    encoder.section(Kind::GivenUp, 0, 0, &why.as_bytes()[..end])
}

impl<D: Disk> Iterator for Taking<D> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let encoder = self.encoder.take()?;
        Some(self.more(encoder).into())
    }
}

/// Counts what goes into a backup.
#[derive(Default)]
struct Tally {
    /// Sequence of the last frame when the backup was begun.
    begun: u64,
    segments: u64,
    frames: u64,
    records: u64,
    events: u64,
    first_accepted: Option<u128>,
    last_sequence: u64,
    first_ms: u64,
    last_ms: u64,
}

impl Tally {
    fn add(&mut self, frame: &Frame) {
        // The last frame of an earlier life stands in the segment of the next one too, where an open was interrupted.
        if frame.at.sequence <= self.last_sequence {
            return;
        }
        if self.frames == 0 {
            self.first_ms = frame.time_ms;
        }
        self.frames += 1;
        self.records += frame.records.len() as u64;
        self.last_sequence = frame.at.sequence;
        self.last_ms = frame.time_ms;
        for record in &frame.records {
            match record.kind {
                kind::ACCEPTED => {
                    self.events += 1;
                    self.first_accepted.get_or_insert(record.key);
                }
                // Carried on from a dropped segment. What is carried after the backup was begun is in it where it was.
                kind::CARRIED if frame.at.sequence <= self.begun => {
                    self.events += u64::from(self.first_accepted.is_none_or(|first| record.key < first));
                }
                _ => {}
            }
        }
    }

    fn summary(&self) -> Summary {
        let Self { segments, frames, records, events, last_sequence, first_ms, last_ms, .. } = *self;
        Summary { segments, frames, records, events, last_sequence, first_ms, last_ms, ..Summary::default() }
    }
}
