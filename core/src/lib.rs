//! Standin's vocabulary, rules and register, and the ports through which they meet the world.
//!
//! Read in this order: [`money`], [`id`], [`trip`], [`authorization`], [`identity`], [`merchant`],
//! [`policy`], [`decide`], [`answer`], [`entry`], [`register`]; then the ports [`ledger`],
//! [`trip_cache`] and [`queue`].
//!
//! Invariants: the rules never read a clock, a file or a socket; only `ledger::postgres` knows
//! tokio-postgres and only `trip_cache::redis` knows fred; this crate does not know the log that
//! carries its entries (`standin-wal`) nor the HTTP the banks speak (`standin-edge`).

pub mod answer;
pub mod authorities;
pub mod authorization;
pub mod card_number;
pub mod clock;
pub mod decide;
pub mod entry;
pub mod id;
pub mod identity;
pub mod ledger;
pub mod merchant;
pub mod money;
pub mod planted;
pub mod policy;
pub mod queue;
pub mod register;
pub mod signature;
pub mod trip;
pub mod trip_cache;

/// A boxed future, so that ports stay usable as trait objects: the set of adapters is open
/// (tests and drills wrap them with faults).
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
