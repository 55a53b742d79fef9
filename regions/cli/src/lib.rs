//! The `standin` command, as a library so that tests can run its commands in their own process.
//!
//! Read in this order: [`command`] (the command line), [`client`] and [`open_loop`] (requests and
//! load), [`bank`] (plays a bank), [`platform_client`] and [`trips`] (play the platform), [`world`]
//! (an edge and the platform in this process), [`serve`], [`demo`], [`drill`], [`reconcile`], [`admin`],
//! [`policy`], [`thresholds`], [`certs`], [`wal`], [`console`], [`topology`], [`announce`].

pub mod admin;
pub mod announce;
mod backlog;
pub mod bank;
pub mod baskets;
pub mod certs;
mod chance;
pub mod client;
pub mod command;
pub mod console;
pub mod demo;
pub mod drill;
mod killed;
pub mod open_loop;
pub mod out;
pub mod platform_client;
pub mod policy;
pub mod reconcile;
mod running;
pub mod secret;
pub mod serve;
pub mod tally;
pub mod thresholds;
mod tombstones;
pub mod topology;
pub mod trips;
pub mod wal;
pub mod world;
