//! The edge: the process that answers banks. The only crate that knows the banks' HTTP.
//!
//! From the door inwards: [`server`] (connections and their limits), [`authenticate`] and [`limit`],
//! an adapter ([`native`]), and [`problem`] when there is no answer. Beside it: [`config`],
//! [`telemetry`], [`metrics`], [`alarm`] and the loopback [`admin`].

pub mod admin;
pub mod alarm;
pub mod authenticate;
pub mod config;
pub mod limit;
pub mod metrics;
pub mod native;
pub mod problem;
pub mod server;
pub mod telemetry;
