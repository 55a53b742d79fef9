//! One suite of behaviours a port, run against every adapter, so that a double cannot drift from
//! the real server.

pub mod clearing;
pub mod ledger;
pub mod queue;
pub mod trip_cache;
