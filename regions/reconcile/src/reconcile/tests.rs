#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "test code"
)]

use std::collections::BTreeMap;

use standin_core::answer::{Code, Reason, Rung, Why};
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::clock::{ManualClock, Timestamp};
use standin_core::decide::Limits;
use standin_core::entry::{Advice, Entry, Proposal};
use standin_core::id::{OrderId, ShopperId, StoreId, TripId};
use standin_core::identity::{self, Operation};
use standin_core::ledger::clearing::{CaseFilter, ClearingBooks};
use standin_core::ledger::memory::MemoryLedger;
use standin_core::ledger::{self, Booked, DrainStep, StartTrip, Started};
use standin_core::merchant::Store;
use standin_core::money::{Currency, Money};
use standin_core::trip::{Item, ItemStatus, Order, OrderStatus, Trip, TripStatus};

use super::*;
use crate::checker::DrainEvidence;
use crate::log::LogBatch;
use crate::log::source::DirectoryLog;
use crate::report::reconciliation::FindingKind;

const NOW: i64 = 1_800_000_000_000;
const CALL: Duration = Duration::from_secs(5);

/// A log that is given, not read.
struct GivenLog(Uuid, Vec<LogBatch>);

impl LogSource for GivenLog {
    fn read(&self) -> BoxFuture<'_, Result<(Uuid, Vec<LogBatch>), SourceError>> {
        Box::pin(std::future::ready(Ok((self.0, self.1.clone()))))
    }
}

struct BrokenLog;

impl LogSource for BrokenLog {
    fn read(&self) -> BoxFuture<'_, Result<(Uuid, Vec<LogBatch>), SourceError>> {
        Box::pin(std::future::ready(Err(SourceError::Thread)))
    }
}

/// Says the same of every tombstone.
struct Says(Result<Placed, TombstoneError>);

impl Tombstones for Says {
    fn place(
        &self,
        payments: Vec<TransactionId>,
    ) -> BoxFuture<'_, Result<Vec<Placed>, TombstoneError>> {
        let said = self.0.clone().map(|placed| vec![placed; payments.len()]);
        Box::pin(std::future::ready(said))
    }
}

fn proposal(n: u64, rung: Rung) -> Proposal {
    let shopper = ShopperId::try_from(n / 4 + 1).unwrap();
    let request = Authorization {
        bank: "acme".parse().unwrap(),
        shopper,
        amount: Money::from_minor(1_000 + n as i64, Currency::USD),
        merchant: Merchant {
            name: "Target".to_owned(),
            address: String::new(),
        },
        bank_key: Some(format!("k{n}")),
        received_at: Timestamp::from_millis(NOW + n as i64),
        particulars: Particulars::default(),
    };
    let trip = Trip {
        id: TripId(Uuid::from_u128(u128::from(n / 4) + 1)),
        shopper,
        store: StoreId::try_from(7_i64).unwrap(),
        currency: Currency::USD,
        status: TripStatus::Shopping,
        version: n + 1,
        picked: 4_000,
        picked_listed: 4_000,
        mix: BTreeMap::new(),
        started_at: Timestamp::from_millis(NOW),
    };
    let (reason, why, shadow) = match rung {
        Rung::Primary | Rung::PrimaryOnly => (Reason::WithinCap, None, None),
        Rung::Bank => (Reason::ApprovedByBank, None, None),
        Rung::StandIn => (
            Reason::WithinStandInLimits,
            Some(Why::Timeout),
            Some(Reason::WithinCap),
        ),
        Rung::Isolated => (
            Reason::WithinFloorLimit,
            Some(Why::Connection),
            Some(Reason::OverCap),
        ),
    };
    Proposal {
        edge: 1,
        start: 1,
        transaction_id: identity::transaction_id(&request, Operation::Authorize, None),
        fingerprint: identity::fingerprint(&request),
        code: Code::from_mac(&[n as u8; 32]),
        reason,
        rung,
        why,
        trip_age_ms: Some(3),
        store: Some(trip.store),
        cap: Some(5_000),
        approved_before: 0,
        limits: Limits::Cap,
        seen: Vec::new(),
        policy_version: 1,
        swipe_window_ms: 0,
        shadow,
        request,
        trip: Some(trip),
        approved: None,
    }
}

fn authorize(n: u64, rung: Rung) -> Entry {
    Entry::Authorize(Box::new(proposal(n, rung)))
}

/// Four answers on the primary, then an outage with five entries, then one more answer.
fn batches() -> Vec<LogBatch> {
    let entries = vec![
        vec![authorize(0, Rung::Primary), authorize(1, Rung::Primary)],
        vec![authorize(2, Rung::Primary), authorize(3, Rung::Primary)],
        vec![Entry::OutageStarted {
            edge: 1,
            why: Why::Timeout,
        }],
        vec![authorize(4, Rung::StandIn), authorize(5, Rung::StandIn)],
        vec![
            authorize(4, Rung::StandIn),
            Entry::TripClosed(TripId(Uuid::from_u128(9))),
        ],
        vec![authorize(6, Rung::Isolated), Entry::OutageEnded { edge: 1 }],
        vec![authorize(8, Rung::Primary)],
    ];
    (1..)
        .zip(entries)
        .map(|(index, entries)| LogBatch {
            index,
            log_time_ms: NOW as u64 + index * 100,
            entries,
        })
        .collect()
}

fn log_id() -> Uuid {
    Uuid::from_u128(77)
}

fn inputs(batches: Vec<LogBatch>) -> Inputs {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW + 1_000)));
    Inputs {
        ledger: Arc::new(MemoryLedger::new(clock.clone(), None)),
        logs: vec![Arc::new(GivenLog(log_id(), batches))],
        tombstones: None,
        clock,
    }
}

fn options() -> Options {
    Options {
        call_deadline: CALL,
        ..Options::new(Uuid::from_u128(1))
    }
}

fn kinds(report: &Reconciliation) -> Vec<FindingKind> {
    report.findings.iter().map(|finding| finding.kind).collect()
}

/// Books an answer as it stands in some other log or place.
async fn book(ledger: &dyn Ledger, log: Uuid, at: LogPosition, proposal: Proposal) {
    let batch = LogBatch {
        index: 1,
        log_time_ms: NOW as u64,
        entries: vec![Entry::Authorize(Box::new(proposal))],
    };
    let contents = LogContents::replay(log, [batch]);
    let mut booking = contents.records[0].booking().unwrap();
    booking.at = at;
    let from = ledger.cursor(log).await.unwrap();
    let step = DrainStep {
        log,
        from,
        to: from.max(at.index),
        outcomes: vec![booking],
        rewordings: Vec::new(),
        reversals: Vec::new(),
        settlements: Vec::new(),
        actions: Vec::new(),
    };
    assert!(matches!(ledger.book(step).await.unwrap(), Booked::Moved(_)));
}

#[tokio::test]
async fn what_was_not_drained_is_drained_and_the_report_is_clean() {
    let inputs = inputs(batches());
    let report = run(&inputs, options()).await.unwrap();
    assert_eq!((report.exit_code(), kinds(&report)), (0, vec![]));
    let matched = &report.logs[0];
    assert_eq!(
        (matched.outcomes, matched.matched, matched.drained_here),
        (8, 8, 8)
    );
    assert_eq!(
        (matched.entries, matched.cursor, matched.last_index),
        (12, 7, 7)
    );
    assert_eq!(report.totals.all.count(), 8);
    assert_eq!(report.totals.by_rung[&Rung::StandIn].count(), 2);

    let outage = &report.outages[0];
    assert!(outage.adds_up());
    assert_eq!((outage.entries, outage.drained, outage.already), (5, 3, 1));
    assert_eq!((outage.other, outage.conflicts, outage.missing), (1, 0, 0));
    assert_eq!(outage.lasted_ms, 300);
    assert_eq!(outage.sums, outage.drained_sums);
    assert_eq!(
        outage.sums.approved_minor[&Currency::USD],
        1_004 + 1_005 + 1_006
    );

    assert_eq!(report.exposure.stand_in.approved, 2);
    assert_eq!(report.exposure.isolated.approved, 1);
    assert_eq!(
        report.exposure.beyond_primary.approved_minor[&Currency::USD],
        1_006
    );
    assert_eq!(report.variance.trips, 3);
    assert_eq!(
        report.variance.charged_minor[&Currency::USD],
        4_006 + 3_015 + 1_008
    );
    assert_eq!(report.variance.over_picked, 1);
}

#[tokio::test]
async fn a_second_run_finds_nothing_left_and_says_the_same() {
    let inputs = inputs(batches());
    let first = run(&inputs, options()).await.unwrap();
    let second = run(&inputs, options()).await.unwrap();
    assert_eq!(second.logs[0].drained_here, 0);
    assert_eq!(
        (second.totals, second.outages),
        (first.totals, first.outages)
    );
    assert_eq!(second.findings, []);
}

/// Moves the cursor past outcomes that it does not book.
fn skip_to(to: u64) -> DrainStep {
    DrainStep {
        log: log_id(),
        from: 0,
        to,
        outcomes: Vec::new(),
        rewordings: Vec::new(),
        reversals: Vec::new(),
        settlements: Vec::new(),
        actions: Vec::new(),
    }
}

#[tokio::test]
async fn a_cursor_that_skipped_outcomes_shows_as_missing_rows() {
    let inputs = inputs(batches());
    inputs.ledger.book(skip_to(7)).await.unwrap();
    let report = run(&inputs, options()).await.unwrap();
    assert_eq!(report.exit_code(), 2);
    assert_eq!(report.logs[0].missing, 8);
    assert_eq!(report.outages[0].missing, 3);
    assert!(report.outages[0].adds_up());
    assert!(
        kinds(&report)
            .iter()
            .all(|kind| *kind == FindingKind::Missing)
    );
}

#[tokio::test]
async fn what_is_found_is_a_case_until_somebody_settles_it_and_the_last_run_is_told_again() {
    let books = Arc::new(MemoryLedger::new(
        Arc::new(ManualClock::at(Timestamp::from_millis(NOW))),
        None,
    ));
    assert_eq!(kept::last(books.as_ref(), CALL).await.unwrap(), None);
    let inputs = Inputs {
        ledger: books.clone(),
        ..inputs(batches())
    };
    books.book(skip_to(4)).await.unwrap();
    let at = Timestamp::from_millis(NOW);
    let mut filed = Vec::new();
    let run_as = async |id: u128| {
        let options = Options {
            run: Uuid::from_u128(id),
            ..options()
        };
        run(&inputs, options).await.unwrap()
    };
    for id in [1, 2] {
        let report = run_as(id).await;
        let last = kept::last(books.as_ref(), CALL).await.unwrap();
        assert_eq!(last.as_ref(), Some(&report));
        filed.push(
            cases::file(books.as_ref(), &report, at, CALL)
                .await
                .unwrap(),
        );
    }
    let all = filed[0].new;
    assert!(all > 1);
    let known = cases::Filed {
        known: all,
        ..cases::Filed::default()
    };
    assert_eq!(filed[1], known, "the same finding is the same case");
    let missing = CaseFilter {
        kind: Some("missing".to_owned()),
        ..CaseFilter::default()
    };
    let missing = books.cases(missing, None, 100).await.unwrap();
    let report = run_as(3).await;
    let named: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.kind == FindingKind::Missing)
        .filter_map(|finding| finding.transaction_id)
        .collect();
    assert_eq!(missing.len(), named.len());
    for case in missing {
        assert!(named.contains(&case.found.transaction_id.unwrap()));
    }
    // What another job kept meanwhile is passed over.
    let other = ReconcileRun {
        id: Uuid::from_u128(9),
        started_at: at,
        ended_at: at.plus(Duration::from_secs(60)),
        report: serde_json::json!({ "bank": "first" }),
        findings: Vec::new(),
    };
    books.record_run(other).await.unwrap();
    let last = kept::last(books.as_ref(), CALL).await.unwrap();
    assert_eq!(last.map(|last| last.findings), Some(report.findings));
}

#[tokio::test]
async fn an_answer_that_meets_another_is_a_conflict() {
    let inputs = inputs(batches());
    let other = Proposal {
        reason: Reason::Velocity,
        ..proposal(5, Rung::Primary)
    };
    let place = LogPosition { index: 1, slot: 0 };
    book(inputs.ledger.as_ref(), Uuid::from_u128(5), place, other).await;
    let report = run(&inputs, options()).await.unwrap();
    assert_eq!(kinds(&report), [FindingKind::Conflict]);
    assert_eq!((report.logs[0].conflicts, report.logs[0].matched), (1, 7));
    assert_eq!((report.outages[0].conflicts, report.elsewhere), (1, 1));
    assert!(report.outages[0].adds_up());
    assert_eq!(report.findings[0].amount_minor, 1_005);
}

#[tokio::test]
async fn a_row_that_its_log_does_not_hold_is_extra() {
    let inputs = inputs(batches());
    let place = LogPosition { index: 3, slot: 0 };
    book(
        inputs.ledger.as_ref(),
        log_id(),
        place,
        proposal(40, Rung::Primary),
    )
    .await;
    let report = run(&inputs, options()).await.unwrap();
    // The cursor was moved past the first four outcomes without booking them.
    assert_eq!(report.logs[0].missing, 4);
    assert_eq!(report.logs[0].extra, 1);
    let extra = report
        .findings
        .iter()
        .find(|found| found.kind == FindingKind::Extra)
        .unwrap();
    assert_eq!(
        extra.transaction_id,
        Some(proposal(40, Rung::Primary).transaction_id)
    );
    assert!(kinds(&report).contains(&FindingKind::Sums));
}

#[tokio::test]
async fn a_log_that_ends_below_its_cursor_was_cut() {
    let inputs = inputs(batches());
    run(&inputs, options()).await.unwrap();
    let cut = Inputs {
        logs: vec![Arc::new(GivenLog(log_id(), batches()[..5].to_vec()))],
        ..inputs
    };
    let report = run(&cut, options()).await.unwrap();
    assert!(kinds(&report).contains(&FindingKind::LogCut));
}

#[tokio::test]
async fn one_payment_answered_alike_in_two_logs_is_booked_once() {
    let mut inputs = inputs(batches());
    let log = GivenLog(Uuid::from_u128(78), batches());
    inputs.logs.push(Arc::new(log));
    let report = run(&inputs, options()).await.unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.totals.all.count(), 8);
    assert_eq!(
        (report.outages[1].already, report.outages[1].drained),
        (4, 0)
    );
}

async fn start_trip(ledger: &dyn Ledger, trip: &Trip) {
    let store = Store {
        id: trip.store,
        name: "Target".to_owned(),
        address: String::new(),
        lat_e6: 0,
        lon_e6: 0,
    };
    ledger.put_store(store).await.unwrap();
    let item = Item {
        line: 1,
        product: 1,
        category: "PRODUCE".to_owned(),
        quantity: 1,
        listed: trip.picked,
        actual: None,
        status: ItemStatus::Wanted,
    };
    let order = Order {
        id: OrderId(Uuid::from_u128(3)),
        customer: 1_i64.try_into().unwrap(),
        store: trip.store,
        currency: trip.currency,
        status: OrderStatus::Placed,
        shopper: None,
        items: vec![item],
    };
    let id = order.id;
    ledger.place_order(order).await.unwrap();
    ledger.claim(id, trip.shopper).await.unwrap();
    let start = StartTrip {
        trip: trip.id,
        shopper: trip.shopper,
        orders: vec![id],
        at: trip.started_at,
    };
    assert!(matches!(
        ledger.start_trip(start).await.unwrap(),
        Started::Trip(_)
    ));
}

async fn with_stale_hold(said: Option<Result<Placed, TombstoneError>>) -> Reconciliation {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW)));
    let mut inputs = inputs(batches());
    inputs.ledger = Arc::new(MemoryLedger::new(clock.clone(), None));
    inputs.clock = clock.clone();
    let held = proposal(50, Rung::Primary);
    start_trip(inputs.ledger.as_ref(), held.trip.as_ref().unwrap()).await;
    let replies = inputs.ledger.hold(vec![held]).await.unwrap();
    assert!(matches!(
        replies[0],
        standin_core::ledger::HoldReply::Held { .. }
    ));
    clock.advance(Duration::from_secs(121));
    inputs.tombstones = said.map(|said| Arc::new(Says(said)) as Arc<dyn Tombstones>);
    run(&inputs, options()).await.unwrap()
}

#[tokio::test]
async fn a_stale_hold_is_released_only_after_its_tombstone_came_first() {
    let released = with_stale_hold(Some(Ok(Placed::First))).await;
    assert_eq!(
        (
            released.holds.stale,
            released.holds.released,
            released.holds.open
        ),
        (1, 1, 0)
    );
    assert_eq!(released.exit_code(), 0);

    let answered = with_stale_hold(Some(Ok(Placed::Answered))).await;
    assert_eq!((answered.holds.released, answered.holds.answered), (0, 1));
    assert_eq!((answered.holds.open, answered.exit_code()), (1, 0));

    let failed = TombstoneError {
        detail: "no leader".to_owned(),
    };
    for said in [Some(Err(failed)), None] {
        let kept = with_stale_hold(said).await;
        assert_eq!((kept.holds.released, kept.holds.open), (0, 1));
        assert_eq!(kinds(&kept), [FindingKind::StaleHold]);
        assert_eq!(kept.exit_code(), 2);
    }
}

#[tokio::test]
async fn a_run_that_cannot_read_its_logs_could_not_run() {
    let broken = Inputs {
        logs: vec![Arc::new(BrokenLog)],
        ..inputs(Vec::new())
    };
    assert!(matches!(
        run(&broken, options()).await,
        Err(RunError::Log(_))
    ));
    let mut twice = inputs(batches());
    twice.logs.push(twice.logs[0].clone());
    assert!(matches!(
        run(&twice, options()).await,
        Err(RunError::Twice(_))
    ));
}

#[tokio::test]
async fn draining_again_is_evidence_that_nothing_changes() {
    let inputs = inputs(batches());
    let report = run(&inputs, options()).await.unwrap();
    let log = LogContents::replay(log_id(), batches());
    let again = drain::again(inputs.ledger.as_ref(), &log, CALL)
        .await
        .unwrap();
    let DrainEvidence {
        cursor,
        again,
        rows_before,
        rows_after,
        ..
    } = again;
    assert_eq!((cursor, again.finalized, again.conflicts), (7, 0, 0));
    assert_eq!(again.already, report.totals.all.count());
    assert_eq!(rows_before, rows_after);
}

/// A ledger in which the primary has made a payment final by itself.
async fn by_the_primary_itself(inputs: &Inputs, proposal: &Proposal) {
    let proposal = Proposal {
        rung: Rung::PrimaryOnly,
        ..declined(proposal)
    };
    inputs.ledger.hold(vec![proposal.clone()]).await.unwrap();
    let advice = ledger::Advice {
        answer: proposal.answer(proposal.reason, 0),
        proposal,
        at: Timestamp::from_millis(NOW),
    };
    let advised = inputs.ledger.advise(advice).await.unwrap();
    assert_eq!(advised, ledger::Advised::Final);
}

fn declined(proposal: &Proposal) -> Proposal {
    Proposal {
        reason: Reason::WrongStore,
        ..proposal.clone()
    }
}

/// What its edge told the bank on its own, before the log took `proposal`.
fn told(proposal: &Proposal) -> Entry {
    let proposal = Proposal {
        rung: Rung::Isolated,
        why: Some(Why::Timeout),
        ..proposal.clone()
    };
    Entry::Advice(Box::new(Advice {
        answer: proposal.answer(proposal.reason, 0),
        proposal,
        given_at: Timestamp::from_millis(NOW),
    }))
}

#[tokio::test]
async fn the_logs_words_are_drained_over_what_the_primary_said_by_itself() {
    let logged = declined(&proposal(0, Rung::StandIn));
    let entry = Entry::Authorize(Box::new(logged.clone()));
    let batch = |index, entries| LogBatch {
        index,
        log_time_ms: NOW as u64 + index,
        entries,
    };
    for advised in [false, true] {
        let mut batches = vec![batch(1, vec![entry.clone()])];
        let mut words = logged.answer(logged.reason, 0);
        if advised {
            batches.push(batch(2, vec![told(&logged)]));
            (words.rung, words.why) = (Rung::Isolated, Some(Why::Timeout));
        }
        let inputs = inputs(batches.clone());
        by_the_primary_itself(&inputs, &logged).await;
        let report = run(&inputs, options()).await.unwrap();
        assert_eq!(kinds(&report), []);
        let matched = &report.logs[0];
        assert_eq!(
            (matched.matched, matched.drained_here, matched.cursor),
            (1, 1, batches.len() as u64)
        );
        let rows = all_rows(inputs.ledger.as_ref(), CALL).await.unwrap();
        assert_eq!(rows[0].answer, words);
        assert_eq!(rows[0].log.unwrap().1.index, 1);
        let log = LogContents::replay(log_id(), batches);
        let again = drain::again(inputs.ledger.as_ref(), &log, CALL).await;
        let again = again.unwrap();
        assert_eq!((again.again.finalized, again.again.already), (0, 1));
        assert_eq!(again.rows_before, again.rows_after);
    }
}

/// An edge that drains after it has heard an advice books the answer in the advice's words at once.
#[tokio::test]
async fn an_answer_booked_in_an_advices_words_is_matched() {
    let logged = proposal(0, Rung::Primary);
    let batches = vec![LogBatch {
        index: 1,
        log_time_ms: NOW as u64,
        entries: vec![Entry::Authorize(Box::new(logged.clone())), told(&logged)],
    }];
    let inputs = inputs(batches.clone());
    let mut booking = LogContents::replay(log_id(), batches).records[0]
        .booking()
        .unwrap();
    (booking.answer.rung, booking.answer.why) = (Rung::Isolated, Some(Why::Timeout));
    let step = DrainStep {
        log: log_id(),
        to: 1,
        outcomes: vec![booking.clone()],
        ..DrainStep::default()
    };
    inputs.ledger.book(step).await.unwrap();
    let report = run(&inputs, options()).await.unwrap();
    assert_eq!((kinds(&report), report.logs[0].matched), (vec![], 1));
    // In words that nobody said, it is not.
    booking.answer.rung = Rung::StandIn;
    let inputs = Inputs {
        ledger: Arc::new(MemoryLedger::new(inputs.clock.clone(), None)),
        ..inputs
    };
    let step = DrainStep {
        log: log_id(),
        to: 1,
        outcomes: vec![booking],
        ..DrainStep::default()
    };
    inputs.ledger.book(step).await.unwrap();
    let report = run(&inputs, options()).await.unwrap();
    assert_eq!(kinds(&report), [FindingKind::Differing, FindingKind::Sums]);
}

/// A new leader's first batch is blank, and the cursor goes over it.
#[tokio::test]
async fn draining_a_log_again_ends_at_blank_batches() {
    let inputs = inputs(batches());
    run(&inputs, options()).await.unwrap();
    let blank = |index| LogBatch {
        index,
        log_time_ms: 0,
        entries: Vec::new(),
    };
    let with_blanks = batches().into_iter().chain([blank(8), blank(9)]);
    let log = LogContents::replay(log_id(), with_blanks);
    let over_them = DrainStep {
        log: log.incarnation,
        from: 7,
        to: 9,
        outcomes: Vec::new(),
        rewordings: Vec::new(),
        reversals: Vec::new(),
        settlements: Vec::new(),
        actions: Vec::new(),
    };
    let moved = inputs.ledger.book(over_them).await.unwrap();
    assert!(matches!(moved, Booked::Moved(_)));
    let again = drain::again(inputs.ledger.as_ref(), &log, CALL);
    let again = tokio::time::timeout(CALL, again).await;
    let again = again.expect("it ends").unwrap();
    assert_eq!((again.cursor, again.rows_before), (9, again.rows_after));
}

#[tokio::test]
async fn answers_committed_past_the_deadline_are_late() {
    let inputs = inputs(batches());
    let strict = Options {
        answer_deadline: Duration::from_millis(450),
        ..options()
    };
    let report = run(&inputs, strict).await.unwrap();
    // Committed at 600 and 700 ms; the others by 400 ms.
    assert_eq!(report.late.count(), 2);
    assert_eq!(run(&inputs, options()).await.unwrap().late.count(), 0);
}

fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + CALL
}

#[tokio::test]
async fn a_directory_and_a_running_log_read_alike() {
    use std::collections::BTreeMap;
    use std::pin::Pin;

    use bytes::Bytes;
    use standin_wal::{
        Applied, Config, Group, GroupConfig, LoadError, Member, NodeId, Replicable, StateMachine,
        SystemTimeSource, Transport, TransportError,
    };

    struct Nothing;
    impl StateMachine for Nothing {
        type Outcome = ();
        fn apply(&mut self, _: Applied, _: &[u8]) {}
    }
    impl Replicable for Nothing {
        fn save(&self) -> Vec<u8> {
            Vec::new()
        }
        fn load(&mut self, _: &[u8]) -> Result<(), LoadError> {
            Ok(())
        }
        fn outcome_to_bytes((): &()) -> Vec<u8> {
            Vec::new()
        }
        fn outcome_from_bytes(_: &[u8]) -> Option<()> {
            Some(())
        }
    }
    type Called<'a> = Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + 'a>>;
    impl Transport for Nothing {
        fn call(&self, _: NodeId, _: &Member, _: Bytes, _: Duration) -> Called<'_> {
            Box::pin(async { Err(TransportError::Unreachable("alone".into())) })
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        segment_bytes: 1 << 20,
        batch_bytes_max: 64 << 10,
        budget_bytes: 8 << 20,
        ..Config::new(dir.path(), NodeId(1), "g")
    };
    let config = GroupConfig::new(config, Uuid::nil());
    let time = Box::new(SystemTimeSource::new());
    let group = Group::open(config, time, Nothing, Arc::new(Nothing));
    let group = group.await.unwrap();
    let alone = BTreeMap::from([(NodeId(1), String::new())]);
    group.enroll(&alone, "", far()).await.unwrap();
    let entries: Vec<Entry> = batches()
        .into_iter()
        .flat_map(|batch| batch.entries)
        .collect();
    for entry in &entries {
        let bytes = Bytes::from(entry.encode().unwrap());
        group.propose(bytes, far()).await.unwrap();
    }
    let (_, running) = LogSource::read(&group).await.unwrap();
    group.stop().await;
    let (_, stopped) = DirectoryLog::new(dir.path()).read().await.unwrap();
    assert_eq!(running, stopped);
    let read: Vec<Entry> = running
        .into_iter()
        .flat_map(|batch| batch.entries)
        .collect();
    assert_eq!(read, entries);
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(
        DirectoryLog::new(empty.path()).read().await,
        Err(SourceError::Directory { .. })
    ));
}
