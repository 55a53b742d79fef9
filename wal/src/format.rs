//! The bytes on disk, version 2. Everything is little-endian; a block is 4,096 bytes.
//!
//! Version 1, which is read and never written, has one kind of frame, no write number in it, and its
//! hint at 40 is the highest durable index.
//!
//! Every checksum is CRC-32C seeded with the segment's random salt and bound to the offset at which
//! the bytes belong, so that stale and misdirected bytes do not verify. A length is believed only
//! after the checksum of its header holds and it fits into the segment. What no checksum covers is
//! zeros, and is verified to be. No value of any field means "end": the log ends where no frame verifies, and `segment.rs` says what that may mean.
//!
//! **Segment** (`segment-<number>.wal`): block 0 is the header, zeros to the end of the block.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `STANDWAL` |
//! | 8 | 2 | format version |
//! | 10 | 2 | lowest reader version that may read it |
//! | 12 | 4 | block size |
//! | 16 | 8 | segment size |
//! | 24 | 16 | incarnation of the log |
//! | 40 | 8 | node |
//! | 48 | 8 | segment number, from 1 |
//! | 56 | 8 | index of its first batch |
//! | 64 | 4 | salt |
//! | 68 | 4 | length of the group's name |
//! | 72 | 64 | the group's name, zero-padded |
//! | 136 | 4 | CRC-32C of bytes 0..136 (salt 0, offset 0) |
//!
//! **Frame**: one entry or one truncation; starts on a block boundary, ends at one. One write puts
//! down one frame or several.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 2 | magic `0x4657` |
//! | 2 | 1 | kind: 1 = proposals, 2 = blank (a leader's first), 3 = members, 4 = truncation |
//! | 3 | 1 | flags: 1 = more frames of the same write follow |
//! | 4 | 4 | payload length |
//! | 8 | 8 | term |
//! | 16 | 8 | index of the entry, from 1, + 1 an entry; of a truncation: the first entry that is no more |
//! | 24 | 4 | count of records |
//! | 28 | 4 | CRC of the payload |
//! | 32 | 8 | log time, ms |
//! | 40 | 8 | hint: highest index known committed when this was written |
//! | 48 | 8 | hint: trim index when this was written |
//! | 56 | 4 | number of the write in this segment, from 1 |
//! | 60 | 4 | CRC of bytes 0..60 |
//! | 64 | payload | records: length u32, kind u8 (1 = proposal), flags u8, schema u16, bytes |
//! | .. | .. | zeros up to the trailer |
//! | end - 32 | 32 | trailer |
//!
//! **Trailer**: the last 32 bytes of what one write put down; local to this disk. A **mark** is a
//! block of zeros with a trailer only; it proves that the batch before it was durable.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `0x4c525754` |
//! | 4 | 4 | kind: 1 = of a frame, 2 = mark |
//! | 8 | 8 | number of the write in this segment |
//! | 16 | 8 | highest durable index before this write |
//! | 24 | 4 | reserved, 0 |
//! | 28 | 4 | CRC of bytes 0..28 |

use bytes::Bytes;
use uuid::Uuid;

mod fields;

pub(crate) use fields::{Fields, checksum, is_zero, put_group, take_group};

pub(crate) const FORMAT_VERSION: u16 = 2;
/// The oldest version that is read.
pub(crate) const FORMAT_VERSION_OLDEST: u16 = 1;
pub(crate) const BLOCK_BYTES: usize = 4096;
pub(crate) const BLOCK: u64 = 4096;
pub(crate) const FRAME_HEADER_BYTES: usize = 64;
pub(crate) const RECORD_HEADER_BYTES: usize = 8;
pub(crate) const TRAILER_BYTES: usize = 32;
pub(crate) const GROUP_BYTES_MAX: usize = 64;
pub(crate) const ZERO_BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

const SEGMENT_MAGIC: [u8; 8] = *b"STANDWAL";
const FRAME_MAGIC: u16 = 0x4657;
const FRAME_FLAG_MORE: u8 = 1;
const RECORD_KIND_PROPOSAL: u8 = 1;
const RECORD_SCHEMA: u16 = 1;
const TRAILER_MAGIC: u32 = 0x4c52_5754;
const _: () = assert!(FRAME_HEADER_BYTES + TRAILER_BYTES + RECORD_HEADER_BYTES < BLOCK_BYTES);

/// Block 0 of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u16,
    pub(crate) segment_bytes: u64,
    pub(crate) incarnation: Uuid,
    pub(crate) node: u64,
    pub(crate) number: u64,
    pub(crate) first_index: u64,
    pub(crate) salt: u32,
    pub(crate) group: String,
}

/// Why a block 0 is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged,
    Version(u16),
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// An entry: a batch of proposals.
    Proposals,
    /// An entry without content.
    Blank,
    /// An entry: who the members are from here on; one record.
    Members,
    /// The entries from its index on are no more.
    Truncation,
}

/// The header of a frame, verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: u8,
    pub(crate) more: bool,
    pub(crate) payload_bytes: u32,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) count: u32,
    pub(crate) body_crc: u32,
    pub(crate) log_time_ms: u64,
    pub(crate) committed_hint: u64,
    pub(crate) trim_hint: u64,
    pub(crate) write: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrailerKind {
    Frame,
    Mark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) kind: TrailerKind,
    pub(crate) write: u64,
    pub(crate) durable_before: u64,
}

/// What a frame says besides its records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameMeta {
    pub(crate) kind: FrameKind,
    /// More frames of the same write follow.
    pub(crate) more: bool,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) log_time_ms: u64,
    pub(crate) committed_hint: u64,
    pub(crate) trim_hint: u64,
    pub(crate) trailer: Trailer,
}

/// Whether this build reads a format version.
pub(crate) fn is_read(version: u16) -> bool {
    (FORMAT_VERSION_OLDEST..=FORMAT_VERSION).contains(&version)
}

/// Bytes that a frame with this payload takes on disk; `None` when they cannot be counted.
pub(crate) fn frame_bytes(payload: usize) -> Option<usize> {
    payload
        .checked_add(FRAME_HEADER_BYTES)?
        .checked_add(TRAILER_BYTES)?
        .checked_next_multiple_of(BLOCK_BYTES)
}

/// Bytes that one proposal takes in a payload.
pub(crate) fn record_bytes(proposal: usize) -> usize {
    proposal.saturating_add(RECORD_HEADER_BYTES)
}

/// Encodes one frame, whole blocks, that belongs at `offset`, behind what is in `out`.
/// `None` when a length does not fit its field.
pub(crate) fn encode_frame<'a>(
    out: &mut Vec<u8>,
    salt: u32,
    offset: u64,
    meta: &FrameMeta,
    records: impl Iterator<Item = &'a [u8]>,
) -> Option<()> {
    let start = out.len();
    let body = start.checked_add(FRAME_HEADER_BYTES)?;
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    let mut count = 0_u32;
    for record in records {
        out.extend_from_slice(&u32::try_from(record.len()).ok()?.to_le_bytes());
        out.push(RECORD_KIND_PROPOSAL);
        out.push(0);
        out.extend_from_slice(&RECORD_SCHEMA.to_le_bytes());
        out.extend_from_slice(record);
        count = count.checked_add(1)?;
    }
    let payload = out.get(body..)?;
    let header = FrameHeader {
        kind: meta.kind.code(),
        more: meta.more,
        payload_bytes: u32::try_from(payload.len()).ok()?,
        term: meta.term,
        index: meta.index,
        count,
        body_crc: checksum(salt, offset, payload),
        log_time_ms: meta.log_time_ms,
        committed_hint: meta.committed_hint,
        trim_hint: meta.trim_hint,
        write: u32::try_from(meta.trailer.write).ok()?,
    };
    let total = frame_bytes(payload.len())?;
    out.get_mut(start..body)?
        .copy_from_slice(&header.encode(salt, offset));
    let end = start.checked_add(total)?;
    out.resize(end.checked_sub(TRAILER_BYTES)?, 0);
    let last_block = offset.checked_add(u64::try_from(total.checked_sub(BLOCK_BYTES)?).ok()?)?;
    out.extend_from_slice(&meta.trailer.encode(salt, last_block));
    Some(())
}

/// Encodes a mark that belongs at `offset`.
pub(crate) fn encode_mark(salt: u32, offset: u64, trailer: &Trailer) -> [u8; BLOCK_BYTES] {
    let mut block = ZERO_BLOCK;
    if let Some(tail) = block.last_chunk_mut::<TRAILER_BYTES>() {
        *tail = trailer.encode(salt, offset);
    }
    block
}

/// Splits a verified payload into its proposals; `None` when it is not exactly `count` records.
pub(crate) fn split_records(payload: &Bytes, count: u32) -> Option<Vec<Bytes>> {
    // A count is believed only as far as the payload can hold so many.
    let most = payload.len().checked_div(RECORD_HEADER_BYTES)?;
    let mut proposals = Vec::with_capacity(usize::try_from(count).ok()?.min(most));
    let mut fields = Fields(payload);
    for _ in 0..count {
        let bytes = usize::try_from(fields.u32()?).ok()?;
        let (kind, flags, schema) = (fields.u8()?, fields.u8()?, fields.u16()?);
        if (kind, flags, schema) != (RECORD_KIND_PROPOSAL, 0, RECORD_SCHEMA) {
            return None;
        }
        proposals.push(payload.slice_ref(fields.slice(bytes)?));
    }
    fields.0.is_empty().then_some(proposals)
}

// === impl SegmentHeader ===

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Option<[u8; BLOCK_BYTES]> {
        let mut out = Vec::with_capacity(BLOCK_BYTES);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&u32::try_from(BLOCK_BYTES).ok()?.to_le_bytes());
        out.extend_from_slice(&self.segment_bytes.to_le_bytes());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(&self.node.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.first_index.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        put_group(&mut out, &self.group)?;
        let crc = checksum(0, 0, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.resize(BLOCK_BYTES, 0);
        out.try_into().ok()
    }

    pub(crate) fn decode(block: &[u8]) -> Result<Self, HeaderFault> {
        let mut fields = Fields(block);
        if fields.take::<8>() != Some(SEGMENT_MAGIC) {
            return Err(HeaderFault::Damaged);
        }
        let version = fields.u16().ok_or(HeaderFault::Damaged)?;
        if !is_read(version) {
            return Err(HeaderFault::Version(version));
        }
        Self::decode_rest(version, block, fields).ok_or(HeaderFault::Damaged)
    }

    /// The fields are the same in both versions.
    fn decode_rest(version: u16, block: &[u8], mut fields: Fields<'_>) -> Option<Self> {
        let _min_reader = fields.u16()?;
        let block_bytes = fields.u32()?;
        let segment_bytes = fields.u64()?;
        let incarnation = Uuid::from_bytes(fields.take()?);
        let (node, number, first_index) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let salt = fields.u32()?;
        let group = take_group(&mut fields)?;
        fields.verify(block, 0, 0)?;
        fields.end()?;
        (usize::try_from(block_bytes).ok()? == BLOCK_BYTES).then_some(Self {
            version,
            segment_bytes,
            incarnation,
            node,
            number,
            first_index,
            salt,
            group,
        })
    }
}

// === impl FrameHeader ===

impl FrameHeader {
    fn encode(&self, salt: u32, offset: u64) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = Vec::with_capacity(FRAME_HEADER_BYTES);
        out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
        out.extend_from_slice(&[self.kind, if self.more { FRAME_FLAG_MORE } else { 0 }]);
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&self.term.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.body_crc.to_le_bytes());
        out.extend_from_slice(&self.log_time_ms.to_le_bytes());
        out.extend_from_slice(&self.committed_hint.to_le_bytes());
        out.extend_from_slice(&self.trim_hint.to_le_bytes());
        out.extend_from_slice(&self.write.to_le_bytes());
        let crc = checksum(salt, offset, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.try_into().expect("the fields above are 64 bytes")
    }

    /// `None` when these bytes are not the header of a frame at `offset` of this segment.
    pub(crate) fn decode(bytes: &[u8], salt: u32, offset: u64) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u16()? != FRAME_MAGIC {
            return None;
        }
        let (kind, flags) = (fields.u8()?, fields.u8()?);
        let header = Self {
            kind,
            more: flags & FRAME_FLAG_MORE != 0,
            payload_bytes: fields.u32()?,
            term: fields.u64()?,
            index: fields.u64()?,
            count: fields.u32()?,
            body_crc: fields.u32()?,
            log_time_ms: fields.u64()?,
            committed_hint: fields.u64()?,
            trim_hint: fields.u64()?,
            write: fields.u32()?,
        };
        fields.verify(bytes, salt, offset)?;
        Some(header)
    }

    /// What the frame is; `None` for what this build does not know.
    pub(crate) fn kind(&self) -> Option<FrameKind> {
        [
            FrameKind::Proposals,
            FrameKind::Blank,
            FrameKind::Members,
            FrameKind::Truncation,
        ]
        .into_iter()
        .find(|kind| kind.code() == self.kind)
    }
}

// === impl FrameKind ===

impl FrameKind {
    fn code(self) -> u8 {
        match self {
            Self::Proposals => 1,
            Self::Blank => 2,
            Self::Members => 3,
            Self::Truncation => 4,
        }
    }
}

// === impl Trailer ===

impl Trailer {
    fn encode(&self, salt: u32, block_offset: u64) -> [u8; TRAILER_BYTES] {
        let kind: u32 = match self.kind {
            TrailerKind::Frame => 1,
            TrailerKind::Mark => 2,
        };
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&TRAILER_MAGIC.to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&self.write.to_le_bytes());
        out.extend_from_slice(&self.durable_before.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = checksum(salt, block_offset, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.try_into().expect("the fields above are 32 bytes")
    }

    /// The trailer at the end of a block, if there is one of this segment.
    pub(crate) fn decode(block: &[u8], salt: u32, block_offset: u64) -> Option<Self> {
        let bytes = block.last_chunk::<TRAILER_BYTES>()?;
        let mut fields = Fields(bytes);
        if fields.u32()? != TRAILER_MAGIC {
            return None;
        }
        let kind = match fields.u32()? {
            1 => TrailerKind::Frame,
            2 => TrailerKind::Mark,
            _ => return None,
        };
        let (write, durable_before) = (fields.u64()?, fields.u64()?);
        let _reserved = fields.u32()?;
        fields.verify(bytes, salt, block_offset)?;
        Some(Self {
            kind,
            write,
            durable_before,
        })
    }
}
