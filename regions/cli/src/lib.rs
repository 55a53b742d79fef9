//! The `standin` command, as a library so that tests can run its commands in their own process.
//!
//! Read in this order: [`command`] (the command line), [`client`] and [`open_loop`] (requests and
//! load), [`bank`] (plays a bank), [`platform_client`] and [`trips`] (play the platform), [`world`]
//! (an edge and the platform in this process), [`serve`], [`demo`], [`reconcile`], [`admin`],
//! [`policy`], [`thresholds`], [`certs`], [`wal`].

pub mod admin;
pub mod bank;
pub mod baskets;
pub mod certs;
pub mod client;
pub mod command;
pub mod demo;
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
pub mod trips;
pub mod wal;
pub mod world;
