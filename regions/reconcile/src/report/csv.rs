//! `findings.csv`: what a run found, a line each.

use super::reconciliation::{Finding, Reconciliation};

const COLUMNS: [&str; 6] = [
    "kind",
    "transaction_id",
    "bank",
    "amount_minor",
    "currency",
    "detail",
];

/// The findings that a report lists.
///
/// # Errors
/// When a line cannot be written, which memory does not refuse.
pub fn findings(report: &Reconciliation) -> std::io::Result<String> {
    let mut lines = csv::Writer::from_writer(Vec::new());
    lines.write_record(COLUMNS)?;
    for finding in &report.findings {
        lines.write_record(cells(finding))?;
    }
    let bytes = lines.into_inner().map_err(|error| error.into_error())?;
    String::from_utf8(bytes).map_err(std::io::Error::other)
}

fn cells(finding: &Finding) -> [String; 6] {
    fn text(value: Option<impl ToString>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    [
        finding.kind.as_str().to_owned(),
        text(finding.transaction_id),
        text(finding.bank.as_ref()),
        finding.amount_minor.to_string(),
        text(finding.currency),
        finding.detail.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::reconciliation::FindingKind;

    #[test]
    fn a_finding_is_a_line_with_as_many_cells_as_there_are_columns() {
        let finding = Finding {
            kind: FindingKind::Missing,
            transaction_id: Some("0123456789abcdef0123456789abcdef".parse().unwrap()),
            detail: "the log answered it, no final row does".to_owned(),
            amount_minor: 1_003,
            currency: Some(standin_core::money::Currency::USD),
            bank: Some("first-bank".parse().unwrap()),
        };
        let text = cells(&finding).join("|");
        let expected = "missing|0123456789abcdef0123456789abcdef|first-bank|1003|USD|\
                        the log answered it, no final row does";
        assert_eq!(text, expected);
        assert_eq!(COLUMNS.len(), text.split('|').count());
    }
}
