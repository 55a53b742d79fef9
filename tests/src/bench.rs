//! The benchmark of one edge and its two peers on one machine: `standin-bench`.
//!
//! Every server is a child process, so that its CPU time can be read; load generator and servers
//! share the machine. Programs are measured in turns, round after round, and the report gives the
//! median and the range. [`world`] makes the trips, [`load`] the requests, [`serve`] the servers,
//! [`plan`] says what is measured, [`summary`] what it came to.
//!
//! [`abuse`] and [`door`] are runs of their own on the same servers: what an honest bank gets while others
//! abuse an edge, and what the door costs.
//!
//! Deliberately absent: pinning to cores, warm-up that is counted, discarding rounds.

#![allow(
    clippy::float_arithmetic,
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "rates and statistics of a benchmark; nothing here is money that is charged"
)]

pub mod abuse;
pub mod certs;
pub mod children;
pub mod cpu;
pub mod door;
pub mod load;
pub mod measure;
pub mod plain;
pub mod plan;
pub mod serve;
pub mod servers;
pub mod summary;
pub mod wire;
pub mod work;
pub mod world;
