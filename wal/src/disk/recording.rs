//! A disk in memory that records what is done to it, can fail, and can lose power.
//!
//! A power cut keeps everything that was synced, any subset of the 512-byte sectors written since,
//! and a prefix of the changes to the directory since its last sync. Deliberately absent: rot;
//! a test that wants it edits the bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError};

use super::{SegmentDir, SegmentFile};
use crate::sync::{Condvar, Mutex, MutexGuard};

mod power;

pub use power::CrashPoint;

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub struct RecordingDisk(Arc<(Mutex<Inner>, Condvar)>);

/// What was done to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A file of zeros was made.
    Create {
        /// Its number, from 0 in order of creation.
        file: usize,
        /// Its name.
        name: String,
        /// Its length.
        bytes: u64,
    },
    /// Bytes were written.
    Write {
        /// Number of the file.
        file: usize,
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file was synced.
    Sync {
        /// Number of the file.
        file: usize,
    },
    /// A file got another name.
    Rename {
        /// The old one.
        from: String,
        /// The new one.
        to: String,
    },
    /// A file was removed.
    Remove {
        /// Its name.
        name: String,
    },
    /// A sync failed and what was written before it is lost, though reading still shows it.
    Lose {
        /// Number of the file.
        file: usize,
    },
    /// The directory was synced.
    SyncDir,
}

/// Which operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Creating a file.
    Create,
    /// Writing; the first half of the bytes is written all the same.
    Write,
    /// Syncing a file; what was written stays un-synced.
    Sync,
    /// Syncing a file; what was written never gets to the disk, though reading shows it and a later
    /// sync succeeds.
    SyncLosing,
    /// Syncing the directory.
    SyncDir,
}

/// Numbers of files by name.
pub(crate) type Names = BTreeMap<String, usize>;

#[derive(Default)]
struct Inner {
    names: Names,
    files: Vec<Vec<u8>>,
    start_names: Names,
    start_files: Vec<Vec<u8>>,
    ops: Vec<Op>,
    fail: Option<Fail>,
    failed: u64,
    locked: bool,
    held: bool,
}

struct Fail {
    what: Failing,
    after: usize,
    kind: io::ErrorKind,
}

struct Lock(RecordingDisk);

struct RecordedFile {
    disk: RecordingDisk,
    file: usize,
}

// === impl RecordingDisk ===

impl RecordingDisk {
    /// A disk that starts with these files, all durable.
    #[must_use]
    pub fn with(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let (mut names, mut contents) = (Names::new(), Vec::new());
        for (name, bytes) in files {
            names.insert(name, contents.len());
            contents.push(bytes);
        }
        Self::from_parts(names, contents)
    }

    /// How many operations were done.
    #[must_use]
    pub fn op_count(&self) -> usize {
        self.inner().ops.len()
    }

    /// What was done.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.inner().ops.clone()
    }

    /// All files as a process sees them, by name.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = self.inner();
        let content = |file: &usize| inner.files.get(*file).cloned().unwrap_or_default();
        inner
            .names
            .iter()
            .map(|(name, file)| (name.clone(), content(file)))
            .collect()
    }

    /// Lets `after` operations of this kind pass, then fails every one.
    pub fn fail(&self, what: Failing, after: usize, kind: io::ErrorKind) {
        self.inner().fail = Some(Fail { what, after, kind });
    }

    /// Stops failing.
    pub fn heal(&self) {
        self.inner().fail = None;
    }

    /// Lets every sync of a file wait, until `release`.
    pub fn hold(&self) {
        self.inner().held = true;
    }

    /// Lets the syncs go on.
    pub fn release(&self) {
        self.inner().held = false;
        self.0.1.notify_all();
    }

    /// How many operations failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.inner().failed
    }

    /// A short check value of all that a process sees.
    #[cfg(test)]
    pub(crate) fn digest(&self) -> u32 {
        let inner = self.inner();
        inner.names.iter().fold(0, |digest, (name, file)| {
            let digest = crc32c::crc32c_append(digest, name.as_bytes());
            let content = inner.files.get(*file).map(Vec::as_slice);
            crc32c::crc32c_append(digest, content.unwrap_or_default())
        })
    }

    /// The disk as a power cut after the first `ops` operations finds it.
    #[must_use]
    pub fn crash_point(&self, ops: usize) -> CrashPoint {
        let inner = self.inner();
        let mut point = CrashPoint::new(inner.start_names.clone(), inner.start_files.clone());
        for op in inner.ops.iter().take(ops) {
            point.replay(op);
        }
        point
    }

    fn from_parts(names: Names, files: Vec<Vec<u8>>) -> Self {
        let inner = Inner {
            start_names: names.clone(),
            start_files: files.clone(),
            names,
            files,
            ..Inner::default()
        };
        Self(Arc::new((Mutex::new(inner), Condvar::new())))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, file: usize) -> Arc<dyn SegmentFile> {
        Arc::new(RecordedFile {
            disk: self.clone(),
            file,
        })
    }
}

impl SegmentDir for RecordingDisk {
    fn lock(&self) -> io::Result<Box<dyn Send>> {
        let mut inner = self.inner();
        if inner.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        inner.locked = true;
        drop(inner);
        Ok(Box::new(Lock(self.clone())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let mut inner = self.inner();
        let file = inner.files.len();
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        // A create that fails for want of space leaves the name behind, as a real one does.
        inner.names.insert(name.to_owned(), file);
        inner.files.push(vec![0; length]);
        inner.ops.push(Op::Create {
            file,
            name: name.to_owned(),
            bytes,
        });
        inner.check(Failing::Create)?;
        drop(inner);
        Ok(self.handle(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        let file = self
            .inner()
            .names
            .get(name)
            .copied()
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        let file = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), file);
        inner.ops.push(Op::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.ops.push(Op::Remove {
            name: name.to_owned(),
        });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.check(Failing::SyncDir)?;
        inner.ops.push(Op::SyncDir);
        Ok(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.inner().locked = false;
    }
}

impl Inner {
    fn check(&mut self, doing: Failing) -> io::Result<()> {
        let Some(fail) = self.fail.as_mut().filter(|fail| fail.what == doing) else {
            return Ok(());
        };
        if let Some(left) = fail.after.checked_sub(1) {
            fail.after = left;
            return Ok(());
        }
        let kind = fail.kind;
        self.failed = self.failed.saturating_add(1);
        Err(kind.into())
    }
}

// === impl RecordedFile ===

impl SegmentFile for RecordedFile {
    fn bytes(&self) -> io::Result<u64> {
        let length = self.disk.inner().files.get(self.file).map_or(0, Vec::len);
        u64::try_from(length).map_err(io::Error::other)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.disk.inner();
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let content = inner
            .files
            .get(self.file)
            .and_then(|content| content.get(from..));
        let content = content.and_then(|content| content.get(..into.len()));
        into.copy_from_slice(content.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let result = inner.check(Failing::Write);
        let half = bytes.len().checked_div(2).unwrap_or(0);
        let written = if result.is_ok() {
            bytes
        } else {
            bytes.split_at(half).0
        };
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let content = inner
            .files
            .get_mut(self.file)
            .ok_or(io::ErrorKind::NotFound)?;
        put(content, from, written).ok_or(io::ErrorKind::InvalidInput)?;
        inner.ops.push(Op::Write {
            file: self.file,
            offset,
            bytes: written.to_vec(),
        });
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let inner = self.disk.inner();
        let waited = self.disk.0.1.wait_while(inner, |inner| inner.held);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner);
        inner.check(Failing::Sync)?;
        if let Err(error) = inner.check(Failing::SyncLosing) {
            inner.ops.push(Op::Lose { file: self.file });
            return Err(error);
        }
        inner.ops.push(Op::Sync { file: self.file });
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        self.sync_data()?;
        let lost = Op::Lose { file: self.file };
        if !self.disk.inner().ops.contains(&lost) {
            return Ok(());
        }
        let point = self.disk.crash_point(self.disk.op_count());
        let mut inner = self.disk.inner();
        if let (Some(seen), Some(real)) =
            (inner.files.get_mut(self.file), point.files.get(self.file))
        {
            seen.clone_from(real);
        }
        Ok(())
    }
}

fn rename(names: &mut Names, op: &Op) {
    match op {
        Op::Create { file, name, .. } => {
            names.insert(name.clone(), *file);
        }
        Op::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Op::Remove { name } => {
            names.remove(name);
        }
        Op::Write { .. } | Op::Sync { .. } | Op::Lose { .. } | Op::SyncDir => {}
    }
}

fn put(content: &mut [u8], offset: usize, bytes: &[u8]) -> Option<()> {
    let end = offset.checked_add(bytes.len())?;
    content.get_mut(offset..end)?.copy_from_slice(bytes);
    Some(())
}
