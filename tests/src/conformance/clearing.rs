//! What the books of reconciliation do, in memory and on real Postgres.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a suite of assertions"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use standin_core::entry::{LogPosition, Settlement, SettlementKind};
use standin_core::id::{ShopperId, TransactionId};
use standin_core::ledger::clearing::{
    Acted, BesideAsk, CASE_ROWS_MAX, CaseAction, CaseEvent, CaseFilter, CaseOrder, CaseState,
    ClearingBooks, ClearingFile, ClearingLine, FileState, FoundCase, Kept, LineKind, NamedBy,
    StageStep, StagedLine,
};
use standin_core::ledger::{Card, DrainStep, ReconcileRun, Retry, SettlementRow};
use standin_core::money::{Currency, Money};
use standin_core::trip::TripChange;
use uuid::Uuid;

use super::ledger::{World, approve, at, declined, event, outcome, pick, shopper, step, uuid};

type Books = Arc<dyn ClearingBooks>;

/// Runs every case.
pub async fn every_case(books: Books) {
    files_are_opened_once_and_staged_by_compare_and_set(&books).await;
    a_file_read_by_another_mapping_is_replaced(&books).await;
    lines_are_told_by_payment_shopper_and_number(&books).await;
    what_stands_beside_a_payment_is_told(&books).await;
    cases_keep_their_state_until_their_facts_change(&books).await;
    cases_are_worked_on_and_audited(&books).await;
    cases_are_listed_in_pages_and_by_filter(&books).await;
    runs_are_told_the_last_first(&books).await;
}

fn file(sha256: &str, mapping: &str) -> ClearingFile {
    ClearingFile {
        id: uuid(),
        bank: "first-bank".parse().unwrap(),
        sha256: sha256.to_owned(),
        mapping: mapping.to_owned(),
        name: "november.csv".to_owned(),
        last_line: 3,
        staged_to: 0,
        state: FileState::Staging,
        opened_at: at(1),
    }
}

fn line(file: Uuid, number: u64) -> ClearingLine {
    ClearingLine {
        file,
        line: number,
        reference: Some(uuid()),
        kind: LineKind::Refund,
        transaction_id: None,
        named_by: None,
        shopper: None,
        code: Some("ABC234".to_owned()),
        merchant: Some("Target".to_owned()),
        network_id: Some("M1".to_owned()),
        terminal: Some("T1".to_owned()),
        amount: Money::from_minor(i64::try_from(number).unwrap(), Currency::USD),
        at: at(7),
    }
}

async fn stage(books: &Books, from: u64, to: u64, lines: Vec<ClearingLine>, of: Uuid) -> u64 {
    let lines = lines.into_iter();
    let step = StageStep {
        file: of,
        from,
        to,
        lines: lines.map(|line| StagedLine { line, card: None }).collect(),
    };
    books.stage(step).await.unwrap()
}

async fn files_are_opened_once_and_staged_by_compare_and_set(books: &Books) {
    let asked = file(&uuid().to_string(), "m");
    let opened = books.open_file(asked.clone()).await.unwrap();
    assert_eq!(opened, asked);
    let later = ClearingFile {
        opened_at: at(99),
        name: "copy.csv".to_owned(),
        ..asked.clone()
    };
    assert_eq!(books.open_file(later).await.unwrap(), opened);
    let id = opened.id;
    assert_eq!(
        stage(books, 0, 2, vec![line(id, 1), line(id, 2)], id).await,
        2
    );
    // Somebody else was there first: nothing changes, and it is told where staging is.
    assert_eq!(stage(books, 0, 3, vec![line(id, 3)], id).await, 2);
    assert_eq!(books.lines_at(id, vec![1, 2, 3]).await.unwrap().len(), 2);
    let error = books.complete_file(id).await.unwrap_err();
    assert_eq!(error.retry, Retry::Never);
    assert_eq!(stage(books, 2, 3, vec![], id).await, 3);
    assert!(!complete_ids(books).await.contains(&id));
    books.complete_file(id).await.unwrap();
    books.complete_file(id).await.unwrap();
    assert!(complete_ids(books).await.contains(&id));
    let unknown = StageStep {
        file: uuid(),
        from: 0,
        to: 1,
        lines: vec![],
    };
    assert_eq!(books.stage(unknown).await.unwrap_err().retry, Retry::Never);
}

async fn complete_ids(books: &Books) -> Vec<Uuid> {
    let bank = "first-bank".parse().unwrap();
    let files = books.clearing_files(bank).await.unwrap();
    files.iter().map(|file| file.id).collect()
}

async fn a_file_read_by_another_mapping_is_replaced(books: &Books) {
    let sha256 = uuid().to_string();
    let mut ids = Vec::new();
    for mapping in ["one", "two"] {
        let opened = books.open_file(file(&sha256, mapping)).await.unwrap();
        stage(books, 0, 3, vec![], opened.id).await;
        books.complete_file(opened.id).await.unwrap();
        ids.push(opened.id);
    }
    let complete = complete_ids(books).await;
    assert_eq!(
        ids.iter()
            .map(|id| complete.contains(id))
            .collect::<Vec<_>>(),
        [false, true]
    );
    // The first mapping again: its lines are still there.
    books.complete_file(ids[0]).await.unwrap();
    let complete = complete_ids(books).await;
    assert!(complete.contains(&ids[0]) && !complete.contains(&ids[1]));
}

async fn lines_are_told_by_payment_shopper_and_number(books: &Books) {
    let payment = TransactionId::from_uuid(uuid());
    let (named, carrier) = (shopper(), shopper());
    let token = format!("card-{}", uuid());
    let card = Card {
        bank: "first-bank".parse().unwrap(),
        token,
    };
    books.set_card(card.clone(), Some(carrier)).await.unwrap();
    let opened = books
        .open_file(file(&uuid().to_string(), "m"))
        .await
        .unwrap();
    let id = opened.id;
    let by_payment = ClearingLine {
        transaction_id: Some(payment),
        named_by: Some(NamedBy::Key),
        shopper: Some(named),
        ..line(id, 1)
    };
    let staged = |line, card| StagedLine { line, card };
    let step = StageStep {
        file: id,
        from: 0,
        to: 3,
        lines: vec![
            staged(by_payment.clone(), Some(card.clone())),
            staged(line(id, 2), Some(card)),
            staged(line(id, 3), None),
        ],
    };
    books.stage(step).await.unwrap();
    let ask = async |payments: Vec<TransactionId>, shoppers: Vec<ShopperId>| {
        let ask = BesideAsk {
            payments,
            shoppers,
            trips: Vec::new(),
        };
        let beside = books.beside(ask).await.unwrap();
        beside
            .lines
            .iter()
            .map(|line| line.line)
            .collect::<Vec<_>>()
    };
    assert_eq!(ask(vec![payment], vec![]).await, [1]);
    // Who is named holds; else whoever carries the card. Each line once.
    assert_eq!(ask(vec![], vec![named]).await, [1]);
    assert_eq!(ask(vec![payment], vec![named, carrier]).await, [1, 2]);
    assert_eq!(ask(vec![], vec![shopper()]).await, [0; 0]);
    let told = books.lines_at(id, vec![3, 1, 9]).await.unwrap();
    assert_eq!(
        told.iter().map(|line| line.line).collect::<Vec<_>>(),
        [1, 3]
    );
    assert_eq!(told[0], by_payment);
}

async fn what_stands_beside_a_payment_is_told(books: &Books) {
    let books_of_both: Books = Arc::clone(books);
    let world = World::of(books_of_both);
    let sheet = world.trip().await;
    let (one, other) = (approve(&sheet, 500, 1_000), approve(&sheet, 200, 1_000));
    let id = one.transaction_id;
    let movement = Settlement {
        id: uuid(),
        bank: one.request.bank.clone(),
        kind: SettlementKind::Capture,
        transaction_id: Some(id),
        shopper: None,
        amount: Money::from_minor(500, Currency::USD),
        at: at(7),
    };
    let log = uuid();
    let first = DrainStep {
        settlements: vec![SettlementRow {
            settlement: movement.clone(),
            at: LogPosition { index: 1, slot: 5 },
        }],
        ..step(log, 1, vec![outcome(&one, 1, 0)])
    };
    books.book(first).await.unwrap();
    // Another answer to the same request is in conflict.
    let denied = declined(one.clone(), standin_core::answer::Reason::OverCap);
    books
        .book(step(log, 2, vec![outcome(&denied, 2, 0)]))
        .await
        .unwrap();
    books
        .book_events(vec![pick(&sheet, 1, Some(1_234))])
        .await
        .unwrap();
    let ask = || BesideAsk {
        payments: vec![id, other.transaction_id],
        shoppers: vec![],
        trips: vec![
            (sheet.trip.shopper, sheet.trip.id),
            (shopper(), sheet.trip.id),
        ],
    };
    let beside = books.beside(ask()).await.unwrap();
    assert_eq!(beside.movements, [movement]);
    assert_eq!(beside.conflicted, BTreeSet::from([id]));
    let [receipt] = beside.receipts.as_slice() else {
        panic!("{:?}", beside.receipts);
    };
    assert_eq!(receipt.trip, sheet.trip.id);
    assert_eq!(receipt.picked, Money::from_minor(1_234, Currency::USD));
    assert!(!receipt.closed);
    let finish = event(&sheet, TripChange::Finish);
    books.book_events(vec![finish]).await.unwrap();
    assert!(books.beside(ask()).await.unwrap().receipts[0].closed);
    let known = books.known_payments(vec![id, other.transaction_id]);
    assert_eq!(known.await.unwrap(), BTreeSet::from([id]));
    assert!(books.cursors().await.unwrap().contains(&(log, 2)));
}

fn found(kind: &str) -> FoundCase {
    FoundCase {
        id: uuid(),
        kind: kind.to_owned(),
        bank: Some("first-bank".parse().unwrap()),
        transaction_id: Some(TransactionId::from_uuid(uuid())),
        shopper: Some(shopper()),
        subject: "payment 1".to_owned(),
        detail: "the payment was charged".to_owned(),
        amount: 12,
        currency: Some(Currency::USD),
        occurred_at: at(3),
        facts: "1|2".to_owned(),
    }
}

async fn keep(books: &Books, found: &FoundCase) -> (CaseState, Option<String>, Kept) {
    let kept = books.keep_cases(vec![found.clone()], at(50)).await.unwrap();
    let one = kept.into_iter().next().unwrap();
    (one.state, one.owner, one.kept)
}

fn action(case: Uuid, what: CaseOrder) -> CaseAction {
    CaseAction {
        case,
        actor: "ada".to_owned(),
        at: at(60),
        reason: "because".to_owned(),
        what,
    }
}

fn assign(to: &str) -> CaseOrder {
    CaseOrder::Assign { to: to.to_owned() }
}

async fn cases_keep_their_state_until_their_facts_change(books: &Books) {
    let one = found("over_capture");
    assert_eq!(keep(books, &one).await, (CaseState::Open, None, Kept::New));
    assert_eq!(
        keep(books, &one).await,
        (CaseState::Open, None, Kept::Known)
    );
    let other = FoundCase {
        facts: "1|3".to_owned(),
        amount: 13,
        detail: "more".to_owned(),
        ..one.clone()
    };
    assert_eq!(
        keep(books, &other).await,
        (CaseState::Open, None, Kept::Changed)
    );
    let resolved = action(one.id, CaseOrder::Resolve);
    books.act_on_case(resolved).await.unwrap();
    let still = (CaseState::Resolved, None, Kept::Known);
    assert_eq!(keep(books, &other).await, still);
    assert_eq!(
        keep(books, &one).await,
        (CaseState::Open, None, Kept::Reopened)
    );
    let (case, trail) = books.case(one.id).await.unwrap().unwrap();
    assert_eq!(case.found, one);
    assert_eq!((case.state, case.found_at), (CaseState::Open, at(50)));
    let words: Vec<&str> = trail.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(words, ["found", "changed", "resolved", "reopened"]);
    // Twice in one call is one case.
    let twice = found("no_clearing");
    let otherwise = FoundCase {
        facts: "9".to_owned(),
        ..twice.clone()
    };
    let both = books.keep_cases(vec![twice.clone(), otherwise], at(50));
    let both: Vec<Kept> = both.await.unwrap().iter().map(|one| one.kept).collect();
    assert_eq!(both, [Kept::New, Kept::Known]);
    assert_eq!(keep(books, &twice).await.2, Kept::Known);
    let many = vec![twice; CASE_ROWS_MAX + 1];
    let error = books.keep_cases(many, at(50)).await.unwrap_err();
    assert_eq!(error.retry, Retry::Never);
}

async fn cases_are_worked_on_and_audited(books: &Books) {
    let one = found("over_cap");
    keep(books, &one).await;
    let act = async |what| books.act_on_case(action(one.id, what)).await.unwrap();
    let Acted::Done(case) = act(assign("bea")).await else {
        panic!("not assigned");
    };
    assert_eq!(case.state, CaseState::Assigned);
    assert_eq!(case.owner.as_deref(), Some("bea"));
    assert_eq!(
        act(assign("bea")).await,
        Acted::Already(CaseState::Assigned)
    );
    let Acted::Done(case) = act(CaseOrder::WriteOff).await else {
        panic!("not written off");
    };
    assert_eq!(case.state, CaseState::WrittenOff);
    assert_eq!(case.owner.as_deref(), Some("bea"));
    let nobodys = books.act_on_case(action(uuid(), CaseOrder::Resolve));
    assert_eq!(nobodys.await.unwrap(), Acted::Unknown);
    for wrong in [assign(" "), assign("a\0b"), assign(&"x".repeat(1_001))] {
        let error = books.act_on_case(action(one.id, wrong)).await.unwrap_err();
        assert_eq!(error.retry, Retry::Never);
    }
    let (_, trail) = books.case(one.id).await.unwrap().unwrap();
    let last = CaseEvent {
        at: at(60),
        actor: "ada".to_owned(),
        action: "written_off".to_owned(),
        owner: Some("bea".to_owned()),
        reason: "because".to_owned(),
    };
    assert_eq!(trail.len(), 3);
    assert_eq!(trail[2], last);
    let audit = books.audit(10_000).await.unwrap();
    let of_case = |word: &str| format!("finding.{word} {}", one.id);
    for word in ["assigned", "written_off"] {
        let rows = audit.iter().filter(|row| row.action == of_case(word));
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows.len(), 1, "{word}");
        assert_eq!(
            (rows[0].operator.as_str(), rows[0].reason.as_str()),
            ("ada", "because")
        );
    }
    assert_eq!(books.case(uuid()).await.unwrap(), None);
}

async fn cases_are_listed_in_pages_and_by_filter(books: &Books) {
    let kind = format!("kind-{}", uuid());
    let mut all: Vec<FoundCase> = (0..5).map(|_| found(&kind)).collect();
    books.keep_cases(all.clone(), at(50)).await.unwrap();
    all.sort_by_key(|case| case.id);
    books
        .act_on_case(action(all[3].id, assign("cy")))
        .await
        .unwrap();
    let of_kind = CaseFilter {
        kind: Some(kind.clone()),
        ..CaseFilter::default()
    };
    let (mut told, mut after) = (Vec::new(), None);
    loop {
        let page = books.cases(of_kind.clone(), after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.found.id);
        told.extend(page.into_iter().map(|case| case.found.id));
    }
    assert_eq!(told, all.iter().map(|case| case.id).collect::<Vec<_>>());
    let count = async |filter: CaseFilter| {
        let filter = CaseFilter {
            kind: Some(kind.clone()),
            ..filter
        };
        books.cases(filter, None, 100).await.unwrap().len()
    };
    let of_state = |state| CaseFilter {
        state: Some(state),
        ..CaseFilter::default()
    };
    assert_eq!(count(of_state(CaseState::Open)).await, 4);
    assert_eq!(count(of_state(CaseState::Assigned)).await, 1);
    let owner = CaseFilter {
        owner: Some("cy".to_owned()),
        ..CaseFilter::default()
    };
    assert_eq!(count(owner).await, 1);
    let bank = CaseFilter {
        bank: "other".parse().ok(),
        ..CaseFilter::default()
    };
    assert_eq!(count(bank).await, 0);
}

async fn runs_are_told_the_last_first(books: &Books) {
    let run = |ended: i64| ReconcileRun {
        id: uuid(),
        started_at: at(ended - 1),
        ended_at: at(ended),
        report: serde_json::json!({ "ended": ended }),
        findings: Vec::new(),
    };
    let [first, last, same] = [run(1_000_000), run(1_000_002), run(1_000_002)];
    for kept in [&last, &first, &same, &last] {
        books.record_run(kept.clone()).await.unwrap();
    }
    let told = books.runs(None, 2).await.unwrap();
    let mut expected = [last.id, same.id];
    expected.sort_by_key(|id| std::cmp::Reverse(*id));
    let ids: Vec<Uuid> = told.iter().map(|run| run.id).collect();
    assert_eq!(ids, expected, "by their ids where they ended at once");
    let before = told.last().map(|run| run.place());
    let earlier = books.runs(before, 10).await.unwrap();
    let next = earlier.first().unwrap();
    assert_eq!(next.id, first.id);
    assert_eq!(next.report, first.report);
    assert_eq!(
        (next.started_at, next.ended_at),
        (first.started_at, first.ended_at)
    );
    let before_all = Some((at(0), Uuid::nil()));
    assert_eq!(books.runs(before_all, 10).await.unwrap(), []);
    assert_eq!(books.runs(None, 0).await.unwrap(), []);
}
