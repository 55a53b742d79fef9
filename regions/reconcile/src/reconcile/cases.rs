//! What a run found, kept as cases that people work on.
//!
//! A case has one id in every run that finds it: of its sort, its bank and what it is about. So a row
//! that is missing is one case until somebody settles it, however often it is found.

use std::time::Duration;

use standin_core::clock::Timestamp;
use standin_core::identity::record_id;
use standin_core::ledger::LedgerError;
use standin_core::ledger::clearing::{CASE_ROWS_MAX, ClearingBooks, FoundCase, Kept};

use super::within;
use crate::report::reconciliation::{Finding, FindingKind, Reconciliation};

/// What keeping a run's findings did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Filed {
    /// Cases that are new.
    pub new: u64,
    /// Cases that were there, and stay as they are.
    pub known: u64,
    /// Cases whose facts are others now.
    pub changed: u64,
    /// Settled cases that are open again.
    pub reopened: u64,
}

/// Keeps every finding that the report lists; `at` is when it was found.
///
/// # Errors
/// When the ledger does not take them; doing it again is harmless. `deadline` is for each call.
pub async fn file(
    books: &dyn ClearingBooks,
    report: &Reconciliation,
    at: Timestamp,
    deadline: Duration,
) -> Result<Filed, LedgerError> {
    let mut filed = Filed::default();
    for batch in report.findings.chunks(CASE_ROWS_MAX) {
        let cases = batch.iter().map(|finding| case_of(finding, at)).collect();
        for standing in within(deadline, books.keep_cases(cases, at)).await? {
            let count = match standing.kept {
                Kept::New => &mut filed.new,
                Kept::Known => &mut filed.known,
                Kept::Changed => &mut filed.changed,
                Kept::Reopened => &mut filed.reopened,
            };
            *count = count.saturating_add(1);
        }
    }
    Ok(filed)
}

fn case_of(finding: &Finding, at: Timestamp) -> FoundCase {
    let kind = finding.kind.as_str();
    let subject = subject(finding);
    let bank = finding.bank.as_ref().map_or("", |bank| bank.as_str());
    let words = [bank, kind, &subject];
    let currency = finding.currency.map(String::from).unwrap_or_default();
    FoundCase {
        id: record_id("log finding", &words.map(str::as_bytes)),
        kind: kind.to_owned(),
        bank: finding.bank.clone(),
        transaction_id: finding.transaction_id,
        shopper: None,
        detail: finding.detail.clone(),
        amount: finding.amount_minor,
        currency: finding.currency,
        occurred_at: at,
        facts: format!("{}|{currency}", finding.amount_minor),
        subject,
    }
}

/// What it is about. Of one payment there may be several conflicts, each with its place in a log.
fn subject(finding: &Finding) -> String {
    match (finding.kind, finding.transaction_id) {
        (FindingKind::Conflict, Some(payment)) => format!("{payment} {}", finding.detail),
        (_, Some(payment)) => payment.to_string(),
        (_, None) => finding.detail.clone(),
    }
}
