//! Judges what Standin did: a history checker over recorded facts, the reconciliation job that
//! makes the ledger agree with the log, and the reports of both.
//!
//! Read in this order: [`history`] (what every client saw), [`log`] (what a region's log holds),
//! [`totals`] (counts and sums), [`checker`] (pure functions from facts to verdicts), [`drain`] (what
//! is left in a log goes to the ledger), [`reconcile`] (the job), [`turns`] (when it runs), [`report`]
//! (what people and programs read). Nothing here decides about a payment, and nothing here speaks HTTP.

pub mod checker;
pub mod clearing;
pub mod drain;
pub mod history;
pub mod log;
pub mod reconcile;
pub mod report;
pub mod thresholds;
pub mod totals;
pub mod turns;
