//! A log that is replicated to a group of keepers: propose anywhere, and hear the outcome once a
//! majority has it durably.
//!
//! Proposals that wait are carried together, as one Raft entry: here when this node leads, else to
//! the node that does. The batch under way is the batching window; there is no timer. What is carried
//! and not heard of is carried again until its deadline, so that the death of a leader costs an
//! election and no more (see [`Replicable`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::ClientWriteError;
use openraft::{Raft, SnapshotPolicy};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::disk::real::RealDir;
use crate::disk::{SegmentDir, WriteMode};
use crate::files::locked;
use crate::format::record_bytes;
use crate::hands::off_runtime;
use crate::news::News;
use crate::raft::machine::Machine;
use crate::raft::network::{Links, Transport, TransportError};
use crate::raft::store::Store;
use crate::raft::wire::{Request, Response, WireOutcome, WireVote, decode, encode};
use crate::raft::{Member, Outcomes, Payload, Replicable, Types};
use crate::recovery::{OpenError, during};
use crate::scrub::Damage;
use crate::segment::Batch;
use crate::shared::Phase;
use crate::status::Counters;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::time::{LogClock, TimeSource};
use crate::wal::{Answer, Committed, Config, NodeId, ProposeError, ReadError, Stopped, Why};

mod carry;
mod enroll;
mod members;
mod room;
mod scrub;
#[cfg(test)]
mod tests;
mod times;

pub use enroll::EnrollError;
pub use members::{Change, MemberError};

/// How long a node that stops waits for the library.
const STOP_MAX: Duration = Duration::from_secs(5);

/// How a node of a group is opened.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Its own log: place, sizes, bounds, the group's name and this node's number.
    pub log: Config,
    /// Which group this is, the same on every node: the drain cursor names it.
    pub incarnation: Uuid,
    /// How often a leader says that it is there.
    pub heartbeat: Duration,
    /// A follower that hears nothing of its leader for a random time between the two, which it draws when
    /// it opens, asks for votes. The first must be more than half the second and a heartbeat: half the
    /// second is the lease in which nobody votes for another leader.
    pub election: [Duration; 2],
    /// Batches of this node under way at once.
    pub batches_max: usize,
    /// A node that has no log yet does not speak for the group until [`Group::enroll`] has said that
    /// it may.
    pub enrolls: bool,
}

/// A node of a replicated log, and the state it was applied to.
pub struct Group<M: Replicable> {
    inner: Arc<Inner<M>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

pub(crate) struct Inner<M: Replicable> {
    config: GroupConfig,
    raft: Raft<Types<M>>,
    store: Store<M>,
    machine: Machine<M>,
    transport: Arc<dyn Transport>,
    clock: Mutex<LogClock>,
    /// Held from the stamp of an entry until the library has it.
    stamping: tokio::sync::Mutex<()>,
    /// Held while entries of a leader's are appended.
    appending: tokio::sync::Mutex<()>,
    told: News<Told>,
    queue: mpsc::Sender<Pending<M::Outcome>>,
    queued_bytes: AtomicUsize,
    /// There is room for what a leader has to write.
    may_lead: AtomicBool,
    /// Whether this node may vote and be appended to.
    admitted: AtomicBool,
}

/// What this node waits for to be told by the library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    leader: Option<u64>,
    /// Last entry in the snapshot, and last one given up.
    snapshot: Option<u64>,
    purged: Option<u64>,
}

/// A proposal and who waits for it.
struct Pending<O> {
    proposal: Bytes,
    deadline: Instant,
    done: oneshot::Sender<Answer<O>>,
}

/// A node of a group at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupStatus {
    /// This node.
    pub node: u64,
    /// The group's name.
    pub group: String,
    /// Which group this is.
    pub incarnation: Uuid,
    /// The term this node knows of.
    pub term: u64,
    /// Who leads, as far as this node knows.
    pub leader: Option<u64>,
    /// Who votes.
    pub keepers: BTreeSet<u64>,
    /// Who only hears.
    pub learners: BTreeSet<u64>,
    /// Of who leads: the last entry that each member is known to have.
    pub matched: BTreeMap<u64, u64>,
    /// Of who leads: how long ago a majority answered it, ms, as it knew last.
    pub quorum_age_ms: Option<u64>,
    /// Last entry of this node's log; not all of it need be committed.
    pub last_index: u64,
    /// Last entry applied here.
    pub applied_index: u64,
    /// Last entry in this node's snapshot.
    pub snapshot_index: Option<u64>,
    /// First entry that may still be in this node's log.
    pub first_index: u64,
    /// Log time of the last entry applied, ms.
    pub log_time_ms: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of those files.
    pub bytes_used: u64,
    /// Bytes they may take.
    pub budget_bytes: u64,
    /// Next segments made ahead of time.
    pub spares: u64,
    /// How this node's blocks are made durable.
    pub write_mode: WriteMode,
    /// Proposals of this node that wait to be carried.
    pub queued: u64,
    /// A write failed here: this node has to end and be rebuilt.
    pub poisoned: bool,
    /// Durable bytes that a scrub found damaged since the open; nothing was cut.
    pub damage: Option<Damage>,
    /// Torn writes cut when this log was opened.
    pub torn_tails_cut: u64,
    /// Of this node's disk, since the open.
    pub counters: Counters,
}

// === impl GroupConfig ===

impl GroupConfig {
    /// Elections after 210 to 300 ms, two batches under way: while one is on disk the next is on its way,
    /// and more only divide the same proposals among more entries (docs/benchmarks.md).
    #[must_use]
    pub fn new(log: Config, incarnation: Uuid) -> Self {
        Self {
            log,
            incarnation,
            heartbeat: Duration::from_millis(40),
            election: [Duration::from_millis(210), Duration::from_millis(300)],
            batches_max: 2,
            enrolls: false,
        }
    }

    fn raft(&self) -> Result<openraft::Config, OpenError> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // The library waits out a lease, which is its longest timeout, and then its timeout: from once
        // and a bit to twice what it is told.
        let [first, last] = self.election.map(millis);
        let max = last.div_euclid(2);
        let min = first.saturating_sub(max);
        openraft::Config {
            cluster_name: self.log.group.clone(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: min,
            election_timeout_max: max,
            // Snapshots and purges are ours to ask for.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            // A node that is far behind is brought up by entries while they are there.
            replication_lag_threshold: u64::MAX,
            max_payload_entries: 64,
            install_snapshot_timeout: 10_000,
            ..openraft::Config::default()
        }
        .validate()
        .map_err(|_| OpenError::Config {
            what: "an election must begin more than a heartbeat after half its longest wait, and end later \
                   than it begins",
        })
    }
}

// === impl Group ===

impl<M: Replicable> Group<M> {
    /// Opens or creates this node's log and joins the group. Its members are what its log says; a
    /// new group has none until [`Group::found`].
    ///
    /// # Errors
    /// When the log or the snapshot does not open.
    pub async fn open(
        config: GroupConfig,
        time: Box<dyn TimeSource>,
        machine: M,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, OpenError> {
        let dir = RealDir::create_as(&config.log.dir, config.log.write_mode)
            .map_err(during("creating the directory"))?;
        let random = Box::new(|| Uuid::new_v4().as_u128());
        Self::open_on(Arc::new(dir), config, time, machine, transport, random).await
    }

    /// The same on another disk, with salts and the incarnation drawn from `random`; `config.log.dir` is
    /// not looked at.
    ///
    /// # Errors
    /// When the log or the snapshot does not open.
    pub async fn open_on(
        dir: Arc<dyn SegmentDir>,
        config: GroupConfig,
        time: Box<dyn TimeSource>,
        machine: M,
        transport: Arc<dyn Transport>,
        random: Box<dyn FnMut() -> u128 + Send>,
    ) -> Result<Self, OpenError> {
        let raft_config = Arc::new(config.raft()?);
        let log = config.log.clone();
        let on = Arc::clone(&dir);
        #[cfg(feature = "testing")]
        let witness = crate::testing::witness();
        let opening = move || {
            #[cfg(feature = "testing")]
            crate::testing::bring_witness(witness);
            let store = Store::open_on(Arc::clone(&on), log, time, random)?;
            Ok::<_, OpenError>((store, Machine::open(on, machine)?))
        };
        let opened = off_runtime(dir.as_ref(), opening).await;
        let (store, machine) = opened.map_err(|_cancelled| OpenError::Cancelled)??;
        store.give_up_behind(machine.kept().clone());
        let links = Links(Arc::clone(&transport));
        let node = config.log.node.0;
        let raft = Raft::new(node, raft_config, links, store.clone(), machine.clone())
            .await
            .map_err(|error| OpenError::Raft(error.to_string()))?;
        let clock = LogClock::new(store.log_time_ms(), store.files().time.as_ref());
        let (queue, waiting) = mpsc::channel(config.log.queue_proposals_max);
        let admitted = !config.enrolls;
        let inner = Arc::new(Inner {
            config,
            raft,
            store,
            machine,
            transport,
            clock: Mutex::new(clock),
            stamping: tokio::sync::Mutex::new(()),
            appending: tokio::sync::Mutex::new(()),
            told: News::default(),
            queue,
            queued_bytes: AtomicUsize::new(0),
            may_lead: AtomicBool::new(true),
            admitted: AtomicBool::new(admitted),
        });
        inner.mind_the_room();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let carrier = carry::Carrier {
            inner: Arc::clone(&inner),
            slots: Arc::new(Semaphore::new(inner.config.batches_max.max(1))),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(carrier.run(waiting));
        tasks.spawn(follow(Arc::clone(&inner), stop.clone()));
        tasks.spawn(room::make_way(Arc::clone(&inner), stop.clone()));
        Ok(Self { inner, tasks, stop })
    }

    /// Resolves once a majority has the proposal durably and this node knows what applying it said,
    /// or when `deadline` passes (then its fate is unknown).
    ///
    /// # Errors
    /// When it was not begun, or its fate is not known in time.
    pub async fn propose(
        &self,
        proposal: Bytes,
        deadline: Instant,
    ) -> Result<Committed<M::Outcome>, ProposeError> {
        let answer = self.inner.enqueue(proposal, deadline)?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_gone)) => Err(ProposeError::Unknown { why: Why::Stopped }),
            Err(_elapsed) => Err(ProposeError::Unknown { why: Why::Deadline }),
        }
    }

    /// The same for a proposal after which entries can be given up. Where this node leads, it may use the
    /// room that is kept from others.
    ///
    /// # Errors
    /// As [`Group::propose`].
    pub async fn propose_to_make_room(
        &self,
        proposal: Bytes,
        deadline: Instant,
    ) -> Result<Committed<M::Outcome>, ProposeError> {
        let inner = &self.inner;
        if inner.leader() != Some(inner.config.log.node.0) || inner.has_room_to_lead() {
            return self.propose(proposal, deadline).await;
        }
        // Out of time, it finds out below.
        drop(tokio::time::timeout_at(deadline, inner.has_a_segment_ahead()).await);
        if !inner.has_room_to_make_more() {
            return Err(ProposeError::Full);
        }
        let unknown = |why| Err(ProposeError::Unknown { why });
        match tokio::time::timeout_at(deadline, inner.commit(vec![proposal])).await {
            Ok(Ok(outcomes)) => match outcomes.into_iter().next() {
                Some((at, outcome)) => Ok(Committed::new(at, outcome)),
                None => unknown(Why::Stopped),
            },
            Ok(Err(WriteError::Ended)) => unknown(Why::Stopped),
            Ok(Err(WriteError::Full | WriteError::Unknown)) | Err(_) => unknown(Why::Deadline),
        }
    }

    /// Reads the applied state of this node. The closure must be short: apply waits for it.
    pub fn read<R>(&self, look: impl FnOnce(&M) -> R) -> R {
        self.inner.machine.read(look)
    }

    /// Which group this is.
    pub fn incarnation(&self) -> Uuid {
        self.inner.config.incarnation
    }

    /// Answers a request of another node's.
    pub async fn handle(&self, request: Bytes) -> Bytes {
        let response = match decode(&request) {
            Some(request) => self.inner.handle(request).await,
            None => Response::Failed("a message of another version".to_owned()),
        };
        encode(&response)
    }

    /// Waits until the entry `index` is applied here, or the log stops.
    ///
    /// # Errors
    /// When the node ends before.
    pub async fn wait_for(&self, index: u64) -> Result<(), Stopped> {
        let progress = self.inner.machine.progress();
        let reached = progress.wait_for(|at| at.last.is_some_and(|last| last.index >= index));
        tokio::select! {
            biased;
            () = reached => Ok(()),
            () = self.inner.ended() => Err(Stopped),
        }
    }

    /// Resolves when this node's disk failed, which is when the process has to end.
    pub async fn poisoned(&self) {
        let phase = self.inner.store.phase();
        phase.wait_for(|phase| *phase == Phase::Poisoned).await;
    }

    /// Reads applied entries from `from_index` on: at most `bytes_max` of proposals but at least one
    /// entry. Entries that are no batch of proposals are empty ones.
    ///
    /// # Errors
    /// When they were given up, or do not read back.
    pub async fn read_batches(
        &self,
        from_index: u64,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, ReadError> {
        let applied = self.inner.applied_index();
        let first_index = self.inner.store.first_index();
        if from_index < first_index {
            return Err(ReadError::Trimmed { first_index });
        }
        let end = applied.map_or(0, |index| index.saturating_add(1));
        let entries = self.inner.store.entries(from_index, end, bytes_max).await?;
        let before = self.inner.log_time_before(from_index).await?;
        let applied_ms = self.inner.machine.progress().get().log_time_ms;
        Ok(times::in_order(entries, before, applied_ms))
    }

    /// Makes a snapshot of what is applied here, and then gives up the entries below `index`
    /// (exclusive) of this node's log. The caller has proof that they were drained.
    ///
    /// # Errors
    /// When the node has failed or stopped.
    pub async fn compact(&self, index: u64) -> Result<(), Stopped> {
        let raft = &self.inner.raft;
        let Some(upto) = index.checked_sub(1) else {
            return Ok(());
        };
        raft.trigger().snapshot().await.map_err(|_ended| Stopped)?;
        let told = &self.inner.told;
        let made = told.wait_for(|now| now.snapshot.is_some_and(|last| last >= upto));
        tokio::select! {
            biased;
            () = made => {}
            () = self.inner.ended() => return Err(Stopped),
        }
        let purged = raft.trigger().purge_log(upto).await;
        purged.map_err(|_ended| Stopped)?;
        let purged = told.wait_for(|now| now.purged.is_some_and(|last| last >= upto));
        tokio::select! {
            biased;
            () = purged => Ok(()),
            () = self.inner.ended() => Err(Stopped),
        }
    }

    /// Log time as this node would stamp it now, if it led: no earlier than what it has applied.
    pub fn log_time_ms(&self) -> u64 {
        self.inner.stamp()
    }

    /// What this node knows of itself and its group.
    pub fn status(&self) -> GroupStatus {
        let inner = &self.inner;
        inner.mind_the_room();
        let metrics = inner.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let files = inner.store.files();
        let segments = locked(&files.segments).len();
        GroupStatus {
            node: metrics.id,
            group: inner.config.log.group.clone(),
            incarnation: inner.config.incarnation,
            term: metrics.current_term,
            leader: metrics.current_leader,
            keepers: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            matched: matched(metrics.replication.as_ref()),
            quorum_age_ms: metrics.millis_since_quorum_ack,
            last_index: inner.store.last_index(),
            applied_index: inner.applied_index().unwrap_or(0),
            snapshot_index: metrics.snapshot.map(|last| last.index),
            first_index: inner.store.first_index(),
            log_time_ms: inner.machine.progress().get().log_time_ms,
            segments: u64::try_from(segments).unwrap_or(u64::MAX),
            bytes_used: files.bytes_used(),
            budget_bytes: files.config.budget_bytes,
            spares: files.spares_ready(),
            write_mode: files.dir.write_mode(),
            queued: inner.queued(),
            poisoned: inner.store.phase().get() == Phase::Poisoned,
            damage: locked(&files.damage).clone(),
            torn_tails_cut: files.torn_tails_cut,
            counters: locked(&files.counters).clone(),
        }
    }

    /// Stops: what is queued gets no outcome, the library ends, and the log is marked as stopped.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if tokio::time::timeout(STOP_MAX, self.inner.raft.shutdown())
            .await
            .is_err()
        {
            tracing::error!("the group's task did not end in time");
        }
        self.inner.store.stop().await;
    }
}

impl<M: Replicable> fmt::Debug for Group<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { group, node, .. } = &self.inner.config.log;
        write!(f, "Group({group}/{})", node.0)
    }
}

// === impl Inner ===

impl<M: Replicable> Inner<M> {
    fn enqueue(
        &self,
        proposal: Bytes,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Answer<M::Outcome>>, ProposeError> {
        let config = &self.config.log;
        let bytes = proposal.len();
        if record_bytes(bytes) > config.batch_bytes_max {
            return Err(ProposeError::TooLarge);
        }
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (done, answer) = oneshot::channel();
        let pending = Pending {
            proposal,
            deadline,
            done,
        };
        let refused = if queued.saturating_add(bytes) > config.queue_bytes_max {
            Some(ProposeError::Busy)
        } else {
            match self.queue.try_send(pending) {
                Ok(()) => None,
                Err(mpsc::error::TrySendError::Full(_)) => Some(ProposeError::Busy),
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    Some(ProposeError::Unknown { why: Why::Stopped })
                }
            }
        };
        match refused {
            None => Ok(answer),
            Some(error) => {
                self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                let mut counters = locked(&self.store.files().counters);
                counters.refused_busy = counters.refused_busy.saturating_add(1);
                Err(error)
            }
        }
    }

    fn queued(&self) -> u64 {
        let free = self.queue.capacity();
        u64::try_from(self.queue.max_capacity().saturating_sub(free)).unwrap_or(u64::MAX)
    }

    fn applied_index(&self) -> Option<u64> {
        let last = self.machine.progress().get().last;
        last.map(|last| last.index)
    }

    /// Resolves when this node's disk thread does not run any more.
    async fn ended(&self) {
        let phase = self.store.phase();
        phase.wait_for(|phase| *phase != Phase::Running).await;
    }

    fn leader(&self) -> Option<u64> {
        self.told.get().leader
    }

    async fn handle(&self, request: Request) -> Response {
        let failed = |error: &dyn fmt::Display| Response::Failed(error.to_string());
        self.mind_the_room();
        let speaks = matches!(
            request,
            Request::Append(_) | Request::Vote { .. } | Request::Snapshot { .. }
        );
        if speaks && !self.admitted.load(Ordering::Relaxed) {
            return Response::Failed("this node has not enrolled yet".to_owned());
        }
        match request {
            Request::Append(append) => self.append(append).await,
            Request::Vote { vote, last } => {
                let request = openraft::raft::VoteRequest {
                    vote: vote.vote(),
                    last_log_id: last.map(|(index, term)| crate::raft::log_id(term, index)),
                };
                match self.raft.vote(request).await {
                    Ok(response) => Response::voted(&response),
                    Err(error) => failed(&error),
                }
            }
            Request::Snapshot { vote, about, state } => {
                if !self.has_room_for_snapshot(state.len()) {
                    return Response::Busy;
                }
                let Some(meta) = about.meta() else {
                    return Response::Failed("the snapshot's members do not decode".to_owned());
                };
                let snapshot = openraft::Snapshot {
                    meta,
                    snapshot: Box::new(state),
                };
                match self.raft.install_full_snapshot(vote.vote(), snapshot).await {
                    Ok(response) => Response::Installed {
                        vote: WireVote::of(&response.vote),
                    },
                    Err(error) => failed(&error),
                }
            }
            Request::Propose { proposals } => self.lead(proposals).await,
            Request::Standing => Response::Standing(self.standing()),
            Request::Change(change) => members::changed(self.change(change).await),
        }
    }

    /// Proposes what another node carried here.
    async fn lead(&self, proposals: Vec<Bytes>) -> Response {
        let leader = self.leader();
        if leader != Some(self.config.log.node.0) {
            return Response::NotLeader(leader);
        }
        match self.write(proposals).await {
            Ok(outcomes) => Response::Outcomes(
                outcomes
                    .iter()
                    .map(|(at, outcome)| WireOutcome::of(*at, M::outcome_to_bytes(outcome)))
                    .collect(),
            ),
            Err(WriteError::Full) => Response::Busy,
            Err(WriteError::Unknown) => Response::Unknown,
            Err(WriteError::Ended) => Response::Failed("this node has failed".to_owned()),
        }
    }

    /// One entry, if this node leads.
    async fn write(&self, proposals: Vec<Bytes>) -> Result<Outcomes<M>, WriteError> {
        if !self.has_a_segment_ahead().await || !self.has_room_to_lead() {
            return Err(WriteError::Full);
        }
        self.commit(proposals).await
    }

    /// One entry, whatever room there is.
    async fn commit(&self, proposals: Vec<Bytes>) -> Result<Outcomes<M>, WriteError> {
        let written = {
            // Stamps come to the library in the order in which they were made.
            let _in_turn = self.stamping.lock().await;
            let payload = Payload {
                log_time_ms: self.stamp(),
                proposals,
            };
            self.raft.client_write_ff(payload).await
        };
        let answer = written.map_err(|_ended| WriteError::Ended)?;
        match answer.await {
            Ok(Ok(response)) => Ok(response.data),
            // A leader that was deposed while the entry was under way says the same as one that never
            // was: the entry may still be committed.
            Ok(Err(
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::ChangeMembershipError(_),
            )) => Err(WriteError::Unknown),
            Err(_gone) => Err(WriteError::Ended),
        }
    }
}

/// What each member is known to have; a member that said nothing yet has nothing.
fn matched(
    replication: Option<&BTreeMap<u64, Option<openraft::LogId<u64>>>>,
) -> BTreeMap<u64, u64> {
    let members = replication.into_iter().flatten();
    members
        .map(|(node, last)| (*node, last.map_or(0, |last| last.index)))
        .collect()
}

/// Passes on what the library tells, until stopped or the library ends.
async fn follow<M: Replicable>(inner: Arc<Inner<M>>, stop: CancellationToken) {
    let mut metrics = inner.raft.metrics();
    loop {
        let told = {
            let now = metrics.borrow_and_update();
            if now.running_state.is_err() {
                // It writes no vote and no entry any more: a snapshot that failed ends it too.
                inner.store.poison();
                return;
            }
            Told {
                leader: now.current_leader,
                snapshot: now.snapshot.map(|last| last.index),
                purged: now.purged.map(|last| last.index),
            }
        };
        if told != inner.told.get() {
            inner.told.set(told);
        }
        let changed = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = metrics.changed() => changed,
        };
        if changed.is_err() {
            inner.store.poison();
            return;
        }
    }
}

/// Why an entry has no outcome here.
enum WriteError {
    /// Not begun: the space budget is spent.
    Full,
    Unknown,
    /// This node has failed or stopped.
    Ended,
}
