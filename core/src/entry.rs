//! What an edge proposes to its log, and the one byte form it has there.
//!
//! An entry is a schema number (two bytes, little-endian) and a postcard body. An unknown schema is
//! refused, never skipped. (Schema 1 stood in logs of one keeper only, which no build that writes
//! schema 2 opens.)
//!
//! Postcard cannot skip a field that is not there, so an entry that says no more than schema 2 can is
//! written in schema 2, which the build before this one reads. Whatever is newer makes it schema 3: first
//! what the payment's format said more, then the body of schema 2.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::answer::{Answer, Code, Reason, Rung, UnknownWord, Verdict, Why};
use crate::authorization::{Authorization, Particulars};
use crate::clock::Timestamp;
use crate::decide::{Limits, Tally};
use crate::id::{BankId, Fingerprint, OrderId, ShopperId, StoreId, TransactionId, TripId};
use crate::ledger::Card;
use crate::merchant::{MerchantId, MerchantKey, Store};
use crate::money::{Currency, Money};
use crate::trip::{Approval, Order, Trip, TripEvent};

/// The newest schema, which this build writes where it must.
pub const SCHEMA: u16 = 3;
/// The schema before it.
const SCHEMA_BEFORE: u16 = 2;

/// One proposal to the log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// An answer to an authorization; applying it makes it final, or says which one is.
    Authorize(Box<Proposal>),
    /// The trip takes no more approvals.
    TripClosed(TripId),
    /// An edge lost the primary. An outage of the region lasts while any edge has.
    OutageStarted {
        /// The edge.
        edge: u64,
        /// By what.
        why: Why,
    },
    /// The edge has the primary again.
    OutageEnded {
        /// The edge.
        edge: u64,
    },
    /// A hold without an outcome: the payment may never be answered from now on.
    Tombstone(TransactionId),
    /// Every batch up to this one is in the ledger: answers may be forgotten once their window passed.
    Drained(u64),
    /// We failed after the commit: the payment's answer is a 500 until an operator clears it.
    Faulted(TransactionId),
    /// An operator did something.
    Operator(OperatorAction),
    /// The platform did something (embedded mode, where the log is also the ledger's journal).
    Platform(PlatformEvent),
    /// An answer that was given without the log: it is always taken.
    Advice(Box<Advice>),
    /// An edge does not know what became of its own proposal and told the bank so.
    Late(LateMark),
    /// The bank is about to be told this answer again: from now on it stands, whatever an edge
    /// marks late. The outcome says whether it may be told.
    Heard(TransactionId),
    /// The bank was told this answer again while the log could not be asked.
    Told(TransactionId),
    /// Money comes back to the trip.
    Reverse(Reversal),
    /// What an edge may approve while it is cut off from everything.
    Grant(Grant),
    /// The group has come to be; the first one counts. A drain cursor goes by this name.
    Founded(Uuid),
    /// The highest epoch of the ledger that an edge has met.
    LedgerEpoch(u64),
    /// Money moved: it is always recorded.
    Settled(Box<Settlement>),
}

/// Money that moved, by the bank's word: kept for matching, decided by nobody.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settlement {
    /// Of the bank and its own key: makes booking it twice harmless.
    pub id: Uuid,
    /// Who says so.
    pub bank: BankId,
    /// What kind of movement.
    pub kind: SettlementKind,
    /// The payment, where the bank names one.
    pub transaction_id: Option<TransactionId>,
    /// Whose card, where the bank says.
    pub shopper: Option<ShopperId>,
    /// How much; may be more than was approved.
    pub amount: Money,
    /// When the edge heard of it.
    pub at: Timestamp,
}

/// How money moved.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettlementKind {
    /// What was approved was charged, whole, in part or more.
    Capture,
    /// It was charged without an approval of ours.
    ForcePost,
    /// It went back to the card.
    Refund,
}

/// An answer that an edge gave without the log's commit, on `primary_only` or `isolated`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Advice {
    /// What was proposed.
    pub proposal: Proposal,
    /// What the bank was told.
    pub answer: Answer,
    /// When, by the edge's clock.
    pub given_at: Timestamp,
}

/// A payment that an edge proposed, and whose fate it did not learn in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LateMark {
    /// The payment.
    pub transaction_id: TransactionId,
    /// The edge; the mark says nothing of what others proposed.
    pub edge: u64,
}

/// Money that comes back to the trip.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reversal {
    /// Makes reversing twice harmless.
    pub id: Uuid,
    /// The payment.
    pub transaction_id: TransactionId,
    /// Whose card, where it is known.
    pub shopper: Option<ShopperId>,
    /// Minor units; `None`: all that is left.
    pub amount: Option<i64>,
    /// On whose word.
    pub cause: ReversalCause,
    /// The log has forgotten the payment; the ledger has its approval, in this currency. Then
    /// `amount` says how much comes back.
    #[serde(skip)]
    pub booked_in: Option<Currency>,
}

/// On whose word money comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReversalCause {
    /// The bank's.
    Bank,
    /// Ours: the approval came too late to be told, and the bank did not ask again.
    Late,
    /// The bank's: it had stopped waiting for our approval, or did not heed it.
    Unheeded,
}

/// What an edge may approve while it is cut off from Postgres and the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// The edge.
    pub edge: u64,
    /// Of which start of it: what another start has left is void.
    pub incarnation: Uuid,
    /// How much, and how often.
    pub reserve: Tally,
}

/// The answer an edge proposes, and everything that applying and booking it needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// The edge that proposes.
    pub edge: u64,
    /// Which start of it: another one does not know what this one told.
    pub start: u64,
    /// What the bank asked.
    pub request: Authorization,
    /// Identity of the payment.
    pub transaction_id: TransactionId,
    /// Of the bank's semantic fields.
    pub fingerprint: Fingerprint,
    /// The code the answer carries if it approves.
    pub code: Code,
    /// What the rules (and the primary) said.
    pub reason: Reason,
    /// How it was reached.
    pub rung: Rung,
    /// Why not on the primary.
    pub why: Option<Why>,
    /// The trip it was decided from.
    pub trip: Option<Trip>,
    /// How old the cached trip was.
    pub trip_age_ms: Option<u64>,
    /// The store the merchant was resolved to.
    pub store: Option<StoreId>,
    /// The trip's cap at the trip's version.
    pub cap: Option<i64>,
    /// Sum of the trip's approvals that the decision saw.
    pub approved_before: i64,
    /// Limits to enforce again in log order.
    pub limits: Limits,
    /// The trip's approvals that the entry saw in the cache or the ledger.
    pub seen: Vec<Approval>,
    /// Version of the policy it was decided by.
    pub policy_version: u32,
    /// Time in which the same amount on the same trip under another key is a double swipe.
    pub swipe_window_ms: u64,
    /// What the other rules (stand-in on rung `primary`, primary on `stand_in`) said.
    pub shadow: Option<Reason>,
    /// Minor units approved where they are less than was asked for, which the bank said it takes.
    #[serde(skip)]
    pub approved: Option<i64>,
}

/// Something an operator ordered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperatorAction {
    /// Makes booking it twice harmless.
    pub id: Uuid,
    /// Who.
    pub operator: String,
    /// Why.
    pub reason: String,
    /// When, by the edge's clock.
    pub at: Timestamp,
    /// What.
    pub what: OperatorOrder,
}

/// What an operator can order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OperatorOrder {
    /// Stand-in by the breaker, always, or never.
    StandIn(StandInMode),
    /// The stored 500 of a payment gives way to the answer that was committed.
    ClearAnswer(TransactionId),
    /// A payment that has a hold and no outcome is never answered: its hold may be released.
    Tombstone(TransactionId),
    /// An edge becomes a keeper of the log.
    AddKeeper {
        /// Its number.
        node: u64,
        /// Whether it was done without the primary.
        forced: bool,
    },
    /// A keeper leaves the log.
    RemoveKeeper {
        /// Its number.
        node: u64,
        /// Whether it was done without the primary.
        forced: bool,
    },
    /// Stand-in always or never, for so long of log time; then by the breaker again.
    StandInFor {
        /// Which.
        mode: StandInMode,
        /// Milliseconds.
        for_ms: u64,
    },
    /// The time of an order is over: it ends, unless another was given since.
    StandInOver {
        /// Log time at which it was to end, which names the order.
        until_ms: u64,
    },
    /// Another version of the policy is in force.
    Policy {
        /// Which.
        version: u32,
        /// The one before; 0 where an edge does not know.
        replaces: u32,
    },
}

/// Who decides whether to stand in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandInMode {
    /// The breaker and each request's budget.
    Auto,
    /// Always: the primary is not asked.
    Force,
    /// Never: without the primary there is no answer.
    Forbid,
}

/// A change of the platform's tables, as the embedded ledger journals it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum PlatformEvent {
    /// A store was added or changed.
    StorePut(Store),
    /// An order was placed.
    OrderPlaced(Order),
    /// An order was claimed.
    OrderClaimed {
        /// The order.
        order: OrderId,
        /// By whom.
        shopper: ShopperId,
    },
    /// A trip was started.
    TripStarted {
        /// Its id.
        trip: TripId,
        /// Whose.
        shopper: ShopperId,
        /// With which orders.
        orders: Vec<OrderId>,
        /// When.
        at: Timestamp,
    },
    /// Something happened on a trip.
    TripChanged(TripEvent),
    /// A trip was completed.
    TripCompleted {
        /// The trip.
        trip: TripId,
        /// Whose.
        shopper: ShopperId,
    },
    /// A card was given to a shopper, or taken from whoever had it.
    CardSet {
        /// The card.
        card: Card,
        /// Who carries it now.
        shopper: Option<ShopperId>,
    },
    /// It was said what a network calls a store.
    MerchantIdPut(MerchantId),
    /// It was forgotten what a network calls a store.
    MerchantIdRemoved(MerchantKey),
}

/// One entry's outcome with everything the ledger books of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Booking {
    /// The final answer.
    pub answer: Answer,
    /// What was proposed.
    pub proposal: Proposal,
    /// Where in the log.
    pub at: LogPosition,
    /// Log time of the entry, milliseconds since the epoch.
    pub log_time_ms: u64,
}

/// A place in a region's log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LogPosition {
    /// Index of the batch, from 1.
    pub index: u64,
    /// Place in the batch.
    pub slot: u32,
}

/// What schema 3 puts before the body of schema 2: the fields that this has no place for.
#[derive(PartialEq, Default, Serialize, Deserialize)]
struct Beyond {
    particulars: Particulars,
    approved: Option<i64>,
    booked_in: Option<Currency>,
}

/// Why bytes are not an entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Too short to hold a schema number.
    #[error("an entry of {0} bytes has no schema number")]
    Short(usize),
    /// Written by a newer build.
    #[error("entry schema {0} is not known to this build (it reads {SCHEMA})")]
    Schema(u16),
    /// The body does not decode.
    #[error("entry does not decode: {0}")]
    Body(#[from] postcard::Error),
}

// === impl Entry ===

impl Entry {
    /// The bytes for the log.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let beyond = Beyond::of(self);
        if beyond == Beyond::default() && self.is_of_schema_before() {
            let head = SCHEMA_BEFORE.to_le_bytes().to_vec();
            return Ok(postcard::to_extend(self, head)?);
        }
        let head = SCHEMA.to_le_bytes().to_vec();
        let head = postcard::to_extend(&beyond, head)?;
        Ok(postcard::to_extend(self, head)?)
    }

    /// Reads an entry back.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let Some((head, body)) = bytes.split_first_chunk::<2>() else {
            return Err(EntryError::Short(bytes.len()));
        };
        match u16::from_le_bytes(*head) {
            SCHEMA_BEFORE => Ok(postcard::from_bytes(body)?),
            SCHEMA => {
                let (beyond, body) = postcard::take_from_bytes::<Beyond>(body)?;
                let mut entry: Self = postcard::from_bytes(body)?;
                if let Some(proposal) = entry.proposal_mut() {
                    proposal.request.particulars = beyond.particulars;
                    proposal.approved = beyond.approved;
                } else if let Self::Reverse(reversal) = &mut entry {
                    reversal.booked_in = beyond.booked_in;
                }
                Ok(entry)
            }
            other => Err(EntryError::Schema(other)),
        }
    }

    /// The proposal in it, if it is about one.
    pub fn proposal(&self) -> Option<&Proposal> {
        match self {
            Self::Authorize(proposal) => Some(proposal),
            Self::Advice(advice) => Some(&advice.proposal),
            _ => None,
        }
    }

    fn proposal_mut(&mut self) -> Option<&mut Proposal> {
        match self {
            Self::Authorize(proposal) => Some(proposal),
            Self::Advice(advice) => Some(&mut advice.proposal),
            _ => None,
        }
    }

    /// Whether the build before this one knows every word in it.
    fn is_of_schema_before(&self) -> bool {
        let known =
            |reason: Reason| !matches!(reason, Reason::UnknownCard | Reason::ApprovedByBank);
        match self {
            Self::Authorize(proposal) => known(proposal.reason),
            Self::Advice(advice) => known(advice.answer.reason),
            Self::Platform(
                PlatformEvent::CardSet { .. }
                | PlatformEvent::MerchantIdPut(_)
                | PlatformEvent::MerchantIdRemoved(_),
            ) => false,
            Self::Settled(_) => false,
            Self::Reverse(reversal) => reversal.cause != ReversalCause::Unheeded,
            Self::Operator(action) => !matches!(
                action.what,
                OperatorOrder::StandInFor { .. }
                    | OperatorOrder::StandInOver { .. }
                    | OperatorOrder::Policy { .. }
            ),
            _ => true,
        }
    }
}

// === impl Beyond ===

impl Beyond {
    fn of(entry: &Entry) -> Self {
        if let Entry::Reverse(reversal) = entry {
            return Self {
                booked_in: reversal.booked_in,
                ..Self::default()
            };
        }
        let proposal = entry.proposal();
        proposal.map_or_else(Self::default, |proposal| Self {
            particulars: proposal.request.particulars.clone(),
            approved: proposal.approved,
            booked_in: None,
        })
    }
}

// === impl Proposal ===

impl Proposal {
    /// What it approves, if it does: what was asked for, or less.
    pub fn amount(&self) -> Money {
        let asked = self.request.amount;
        match self.approved {
            Some(minor) => Money::from_minor(minor, asked.currency()),
            None => asked,
        }
    }

    /// The answer it makes when `reason` is the final word and the trip's approvals before it sum up
    /// to `approved_before`.
    pub fn answer(&self, reason: Reason, approved_before: i64) -> Answer {
        Answer {
            transaction_id: self.transaction_id,
            fingerprint: self.fingerprint,
            bank: self.request.bank.clone(),
            shopper: self.request.shopper,
            verdict: reason.verdict(),
            reason,
            code: self.code,
            amount: match reason.verdict() {
                Verdict::Approved => self.amount(),
                Verdict::Declined => self.request.amount,
            },
            rung: self.rung,
            why: self.why,
            cap: self.cap_held_against(),
            approved_before,
            trip: self.trip.as_ref().map(|trip| trip.id),
            trip_age_ms: self.trip_age_ms,
            policy_version: self.policy_version,
        }
    }

    /// The cap an answer is held against: while standing in, the tighter one.
    fn cap_held_against(&self) -> Option<i64> {
        match &self.limits {
            Limits::Cap => self.cap,
            Limits::StandIn(limits) => self.cap.map(|cap| cap.min(limits.trip)),
            Limits::Floor(limits) => self.cap.map(|cap| cap.min(limits.floor)),
        }
    }
}

// === impl SettlementKind ===

impl SettlementKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Capture, Self::ForcePost, Self::Refund];

    /// The word in bodies and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::ForcePost => "force_post",
            Self::Refund => "refund",
        }
    }
}

impl std::str::FromStr for SettlementKind {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.as_str() == word)
            .ok_or_else(|| UnknownWord(word.to_owned()))
    }
}

// === impl OperatorOrder, StandInMode ===

impl OperatorOrder {
    /// The words in audits and dumps.
    pub fn words(&self) -> String {
        let by = |forced: bool| if forced { " (forced)" } else { "" };
        match self {
            Self::StandIn(mode) => format!("stand_in.{}", mode.as_str()),
            Self::StandInFor { mode, for_ms } => {
                format!("stand_in.{} for {for_ms} ms", mode.as_str())
            }
            Self::StandInOver { .. } => "stand_in.over".to_owned(),
            Self::Policy { version, replaces } => {
                format!("policy.take {version} (was {replaces})")
            }
            Self::ClearAnswer(id) => format!("answer.clear {id}"),
            Self::Tombstone(id) => format!("hold.tombstone {id}"),
            Self::AddKeeper { node, forced } => format!("keeper.add {node}{}", by(*forced)),
            Self::RemoveKeeper { node, forced } => format!("keeper.remove {node}{}", by(*forced)),
        }
    }
}

impl StandInMode {
    /// The word in paths, rows and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Force => "force",
            Self::Forbid => "forbid",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::answer::Verdict;
    use crate::authorization::Merchant;
    use crate::decide::{FloorLimits, StandInLimits};
    use crate::money::{Currency, Money};
    use crate::trip::{Item, ItemStatus, OrderStatus, Position, TripChange, TripStatus};

    fn order() -> Order {
        Order {
            id: OrderId(Uuid::from_u128(1)),
            customer: "5".parse().unwrap(),
            store: "7".parse().unwrap(),
            currency: Currency::USD,
            status: OrderStatus::Placed,
            shopper: Some("123".parse().unwrap()),
            items: vec![Item {
                line: 1,
                product: 2,
                category: "PRODUCE".into(),
                quantity: 3,
                listed: 400,
                actual: Some(398),
                status: ItemStatus::Picked,
            }],
        }
    }

    fn proposal(limits: Limits) -> Proposal {
        let id = TransactionId::from_bytes([4; 16]);
        Proposal {
            edge: 1,
            start: 1,
            request: Authorization {
                bank: "first".parse().unwrap(),
                shopper: "123".parse().unwrap(),
                amount: Money::from_minor(30_000, Currency::USD),
                merchant: Merchant {
                    name: "Target".into(),
                    address: String::new(),
                },
                bank_key: Some("k".into()),
                received_at: Timestamp::from_millis(5),
                particulars: Particulars::default(),
            },
            transaction_id: id,
            fingerprint: Fingerprint::from_bytes([5; 32]),
            code: Code::from_mac(&[6; 32]),
            reason: Reason::WithinCap,
            rung: Rung::StandIn,
            why: Some(Why::Timeout),
            trip: Some(Trip {
                id: TripId(Uuid::from_u128(2)),
                shopper: "123".parse().unwrap(),
                store: "7".parse().unwrap(),
                currency: Currency::USD,
                status: TripStatus::Shopping,
                version: 3,
                picked: 398,
                picked_listed: 400,
                mix: BTreeMap::from([("PRODUCE".to_owned(), 398)]),
                started_at: Timestamp::from_millis(1),
            }),
            trip_age_ms: Some(9),
            store: Some("7".parse().unwrap()),
            cap: Some(898),
            approved_before: 0,
            limits,
            seen: vec![Approval {
                transaction_id: id,
                amount: 1,
                at: Timestamp::from_millis(2),
            }],
            policy_version: 1,
            swipe_window_ms: 90_000,
            shadow: Some(Reason::StandInLimit),
            approved: None,
        }
    }

    fn advice() -> Advice {
        let proposal = proposal(Limits::Cap);
        Advice {
            answer: Answer {
                transaction_id: proposal.transaction_id,
                fingerprint: proposal.fingerprint,
                bank: proposal.request.bank.clone(),
                shopper: proposal.request.shopper,
                verdict: Verdict::Approved,
                reason: proposal.reason,
                code: proposal.code,
                amount: proposal.request.amount,
                rung: Rung::Isolated,
                why: proposal.why,
                cap: proposal.cap,
                approved_before: 0,
                trip: None,
                trip_age_ms: None,
                policy_version: 1,
            },
            proposal,
            given_at: Timestamp::from_millis(7),
        }
    }

    fn changes() -> Vec<TripChange> {
        let order = OrderId(Uuid::from_u128(1));
        let at = Timestamp::from_millis(3);
        vec![
            TripChange::Pick {
                order,
                line: 1,
                actual: Some(5),
            },
            TripChange::Unpick { order, line: 1 },
            TripChange::OutOfStock { order, line: 1 },
            TripChange::Moved {
                position: Position {
                    lat_e6: 1,
                    lon_e6: -1,
                    at,
                },
            },
            TripChange::Finish,
        ]
    }

    #[allow(clippy::too_many_lines, reason = "one of every kind")]
    fn entries() -> Vec<Entry> {
        let (trip, shopper) = (TripId(Uuid::from_u128(2)), "123".parse().unwrap());
        let (id, at) = (
            TransactionId::from_bytes([4; 16]),
            Timestamp::from_millis(3),
        );
        let tally = Tally {
            amount: 1,
            count: 1,
        };
        let stand_in = StandInLimits {
            transaction: 1,
            trip: 1,
            shopper_outage: tally,
            shopper_hour: tally,
            bank_outage: tally,
            bank_hour: tally,
        };
        let floor = FloorLimits {
            floor: 1,
            window_ms: 1,
            reserve: tally,
        };
        let store = Store {
            id: "7".parse().unwrap(),
            name: "Target".into(),
            address: "123 Main St".into(),
            lat_e6: 1,
            lon_e6: 2,
        };
        let action = |what| OperatorAction {
            id: Uuid::from_u128(9),
            operator: "ops".into(),
            reason: "why".into(),
            at,
            what,
        };
        let mut entries = vec![
            Entry::TripClosed(trip),
            Entry::OutageStarted {
                edge: 1,
                why: Why::Connection,
            },
            Entry::OutageEnded { edge: 1 },
            Entry::Tombstone(id),
            Entry::Drained(7),
            Entry::Faulted(id),
            Entry::Operator(action(OperatorOrder::StandIn(StandInMode::Force))),
            Entry::Operator(action(OperatorOrder::ClearAnswer(id))),
            Entry::Platform(PlatformEvent::StorePut(store)),
            Entry::Platform(PlatformEvent::OrderPlaced(order())),
            Entry::Platform(PlatformEvent::OrderClaimed {
                order: order().id,
                shopper,
            }),
            Entry::Platform(PlatformEvent::TripStarted {
                trip,
                shopper,
                orders: vec![order().id],
                at,
            }),
            Entry::Platform(PlatformEvent::TripCompleted { trip, shopper }),
            Entry::Platform(PlatformEvent::MerchantIdPut(MerchantId {
                network_id: "445100000000123".parse().unwrap(),
                terminal: Some("00042".parse().unwrap()),
                store: "7".parse().unwrap(),
            })),
            Entry::Platform(PlatformEvent::MerchantIdPut(MerchantId {
                network_id: "445100000000123".parse().unwrap(),
                terminal: None,
                store: "7".parse().unwrap(),
            })),
            Entry::Platform(PlatformEvent::MerchantIdRemoved(MerchantKey {
                network_id: "445100000000123".parse().unwrap(),
                terminal: None,
            })),
            Entry::Operator(action(OperatorOrder::AddKeeper {
                node: 4,
                forced: false,
            })),
            Entry::Operator(action(OperatorOrder::RemoveKeeper {
                node: 3,
                forced: true,
            })),
            Entry::Operator(action(OperatorOrder::Policy {
                version: 8,
                replaces: 7,
            })),
            Entry::Advice(Box::new(advice())),
            Entry::Late(LateMark {
                transaction_id: id,
                edge: 2,
            }),
            Entry::Heard(id),
            Entry::Told(id),
            Entry::Reverse(Reversal {
                id: Uuid::from_u128(3),
                transaction_id: id,
                shopper: Some(shopper),
                amount: Some(5),
                cause: ReversalCause::Bank,
                booked_in: None,
            }),
            Entry::Grant(Grant {
                edge: 2,
                incarnation: Uuid::from_u128(4),
                reserve: tally,
            }),
            Entry::Founded(Uuid::from_u128(5)),
            Entry::LedgerEpoch(2),
        ];
        for limits in [Limits::Cap, Limits::StandIn(stand_in), Limits::Floor(floor)] {
            entries.push(Entry::Authorize(Box::new(proposal(limits))));
        }
        for what in changes() {
            let event = TripEvent {
                id: Uuid::from_u128(8),
                trip,
                shopper,
                at,
                what,
            };
            entries.push(Entry::Platform(PlatformEvent::TripChanged(event)));
        }
        entries
    }

    #[test]
    fn every_kind_of_entry_is_read_back_as_it_was_written() {
        for entry in entries() {
            let bytes = entry.encode().unwrap();
            assert_eq!(Entry::decode(&bytes).unwrap(), entry);
            for cut in 0..bytes.len() {
                assert!(
                    Entry::decode(&bytes[..cut]).is_err(),
                    "cut at {cut}: {entry:?}"
                );
            }
        }
    }

    /// What the build wrote that knew no newer schema than 2: one entry a line, in hexadecimal digits.
    #[test]
    fn what_the_build_before_wrote_is_read_and_written_as_it_was() {
        let newer = |entry: &Entry| schema(entry) != SCHEMA_BEFORE;
        let entries: Vec<Entry> = entries().into_iter().filter(|one| !newer(one)).collect();
        let lines: Vec<&str> = include_str!("entry/schema-2.txt").lines().collect();
        for (entry, line) in entries.iter().zip(&lines) {
            let bytes = from_hex(line);
            assert_eq!(Entry::decode(&bytes).unwrap(), *entry);
            assert_eq!(entry.encode().unwrap(), bytes, "{entry:?}");
        }
        assert_eq!(lines.len(), entries.len(), "a line for each");
    }

    fn from_hex(line: &str) -> Vec<u8> {
        let byte = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).unwrap();
            u8::from_str_radix(digits, 16).unwrap()
        };
        line.as_bytes().chunks(2).map(byte).collect()
    }

    fn schema(entry: &Entry) -> u16 {
        let bytes = entry.encode().unwrap();
        assert_eq!(Entry::decode(&bytes).unwrap(), *entry);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    #[test]
    fn only_what_is_newer_is_written_in_the_newer_schema() {
        for entry in entries() {
            let newer = match &entry {
                Entry::Platform(
                    PlatformEvent::MerchantIdPut(_) | PlatformEvent::MerchantIdRemoved(_),
                ) => true,
                Entry::Operator(action) => matches!(action.what, OperatorOrder::Policy { .. }),
                _ => false,
            };
            let expected = if newer { 3 } else { 2 };
            assert_eq!(schema(&entry), expected, "{entry:?}");
        }
        let plain = proposal(Limits::Cap);
        let said = |change: fn(&mut Proposal)| {
            let mut proposal = plain.clone();
            change(&mut proposal);
            proposal
        };
        for newer in [
            said(|one| one.request.particulars.card = Some("ic_1".to_owned())),
            said(|one| one.request.particulars.network_id = Some("1".to_owned())),
            said(|one| one.request.particulars.partial = true),
            said(|one| one.approved = Some(7)),
            said(|one| one.reason = Reason::UnknownCard),
        ] {
            let advice = Advice {
                answer: newer.answer(newer.reason, 0),
                proposal: newer.clone(),
                given_at: Timestamp::from_millis(7),
            };
            assert_eq!(schema(&Entry::Authorize(Box::new(newer))), 3);
            assert_eq!(schema(&Entry::Advice(Box::new(advice))), 3);
        }
        let reversal = Reversal {
            id: Uuid::from_u128(3),
            transaction_id: plain.transaction_id,
            shopper: None,
            amount: Some(5),
            cause: ReversalCause::Bank,
            booked_in: None,
        };
        assert_eq!(schema(&Entry::Reverse(reversal)), 2);
        let cause = ReversalCause::Unheeded;
        assert_eq!(schema(&Entry::Reverse(Reversal { cause, ..reversal })), 3);
        let booked_in = Some(Currency::USD);
        assert_eq!(
            schema(&Entry::Reverse(Reversal {
                booked_in,
                ..reversal
            })),
            3
        );
        let card = Card {
            bank: "first".parse().unwrap(),
            token: "ic_1".to_owned(),
        };
        let shopper = None;
        assert_eq!(
            schema(&Entry::Platform(PlatformEvent::CardSet { card, shopper })),
            3
        );
    }

    #[test]
    fn orders_for_a_time_are_written_in_the_newer_schema() {
        for what in [
            OperatorOrder::StandInFor {
                mode: StandInMode::Force,
                for_ms: 60_000,
            },
            OperatorOrder::StandInOver { until_ms: 7 },
        ] {
            let action = OperatorAction {
                id: Uuid::from_u128(9),
                operator: "ops".into(),
                reason: "why".into(),
                at: Timestamp::from_millis(3),
                what,
            };
            assert_eq!(schema(&Entry::Operator(action)), 3);
        }
    }

    #[test]
    fn a_part_is_what_is_answered_and_a_decline_says_what_was_asked_for() {
        let part = Proposal {
            approved: Some(1_234),
            ..proposal(Limits::Cap)
        };
        assert_eq!(part.answer(Reason::WithinCap, 0).amount.minor(), 1_234);
        assert_eq!(part.answer(Reason::OverCap, 0).amount.minor(), 30_000);
    }

    #[test]
    fn an_unknown_schema_is_refused() {
        let mut bytes = Entry::OutageEnded { edge: 1 }.encode().unwrap();
        let newer = (SCHEMA + 1).to_le_bytes();
        bytes[..2].copy_from_slice(&newer);
        assert!(matches!(Entry::decode(&bytes), Err(EntryError::Schema(4))));
        assert!(matches!(Entry::decode(&[1]), Err(EntryError::Short(1))));
    }
}
