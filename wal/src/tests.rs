#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

mod api;
mod crash;
mod damage;
mod flips;
mod fuzz;
mod golden;
pub(crate) mod lab;
mod modes;
mod poison;
pub(crate) mod power;
mod recycle;
mod rot;
mod trim;
