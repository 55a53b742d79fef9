//! The requests: payments as banks send them, picks as shoppers' phones do.

use std::io::Write as _;
use std::sync::Arc;

use standin_core::clock::{Clock, SystemClock};
use standin_core::signature::{ID_HEADER, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER, sign};
use uuid::Uuid;

use super::load::Work;
use super::world::World;

/// The bank that asks.
pub const BANK: &str = "bench";
/// Fewest and most picks in one request.
pub const PICKS: std::ops::RangeInclusive<u64> = 25..=50;
/// Prices of the payments: from 5.00, so many cents up.
const PAYMENT_CENTS: (u64, u64) = (500, 40_000);

/// Payments on random trips, each a payment of its own.
pub struct Payments {
    /// The trips.
    pub world: Arc<World>,
    /// The bank's secret.
    pub secret: Secret,
    /// Tells this run's payments from another's.
    pub run: u64,
}

/// Batches of picks on random trips.
pub struct Picks {
    /// The trips.
    pub world: Arc<World>,
    /// The platform's secret.
    pub secret: Secret,
    /// Tells this run's picks from another's.
    pub run: u64,
}

// === impl Payments ===

impl Payments {
    /// The body of payment number `number`. Its name is short enough to hold no card number.
    pub fn body(&self, number: u64) -> String {
        let chance = scramble(self.run ^ number);
        let paying = &self.world.paying;
        let at = usize::try_from(chance % paying.len() as u64).unwrap_or(0);
        let trip = &paying[at];
        let store = &self.world.stores[trip.store];
        let (least, spread) = PAYMENT_CENTS;
        let cents = least + (chance >> 32) % spread;
        format!(
            "{{\"shopper_id\":{},\"amount\":{}.{:02},\"merchant\":{{\"name\":\"{}\",\"address\":\"{}\"}},\
             \"transaction_id\":\"{:x}p{number:x}\"}}",
            trip.shopper,
            cents / 100,
            cents % 100,
            store.name,
            store.address,
            self.run,
        )
    }
}

impl Work for Payments {
    fn write(&self, number: u64, out: &mut Vec<u8>) {
        let body = self.body(number);
        let id = format!("msg_{:016x}{number:016x}", self.run);
        post(out, &payments_path(), &id, &body, &self.secret);
    }

    fn kind(&self, status: u16, body: &[u8]) -> Option<&'static str> {
        match status {
            200 if has(body, b"\"rung\":\"primary\"") => Some("approved on primary"),
            200 if has(body, b"\"rung\":\"stand_in\"") => Some("approved on stand_in"),
            200 if has(body, b"\"rung\":\"isolated\"") => Some("approved on isolated"),
            200 => Some("approved"),
            402 => Some("declined"),
            _ => None,
        }
    }
}

// === impl Picks ===

impl Work for Picks {
    fn write(&self, number: u64, out: &mut Vec<u8>) {
        let chance = scramble(self.run ^ number);
        let picking = &self.world.picking;
        let at = usize::try_from(chance % picking.len() as u64).unwrap_or(0);
        let trip = &picking[at];
        let picks = picks_of(number, self.run);
        let lines = u64::from(trip.lines);
        let first = (chance >> 40) % lines;
        let mut body = format!("{{\"shopper_id\":{},\"events\":[", trip.shopper);
        for pick in 0..picks {
            // Another price than the last time, so that every pick changes the trip.
            let (line, cents) = ((first + pick) % lines + 1, 100 + (number + pick) % 900);
            let comma = if pick == 0 { "" } else { "," };
            body.push_str(&format!(
                "{comma}{{\"kind\":\"pick\",\"order_id\":\"{}\",\"line\":{line},\"actual\":{}.{:02}}}",
                trip.order,
                cents / 100,
                cents % 100,
            ));
        }
        body.push_str("]}");
        // The events' ids are this one and the next: far apart from any other request's.
        let id = Uuid::from_u64_pair(chance, scramble(chance))
            .simple()
            .to_string();
        post(
            out,
            &format!("/v1/trips/{}/events", trip.trip),
            &id,
            &body,
            &self.secret,
        );
    }

    fn kind(&self, status: u16, _body: &[u8]) -> Option<&'static str> {
        (status == 202).then_some("accepted")
    }
}

/// Where payments go.
pub fn payments_path() -> String {
    format!("/v1/banks/{BANK}/authorizations")
}

/// Picks in request `number`.
pub fn picks_of(number: u64, run: u64) -> u64 {
    let (least, most) = (*PICKS.start(), *PICKS.end());
    least + scramble(run.rotate_left(17) ^ number) % (most - least + 1)
}

/// A signed POST of JSON.
fn post(out: &mut Vec<u8>, path: &str, id: &str, body: &str, secret: &Secret) {
    let now = SystemClock.now().as_secs();
    let signature = sign(secret, id, now, body.as_bytes());
    let length = body.len();
    write!(
        out,
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{ID_HEADER}: {id}\r\n{TIMESTAMP_HEADER}: {now}\r\n\
         {SIGNATURE_HEADER}: {signature}\r\n\r\n{body}"
    )
    .expect("a vector takes every byte");
}

fn has(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

/// SplitMix64: chance that can be made again from a number.
pub fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
