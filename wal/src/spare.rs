//! The next segment, made of zeros ahead of time, so that going to it costs one small sync.
//!
//! At most one spare is there or under way. It has no name that recovery knows: a spare that was
//! not used is removed at the next open. If it cannot be made, the segment is made when it is
//! needed, and that one's failure counts.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::disk::{SegmentDir, SegmentFile};
use crate::format::SegmentHeader;
use crate::segment::Segment;

const SPARE_FILE: &str = "spare.new";

type Made = io::Result<Arc<dyn SegmentFile>>;

/// The spare of one log.
pub(crate) struct Spare {
    dir: Arc<dyn SegmentDir>,
    state: Slot,
}

enum Slot {
    Empty,
    Making(JoinHandle<Made>),
    Ready(Arc<dyn SegmentFile>),
}

impl Spare {
    pub(crate) fn new(dir: Arc<dyn SegmentDir>) -> Self {
        Self {
            dir,
            state: Slot::Empty,
        }
    }

    /// Begins to make one, unless there is one; on a thread of its own if the disk blocks.
    pub(crate) fn begin(&mut self, bytes: u64) {
        if !matches!(self.state, Slot::Empty) {
            return;
        }
        let dir = Arc::clone(&self.dir);
        if dir.pace().is_some() {
            match make(dir.as_ref(), bytes) {
                Ok(file) => self.state = Slot::Ready(file),
                Err(error) => tracing::warn!(%error, "a spare segment could not be made"),
            }
            return;
        }
        let thread = std::thread::Builder::new().name("wal-spare".to_owned());
        match thread.spawn(move || make(dir.as_ref(), bytes)) {
            Ok(making) => self.state = Slot::Making(making),
            Err(error) => tracing::warn!(%error, "no thread for a spare segment"),
        }
    }

    /// Makes the segment durable under its name, from the spare if there is one of that size.
    pub(crate) fn make_segment(&mut self, header: SegmentHeader) -> io::Result<Segment> {
        let Some(file) = self.take().filter(|file| {
            file.bytes()
                .is_ok_and(|bytes| bytes == header.segment_bytes)
        }) else {
            return Segment::create(self.dir.as_ref(), header);
        };
        let segment = Segment::write_header(header, file)?;
        self.dir
            .rename(SPARE_FILE, &Segment::name(segment.header.number))?;
        self.dir.sync_dir()?;
        Ok(segment)
    }

    /// Waits for the one under way.
    pub(crate) fn wait(&mut self) {
        if let Some(file) = self.take() {
            self.state = Slot::Ready(file);
        }
    }

    fn take(&mut self) -> Option<Arc<dyn SegmentFile>> {
        let making = match std::mem::replace(&mut self.state, Slot::Empty) {
            Slot::Empty => return None,
            Slot::Ready(file) => return Some(file),
            Slot::Making(making) => making,
        };
        match making.join() {
            Ok(Ok(file)) => Some(file),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a spare segment could not be made");
                None
            }
            Err(_panic) => None,
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        // The thread must not outlive the lock of the directory.
        self.wait();
    }
}

fn make(dir: &dyn SegmentDir, bytes: u64) -> Made {
    let made = dir.create(SPARE_FILE, bytes).and_then(|file| {
        file.sync_data()?;
        Ok(file)
    });
    if made.is_err()
        && let Err(error) = dir.remove(SPARE_FILE)
    {
        tracing::warn!(%error, "an unfinished spare stays until the next open");
    }
    made
}
