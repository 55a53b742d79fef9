//! Files become lines, bad lines or refusals.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::io::Write as _;

use standin_core::id::BankId;
use standin_core::identity::{Operation, of_key};
use standin_core::ledger::clearing::{ClearingLine, LineKind, NamedBy};
use standin_core::money::Money;
use uuid::Uuid;

use super::super::file::{BadLine, FileError, FileSums, ReadLine, Reader};
use super::super::mapping::{Mapping, MappingError};

const NAMED: &str = include_str!("../../../../../docs/clearing/marqeta-like.toml");
const PLACED: &str = include_str!("../../../../../docs/clearing/processor-like.toml");

type Read = (Vec<ClearingLine>, Vec<BadLine>, Result<FileSums, FileError>);

fn read(mapping: &str, text: &str) -> Read {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let mapping = Mapping::parse(mapping).unwrap();
    let mut reader = Reader::open(file.path(), &mapping, &bank(), Uuid::nil()).unwrap();
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    loop {
        match reader.next_line() {
            Ok(Some(ReadLine::Line(staged))) => lines.push(staged.line),
            Ok(Some(ReadLine::Bad(line))) => bad.push(line),
            Ok(None) => return (lines, bad, reader.finish()),
            Err(error) => return (lines, bad, Err(error)),
        }
    }
}

fn bank() -> BankId {
    "acme".parse().unwrap()
}

fn usd(minor: i64) -> Money {
    Money::from_minor(minor, standin_core::money::Currency::USD)
}

const HEADER: &str = "transaction_token,jit_funding_token,card_token,type,amount,currency_code,\
     settlement_date,approval_code,merchant_name,mid,tid\n";

fn named(row: &str) -> Read {
    read(NAMED, &format!("{HEADER}{row}\n"))
}

#[test]
fn a_row_of_named_columns_becomes_a_line() {
    let row = "t-1,j-1,card-9,authorization.clearing,12.34,USD,2026-11-02T03:04:05.678-05:00,\
         ABC234, Target ,M1,T1";
    let (lines, bad, sums) = named(row);
    assert_eq!(bad, []);
    let [line] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    assert_eq!(line.line, 2);
    assert_eq!(line.kind, LineKind::Capture);
    assert_eq!(line.amount, usd(1_234));
    let id = of_key(&bank(), Operation::Authorize, "j-1");
    assert_eq!(line.transaction_id, Some(id));
    assert_eq!(line.named_by, Some(NamedBy::Key));
    assert_eq!(line.at.to_string(), "2026-11-02T08:04:05.678Z");
    assert_eq!(line.merchant.as_deref(), Some("Target"));
    let sums = sums.unwrap();
    assert_eq!((sums.records, sums.lines, sums.bad), (1, 1, 0));
    assert!(!sums.confirmed);
}

#[test]
fn signs_and_sorts_say_what_happened() {
    for (sort, amount, expected) in [
        ("authorization.clearing", "-5", Some(LineKind::Refund)),
        ("refund", "-5", Some(LineKind::Refund)),
        ("refund", "5", Some(LineKind::Refund)),
        ("authorization.reversal", "5", Some(LineKind::Reversal)),
        ("transaction.forced", "5", Some(LineKind::ForcePost)),
        ("authorization.declined", "5", Some(LineKind::Declined)),
        ("fee.charge", "5", None),
    ] {
        let row = format!("t,j,c,{sort},{amount},USD,2026-11-02T00:00:00Z,,,,");
        let (lines, bad, sums) = named(&row);
        assert_eq!(bad, [], "{sort}");
        let kinds: Vec<LineKind> = lines.iter().map(|line| line.kind).collect();
        assert_eq!(kinds, Vec::from_iter(expected), "{sort}");
        assert!(lines.iter().all(|line| line.amount == usd(500)));
        let ignored = u64::from(expected.is_none());
        assert_eq!(sums.unwrap().ignored, ignored);
    }
}

#[test]
fn bad_lines_are_named_and_never_quoted() {
    let good = "t-1,j-1,c,refund,1.00,USD,2026-11-02T00:00:00Z,,,,";
    for (row, column, reason) in [
        (
            "t,j,c,refund,1.001,USD,2026-11-02T00:00:00Z,,,,",
            "amount",
            "does not read",
        ),
        (
            "t,j,c,refund,,USD,2026-11-02T00:00:00Z,,,,",
            "amount",
            "is empty",
        ),
        (
            "t,j,c,refund,1,XXQ,2026-11-02T00:00:00Z,,,,",
            "currency",
            "is none",
        ),
        ("t,j,c,refund,1,USD,2 November,,,,", "time", "does not read"),
        (
            "t,j,c,gift,1,USD,2026-11-02T00:00:00Z,,,,",
            "kind",
            "is a word that the mapping does not know",
        ),
        ("t,j,c,refund,1", "currency", "is not there"),
        (
            "t,j,4111111111111111,refund,1,USD,2026-11-02T00:00:00Z,,,,",
            "card",
            "holds a card number where a token should be",
        ),
        (
            "t,j,c,refund,1,USD,2026-11-02T00:00:00Z,,pay 4111 1111 1111 1111,,",
            "merchant",
            "holds a card number",
        ),
    ] {
        let (lines, bad, sums) = named(&format!("{row}\n{good}"));
        let expected = BadLine {
            line: 2,
            column: column.to_owned(),
            reason: reason.to_owned(),
        };
        assert_eq!(bad, [expected], "{row}");
        assert_eq!(lines.len(), 1);
        let sums = sums.unwrap();
        assert_eq!((sums.records, sums.lines, sums.bad), (2, 1, 1));
    }
    let (_, _, alone) = named("t,j,c,gift,1,USD,2026-11-02T00:00:00Z,,,,");
    assert!(matches!(alone, Err(FileError::AllBad { line: 2, .. })));
}

const PLACED_ROW: &str = "DTL;r-1;123456;000123;1101120000;TERM0001;MERCHANT0000001;STORE 001;\
     000000001234;840;D;05;20261102130000;ABC234;42";

fn placed(rows: &str, trailer: &str) -> Read {
    read(PLACED, &format!("HDR;ACME\n{rows}\n{trailer}"))
}

#[test]
fn a_row_of_placed_columns_becomes_a_line_in_its_zone() {
    let (lines, bad, sums) = placed(PLACED_ROW, "TRL;1;1234\n");
    assert_eq!(bad, []);
    let key = "123456|000123|1101120000|TERM0001|MERCHANT0000001";
    let id = of_key(&bank(), Operation::Authorize, key);
    assert_eq!(lines.first().unwrap().transaction_id, Some(id));
    // Chicago, after daylight saving time has ended.
    let at = lines.first().unwrap().at;
    assert_eq!(at.to_string(), "2026-11-02T19:00:00.000Z");
    assert!(sums.unwrap().confirmed);
    let back = PLACED_ROW.replace(";D;05;", ";C;05;");
    let (lines, ..) = placed(&back, "TRL;1;1234");
    assert_eq!(lines.first().unwrap().kind, LineKind::Refund);
}

#[test]
fn a_file_that_its_trailer_does_not_confirm_is_refused() {
    let refusal = |rows: &str, trailer: &str| placed(rows, trailer).2.unwrap_err();
    let two = format!("{PLACED_ROW}\n{PLACED_ROW}");
    assert!(matches!(
        refusal(&two, "TRL;3;2468"),
        FileError::Count { said: 3, found: 2 }
    ));
    assert!(matches!(
        refusal(&two, "TRL;2;2469"),
        FileError::Sum {
            said: 2_469,
            found: 2_468
        }
    ));
    assert!(matches!(refusal(&two, ""), FileError::NoTrailer));
    assert!(matches!(refusal(&two, "TRL;x;1"), FileError::Trailer(_)));
    let after = format!("TRL;1;1234\n{PLACED_ROW}");
    assert!(matches!(
        refusal(PLACED_ROW, &after),
        FileError::AfterTrailer(4)
    ));
    // A bad line is counted by the trailer too, and its amount if that reads.
    let bad = PLACED_ROW.replace("20261102130000", "yesterday");
    let (lines, bad, sums) = placed(&format!("{PLACED_ROW}\n{bad}"), "TRL;2;2468");
    assert_eq!((lines.len(), bad.len()), (1, 1));
    assert!(sums.unwrap().confirmed);
}

#[test]
fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
    let endless = format!("{HEADER}\"{}", "x".repeat(1 << 20));
    assert!(matches!(
        read(NAMED, &endless).2,
        Err(FileError::Csv(_) | FileError::Io(_))
    ));
}

#[test]
fn a_mapping_that_reads_nothing_is_refused() {
    for (from, to) in [
        ("zone = \"America/New_York\"", "zone = \"Nowhere/Else\""),
        ("form = \"rfc3339\"", "form = \"%!\""),
        ("currency = \"currency_code\"", ""),
        ("kind = \"type\"", ""),
        ("variance_bp = 100", "variance_bp = -1"),
        ("[columns]", "[columns]\nunheard_of = 3"),
        ("amount = \"amount\"", "amount = 0"),
    ] {
        assert!(NAMED.contains(from), "{from}");
        let text = NAMED.replacen(from, to, 1);
        assert!(Mapping::parse(&text).is_err(), "{to}");
    }
    let long = format!("{NAMED}\n#{}", "x".repeat(70_000));
    assert!(matches!(Mapping::parse(&long), Err(MappingError::Large)));
    let missing = HEADER.replace("mid", "other");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(missing.as_bytes()).unwrap();
    let mapping = Mapping::parse(NAMED).unwrap();
    let opened = Reader::open(file.path(), &mapping, &bank(), Uuid::nil());
    assert!(matches!(opened.err(), Some(FileError::NoColumn(name)) if name == "mid"));
}
