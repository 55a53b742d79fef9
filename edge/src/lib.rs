//! The edge: the process that answers banks. The only crate that knows the banks' HTTP.
//!
//! From the door inwards: [`server`] (connections and their limits), [`door`] (routes),
//! [`authenticate`] (with the banks' [`secrets`]) and [`limit`], the bank's format ([`adapter`]), a
//! place ([`admission`]), then
//! [`path`]: one authorization in order, with [`budget`], [`inflight`], [`primary`] (what is believed of Postgres, by the
//! [`breaker`]), [`holds`] and [`afterwards`]; what became of a request without an answer is a
//! [`problem`]. Behind it: [`machine`] (the register under the log), [`drain`], [`journal`],
//! [`stores`] and [`cards`], the keepers' [`links`]; the [`policies`] in force and proposed, and the
//! proposal's [`shadow`]. Beside it: [`config`], [`telemetry`], [`metrics`], [`alarm`],
//! the operators' [`admin`], the faults that are [`played`] for drills and, for a sandbox, an [`observer`], the codec of [`iso8583`]; for every TLS
//! end [`tls`], [`watched`] files and, for development, [`issue`].
//! [`app`] puts everything together.

pub mod adapter;
pub mod admin;
pub mod admission;
pub mod advices;
pub mod afterwards;
pub mod alarm;
pub mod app;
pub mod authenticate;
pub mod breaker;
pub mod budget;
pub mod cache_home;
pub mod cards;
pub mod chance;
pub mod command;
pub mod config;
pub mod door;
pub mod drain;
pub mod duties;
pub mod holds;
pub mod inflight;
pub mod iso8583;
pub mod issue;
pub mod journal;
mod kept;
pub mod lag;
pub mod limit;
pub mod links;
pub mod log;
pub mod machine;
pub mod metrics;
pub mod observer;
pub mod path;
pub mod played;
pub mod policies;
pub mod primary;
pub mod problem;
pub mod secrets;
pub mod server;
pub mod shadow;
pub mod stores;
pub mod telemetry;
mod time;
pub mod tls;
pub mod told;
pub mod watched;
