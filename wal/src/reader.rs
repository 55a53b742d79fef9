//! Reading entries back by index.

use std::io;
use std::sync::Arc;

use crate::places::Run;
use crate::segment::{Cursor, Entry, Frame, Segment, Step};

/// Goes over entries in index order, each as it is after every truncation.
pub(crate) struct EntryReader<F> {
    /// In order.
    segments: Vec<Arc<Segment>>,
    /// Where an index is reached from.
    find: F,
    next: u64,
    /// The first index that is not read.
    end: u64,
    cursor: Option<Cursor>,
    /// From this index on the cursor is not where entries are.
    until: u64,
}

/// An entry that must be there does not read back.
#[derive(Debug)]
pub(crate) enum ReadFault {
    Damaged { segment: u64, offset: u64 },
    Io(io::Error),
}

// === impl EntryReader ===

impl<F: Fn(u64) -> Option<Run>> EntryReader<F> {
    /// Reads from `from` up to, not including, `end`.
    pub(crate) fn new(segments: Vec<Arc<Segment>>, find: F, from: u64, end: u64) -> Self {
        Self {
            segments,
            find,
            next: from,
            end,
            cursor: None,
            until: from,
        }
    }

    /// The next entry, `None` behind the last one.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, ReadFault> {
        while self.next < self.end {
            let mut cursor = match self.cursor.take() {
                Some(cursor) if self.next < self.until => cursor,
                Some(_) | None => self.begin()?,
            };
            let damaged = ReadFault::Damaged {
                segment: cursor.segment_number(),
                offset: cursor.offset,
            };
            match cursor.step().map_err(ReadFault::Io)? {
                Step::Frame {
                    frame: Frame::Entry { entry, .. },
                    ..
                } if entry.index <= self.next => {
                    self.cursor = Some(cursor);
                    if entry.index == self.next {
                        self.next = self.next.saturating_add(1);
                        return Ok(Some(entry));
                    }
                }
                Step::Frame { .. } | Step::Blank | Step::Unreadable(_) | Step::Wrong(_) => {
                    return Err(damaged);
                }
            }
        }
        Ok(None)
    }

    /// Nothing more is read.
    pub(crate) fn finish(&mut self) {
        self.next = self.end;
    }

    /// A cursor at or before the next entry.
    fn begin(&mut self) -> Result<Cursor, ReadFault> {
        let run = (self.find)(self.next).ok_or(ReadFault::Damaged {
            segment: 0,
            offset: 0,
        })?;
        let at = self
            .segments
            .binary_search_by_key(&run.place.segment, |segment| segment.header.number);
        let segment = at.ok().and_then(|at| self.segments.get(at));
        let segment = segment.ok_or(ReadFault::Damaged {
            segment: run.place.segment,
            offset: run.place.offset,
        })?;
        self.until = run.until;
        Ok(segment.cursor_at(run.index, run.place.offset))
    }
}
