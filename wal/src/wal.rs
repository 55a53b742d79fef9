//! The handle of a log: propose, read, wait, trim, stop.

use std::fmt;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

use crate::appender::Appender;
use crate::disk::SegmentDir;
use crate::disk::real::RealDir;
use crate::files::{first_index, locked};
use crate::format::record_bytes;
use crate::recovery::{OpenError, during};
use crate::scrub::{ScrubReport, scrub};
use crate::segment::{Batch, Frame};
use crate::shared::{Pending, Phase, Position, Queue, Shared};
use crate::state::{Identity, Kind};
use crate::status::Status;
use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, RwLock};
use crate::tape::{Random, Tape};
use crate::time::TimeSource;

mod answer;
mod config;
mod read;
mod trim;

pub(crate) use answer::Answer;
pub use answer::{Applied, Committed, Fate, ProposeError, Stopped, Why};
pub use config::{Config, NodeId};
pub use read::ReadError;
pub use trim::TrimError;
#[cfg(test)]
pub(crate) use trim::trim_shared;

/// The exit code of a process whose log is poisoned.
pub const EXIT_POISONED: i32 = 74;

/// What the log applies its entries to.
pub trait StateMachine: Send + Sync + 'static {
    /// What applying a proposal says.
    type Outcome: Send + Sync + 'static;
    /// Applies one proposal. Deterministic and total: same entries, same outcomes. No clock, I/O,
    /// randomness.
    fn apply(&mut self, at: Applied, proposal: &[u8]) -> Self::Outcome;
}

/// A durable, replicated log and the state it was applied to.
///
/// Dropping it stops it as `stop` does, but blocks the dropping thread meanwhile.
pub struct Wal<M: StateMachine> {
    shared: Arc<Shared<M>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

// === impl Wal ===

impl<M: StateMachine> Wal<M> {
    /// Opens or creates the log, recovers it, applies every entry to `machine` in order, and starts
    /// the disk thread. Blocks meanwhile.
    pub fn open(config: Config, time: Box<dyn TimeSource>, machine: M) -> Result<Self, OpenError> {
        let dir = RealDir::create_as(&config.dir, config.write_mode)
            .map_err(during("creating the directory"))?;
        Self::open_on(Arc::new(dir), config, time, machine)
    }

    /// The same on another disk; `config.dir` is not looked at.
    pub fn open_on(
        dir: Arc<dyn SegmentDir>,
        config: Config,
        time: Box<dyn TimeSource>,
        machine: M,
    ) -> Result<Self, OpenError> {
        let random: Random = Box::new(|| Uuid::new_v4().as_u128());
        Self::open_with(dir, config, time, machine, random)
    }

    /// The same, with salts and the incarnation drawn from `random`.
    pub fn open_with(
        dir: Arc<dyn SegmentDir>,
        config: Config,
        time: Box<dyn TimeSource>,
        machine: M,
        random: Box<dyn FnMut() -> u128 + Send>,
    ) -> Result<Self, OpenError> {
        let appender = prepare(dir, config, time, machine, random)?;
        let shared = Arc::clone(&appender.shared);
        if shared.dir.pace().is_some() {
            // It ends when the log is closed, which dropping it does.
            drop(tokio::spawn(appender.run_here()));
            return Ok(Self {
                shared,
                thread: Mutex::new(None),
            });
        }
        let thread = thread::Builder::new()
            .name("wal-disk".to_owned())
            .spawn(move || appender.run())
            .map_err(during("starting the disk thread"))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Resolves once the proposal is durable and applied, or when `deadline` passes (then its fate
    /// is unknown). Dropping the future does not take the proposal back.
    pub async fn propose(
        &self,
        proposal: Bytes,
        deadline: tokio::time::Instant,
    ) -> Result<Committed<M::Outcome>, ProposeError> {
        let answer = self.enqueue(proposal)?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            // The disk thread went without a word: it panicked.
            Ok(Err(_gone)) => Err(ProposeError::Unknown { why: Why::Poisoned }),
            Err(_elapsed) => {
                let mut counters = locked(&self.shared.counters);
                counters.unknown_deadline = counters.unknown_deadline.saturating_add(1);
                Err(ProposeError::Unknown { why: Why::Deadline })
            }
        }
    }

    /// Reads the applied state. The closure must be short: apply waits for it.
    pub fn read<R>(&self, look: impl FnOnce(&M) -> R) -> R {
        look(
            &self
                .shared
                .machine
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Which log this is: random, made when its directory was; the drain cursor names it.
    pub fn incarnation(&self) -> Uuid {
        self.shared.identity.incarnation
    }

    /// Waits until the batch `index` is durable and applied, or the log stops.
    pub async fn wait_for(&self, index: u64) -> Result<(), Stopped> {
        let mut positions = self.shared.position.subscribe();
        let reached = |at: &Position| at.index >= index || at.phase != Phase::Running;
        match positions.wait_for(reached).await {
            Ok(at) if at.index >= index => Ok(()),
            Ok(_) | Err(_) => Err(Stopped),
        }
    }

    /// Resolves when the log is poisoned, which is when the process has to exit with
    /// `EXIT_POISONED`; never resolves otherwise.
    pub async fn poisoned(&self) {
        let mut positions = self.shared.position.subscribe();
        if positions
            .wait_for(|at| at.phase == Phase::Poisoned)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    /// Reads the closed segments again, so many bytes a second, and says what does not verify. What is
    /// found stays in [`Status::damage`]; the log goes on and nothing is cut.
    ///
    /// # Errors
    /// When the log has stopped.
    pub async fn scrub(&self, bytes_per_second: u64) -> Result<ScrubReport, Stopped> {
        if self.shared.position.borrow().phase == Phase::Stopped {
            return Err(Stopped);
        }
        Ok(scrub(&self.shared.files, bytes_per_second).await)
    }

    /// Resolves when durable bytes were found damaged; never resolves otherwise.
    pub async fn damaged(&self) {
        self.shared.is_damaged.wait_for(|damaged| *damaged).await;
    }

    /// Stops accepting, finishes what is queued, and joins the disk thread.
    pub async fn stop(&self) {
        self.shared.close();
        let mut positions = self.shared.position.subscribe();
        // The sender lives in `self`, so this cannot end any other way.
        drop(positions.wait_for(|at| at.phase != Phase::Running).await);
        self.join();
    }

    /// What the log says about itself now.
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let at = *shared.position.borrow();
        let segments = locked(&shared.segments);
        let count = u64::try_from(segments.len()).unwrap_or(u64::MAX);
        let first = first_index(&segments);
        drop(segments);
        let queued = u64::try_from(locked(&shared.queue).items.len()).unwrap_or(u64::MAX);
        let bytes_used = shared.bytes_used();
        Status {
            incarnation: shared.identity.incarnation,
            node: shared.identity.node,
            group: shared.identity.group.clone(),
            term: at.term,
            members: vec![shared.identity.node],
            first_index: first,
            last_index: at.index,
            applied_index: at.index,
            trim_index: shared.trim_index.load(Ordering::Relaxed),
            segments: count,
            bytes_used,
            budget_bytes: shared.config.budget_bytes,
            spares: shared.spares_ready(),
            write_mode: shared.dir.write_mode(),
            queued,
            poisoned: at.phase == Phase::Poisoned,
            damage: locked(&shared.damage).clone(),
            torn_tails_cut: shared.torn_tails_cut,
            log_time_ms: at.log_time_ms,
            counters: locked(&shared.counters).clone(),
        }
    }

    fn enqueue(
        &self,
        proposal: Bytes,
    ) -> Result<oneshot::Receiver<Answer<M::Outcome>>, ProposeError> {
        let config = &self.shared.config;
        let bytes = proposal.len();
        if record_bytes(bytes) > config.batch_bytes_max {
            return Err(ProposeError::TooLarge);
        }
        let (done, answer) = oneshot::channel();
        let queued_us = self.shared.time.monotonic_us();
        if self.shared.is_stalled(queued_us) {
            tracing::error!("the disk holds a write for too long; the log is poisoned");
            self.shared.poison();
        }
        let mut queue = locked(&self.shared.queue);
        if let Some(why) = queue.closed {
            return Err(ProposeError::Unknown { why });
        }
        let after = queue.bytes.saturating_add(bytes);
        if queue.items.len() >= config.queue_proposals_max || after > config.queue_bytes_max {
            drop(queue);
            let mut counters = locked(&self.shared.counters);
            counters.refused_busy = counters.refused_busy.saturating_add(1);
            return Err(ProposeError::Busy);
        }
        queue.bytes = after;
        queue.items.push_back(Pending {
            proposal,
            done,
            queued_us,
        });
        let wake = std::mem::take(&mut queue.idle);
        drop(queue);
        if wake {
            self.shared.wake();
        }
        Ok(answer)
    }

    /// Waits for the disk thread, which has ended or is about to.
    fn join(&self) {
        if let Some(thread) = locked(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the log's disk thread panicked");
        }
    }
}

impl<M: StateMachine> fmt::Debug for Wal<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            group,
            node,
            incarnation,
            kind: _,
        } = &self.shared.identity;
        write!(f, "Wal({group}/{node}, {incarnation})")
    }
}

impl<M: StateMachine> Drop for Wal<M> {
    fn drop(&mut self) {
        self.shared.close();
        self.join();
    }
}

/// Recovers the log and makes everything but the thread.
pub(crate) fn prepare<M: StateMachine>(
    dir: Arc<dyn SegmentDir>,
    config: Config,
    time: Box<dyn TimeSource>,
    mut machine: M,
    random: Random,
) -> Result<Appender<M>, OpenError> {
    let mut apply = |frame| {
        if let Frame::Entry { entry, .. } = frame {
            apply_batch(&mut machine, &entry.into());
        }
    };
    let (tape, end) = Tape::open(dir, config, time, random, Kind::Local, &mut apply)?;
    let position = Position {
        index: end.next_index.saturating_sub(1),
        term: end.term.max(1),
        log_time_ms: end.log_time_ms,
        phase: Phase::Running,
    };
    let queue = Queue {
        items: Default::default(),
        bytes: 0,
        closed: None,
        idle: false,
    };
    let shared = Arc::new(Shared {
        files: Arc::clone(&tape.files),
        queue: Mutex::new(queue),
        ready: Condvar::new(),
        ready_here: Notify::new(),
        machine: RwLock::new(machine),
        position: watch::Sender::new(position),
    });
    Ok(Appender::new(shared, tape, end.log_time_ms))
}

fn apply_batch<M: StateMachine>(machine: &mut M, batch: &Batch) {
    let Batch {
        term,
        index,
        log_time_ms,
        ref proposals,
    } = *batch;
    for (slot, proposal) in (0_u32..).zip(proposals) {
        machine.apply(
            Applied {
                term,
                index,
                slot,
                log_time_ms,
            },
            proposal,
        );
    }
}
