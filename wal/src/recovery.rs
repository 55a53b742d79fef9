//! Opening a log: what is there, whether it can be believed, and cutting a torn write.
//!
//! Promises: everything is made durable before it is read, so nothing is decided by bytes that a
//! power cut could take back. Only a torn write is cut: in the last segment, in a run that did not
//! stop cleanly, with nothing behind it that was written after it had been durable. Everything else
//! is damage, is reported with its place, and nothing is changed. Opening an existing log needs no
//! new space. Deliberately absent: repair.

use std::io;
use std::sync::Arc;

use crate::disk::SegmentDir;
use crate::format::{BLOCK, FORMAT_VERSION, HeaderFault, SegmentHeader};
use crate::places::{Place, Places};
use crate::planted::{Planted, planted};
use crate::segment::{Cursor, Fault, Frame, Segment, Step, Tail};
use crate::state::{IDENTITY_FILE, Identity, Kind, NEW_SUFFIX, STATE_FILE, Slots, State};

mod error;
mod torn;

pub use error::OpenError;
pub(crate) use error::during;
use error::foreign;
use torn::cut;

/// A log as it is on disk, read to its end.
pub(crate) struct Walk {
    pub(crate) identity: Identity,
    pub(crate) slots: Slots,
    /// In order, without gaps. Empty only before the first segment was made.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) places: Places,
    pub(crate) end: End,
    /// The torn write behind the end, if there is one: cut it from `end.offset` to here.
    pub(crate) torn_until: Option<u64>,
}

/// Where the log ends and goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) next_index: u64,
    pub(crate) term: u64,
    pub(crate) log_time_ms: u64,
    /// In the last segment.
    pub(crate) offset: u64,
    /// Writes seen in the last segment.
    pub(crate) writes: u64,
    /// The last of them was torn between two frames: more of them should have followed.
    pub(crate) more: bool,
    /// Highest index that was known committed when something was written.
    pub(crate) committed: u64,
}

/// A log that is open for appending.
pub(crate) struct Recovered {
    pub(crate) lock: Box<dyn Send>,
    pub(crate) walk: Walk,
    pub(crate) torn_tails_cut: u64,
}

/// What recovery needs to know.
pub(crate) struct Plan<'a> {
    pub(crate) group: &'a str,
    pub(crate) node: u64,
    pub(crate) kind: Kind,
    pub(crate) segment_bytes: u64,
    /// Random bits, for a new incarnation and for salts.
    pub(crate) random: &'a mut dyn FnMut() -> u128,
}

/// Locks, verifies and opens the log, or creates one; shows every frame to `visit` in order.
pub(crate) fn recover(
    dir: &dyn SegmentDir,
    mut plan: Plan<'_>,
    visit: &mut dyn FnMut(Frame),
) -> Result<Recovered, OpenError> {
    let lock = dir.lock().map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => OpenError::Io {
            doing: "locking the directory",
            source,
        },
    })?;
    settle(dir)?;
    let mut walk = match walk(dir, visit)? {
        Some(walk) => walk,
        None => found(dir, &mut plan)?,
    };
    let Identity {
        group,
        node,
        incarnation,
        kind,
    } = &walk.identity;
    if group != plan.group || *node != plan.node {
        return Err(foreign(IDENTITY_FILE, *node, group, *incarnation));
    }
    if *kind != plan.kind {
        return Err(OpenError::OtherKind);
    }
    remove_unlisted(dir, &walk.segments)?;
    let mut torn_tails_cut = 0;
    if let Some(until) = walk.torn_until.take() {
        cut(dir, &walk, until)?;
        torn_tails_cut = 1;
    }
    if walk.segments.is_empty() {
        let salt = salt_of((plan.random)());
        let header = first_header(&walk, plan.segment_bytes, salt);
        let segment = Segment::create(dir, header).map_err(during("creating a segment"))?;
        walk.segments.push(Arc::new(segment));
    }
    let last_segment = walk
        .segments
        .last()
        .map_or(0, |segment| segment.header.number);
    let running = State {
        clean_at: None,
        last_segment,
        ..walk.slots.state()
    };
    walk.slots
        .store(running)
        .map_err(during("marking the log as running"))?;
    Ok(Recovered {
        lock,
        walk,
        torn_tails_cut,
    })
}

/// Reads the whole log. `None` when there is none. Changes nothing.
pub(crate) fn walk(
    dir: &dyn SegmentDir,
    visit: &mut dyn FnMut(Frame),
) -> Result<Option<Walk>, OpenError> {
    let names = dir.list().map_err(during("listing the directory"))?;
    let numbers = numbers(&names);
    if !names.iter().any(|name| name == IDENTITY_FILE) {
        return if numbers.is_empty() {
            Ok(None)
        } else {
            Err(OpenError::IdentityMissing)
        };
    }
    let (identity, slots) = open_small_files(dir)?;
    let mut segments = open_segments(dir, &identity, &numbers, slots.state())?;
    let mut end = End {
        next_index: segments
            .first()
            .map_or(slots.state().trim_index, |segment| {
                segment.header.first_index
            }),
        ..End::new(0)
    };
    let mut places = Places::default();
    let mut torn_until = None;
    let mut used = segments.len();
    for (at, segment) in segments.iter().enumerate() {
        let next = at.checked_add(1).and_then(|next| segments.get(next));
        if segment.header.first_index != end.next_index
            && is_unused(segment, slots.state()).map_err(during("reading a segment"))?
        {
            used = at;
            break;
        }
        let mut visit = |offset, frame: Frame| {
            match &frame {
                Frame::Entry { entry, .. } => {
                    let segment = segment.header.number;
                    places.note(entry.index, Place { segment, offset });
                }
                Frame::Truncation { from } => places.truncate(*from),
            }
            visit(frame);
        };
        torn_until = walk_segment(segment, next, slots.state(), &mut end, &mut visit)?;
    }
    segments.truncate(used);
    if slots
        .state()
        .clean_at
        .is_some_and(|index| index != end.next_index.saturating_sub(1))
    {
        let segment = segments.last().map_or(0, |segment| segment.header.number);
        return Err(OpenError::Damaged {
            segment,
            offset: end.offset,
            what: Fault::Short,
        });
    }
    Ok(Some(Walk {
        identity,
        slots,
        segments,
        places,
        end,
        torn_until,
    }))
}

/// Segments by number, in order.
pub(crate) fn numbers(names: &[String]) -> Vec<u64> {
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| Segment::number_of(name))
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Removes segments that were given up, or made and never used.
fn remove_unlisted(dir: &dyn SegmentDir, kept: &[Arc<Segment>]) -> Result<(), OpenError> {
    let names = dir.list().map_err(during("listing the directory"))?;
    let gone: Vec<u64> = numbers(&names)
        .into_iter()
        .filter(|number| kept.iter().all(|kept| kept.header.number != *number))
        .collect();
    for number in &gone {
        dir.remove(&Segment::name(*number))
            .map_err(during("removing a segment that was given up"))?;
    }
    if gone.is_empty() {
        return Ok(());
    }
    dir.sync_dir()
        .map_err(during("removing a segment that was given up"))
}

pub(crate) fn open_small_files(dir: &dyn SegmentDir) -> Result<(Identity, Slots), OpenError> {
    let identity = Identity::read(dir)
        .map_err(during("reading the identity"))?
        .map_err(|fault| match fault {
            HeaderFault::Damaged => OpenError::StateDamaged {
                file: IDENTITY_FILE,
            },
            HeaderFault::Version(version) => OpenError::UnknownFormat {
                file: IDENTITY_FILE.to_owned(),
                version,
            },
        })?;
    let slots = match Slots::open(dir, &identity) {
        Ok(Some(slots)) => slots,
        Ok(None) => return Err(OpenError::StateDamaged { file: STATE_FILE }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::StateDamaged { file: STATE_FILE });
        }
        Err(source) => {
            return Err(OpenError::Io {
                doing: "reading the state",
                source,
            });
        }
    };
    Ok((identity, slots))
}

/// Makes what the disk says durable, and removes what was never finished.
fn settle(dir: &dyn SegmentDir) -> Result<(), OpenError> {
    for name in dir.list().map_err(during("listing the directory"))? {
        if name.ends_with(NEW_SUFFIX) {
            dir.remove(&name)
                .map_err(during("removing an unfinished file"))?;
        } else if Segment::number_of(&name).is_some() || name == IDENTITY_FILE || name == STATE_FILE
        {
            let file = dir
                .open(&name)
                .map_err(during("opening a file to sync it"))?;
            file.settle()
                .map_err(during("syncing a file before reading it"))?;
        }
    }
    dir.sync_dir()
        .map_err(during("syncing the directory before reading it"))
}

/// Creates the two small files of a new log. The state comes first: an identity without a state is
/// damage, a state without an identity is a log whose creation was cut short.
fn found(dir: &dyn SegmentDir, plan: &mut Plan<'_>) -> Result<Walk, OpenError> {
    let identity = Identity {
        group: plan.group.to_owned(),
        node: plan.node,
        incarnation: uuid::Builder::from_random_bytes((plan.random)().to_le_bytes()).into_uuid(),
        kind: plan.kind,
    };
    // A group's first entry says who its members are; it has the index 0.
    let first_index = match plan.kind {
        Kind::Local => 1,
        Kind::Replicated => 0,
    };
    let slots = Slots::create(dir, &identity, first_index).map_err(during("creating the state"))?;
    identity
        .create(dir)
        .map_err(during("creating the identity"))?;
    Ok(Walk {
        identity,
        slots,
        segments: Vec::new(),
        places: Places::default(),
        end: End::new(first_index),
        torn_until: None,
    })
}

/// Opens the segments and checks that none is missing, foreign or out of place.
fn open_segments(
    dir: &dyn SegmentDir,
    identity: &Identity,
    numbers: &[u64],
    state: State,
) -> Result<Vec<Arc<Segment>>, OpenError> {
    let missing = |segment| OpenError::Damaged {
        segment,
        offset: 0,
        what: Fault::Missing,
    };
    if numbers.last().copied().unwrap_or(0) < state.last_segment {
        return Err(missing(state.last_segment));
    }
    let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(numbers.len());
    for &number in numbers {
        if let Some(before) = segments.last()
            && before.header.number.checked_add(1) != Some(number)
        {
            return Err(missing(before.header.number.saturating_add(1)));
        }
        segments.push(Arc::new(open_segment(dir, identity, number)?));
    }
    // A trim that was cut short: what lies before a segment that begins at or below the trim index
    // was given up.
    let begins = |segment: &Arc<Segment>| segment.header.first_index <= state.trim_index;
    if let Some(first) = segments.iter().rposition(begins) {
        segments.drain(..first);
    }
    if let Some(first) = segments.first()
        && first.header.first_index > state.trim_index
    {
        return Err(missing(first.header.number.saturating_sub(1)));
    }
    Ok(segments)
}

/// A segment whose header verifies, whatever log it belongs to.
pub(crate) fn open_alone(dir: &dyn SegmentDir, number: u64) -> Result<Segment, OpenError> {
    let name = Segment::name(number);
    let file = dir.open(&name).map_err(during("opening a segment"))?;
    match Segment::open(file).map_err(during("reading a segment's header"))? {
        Ok(segment) => Ok(segment),
        Err(HeaderFault::Version(version)) => Err(OpenError::UnknownFormat {
            file: name,
            version,
        }),
        Err(HeaderFault::Damaged) => {
            let what = Fault::SegmentHeader;
            Err(OpenError::Damaged {
                segment: number,
                offset: 0,
                what,
            })
        }
    }
}

fn open_segment(
    dir: &dyn SegmentDir,
    identity: &Identity,
    number: u64,
) -> Result<Segment, OpenError> {
    let segment = open_alone(dir, number)?;
    let name = Segment::name(number);
    let SegmentHeader {
        group,
        node,
        incarnation,
        ..
    } = &segment.header;
    let ours =
        *group == identity.group && *node == identity.node && *incarnation == identity.incarnation;
    if !ours {
        return Err(foreign(&name, *node, group, *incarnation));
    }
    if segment.header.number != number {
        let what = Fault::SegmentPlace;
        return Err(OpenError::Damaged {
            segment: number,
            offset: 0,
            what,
        });
    }
    Ok(segment)
}

/// Reads one segment to its end; the last one may have a torn write there.
pub(crate) fn walk_segment(
    segment: &Arc<Segment>,
    next: Option<&Arc<Segment>>,
    state: State,
    end: &mut End,
    visit: &mut dyn FnMut(u64, Frame),
) -> Result<Option<u64>, OpenError> {
    if segment.header.first_index != end.next_index {
        return Err(OpenError::Damaged {
            segment: segment.header.number,
            offset: 0,
            what: Fault::SegmentPlace,
        });
    }
    walk_on(segment.cursor(), next, state, end, visit)
}

/// Reads from a cursor to the end of its segment.
pub(crate) fn walk_on(
    mut cursor: Cursor,
    next: Option<&Arc<Segment>>,
    state: State,
    end: &mut End,
    visit: &mut dyn FnMut(u64, Frame),
) -> Result<Option<u64>, OpenError> {
    let number = cursor.segment_number();
    let damaged = |offset, what| OpenError::Damaged {
        segment: number,
        offset,
        what,
    };
    let fault = loop {
        match cursor.step().map_err(during("reading a segment"))? {
            Step::Frame { frame, offset } => {
                if let Frame::Entry {
                    entry,
                    committed_hint,
                } = &frame
                {
                    end.term = entry.term;
                    // A group's entry without proposals carries none.
                    end.log_time_ms = end.log_time_ms.max(entry.log_time_ms);
                    end.committed = end.committed.max(*committed_hint);
                }
                visit(offset, frame);
            }
            Step::Blank => break None,
            Step::Unreadable(fault) => break Some(fault),
            Step::Wrong(fault) => return Err(damaged(cursor.offset, fault)),
        }
    };
    let tail = cursor
        .tail()
        .map_err(during("reading the end of a segment"))?;
    *end = End {
        next_index: cursor.next_index,
        offset: cursor.offset,
        writes: cursor.writes,
        more: cursor.more,
        ..*end
    };
    match next {
        Some(next) => {
            let unused = is_unused(next, state).map_err(during("reading a segment"))?;
            finished(&cursor, fault, tail, next, unused)
                .map_err(|what| damaged(cursor.offset, what))
        }
        None => unfinished(fault, tail, state).map_err(|what| damaged(cursor.offset, what)),
    }
}

/// A segment that was made for a log going on elsewhere, when the process ended before the state knew
/// of it: nothing was ever written to it.
pub(crate) fn is_unused(segment: &Arc<Segment>, state: State) -> io::Result<bool> {
    if segment.header.number <= state.last_segment {
        return Ok(false);
    }
    let mut cursor = segment.cursor();
    let blank = matches!(cursor.step()?, Step::Blank);
    Ok(blank && cursor.tail()?.bytes_until.is_none())
}

/// The end of a segment that has a next one: all of it was durable before that one was made.
pub(crate) fn finished(
    cursor: &Cursor,
    fault: Option<Fault>,
    tail: Tail,
    next: &Segment,
    next_is_unused: bool,
) -> Result<Option<u64>, Fault> {
    if let Some(fault) = fault {
        return Err(fault);
    }
    let goes_on = cursor.next_index == next.header.first_index || next_is_unused;
    if !goes_on || cursor.more {
        return Err(Fault::FrameHeader);
    }
    if tail.bytes_until.is_some() {
        Err(Fault::Leftover)
    } else {
        Ok(None)
    }
}

/// The end of the last segment: clean, torn (until where), or damaged.
fn unfinished(fault: Option<Fault>, tail: Tail, state: State) -> Result<Option<u64>, Fault> {
    let Some(until) = tail.bytes_until else {
        return Ok(None);
    };
    let cut_all = planted(Planted::DamageIsCut);
    if !cut_all && (tail.proves_complete || state.clean_at.is_some()) {
        return Err(fault.unwrap_or(Fault::FrameHeader));
    }
    Ok(Some(until))
}

fn first_header(walk: &Walk, segment_bytes: u64, salt: u32) -> SegmentHeader {
    SegmentHeader {
        version: FORMAT_VERSION,
        segment_bytes,
        incarnation: walk.identity.incarnation,
        node: walk.identity.node,
        number: 1,
        first_index: walk.end.next_index,
        salt,
        group: walk.identity.group.clone(),
    }
}

// === impl End ===

impl End {
    /// Of a log whose next entry has this index and which has none yet.
    pub(crate) fn new(next_index: u64) -> Self {
        Self {
            next_index,
            term: 0,
            log_time_ms: 0,
            offset: BLOCK,
            writes: 0,
            more: false,
            committed: 0,
        }
    }
}

pub(crate) fn salt_of(random: u128) -> u32 {
    let [a, b, c, d, ..] = random.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
