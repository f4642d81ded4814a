//! What lies in a journal's directory: segments with their headers and trailers, and spares. Reads only, changes nothing.

use std::path::{Path, PathBuf};

use super::footer::Trailer;
use super::format::{HEADER_BYTES, HeaderFlaw, SegmentHeader, VERSION};
use super::scan::{read_trailer, read_up_to};
use super::segment::{IoFault, fault, segment_number, segment_path, spare_id, spare_path};
use super::spare::Spare;
use crate::env::{Disk, DiskFile};

/// A file with a segment's name.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub number: u64,
    pub path: PathBuf,
    pub len: u64,
    /// `None` if the header block isn't this segment's: torn, damaged, or never written.
    pub header: Option<SegmentHeader>,
    /// `None` if the segment isn't sealed.
    pub trailer: Option<Trailer>,
}

/// A journal's directory.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// By number.
    pub segments: Vec<SegmentFile>,
    pub spares: Vec<Spare>,
}

/// Why a directory can't be read as a journal.
#[derive(Debug, thiserror::Error)]
pub(super) enum LayoutError {
    #[error("unknown format version {found}")]
    UnknownVersion { segment: u64, found: u32 },
    #[error("the directory could not be read")]
    Io(#[from] IoFault),
}

impl LayoutError {
    /// The version that was expected where another was found.
    pub const SUPPORTED: u32 = VERSION;
}

impl Layout {
    /// Reads headers and trailers, a few KiB of each file, and keeps no file open: there may be more than a process may have.
    pub fn read<D: Disk>(disk: &D, dir: &Path) -> Result<Self, LayoutError> {
        // Other names are not the journal's; the store may keep its own files here.
        let names = disk.list(dir).map_err(fault("list", dir))?;
        let mut layout = Self::default();
        for name in &names {
            if let Some(number) = segment_number(name) {
                layout.segments.push(SegmentFile::read(disk, dir, number)?);
            } else if let Some(id) = spare_id(name) {
                let path = spare_path(dir, id);
                let len = disk.open(&path, false).and_then(|file| file.len());
                layout.spares.push(Spare {
                    id,
                    bytes: len.map_err(fault("open", &path))?,
                    // Nobody knows what it held before.
                    recycled: true,
                });
            }
        }
        layout.segments.sort_unstable_by_key(|file| file.number);
        layout.spares.sort_unstable_by_key(|spare| spare.id);
        Ok(layout)
    }

    /// Index after the last segment with a header. What follows never got one, or lost it.
    pub fn headed(&self) -> usize {
        let last = self.segments.iter().rposition(|file| file.header.is_some());
        last.map_or(0, |at| at + 1)
    }
}

impl SegmentFile {
    fn read<D: Disk>(disk: &D, dir: &Path, number: u64) -> Result<Self, LayoutError> {
        let path = segment_path(dir, number);
        let file = disk.open(&path, false).map_err(fault("open", &path))?;
        let len = file.len().map_err(fault("measure", &path))?;
        let block = read_up_to(&file, 0, HEADER_BYTES).map_err(fault("read", &path))?;
        let header = match SegmentHeader::decode(&block) {
            // Another number is a recycled file's old header.
            Ok(header) => Some(header).filter(|header| header.segment == number),
            Err(HeaderFlaw::Invalid) => None,
            Err(HeaderFlaw::UnknownVersion(found)) => {
                return Err(LayoutError::UnknownVersion { segment: number, found });
            }
        };
        // Without a header nobody knows whether a trailer is this segment's or left over from an earlier one.
        let trailer = match &header {
            Some(header) => read_trailer(&file, number, header.incarnation),
            None => Ok(None),
        };
        Ok(Self { number, len, header, trailer: trailer.map_err(fault("read the footer of", &path))?, path })
    }
}
