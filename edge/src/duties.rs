//! What an edge owes the log besides answers, and what its leader owes everybody.
//!
//! Every edge asks for its reserve while the group is healthy, and says which epoch of the ledger it
//! has met. The leader gives late approvals back after the banks' retry window, has the log hear of
//! trips that the platform closed, and ends the outages of edges that are no members any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use standin_core::clock::{Clock, Timestamp};
use standin_core::decide::Tally;
use standin_core::entry::{Entry, Grant, Reversal, ReversalCause};
use standin_core::ledger::{ClosedCursor, Ledger, LedgerError};
use standin_core::register::Register;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::advices::Advices;
use crate::breaker::Position;
use crate::log::{Log, soon};
use crate::primary::Primary;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long an entry may take to be agreed on before it is tried again.
const AGREE_WITHIN: Duration = Duration::from_secs(2);
/// How long the ledger may take to say which trips were closed.
const CLOSED_WITHIN: Duration = Duration::from_millis(500);
/// Closed trips looked at once.
const CLOSED_MAX: u32 = 200;
/// Closes of the past that a new leader tells the log again.
const CLOSED_BACK_MS: u64 = 60 * 60 * 1_000;
/// Late approvals given back at once.
const LATE_MAX: usize = 200;

/// One edge's duties.
pub struct Duties {
    /// The region's log.
    pub log: Arc<Log>,
    /// This edge's own.
    pub advices: Arc<Advices>,
    /// Where trips are closed.
    pub ledger: Arc<dyn Ledger>,
    /// Whether asking it makes sense.
    pub primary: Arc<Primary>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// What this edge may approve while it is cut off.
    pub reserve: Tally,
    /// How long a bank may ask again for a payment that it got no answer to.
    pub retry_window: Duration,
    /// The platform's closes are entries themselves: nobody has to look for them.
    pub embedded: bool,
}

// === impl Duties ===

impl Duties {
    /// Does them until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut beat = tokio::time::interval(LOOK_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closed = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = beat.tick() => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.look(&mut closed) => {}
            }
        }
    }

    async fn look(&self, closed: &mut Option<ClosedCursor>) {
        self.ask_for_reserve().await;
        self.tell_epoch().await;
        if !self.log.leads() {
            *closed = None;
            return;
        }
        self.release_late().await;
        self.end_outages_of_the_gone().await;
        if !self.embedded && self.primary.position() == Position::Closed {
            let from = closed.unwrap_or_else(|| self.closes_begin());
            match self.close_trips(from).await {
                Ok(next) => *closed = Some(next),
                Err(error) => tracing::debug!(%error, "closed trips were not looked at"),
            }
        }
    }

    async fn ask_for_reserve(&self) {
        if self.advices.granted() == Some(self.reserve) {
            return;
        }
        self.agree(&Entry::Grant(Grant {
            edge: self.log.edge(),
            incarnation: self.advices.incarnation(),
            reserve: self.reserve,
        }))
        .await;
    }

    /// The highest epoch that any edge has met is what every edge asks of its ledger.
    async fn tell_epoch(&self) {
        let (met, agreed) = (self.ledger.epoch(), self.log.read(Register::ledger_epoch));
        if agreed > met {
            self.ledger.require_epoch(agreed);
        } else if met > agreed {
            self.agree(&Entry::LedgerEpoch(met)).await;
        }
    }

    async fn release_late(&self) {
        let window_ms = u64::try_from(self.retry_window.as_millis()).unwrap_or(u64::MAX);
        // Not by this edge's clock: one that is an hour off would give back at once, or an hour late.
        let now_ms = self.log.time_ms();
        let overdue = self
            .log
            .read(|register| register.overdue(window_ms, now_ms));
        let releases = overdue.into_iter().take(LATE_MAX).map(|(id, shopper)| {
            tracing::warn!(transaction = %id, "a late approval is given back");
            Entry::Reverse(Reversal {
                // The same from every leader: given back once.
                id: Uuid::from_bytes(*id.as_bytes()),
                transaction_id: id,
                shopper: Some(shopper),
                amount: None,
                cause: ReversalCause::Late,
                booked_in: None,
            })
        });
        self.agree_on(releases.collect()).await;
    }

    async fn end_outages_of_the_gone(&self) {
        let members: BTreeSet<u64> = self.log.members().into_keys().collect();
        let cut_off = self.log.read(Register::edges_cut_off);
        let gone = cut_off.into_iter().filter(|edge| !members.contains(edge));
        let ended = gone.map(|edge| Entry::OutageEnded { edge });
        self.agree_on(ended.collect()).await;
    }

    fn closes_begin(&self) -> ClosedCursor {
        let back = i64::try_from(CLOSED_BACK_MS).unwrap_or(i64::MAX);
        let since = self.clock.now().as_millis().saturating_sub(back);
        ClosedCursor::since(Timestamp::from_millis(since))
    }

    async fn close_trips(&self, from: ClosedCursor) -> Result<ClosedCursor, LedgerError> {
        let asked = self.ledger.closed_since(Some(from), CLOSED_MAX);
        let closed = tokio::time::timeout(CLOSED_WITHIN, asked)
            .await
            .unwrap_or_else(|_| Err(LedgerError::timeout("closed trips took too long")))?;
        let Some(last) = closed.last().map(|closed| closed.cursor) else {
            return Ok(from);
        };
        let news: Vec<Entry> = self.log.read(|register| {
            closed
                .iter()
                .filter(|closed| !register.is_closed(closed.trip))
                .map(|closed| Entry::TripClosed(closed.trip))
                .collect()
        });
        // What was not agreed on is found again: the cursor does not move past it.
        Ok(if self.agree_on(news).await {
            last
        } else {
            from
        })
    }

    /// Whether all of them were.
    async fn agree_on(&self, entries: Vec<Entry>) -> bool {
        let agreed = join_all(entries.iter().map(|entry| self.agree(entry))).await;
        agreed.into_iter().all(|agreed| agreed)
    }

    async fn agree(&self, entry: &Entry) -> bool {
        let proposed = self.log.propose(entry, soon(AGREE_WITHIN)).await;
        if let Err(error) = &proposed {
            tracing::debug!(%error, ?entry, "the log has not agreed yet");
        }
        proposed.is_ok()
    }
}
