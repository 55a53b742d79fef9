//! The end of the log: where the next write goes, and writing it.
//!
//! One owner, the disk thread. One write is under way at a time, of one frame or several, and is
//! durable when it returns, which is what makes the torn-tail rule exact. After an error nothing may
//! be written any more: the owner poisons the log.

use std::io;
use std::sync::Arc;

use crate::disk::SegmentDir;
use crate::files::{Files, locked};
use crate::format::{
    BLOCK, FORMAT_VERSION, FrameKind, FrameMeta, SegmentHeader, Trailer, TrailerKind, encode_frame,
    encode_mark, frame_bytes,
};
use crate::news::News;
use crate::places::Place;
use crate::planted::{Planted, planted};
use crate::recovery::{End, OpenError, Plan, during, recover, salt_of};
use crate::segment::{Frame, Segment};
use crate::spare::{Making, SPARES_MAX, Spares};
use crate::state::{Kind, State};
use crate::status::{Counters, SLOW_SYNC_US};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::TimeSource;
use crate::wal::Config;

/// Random bits for salts.
pub(crate) type Random = Box<dyn FnMut() -> u128 + Send>;

pub(crate) struct Tape {
    pub(crate) files: Arc<Files>,
    active: Arc<Segment>,
    offset: u64,
    writes: u64,
    next_index: u64,
    buffer: Vec<u8>,
    /// A frame was written since the last mark.
    unmarked: bool,
    random: Random,
    /// Segments were left in this run: the next ones are wanted early.
    has_rotated: bool,
    _making: Making,
    /// Held until the thread ends.
    _lock: Box<dyn Send>,
}

/// One frame to be written.
pub(crate) struct Draft<'a, R> {
    pub(crate) kind: FrameKind,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) log_time_ms: u64,
    /// Highest index known committed.
    pub(crate) committed: u64,
    pub(crate) records: &'a [R],
}

/// Whether there is room for a frame now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    Yes,
    /// The space budget, or the disk, is full.
    No,
}

// === impl Tape ===

impl Tape {
    /// Recovers a log, or creates one, and stands at its end; shows every frame to `visit` in order.
    ///
    /// Where a write of several frames was torn between two of them, a mark says that the rest of it
    /// will not come.
    pub(crate) fn open(
        dir: Arc<dyn SegmentDir>,
        config: Config,
        time: Box<dyn TimeSource>,
        mut random: Random,
        kind: Kind,
        visit: &mut dyn FnMut(Frame),
    ) -> Result<(Self, End), OpenError> {
        config.check()?;
        let plan = Plan {
            group: &config.group,
            node: config.node.0,
            kind,
            segment_bytes: config.segment_bytes,
            random: &mut random,
        };
        let recovered = recover(dir.as_ref(), plan, visit)?;
        let walk = recovered.walk;
        let end = walk.end;
        let Some(active) = walk.segments.last().cloned() else {
            return Err(OpenError::Config {
                what: "a log has at least one segment",
            });
        };
        let spares = Arc::new(Spares::new(Arc::clone(&dir), config.segment_bytes));
        let files = Files {
            spares,
            config,
            identity: walk.identity,
            dir,
            time,
            segments: Mutex::new(walk.segments),
            places: Mutex::new(walk.places),
            trim_index: AtomicU64::new(walk.slots.state().trim_index),
            active_left: AtomicU64::new(0),
            writing_since: AtomicU64::new(0),
            slots: Mutex::new(walk.slots),
            counters: Mutex::new(Counters::default()),
            torn_tails_cut: recovered.torn_tails_cut,
            damage: Mutex::new(None),
            is_damaged: News::new(false),
        };
        let making = Making(Arc::clone(&files.spares));
        let mut tape = Self {
            files: Arc::new(files),
            active,
            offset: end.offset,
            writes: end.writes,
            next_index: end.next_index,
            buffer: Vec::new(),
            unmarked: end.more,
            random,
            has_rotated: false,
            _making: making,
            _lock: recovered.lock,
        };
        tape.tell_what_is_left();
        if end.more {
            tape.mark()
                .map_err(during("ending a write that was torn"))?;
        }
        Ok((tape, end))
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Whether a mark is wanted and has room.
    pub(crate) fn wants_mark(&self) -> bool {
        self.unmarked && self.offset.saturating_add(BLOCK) <= self.active.header.segment_bytes
    }

    /// Whether a frame with this payload fits behind `taken` bytes of other frames of its write.
    pub(crate) fn fits(&self, taken: u64, payload: usize) -> bool {
        // A segment of an older format is left, never continued.
        self.active.header.version == FORMAT_VERSION
            && frame_bytes(payload)
                .and_then(|bytes| u64::try_from(bytes).ok())
                .and_then(|bytes| bytes.checked_add(taken))
                .and_then(|bytes| self.offset.checked_add(bytes))
                .is_some_and(|end| end <= self.active.header.segment_bytes)
    }

    /// Sees to it that a frame with this payload fits, by going to a new segment if need be.
    pub(crate) fn make_room(&mut self, payload: usize) -> io::Result<Room> {
        if self.fits(0, payload) {
            return Ok(Room::Yes);
        }
        if !self.files.may_grow_by(self.files.config.segment_bytes) {
            return Ok(Room::No);
        }
        match self.rotate(|state| state) {
            Ok(()) => Ok(Room::Yes),
            // Nothing was written to the log: the old segment is whole, the new one has no name.
            Err(error) if is_full(&error) => {
                tracing::error!(%error, "the disk is full inside the log's budget");
                Ok(Room::No)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes frames that fit as one write, and returns when they are durable.
    pub(crate) fn write<R: AsRef<[u8]>>(&mut self, drafts: &[Draft<'_, R>]) -> io::Result<()> {
        let trailer = self.trailer(TrailerKind::Frame);
        let trim_hint = self.files.trim_index.load(Ordering::Relaxed);
        let salt = self.active.header.salt;
        let mut places = Vec::with_capacity(drafts.len());
        self.buffer.clear();
        for (at, draft) in drafts.iter().enumerate() {
            let taken = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
            let offset = self.offset.saturating_add(taken);
            let meta = FrameMeta {
                kind: draft.kind,
                more: at.saturating_add(1) < drafts.len(),
                term: draft.term,
                index: draft.index,
                log_time_ms: draft.log_time_ms,
                committed_hint: draft.committed,
                trim_hint,
                trailer,
            };
            let records = draft.records.iter().map(AsRef::as_ref);
            encode_frame(&mut self.buffer, salt, offset, &meta, records)
                .ok_or(io::ErrorKind::InvalidInput)?;
            places.push(offset);
        }
        let bytes = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        let end = self.offset.saturating_add(bytes);
        assert!(
            end <= self.active.header.segment_bytes && bytes % BLOCK == 0,
            "frames must be whole blocks inside their segment"
        );
        let took_us = self.put_down(bytes)?;
        self.offset = end;
        self.tell_what_is_left();
        self.writes = trailer.write;
        self.unmarked = true;
        let segment = self.active.header.number;
        let mut noted = locked(&self.files.places);
        for (draft, offset) in drafts.iter().zip(places) {
            if draft.kind == FrameKind::Truncation {
                noted.truncate(draft.index);
                self.next_index = draft.index;
            } else {
                noted.note(draft.index, Place { segment, offset });
                self.next_index = draft.index.saturating_add(1);
            }
        }
        drop(noted);
        let mut counters = locked(&self.files.counters);
        counters.syncs = counters.syncs.saturating_add(1);
        counters.written_bytes = counters.written_bytes.saturating_add(bytes);
        counters.sync_latency.record(took_us);
        if took_us > SLOW_SYNC_US {
            counters.slow_syncs = counters.slow_syncs.saturating_add(1);
        }
        Ok(())
    }

    /// A planted bug's truncation: nothing is written.
    pub(crate) fn forget_from(&mut self, index: u64) {
        locked(&self.files.places).truncate(index);
        self.next_index = index;
    }

    /// Writes a mark behind the last frame, so that the frame cannot be taken for torn later.
    pub(crate) fn mark(&mut self) -> io::Result<()> {
        if !self.wants_mark() {
            return Ok(());
        }
        let trailer = self.trailer(TrailerKind::Mark);
        let block = encode_mark(self.active.header.salt, self.offset, &trailer);
        self.active.file.write_at(&block, self.offset)?;
        self.active.file.sync_data()?;
        self.offset = self.offset.saturating_add(BLOCK);
        self.tell_what_is_left();
        self.writes = trailer.write;
        self.unmarked = false;
        let mut counters = locked(&self.files.counters);
        counters.marks = counters.marks.saturating_add(1);
        Ok(())
    }

    /// Begins to make the next segment once a quarter of this one is used; in a log that is written
    /// fast enough to have come to this one in this run, the one after it too.
    pub(crate) fn think_ahead(&mut self) {
        let segment_bytes = self.active.header.segment_bytes;
        let quarter = segment_bytes.checked_div(4).unwrap_or(0);
        if self.offset > quarter {
            let wanted = if self.has_rotated { SPARES_MAX } else { 1 };
            self.files.make_spares(wanted);
        }
    }

    /// What `think_ahead` does, to its end.
    #[cfg(test)]
    pub(crate) fn wait_for_spare(&mut self) {
        self.think_ahead();
        self.files.spares.wait();
    }

    fn put_down(&self, bytes: u64) -> io::Result<u64> {
        let files = &self.files;
        let started_us = files.time.monotonic_us();
        files
            .writing_since
            .store(started_us.saturating_add(1), Ordering::Relaxed);
        debug_assert!(bytes > 0, "an empty write proves nothing");
        self.active.file.write_at(&self.buffer, self.offset)?;
        if !planted(Planted::NoSync) {
            self.active.file.sync_data()?;
        }
        files.writing_since.store(0, Ordering::Relaxed);
        Ok(files.time.monotonic_us().saturating_sub(started_us))
    }

    fn trailer(&self, kind: TrailerKind) -> Trailer {
        Trailer {
            kind,
            write: self.writes.saturating_add(1),
            durable_before: self.next_index.saturating_sub(1),
        }
    }

    /// Goes on at another index, in a segment of its own: what a snapshot brought, or an empty log.
    /// What lies before is given up with the same write of the state, by `trim`; the caller removes
    /// its files.
    pub(crate) fn begin_at(
        &mut self,
        index: u64,
        trim: impl FnOnce(State) -> State,
    ) -> io::Result<()> {
        self.next_index = index;
        locked(&self.files.places).truncate(0);
        self.rotate(trim)
    }

    /// Goes to a new segment. Everything in the old one is durable already.
    fn rotate(&mut self, change: impl FnOnce(State) -> State) -> io::Result<()> {
        let files = &self.files;
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            segment_bytes: files.config.segment_bytes,
            number: self.active.header.number.saturating_add(1),
            first_index: self.next_index,
            salt: salt_of((self.random)()),
            ..self.active.header.clone()
        };
        let number = header.number;
        let (segment, is_recycled) = files.spares.make_segment(header)?;
        let segment = Arc::new(segment);
        let mut slots = locked(&files.slots);
        let state = State {
            last_segment: number,
            ..slots.state()
        };
        slots.store(change(state))?;
        drop(slots);
        locked(&files.segments).push(Arc::clone(&segment));
        let mut counters = locked(&files.counters);
        counters.rotations = counters.rotations.saturating_add(1);
        if is_recycled {
            counters.recycled = counters.recycled.saturating_add(1);
        }
        drop(counters);
        self.has_rotated = true;
        self.active = segment;
        self.offset = BLOCK;
        self.tell_what_is_left();
        self.writes = 0;
        Ok(())
    }

    fn tell_what_is_left(&self) {
        let header = &self.active.header;
        let continued = header.version == FORMAT_VERSION;
        let end = if continued { header.segment_bytes } else { 0 };
        let left = end.saturating_sub(self.offset);
        self.files.active_left.store(left, Ordering::Relaxed);
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
