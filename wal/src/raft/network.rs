//! The library's messages over whatever carries bytes between nodes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Snapshot, Vote};

use super::snapshot::About;
use super::wire::{Request, Response, WireVote, decode, encode};
use super::{Member, Types};
use crate::wal::{NodeId, StateMachine};

/// Carries requests to other nodes and their replies back.
///
/// A call that is dropped, or fails, may have reached the node all the same. A carrier holds no queue
/// that grows: a node that does not keep up is told so by an error.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request` to a node and waits for its reply.
    fn call(
        &self,
        to: NodeId,
        member: &Member,
        request: Bytes,
        patience: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + '_>>;
}

/// A request without a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// It was not sent: the node cannot be reached. Asking again at once will not help.
    #[error("the node is not reached: {0}")]
    Unreachable(String),
    /// It may have been sent.
    #[error("no reply: {0}")]
    NoReply(String),
}

/// A node that was not reached, or had no room, is tried again after so long: less than an election, in
/// which it would believe the leader gone.
const REST: Duration = Duration::from_millis(100);

/// Makes a link to each node.
pub(crate) struct Links(pub(crate) Arc<dyn Transport>);

/// The link to one node.
pub(crate) struct Link {
    transport: Arc<dyn Transport>,
    to: u64,
    member: Member,
}

type Failed = RPCError<u64, Member, RaftError<u64>>;

impl<M: StateMachine> RaftNetworkFactory<Types<M>> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Member) -> Link {
        Link {
            transport: Arc::clone(&self.0),
            to: target,
            member: node.clone(),
        }
    }
}

// === impl Link ===

impl Link {
    async fn ask(&self, request: &Request, patience: Duration) -> Result<Response, TransportError> {
        let reply = self
            .transport
            .call(NodeId(self.to), &self.member, encode(request), patience)
            .await?;
        match decode(&reply) {
            Some(Response::Failed(why)) => Err(TransportError::NoReply(why)),
            // The library lets a node that is not reached rest for a while.
            Some(Response::Busy) => {
                let why = "it has no room for entries".to_owned();
                Err(TransportError::Unreachable(why))
            }
            Some(response) => Ok(response),
            None => Err(TransportError::NoReply("it is not understood".to_owned())),
        }
    }

    /// Asks what has replies of one kind only.
    async fn ask_for<T>(
        &self,
        request: &Request,
        option: &RPCOption,
        read: impl FnOnce(Response) -> Option<T>,
    ) -> Result<T, Failed> {
        let asked = self.ask(request, option.hard_ttl()).await;
        let response = asked.map_err(|error| failed(&error))?;
        read(response).ok_or_else(|| failed(&another_reply()))
    }
}

fn failed(error: &TransportError) -> Failed {
    match error {
        TransportError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(error)),
        TransportError::NoReply(_) => RPCError::Network(NetworkError::new(error)),
    }
}

fn another_reply() -> TransportError {
    TransportError::NoReply("a reply to another question".to_owned())
}

impl<M: StateMachine> RaftNetwork<Types<M>> for Link {
    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(REST))
    }

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<M>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        let request = Request::append(rpc);
        self.ask_for(&request, &option, Response::into_appended)
            .await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed> {
        let request = Request::vote(&rpc);
        self.ask_for(&request, &option, Response::into_voted).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<Types<M>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types<M>, Fatal<u64>>> {
        let request = Request::Snapshot {
            vote: WireVote::of(&vote),
            about: About::of(&snapshot.meta, 0),
            state: *snapshot.snapshot,
        };
        let asked = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            asked = self.ask(&request, option.hard_ttl()) => asked,
        };
        match asked {
            Ok(Response::Installed { vote }) => Ok(SnapshotResponse { vote: vote.vote() }),
            Ok(_) => Err(NetworkError::new(&another_reply()).into()),
            Err(error @ TransportError::Unreachable(_)) => Err(Unreachable::new(&error).into()),
            Err(error) => Err(NetworkError::new(&error).into()),
        }
    }
}
