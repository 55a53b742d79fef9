//! The edge: the process that answers banks. The only crate that knows the banks' HTTP.
//!
//! From the door inwards: [`server`] (connections and their limits), an adapter ([`native`]), and
//! [`problem`] when there is no answer. [`config`] says how.

pub mod config;
pub mod native;
pub mod problem;
pub mod server;
