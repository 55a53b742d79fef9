//! The two small files beside the segments.
//!
//! `identity` is written once: whose log this is (group, node) and which (incarnation). `state` has
//! two slots of one block each, written in turn with a growing generation: whether the last run
//! stopped cleanly, and which segments must be there. A torn write of a slot leaves the other one.

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use crate::disk::{SegmentDir, SegmentFile};
use crate::format::{
    BLOCK, BLOCK_BYTES, FORMAT_VERSION, Fields, HeaderFault, ZERO_BLOCK, checksum, is_read,
    put_group, take_group,
};
use crate::planted::{Planted, planted};

pub(crate) const IDENTITY_FILE: &str = "identity";
pub(crate) const STATE_FILE: &str = "state";
/// Files under construction end so; they are removed at the next open.
pub(crate) const NEW_SUFFIX: &str = ".new";

const IDENTITY_MAGIC: [u8; 8] = *b"STANDID\0";
const STATE_MAGIC: [u8; 8] = *b"STANDST\0";
const STATE_BYTES: u64 = BLOCK * 2;
const FLAG_CLEAN: u16 = 1;
const FLAG_VOTE: u16 = 1 << 1;
const FLAG_VOTE_FOR: u16 = 1 << 2;
const FLAG_VOTE_COMMITTED: u16 = 1 << 3;
const FLAG_TRIMMED: u16 = 1 << 4;

/// Whose log a directory holds, and which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) group: String,
    pub(crate) node: u64,
    pub(crate) incarnation: Uuid,
    pub(crate) kind: Kind,
}

/// Whether a log is one keeper's own or a group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not replicated: durable here is committed.
    Local,
    /// A group's: entries may be taken back until a majority has them.
    Replicated,
}

/// The vote that this keeper has given, or taken as leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredVote {
    pub(crate) term: u64,
    /// Whom it is for; a term may be known without one.
    pub(crate) node: Option<u64>,
    /// A majority gave it: that node leads the term.
    pub(crate) committed: bool,
}

/// What the log has to remember besides its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) generation: u64,
    /// The index of the last batch if the last run stopped cleanly; `None` while running.
    pub(crate) clean_at: Option<u64>,
    /// The highest segment that may hold frames; 0 before the first.
    pub(crate) last_segment: u64,
    /// Batches below it may have been deleted.
    pub(crate) trim_index: u64,
    /// Term of the last batch below it.
    pub(crate) trim_term: u64,
    /// There was a batch below it. (A log may begin anywhere.)
    pub(crate) trimmed: bool,
    /// Of a group's log.
    pub(crate) vote: Option<StoredVote>,
}

/// The `state` file. One write and one sync per change; of a group's log two of each: a slot that
/// rots must not bring an older vote back.
pub(crate) struct Slots {
    file: Arc<dyn SegmentFile>,
    salt: u32,
    state: State,
    twice: bool,
}

// === impl Identity ===

impl Identity {
    fn encode(&self) -> Option<[u8; BLOCK_BYTES]> {
        let mut out = Vec::with_capacity(BLOCK_BYTES);
        out.extend_from_slice(&IDENTITY_MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(&self.node.to_le_bytes());
        put_group(&mut out, &self.group)?;
        out.push(u8::from(self.kind == Kind::Replicated));
        let crc = checksum(0, 0, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.resize(BLOCK_BYTES, 0);
        out.try_into().ok()
    }

    fn decode(block: &[u8]) -> Result<Self, HeaderFault> {
        let mut fields = Fields(block);
        if fields.take::<8>() != Some(IDENTITY_MAGIC) {
            return Err(HeaderFault::Damaged);
        }
        let version = fields.u16().ok_or(HeaderFault::Damaged)?;
        if !is_read(version) {
            return Err(HeaderFault::Version(version));
        }
        let rest = || {
            let incarnation = Uuid::from_bytes(fields.take()?);
            let node = fields.u64()?;
            let group = take_group(&mut fields)?;
            // Version 1 knew no other kind.
            let kind = match version {
                1 => Kind::Local,
                _ if fields.u8()? == 1 => Kind::Replicated,
                _ => Kind::Local,
            };
            fields.verify(block, 0, 0)?;
            fields.end()?;
            Some(Self {
                group,
                node,
                incarnation,
                kind,
            })
        };
        rest().ok_or(HeaderFault::Damaged)
    }

    /// Writes the file and its name, durably.
    pub(crate) fn create(&self, dir: &dyn SegmentDir) -> io::Result<()> {
        let block = self.encode().ok_or(io::ErrorKind::InvalidInput)?;
        create_durably(dir, IDENTITY_FILE, BLOCK, &block)?;
        Ok(())
    }

    pub(crate) fn read(dir: &dyn SegmentDir) -> io::Result<Result<Self, HeaderFault>> {
        let file = dir.open(IDENTITY_FILE)?;
        if file.bytes()? != BLOCK {
            return Ok(Err(HeaderFault::Damaged));
        }
        let mut block = ZERO_BLOCK;
        file.read_at(&mut block, 0)?;
        Ok(Self::decode(&block))
    }

    /// The state slots are bound to the incarnation, so that a stray file does not verify.
    fn salt(&self) -> u32 {
        crc32c::crc32c(self.incarnation.as_bytes())
    }
}

// === impl Slots ===

impl Slots {
    /// Creates the file, durably, for a log without segments whose first entry has this index.
    pub(crate) fn create(
        dir: &dyn SegmentDir,
        identity: &Identity,
        first_index: u64,
    ) -> io::Result<Self> {
        let state = State {
            generation: 1,
            clean_at: None,
            last_segment: 0,
            trim_index: first_index,
            trim_term: 0,
            trimmed: false,
            vote: None,
        };
        let salt = identity.salt();
        let block = state.encode(salt).ok_or(io::ErrorKind::InvalidInput)?;
        // Both slots start valid: whichever is written next, the other one can be read.
        let mut both = block.to_vec();
        both.extend_from_slice(&block);
        let file = create_durably(dir, STATE_FILE, STATE_BYTES, &both)?;
        Ok(Self {
            file,
            salt,
            state,
            twice: identity.kind == Kind::Replicated,
        })
    }

    /// Reads the newer valid slot; `None` when there is none.
    pub(crate) fn open(dir: &dyn SegmentDir, identity: &Identity) -> io::Result<Option<Self>> {
        let file = dir.open(STATE_FILE)?;
        if file.bytes()? != STATE_BYTES {
            return Ok(None);
        }
        let salt = identity.salt();
        let mut newest: Option<State> = None;
        for offset in [0, BLOCK] {
            let mut block = ZERO_BLOCK;
            file.read_at(&mut block, offset)?;
            if let Some(state) = State::decode(&block, salt)
                && newest.is_none_or(|other| other.generation < state.generation)
            {
                newest = Some(state);
            }
        }
        Ok(newest.map(|state| Self {
            file,
            salt,
            state,
            twice: identity.kind == Kind::Replicated,
        }))
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Replaces the state, durably. Does nothing when it is the same.
    pub(crate) fn store(&mut self, change: State) -> io::Result<()> {
        let generation = self.state.generation;
        if (State {
            generation,
            ..change
        }) == self.state
        {
            return Ok(());
        }
        let generation = generation
            .checked_add(1)
            .ok_or(io::ErrorKind::InvalidData)?;
        let state = State {
            generation,
            ..change
        };
        let slots = if generation % 2 == 0 {
            [BLOCK, 0]
        } else {
            [0, BLOCK]
        };
        let block = state.encode(self.salt).ok_or(io::ErrorKind::InvalidInput)?;
        let twice = self.twice && !planted(Planted::VoteInOneSlot);
        for slot in slots.into_iter().take(if twice { 2 } else { 1 }) {
            self.file.write_at(&block, slot)?;
            self.file.sync_data()?;
        }
        self.state = state;
        Ok(())
    }
}

// === impl State ===

impl State {
    fn encode(&self, salt: u32) -> Option<[u8; BLOCK_BYTES]> {
        let mut out = Vec::with_capacity(BLOCK_BYTES);
        out.extend_from_slice(&STATE_MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        let vote = self.vote.unwrap_or(StoredVote {
            term: 0,
            node: None,
            committed: false,
        });
        let flags = [
            (self.clean_at.is_some(), FLAG_CLEAN),
            (self.vote.is_some(), FLAG_VOTE),
            (vote.node.is_some(), FLAG_VOTE_FOR),
            (vote.committed, FLAG_VOTE_COMMITTED),
            (self.trimmed, FLAG_TRIMMED),
        ];
        let flags = flags.iter().filter(|(on, _)| *on);
        let flags = flags.fold(0_u16, |all, (_, flag)| all | flag);
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.clean_at.unwrap_or_default().to_le_bytes());
        out.extend_from_slice(&self.last_segment.to_le_bytes());
        out.extend_from_slice(&self.trim_index.to_le_bytes());
        out.extend_from_slice(&self.trim_term.to_le_bytes());
        out.extend_from_slice(&vote.term.to_le_bytes());
        out.extend_from_slice(&vote.node.unwrap_or_default().to_le_bytes());
        let crc = checksum(salt, 0, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.resize(BLOCK_BYTES, 0);
        out.try_into().ok()
    }

    fn decode(block: &[u8], salt: u32) -> Option<Self> {
        let mut fields = Fields(block);
        if fields.take::<8>()? != STATE_MAGIC {
            return None;
        }
        let version = fields.u16()?;
        if !is_read(version) {
            return None;
        }
        let flags = fields.u16()?;
        let generation = fields.u64()?;
        let clean_at = fields.u64()?;
        let clean_at = (flags & FLAG_CLEAN != 0).then_some(clean_at);
        let (last_segment, trim_index) = (fields.u64()?, fields.u64()?);
        let (trim_term, vote) = match version {
            1 => (0, None),
            _ => {
                let (trim_term, term, node) = (fields.u64()?, fields.u64()?, fields.u64()?);
                let vote = StoredVote {
                    term,
                    node: (flags & FLAG_VOTE_FOR != 0).then_some(node),
                    committed: flags & FLAG_VOTE_COMMITTED != 0,
                };
                (trim_term, (flags & FLAG_VOTE != 0).then_some(vote))
            }
        };
        fields.verify(block, salt, 0)?;
        fields.end()?;
        Some(Self {
            generation,
            clean_at,
            last_segment,
            trim_index,
            trim_term,
            trimmed: flags & FLAG_TRIMMED != 0,
            vote,
        })
    }
}

/// Creates a file of `bytes` that begins with `head`, under its name only once it is durable.
pub(crate) fn create_durably(
    dir: &dyn SegmentDir,
    name: &str,
    bytes: u64,
    head: &[u8],
) -> io::Result<Arc<dyn SegmentFile>> {
    let new = format!("{name}{NEW_SUFFIX}");
    let filled = dir.create(&new, bytes).and_then(|file| {
        file.write_at(head, 0)?;
        file.sync_data()?;
        Ok(file)
    });
    let file = filled.inspect_err(|_| {
        // It may be the very file that filled the disk. If it stays, the next open removes it.
        if let Err(error) = dir.remove(&new) {
            tracing::warn!(file = new, %error, "an unfinished file stays");
        }
    })?;
    dir.rename(&new, name)?;
    dir.sync_dir()?;
    Ok(file)
}
