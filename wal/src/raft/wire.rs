//! What nodes of a group say to each other, as bytes. The first byte is the version.

use std::collections::BTreeMap;

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::{LeaderId, Vote};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::snapshot::About;
use super::{Member, RaftLogId, Types, from_disk, log_id, to_disk};
use crate::format::record_bytes;
use crate::group::Change;
use crate::segment::{Body, Entry};
use crate::wal::{Applied, StateMachine};

const VERSION: u8 = 1;

/// Index and term.
pub(crate) type At = (u64, u64);

#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    Append(Append),
    Vote {
        vote: WireVote,
        last: Option<At>,
    },
    Snapshot {
        vote: WireVote,
        about: About,
        state: Bytes,
    },
    /// Proposals of a node that does not lead.
    Propose {
        proposals: Vec<Bytes>,
    },
    /// What the node knows of its group.
    Standing,
    /// For who leads.
    Change(Change),
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Response {
    Appended,
    AppendedTo(Option<At>),
    Conflict,
    HigherVote(WireVote),
    Voted {
        vote: WireVote,
        granted: bool,
        last: Option<At>,
    },
    Installed {
        vote: WireVote,
    },
    /// By proposal.
    Outcomes(Vec<WireOutcome>),
    /// It does not lead; who does, as far as it knows.
    NotLeader(Option<u64>),
    /// Nothing was begun: it has no room for more now.
    Busy,
    /// It may have been begun.
    Unknown,
    /// The request was not understood, or this node has failed.
    Failed(String),
    Standing(Standing),
    /// The members are as was asked.
    Changed,
    /// The members stay as they are.
    Refused(String),
}

/// What a node knows of its group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Its own log.
    pub(crate) log: Uuid,
    /// Keepers and learners with their members; empty before the group is founded.
    pub(crate) keepers: BTreeMap<u64, Member>,
    pub(crate) learners: BTreeMap<u64, Member>,
    /// Of who leads: the last entry that each node has told it is durable there.
    pub(crate) matched: BTreeMap<u64, u64>,
    /// Segments that it could begin.
    pub(crate) segments_left: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Append {
    vote: WireVote,
    before: Option<At>,
    entries: Vec<WireEntry>,
    committed: Option<At>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct WireVote {
    term: u64,
    node: Option<u64>,
    committed: bool,
}

#[derive(Serialize, Deserialize)]
struct WireEntry {
    term: u64,
    index: u64,
    log_time_ms: u64,
    body: WireBody,
}

#[derive(Serialize, Deserialize)]
enum WireBody {
    Blank,
    Proposals(Vec<Bytes>),
    Members(Bytes),
}

/// Where a proposal was applied, and what it said.
#[derive(Serialize, Deserialize)]
pub(crate) struct WireOutcome {
    term: u64,
    index: u64,
    slot: u32,
    log_time_ms: u64,
    pub(crate) outcome: Bytes,
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Bytes {
    let mut bytes = vec![VERSION];
    match postcard::to_stdvec(message) {
        Ok(body) => bytes.extend_from_slice(&body),
        Err(error) => tracing::error!(%error, "a message does not encode"),
    }
    bytes.into()
}

pub(crate) fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).ok(),
        Some(_) | None => None,
    }
}

fn at(id: RaftLogId) -> At {
    (id.index, id.leader_id.term)
}

fn id((index, term): At) -> RaftLogId {
    log_id(term, index)
}

// === impl Request ===

impl Request {
    pub(crate) fn append<M: StateMachine>(request: AppendEntriesRequest<Types<M>>) -> Self {
        Self::Append(Append {
            vote: WireVote::of(&request.vote),
            before: request.prev_log_id.map(at),
            entries: request
                .entries
                .into_iter()
                .map(|entry| WireEntry::of(to_disk(entry)))
                .collect(),
            committed: request.leader_commit.map(at),
        })
    }

    pub(crate) fn vote(request: &VoteRequest<u64>) -> Self {
        Self::Vote {
            vote: WireVote::of(&request.vote),
            last: request.last_log_id.map(at),
        }
    }
}

// === impl WireVote ===

#[cfg(feature = "testing")]
impl WireVote {
    pub(crate) fn term(self) -> u64 {
        self.term
    }

    pub(crate) fn node(self) -> u64 {
        self.node.unwrap_or_default()
    }
}

// === impl Append ===

impl Append {
    /// Term, number of entries, and what is committed.
    #[cfg(feature = "testing")]
    pub(crate) fn about(&self) -> (u64, u64, u64) {
        let entries = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        let committed = self.committed.map_or(0, |(index, _)| index);
        (self.vote.term, entries, committed)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keeps only the first entries, and says which is the last of them, or the one before them.
    pub(crate) fn keep(&mut self, count: usize) -> Option<At> {
        self.entries.truncate(count);
        let last = self.entries.last().map(|last| (last.index, last.term));
        last.or(self.before)
    }

    /// Bytes of the payload of each entry.
    pub(crate) fn payloads(&self) -> Vec<usize> {
        let bytes = |entry: &WireEntry| match &entry.body {
            WireBody::Blank => 0,
            WireBody::Proposals(proposals) => {
                let records = proposals
                    .iter()
                    .map(|proposal| record_bytes(proposal.len()));
                records.fold(0, usize::saturating_add)
            }
            WireBody::Members(members) => record_bytes(members.len()),
        };
        self.entries.iter().map(bytes).collect()
    }

    /// Index and term of each entry.
    pub(crate) fn places(&self) -> impl Iterator<Item = At> {
        self.entries.iter().map(|entry| (entry.index, entry.term))
    }

    pub(crate) fn has_proposals(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| matches!(entry.body, WireBody::Proposals(_)))
    }

    pub(crate) fn into_request<M: StateMachine>(self) -> Option<AppendEntriesRequest<Types<M>>> {
        let entries: Option<Vec<_>> = self
            .entries
            .into_iter()
            .map(|entry| from_disk(entry.into_entry()))
            .collect();
        Some(AppendEntriesRequest {
            vote: self.vote.vote(),
            prev_log_id: self.before.map(id),
            entries: entries?,
            leader_commit: self.committed.map(id),
        })
    }
}

// === impl Response ===

impl Response {
    pub(crate) fn appended(response: AppendEntriesResponse<u64>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Appended,
            AppendEntriesResponse::PartialSuccess(upto) => Self::AppendedTo(upto.map(at)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(WireVote::of(&vote)),
        }
    }

    pub(crate) fn into_appended(self) -> Option<AppendEntriesResponse<u64>> {
        match self {
            Self::Appended => Some(AppendEntriesResponse::Success),
            Self::AppendedTo(upto) => Some(AppendEntriesResponse::PartialSuccess(upto.map(id))),
            Self::Conflict => Some(AppendEntriesResponse::Conflict),
            Self::HigherVote(vote) => Some(AppendEntriesResponse::HigherVote(vote.vote())),
            _ => None,
        }
    }

    pub(crate) fn voted(response: &VoteResponse<u64>) -> Self {
        Self::Voted {
            vote: WireVote::of(&response.vote),
            granted: response.vote_granted,
            last: response.last_log_id.map(at),
        }
    }

    pub(crate) fn into_voted(self) -> Option<VoteResponse<u64>> {
        match self {
            Self::Voted {
                vote,
                granted,
                last,
            } => Some(VoteResponse {
                vote: vote.vote(),
                vote_granted: granted,
                last_log_id: last.map(id),
            }),
            _ => None,
        }
    }
}

// === impl WireVote ===

impl WireVote {
    pub(crate) fn of(vote: &Vote<u64>) -> Self {
        Self {
            term: vote.leader_id.term,
            node: vote.leader_id.voted_for,
            committed: vote.committed,
        }
    }

    pub(crate) fn vote(self) -> Vote<u64> {
        Vote {
            leader_id: LeaderId {
                term: self.term,
                voted_for: self.node,
            },
            committed: self.committed,
        }
    }
}

// === impl WireEntry ===

impl WireEntry {
    fn of(entry: Entry) -> Self {
        Self {
            term: entry.term,
            index: entry.index,
            log_time_ms: entry.log_time_ms,
            body: match entry.body {
                Body::Blank => WireBody::Blank,
                Body::Proposals(proposals) => WireBody::Proposals(proposals),
                Body::Members(members) => WireBody::Members(members),
            },
        }
    }

    fn into_entry(self) -> Entry {
        Entry {
            term: self.term,
            index: self.index,
            log_time_ms: self.log_time_ms,
            body: match self.body {
                WireBody::Blank => Body::Blank,
                WireBody::Proposals(proposals) => Body::Proposals(proposals),
                WireBody::Members(members) => Body::Members(members),
            },
        }
    }
}

// === impl WireOutcome ===

impl WireOutcome {
    pub(crate) fn of(applied: Applied, outcome: Vec<u8>) -> Self {
        Self {
            term: applied.term,
            index: applied.index,
            slot: applied.slot,
            log_time_ms: applied.log_time_ms,
            outcome: outcome.into(),
        }
    }

    pub(crate) fn applied(&self) -> Applied {
        Applied {
            term: self.term,
            index: self.index,
            slot: self.slot,
            log_time_ms: self.log_time_ms,
        }
    }
}
