//! Final rows as columns, and the two statements that write them: the drain's and an advice's.

use std::sync::LazyLock;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::super::rows::{log_time, particulars_json};
use super::decode::sql_time;
use super::epoch::guard;
use crate::answer::{Answer, Reason, Rung, Why};
use crate::clock::Timestamp;
use crate::entry::{Booking, LogPosition, Proposal};
use crate::id::StoreId;

/// The drain's: over nothing, over a hold, over a released hold; and over the same answer that the
/// primary made final by itself, which names no log. Whatever its caller saw, the row is looked at here
/// once more, as it is when it is locked.
pub(super) static WRITE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{INSERT} order by p.transaction_id {UPDATE} \
         where authorizations.state in ('held', 'released') \
         or (authorizations.state in ('final', 'reversed') and authorizations.log is null \
         and authorizations.verdict = excluded.verdict and authorizations.code = excluded.code \
         and authorizations.amount = excluded.amount \
         and authorizations.currency = excluded.currency) returning transaction_id"
    )
});

/// An advice's: over a hold; a decline also over its claim. On a server of epoch `$31` at least.
pub(super) static ADVISE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{INSERT} join transactions x on x.transaction_id = p.transaction_id \
         and x.fingerprint = p.fingerprint \
         where (p.verdict = 'declined' or exists (select 1 from authorizations h \
         where h.shopper_id = p.shopper_id and h.transaction_id = p.transaction_id \
         and h.state = 'held')) and {} {UPDATE} \
         where authorizations.state = 'held' returning transaction_id",
        guard!("$31")
    )
});

const INSERT: &str = "insert into authorizations (shopper_id, transaction_id, state, fingerprint, \
     bank, verdict, reason, code, amount, currency, rung, why, cap, approved_before, trip_id, \
     trip_age_ms, policy_version, exposed, store_id, picked, picked_listed, mix, trip_version, \
     shadow, merchant_name, merchant_address, particulars, log, log_index, log_slot, final_at) \
     select p.shopper_id, p.transaction_id, 'final', p.fingerprint, p.bank, p.verdict, p.reason, \
     p.code, p.amount, p.currency, p.rung, p.why, p.cap, p.before, p.trip_id, p.age, p.policy, \
     p.exposed, p.store_id, p.picked, p.picked_listed, p.mix, p.trip_version, p.shadow, \
     p.merchant_name, p.merchant_address, p.particulars, $1, p.log_index, p.log_slot, p.final_at \
     from unnest($2::bigint[], $3::uuid[], $4::bytea[], $5::text[], $6::text[], $7::text[], \
     $8::text[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::bigint[], \
     $14::bigint[], $15::uuid[], $16::bigint[], $17::bigint[], $18::boolean[], $19::bigint[], \
     $20::bigint[], $21::bigint[], $22::jsonb[], $23::bigint[], $24::text[], $25::text[], \
     $26::text[], $27::jsonb[], $28::bigint[], $29::bigint[], $30::timestamptz[]) \
     as p (shopper_id, transaction_id, fingerprint, bank, verdict, reason, code, amount, \
     currency, rung, why, cap, before, trip_id, age, policy, exposed, store_id, picked, \
     picked_listed, mix, trip_version, shadow, merchant_name, merchant_address, particulars, \
     log_index, log_slot, final_at)";

const UPDATE: &str = "on conflict (shopper_id, transaction_id) do update set \
     state = excluded.state, fingerprint = excluded.fingerprint, bank = excluded.bank, \
     verdict = excluded.verdict, reason = excluded.reason, code = excluded.code, \
     amount = excluded.amount, currency = excluded.currency, rung = excluded.rung, \
     why = excluded.why, cap = excluded.cap, approved_before = excluded.approved_before, \
     trip_id = excluded.trip_id, trip_age_ms = excluded.trip_age_ms, \
     policy_version = excluded.policy_version, exposed = excluded.exposed, \
     store_id = excluded.store_id, picked = excluded.picked, \
     picked_listed = excluded.picked_listed, mix = excluded.mix, \
     trip_version = excluded.trip_version, shadow = excluded.shadow, \
     merchant_name = excluded.merchant_name, merchant_address = excluded.merchant_address, \
     particulars = excluded.particulars, \
     log = excluded.log, log_index = excluded.log_index, log_slot = excluded.log_slot, \
     final_at = excluded.final_at";

/// Final rows as columns.
#[derive(Default)]
pub(super) struct Finals<'a> {
    shoppers: Vec<i64>,
    ids: Vec<Uuid>,
    fingerprints: Vec<&'a [u8]>,
    banks: Vec<&'a str>,
    verdicts: Vec<&'static str>,
    reasons: Vec<&'static str>,
    codes: Vec<&'a str>,
    amounts: Vec<i64>,
    currencies: Vec<String>,
    rungs: Vec<&'static str>,
    whys: Vec<Option<&'static str>>,
    caps: Vec<Option<i64>>,
    befores: Vec<i64>,
    trips: Vec<Option<Uuid>>,
    ages: Vec<Option<i64>>,
    policies: Vec<i64>,
    exposed: Vec<bool>,
    stores: Vec<Option<i64>>,
    picked: Vec<Option<i64>>,
    picked_listed: Vec<Option<i64>>,
    mixes: Vec<Option<serde_json::Value>>,
    versions: Vec<Option<i64>>,
    shadows: Vec<Option<&'static str>>,
    names: Vec<&'a str>,
    addresses: Vec<&'a str>,
    particulars: Vec<Option<serde_json::Value>>,
    indexes: Vec<Option<i64>>,
    slots: Vec<Option<i64>>,
    finals: Vec<jiff::Timestamp>,
}

// === impl Finals ===

impl<'a> Finals<'a> {
    /// Adds the row of an outcome; `None` when a number does not fit its column.
    pub(super) fn push_booking(&mut self, booking: &'a Booking) -> Option<()> {
        let at = log_time(booking.log_time_ms);
        self.push(&booking.answer, &booking.proposal, Some(booking.at), at)
    }

    /// Adds a row; `None` when a number does not fit its column.
    pub(super) fn push(
        &mut self,
        answer: &'a Answer,
        proposal: &'a Proposal,
        place: Option<LogPosition>,
        final_at: Timestamp,
    ) -> Option<()> {
        let trip = proposal.trip.as_ref();
        let age = answer
            .trip_age_ms
            .map(|age| i64::try_from(age).unwrap_or(i64::MAX));
        let version = trip
            .map(|trip| i64::try_from(trip.version))
            .transpose()
            .ok()?;
        let index = place.map(|at| i64::try_from(at.index)).transpose().ok()?;
        let final_at = sql_time(final_at)?;
        self.shoppers.push(answer.shopper.get());
        self.ids.push(answer.transaction_id.to_uuid());
        self.fingerprints.push(answer.fingerprint.as_bytes());
        self.banks.push(answer.bank.as_str());
        self.verdicts.push(answer.verdict.as_str());
        self.reasons.push(answer.reason.as_str());
        self.codes.push(answer.code.as_str());
        self.amounts.push(answer.amount.minor());
        self.currencies
            .push(answer.amount.currency().code().to_owned());
        self.rungs.push(answer.rung.as_str());
        self.whys.push(answer.why.map(Why::as_str));
        self.caps.push(answer.cap);
        self.befores.push(answer.approved_before);
        self.trips.push(answer.trip.map(|trip| trip.0));
        self.ages.push(age);
        self.policies.push(i64::from(answer.policy_version));
        self.exposed.push(answer.rung == Rung::Isolated);
        self.stores.push(proposal.store.map(StoreId::get));
        self.picked.push(trip.map(|trip| trip.picked));
        self.picked_listed.push(trip.map(|trip| trip.picked_listed));
        self.mixes
            .push(trip.map(|trip| serde_json::json!(trip.mix)));
        self.versions.push(version);
        self.shadows.push(proposal.shadow.map(Reason::as_str));
        self.names.push(&proposal.request.merchant.name);
        self.addresses.push(&proposal.request.merchant.address);
        self.particulars.push(particulars_json(proposal));
        self.indexes.push(index);
        self.slots.push(place.map(|at| i64::from(at.slot)));
        self.finals.push(final_at);
        Some(())
    }

    /// The parameters of the statements of this module.
    pub(super) fn params<'p>(&'p self, log: &'p Option<Uuid>) -> [&'p (dyn ToSql + Sync); 30] {
        [
            log,
            &self.shoppers,
            &self.ids,
            &self.fingerprints,
            &self.banks,
            &self.verdicts,
            &self.reasons,
            &self.codes,
            &self.amounts,
            &self.currencies,
            &self.rungs,
            &self.whys,
            &self.caps,
            &self.befores,
            &self.trips,
            &self.ages,
            &self.policies,
            &self.exposed,
            &self.stores,
            &self.picked,
            &self.picked_listed,
            &self.mixes,
            &self.versions,
            &self.shadows,
            &self.names,
            &self.addresses,
            &self.particulars,
            &self.indexes,
            &self.slots,
            &self.finals,
        ]
    }
}
