//! Faults on real processes. Each test is named by its row of the fault matrix and a sentence; it
//! prints what it injected and fails when the injection did not happen.

#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::large_futures,
    clippy::too_many_lines,
    reason = "test code"
)]

mod bank_side;

use std::time::Duration;

use standin_tests::harness::Programs;

/// The programs under test.
const PROGRAMS: Programs = Programs {
    edge: env!("CARGO_BIN_EXE_standin-edge-under-test"),
    standin: env!("CARGO_BIN_EXE_standin-under-test"),
};

/// For things that take a moment on an idle machine.
const SOON: Duration = Duration::from_secs(30);
