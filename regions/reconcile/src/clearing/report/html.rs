//! `settlement.html`: one file with everything in it, made from the same struct as `settlement.json`.

use askama::Template;

use standin_core::ledger::clearing::LineKind;
use standin_core::money::Money;

use super::super::file::KindSum;
use super::super::kind::{Age, DiscrepancyKind, LineState, PaymentState};
use super::super::tally::Named;
use super::{FindingLine, SettlementReport};
use crate::totals::{grouped, in_words};

/// Most discrepancies shown on the page; the report and `findings.csv` have more.
const SHOWN_MAX: usize = 200;

#[derive(Template)]
#[template(path = "settlement.html")]
struct Page<'a> {
    report: &'a SettlementReport,
    verdict: String,
    about: Vec<(&'static str, String)>,
    tiles: Vec<(String, &'static str, bool)>,
    tables: Vec<Table>,
    shown: &'a [FindingLine],
    not_shown: u64,
}

/// A table of counts and sums.
struct Table {
    title: &'static str,
    note: &'static str,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// The page of a settlement report.
///
/// # Errors
/// When the template cannot be rendered, which a test rules out for every part of it.
pub fn settlement(report: &SettlementReport) -> Result<String, askama::Error> {
    let shown = report.findings.get(..SHOWN_MAX).unwrap_or(&report.findings);
    let shown_count = u64::try_from(shown.len()).unwrap_or(u64::MAX);
    Page {
        report,
        verdict: verdict(report),
        about: about(report),
        tiles: tiles(report),
        tables: vec![
            kinds(report),
            ageing(report),
            exposure("by rung", report.tally.exposure.by_rung.iter()),
            exposure("by store", named(&report.tally.exposure.by_store)),
            exposure("by log", named(&report.tally.exposure.by_log)),
            exposure("by shopper", named(&report.tally.exposure.by_shopper)),
            payments(report),
            lines(report),
            movements(report),
        ],
        shown,
        not_shown: report.tally.discrepancies().saturating_sub(shown_count),
    }
    .render()
}

fn verdict(report: &SettlementReport) -> String {
    let mut parts = Vec::new();
    let mut part = |count: u64, one: &str, more: &str| {
        if count > 0 {
            let word = if count == 1 { one } else { more };
            parts.push(format!("{} {word}", number(count)));
        }
    };
    part(
        report.tally.unsettled(),
        "discrepancy needs attention",
        "discrepancies need attention",
    );
    part(report.sums.bad, "bad line", "bad lines");
    if !report.broken.is_empty() {
        parts.push("the sums do not add up".to_owned());
    }
    if parts.is_empty() {
        return "Clean: every line has its payment, every payment its line, and the sums add up."
            .to_owned();
    }
    format!("{}.", parts.join(", "))
}

fn about(report: &SettlementReport) -> Vec<(&'static str, String)> {
    let period = &report.period;
    let mut about = vec![
        ("Bank", report.bank.to_string()),
        ("Layout", report.layout.clone()),
        ("File", report.file.clone()),
        ("SHA-256", report.sums.sha256.clone()),
        ("Mapping", report.mapping_sha256.clone()),
        ("From", period.from.clone()),
        ("Until", period.until.clone()),
        ("As of", period.as_of.clone()),
        ("Time zone", period.zone.clone()),
    ];
    for mark in &report.watermark {
        about.push(("Drained", format!("log {} to {}", mark.log, mark.index)));
    }
    for other in &report.other_files {
        about.push(("Beside", format!("{} ({})", other.name, other.sha256)));
    }
    about
}

fn tiles(report: &SettlementReport) -> Vec<(String, &'static str, bool)> {
    let tally = &report.tally;
    let captured = report.sums.kinds.get(&LineKind::Capture);
    vec![
        (number(report.sums.lines), "lines", true),
        (number(report.sums.bad), "bad lines", report.sums.bad == 0),
        (number(tally.all_payments()), "payments", true),
        (
            captured.map_or_else(|| "0".to_owned(), |sum| in_words(&sum.minor)),
            "captured by the file",
            true,
        ),
        (
            number(tally.unsettled()),
            "discrepancies to settle",
            tally.unsettled() == 0,
        ),
        (
            in_words(&tally.exposure.all.minor),
            "at stake in them",
            tally.exposure.all.count == 0,
        ),
    ]
}

fn kinds(report: &SettlementReport) -> Table {
    let rows = report.tally.kinds.iter().map(|(kind, sum)| {
        vec![
            kind.as_str().to_owned(),
            number(sum.all.count),
            in_words(&sum.all.minor),
            number(sum.unsettled.count),
            in_words(&sum.unsettled.minor),
            in_words(&sum.written_off.minor),
            kind.meaning().to_owned(),
        ]
    });
    Table {
        title: "Discrepancies by sort",
        note: "",
        head: vec![
            "sort",
            "found",
            "at stake",
            "to settle",
            "at stake in these",
            "written off",
            "meaning",
        ],
        rows: rows.collect(),
    }
}

fn ageing(report: &SettlementReport) -> Table {
    let rows = Age::ALL.iter().map(|age| {
        let sum = report.tally.ageing.get(age);
        let none = KindSum::default();
        let sum = sum.unwrap_or(&none);
        vec![
            age.as_str().to_owned(),
            number(sum.count),
            in_words(&sum.minor),
        ]
    });
    Table {
        title: "Ageing of what is to settle",
        note: "",
        head: vec!["age", "discrepancies", "at stake"],
        rows: rows.collect(),
    }
}

fn exposure<'a>(
    title: &'static str,
    sums: impl Iterator<Item = (&'a String, &'a KindSum)>,
) -> Table {
    let rows = sums.map(|(name, sum)| vec![name.clone(), number(sum.count), in_words(&sum.minor)]);
    Table {
        title: match title {
            "by rung" => "Exposure by rung",
            "by store" => "Exposure by store",
            "by log" => "Exposure by log",
            _ => "Exposure by shopper",
        },
        note: "Money at stake in discrepancies that nobody has settled.",
        head: vec!["whose", "discrepancies", "at stake"],
        rows: rows.collect(),
    }
}

fn named(all: &[Named]) -> impl Iterator<Item = (&String, &KindSum)> {
    all.iter().map(|one| (&one.name, &one.sum))
}

fn payments(report: &SettlementReport) -> Table {
    let rows = report.tally.payments.iter().map(|(word, sum)| {
        vec![
            word.clone(),
            number(sum.count),
            in_words(&sum.authorized_minor),
            in_words(&sum.cleared_minor),
            meaning(word),
        ]
    });
    Table {
        title: "Payments by where they stand",
        note: "Each payment once: one with several discrepancies under the worst.",
        head: vec!["standing", "payments", "authorized", "cleared", "meaning"],
        rows: rows.collect(),
    }
}

fn lines(report: &SettlementReport) -> Table {
    let rows = report.tally.lines.iter().map(|(word, sum)| {
        vec![
            word.clone(),
            number(sum.count),
            in_words(&sum.minor),
            meaning(word),
        ]
    });
    Table {
        title: "Lines by how they found their payment",
        note: "Each line once.",
        head: vec!["standing", "lines", "money", "meaning"],
        rows: rows.collect(),
    }
}

fn movements(report: &SettlementReport) -> Table {
    let rows = report.sums.kinds.iter().map(|(kind, sum)| {
        let none = KindSum::default();
        let counted = report.tally.line_kinds.get(kind).unwrap_or(&none);
        vec![
            kind.as_str().to_owned(),
            number(sum.count),
            in_words(&sum.minor),
            number(counted.count),
            in_words(&counted.minor),
        ]
    });
    Table {
        title: "The file, and what was accounted for",
        note: "",
        head: vec![
            "kind",
            "lines in the file",
            "money in the file",
            "lines accounted for",
            "money accounted for",
        ],
        rows: rows.collect(),
    }
}

fn meaning(word: &str) -> String {
    let payments = PaymentState::ALL
        .iter()
        .map(|one| (one.as_str(), one.meaning()));
    let lines = LineState::ALL
        .iter()
        .map(|one| (one.as_str(), one.meaning()));
    let kinds = DiscrepancyKind::ALL
        .iter()
        .map(|one| (one.as_str(), one.meaning()));
    let mut all = payments.chain(lines).chain(kinds);
    let found = all.find(|(known, _)| *known == word);
    found
        .map(|(_, meaning)| meaning.to_owned())
        .unwrap_or_default()
}

/// Whether a column of a [`Table`] holds counts or money.
fn is_figure(head: &str) -> bool {
    let words = ["sort", "age", "whose", "standing", "kind", "meaning"];
    !words.contains(&head)
}

fn number(count: u64) -> String {
    grouped(&count.to_string())
}

/// Minor units of a finding as people read them.
fn money(finding: &FindingLine, minor: Option<i64>) -> String {
    minor.map_or_else(
        || "none".to_owned(),
        |minor| Money::from_minor(minor, finding.currency).to_string(),
    )
}
