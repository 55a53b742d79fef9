//! The next segments, made of zeros ahead of time, so that going to one costs one small sync.
//!
//! The file of a segment that was given up is worn: it is written over with zeros, durably, and is a
//! spare then, which takes no new space. (Were a write of zeros lost all the same, the salt of its
//! next life would keep what is left from verifying.) Otherwise a new file is made. One is under way at
//! a time, on a thread of its own; none of them has a name that recovery knows, so that what was not
//! used is removed at the next open. If there is none when one is needed, it is made then, and that
//! one's failure counts.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::disk::{SegmentDir, SegmentFile};
use crate::files::locked;
use crate::format::SegmentHeader;
use crate::news::News;
use crate::segment::Segment;
use crate::state::NEW_SUFFIX;
use crate::sync::Mutex;
use crate::sync::thread::{self, JoinHandle};

/// So many spares are ready or under way.
pub(crate) const SPARES_MAX: usize = 2;
/// So many worn files wait to become spares.
const WORN_MAX: usize = 2;
/// A disk that was too full for one is asked again after so long.
const AGAIN_AFTER_MS: u64 = 1_000;
/// So many zeros are written at once, and synced, so that an append beside it does not wait long.
const WIPE_BYTES: usize = 2 << 20;

/// The spares of one log.
pub(crate) struct Spares {
    dir: Arc<dyn SegmentDir>,
    bytes: u64,
    pool: Mutex<Pool>,
    /// How many were made or could not be.
    pub(crate) ended: News<u64>,
}

/// Joins what is under way when the log ends: it must not outlive the lock of the directory.
pub(crate) struct Making(pub(crate) Arc<Spares>);

/// The file of a segment that was given up, under another name; that must be durable before the file
/// is written.
pub(crate) struct Worn(Spare);

#[derive(Default)]
struct Pool {
    ready: VecDeque<Spare>,
    worn: VecDeque<Spare>,
    making: Option<JoinHandle<()>>,
    is_making: bool,
    /// Numbers the names.
    made: u64,
    /// The last one could not be made, at this time.
    failed_at_ms: Option<u64>,
    closed: bool,
}

struct Spare {
    name: String,
    file: Arc<dyn SegmentFile>,
    is_recycled: bool,
}

// === impl Spares ===

impl Spares {
    /// For segments of so many bytes.
    pub(crate) fn new(dir: Arc<dyn SegmentDir>, bytes: u64) -> Self {
        Self {
            dir,
            bytes,
            pool: Mutex::default(),
            ended: News::new(0),
        }
    }

    /// How many are ready.
    pub(crate) fn ready(&self) -> usize {
        locked(&self.pool).ready.len()
    }

    /// How many can be had without new space: those that are ready, and worn files.
    pub(crate) fn at_hand(&self) -> usize {
        let pool = locked(&self.pool);
        pool.ready.len().saturating_add(pool.worn.len())
    }

    /// Whether one is under way.
    pub(crate) fn is_making(&self) -> bool {
        locked(&self.pool).is_making
    }

    /// What all of them take on disk, the one under way too.
    pub(crate) fn bytes(&self) -> u64 {
        let files = u64::try_from(locked(&self.pool).files()).unwrap_or(u64::MAX);
        files.saturating_mul(self.bytes)
    }

    /// Whether the last one could not be made.
    pub(crate) fn has_failed(&self) -> bool {
        locked(&self.pool).failed_at_ms.is_some()
    }

    /// Begins to make one if fewer than `wanted` are ready or under way; a new file only if it `may`.
    pub(crate) fn begin(self: &Arc<Self>, wanted: usize, now_ms: u64, may: impl Fn() -> bool) {
        if !locked(&self.pool).wants(wanted, now_ms) {
            return;
        }
        let may_grow = may();
        let mut pool = locked(&self.pool);
        // Another may have begun meanwhile.
        if !pool.wants(wanted, now_ms) || (pool.worn.is_empty() && !may_grow) {
            return;
        }
        // The one before has ended, or it would be under way.
        drop(pool.making.take());
        let worn = pool.worn.pop_front();
        pool.is_making = true;
        let number = pool.next_number();
        if self.dir.pace().is_some() {
            drop(pool);
            self.make(worn, number, now_ms);
            return;
        }
        let this = Arc::clone(self);
        let thread = thread::Builder::new().name("wal-spare".to_owned());
        match thread.spawn(move || this.make(worn, number, now_ms)) {
            Ok(making) => pool.making = Some(making),
            Err(error) => {
                pool.is_making = false;
                tracing::warn!(%error, "no thread for a spare segment");
            }
        }
    }

    /// Makes the segment durable under its name, from a spare if there is or soon will be one; and
    /// says whether its file was another segment's before.
    pub(crate) fn make_segment(&self, header: SegmentHeader) -> io::Result<(Segment, bool)> {
        let Some(spare) = self.take()? else {
            return Ok((Segment::create(self.dir.as_ref(), header)?, false));
        };
        let segment = Segment::write_header(header, spare.file)?;
        self.dir
            .rename(&spare.name, &Segment::name(segment.header.number))?;
        self.dir.sync_dir()?;
        Ok((segment, spare.is_recycled))
    }

    /// Takes the file of a segment that nobody reads any more out of the log, if one is wanted besides
    /// so many that were taken and are not kept yet.
    pub(crate) fn take_over(
        &self,
        segment: Segment,
        taken: usize,
    ) -> io::Result<Result<Worn, Segment>> {
        let wanted = {
            let pool = locked(&self.pool);
            let worn = pool.worn.len().saturating_add(taken);
            !pool.closed && worn < WORN_MAX && segment.header.segment_bytes == self.bytes
        };
        if !wanted {
            return Ok(Err(segment));
        }
        let number = segment.header.number;
        let name = format!("worn-{number:010}{NEW_SUFFIX}");
        self.dir.rename(&Segment::name(number), &name)?;
        Ok(Ok(Worn(Spare {
            name,
            file: segment.file,
            is_recycled: true,
        })))
    }

    /// Keeps a worn file, whose name is durable, for later.
    pub(crate) fn keep(&self, worn: Worn) {
        locked(&self.pool).worn.push_back(worn.0);
    }

    /// Waits for the one under way.
    pub(crate) fn wait(&self) {
        let making = locked(&self.pool).making.take();
        if making.is_some_and(|making| making.join().is_err()) {
            tracing::error!("the thread that makes spare segments panicked");
            locked(&self.pool).is_making = false;
        }
    }

    /// A spare that is ready, or will be; a worn file is wiped for it here and now.
    fn take(&self) -> io::Result<Option<Spare>> {
        if self.ready() == 0 {
            self.wait();
        }
        let worn = {
            let mut pool = locked(&self.pool);
            if let Some(ready) = pool.ready.pop_front() {
                return Ok(Some(ready));
            }
            pool.worn.pop_front()
        };
        let Some(worn) = worn else { return Ok(None) };
        wipe(worn.file.as_ref(), self.bytes)?;
        Ok(Some(worn))
    }

    fn make(&self, worn: Option<Spare>, number: u64, now_ms: u64) {
        let (name, is_recycled) = match &worn {
            Some(worn) => (worn.name.clone(), true),
            None => (format!("spare-{number:06}{NEW_SUFFIX}"), false),
        };
        let made = match worn {
            Some(worn) => wipe(worn.file.as_ref(), self.bytes).map(|()| worn.file),
            None => self.dir.create(&name, self.bytes).and_then(|file| {
                file.sync_data()?;
                Ok(file)
            }),
        };
        if made.is_err()
            && let Err(error) = self.dir.remove(&name)
        {
            tracing::warn!(%error, "an unfinished spare stays until the next open");
        }
        let mut pool = locked(&self.pool);
        pool.is_making = false;
        match made {
            Ok(file) => {
                pool.failed_at_ms = None;
                pool.ready.push_back(Spare {
                    name,
                    file,
                    is_recycled,
                });
            }
            Err(error) => {
                pool.failed_at_ms = Some(now_ms);
                tracing::warn!(%error, "a spare segment could not be made");
            }
        }
        drop(pool);
        self.ended.update(|ended| *ended = ended.saturating_add(1));
    }
}

impl Pool {
    /// Whether another one is to be made now.
    fn wants(&self, wanted: usize, now_ms: u64) -> bool {
        let rests = |failed: u64| now_ms.saturating_sub(failed) < AGAIN_AFTER_MS;
        let enough = self.ready.len() >= wanted.min(SPARES_MAX);
        !(enough || self.is_making || self.closed || self.failed_at_ms.is_some_and(rests))
    }

    fn files(&self) -> usize {
        let making = usize::from(self.is_making);
        let kept = self.ready.len().saturating_add(self.worn.len());
        kept.saturating_add(making)
    }

    fn next_number(&mut self) -> u64 {
        self.made = self.made.saturating_add(1);
        self.made
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        locked(&self.0.pool).closed = true;
        self.0.wait();
    }
}

/// Writes a file over with zeros, durably.
fn wipe(file: &dyn SegmentFile, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; WIPE_BYTES];
    let mut at = 0_u64;
    while at < bytes {
        let left = usize::try_from(bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let chunk = zeros.get(..left).unwrap_or(&zeros);
        file.write_at(chunk, at)?;
        file.sync_data()?;
        at = at.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
    }
    Ok(())
}
