//! Real servers and faults on one machine: what drills, tests and `demo --with` stand on.
//!
//! Every server runs in a temporary folder on a free loopback port and is stopped, with all its
//! children, when its handle is dropped. Nothing here is a mock and nothing needs a shell.
//! Networks that are cut and disks that fail need root. Deliberately absent: containers and remote
//! hosts.

pub mod bird;
pub mod disk;
pub mod network;
pub mod process;
pub mod proxy;
pub mod servers;
pub mod tool;
