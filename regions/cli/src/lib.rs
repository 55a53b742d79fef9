//! The `standin` command, as a library so that tests can run its commands in their own process.
//!
//! Read in this order: [`command`] (the command line), [`client`] and [`open_loop`] (requests and
//! load), [`bank`] (plays a bank), [`policy`].

pub mod bank;
pub mod baskets;
pub mod client;
pub mod command;
pub mod demo;
pub mod open_loop;
pub mod out;
pub mod platform_client;
pub mod policy;
pub mod secret;
pub mod tally;
pub mod world;
