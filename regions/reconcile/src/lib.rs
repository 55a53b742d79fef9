//! Judges what Standin did: a history checker over recorded facts, the reconciliation job that
//! makes the ledger agree with the log, and the reports of both.
//!
//! Read in this order: [`history`] (what every client saw), [`log`] (what a region's log holds),
//! [`totals`] (counts and sums), [`checker`] (pure functions from facts to verdicts), [`report`]
//! (what people and programs read). Nothing here decides about a payment, and nothing here speaks
//! HTTP.

pub mod checker;
pub mod history;
pub mod log;
pub mod report;
pub mod totals;
