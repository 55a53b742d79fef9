//! Harness, scenarios and benches that prove Standin's promises on real servers.

pub mod bench;
pub mod conformance;
pub mod harness;
pub mod month;
pub mod sim;
