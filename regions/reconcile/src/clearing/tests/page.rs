//! The report's sums and its page.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;

use standin_core::clock::Timestamp;
use standin_core::id::ShopperId;
use standin_core::ledger::clearing::{CaseState, LineKind};
use standin_core::money::{Currency, Money};
use uuid::Uuid;

use super::super::file::{BadLine, FileSums, KindSum};
use super::super::kind::{Age, DiscrepancyKind};
use super::super::matching::{Discrepancy, LineOutcome, Outcome, Standing};
use super::super::report::html::settlement;
use super::super::report::{FindingLine, Period, SettlementReport, Watermark};
use super::super::rules::Rules;
use super::super::tally::{Counting, NAMED_MAX, Tally};

fn usd(minor: i64) -> Money {
    Money::from_minor(minor, Currency::USD)
}

fn found(shopper: i64, minor: i64) -> Discrepancy {
    Discrepancy {
        kind: DiscrepancyKind::MissingAtUs,
        subject: format!("line {shopper}"),
        transaction_id: None,
        shopper: ShopperId::try_from(shopper).ok(),
        row: None,
        line: Some(1),
        authorized: None,
        cleared: Some(minor),
        receipt: None,
        at_stake: usd(minor),
        at: Timestamp::from_millis(0),
        detail: "a <capture> of something".to_owned(),
    }
}

/// One unmatched line for each of so many shoppers; the last is written off.
fn tally(shoppers: i64) -> Tally {
    let mut counting = Counting::default();
    for shopper in 1..=shoppers {
        let line = LineOutcome {
            line: u64::try_from(shopper).unwrap(),
            standing: Standing::Off(DiscrepancyKind::MissingAtUs),
            kind: LineKind::Capture,
            amount: usd(shopper),
        };
        counting.outcome(&Outcome {
            lines: vec![line],
            ..Outcome::default()
        });
        let state = if shopper == shoppers {
            CaseState::WrittenOff
        } else {
            CaseState::Open
        };
        counting.found(&found(shopper, shopper), state, Timestamp::from_millis(1));
    }
    counting.finish()
}

fn sums(lines: u64, minor: i128) -> FileSums {
    let kind = KindSum {
        count: lines,
        minor: BTreeMap::from([(Currency::USD, minor)]),
    };
    FileSums {
        records: lines,
        lines,
        kinds: BTreeMap::from([(LineKind::Capture, kind)]),
        ..FileSums::default()
    }
}

#[test]
fn sums_add_up_and_one_that_does_not_is_named() {
    let tally = tally(100);
    assert!(tally.broken(&sums(100, 5_050)).is_empty());
    assert_eq!(tally.unsettled(), 99);
    let exposure = &tally.exposure;
    assert_eq!(exposure.all.minor[&Currency::USD], 4_950);
    assert_eq!(exposure.by_shopper.len(), NAMED_MAX + 1);
    assert_eq!(exposure.by_shopper[0].name, "99");
    let kind = &tally.kinds[&DiscrepancyKind::MissingAtUs];
    assert_eq!(kind.written_off.minor[&Currency::USD], 100);
    // A line too few, a cent too many, an exposure that lost something.
    assert_eq!(tally.broken(&sums(101, 5_050)).len(), 2);
    assert_eq!(tally.broken(&sums(100, 5_051)).len(), 1);
    let mut lost = tally;
    lost.exposure.by_shopper.pop();
    assert_eq!(lost.broken(&sums(100, 5_050)).len(), 1);
}

/// Three lines that nobody met, one finding shown of them, one bad line.
fn report() -> SettlementReport {
    let tally = tally(3);
    SettlementReport {
        bank: "acme".parse().unwrap(),
        layout: "a layout".to_owned(),
        file: "november.csv".to_owned(),
        mapping_sha256: "cd".to_owned(),
        sums: sums(3, 6),
        other_files: Vec::new(),
        period: Period {
            from: "2026-11-01T00:00:00-05:00".to_owned(),
            until: "2026-12-01T00:00:00-06:00".to_owned(),
            as_of: "2026-12-02T00:00:00-06:00".to_owned(),
            zone: "America/Chicago".to_owned(),
        },
        watermark: vec![Watermark {
            log: Uuid::from_u128(6),
            index: 99,
        }],
        rules: Rules::default(),
        broken: tally.broken(&sums(3, 6)),
        tally,
        findings: vec![finding()],
        findings_unlisted: 0,
        bad_lines: vec![BadLine {
            line: 8,
            column: "time".to_owned(),
            reason: "does not read".to_owned(),
        }],
        bad_lines_unlisted: 0,
    }
}

fn finding() -> FindingLine {
    FindingLine {
        id: Uuid::from_u128(5),
        kind: DiscrepancyKind::MissingAtUs,
        state: CaseState::Assigned,
        owner: Some("<bea>".to_owned()),
        age: Age::Week,
        at: "2026-11-02T00:00:00Z".to_owned(),
        transaction_id: None,
        line: Some(7),
        shopper: None,
        trip: None,
        store: None,
        rung: None,
        why: None,
        log: None,
        log_index: None,
        log_slot: None,
        currency: Currency::USD,
        picked: None,
        cap: None,
        authorized: None,
        cleared: Some(1_234),
        receipt: None,
        at_stake: 1_234,
        detail: "a <capture>".to_owned(),
    }
}

#[test]
fn the_page_shows_every_part_and_escapes_what_it_shows() {
    let mut report = report();
    let page = settlement(&report).unwrap();
    for part in [
        "2 discrepancies need attention",
        "America/Chicago",
        "November".to_lowercase().as_str(),
        "Exposure by shopper",
        "12.34",
        "assigned, &#60;bea&#62;",
        "a &#60;capture&#62;",
        "does not read",
        "✓ Every line",
        "And 2 more, in findings.csv",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<capture>"));
    assert_eq!(report.exit_code(), 2);
    report.broken.push("something <is> off".to_owned());
    let page = settlement(&report).unwrap();
    assert!(page.contains("✗ something &#60;is&#62; off"));
    let text = serde_json::to_string(&report).unwrap();
    let back: SettlementReport = serde_json::from_str(&text).unwrap();
    assert_eq!(back, report);
}
