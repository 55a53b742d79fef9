//! What a power cut may leave.

use super::{Names, Op, RecordingDisk, put, rename};

const SECTOR_BYTES: usize = 512;

/// A disk at the moment of a power cut.
pub struct CrashPoint {
    names: Names,
    pub(super) files: Vec<Vec<u8>>,
    sectors: Vec<Sector>,
    renames: Vec<Op>,
}

struct Sector {
    file: usize,
    offset: usize,
    bytes: Vec<u8>,
}

// === impl CrashPoint ===

impl CrashPoint {
    pub(crate) fn new(names: Names, files: Vec<Vec<u8>>) -> Self {
        Self {
            names,
            files,
            sectors: Vec::new(),
            renames: Vec::new(),
        }
    }

    /// How many sectors were written and not synced.
    #[must_use]
    pub fn sectors(&self) -> usize {
        self.sectors.len()
    }

    /// How many changes to the directory were not synced.
    #[must_use]
    pub fn renames(&self) -> usize {
        self.renames.len()
    }

    /// A disk that kept the first `renames` of those changes, and the sectors that `keep` says.
    #[must_use]
    pub fn image(&self, renames: usize, mut keep: impl FnMut(usize) -> bool) -> RecordingDisk {
        let (mut names, mut files) = (self.names.clone(), self.files.clone());
        for op in self.renames.iter().take(renames) {
            rename(&mut names, op);
        }
        for (at, sector) in self.sectors.iter().enumerate() {
            if keep(at)
                && let Some(content) = files.get_mut(sector.file)
            {
                put(content, sector.offset, &sector.bytes);
            }
        }
        RecordingDisk::from_parts(names, files)
    }

    /// The sectors that, kept or not, make a difference: what is written there is not what is
    /// durable there, or not what was written there before.
    #[cfg(test)]
    pub(crate) fn sectors_that_matter(&self) -> Vec<usize> {
        // What is under construction is removed when the log is opened, whatever is in it.
        let mut names = self.names.clone();
        let mut counts = std::collections::BTreeSet::new();
        for op in std::iter::once(None).chain(self.renames.iter().map(Some)) {
            if let Some(op) = op {
                rename(&mut names, op);
            }
            let listed = names.iter().filter(|(name, _)| !name.ends_with(".new"));
            counts.extend(listed.map(|(_, file)| *file));
        }
        let is_new = |(at, sector): (usize, &Sector)| {
            if !counts.contains(&sector.file) {
                return None;
            }
            let end = sector.offset.checked_add(sector.bytes.len());
            let content = self.files.get(sector.file);
            let durable = content.and_then(|bytes| bytes.get(sector.offset..end?));
            let again = self
                .sectors
                .iter()
                .take(at)
                .any(|other| (other.file, other.offset) == (sector.file, sector.offset));
            (again || durable != Some(sector.bytes.as_slice())).then_some(at)
        };
        self.sectors.iter().enumerate().filter_map(is_new).collect()
    }

    /// Goes on by one operation.
    pub(crate) fn replay(&mut self, op: &Op) {
        match op {
            Op::Create { bytes, .. } => {
                self.files
                    .push(vec![0; usize::try_from(*bytes).unwrap_or(0)]);
                self.renames.push(op.clone());
            }
            Op::Rename { .. } | Op::Remove { .. } => self.renames.push(op.clone()),
            Op::Write {
                file,
                offset,
                bytes,
            } => {
                let mut offset = usize::try_from(*offset).unwrap_or(usize::MAX);
                for bytes in bytes.chunks(SECTOR_BYTES) {
                    self.sectors.push(Sector {
                        file: *file,
                        offset,
                        bytes: bytes.to_vec(),
                    });
                    offset = offset.saturating_add(SECTOR_BYTES);
                }
            }
            Op::Sync { file } => {
                let (synced, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sectors)
                    .into_iter()
                    .partition(|sector| sector.file == *file);
                self.sectors = rest;
                for sector in synced {
                    if let Some(content) = self.files.get_mut(sector.file) {
                        put(content, sector.offset, &sector.bytes);
                    }
                }
            }
            Op::Lose { file } => self.sectors.retain(|sector| sector.file != *file),
            Op::SyncDir => {
                for op in std::mem::take(&mut self.renames) {
                    rename(&mut self.names, &op);
                }
            }
        }
    }
}
