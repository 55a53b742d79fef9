//! Pure parts: matching and judging, mappings and lines, sums. The whole job on a real ledger is in
//! the workspace's tests.

mod lines;
mod matches;
mod page;
