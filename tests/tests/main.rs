//! Every test that needs a server or several crates: one binary, one link.

mod checker;
mod demo;
mod drill;
mod failover;
mod fuzz;
mod holds;
mod ledger;
mod scenarios;
mod secure_servers;
mod settlement;
mod simulator;
mod trip_cache;
mod trips;
