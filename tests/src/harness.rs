//! Real processes for scenarios: Postgres, Redis, an edge as a child, a bank that signs and
//! remembers, and the judgement at the end.
//!
//! Read in this order: [`stage`] (the servers and the world on them), [`edge`] (the process under
//! test), [`group`] (several that keep one log together), [`bank`] (requests, load and the recorded history), [`verdict`] (drained, stopped, judged
//! by the checker), [`browser`] (a real one, for pages). [`wait`] is the only way anything here waits: for a condition, with a deadline.
//!
//! Machines are not switched off here, processes are killed: what the kernel holds survives, so
//! Postgres runs without fsync. Deliberately absent: doubles of our own code.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a harness fails its test where it stands"
)]

pub mod bank;
pub mod browser;
pub mod edge;
pub mod group;
pub mod stage;
pub mod verdict;
pub mod wait;

pub use bank::{Bank, Banks, Payment, Told};
pub use browser::Browser;
pub use edge::{Edge, EdgeOptions, Programs};
pub use group::{Group, GroupOptions};
pub use stage::Stage;
