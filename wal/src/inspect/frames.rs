//! A log frame by frame, as it was written: entries that were taken back, and what took them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::disk::SegmentDir;
use crate::disk::real::RealDir;
use crate::format::FrameKind;
use crate::recovery::{OpenError, during, numbers};
use crate::segment::{Cursor, Frame, Segment, Step};

/// What one frame says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrameReport {
    /// Number of the segment.
    pub segment: u64,
    /// Where the frame begins.
    pub offset: u64,
    /// `proposals`, `blank`, `members` or `truncation`.
    pub kind: &'static str,
    /// Term of the entry; 0 of a truncation.
    pub term: u64,
    /// Index of the entry; of a truncation, the first entry that is no more.
    pub index: u64,
    /// Log time, ms; 0 where there is none.
    pub log_time_ms: u64,
    /// Highest entry known committed when it was written.
    pub committed_index: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// The records themselves.
    #[serde(skip)]
    pub contents: Vec<Bytes>,
}

/// The frames of a log, in the order in which they were written.
pub struct Frames {
    /// Segments that were not begun yet, in order.
    segments: std::vec::IntoIter<Arc<Segment>>,
    cursor: Option<Cursor>,
    is_last: bool,
}

/// Iterates over the frames of a log, from a segment on. The log may be in use: the iteration ends
/// where its writer was.
///
/// # Errors
/// When a segment does not open.
pub fn frames(dir: &Path, from_segment: u64) -> Result<Frames, OpenError> {
    let dir = RealDir::read_only(dir).map_err(during("opening the directory"))?;
    frames_on(&dir, from_segment)
}

/// The same on another disk.
///
/// # Errors
/// See [`frames`].
pub fn frames_on(dir: &dyn SegmentDir, from_segment: u64) -> Result<Frames, OpenError> {
    let names = dir.list().map_err(during("listing the directory"))?;
    let numbers = numbers(&names);
    if numbers.is_empty() {
        return Err(OpenError::NoLog);
    }
    let mut segments = Vec::new();
    for number in numbers.into_iter().filter(|number| *number >= from_segment) {
        segments.push(Arc::new(crate::recovery::open_alone(dir, number)?));
    }
    Ok(Frames {
        segments: segments.into_iter(),
        cursor: None,
        is_last: false,
    })
}

impl Iterator for Frames {
    type Item = Result<FrameReport, OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let cursor = match &mut self.cursor {
                Some(cursor) => cursor,
                none => {
                    let segment = self.segments.next()?;
                    self.is_last = self.segments.len() == 0;
                    none.insert(segment.cursor())
                }
            };
            let segment = cursor.segment_number();
            let stepped = cursor.step();
            let damaged = |what| OpenError::Damaged {
                segment,
                offset: cursor.offset,
                what,
            };
            let error = match stepped {
                Ok(Step::Frame { frame, offset }) => {
                    return Some(Ok(report(segment, offset, frame)));
                }
                Ok(Step::Blank) => None,
                // The end of the last segment may be a write under way, or torn.
                Ok(Step::Unreadable(_)) if self.is_last => None,
                Ok(Step::Unreadable(what) | Step::Wrong(what)) => Some(damaged(what)),
                Err(error) => Some(during("reading a segment")(error)),
            };
            self.cursor = None;
            if let Some(error) = error {
                return Some(Err(error));
            }
        }
    }
}

fn report(segment: u64, offset: u64, frame: Frame) -> FrameReport {
    let long = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    match frame {
        Frame::Truncation { from } => FrameReport {
            segment,
            offset,
            kind: "truncation",
            term: 0,
            index: from,
            log_time_ms: 0,
            committed_index: 0,
            records: 0,
            bytes: 0,
            contents: Vec::new(),
        },
        Frame::Entry {
            entry,
            committed_hint,
        } => {
            let contents = entry.records().to_vec();
            FrameReport {
                segment,
                offset,
                kind: match entry.kind() {
                    FrameKind::Proposals => "proposals",
                    FrameKind::Blank => "blank",
                    FrameKind::Members => "members",
                    FrameKind::Truncation => "truncation",
                },
                term: entry.term,
                index: entry.index,
                log_time_ms: entry.log_time_ms,
                committed_index: committed_hint,
                records: long(contents.len()),
                bytes: contents.iter().map(|record| long(record.len())).sum(),
                contents,
            }
        }
    }
}
