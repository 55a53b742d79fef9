//! The seam to the disk: the few operations that the log needs, and what each of them promises.
//!
//! Two implementations stand behind it: the real one, and one in memory that records every write
//! and sync, can fail them, and can be cut at any of them. Deliberately absent: appending, seeking, buffering.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod real;
#[cfg(any(test, feature = "testing"))]
pub mod recording;

/// How bytes are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// Whole blocks go past the page cache (`O_DIRECT|O_DSYNC`): a write has failed or is durable.
    Direct,
    /// Through the page cache, and then `fdatasync`.
    Fdatasync,
}

/// One directory that holds one log.
pub trait SegmentDir: Send + Sync + 'static {
    /// Takes the directory for this process, until the guard is dropped.
    /// `WouldBlock` when another process (or another log of this one) holds it.
    fn lock(&self) -> io::Result<Box<dyn Send>>;
    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file of `bytes` zeros, all of them really allocated; replaces one of that name.
    /// Nothing of it is durable before `sync_data` of the file and `sync_dir`.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>>;
    /// Opens an existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>>;
    /// Gives a file another name, replacing what had it. Durable after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; open handles go on reading it. Durable after `sync_dir`.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns once every create, rename and remove before it survives power loss.
    fn sync_dir(&self) -> io::Result<()>;
    /// How whole blocks are made durable here.
    fn write_mode(&self) -> WriteMode {
        WriteMode::Fdatasync
    }
    /// Bytes that are free on the disk; `None` when there is no telling.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
    /// How the next piece of work on this disk waits. `None`: its calls block, and threads make them.
    /// A simulated disk's do not: the work is done where it was asked for, after so long.
    fn pace(&self) -> Option<Duration> {
        None
    }
}

/// One file of a log. Its length never changes after its creation.
pub trait SegmentFile: Send + Sync {
    /// Length in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Fills `into` from `offset`, or fails.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, or fails and leaves any part of it written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns once every write before it survives power loss. After an error nothing is known
    /// about those writes, and asking again proves nothing: the file must not be written again.
    fn sync_data(&self) -> io::Result<()>;
    /// Syncs, and then forgets what memory holds of the file, so that reading shows what is really
    /// on the disk. After a failed sync memory may show bytes that never got there.
    fn settle(&self) -> io::Result<()>;
}
