//! Everything that can be told of a directory with a log, damaged or not, in use or not.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::TornReport;
use crate::disk::SegmentDir;
use crate::disk::real::RealDir;
use crate::raft::snapshot::{SNAPSHOT_FILE, Snapshot};
use crate::recovery::{End, OpenError, during, is_unused, numbers, open_small_files, walk_segment};
use crate::scrub::Damage;
use crate::segment::{Fault, Frame, Segment};
use crate::state::{Kind, State};

/// A log that is being written changes under its reader: what looks damaged is looked at again, and
/// counts once it looks the same twice.
const LOOKS_MAX: usize = 6;

/// What a directory with a log holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// Which log it is.
    pub incarnation: Uuid,
    /// Whose.
    pub node: u64,
    /// Of which group.
    pub group: String,
    /// It is a group's log: entries may be taken back. Otherwise it is one keeper's own.
    pub replicated: bool,
    /// The last run stopped cleanly. Otherwise the log is in use, or its process was killed.
    pub clean: bool,
    /// The vote that this keeper gave last; of a group's log only.
    pub vote: Option<VoteReport>,
    /// Entries below it were given up.
    pub trim_index: u64,
    /// Term of the last of those, of a group's log.
    pub trim_term: u64,
    /// First entry that is left; the next one if there is none.
    pub first_index: u64,
    /// Last entry; `None` when there is none.
    pub last_index: Option<u64>,
    /// Highest entry that the log itself says is committed; more may be.
    pub committed_index: u64,
    /// Log time of the last entry that has one, ms.
    pub log_time_ms: u64,
    /// Entries that stand, after every truncation.
    pub entries: u64,
    /// Proposals in them.
    pub proposals: u64,
    /// Bytes of those.
    pub proposal_bytes: u64,
    /// Where entries were taken back, in order.
    pub truncations: Vec<TruncationReport>,
    /// The terms of the entries that stand, in order.
    pub terms: Vec<TermReport>,
    /// The segments, in order.
    pub segments: Vec<SegmentDetail>,
    /// Of a group's log.
    pub snapshot: Option<SnapshotReport>,
    /// A torn write behind the end, which opening the log will cut; in a log that is in use, the
    /// write under way.
    pub torn: Option<TornReport>,
    /// What does not verify: at most one place a file.
    pub damage: Vec<Damage>,
}

/// A keeper's vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VoteReport {
    /// Term.
    pub term: u64,
    /// Whom it is for; a term may be known without one.
    pub node: Option<u64>,
    /// A majority gave it.
    pub committed: bool,
}

/// A place at which entries were taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TruncationReport {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the frame that says so.
    pub offset: u64,
    /// The first entry that is no more.
    pub from_index: u64,
}

/// A run of entries of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TermReport {
    /// The term.
    pub term: u64,
    /// Its first entry here.
    pub first_index: u64,
    /// Its last one.
    pub last_index: u64,
}

/// One segment of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentDetail {
    /// Name of the file.
    pub file: String,
    /// Number, from 1.
    pub number: u64,
    /// Version of its format.
    pub format: u16,
    /// Index of its first entry.
    pub first_index: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Bytes of it that are in use.
    pub bytes_used: u64,
    /// Frames in it that verify: entries and truncations.
    pub frames: u64,
}

/// A snapshot beside a group's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotReport {
    /// Last entry in it.
    pub last_index: Option<u64>,
    /// That entry's term.
    pub last_term: Option<u64>,
    /// Log time of that entry, ms.
    pub log_time_ms: u64,
    /// Size of the state.
    pub bytes: u64,
    /// Who votes, as of then.
    pub keepers: Vec<u64>,
    /// Who only hears, as of then.
    pub learners: Vec<u64>,
}

/// Says what a directory holds, without changing it and without keeping its owner from it.
///
/// # Errors
/// When there is no log, or it cannot be told whose it is. Other damage is in the report.
pub fn examine(dir: &Path) -> Result<LogReport, OpenError> {
    let dir = RealDir::read_only(dir).map_err(during("opening the directory"))?;
    examine_on(&dir)
}

/// The same on another disk.
///
/// # Errors
/// See [`examine`].
pub fn examine_on(dir: &dyn SegmentDir) -> Result<LogReport, OpenError> {
    let mut before: Option<Vec<Damage>> = None;
    let mut look = 1_usize;
    loop {
        let looked = look_once(dir);
        let last = look >= LOOKS_MAX;
        match looked {
            Ok(report) if report.damage.is_empty() => return Ok(report),
            Ok(report) if last || before.as_ref() == Some(&report.damage) => return Ok(report),
            Ok(report) => before = Some(report.damage),
            Err(OpenError::Io { source, .. }) if gone(&source) && !last => before = None,
            Err(OpenError::StateDamaged { .. }) if !last => before = None,
            Err(error) => return Err(error),
        }
        look = look.saturating_add(1);
    }
}

/// A file that was there a moment ago.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn look_once(dir: &dyn SegmentDir) -> Result<LogReport, OpenError> {
    let names = dir.list().map_err(during("listing the directory"))?;
    let numbers = numbers(&names);
    if numbers.is_empty() && !names.iter().any(|name| name == "identity") {
        return Err(OpenError::NoLog);
    }
    let (identity, slots) = open_small_files(dir)?;
    let state = slots.state();
    let mut found = Found::new(state);
    let segments = found.open(dir, &numbers, state.last_segment)?;
    for (at, segment) in segments.iter().enumerate() {
        let next = at.checked_add(1).and_then(|next| segments.get(next));
        let unused = is_unused(segment, state).map_err(during("reading a segment"))?;
        if at > 0 && unused && segment.header.first_index != found.end.next_index {
            break;
        }
        found.read(segment, next, state)?;
    }
    // What lies below in the first segment was given up.
    found.entries = found.entries.split_off(&state.trim_index);
    let replicated = identity.kind == Kind::Replicated;
    let snapshot = if replicated {
        found.snapshot(dir)?
    } else {
        None
    };
    if let Some(clean_at) = state.clean_at
        && found.damage.is_empty()
        && clean_at != found.end.next_index.saturating_sub(1)
    {
        let last = found.segments.last().map_or(0, |last| last.number);
        found
            .damage
            .push(Damage::of(last, found.end.offset, Fault::Short));
    }
    let entries: Vec<&Entry> = found.entries.values().collect();
    let sum = |of: fn(&Entry) -> u64| entries.iter().map(|entry| of(entry)).sum();
    Ok(LogReport {
        incarnation: identity.incarnation,
        node: identity.node,
        group: identity.group,
        replicated,
        clean: state.clean_at.is_some(),
        vote: state.vote.map(|vote| VoteReport {
            term: vote.term,
            node: vote.node,
            committed: vote.committed,
        }),
        trim_index: state.trim_index,
        trim_term: state.trim_term,
        first_index: found
            .entries
            .keys()
            .next()
            .copied()
            .unwrap_or(found.end.next_index),
        last_index: found.entries.keys().next_back().copied(),
        committed_index: found.end.committed,
        log_time_ms: found.end.log_time_ms,
        entries: u64::try_from(entries.len()).unwrap_or(u64::MAX),
        proposals: sum(|entry| entry.proposals),
        proposal_bytes: sum(|entry| entry.proposal_bytes),
        truncations: found.truncations,
        terms: terms(&found.entries),
        segments: found.segments,
        snapshot,
        torn: found.torn,
        damage: found.damage,
    })
}

struct Entry {
    term: u64,
    proposals: u64,
    proposal_bytes: u64,
}

/// What was read so far.
struct Found {
    end: End,
    trim_index: u64,
    entries: BTreeMap<u64, Entry>,
    truncations: Vec<TruncationReport>,
    segments: Vec<SegmentDetail>,
    torn: Option<TornReport>,
    damage: Vec<Damage>,
}

// === impl Found ===

impl Found {
    fn new(state: State) -> Self {
        Self {
            end: End::new(state.trim_index),
            trim_index: state.trim_index,
            entries: BTreeMap::new(),
            truncations: Vec::new(),
            segments: Vec::new(),
            torn: None,
            damage: Vec::new(),
        }
    }

    /// Opens the segments from the one that the first entry is in; what lies before was given up.
    fn open(
        &mut self,
        dir: &dyn SegmentDir,
        numbers: &[u64],
        last_segment: u64,
    ) -> Result<Vec<Arc<Segment>>, OpenError> {
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        let mut expected = None;
        for &number in numbers {
            if let Some(missing) = expected.filter(|expected| *expected != number) {
                self.damage.push(Damage::of(missing, 0, Fault::Missing));
            }
            expected = number.checked_add(1);
            let file = dir
                .open(&Segment::name(number))
                .map_err(during("opening a segment"))?;
            match Segment::open(file).map_err(during("reading a segment's header"))? {
                Ok(segment) if segment.header.number == number => segments.push(Arc::new(segment)),
                Ok(_) => self.damage.push(Damage::of(number, 0, Fault::SegmentPlace)),
                Err(_) => self
                    .damage
                    .push(Damage::of(number, 0, Fault::SegmentHeader)),
            }
        }
        let begins = |segment: &Arc<Segment>| segment.header.first_index <= self.trim_index;
        match segments.iter().rposition(begins) {
            Some(first) => drop(segments.drain(..first)),
            None => {
                if let Some(first) = segments.first() {
                    let before = first.header.number.saturating_sub(1);
                    self.damage.push(Damage::of(before, 0, Fault::Missing));
                }
            }
        }
        if numbers.last().copied().unwrap_or(0) < last_segment {
            self.damage
                .push(Damage::of(last_segment, 0, Fault::Missing));
        }
        Ok(segments)
    }

    /// Reads one segment to its end or to what is wrong with it. What follows is read all the same.
    fn read(
        &mut self,
        segment: &Arc<Segment>,
        next: Option<&Arc<Segment>>,
        state: State,
    ) -> Result<(), OpenError> {
        let number = segment.header.number;
        let mut frames = 0_u64;
        let (entries, truncations) = (&mut self.entries, &mut self.truncations);
        let mut visit = |offset, frame: Frame| {
            frames = frames.saturating_add(1);
            match frame {
                Frame::Entry { entry, .. } => {
                    let records = entry.records().iter().map(|record| record.len());
                    let bytes: usize = records.sum();
                    let counts = entry.kind() == crate::format::FrameKind::Proposals;
                    let told = |count: usize| {
                        let count = u64::try_from(count).unwrap_or(u64::MAX);
                        if counts { count } else { 0 }
                    };
                    entries.insert(
                        entry.index,
                        Entry {
                            term: entry.term,
                            proposals: told(entry.records().len()),
                            proposal_bytes: told(bytes),
                        },
                    );
                }
                Frame::Truncation { from } => {
                    entries.split_off(&from);
                    truncations.push(TruncationReport {
                        segment: number,
                        offset,
                        from_index: from,
                    });
                }
            }
        };
        // After damage, or where entries were given up, the indexes go on as the header says.
        self.end.next_index = segment.header.first_index;
        let walked = walk_segment(segment, next, state, &mut self.end, &mut visit);
        let mut bytes_used = self.end.offset;
        match walked {
            Ok(None) => {}
            Ok(Some(until)) => {
                self.torn = Some(TornReport {
                    segment: number,
                    offset: self.end.offset,
                    until,
                });
            }
            Err(OpenError::Damaged { offset, what, .. }) => {
                bytes_used = offset;
                self.damage.push(Damage::of(number, offset, what));
            }
            Err(error) => return Err(error),
        }
        self.segments.push(SegmentDetail {
            file: Segment::name(number),
            number,
            format: segment.header.version,
            first_index: segment.header.first_index,
            bytes: segment.header.segment_bytes,
            bytes_used,
            frames,
        });
        Ok(())
    }

    fn snapshot(&mut self, dir: &dyn SegmentDir) -> Result<Option<SnapshotReport>, OpenError> {
        match Snapshot::look(dir) {
            Ok(snapshot) => Ok(snapshot.map(|snapshot| report(&snapshot))),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.damage.push(Damage {
                    file: SNAPSHOT_FILE.to_owned(),
                    offset: 0,
                    what: "the snapshot does not verify".to_owned(),
                });
                Ok(None)
            }
            Err(error) => Err(during("reading the snapshot")(error)),
        }
    }
}

fn report(snapshot: &Snapshot) -> SnapshotReport {
    let membership = snapshot.meta.last_membership.membership();
    let last = snapshot.meta.last_log_id;
    SnapshotReport {
        last_index: last.map(|last| last.index),
        last_term: last.map(|last| last.leader_id.term),
        log_time_ms: snapshot.log_time_ms,
        bytes: u64::try_from(snapshot.state.len()).unwrap_or(u64::MAX),
        keepers: membership.voter_ids().collect(),
        learners: membership.learner_ids().collect(),
    }
}

fn terms(entries: &BTreeMap<u64, Entry>) -> Vec<TermReport> {
    let mut terms: Vec<TermReport> = Vec::new();
    for (&index, entry) in entries {
        match terms.last_mut().filter(|last| last.term == entry.term) {
            Some(last) => last.last_index = index,
            None => terms.push(TermReport {
                term: entry.term,
                first_index: index,
                last_index: index,
            }),
        }
    }
    terms
}
