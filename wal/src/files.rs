//! The files of an open log, as everyone who touches them shares them.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::disk::SegmentDir;
use crate::format::{BLOCK, frame_bytes};
use crate::news::News;
use crate::places::Places;
use crate::scrub::Damage;
use crate::segment::Segment;
use crate::spare::{SPARES_MAX, Spares};
use crate::state::{Identity, Slots};
use crate::status::Counters;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::time::TimeSource;
use crate::wal::Config;

/// Longest wait for a spare segment; less than a heartbeat, or a leader is not heard meanwhile. A disk
/// that takes longer counts as one without room for now.
const SPARE_WITHIN: Duration = Duration::from_millis(25);
/// Truncations before entries, and marks beside them.
const BESIDE_ENTRIES: u64 = BLOCK.saturating_mul(4);
/// What a log without another segment keeps of its last one, at most a quarter of it.
const KEPT_AT_THE_END: u64 = BLOCK.saturating_mul(16);

/// Segments and the small files beside them.
pub(crate) struct Files {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) dir: Arc<dyn SegmentDir>,
    pub(crate) time: Box<dyn TimeSource>,
    /// In order; the last one is appended to.
    pub(crate) segments: Mutex<Vec<Arc<Segment>>>,
    pub(crate) places: Mutex<Places>,
    pub(crate) slots: Mutex<Slots>,
    /// A copy of what the slots say, so that appending never waits for a trim.
    pub(crate) trim_index: AtomicU64,
    /// Bytes left in the last segment by what is written.
    pub(crate) active_left: AtomicU64,
    /// When the write under way began, by the monotonic clock in microseconds plus 1; 0: none is.
    pub(crate) writing_since: AtomicU64,
    pub(crate) spares: Arc<Spares>,
    pub(crate) counters: Mutex<Counters>,
    pub(crate) torn_tails_cut: u64,
    /// The first damage that was found since the log was opened.
    pub(crate) damage: Mutex<Option<Damage>>,
    pub(crate) is_damaged: News<bool>,
}

/// Takes a lock whatever became of its last holder: a panic of the disk thread poisons the log
/// itself, which is what tells everyone.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The index that the first of these segments begins with; 1 of none.
pub(crate) fn first_index(segments: &[Arc<Segment>]) -> u64 {
    segments
        .first()
        .map_or(1, |segment| segment.header.first_index)
}

// === impl Files ===

impl Files {
    pub(crate) fn bytes_used(&self) -> u64 {
        let bytes = |segment: &Arc<Segment>| segment.header.segment_bytes;
        locked(&self.segments)
            .iter()
            .map(bytes)
            .fold(0, u64::saturating_add)
    }

    /// The first index that the segments begin with.
    pub(crate) fn first_index(&self) -> u64 {
        first_index(&locked(&self.segments))
    }

    /// Whether so many more bytes are within the space budget.
    pub(crate) fn may_grow_by(&self, bytes: u64) -> bool {
        self.bytes_used().saturating_add(bytes) <= self.config.budget_bytes
    }

    /// How many more segments can be begun: inside the space budget and, as far as making the spares
    /// has shown, on the disk. A disk that was full is asked again now and then.
    pub(crate) fn segments_left(&self) -> u64 {
        let Config {
            budget_bytes,
            segment_bytes,
            ..
        } = self.config;
        let bytes = budget_bytes.saturating_sub(self.bytes_used());
        let left = bytes.checked_div(segment_bytes).unwrap_or(0);
        if !self.spares.has_failed() {
            return left;
        }
        self.make_spares(SPARES_MAX);
        left.min(self.spares_ready())
    }

    /// How many of these payloads, each in a frame of its own, fit behind what is written and into so
    /// many new segments; and how many of those they begin. So many bytes of the last segment stay.
    fn count_fitting(&self, payloads: &[usize], segments: u64, stay: u64) -> (usize, u64) {
        let room = self.config.segment_bytes.saturating_sub(BLOCK);
        let mut left = self.active_left.load(Ordering::Relaxed);
        left = left.saturating_sub(BESIDE_ENTRIES).saturating_sub(stay);
        let (mut count, mut begun) = (0_usize, 0_u64);
        for payload in payloads {
            let bytes = frame_bytes(*payload).and_then(|bytes| u64::try_from(bytes).ok());
            let bytes = bytes.unwrap_or(u64::MAX);
            let begins = u64::from(bytes > left);
            if bytes > room || begun.saturating_add(begins) > segments {
                break;
            }
            begun = begun.saturating_add(begins);
            left = if begins > 0 { room } else { left };
            left = left.saturating_sub(bytes);
            count = count.saturating_add(1);
        }
        (count, begun)
    }

    /// How many of these payloads can be taken in so that the disk has room for them; `kept` segments
    /// have to be left besides.
    pub(crate) async fn admit(&self, payloads: &[usize], kept: u64) -> usize {
        let (_all, wanted) = self.count_fitting(payloads, u64::MAX, 0);
        let made = match wanted {
            0 => 0,
            _ => self.foresee(wanted).await,
        };
        match self.segments_left().checked_sub(kept) {
            Some(left) => self.count_fitting(payloads, left.min(made), 0).0,
            // What is left of the last segment, but for what a new leader has to write.
            None => self.count_fitting(payloads, 0, self.kept_at_the_end()).0,
        }
    }

    /// What of the last segment is for a new leader's first entry.
    fn kept_at_the_end(&self) -> u64 {
        let quarter = self.config.segment_bytes.checked_div(4).unwrap_or(0);
        KEPT_AT_THE_END.min(quarter)
    }

    /// Whether the last segment has room for an entry or two that make more.
    pub(crate) fn has_room_at_the_end(&self) -> bool {
        let left = self.active_left.load(Ordering::Relaxed);
        left >= self.kept_at_the_end().saturating_mul(2)
    }

    /// Waits until so many segments are made, and says how many are: fewer if the budget or the disk
    /// has no place for them, or the disk takes too long. What has to be written is begun only in a
    /// segment that is there, so that a full disk is met here and not inside a write.
    pub(crate) async fn foresee(&self, segments: u64) -> u64 {
        let wanted = usize::try_from(segments)
            .unwrap_or(usize::MAX)
            .min(SPARES_MAX);
        let made = async {
            loop {
                let ended = self.spares.ended.get();
                self.make_spares(wanted);
                if self.spares.at_hand() >= wanted || !self.spares.is_making() {
                    break;
                }
                self.spares.ended.wait_for(|now| *now != ended).await;
            }
        };
        if wanted > 0 && tokio::time::timeout(SPARE_WITHIN, made).await.is_err() {
            tracing::warn!("a spare segment takes long to be made");
        }
        u64::try_from(self.spares.at_hand()).unwrap_or(u64::MAX)
    }

    /// Durable bytes are not what was written. Whoever waits for it is told; nothing is changed.
    pub(crate) fn report(&self, damage: Damage) {
        let Damage { file, offset, what } = &damage;
        tracing::error!(%file, offset, %what, "the log is damaged; this copy must not be relied on");
        locked(&self.damage).get_or_insert(damage);
        self.is_damaged.set(true);
    }

    pub(crate) fn spares_ready(&self) -> u64 {
        u64::try_from(self.spares.ready()).unwrap_or(u64::MAX)
    }

    /// Begins to make a spare segment unless so many are there, inside the space budget.
    pub(crate) fn make_spares(&self, wanted: usize) {
        let may = || {
            let bytes = self.spares.bytes();
            self.may_grow_by(bytes.saturating_add(self.config.segment_bytes))
        };
        self.spares.begin(wanted, self.time.monotonic_ms(), may);
    }

    /// Takes the files of segments that are in no list any more out of the log. Oldest first, so that
    /// a crash in the middle leaves no gap.
    pub(crate) fn give_up(&self, gone: Vec<Arc<Segment>>) -> io::Result<()> {
        let mut worn = Vec::new();
        for segment in gone {
            let name = Segment::name(segment.header.number);
            // Whoever still reads it keeps what it reads: the file is not used again.
            match Arc::into_inner(segment) {
                Some(segment) => match self.spares.take_over(segment, worn.len())? {
                    Ok(taken) => worn.push(taken),
                    Err(_not_wanted) => self.dir.remove(&name)?,
                },
                None => self.dir.remove(&name)?,
            }
        }
        self.dir.sync_dir()?;
        for worn in worn {
            self.spares.keep(worn);
        }
        Ok(())
    }
}
