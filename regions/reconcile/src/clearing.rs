//! A bank's clearing file against the ledger: what was charged, against what was approved, what the
//! bank told us meanwhile, and what the shopper's cart came to.
//!
//! Read in this order: [`mapping`] (what a bank's columns mean), [`mod@file`] (bytes become lines, and
//! nothing is dropped unseen), [`rules`] and [`matching`] (pure: one shopper's payments and lines in,
//! states and discrepancies out), [`tally`] (counts and sums that must add up), [`job`] (stages,
//! scans, keeps the findings), [`report`].
//!
//! Memory is bounded whatever the size of the file: lines are staged in the ledger in batches, payments
//! are read page by page, and what is kept of a file is one bit a line.

pub mod file;
pub mod job;
pub mod kind;
pub mod mapping;
pub mod matching;
pub mod report;
pub mod rules;
pub mod tally;

#[cfg(test)]
mod tests;
