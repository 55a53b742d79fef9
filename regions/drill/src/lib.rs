//! Real servers and faults on one machine: what drills, tests and `demo --with` stand on.
//!
//! Every server runs in a temporary folder on a free loopback port and is stopped, with all its
//! children, when its handle is dropped. Nothing here is a mock and nothing needs a shell.
//! Deliberately absent: containers, remote hosts and packet filters.

pub mod process;
pub mod proxy;
pub mod servers;
