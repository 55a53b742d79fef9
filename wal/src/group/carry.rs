//! Carrying proposals to whoever leads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Inner, NodeId, Pending, ProposeError, Replicable, Request, Response, TransportError, Why,
    WriteError, decode, encode,
};
use crate::format::record_bytes;
use crate::wal::{Applied, Committed, StateMachine};

/// Rest before a batch is carried again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);
/// Longest wait for news of a leader before it is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Takes what is queued and sends it on its way.
pub(super) struct Carrier<M: Replicable> {
    pub(super) inner: Arc<Inner<M>>,
    /// Batches that may be under way.
    pub(super) slots: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

type Waiting<M> = Pending<<M as StateMachine>::Outcome>;

/// Proposals that share an entry.
struct Load<M: Replicable> {
    inner: Arc<Inner<M>>,
    waiting: Vec<Waiting<M>>,
    /// An earlier try may have been begun, and may still come to be.
    perhaps_begun: bool,
}

/// What became of carrying a batch once.
enum Carried<O> {
    /// By proposal.
    Outcomes(Vec<(Applied, O)>),
    /// To be carried again: it was not begun.
    Again,
    /// To be carried again, and nobody knows whether it was begun.
    Perhaps,
    /// Not begun, and the leader takes nothing more.
    Full,
    /// This node has failed or stopped.
    Ended,
}

// === impl Carrier ===

impl<M: Replicable> Carrier<M> {
    /// Carries until stopped; what is still queued then gets no outcome.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Waiting<M>>) {
        let mut next = None;
        loop {
            let slot = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                slot = Arc::clone(&self.slots).acquire_owned() => slot,
            };
            let Ok(slot) = slot else { return };
            let first = match next.take() {
                Some(first) => first,
                None => tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    first = queue.recv() => match first {
                        Some(first) => first,
                        None => return,
                    },
                },
            };
            let (waiting, left) = self.collect(first, &mut queue);
            next = left;
            let load = Load {
                inner: Arc::clone(&self.inner),
                waiting,
                perhaps_begun: false,
            };
            let stop = self.stop.clone();
            self.tasks.spawn(load.run(slot, stop));
        }
    }

    /// Everything that waits, inside the caps of a batch; what did not fit any more comes back.
    fn collect(
        &self,
        first: Waiting<M>,
        queue: &mut mpsc::Receiver<Waiting<M>>,
    ) -> (Vec<Waiting<M>>, Option<Waiting<M>>) {
        let config = &self.inner.config.log;
        let mut bytes = record_bytes(first.proposal.len());
        let mut waiting = vec![first];
        let mut left = None;
        while waiting.len() < config.batch_proposals_max {
            let Ok(pending) = queue.try_recv() else { break };
            bytes = bytes.saturating_add(record_bytes(pending.proposal.len()));
            if bytes > config.batch_bytes_max {
                left = Some(pending);
                break;
            }
            waiting.push(pending);
        }
        let taken = waiting.iter().map(|pending| pending.proposal.len()).sum();
        self.inner.queued_bytes.fetch_sub(taken, Ordering::Relaxed);
        (waiting, left)
    }
}

// === impl Load ===

impl<M: Replicable> Load<M> {
    async fn run(mut self, slot: OwnedSemaphorePermit, stop: CancellationToken) {
        loop {
            self.let_the_late_go();
            let Some(until) = self.waiting.iter().map(|pending| pending.deadline).max() else {
                return;
            };
            let carried = tokio::select! {
                biased;
                () = stop.cancelled() => return self.fail(|| ProposeError::Unknown { why: Why::Stopped }),
                carried = tokio::time::timeout_at(until, self.carry(until)) => carried,
            };
            match carried {
                Ok(Carried::Outcomes(outcomes)) => {
                    self.tell(outcomes);
                    break;
                }
                // A try before this one may still be committed.
                Ok(Carried::Full) if self.perhaps_begun => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Ok(Carried::Full) => {
                    self.fail(|| ProposeError::Full);
                    break;
                }
                Ok(Carried::Ended) => {
                    self.fail(|| ProposeError::Unknown { why: Why::Poisoned });
                    break;
                }
                Ok(Carried::Again) => tokio::time::sleep(AGAIN_AFTER).await,
                Ok(Carried::Perhaps) => {
                    self.perhaps_begun = true;
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(_elapsed) => {}
            }
        }
        drop(slot);
    }

    /// Whoever is past the deadline is not carried on: its fate is unknown.
    fn let_the_late_go(&mut self) {
        let now = Instant::now();
        let late = |pending: &Waiting<M>| pending.deadline <= now;
        for pending in self.waiting.extract_if(.., |pending| late(pending)) {
            let why = Why::Deadline;
            drop(pending.done.send(Err(ProposeError::Unknown { why })));
        }
        self.waiting.retain(|pending| !pending.done.is_closed());
    }

    async fn carry(&self, until: Instant) -> Carried<M::Outcome> {
        let inner = &self.inner;
        let proposals: Vec<Bytes> = self
            .waiting
            .iter()
            .map(|pending| pending.proposal.clone())
            .collect();
        let Some(leader) = inner.leader() else {
            let news = inner.told.wait_for(|now| now.leader.is_some());
            drop(tokio::time::timeout(LOOK_AGAIN, news).await);
            return if inner.store.phase().get().is_running() {
                Carried::Again
            } else {
                Carried::Ended
            };
        };
        if leader == inner.config.log.node.0 {
            return match inner.write(proposals).await {
                Ok(outcomes) => Carried::Outcomes(outcomes),
                Err(WriteError::Full) => Carried::Full,
                Err(WriteError::Unknown) => Carried::Perhaps,
                Err(WriteError::Ended) => Carried::Ended,
            };
        }
        self.forward(leader, proposals, until).await
    }

    async fn forward(
        &self,
        leader: u64,
        proposals: Vec<Bytes>,
        until: Instant,
    ) -> Carried<M::Outcome> {
        let inner = &self.inner;
        let member = {
            let metrics = inner.raft.metrics();
            let metrics = metrics.borrow();
            let membership = metrics.membership_config.membership();
            membership.get_node(&leader).cloned()
        };
        let Some(member) = member else {
            return Carried::Again;
        };
        let count = proposals.len();
        let request = encode(&Request::Propose { proposals });
        let patience = until.saturating_duration_since(Instant::now());
        let call = inner
            .transport
            .call(NodeId(leader), &member, request, patience);
        // A leader that is gone does not answer; the one after it may be known long before.
        let deposed = inner.told.wait_for(|now| now.leader != Some(leader));
        let reply = tokio::select! {
            biased;
            reply = call => reply,
            () = deposed => return Carried::Perhaps,
        };
        let reply = match reply {
            Ok(reply) => decode::<Response>(&reply),
            Err(error) => {
                tracing::debug!(%error, leader, "proposals were not carried");
                return match error {
                    TransportError::Unreachable(_) => Carried::Again,
                    TransportError::NoReply(_) => Carried::Perhaps,
                };
            }
        };
        match reply {
            Some(Response::Outcomes(outcomes)) if outcomes.len() == count => {
                let decoded: Option<Vec<_>> = outcomes
                    .iter()
                    .map(|one| Some((one.applied(), M::outcome_from_bytes(&one.outcome)?)))
                    .collect();
                decoded.map_or(Carried::Perhaps, Carried::Outcomes)
            }
            Some(Response::Busy) => Carried::Full,
            Some(Response::NotLeader(_)) => Carried::Again,
            Some(_) | None => Carried::Perhaps,
        }
    }

    fn tell(self, outcomes: Vec<(Applied, M::Outcome)>) {
        for (pending, (at, outcome)) in self.waiting.into_iter().zip(outcomes) {
            // A waiter whose deadline passed has gone; its entry stands all the same.
            drop(pending.done.send(Ok(Committed::new(at, outcome))));
        }
    }

    fn fail(self, why: impl Fn() -> ProposeError) {
        for pending in self.waiting {
            drop(pending.done.send(Err(why())));
        }
    }
}
