//! What the log knows of trips: the cap of the highest version, every approval, every reversal.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::entry::Proposal;
use crate::id::{ShopperId, TransactionId, TripId};
use crate::identity;
use crate::planted::{Planted, planted};
use crate::trip::{Approval, Trip, TripStatus};

/// Every trip that is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Trips {
    trips: HashMap<TripId, TripRecord>,
    /// Closed trips in log order, for forgetting them.
    closed: VecDeque<(u64, TripId)>,
    /// The latest trip known of each shopper.
    latest: HashMap<ShopperId, TripId>,
}

/// What is remembered of one trip.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TripRecord {
    /// Unknown while the log has only heard of its close.
    shopper: Option<ShopperId>,
    version: u64,
    pub(super) cap: i64,
    /// By transaction id, in order. There are few, and a map would take many times their bytes.
    approvals: Vec<Approval>,
    /// What came back of a payment, by reversal.
    reversed: BTreeMap<TransactionId, BTreeMap<Uuid, i64>>,
    pub(super) closed: bool,
    /// Log time of the last payment.
    touched_ms: u64,
}

/// Everything, for a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedTrips {
    trips: Vec<(TripId, TripRecord)>,
    closed: Vec<(u64, TripId)>,
    latest: Vec<(ShopperId, TripId)>,
}

// === impl Trips ===

impl Trips {
    pub(super) fn get(&self, id: TripId) -> Option<&TripRecord> {
        self.trips.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: TripId) -> Option<&mut TripRecord> {
        self.trips.get_mut(&id)
    }

    pub(super) fn latest(&self, shopper: ShopperId) -> Option<TripId> {
        self.latest.get(&shopper).copied()
    }

    /// Learns what an entry saw of its trip.
    pub(super) fn see(
        &mut self,
        proposal: &Proposal,
        trip: &Trip,
        log_time_ms: u64,
    ) -> &mut TripRecord {
        self.latest.insert(trip.shopper, trip.id);
        let record = self.trips.entry(trip.id).or_default();
        record.shopper = Some(trip.shopper);
        if let Some(cap) = proposal.cap.filter(|_| trip.version >= record.version) {
            record.version = trip.version;
            record.cap = cap;
        }
        if trip.status != TripStatus::Shopping && !record.closed {
            record.closed = true;
            self.closed.push_back((log_time_ms, trip.id));
        }
        record.touched_ms = log_time_ms;
        for seen in &proposal.seen {
            if let Err(place) = record.find(seen.transaction_id) {
                record.approvals.insert(place, *seen);
            }
        }
        record
    }

    pub(super) fn close(&mut self, trip: TripId, log_time_ms: u64) {
        if planted(Planted::CloseIgnored) {
            return;
        }
        // A close may come before any payment: it is kept, so that none is approved after it.
        let record = self.trips.entry(trip).or_default();
        if !record.closed {
            record.closed = true;
            self.closed.push_back((log_time_ms, trip));
        }
    }

    /// Forgets trips that were closed before `before_ms`.
    pub(super) fn forget_closed(&mut self, before_ms: u64) {
        while let Some((closed_ms, id)) = self.closed.front().copied() {
            if closed_ms >= before_ms {
                break;
            }
            self.closed.pop_front();
            self.remove(id);
        }
    }

    /// A trip that never closes goes with the last answer that names it.
    pub(super) fn forget_idle(&mut self, id: TripId, before_ms: u64) {
        let idle = self
            .trips
            .get(&id)
            .is_some_and(|trip| !trip.closed && trip.touched_ms < before_ms);
        if idle {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: TripId) {
        let shopper = self.trips.remove(&id).and_then(|trip| trip.shopper);
        if let Some(shopper) = shopper.filter(|shopper| self.latest.get(shopper) == Some(&id)) {
            self.latest.remove(&shopper);
        }
    }

    pub(super) fn save(&self) -> SavedTrips {
        let mut trips: Vec<_> = self
            .trips
            .iter()
            .map(|(id, trip)| (*id, trip.clone()))
            .collect();
        trips.sort_unstable_by_key(|(id, _)| *id);
        let mut latest: Vec<_> = self
            .latest
            .iter()
            .map(|(shopper, trip)| (*shopper, *trip))
            .collect();
        latest.sort_unstable();
        SavedTrips {
            trips,
            closed: self.closed.iter().copied().collect(),
            latest,
        }
    }

    pub(super) fn load(saved: SavedTrips) -> Self {
        Self {
            trips: saved.trips.into_iter().collect(),
            closed: saved.closed.into(),
            latest: saved.latest.into_iter().collect(),
        }
    }
}

// === impl TripRecord ===

impl TripRecord {
    /// Whether the same amount was approved moments ago under another key. The rules looked already;
    /// two that were decided at the same time meet here.
    pub(super) fn is_double_swipe(&self, proposal: &Proposal, log_time_ms: u64) -> bool {
        if proposal.request.particulars.adds_to.is_some() {
            // It says itself which payment it is like, and that it is another.
            return false;
        }
        let now = i64::try_from(log_time_ms).unwrap_or(i64::MAX);
        self.approvals.iter().any(|approval| {
            approval.transaction_id != proposal.transaction_id
                && approval.amount == proposal.amount().minor()
                && !self.reversed.contains_key(&approval.transaction_id)
                && now.abs_diff(approval.at.as_millis()) < proposal.swipe_window_ms
        })
    }

    /// Sum of the trip's approvals but one; saturates, which only ever declines more.
    pub(super) fn sum_without(&self, id: TransactionId) -> i64 {
        self.approvals
            .iter()
            .filter(|approval| approval.transaction_id != id)
            .fold(0, |sum, approval| {
                sum.saturating_add(self.left_of(approval))
            })
    }

    /// Every approval, with what is left of it. One that came back whole stays, as nothing, so that
    /// a cache that has not heard of it does not count it either.
    pub(super) fn approvals(&self) -> Vec<Approval> {
        let left = |approval: &Approval| Approval {
            amount: self.left_of(approval),
            ..*approval
        };
        self.approvals.iter().map(left).collect()
    }

    pub(super) fn approve(&mut self, approval: Approval) {
        match self.find(approval.transaction_id) {
            Ok(place) => {
                if let Some(known) = self.approvals.get_mut(place) {
                    *known = approval;
                }
            }
            Err(place) => self.approvals.insert(place, approval),
        }
    }

    /// Takes back `amount` of a payment, or all that is left; gives what came back. The same reversal
    /// again changes nothing and gives the same.
    pub(super) fn reverse(&mut self, payment: &Approval, id: Uuid, amount: Option<i64>) -> i64 {
        let left = self.left_of(payment);
        let reversals = self.reversed.entry(payment.transaction_id).or_default();
        let back = amount.map_or(left, |amount| amount.clamp(0, left));
        *reversals.entry(id).or_insert(back)
    }

    /// Whether a reversal under the same key of the bank said something else.
    pub(super) fn has_other_reversal(&self, payment: TransactionId, id: Uuid) -> bool {
        let reversals = self.reversed.get(&payment).into_iter().flatten();
        let mut ids = reversals.map(|(known, _)| *known);
        ids.any(|known| known != id && identity::same_reversal_key(known, id))
    }

    /// What a reversal took back.
    pub(super) fn reversal(&self, payment: TransactionId, id: Uuid) -> Option<i64> {
        self.reversed.get(&payment)?.get(&id).copied()
    }

    /// What was taken back counts again.
    pub(super) fn restore(&mut self, payment: TransactionId) {
        self.reversed.remove(&payment);
    }

    /// Where an approval is, or would be.
    fn find(&self, id: TransactionId) -> Result<usize, usize> {
        self.approvals
            .binary_search_by_key(&id, |approval| approval.transaction_id)
    }

    fn left_of(&self, approval: &Approval) -> i64 {
        let reversed = self.reversed.get(&approval.transaction_id);
        let back = reversed.map_or(0, |by| {
            by.values()
                .fold(0_i64, |sum, back| sum.saturating_add(*back))
        });
        approval.amount.saturating_sub(back).max(0)
    }
}
