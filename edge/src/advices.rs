//! What this edge said without the region's log: kept durably on its own disk, told to the log later.
//!
//! An answer on `primary_only` or `isolated`, a payment whose fate this edge does not know (a late
//! mark), a stored answer told again while the log could not be asked: each is durable here before
//! the bank hears of it. They are carried to the log in the order in which they were made, each until
//! the log has it; carrying one twice changes nothing there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use standin_core::answer::{Answer, Rung, Verdict};
use standin_core::decide::{FloorLimits, Tally};
use standin_core::entry::{Advice, Entry};
use standin_core::id::{Fingerprint, ShopperId, TransactionId};
use standin_wal::{Applied, ProposeError, StateMachine, Wal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::log::{Log, soon};

/// How long one advice may take to reach the log before it is tried again.
const CARRY_WITHIN: Duration = Duration::from_secs(2);
/// Rest after a try that failed.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Bytes of advices read at once.
const READ_BYTES: usize = 256 * 1024;
/// Shoppers remembered for the floor limit's window; past it no more are approved.
const SHOPPERS_MAX: usize = 100_000;
/// A window is not longer; whoever was approved before is forgotten when there are too many.
const WINDOW_MAX_MS: u64 = 24 * 60 * 60 * 1_000;

/// This edge's own log.
pub struct Advices {
    kept: Wal<Kept>,
    log: Arc<Log>,
    /// Of this start of the edge; the reserve was granted to it.
    incarnation: Uuid,
}

/// What is written to it.
#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// An entry for the region's log, as its bytes, made by this start of the edge.
    Told { incarnation: Uuid, entry: Vec<u8> },
    /// The region's log has everything up to this batch.
    Carried(u64),
}

/// What follows from it.
#[derive(Debug, Default)]
pub struct Kept {
    /// Answers given that the region's log may not have yet.
    answers: HashMap<TransactionId, (u64, Box<Answer>)>,
    /// The last start of the edge that told something, and what it approved on `isolated`.
    spent: (Uuid, Tally),
    /// When each shopper was last approved on `isolated`, by the edge's clock.
    floor: HashMap<ShopperId, u64>,
    carried: u64,
    /// Payments marked late, and in which batch, that the region's log may not know of yet.
    marked: HashMap<TransactionId, u64>,
    /// Batches of what waits to be carried, one for each.
    waiting: VecDeque<u64>,
}

/// The payment's id belongs to a request that said something else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the id was used for a request that said something else")]
pub struct OtherFingerprint;

/// Why an isolated approval is not given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoReserve {
    /// The log has granted this start of the edge nothing.
    #[error("nothing was granted to this edge")]
    NotGranted,
    /// The grant is spent, or the shopper's window has not passed.
    #[error("the edge's reserve is spent, or the shopper was approved moments ago")]
    Spent,
}

// === impl Kept ===

impl StateMachine for Kept {
    type Outcome = ();

    fn apply(&mut self, at: Applied, proposal: &[u8]) {
        let Ok(record) = postcard::from_bytes::<Record>(proposal) else {
            tracing::error!(index = at.index, "an advice is unreadable");
            return;
        };
        match record {
            Record::Told { incarnation, entry } => {
                self.waiting.push_back(at.index);
                if self.spent.0 != incarnation {
                    self.spent = (incarnation, Tally::default());
                }
                match Entry::decode(&entry) {
                    Ok(Entry::Advice(advice)) => self.tell(at.index, &advice),
                    Ok(Entry::Late(mark)) => {
                        self.marked.insert(mark.transaction_id, at.index);
                    }
                    Ok(_) | Err(_) => {}
                }
            }
            Record::Carried(index) => {
                self.carried = self.carried.max(index);
                self.answers.retain(|_, (told, _)| *told > index);
                self.marked.retain(|_, marked| *marked > index);
                while self.waiting.front().is_some_and(|told| *told <= index) {
                    self.waiting.pop_front();
                }
            }
        }
    }
}

impl Kept {
    fn tell(&mut self, index: u64, advice: &Advice) {
        let answer = &advice.answer;
        if answer.rung == Rung::Isolated && answer.verdict == Verdict::Approved {
            let spent = &mut self.spent.1;
            spent.amount = spent.amount.saturating_add(answer.amount.minor());
            spent.count = spent.count.saturating_add(1);
            let given_ms = u64::try_from(advice.given_at.as_millis()).unwrap_or(0);
            if self.floor.len() >= SHOPPERS_MAX {
                let horizon = given_ms.saturating_sub(WINDOW_MAX_MS);
                self.floor.retain(|_, last| *last >= horizon);
            }
            self.floor.insert(answer.shopper, given_ms);
        }
        let kept = (index, Box::new(answer.clone()));
        self.answers.insert(answer.transaction_id, kept);
    }

    fn spent_by(&self, incarnation: Uuid) -> Tally {
        let (start, spent) = self.spent;
        if start == incarnation {
            spent
        } else {
            Tally::default()
        }
    }
}

// === impl Advices ===

impl Advices {
    /// Around this edge's own log.
    pub fn new(kept: Wal<Kept>, log: Arc<Log>, incarnation: Uuid) -> Self {
        Self {
            kept,
            log,
            incarnation,
        }
    }

    /// Which start of the edge this is.
    pub fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    /// The same, as proposals name it.
    pub fn start(&self) -> u64 {
        let (high, low) = self.incarnation.as_u64_pair();
        high ^ low
    }

    /// The answer this edge gave a payment, as long as the log may not have it.
    ///
    /// # Errors
    /// When it gave one to a request that said something else.
    pub fn recall(
        &self,
        id: TransactionId,
        fingerprint: &Fingerprint,
    ) -> Result<Option<Box<Answer>>, OtherFingerprint> {
        let given = |kept: &Kept| kept.answers.get(&id).map(|(_, answer)| answer.clone());
        match self.kept.read(given) {
            Some(answer) if answer.fingerprint != *fingerprint => Err(OtherFingerprint),
            given => Ok(given),
        }
    }

    /// Whether an answer to this payment is kept here, which the log has not heard of.
    pub fn keeps(&self, id: TransactionId) -> bool {
        self.kept.read(|kept| kept.answers.contains_key(&id))
    }

    /// Whether a late mark of this payment is kept here.
    pub fn has_marked(&self, id: TransactionId) -> bool {
        self.kept.read(|kept| kept.marked.contains_key(&id))
    }

    /// What of its grant this start of the edge has spent.
    pub fn spent(&self) -> Tally {
        self.kept.read(|kept| kept.spent_by(self.incarnation))
    }

    /// What this start of the edge may spend; `None`: nothing was granted to it.
    pub fn granted(&self) -> Option<Tally> {
        let edge = self.log.edge();
        self.log
            .read(|register| register.granted(edge, self.incarnation))
    }

    /// Whether an approval of `amount` fits what this edge may give on its own.
    ///
    /// # Errors
    /// Why it does not.
    pub fn fits(
        &self,
        shopper: ShopperId,
        amount: i64,
        limits: &FloorLimits,
        now_ms: u64,
    ) -> Result<(), NoReserve> {
        let granted = self.granted().ok_or(NoReserve::NotGranted)?;
        let fits = self.kept.read(|kept| {
            let spent = kept.spent_by(self.incarnation);
            let last = kept.floor.get(&shopper);
            let window = last.is_none_or(|last| now_ms.saturating_sub(*last) >= limits.window_ms);
            let sum = spent.amount.checked_add(amount);
            amount <= limits.floor
                && window
                && kept.floor.len() < SHOPPERS_MAX
                && sum.is_some_and(|sum| sum <= granted.amount)
                && spent.count < granted.count
        });
        if fits { Ok(()) } else { Err(NoReserve::Spent) }
    }

    /// Makes an entry for the region's log durable here.
    ///
    /// # Errors
    /// When it is not, or not in time.
    pub async fn keep(&self, entry: &Entry, deadline: Instant) -> Result<(), KeepError> {
        let entry = entry
            .encode()
            .map_err(|error| KeepError::Encode(error.to_string()))?;
        let record = Record::Told {
            incarnation: self.incarnation,
            entry,
        };
        self.write(&record, deadline).await
    }

    /// Advices that the region's log may not have.
    pub fn waiting(&self) -> u64 {
        let waiting = self.kept.read(|kept| kept.waiting.len());
        u64::try_from(waiting).unwrap_or(u64::MAX)
    }

    /// The advice that has waited longest, by its place in this edge's own log.
    pub fn oldest_waiting(&self) -> Option<u64> {
        self.kept.read(|kept| kept.waiting.front().copied())
    }

    /// Carries what is kept to the region's log until `stop` is cancelled.
    pub async fn carry(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let next = self.kept.read(|kept| kept.carried).saturating_add(1);
            let carried = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                carried = self.carry_from(next) => carried,
            };
            if let Err(error) = carried {
                tracing::debug!(%error, "advices wait");
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(AGAIN_AFTER) => {}
                }
            }
        }
    }

    async fn carry_from(&self, from: u64) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let waited = self.kept.wait_for(from).await;
        waited.map_err(|error| text(&error))?;
        let batches = self.kept.read_batches(from, READ_BYTES).await;
        let batches = batches.map_err(|error| text(&error))?;
        let Some(last) = batches.last().map(|batch| batch.index) else {
            return Ok(());
        };
        let mut told = None;
        for proposal in batches.iter().flat_map(|batch| &batch.proposals) {
            let Ok(Record::Told { entry, .. }) = postcard::from_bytes(proposal) else {
                continue;
            };
            let entry = Entry::decode(&entry).map_err(|error| text(&error))?;
            let deadline = soon(CARRY_WITHIN);
            let taken = self.log.commit(&entry, deadline).await;
            let taken = taken.map_err(|error| text(&error))?;
            told = told.max(Some(taken.applied().index));
        }
        // Its own word that it was carried needs no word.
        if let Some(told) = told {
            // What is forgotten here has to be known from the region's log.
            let here = tokio::time::timeout(CARRY_WITHIN, self.log.wait_for(told)).await;
            let here = here.map_err(|error| text(&error))?;
            here.map_err(|error| text(&error))?;
            let carried = self.write(&Record::Carried(last), soon(CARRY_WITHIN)).await;
            carried.map_err(|error| text(&error))?;
            let trimmed = self.kept.trim(last.saturating_add(1)).await;
            trimmed.map_err(|error| text(&error))?;
        } else {
            let next = last.saturating_add(1);
            let more = self.kept.wait_for(next).await;
            more.map_err(|error| text(&error))?;
        }
        Ok(())
    }

    /// Resolves when this edge's own log failed.
    pub async fn poisoned(&self) {
        self.kept.poisoned().await;
    }

    /// Whether it has.
    pub fn is_poisoned(&self) -> bool {
        self.kept.status().poisoned
    }

    /// Stops.
    pub async fn stop(&self) {
        self.kept.stop().await;
    }

    async fn write(&self, record: &Record, deadline: Instant) -> Result<(), KeepError> {
        let bytes =
            postcard::to_stdvec(record).map_err(|error| KeepError::Encode(error.to_string()))?;
        self.kept.propose(Bytes::from(bytes), deadline).await?;
        Ok(())
    }
}

/// Why something is not durable here.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It could not be made into bytes.
    #[error("it does not encode: {0}")]
    Encode(String),
    /// The edge's own log did not take it, or not in time.
    #[error(transparent)]
    Wal(#[from] ProposeError),
}
