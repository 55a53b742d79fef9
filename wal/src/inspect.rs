//! Looking at a log: its batches, and whether it verifies. Changes nothing, takes no lock, and needs
//! no right to write. [`examine`] and [`frames`] may look at one that is in use; the others want one
//! that nobody has open.

use std::path::Path;

use serde::Serialize;
use uuid::Uuid;

use crate::disk::SegmentDir;
use crate::disk::real::RealDir;
use crate::places::{Places, Run};
use crate::reader::{EntryReader, ReadFault};
use crate::recovery::{OpenError, during, walk};
use crate::segment::{Batch, Fault, Frame};

mod examine;
mod frames;

pub use examine::{
    LogReport, SegmentDetail, SnapshotReport, TermReport, TruncationReport, VoteReport, examine,
    examine_on,
};
pub use frames::{FrameReport, Frames, frames, frames_on};

/// What a log holds, when it can be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which log it is.
    pub incarnation: Uuid,
    /// Whose.
    pub node: u64,
    /// Of which group.
    pub group: String,
    /// The last run stopped cleanly.
    pub clean: bool,
    /// First batch; the next one if there is none.
    pub first_index: u64,
    /// Last batch; 0 if there never was one.
    pub last_index: u64,
    /// Batches below it were given up.
    pub trim_index: u64,
    /// Batches in the log.
    pub batches: u64,
    /// Proposals in them.
    pub proposals: u64,
    /// Bytes of those.
    pub proposal_bytes: u64,
    /// Log time of the last batch, ms.
    pub log_time_ms: u64,
    /// The segments, in order.
    pub segments: Vec<SegmentReport>,
    /// A torn write behind the end, which opening the log will cut.
    pub torn: Option<TornReport>,
}

/// One segment of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentReport {
    /// Number, from 1.
    pub number: u64,
    /// Index of its first batch.
    pub first_index: u64,
    /// Size of the file.
    pub bytes: u64,
}

/// Where a torn write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TornReport {
    /// Number of the segment.
    pub segment: u64,
    /// First byte.
    pub offset: u64,
    /// First byte behind it that is zero to the end.
    pub until: u64,
}

/// The batches of a log, in order.
pub struct Batches(EntryReader<Find>);

type Find = Box<dyn Fn(u64) -> Option<Run> + Send>;

/// Reads the whole log and says what is in it, or what is wrong with it.
pub fn verify(dir: &Path) -> Result<Report, OpenError> {
    let dir = RealDir::read_only(dir).map_err(during("opening the directory"))?;
    verify_on(&dir)
}

/// The same on another disk.
pub fn verify_on(dir: &dyn SegmentDir) -> Result<Report, OpenError> {
    // By entry: its proposals and their bytes. A truncation takes back the last ones.
    let mut sizes: Vec<(u64, u64)> = Vec::new();
    let mut next_index = 0_u64;
    let mut count = |frame: Frame| match frame {
        Frame::Entry { entry, .. } => {
            next_index = entry.index.saturating_add(1);
            let batch = Batch::from(entry);
            let length = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
            let bytes = batch
                .proposals
                .iter()
                .map(|proposal| length(proposal.len()));
            sizes.push((length(batch.proposals.len()), bytes.sum()));
        }
        Frame::Truncation { from } => {
            let gone = usize::try_from(next_index.saturating_sub(from)).unwrap_or(usize::MAX);
            sizes.truncate(sizes.len().saturating_sub(gone));
            next_index = from;
        }
    };
    let walk = walk(dir, &mut count)?.ok_or(OpenError::NoLog)?;
    let batches = u64::try_from(sizes.len()).unwrap_or(u64::MAX);
    let proposals = sizes.iter().map(|(proposals, _)| proposals).sum();
    let proposal_bytes = sizes.iter().map(|(_, bytes)| bytes).sum();
    let state = walk.slots.state();
    let segments: Vec<SegmentReport> = walk
        .segments
        .iter()
        .map(|segment| SegmentReport {
            number: segment.header.number,
            first_index: segment.header.first_index,
            bytes: segment.header.segment_bytes,
        })
        .collect();
    let last_segment = segments.last().map_or(0, |segment| segment.number);
    let torn = walk.torn_until.map(|until| TornReport {
        segment: last_segment,
        offset: walk.end.offset,
        until,
    });
    Ok(Report {
        incarnation: walk.identity.incarnation,
        node: walk.identity.node,
        group: walk.identity.group,
        clean: state.clean_at.is_some(),
        first_index: segments.first().map_or(1, |segment| segment.first_index),
        last_index: walk.end.next_index.saturating_sub(1),
        trim_index: state.trim_index,
        batches,
        proposals,
        proposal_bytes,
        log_time_ms: walk.end.log_time_ms,
        segments,
        torn,
    })
}

/// Iterates over the batches of a log that verifies; a torn write at its end is not a batch.
pub fn batches(dir: &Path) -> Result<Batches, OpenError> {
    let dir = RealDir::read_only(dir).map_err(during("opening the directory"))?;
    batches_on(&dir)
}

/// The same on another disk.
pub fn batches_on(dir: &dyn SegmentDir) -> Result<Batches, OpenError> {
    let walk = walk(dir, &mut drop)?.ok_or(OpenError::NoLog)?;
    let first = walk
        .segments
        .first()
        .map_or(1, |segment| segment.header.first_index);
    let places: Places = walk.places;
    let find: Find = Box::new(move |index| places.find(index));
    let end = walk.end.next_index;
    Ok(Batches(EntryReader::new(walk.segments, find, first, end)))
}

impl Iterator for Batches {
    type Item = Result<Batch, OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.next() {
            Ok(entry) => entry.map(|entry| Ok(entry.into())),
            Err(fault) => {
                self.0.finish();
                Some(Err(match fault {
                    // It verified a moment ago: the file is being changed under the reader.
                    ReadFault::Damaged { segment, offset } => OpenError::Damaged {
                        segment,
                        offset,
                        what: Fault::FrameHeader,
                    },
                    ReadFault::Io(source) => OpenError::Io {
                        doing: "reading a segment",
                        source,
                    },
                }))
            }
        }
    }
}
