//! A snapshot on disk: one file, replaced whole.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `STANDSNP` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 2 | 0 |
//! | 12 | 4 | length of what it says of itself |
//! | 16 | 8 | length of the state |
//! | 24 | 4 | CRC-32C of bytes 0..24, of what it says of itself, and of the state |
//! | 28 | .. | what it says of itself (postcard), then the state |

use std::io;

use bytes::Bytes;
use openraft::{SnapshotMeta, StoredMembership};
use serde::{Deserialize, Serialize};

use super::{Member, decode_members, encode_members, log_id};
use crate::disk::{SegmentDir, SegmentFile};
use crate::format::{Fields, checksum};
use crate::state::create_durably;

pub(crate) const SNAPSHOT_FILE: &str = "snapshot";

const MAGIC: [u8; 8] = *b"STANDSNP";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 28;

pub(crate) type Meta = SnapshotMeta<u64, Member>;

/// A snapshot, in memory.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) meta: Meta,
    pub(crate) log_time_ms: u64,
    pub(crate) state: Bytes,
}

/// What is written of the meta data, and sent to who lacks the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Index and term of the last entry in it.
    last: Option<(u64, u64)>,
    /// Index and term of the entry that named the members.
    members_at: Option<(u64, u64)>,
    members: Vec<u8>,
    id: String,
    pub(crate) log_time_ms: u64,
}

// === impl About ===

impl About {
    pub(crate) fn of(meta: &Meta, log_time_ms: u64) -> Self {
        let at = |id: openraft::LogId<u64>| (id.index, id.leader_id.term);
        Self {
            last: meta.last_log_id.map(at),
            members_at: meta.last_membership.log_id().map(at),
            members: encode_members(meta.last_membership.membership()),
            id: meta.snapshot_id.clone(),
            log_time_ms,
        }
    }

    pub(crate) fn meta(&self) -> Option<Meta> {
        let id = |(index, term)| log_id(term, index);
        Some(Meta {
            last_log_id: self.last.map(id),
            last_membership: StoredMembership::new(
                self.members_at.map(id),
                decode_members(&self.members)?,
            ),
            snapshot_id: self.id.clone(),
        })
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Writes it in the place of the one before, durably.
    pub(crate) fn write(&self, dir: &dyn SegmentDir) -> io::Result<()> {
        let about = About::of(&self.meta, self.log_time_ms);
        let about = postcard::to_stdvec(&about).map_err(io::Error::other)?;
        let length = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        let state_bytes = u64::try_from(self.state.len()).map_err(io::Error::other)?;
        let mut file = Vec::with_capacity(
            HEAD_BYTES
                .saturating_add(about.len())
                .saturating_add(self.state.len()),
        );
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&[0; 2]);
        file.extend_from_slice(&length(about.len())?.to_le_bytes());
        file.extend_from_slice(&state_bytes.to_le_bytes());
        let crc = crc(&file, &about, &self.state);
        file.extend_from_slice(&crc.to_le_bytes());
        file.extend_from_slice(&about);
        file.extend_from_slice(&self.state);
        let bytes = u64::try_from(file.len()).map_err(io::Error::other)?;
        create_durably(dir, SNAPSHOT_FILE, bytes, &file)?;
        Ok(())
    }

    /// Reads it; `None` when there is none, `InvalidData` when it does not verify.
    pub(crate) fn read(dir: &dyn SegmentDir) -> io::Result<Option<Self>> {
        let file = match dir.open(SNAPSHOT_FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        file.settle()?;
        Self::of_file(file.as_ref())
    }

    /// The same without asking the disk to write anything.
    pub(crate) fn look(dir: &dyn SegmentDir) -> io::Result<Option<Self>> {
        match dir.open(SNAPSHOT_FILE) {
            Ok(file) => Self::of_file(file.as_ref()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn of_file(file: &dyn SegmentFile) -> io::Result<Option<Self>> {
        let bytes = usize::try_from(file.bytes()?).map_err(io::Error::other)?;
        let mut whole = vec![0; bytes];
        file.read_at(&mut whole, 0)?;
        let snapshot = Self::decode(&whole).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(snapshot))
    }

    fn decode(whole: &[u8]) -> Option<Self> {
        let mut fields = Fields(whole);
        let head = (fields.take::<8>()?, fields.u16()?, fields.u16()?);
        if head != (MAGIC, VERSION, 0) {
            return None;
        }
        let about_bytes = usize::try_from(fields.u32()?).ok()?;
        let state_bytes = usize::try_from(fields.u64()?).ok()?;
        let told = fields.u32()?;
        let about = fields.slice(about_bytes)?;
        let state = fields.slice(state_bytes)?;
        if !fields.0.is_empty() || told != crc(whole.get(..24)?, about, state) {
            return None;
        }
        let about: About = postcard::from_bytes(about).ok()?;
        Some(Self {
            meta: about.meta()?,
            log_time_ms: about.log_time_ms,
            state: Bytes::copy_from_slice(state),
        })
    }
}

fn crc(head: &[u8], about: &[u8], state: &[u8]) -> u32 {
    checksum(checksum(checksum(0, 0, head), 0, about), 0, state)
}
