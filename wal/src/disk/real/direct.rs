//! Direct writes: `O_DIRECT|O_DSYNC`, from memory that is aligned to a block.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;

use crate::format::{BLOCK_BYTES, ZERO_BLOCK};
use crate::state::NEW_SUFFIX;

/// Memory kept for the next write is no more than this.
const KEPT_BYTES_MAX: usize = 2 << 20;

/// A file that is written past the page cache.
pub(super) struct Direct {
    file: File,
    /// Room for an aligned copy of what is written.
    scratch: Mutex<Vec<u8>>,
}

// === impl Direct ===

impl Direct {
    /// Opens an existing file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECT.union(OFlags::DSYNC).bits();
        let flags = i32::try_from(flags).map_err(io::Error::other)?;
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(path)?;
        Ok(Self {
            file,
            scratch: Mutex::default(),
        })
    }

    /// Whether files in a directory can be written so: one of them is.
    pub(super) fn probe(dir: &Path) -> io::Result<()> {
        let path = dir.join(format!("probe-{}{NEW_SUFFIX}", std::process::id()));
        std::fs::write(&path, ZERO_BLOCK)?;
        let probed = Self::open(&path).and_then(|file| file.write_at(&ZERO_BLOCK, 0));
        // Whoever opens the log at this moment removes it too.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => probed,
        }
    }

    /// Writes whole blocks, durably.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let room = bytes.len().saturating_add(BLOCK_BYTES);
        if scratch.len() < room {
            *scratch = vec![0; room];
        }
        let from = scratch.as_ptr().align_offset(BLOCK_BYTES);
        let aligned = scratch.get_mut(from..from.saturating_add(bytes.len()));
        let aligned = aligned.ok_or_else(|| io::Error::other("memory cannot be aligned"))?;
        aligned.copy_from_slice(bytes);
        let written = self.file.write_all_at(aligned, offset);
        if scratch.len() > KEPT_BYTES_MAX {
            *scratch = Vec::new();
        }
        written
    }
}
