//! What is where, and whether an edge is announced.
//!
//! Read in this order: [`region`] (the words), [`read`] (from files, with everything that is wrong
//! with them), [`check`] (what only shows when all regions are looked at together), [`drawing`] and
//! [`derived`] (a picture, and the parts of configurations that follow). Then [`announce`] (the
//! decision, pure), [`announcer`] (what carries it out: BIRD, or a readiness switch), [`bird`] (BIRD's
//! control socket) and [`watch`] (the loop of the process `standin announce`).
//!
//! Nothing here knows HTTP: who asks an edge whether it is ready is a port of [`watch`].

use std::future::Future;
use std::pin::Pin;

pub mod announce;
pub mod announcer;
pub mod bird;
pub mod check;
pub mod derived;
pub mod drawing;
pub mod read;
pub mod region;
pub mod watch;

/// A future behind a port.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
