//! The region's log, as this edge has it: a node of the group, and the register it applies to.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use standin_core::BoxFuture;
use standin_core::entry::{Entry, EntryError};
use standin_core::register::{Outcome, Register, RegisterConfig};
use standin_wal::{
    Batch, Change, Committed, EnrollError, Fate, Group, GroupConfig, GroupStatus, Member,
    MemberError, NodeId, OpenError, ProposeError, ReadError, ScrubReport, Stopped, TimeSource,
    Transport, TransportError,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::links;
use crate::machine::Machine;

/// How long a node without a place in the group waits for the others before it says so and goes on
/// trying.
const ENROLL_ROUND: Duration = Duration::from_secs(5);

/// Rest between two readings of everything that is on disk.
const SCRUB_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// How quickly it is read: little beside what a disk gives.
const SCRUB_BYTES_PER_SECOND: u64 = 8 * 1024 * 1024;

/// The region's log.
pub struct Log {
    group: Group<Machine>,
    edge: u64,
    /// Set once the group has refused this node.
    expelled: CancellationToken,
}

/// Who founds the group, and where this node's link listens.
#[derive(Clone, Debug)]
pub struct Founders {
    /// The keepers to be, and where their links listen.
    pub keepers: BTreeMap<NodeId, String>,
    /// Where this node's link listens, as the others dial it.
    pub address: String,
}

/// Why an entry has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It could not be made into bytes; nothing was begun.
    #[error("the entry does not encode: {0}")]
    Encode(#[from] EntryError),
    /// The log did not take it, or not in time.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Reaches nobody: the way of a keeper that is alone.
pub struct Nobody;

impl Transport for Nobody {
    fn call(
        &self,
        _to: NodeId,
        _member: &Member,
        _request: Bytes,
        _patience: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + '_>> {
        Box::pin(async {
            Err(TransportError::Unreachable(
                "this edge has no keeper links".to_owned(),
            ))
        })
    }
}

// === impl Log ===

impl Log {
    /// Opens or creates this node's log; `time` is what it stamps entries by.
    ///
    /// # Errors
    /// When it does not open.
    pub async fn open(
        config: GroupConfig,
        time: Box<dyn TimeSource>,
        register: RegisterConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, OpenError> {
        let edge = config.log.node.0;
        let machine = Machine::new(register);
        let group = Group::open(config, time, machine, transport).await?;
        Ok(Self::of(group, edge))
    }

    /// A log around a group that is open already.
    pub fn of(group: Group<Machine>, edge: u64) -> Self {
        Self {
            group,
            edge,
            expelled: CancellationToken::new(),
        }
    }

    /// Comes into the group, for as long as it takes. Without founders this node is the group.
    ///
    /// # Errors
    /// When this node may not come in: its disk is another one, or the group refuses it.
    pub async fn enroll(&self, founders: Option<&Founders>) -> Result<(), EnrollError> {
        let alone = || Founders {
            keepers: BTreeMap::from([(NodeId(self.edge), String::new())]),
            address: String::new(),
        };
        let founders = founders.cloned().unwrap_or_else(alone);
        loop {
            let deadline = soon(ENROLL_ROUND);
            let Founders { keepers, address } = &founders;
            match self.group.enroll(keepers, address, deadline).await {
                Err(EnrollError::Alone) => {
                    tracing::warn!(error = %EnrollError::Alone, "the log waits for its group");
                }
                settled => return settled,
            }
        }
    }

    /// The same beside everything else, until it is done or `stop` is cancelled. A node that may not
    /// come in has failed.
    pub async fn keep_enrolling(&self, founders: Option<&Founders>, stop: CancellationToken) {
        let enrolled = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            enrolled = self.enroll(founders) => enrolled,
        };
        match enrolled {
            Ok(()) => tracing::info!("the log has its group"),
            Err(error) => {
                tracing::error!(%error, "the log's group refuses this edge");
                self.expelled.cancel();
            }
        }
    }

    /// Applies everything that was committed before it was asked, and gives the log its name if it
    /// has none. `false`: not in time.
    pub async fn catch_up(&self, within: Duration) -> bool {
        let deadline = soon(within);
        let Ok(committed) = self.commit(&Entry::Founded(Uuid::new_v4()), deadline).await else {
            return false;
        };
        let applied = self.group.wait_for(committed.applied().index);
        matches!(tokio::time::timeout_at(deadline, applied).await, Ok(Ok(())))
    }

    /// Proposes an entry; resolves with its outcome once a majority has it durably.
    ///
    /// # Errors
    /// When it was not begun, or its fate is not known at the deadline.
    pub async fn propose(&self, entry: &Entry, deadline: Instant) -> Result<Outcome, LogError> {
        let committed = self.commit(entry, deadline).await?;
        Ok(committed.into_outcome())
    }

    /// The same, with the proof.
    ///
    /// # Errors
    /// As [`Log::propose`].
    pub async fn commit(
        &self,
        entry: &Entry,
        deadline: Instant,
    ) -> Result<Committed<Outcome>, LogError> {
        let bytes = Bytes::from(entry.encode()?);
        Ok(self.group.propose(bytes, deadline).await?)
    }

    /// Tells the log that everything up to the batch `cursor` is drained. It may use the last of the room:
    /// what is drained can be given up.
    ///
    /// # Errors
    /// As [`Log::propose`].
    pub async fn tell_drained(&self, cursor: u64, deadline: Instant) -> Result<(), LogError> {
        let bytes = Bytes::from(Entry::Drained(cursor).encode()?);
        let told = self.group.propose_to_make_room(bytes, deadline).await;
        told.map(drop).map_err(LogError::from)
    }

    /// Reads the applied state of this node. The closure must be short: apply waits for it.
    pub fn read<R>(&self, look: impl FnOnce(&Register) -> R) -> R {
        self.group.read(|machine| look(machine.register()))
    }

    /// Entries that this build could not read.
    pub fn unreadable(&self) -> u64 {
        self.group.read(Machine::unreadable)
    }

    /// This edge's number in the group.
    pub fn edge(&self) -> u64 {
        self.edge
    }

    /// The log's name in the ledger; `None` until the group has agreed on one.
    pub fn incarnation(&self) -> Option<Uuid> {
        self.read(Register::incarnation)
    }

    /// Whether this node leads the group, as far as it knows.
    pub fn leads(&self) -> bool {
        let status = self.group.status();
        status.leader == Some(status.node)
    }

    /// The node and its group, now.
    pub fn status(&self) -> GroupStatus {
        self.group.status()
    }

    /// Log time as this node would stamp it now.
    pub fn time_ms(&self) -> u64 {
        self.group.log_time_ms()
    }

    /// Every member of the group, and whether it votes.
    pub fn members(&self) -> BTreeMap<u64, (Member, bool)> {
        self.group.members()
    }

    /// This node, and every other member that answers it now.
    pub async fn reachable(&self) -> BTreeSet<u64> {
        self.group.reachable().await
    }

    /// Changes the members.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn change(&self, change: Change, deadline: Instant) -> Result<(), MemberError> {
        self.group.change(change, deadline).await
    }

    /// Applied batches from `from_index` on, at most `bytes_max` of proposals but at least one.
    ///
    /// # Errors
    /// When they were given up, or do not read back.
    pub async fn read_batches(
        &self,
        from_index: u64,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, ReadError> {
        self.group.read_batches(from_index, bytes_max).await
    }

    /// Waits until the batch `index` is applied here.
    ///
    /// # Errors
    /// When the log ends before.
    pub async fn wait_for(&self, index: u64) -> Result<(), Stopped> {
        self.group.wait_for(index).await
    }

    /// Makes a snapshot and gives up the batches below `index`.
    ///
    /// # Errors
    /// When the log has ended.
    pub async fn compact(&self, index: u64) -> Result<(), Stopped> {
        self.group.compact(index).await
    }

    /// Reads what is durable here again, so many bytes a second. Found damaged, the log has failed
    /// ([`Log::poisoned`]).
    ///
    /// # Errors
    /// When the log has ended.
    pub async fn scrub(&self, bytes_per_second: u64) -> Result<ScrubReport, Stopped> {
        self.group.scrub(bytes_per_second).await
    }

    /// Resolves when the log's disk failed or is damaged, or its group refuses this node: the process
    /// has to exit. A damaged keeper does not vote on: it is rebuilt from the others.
    pub async fn poisoned(&self) {
        tokio::select! {
            () = self.group.poisoned() => {}
            () = self.group.damaged() => {}
            () = self.expelled.cancelled() => {}
        }
    }

    /// Whether it has failed so.
    pub fn is_poisoned(&self) -> bool {
        let status = self.group.status();
        status.poisoned || status.damage.is_some() || self.expelled.is_cancelled()
    }

    /// Reads what is on this node's disk again and again, slowly, until `stop` is cancelled. What does
    /// not verify ends the node: the others have it.
    pub async fn keep_scrubbing(&self, stop: CancellationToken) {
        loop {
            let round = async {
                tokio::time::sleep(SCRUB_EVERY).await;
                self.scrub(SCRUB_BYTES_PER_SECOND).await
            };
            let report = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                report = round => report,
            };
            match report {
                Ok(report) => tracing::info!(?report, "the log was read again"),
                Err(_stopped) => return,
            }
        }
    }

    /// Stops the node.
    pub async fn stop(&self) {
        self.group.stop().await;
    }

    /// The group, for who speaks with the other nodes.
    pub fn group(&self) -> &Group<Machine> {
        &self.group
    }
}

impl links::Handler for Log {
    fn handle(&self, _from: NodeId, request: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(self.group.handle(request))
    }

    /// Whoever has a certificate of this region's: a newcomer is no member yet.
    fn may_call(&self, _node: NodeId) -> bool {
        true
    }
}

// === impl LogError ===

impl LogError {
    /// Whether the entry may be in the log.
    pub fn fate(&self) -> Fate {
        match self {
            Self::Encode(_) => Fate::NotBegun,
            Self::Propose(error) => error.fate(),
        }
    }
}

/// So far from now.
pub fn soon(within: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(within).unwrap_or(now)
}
