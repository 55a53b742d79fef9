//! What a payment costs in the register's memory, and how long a snapshot of all of them takes.
//!
//! `cargo run --release -p standin-core --example register_memory [PAYMENTS]` (10 million by default):
//! two payments a trip, one trip a shopper, none drained. Says resident bytes a payment, before and
//! after, as Linux counts them.

#![allow(clippy::disallowed_methods, reason = "measures how long it takes")]

use std::collections::BTreeMap;
use std::time::Instant;

use standin_core::answer::{Code, Reason, Rung};
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::clock::Timestamp;
use standin_core::decide::Limits;
use standin_core::entry::{Entry, LogPosition, Proposal};
use standin_core::id::{Fingerprint, ShopperId, TransactionId, TripId};
use standin_core::money::{Currency, Money};
use standin_core::register::{Register, RegisterConfig};
use standin_core::trip::{Trip, TripStatus};
use uuid::Uuid;

const PAYMENTS: u64 = 10_000_000;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let payments = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => PAYMENTS,
    };
    let before = resident_bytes()?;
    let mut register = Register::new(RegisterConfig {
        answers_max: usize::try_from(payments)?,
    });
    let began = Instant::now();
    for number in 0..payments {
        let at = LogPosition {
            index: number.saturating_add(1),
            slot: 0,
        };
        let entry = Entry::Authorize(Box::new(proposal(number)?));
        register.apply(at, number, &entry);
    }
    let took = began.elapsed();
    let each = resident_bytes()?
        .saturating_sub(before)
        .checked_div(payments)
        .unwrap_or(0);
    let held = register.len();
    println!("{held} payments held, applied in {took:.1?}; {each} resident bytes each");
    let began = Instant::now();
    let saved = register.save()?;
    let bytes = u64::try_from(saved.len())?
        .checked_div(payments)
        .unwrap_or(0);
    println!(
        "a snapshot has {bytes} bytes each and took {:.1?}",
        began.elapsed()
    );
    println!("full: {}", register.is_full());
    Ok(())
}

fn proposal(number: u64) -> Result<Proposal, Failure> {
    let shopper = number.checked_div(2).unwrap_or(0).saturating_add(1);
    let id = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let mut fingerprint = [0; 32];
    for (place, byte) in fingerprint.iter_mut().zip(id.to_be_bytes().iter().cycle()) {
        *place = *byte;
    }
    let shopper: ShopperId = shopper.try_into()?;
    Ok(Proposal {
        edge: 1,
        start: 1,
        request: Authorization {
            bank: "first-bank".parse()?,
            shopper,
            amount: Money::from_minor(4_200, Currency::USD),
            merchant: Merchant {
                name: "Target".into(),
                address: "123 Main St".into(),
            },
            bank_key: None,
            received_at: Timestamp::from_millis(0),
            particulars: Particulars::default(),
        },
        transaction_id: TransactionId::from_bytes(id.to_be_bytes()),
        fingerprint: Fingerprint::from_bytes(fingerprint),
        code: Code::from_mac(&fingerprint),
        reason: Reason::WithinCap,
        rung: Rung::Primary,
        why: None,
        trip: Some(Trip {
            id: TripId(Uuid::from_u128(u128::from(u64::from(shopper)))),
            shopper,
            store: 7_i64.try_into()?,
            currency: Currency::USD,
            status: TripStatus::Shopping,
            version: 3,
            picked: 10_000,
            picked_listed: 10_000,
            mix: BTreeMap::new(),
            started_at: Timestamp::from_millis(0),
        }),
        trip_age_ms: Some(40),
        store: None,
        cap: Some(10_500),
        approved_before: 0,
        limits: Limits::Cap,
        seen: Vec::new(),
        policy_version: 1,
        swipe_window_ms: 0,
        shadow: None,
        approved: None,
    })
}

fn resident_bytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.unwrap_or_default().parse::<u64>()?.saturating_mul(1024))
}
