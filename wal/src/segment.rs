//! One segment, and reading frames from it.
//!
//! A cursor goes forward over the frames of one segment and stops at the first place where none
//! verifies. It never says what that means; `Tail` lists what can be seen behind that place, and
//! recovery decides from it between the end, a torn write, and damage.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{SegmentDir, SegmentFile};
use crate::format::{
    BLOCK, BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader, FrameKind, HeaderFault, SegmentHeader,
    TRAILER_BYTES, Trailer, TrailerKind, ZERO_BLOCK, checksum, encode_mark, frame_bytes, is_zero,
    split_records,
};
use crate::state::create_durably;

const READ_AHEAD_BYTES: u64 = 256 * 1024;
/// A mark in which more bits are wrong is not known for one.
const ROTTEN_BITS_MAX: u32 = 8;

/// A committed batch of proposals, as read back from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Term of the batch.
    pub term: u64,
    /// Index of the batch, from 1.
    pub index: u64,
    /// Log time, ms.
    pub log_time_ms: u64,
    /// The proposals, in slot order.
    pub proposals: Vec<Bytes>,
}

/// One entry of the log, as read back or about to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) log_time_ms: u64,
    pub(crate) body: Body,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Proposals(Vec<Bytes>),
    Blank,
    /// Who the members are from here on, as the group encodes it.
    Members(Bytes),
}

/// What one frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Entry {
        entry: Entry,
        /// Highest index known committed when it was written.
        committed_hint: u64,
    },
    /// The entries from here on are no more.
    Truncation { from: u64 },
}

/// What is wrong with the bytes at a place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The segment's own header.
    #[error("the segment's header does not verify")]
    SegmentHeader,
    /// A header that contradicts its neighbours or its file.
    #[error("the segment's header does not fit its place in the log")]
    SegmentPlace,
    /// A segment that must be there is not.
    #[error("the segment is missing")]
    Missing,
    /// A frame header.
    #[error("the frame's header does not verify")]
    FrameHeader,
    /// A frame whose header verifies and whose payload does not.
    #[error("the frame's payload does not verify")]
    Payload,
    /// A frame whose payload verifies and whose padding or trailer does not.
    #[error("the frame's padding or trailer does not verify")]
    Padding,
    /// A verified header that says what this program never writes.
    #[error("the frame's header verifies but contradicts its place")]
    FramePlace,
    /// A verified payload that is not a list of proposals.
    #[error("the frame's records are malformed")]
    Records,
    /// Bytes behind the end of a segment that was left.
    #[error("bytes behind the last frame of a finished segment")]
    Leftover,
    /// The log is shorter than it was when it was closed.
    #[error("batches are missing from a log that was closed cleanly")]
    Short,
}

pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn SegmentFile>,
}

/// Goes over the frames of a segment.
pub(crate) struct Cursor {
    segment: Arc<Segment>,
    window: Window,
    pub(crate) offset: u64,
    pub(crate) next_index: u64,
    /// Number of the last write seen.
    pub(crate) writes: u64,
    /// More frames of that write must follow.
    pub(crate) more: bool,
    /// It began at the segment's first frame, so that it knows the number of every write.
    counts: bool,
}

pub(crate) enum Step {
    Frame {
        frame: Frame,
        offset: u64,
    },
    /// A block of zeros, or no block left. What is behind it is not looked at.
    Blank,
    /// Could be a torn write.
    Unreadable(Fault),
    /// Cannot be one.
    Wrong(Fault),
}

/// What lies from the first unreadable place to the end of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// End of the last block that is not zero; `None` when all are.
    pub(crate) bytes_until: Option<u64>,
    /// Something was written after the unreadable place had been durable.
    pub(crate) proves_complete: bool,
}

struct Window {
    buffer: Vec<u8>,
    start: u64,
}

// === impl Segment ===

impl Segment {
    pub(crate) fn name(number: u64) -> String {
        format!("segment-{number:010}.wal")
    }

    pub(crate) fn number_of(name: &str) -> Option<u64> {
        name.strip_prefix("segment-")?
            .strip_suffix(".wal")?
            .parse()
            .ok()
    }

    /// Creates a zero-written segment with its header, and its name, durably.
    pub(crate) fn create(dir: &dyn SegmentDir, header: SegmentHeader) -> io::Result<Self> {
        let block = header.encode().ok_or(io::ErrorKind::InvalidInput)?;
        let name = Self::name(header.number);
        let file = create_durably(dir, &name, header.segment_bytes, &block)?;
        Ok(Self::new(header, file))
    }

    /// Writes the header into a file of zeros, durably; the file's name is the caller's affair.
    pub(crate) fn write_header(
        header: SegmentHeader,
        file: Arc<dyn SegmentFile>,
    ) -> io::Result<Self> {
        let block = header.encode().ok_or(io::ErrorKind::InvalidInput)?;
        file.write_at(&block, 0)?;
        file.sync_data()?;
        Ok(Self::new(header, file))
    }

    /// Reads and verifies the header only.
    pub(crate) fn open(file: Arc<dyn SegmentFile>) -> io::Result<Result<Self, HeaderFault>> {
        let bytes = file.bytes()?;
        if bytes < BLOCK {
            return Ok(Err(HeaderFault::Damaged));
        }
        let mut block = ZERO_BLOCK;
        file.read_at(&mut block, 0)?;
        Ok(SegmentHeader::decode(&block).and_then(|header| {
            if header.segment_bytes != bytes || bytes % BLOCK != 0 {
                return Err(HeaderFault::Damaged);
            }
            Ok(Self::new(header, file))
        }))
    }

    fn new(header: SegmentHeader, file: Arc<dyn SegmentFile>) -> Self {
        Self { header, file }
    }

    /// A cursor at the first frame.
    pub(crate) fn cursor(self: &Arc<Self>) -> Cursor {
        let mut cursor = self.cursor_at(self.header.first_index, BLOCK);
        cursor.counts = true;
        cursor
    }

    /// A cursor at the frame of `next_index`, which begins at `offset`.
    pub(crate) fn cursor_at(self: &Arc<Self>, next_index: u64, offset: u64) -> Cursor {
        let window = Window {
            buffer: Vec::new(),
            start: 0,
        };
        Cursor {
            segment: Arc::clone(self),
            window,
            offset,
            next_index,
            writes: 0,
            more: false,
            counts: false,
        }
    }

    /// Whether its frames carry the number of their write.
    fn numbers_writes(&self) -> bool {
        self.header.version >= 2
    }
}

// === impl Entry ===

impl Entry {
    /// Its records, as a frame holds them.
    pub(crate) fn records(&self) -> &[Bytes] {
        match &self.body {
            Body::Proposals(proposals) => proposals,
            Body::Blank => &[],
            Body::Members(members) => std::slice::from_ref(members),
        }
    }

    pub(crate) fn kind(&self) -> FrameKind {
        match self.body {
            Body::Proposals(_) => FrameKind::Proposals,
            Body::Blank => FrameKind::Blank,
            Body::Members(_) => FrameKind::Members,
        }
    }
}

/// An entry that is no batch of proposals is an empty one.
impl From<Entry> for Batch {
    fn from(entry: Entry) -> Self {
        Self {
            term: entry.term,
            index: entry.index,
            log_time_ms: entry.log_time_ms,
            proposals: match entry.body {
                Body::Proposals(proposals) => proposals,
                Body::Blank | Body::Members(_) => Vec::new(),
            },
        }
    }
}

// === impl Cursor ===

impl Cursor {
    /// Reads what is at the cursor and, if it is a frame, goes behind it.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        loop {
            let end = self.segment.header.segment_bytes;
            if self.offset >= end {
                return Ok(Step::Blank);
            }
            let salt = self.segment.header.salt;
            let block = self.window.get(&self.segment, self.offset, BLOCK_BYTES)?;
            if block == ZERO_BLOCK {
                return Ok(Step::Blank);
            }
            if let Some(header) = block
                .get(..FRAME_HEADER_BYTES)
                .and_then(|bytes| FrameHeader::decode(bytes, salt, self.offset))
            {
                return self.frame(&header);
            }
            if !self.is_mark(salt)? {
                return Ok(Step::Unreadable(Fault::FrameHeader));
            }
            self.writes = self.writes.saturating_add(1);
            self.more = false;
            self.offset = self.offset.saturating_add(BLOCK);
        }
    }

    /// A cursor at the same place that has read nothing ahead.
    #[cfg(test)]
    pub(crate) fn anew(&self) -> Self {
        let mut cursor = self.segment.cursor_at(self.next_index, self.offset);
        (cursor.writes, cursor.more, cursor.counts) = (self.writes, self.more, self.counts);
        cursor
    }

    pub(crate) fn segment_number(&self) -> u64 {
        self.segment.header.number
    }

    /// The number of the write that the next frame belongs to.
    fn next_write(&self) -> u64 {
        if self.more {
            self.writes
        } else {
            self.writes.saturating_add(1)
        }
    }

    /// Looks at everything from the cursor on. Call it where `step` found no frame.
    pub(crate) fn tail(&mut self) -> io::Result<Tail> {
        let salt = self.segment.header.salt;
        let (expected, write) = (self.next_index, self.next_write());
        let numbered = self.segment.numbers_writes();
        let mut tail = Tail {
            bytes_until: None,
            proves_complete: self.is_rotten_mark()?,
        };
        let mut offset = self.offset;
        while offset < self.segment.header.segment_bytes {
            let block = self.window.get(&self.segment, offset, BLOCK_BYTES)?;
            let next = offset.saturating_add(BLOCK);
            if block != ZERO_BLOCK {
                tail.bytes_until = Some(next);
                // A later write was begun, so what this place was written by had been durable.
                let head = block.get(..FRAME_HEADER_BYTES).unwrap_or_default();
                let later = FrameHeader::decode(head, salt, offset).is_some_and(|header| {
                    if numbered {
                        u64::from(header.write) > write
                    } else {
                        header.index > expected
                    }
                });
                let after = Trailer::decode(block, salt, offset).is_some_and(|trailer| {
                    if numbered {
                        trailer.write > write
                    } else {
                        trailer.durable_before >= expected
                    }
                });
                tail.proves_complete |= later || after;
            }
            offset = next;
        }
        Ok(tail)
    }

    /// Whether what is here is, but for a few bits, the mark that would stand here. No torn write
    /// looks like that: of a mark's one sector that is not zeros it leaves all or nothing.
    fn is_rotten_mark(&mut self) -> io::Result<bool> {
        if self.offset >= self.segment.header.segment_bytes {
            return Ok(false);
        }
        let trailer = Trailer {
            kind: TrailerKind::Mark,
            write: self.writes.saturating_add(1),
            durable_before: self.next_index.saturating_sub(1),
        };
        let mark = encode_mark(self.segment.header.salt, self.offset, &trailer);
        let block = self.window.get(&self.segment, self.offset, BLOCK_BYTES)?;
        Ok(is_close(block, &mark, ROTTEN_BITS_MAX))
    }

    fn frame(&mut self, header: &FrameHeader) -> io::Result<Step> {
        let offset = self.offset;
        let payload_bytes = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
        let end = frame_bytes(payload_bytes)
            .and_then(|bytes| u64::try_from(bytes).ok())
            .and_then(|bytes| offset.checked_add(bytes))
            .filter(|end| *end <= self.segment.header.segment_bytes);
        let (Some(kind), Some(end)) = (self.expects(header), end) else {
            return Ok(Step::Wrong(Fault::FramePlace));
        };
        let salt = self.segment.header.salt;
        let numbered = self.segment.numbers_writes();
        let whole = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = self.window.get(&self.segment, offset, whole)?;
        let body = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        let (payload, rest) = body.split_at(payload_bytes.min(body.len()));
        if checksum(salt, offset, payload) != header.body_crc {
            return Ok(Step::Unreadable(Fault::Payload));
        }
        let padding = rest.split_last_chunk::<TRAILER_BYTES>();
        let is_padded = padding.is_some_and(|(zeros, trailer)| {
            let trailer = Trailer::decode(trailer, salt, end.saturating_sub(BLOCK));
            let ours = trailer.is_some_and(|trailer| {
                trailer.kind == TrailerKind::Frame
                    && (!numbered || trailer.write == u64::from(header.write))
            });
            ours && is_zero(zeros)
        });
        if !is_padded {
            return Ok(Step::Unreadable(Fault::Padding));
        }
        let payload = Bytes::copy_from_slice(payload);
        let Some(records) = split_records(&payload, header.count) else {
            return Ok(Step::Wrong(Fault::Records));
        };
        let Some(frame) = frame_of(header, kind, records) else {
            return Ok(Step::Wrong(Fault::Records));
        };
        self.offset = end;
        self.next_index = match frame {
            Frame::Entry { .. } => header.index.saturating_add(1),
            Frame::Truncation { from } => from,
        };
        self.writes = if numbered {
            u64::from(header.write)
        } else {
            self.writes.saturating_add(1)
        };
        self.more = header.more;
        Ok(Step::Frame { frame, offset })
    }

    /// The kind of a frame that may stand here.
    fn expects(&self, header: &FrameHeader) -> Option<FrameKind> {
        let kind = header.kind()?;
        let numbered = self.segment.numbers_writes();
        let in_turn = !numbered || !self.counts || u64::from(header.write) == self.next_write();
        let in_place = match kind {
            FrameKind::Proposals => header.index == self.next_index,
            FrameKind::Blank | FrameKind::Members => numbered && header.index == self.next_index,
            FrameKind::Truncation => numbered && header.index <= self.next_index,
        };
        (in_turn && in_place).then_some(kind)
    }

    /// A mark is a block of zeros and a trailer that vouches for the batch before it.
    fn is_mark(&mut self, salt: u32) -> io::Result<bool> {
        let offset = self.offset;
        let block = self.window.get(&self.segment, offset, BLOCK_BYTES)?;
        let Some(trailer) = Trailer::decode(block, salt, offset) else {
            return Ok(false);
        };
        let expected = encode_mark(salt, offset, &trailer);
        Ok(trailer.kind == TrailerKind::Mark
            && trailer.durable_before == self.next_index.saturating_sub(1)
            && *block == expected)
    }
}

/// Whether two blocks differ, and in no more than so many bits.
fn is_close(a: &[u8], b: &[u8], bits_max: u32) -> bool {
    let mut differing = 0_u32;
    for (a, b) in a.chunks(TRAILER_BYTES).zip(b.chunks(TRAILER_BYTES)) {
        if a == b {
            continue;
        }
        for (a, b) in a.iter().zip(b) {
            differing = differing.saturating_add((a ^ b).count_ones());
        }
        if differing > bits_max {
            return false;
        }
    }
    differing > 0
}

fn frame_of(header: &FrameHeader, kind: FrameKind, records: Vec<Bytes>) -> Option<Frame> {
    let body = match (kind, records.as_slice()) {
        (FrameKind::Proposals, _) => Body::Proposals(records),
        (FrameKind::Blank, []) => Body::Blank,
        (FrameKind::Members, [members]) => Body::Members(members.clone()),
        (FrameKind::Truncation, []) => {
            return Some(Frame::Truncation { from: header.index });
        }
        (FrameKind::Blank | FrameKind::Members | FrameKind::Truncation, _) => return None,
    };
    Some(Frame::Entry {
        entry: Entry {
            term: header.term,
            index: header.index,
            log_time_ms: header.log_time_ms,
            body,
        },
        committed_hint: header.committed_hint,
    })
}

// === impl Window ===

impl Window {
    /// `bytes` at `offset`, which the caller has checked to lie inside the segment.
    fn get(&mut self, segment: &Segment, offset: u64, bytes: usize) -> io::Result<&[u8]> {
        let from = offset
            .checked_sub(self.start)
            .and_then(|at| usize::try_from(at).ok());
        let held = from
            .and_then(|from| Some((from, from.checked_add(bytes)?)))
            .filter(|(_, to)| *to <= self.buffer.len());
        if let Some((from, to)) = held {
            return self
                .buffer
                .get(from..to)
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
        let left = segment.header.segment_bytes.saturating_sub(offset);
        let ahead = usize::try_from(READ_AHEAD_BYTES.min(left)).unwrap_or(bytes);
        let bytes_held = ahead.max(bytes);
        if self.buffer.len() != bytes_held {
            self.buffer = vec![0; bytes_held];
        }
        // Nothing is held until the read is done.
        self.start = u64::MAX;
        segment.file.read_at(&mut self.buffer, offset)?;
        self.start = offset;
        self.buffer
            .get(..bytes)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
