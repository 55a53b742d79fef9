//! Applying what the group has committed, and snapshots of what came of it.
//!
//! Log time never goes back: an entry of a leader whose clock was behind is applied at the time of the
//! entry before it, on every node alike.

use std::io;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{
    EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageError,
    StorageIOError, StoredMembership,
};

use super::snapshot::Snapshot;
use super::{Member, Outcomes, RaftEntry, Replicable, Types};
use crate::disk::SegmentDir;
use crate::files::locked;
use crate::hands::off_runtime;
use crate::news::News;
use crate::planted::{Planted, planted};
use crate::recovery::OpenError;
use crate::sync::{Mutex, RwLock};
use crate::wal::{Applied, StateMachine};

/// The state machine of a group on this node, shared with those who read it.
pub(crate) struct Machine<M>(Arc<Inner<M>>);

struct Inner<M> {
    #[cfg(feature = "testing")]
    witness: Option<Arc<dyn crate::testing::Witness>>,
    dir: Arc<dyn SegmentDir>,
    machine: RwLock<M>,
    progress: News<Progress>,
    members: Mutex<StoredMembership<u64, Member>>,
    snapshot: Mutex<Option<Snapshot>>,
    kept: News<Kept>,
    /// Held while a snapshot is written: one at a time, and never an older one over a newer.
    keeping: tokio::sync::Mutex<()>,
    /// Numbers the snapshots made here.
    made: Mutex<u64>,
}

/// What the snapshot on this disk holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The last entry in it, durably.
    pub(crate) upto: Option<u64>,
    /// Writing one has failed.
    pub(crate) failed: bool,
}

/// How far this node has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) last: Option<LogId<u64>>,
    pub(crate) log_time_ms: u64,
}

// === impl Machine ===

impl<M> Clone for Machine<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: StateMachine + Replicable> Machine<M> {
    /// The machine as the last snapshot left it, or as it is given.
    pub(crate) fn open(dir: Arc<dyn SegmentDir>, mut machine: M) -> Result<Self, OpenError> {
        let snapshot = Snapshot::read(dir.as_ref()).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => OpenError::StateDamaged { file: "snapshot" },
            _ => OpenError::Io {
                doing: "reading the snapshot",
                source,
            },
        })?;
        let (mut progress, mut members) = (Progress::default(), StoredMembership::default());
        if let Some(snapshot) = &snapshot {
            machine
                .load(&snapshot.state)
                .map_err(|_| OpenError::StateDamaged { file: "snapshot" })?;
            progress = Progress {
                last: snapshot.meta.last_log_id,
                log_time_ms: snapshot.log_time_ms,
            };
            members = snapshot.meta.last_membership.clone();
        }
        let kept = Kept {
            upto: progress.last.map(|last| last.index),
            failed: false,
        };
        Ok(Self(Arc::new(Inner {
            #[cfg(feature = "testing")]
            witness: crate::testing::witness(),
            dir,
            machine: RwLock::new(machine),
            progress: News::new(progress),
            members: Mutex::new(members),
            snapshot: Mutex::new(snapshot),
            kept: News::new(kept),
            keeping: tokio::sync::Mutex::new(()),
            made: Mutex::new(0),
        })))
    }

    /// Reads the applied state. The closure must be short: apply waits for it.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&M) -> R) -> R {
        let machine = self.0.machine.read();
        look(&machine.unwrap_or_else(PoisonError::into_inner))
    }

    /// What the snapshot on the disk holds, and news of it.
    pub(crate) fn kept(&self) -> &News<Kept> {
        &self.0.kept
    }

    /// How far it has applied, and news of it.
    pub(crate) fn progress(&self) -> &News<Progress> {
        &self.0.progress
    }

    fn apply_one(&self, machine: &mut M, at: &mut Progress, entry: RaftEntry<M>) -> Outcomes<M> {
        at.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Vec::new(),
            EntryPayload::Membership(members) => {
                let stored = StoredMembership::new(Some(entry.log_id), members);
                *locked(&self.0.members) = stored;
                Vec::new()
            }
            EntryPayload::Normal(payload) => {
                at.log_time_ms = if planted(Planted::LogTimeGoesBack) {
                    payload.log_time_ms
                } else {
                    at.log_time_ms.max(payload.log_time_ms)
                };
                let mut outcomes = Vec::with_capacity(payload.proposals.len());
                for (slot, proposal) in (0_u32..).zip(&payload.proposals) {
                    let applied = Applied {
                        term: entry.log_id.leader_id.term,
                        index: entry.log_id.index,
                        slot,
                        log_time_ms: at.log_time_ms,
                    };
                    let outcome = machine.apply(applied, proposal);
                    #[cfg(feature = "testing")]
                    if let Some(witness) = &self.0.witness {
                        let outcome = M::outcome_to_bytes(&outcome);
                        witness.applied(applied, proposal, &outcome);
                    }
                    outcomes.push((applied, outcome));
                }
                outcomes
            }
        }
    }

    /// Writes a snapshot durably, unless a newer one is there: one of the leader's may have come while
    /// this one was made here, and the log below it may be gone.
    async fn keep(&self, snapshot: Snapshot) -> io::Result<()> {
        let inner = Arc::clone(&self.0);
        let upto = snapshot.meta.last_log_id.map(|last| last.index);
        let _in_turn = self.0.keeping.lock().await;
        if self.0.kept.get().upto > upto {
            return Ok(());
        }
        let writing = move || {
            snapshot.write(inner.dir.as_ref())?;
            *locked(&inner.snapshot) = Some(snapshot);
            Ok(())
        };
        let written = off_runtime(self.0.dir.as_ref(), writing).await;
        let written = written.and_then(|written| written);
        self.0.kept.set(match written {
            Ok(()) => Kept {
                upto,
                failed: false,
            },
            Err(_) => Kept {
                failed: true,
                ..self.0.kept.get()
            },
        });
        written
    }
}

impl<M: StateMachine + Replicable> RaftStateMachine<Types<M>> for Machine<M> {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, Member>), StorageError<u64>> {
        let last = self.0.progress.get().last;
        Ok((last, locked(&self.0.members).clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcomes<M>>, StorageError<u64>>
    where
        I: IntoIterator<Item = RaftEntry<M>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut at = self.0.progress.get();
        let outcomes = {
            let machine = self.0.machine.write();
            let mut machine = machine.unwrap_or_else(PoisonError::into_inner);
            let apply = |entry| self.apply_one(&mut machine, &mut at, entry);
            let outcomes = entries.into_iter().map(apply).collect();
            // Inside the machine's lock, where a snapshot takes both.
            self.0.progress.set(at);
            outcomes
        };
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError<u64>> {
        Ok(Box::new(Bytes::new()))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, Member>,
        snapshot: Box<Bytes>,
    ) -> Result<(), StorageError<u64>> {
        let failed = |error: String| {
            let error = io::Error::other(error);
            StorageIOError::write_snapshot(Some(meta.signature()), &error)
        };
        // Log time travels in front of the state.
        let state = *snapshot;
        let (log_time_ms, state) =
            split_time(&state).ok_or_else(|| failed("it is cut short".to_owned()))?;
        {
            let machine = self.0.machine.write();
            let mut machine = machine.unwrap_or_else(PoisonError::into_inner);
            machine
                .load(&state)
                .map_err(|error| failed(error.to_string()))?;
            *locked(&self.0.members) = meta.last_membership.clone();
            self.0.progress.set(Progress {
                last: meta.last_log_id,
                log_time_ms,
            });
        }
        self.keep(Snapshot {
            meta: meta.clone(),
            log_time_ms,
            state,
        })
        .await
        .map_err(|error| failed(error.to_string()).into())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::Snapshot<Types<M>>>, StorageError<u64>> {
        let held = locked(&self.0.snapshot).clone();
        Ok(held.map(|held| openraft::Snapshot {
            snapshot: Box::new(with_time(held.log_time_ms, &held.state)),
            meta: held.meta,
        }))
    }
}

impl<M: StateMachine + Replicable> RaftSnapshotBuilder<Types<M>> for Machine<M> {
    async fn build_snapshot(&mut self) -> Result<openraft::Snapshot<Types<M>>, StorageError<u64>> {
        let (at, members, frozen) = {
            let machine = self.0.machine.read();
            let machine = machine.unwrap_or_else(PoisonError::into_inner);
            // Under the machine's lock the three belong together.
            let at = self.0.progress.get();
            (at, locked(&self.0.members).clone(), machine.freeze())
        };
        let state = off_runtime(self.0.dir.as_ref(), frozen)
            .await
            .map_err(|error| StorageIOError::write_snapshot(None, &error))?;
        let number = {
            let mut made = locked(&self.0.made);
            *made = made.saturating_add(1);
            *made
        };
        let last = at
            .last
            .map_or_else(|| "none".to_owned(), |id| id.to_string());
        let meta = SnapshotMeta {
            last_log_id: at.last,
            last_membership: members,
            snapshot_id: format!("{last}-{number}"),
        };
        let snapshot = Snapshot {
            meta: meta.clone(),
            log_time_ms: if planted(Planted::SnapshotForgetsTime) {
                0
            } else {
                at.log_time_ms
            },
            state: state.into(),
        };
        let bytes = with_time(snapshot.log_time_ms, &snapshot.state);
        self.keep(snapshot)
            .await
            .map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), &error))?;
        Ok(openraft::Snapshot {
            meta,
            snapshot: Box::new(bytes),
        })
    }
}

fn with_time(log_time_ms: u64, state: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(state.len().saturating_add(8));
    bytes.extend_from_slice(&log_time_ms.to_le_bytes());
    bytes.extend_from_slice(state);
    bytes.into()
}

fn split_time(bytes: &Bytes) -> Option<(u64, Bytes)> {
    let time = bytes.first_chunk::<8>()?;
    Some((u64::from_le_bytes(*time), bytes.slice(8..)))
}
