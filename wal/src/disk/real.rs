//! The real disk: plain files, direct writes or `fdatasync`, and an exclusive `flock` on the directory.
//!
//! Direct writes are of whole blocks; anything else goes through the page cache, and the next sync is a
//! real one then.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, FallocateFlags, FlockOperation};

use super::{SegmentDir, SegmentFile, WriteMode};
use crate::format::{BLOCK, BLOCK_BYTES};
use direct::Direct;

mod direct;

static ZEROS: [u8; 1 << 18] = [0; 1 << 18];

/// A directory of the file system.
#[derive(Debug)]
pub struct RealDir {
    path: PathBuf,
    access: Access,
    mode: WriteMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    ReadWrite,
    ReadOnly,
}

const SYNC_EVERY_BYTES: u64 = 2 << 20;

struct RealFile {
    file: File,
    direct: Option<Direct>,
    /// Something was written through the page cache since the last sync.
    is_dirty: AtomicBool,
}

// === impl RealDir ===

impl RealDir {
    /// Opens the directory, creating it (durably) when it is not there.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::create_as(path, None)
    }

    /// The same with a way to write; `None`: direct writes where the file system has them.
    pub fn create_as(path: &Path, mode: Option<WriteMode>) -> io::Result<Self> {
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
            if let Some(parent) = path.canonicalize()?.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        let mode = match mode {
            Some(WriteMode::Fdatasync) => WriteMode::Fdatasync,
            wanted => match Direct::probe(path) {
                Ok(()) => WriteMode::Direct,
                Err(error) if wanted.is_some() => return Err(error),
                Err(_) => WriteMode::Fdatasync,
            },
        };
        Ok(Self {
            path: path.to_owned(),
            access: Access::ReadWrite,
            mode,
        })
    }

    /// Opens an existing directory; nothing in it can be changed through this value.
    pub fn read_only(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "not a directory"));
        }
        Ok(Self {
            path: path.to_owned(),
            access: Access::ReadOnly,
            mode: WriteMode::Fdatasync,
        })
    }
}

impl RealDir {
    fn file(&self, name: &str, file: File) -> io::Result<RealFile> {
        let direct = match self.mode {
            WriteMode::Direct => Some(Direct::open(&self.path.join(name))?),
            WriteMode::Fdatasync => None,
        };
        Ok(RealFile {
            file,
            direct,
            is_dirty: AtomicBool::new(true),
        })
    }
}

impl SegmentDir for RealDir {
    fn lock(&self) -> io::Result<Box<dyn Send>> {
        let dir = File::open(&self.path)?;
        rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(dir))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path.join(name))?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        // Written, not only allocated: the first write into an unwritten extent would have to
        // journal its conversion, on the path of an append.
        let mut at = 0_u64;
        while at < bytes {
            let left = usize::try_from(bytes.saturating_sub(at)).unwrap_or(usize::MAX);
            let chunk = ZEROS.get(..left).unwrap_or(&ZEROS);
            file.write_all_at(chunk, at)?;
            at = at.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            // In small steps, so that the sync of an append beside it does not wait for all of it.
            if at.is_multiple_of(SYNC_EVERY_BYTES) {
                file.sync_data()?;
            }
        }
        if self.mode == WriteMode::Direct {
            // No direct write has to throw these zeros out of memory.
            file.sync_data()?;
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        Ok(Arc::new(self.file(name, file)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        let write = self.access == Access::ReadWrite;
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .open(self.path.join(name))?;
        Ok(Arc::new(self.file(name, file)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn write_mode(&self) -> WriteMode {
        self.mode
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let disk = rustix::fs::statvfs(&self.path)?;
        Ok(disk.f_bavail.checked_mul(disk.f_frsize))
    }
}

// === impl RealFile ===

impl SegmentFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(direct) = &self.direct
            && offset.is_multiple_of(BLOCK)
            && bytes.len().is_multiple_of(BLOCK_BYTES)
        {
            return direct.write_at(bytes, offset);
        }
        self.is_dirty.store(true, Ordering::Relaxed);
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        // What was written directly is durable.
        if self.direct.is_none() || self.is_dirty.load(Ordering::Relaxed) {
            self.file.sync_data()?;
            self.is_dirty.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        self.file.sync_data()?;
        rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?;
        Ok(())
    }
}
