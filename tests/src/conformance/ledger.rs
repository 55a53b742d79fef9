//! What every ledger does, run on the one in memory and on real Postgres.
//!
//! Each case makes its own shoppers, stores and orders, so that all run on one database, one after
//! the other; where clients race, each has a ledger (and so connections) of its own.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a suite of assertions"
)]

mod advice;
mod cache_homes;
mod cards;
mod closes;
mod directory;
mod drain;
mod epochs;
mod holds;
mod platform;
mod reversals;
mod settlements;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use standin_core::BoxFuture;
use standin_core::answer::{Answer, Reason, Rung, Why};
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::clock::Timestamp;
use standin_core::decide::Limits;
use standin_core::entry::{Booking, LogPosition, Proposal};
use standin_core::id::{CustomerId, OrderId, ShopperId, StoreId, TripId};
use standin_core::identity::{DeploymentKey, Operation, fingerprint, transaction_id};
use standin_core::ledger::{
    Advice, AuthorizationRow, BookedEvent, Claim, DrainStep, Ledger, Placed, ReversalRow,
    StartTrip, Started,
};
use standin_core::merchant::Store;
use standin_core::money::{Currency, Money};
use standin_core::trip::{Item, ItemStatus, Order, OrderStatus, TripChange, TripEvent, TripSheet};
use uuid::Uuid;

/// Opens one more client of the ledger under test.
pub type Open = dyn Fn() -> Arc<dyn Ledger> + Send + Sync;

/// What a case gets.
pub struct World {
    /// One client.
    pub ledger: Arc<dyn Ledger>,
    open: Arc<Open>,
}

type Case = (&'static str, fn(World) -> BoxFuture<'static, ()>);

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((stringify!($name), |world| Box::pin($module::$name(world)))),*]
    };
}

/// Every case.
const CASES: &[Case] = cases![
    cards::a_card_is_given_and_taken,
    cards::cards_are_read_in_order_and_in_pages,
    cards::a_payment_is_found_by_its_id,
    settlements::money_that_moved_is_kept_once,
    settlements::another_movement_under_the_same_id_is_a_conflict,
    cards::what_a_platform_says_more_is_booked_with_the_payment,
    cards::a_payment_stays_with_whom_it_was_answered_for,
    platform::a_store_is_put_and_replaced,
    directory::stores_are_told_page_by_page,
    directory::a_networks_id_is_put_replaced_and_removed,
    directory::a_terminal_is_part_of_the_key,
    directory::every_change_makes_another_version_and_a_repeat_none,
    platform::an_order_is_placed_once,
    platform::an_order_that_no_ledger_can_keep_is_refused,
    platform::offers_are_the_placed_orders_of_a_store_oldest_first,
    platform::of_fifty_racing_claims_one_wins,
    platform::a_trip_starts_from_claimed_orders_once,
    platform::of_racing_starts_one_trip_is_made,
    platform::events_change_the_cart_once_each,
    platform::events_that_come_late_or_name_nothing_are_refused,
    platform::a_version_only_grows,
    platform::a_trip_is_completed_once_and_frees_the_shopper,
    holds::a_hold_counts_at_once_and_again_is_the_same_hold,
    holds::another_fingerprint_is_refused,
    holds::a_hold_found_under_another_trip_moves_there_if_it_fits,
    holds::sums_run_within_a_batch,
    holds::a_batch_that_repeats_an_id_holds_it_once,
    holds::a_decline_claims_its_id_and_counts_nothing,
    holds::only_a_shopping_trip_is_held_against,
    holds::fifty_clients_never_oversell_a_trip,
    holds::crossing_batches_all_get_answers,
    holds::a_stale_hold_is_released_only_while_held,
    holds::every_authorization_is_listed_in_key_order,
    drain::an_outcome_becomes_final_over_a_hold_and_over_nothing,
    drain::a_final_row_reads_back_byte_for_byte,
    drain::draining_again_changes_nothing,
    drain::another_answer_goes_whole_to_conflicts,
    drain::the_same_answer_from_another_rung_is_no_conflict,
    drain::the_logs_words_are_written_over_what_the_primary_said_by_itself,
    drain::of_another_answer_by_the_primary_itself_nothing_is_written_over,
    drain::what_was_reversed_stays_so_under_the_logs_words,
    drain::a_later_advice_of_the_same_log_has_the_last_word,
    drain::a_rewording_changes_nothing_else,
    drain::a_payment_twice_in_one_step_is_final_once,
    drain::of_two_drainers_one_moves_the_cursor,
    drain::holds_and_drains_of_one_trip_run_beside_each_other,
    drain::operators_actions_are_audited_once,
    drain::a_run_is_recorded_once_and_a_probe_writes,
    advice::an_advice_makes_a_hold_final,
    advice::an_advice_without_a_hold_changes_nothing,
    advice::an_advice_of_a_decline_stands_on_its_claim,
    advice::an_advice_meets_what_was_there_before,
    advice::an_advice_and_its_original_are_one_answer,
    advice::of_racing_advices_and_a_drain_the_log_has_the_last_word,
    reversals::a_reversal_in_full_frees_the_cap,
    reversals::partial_reversals_add_up,
    reversals::a_reversal_before_its_payment_waits_for_it,
    reversals::what_takes_nothing_back_is_kept_and_counts_nothing,
    reversals::reversals_and_outcomes_of_two_logs_meet,
    reversals::reversals_and_advices_meet,
    closes::a_close_is_told_in_its_place,
    closes::closes_that_race_are_all_told,
    epochs::a_ledger_of_a_past_epoch_writes_nothing,
    cache_homes::another_home_of_the_trip_cache_is_promoted_once_and_audited,
];

/// Runs every case, naming each, so that a failure says where.
pub async fn every_case(open: Arc<Open>) {
    for (name, case) in CASES {
        eprintln!("case {name}");
        case(World::new(Arc::clone(&open))).await;
    }
}

// === impl World ===

impl World {
    /// A ledger under test.
    pub fn new(open: Arc<Open>) -> Self {
        Self {
            ledger: open(),
            open,
        }
    }

    /// The same of a ledger that is there; its further clients are this one.
    pub fn of(ledger: Arc<dyn Ledger>) -> Self {
        let open = Arc::clone(&ledger);
        Self {
            ledger,
            open: Arc::new(move || Arc::clone(&open)),
        }
    }

    /// Further clients, each its own ledger.
    pub fn clients(&self, number: usize) -> Vec<Arc<dyn Ledger>> {
        (0..number).map(|_| (self.open)()).collect()
    }

    /// A new store.
    pub async fn store(&self) -> StoreId {
        let id = StoreId::try_from(number()).unwrap();
        self.ledger.put_store(store(id, "Target")).await.unwrap();
        id
    }

    /// A new order of three lines, claimed by `shopper`.
    pub async fn claimed(&self, store: StoreId, shopper: ShopperId) -> Order {
        let order = order(store);
        let placed = self.ledger.place_order(order.clone()).await.unwrap();
        assert_eq!(placed, Placed::Now);
        let claim = self.ledger.claim(order.id, shopper).await.unwrap();
        assert_eq!(claim, Claim::Won);
        order
    }

    /// A new shopper's SHOPPING trip with one order.
    pub async fn trip(&self) -> TripSheet {
        let (store, shopper) = (self.store().await, shopper());
        let order = self.claimed(store, shopper).await;
        let start = start(shopper, &[&order]);
        match self.ledger.start_trip(start).await.unwrap() {
            Started::Trip(sheet) => *sheet,
            other => panic!("{other:?}"),
        }
    }

    /// The stored authorization of a proposal.
    pub async fn row(&self, proposal: &Proposal) -> Option<AuthorizationRow> {
        let shopper = proposal.request.shopper;
        let mut after = None;
        loop {
            let rows = self.ledger.authorizations(after, 500).await.unwrap();
            let last = rows.last()?;
            after = Some((last.answer.shopper, last.answer.transaction_id));
            let found = rows.into_iter().find(|row| {
                (row.answer.shopper, row.answer.transaction_id)
                    == (shopper, proposal.transaction_id)
            });
            if found.is_some() {
                return found;
            }
        }
    }
}

/// A number that no other case has.
pub fn number() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(1_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A UUID that no other case has.
pub fn uuid() -> Uuid {
    Uuid::from_u128(u128::from(number().unsigned_abs()) << 64 | 7)
}

/// A new shopper.
pub fn shopper() -> ShopperId {
    ShopperId::try_from(number()).unwrap()
}

/// Milliseconds after some morning.
pub fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + ms)
}

/// A store.
pub fn store(id: StoreId, name: &str) -> Store {
    Store {
        id,
        name: name.to_owned(),
        address: "123 Main St".to_owned(),
        lat_e6: 40_000_001,
        lon_e6: -73_000_002,
    }
}

/// An order of three lines: 10.00, 20.00 and 5.50.
pub fn order(store: StoreId) -> Order {
    let item = |line: u32, listed: i64, category: &str| Item {
        line,
        product: i64::from(line) * 11,
        category: category.to_owned(),
        quantity: line,
        listed,
        actual: None,
        status: ItemStatus::Wanted,
    };
    Order {
        id: OrderId(uuid()),
        customer: CustomerId::try_from(number()).unwrap(),
        store,
        currency: Currency::USD,
        status: OrderStatus::Placed,
        shopper: None,
        items: vec![
            item(1, 1_000, "PRODUCE"),
            item(2, 2_000, "DAIRY"),
            item(3, 550, "PRODUCE"),
        ],
    }
}

/// A start of a new trip.
pub fn start(shopper: ShopperId, orders: &[&Order]) -> StartTrip {
    StartTrip {
        trip: TripId(uuid()),
        shopper,
        orders: orders.iter().map(|order| order.id).collect(),
        at: at(0),
    }
}

/// A new event on a trip.
pub fn event(sheet: &TripSheet, what: TripChange) -> BookedEvent {
    BookedEvent {
        event: TripEvent {
            id: uuid(),
            trip: sheet.trip.id,
            shopper: sheet.trip.shopper,
            at: at(1),
            what,
        },
        version: None,
    }
}

/// A pick of a line of the trip's first order.
pub fn pick(sheet: &TripSheet, line: u32, actual: Option<i64>) -> BookedEvent {
    let order = *sheet.items.keys().next().unwrap();
    let what = TripChange::Pick {
        order,
        line,
        actual,
    };
    event(sheet, what)
}

/// A proposal to approve `amount` on a trip whose cap is `cap`, under a key of its own.
pub fn approve(sheet: &TripSheet, amount: i64, cap: i64) -> Proposal {
    propose(sheet, &format!("key-{}", number()), amount, cap)
}

/// The same under the bank's key.
pub fn propose(sheet: &TripSheet, key: &str, amount: i64, cap: i64) -> Proposal {
    let mut trip = sheet.trip.clone();
    trip.mix = BTreeMap::from([("PRODUCE".to_owned(), 1_550), ("DAIRY".to_owned(), 50)]);
    trip.picked = 1_600;
    trip.picked_listed = 1_550;
    let request = Authorization {
        bank: "first-bank".parse().unwrap(),
        shopper: trip.shopper,
        amount: Money::from_minor(amount, trip.currency),
        merchant: Merchant {
            name: "Target".to_owned(),
            address: "123 Main St".to_owned(),
        },
        bank_key: Some(format!("{key}-{}", trip.shopper)),
        received_at: at(10),
        particulars: Particulars::default(),
    };
    let id = transaction_id(&request, Operation::Authorize, Some(trip.id));
    let print = fingerprint(&request);
    let secret = DeploymentKey::new(vec![7; 32]).unwrap();
    Proposal {
        edge: 1,
        start: 1,
        code: secret.code(&request.bank, id, &print),
        request,
        transaction_id: id,
        fingerprint: print,
        reason: Reason::WithinCap,
        rung: Rung::Primary,
        why: None,
        store: Some(trip.store),
        trip: Some(trip),
        trip_age_ms: Some(12),
        cap: Some(cap),
        approved_before: 0,
        limits: Limits::Cap,
        seen: Vec::new(),
        policy_version: 3,
        swipe_window_ms: 0,
        shadow: Some(Reason::WithinStandInLimits),
        approved: None,
    }
}

/// The proposal as a decline.
pub fn declined(mut proposal: Proposal, reason: Reason) -> Proposal {
    proposal.reason = reason;
    proposal
}

/// The answer that a proposal got, as the register would make it.
pub fn answer(proposal: &Proposal) -> Answer {
    Answer {
        transaction_id: proposal.transaction_id,
        fingerprint: proposal.fingerprint,
        bank: proposal.request.bank.clone(),
        shopper: proposal.request.shopper,
        verdict: proposal.reason.verdict(),
        reason: proposal.reason,
        code: proposal.code,
        amount: proposal.amount(),
        rung: proposal.rung,
        why: proposal.why,
        cap: proposal.cap,
        approved_before: proposal.approved_before,
        trip: proposal.trip.as_ref().map(|trip| trip.id),
        trip_age_ms: proposal.trip_age_ms,
        policy_version: proposal.policy_version,
    }
}

/// The proposal as it would have been made without the primary.
pub fn stood_in(mut proposal: Proposal) -> Proposal {
    proposal.rung = Rung::StandIn;
    proposal.why = Some(Why::Timeout);
    proposal.reason = Reason::WithinStandInLimits;
    proposal
}

/// The outcome of a proposal, at a slot of batch `index`.
pub fn outcome(proposal: &Proposal, index: u64, slot: u32) -> Booking {
    Booking {
        answer: answer(proposal),
        proposal: proposal.clone(),
        at: LogPosition { index, slot },
        log_time_ms: u64::try_from(at(20).as_millis()).unwrap(),
    }
}

/// The proposal's answer as Postgres alone commits it.
pub fn advice(proposal: &Proposal) -> Advice {
    Advice {
        proposal: proposal.clone(),
        answer: Answer {
            rung: Rung::PrimaryOnly,
            ..answer(proposal)
        },
        at: at(30),
    }
}

/// A new reversal of a payment.
pub fn reversal(proposal: &Proposal, amount: i64) -> ReversalRow {
    ReversalRow {
        shopper: Some(proposal.request.shopper),
        transaction_id: proposal.transaction_id,
        reversal_id: uuid(),
        amount,
        currency: proposal.request.amount.currency(),
        reason: "card removed".to_owned(),
        at: at(25),
    }
}

/// A step of the drain of one batch.
pub fn step(log: Uuid, to: u64, outcomes: Vec<Booking>) -> DrainStep {
    DrainStep {
        log,
        from: to - 1,
        to,
        outcomes,
        rewordings: Vec::new(),
        reversals: Vec::new(),
        settlements: Vec::new(),
        actions: Vec::new(),
    }
}
