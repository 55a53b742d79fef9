//! Holds: one pipelined transaction for everything that waits on a connection.
//!
//! BEGIN; claim the transaction ids in id order; lock the trips in id order; then, in rounds, insert
//! the holds that fit and read what is there; COMMIT. All of it is sent before the first reply. A
//! round holds at most one proposal of a trip and of a transaction id, and each statement has a
//! snapshot of its own, so every sum sees the rounds before it: a batch is decided as if its
//! proposals came one after the other. The claim fails on a server of a past epoch, and with it the
//! whole transaction. (A lock and a sum in one READ COMMITTED statement oversell:
//! the sum is taken from the snapshot before the wait.)
//!
//! Rows are looked up in lateral subqueries of one row, and not joined: a plan made while the tables
//! are empty, and kept, would join by reading the whole table.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use deadpool_postgres::ClientWrapper;
use futures_util::future::try_join3;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};
use uuid::Uuid;

use super::super::rows::wrong;
use super::super::sqlstate::Phase;
use super::super::{AuthorizationState, HOLD_ROWS_MAX, HoldReply};
use super::decode::{AUTHORIZATION, authorization, fingerprint, get, number, payment};
use super::epoch::{EPOCH, Epoch, guard};
use super::link::Failure;
use crate::answer::{Rung, Verdict};
use crate::entry::Proposal;
use crate::id::{TransactionId, TripId};

/// Claims transaction ids; the order keeps two batches from waiting for each other in a circle.
macro_rules! claim {
    ($($condition:expr),*) => {
        concat!(
            "insert into transactions (transaction_id, shopper_id, fingerprint) \
             select u.id, u.shopper, u.fingerprint \
             from unnest($1::uuid[], $2::bigint[], $3::bytea[]) as u (id, shopper, fingerprint) ",
            $("where ", $condition,)*
            " order by u.id on conflict (transaction_id) do nothing"
        )
    };
}
pub(super) const CLAIM: &str = claim!();

/// The same, on a server of epoch `$4` at least.
const CLAIM_GUARDED: &str = claim!(guard!("$4"));

/// Locks trips in the order in which they come, which is that of their ids.
const LOCK: &str = "select t.trip_id from unnest($1::bigint[], $2::uuid[]) as p (shopper_id, trip_id) \
     cross join lateral (select t.trip_id from trips t where t.shopper_id = p.shopper_id \
     and t.trip_id = p.trip_id limit 1 for update) t";

/// Sum of the other approvals of a trip, for `p` with shopper_id, trip_id and transaction_id.
const OTHERS: &str = "select coalesce(sum(o.amount - o.reversed), 0) as others from authorizations o \
     where o.shopper_id = p.shopper_id and o.trip_id = p.trip_id \
     and o.transaction_id <> p.transaction_id \
     and o.verdict = 'approved' and o.state in ('held', 'final')";

/// A batch is answered or fails as one.
pub(super) type Sent<'a> = Pin<Box<dyn Future<Output = Result<Vec<Row>, Error>> + Send + 'a>>;

/// Books a batch.
pub(super) async fn hold(
    client: &ClientWrapper,
    batch: &[Proposal],
    epoch: &Epoch,
) -> Result<Vec<HoldReply>, Failure> {
    if batch.len() > HOLD_ROWS_MAX {
        return Err(wrong("too many proposals in one batch").into());
    }
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let mut seen = HashSet::new();
    let rounds: Vec<Round> = rounds(batch)
        .iter()
        .map(|of| Round::new(of, &mut seen))
        .collect();
    let keys = Keys::new(batch);
    let least = epoch.least();
    let statements = Statements::prepare(client).await?;
    let mut sent: Vec<Sent<'_>> = vec![Box::pin(plain(client, "BEGIN"))];
    sent.push(Box::pin(async {
        let params: &[&(dyn ToSql + Sync)] =
            &[&keys.ids, &keys.shoppers, &keys.fingerprints, &least];
        client.query(&statements.claim, params).await
    }));
    sent.push(Box::pin(async {
        let params: &[&(dyn ToSql + Sync)] = &[&keys.trip_shoppers, &keys.trips];
        client
            .execute(&statements.lock, params)
            .await
            .map(|_| Vec::new())
    }));
    for round in &rounds {
        // A round of declines has nothing to insert.
        if !round.approvals.ids.is_empty() {
            sent.push(Box::pin(round.insert(client, &statements.insert)));
        }
        sent.push(Box::pin(round.read(client, &statements.read)));
    }
    sent.push(Box::pin(plain(client, "COMMIT")));
    let replies = in_order(sent).await;
    let reads = committed(replies)?;
    let mut answers: Vec<Option<HoldReply>> = vec![None; batch.len()];
    if let Some(row) = reads.iter().flatten().next() {
        epoch.learn(row)?;
    }
    for row in reads.iter().flatten() {
        let at: usize = number::<u32>(row, "place")?
            .try_into()
            .unwrap_or(usize::MAX);
        if let (Some(slot), Some(proposal)) = (answers.get_mut(at), batch.get(at)) {
            *slot = Some(reply(row, proposal)?);
        }
    }
    let answers: Option<Vec<_>> = answers.into_iter().collect();
    answers.ok_or_else(|| wrong("a proposal of the batch was not read back").into())
}

/// Runs every statement of a hold, for nobody: a connection's first payment need not wait until the
/// server has read the catalogue and planned (some 50 ms, on a busy server more than a payment has).
pub(super) async fn rehearse(client: &ClientWrapper, epoch: &Epoch) -> Result<(), Failure> {
    let statements = Statements::prepare(client).await?;
    let (keys, nobody) = (Keys::new(&[]), Round::new(&[], &mut HashSet::new()));
    let least = epoch.least();
    let params: &[&(dyn ToSql + Sync)] = &[&keys.ids, &keys.shoppers, &keys.fingerprints, &least];
    client.query(&statements.claim, params).await?;
    let params: &[&(dyn ToSql + Sync)] = &[&keys.trip_shoppers, &keys.trips];
    client.execute(&statements.lock, params).await?;
    nobody.insert(client, &statements.insert).await?;
    nobody.read(client, &statements.read).await?;
    Ok(())
}

pub(super) async fn plain(client: &ClientWrapper, sql: &str) -> Result<Vec<Row>, Error> {
    client.batch_execute(sql).await.map(|()| Vec::new())
}

/// Polls every future once, in order, so that their statements go out back to back; then waits for
/// each in turn, because replies come in that order.
pub(super) async fn in_order(mut sent: Vec<Sent<'_>>) -> Vec<Result<Vec<Row>, Error>> {
    let mut replies: Vec<Option<Result<Vec<Row>, Error>>> = Vec::with_capacity(sent.len());
    poll_fn(|context| {
        for future in &mut sent {
            replies.push(match future.as_mut().poll(context) {
                Poll::Ready(reply) => Some(reply),
                Poll::Pending => None,
            });
        }
        Poll::Ready(())
    })
    .await;
    let mut all = Vec::with_capacity(sent.len());
    for (reply, future) in replies.into_iter().zip(sent) {
        all.push(match reply {
            Some(reply) => reply,
            None => future.await,
        });
    }
    all
}

/// The rows of every statement, if all of them did their work and COMMIT was confirmed.
pub(super) fn committed(replies: Vec<Result<Vec<Row>, Error>>) -> Result<Vec<Vec<Row>>, Failure> {
    let last = replies.len().saturating_sub(1);
    let mut rows = Vec::with_capacity(replies.len());
    for (at, reply) in replies.into_iter().enumerate() {
        rows.push(reply.map_err(|error| {
            // After a failed statement the server turns our COMMIT into a rollback. That does not
            // hold for BEGIN (what followed committed by itself) nor for a broken connection.
            let rolled_back = error.as_db_error().is_some() && at != 0 && at != last;
            let phase = if rolled_back {
                Phase::Before
            } else {
                Phase::Commit
            };
            Failure::Postgres(error, phase)
        })?);
    }
    Ok(rows)
}

/// Places in the batch, by round: the n-th proposal of a trip or of a transaction id is in round n
/// at least, and in no earlier round than any proposal of the batch before it that it depends on.
fn rounds(batch: &[Proposal]) -> Vec<Vec<(usize, &Proposal)>> {
    let mut next_of_trip: HashMap<TripId, usize> = HashMap::new();
    let mut next_of_id: HashMap<TransactionId, usize> = HashMap::new();
    let mut rounds: Vec<Vec<(usize, &Proposal)>> = Vec::new();
    for (at, proposal) in batch.iter().enumerate() {
        let of_id = next_of_id.entry(proposal.transaction_id).or_default();
        let mut unused = 0;
        let of_trip = match &proposal.trip {
            Some(trip) => next_of_trip.entry(trip.id).or_default(),
            None => &mut unused,
        };
        let round = (*of_id).max(*of_trip);
        *of_id = round.saturating_add(1);
        *of_trip = round.saturating_add(1);
        if rounds.len() <= round {
            rounds.resize_with(round.saturating_add(1), Vec::new);
        }
        if let Some(slot) = rounds.get_mut(round) {
            slot.push((at, proposal));
        }
    }
    rounds
}

/// What the primary says to one proposal, from what is there now.
fn reply(row: &Row, proposal: &Proposal) -> Result<HoldReply, Failure> {
    if fingerprint(row, "claimed")? != proposal.fingerprint {
        return Ok(HoldReply::OtherFingerprint);
    }
    let approved_before = get(row, "others")?;
    if get::<Option<&str>>(row, "state")?.is_some() {
        let stored = authorization(row)?;
        let trip = proposal.trip.as_ref().map(|trip| trip.id);
        match stored.state {
            AuthorizationState::Held if stored.answer.trip == trip => {
                return Ok(HoldReply::Held { approved_before });
            }
            // It did not move to this trip: the reasons are those of a hold that was not made.
            AuthorizationState::Held => {}
            AuthorizationState::Final | AuthorizationState::Reversed => {
                return Ok(HoldReply::Final(Box::new(stored.answer)));
            }
            AuthorizationState::Released => return Ok(HoldReply::Released),
        }
    }
    if proposal.reason.verdict() == Verdict::Declined {
        return Ok(HoldReply::Held { approved_before });
    }
    if get::<Option<&str>>(row, "trip_status")? != Some("SHOPPING") {
        return Ok(HoldReply::NotShopping);
    }
    Ok(HoldReply::CapSpent { approved_before })
}

/// Transaction ids and trips of a batch, each once; a transaction id goes to its first proposal.
struct Keys {
    ids: Vec<Uuid>,
    shoppers: Vec<i64>,
    fingerprints: Vec<Vec<u8>>,
    trip_shoppers: Vec<i64>,
    trips: Vec<Uuid>,
}

/// One round of a batch, as columns.
struct Round {
    places: Vec<i64>,
    ids: Vec<Uuid>,
    shoppers: Vec<i64>,
    trips: Vec<Option<Uuid>>,
    /// Whether no earlier round has the transaction id.
    firsts: Vec<bool>,
    approvals: Approvals,
}

/// The approvals of a round, as columns.
#[derive(Default)]
struct Approvals {
    shoppers: Vec<i64>,
    ids: Vec<Uuid>,
    fingerprints: Vec<Vec<u8>>,
    banks: Vec<String>,
    reasons: Vec<&'static str>,
    codes: Vec<String>,
    amounts: Vec<i64>,
    currencies: Vec<String>,
    rungs: Vec<&'static str>,
    whys: Vec<Option<&'static str>>,
    caps: Vec<Option<i64>>,
    trips: Vec<Option<Uuid>>,
    ages: Vec<Option<i64>>,
    policies: Vec<i64>,
    exposed: Vec<bool>,
    stores: Vec<Option<i64>>,
    picked: Vec<Option<i64>>,
}

struct Statements {
    claim: Statement,
    lock: Statement,
    insert: Statement,
    read: Statement,
}

// === impl Statements ===

impl Statements {
    async fn prepare(client: &ClientWrapper) -> Result<Self, Error> {
        let insert = insert_sql();
        let read = read_sql();
        let (claim, lock, (insert, read)) = try_join3(
            client.prepare_cached(CLAIM_GUARDED),
            client.prepare_cached(LOCK),
            futures_util::future::try_join(
                client.prepare_cached(&insert),
                client.prepare_cached(&read),
            ),
        )
        .await?;
        Ok(Self {
            claim,
            lock,
            insert,
            read,
        })
    }
}

/// Inserts the holds that fit: the trip is SHOPPING, the id is ours, the sum is within the cap. A hold
/// that stands under another trip moves to this one. In id order, as the drain writes, so that the two
/// never wait for each other in a circle.
fn insert_sql() -> String {
    format!(
        "insert into authorizations (shopper_id, transaction_id, state, fingerprint, bank, \
         verdict, reason, code, amount, currency, rung, why, cap, approved_before, trip_id, \
         trip_age_ms, policy_version, exposed, store_id, picked, held_at) \
         select p.shopper_id, p.transaction_id, 'held', p.fingerprint, p.bank, 'approved', \
         p.reason, p.code, p.amount, p.currency, p.rung, p.why, p.cap, s.others::bigint, p.trip_id, \
         p.age, p.policy, p.exposed, p.store_id, p.picked, now() \
         from unnest($1::bigint[], $2::uuid[], $3::bytea[], $4::text[], $5::text[], $6::text[], \
         $7::bigint[], $8::text[], $9::text[], $10::text[], $11::bigint[], \
         $12::uuid[], $13::bigint[], $14::bigint[], $15::boolean[], $16::bigint[], $17::bigint[]) \
         as p (shopper_id, transaction_id, fingerprint, bank, reason, code, amount, currency, \
         rung, why, cap, trip_id, age, policy, exposed, store_id, picked) \
         cross join lateral (select 1 from transactions x \
         where x.transaction_id = p.transaction_id and x.fingerprint = p.fingerprint \
         and x.shopper_id = p.shopper_id limit 1) x \
         cross join lateral (select 1 from trips t where t.shopper_id = p.shopper_id \
         and t.trip_id = p.trip_id and t.status = 'SHOPPING' limit 1) t \
         cross join lateral ({OTHERS}) s \
         where p.amount + s.others <= p.cap \
         order by p.transaction_id \
         on conflict (shopper_id, transaction_id) do update set \
         reason = excluded.reason, rung = excluded.rung, why = excluded.why, cap = excluded.cap, \
         approved_before = excluded.approved_before, trip_id = excluded.trip_id, \
         trip_age_ms = excluded.trip_age_ms, policy_version = excluded.policy_version, \
         exposed = excluded.exposed, store_id = excluded.store_id, picked = excluded.picked, \
         held_at = excluded.held_at \
         where authorizations.state = 'held' \
         and authorizations.trip_id is distinct from excluded.trip_id"
    )
}

/// What is there for each proposal of a round, under the shopper who first claimed its id: a card may
/// have been given to another since. A hold that this round made brought its sum with it.
fn read_sql() -> String {
    format!(
        "select p.place, x.fingerprint as claimed, t.status as trip_status, \
         case when p.first and a.state = 'held' and a.held_at = now() then a.approved_before \
         else least(({OTHERS}), 9223372036854775807)::bigint end as others, {EPOCH}, {AUTHORIZATION} \
         from unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::uuid[], $5::boolean[]) \
         as p (place, transaction_id, shopper_id, trip_id, first) \
         {} left join lateral (select t.status from trips t where t.shopper_id = p.shopper_id \
         and t.trip_id = p.trip_id limit 1) t on true",
        payment("p.transaction_id")
    )
}

// === impl Keys ===

impl Keys {
    fn new(batch: &[Proposal]) -> Self {
        let mut firsts: HashMap<TransactionId, &Proposal> = HashMap::new();
        for proposal in batch {
            firsts.entry(proposal.transaction_id).or_insert(proposal);
        }
        let mut trips: Vec<(i64, Uuid)> = batch
            .iter()
            .filter_map(|proposal| {
                let trip = proposal.trip.as_ref()?;
                Some((proposal.request.shopper.get(), trip.id.0))
            })
            .collect();
        // The order in which everybody locks trips.
        trips.sort_unstable_by_key(|(shopper, trip)| (*trip, *shopper));
        trips.dedup();
        let firsts: Vec<&Proposal> = firsts.into_values().collect();
        Self {
            ids: firsts.iter().map(|p| p.transaction_id.to_uuid()).collect(),
            shoppers: firsts.iter().map(|p| p.request.shopper.get()).collect(),
            fingerprints: firsts
                .iter()
                .map(|p| p.fingerprint.as_bytes().to_vec())
                .collect(),
            trip_shoppers: trips.iter().map(|(shopper, _)| *shopper).collect(),
            trips: trips.into_iter().map(|(_, trip)| trip).collect(),
        }
    }
}

// === impl Round ===

impl Round {
    /// `seen` are the transaction ids of the rounds before; this one's are added.
    fn new(of: &[(usize, &Proposal)], seen: &mut HashSet<TransactionId>) -> Self {
        let mut approvals = Approvals::default();
        for (_, proposal) in of {
            if proposal.reason.verdict() == Verdict::Approved {
                approvals.push(proposal);
            }
        }
        let place = |(at, _): &(usize, &Proposal)| i64::try_from(*at).unwrap_or(i64::MAX);
        Self {
            places: of.iter().map(place).collect(),
            ids: of.iter().map(|(_, p)| p.transaction_id.to_uuid()).collect(),
            shoppers: of.iter().map(|(_, p)| p.request.shopper.get()).collect(),
            trips: of
                .iter()
                .map(|(_, p)| p.trip.as_ref().map(|trip| trip.id.0))
                .collect(),
            firsts: of
                .iter()
                .map(|(_, p)| seen.insert(p.transaction_id))
                .collect(),
            approvals,
        }
    }

    async fn insert(&self, client: &ClientWrapper, sql: &Statement) -> Result<Vec<Row>, Error> {
        let a = &self.approvals;
        let params: &[&(dyn ToSql + Sync)] = &[
            &a.shoppers,
            &a.ids,
            &a.fingerprints,
            &a.banks,
            &a.reasons,
            &a.codes,
            &a.amounts,
            &a.currencies,
            &a.rungs,
            &a.whys,
            &a.caps,
            &a.trips,
            &a.ages,
            &a.policies,
            &a.exposed,
            &a.stores,
            &a.picked,
        ];
        client.execute(sql, params).await.map(|_| Vec::new())
    }

    async fn read(&self, client: &ClientWrapper, sql: &Statement) -> Result<Vec<Row>, Error> {
        let params: &[&(dyn ToSql + Sync)] = &[
            &self.places,
            &self.ids,
            &self.shoppers,
            &self.trips,
            &self.firsts,
        ];
        client.query(sql, params).await
    }
}

// === impl Approvals ===

impl Approvals {
    /// Adds a row. Only numbers, closed words, slugs and codes: nothing that a bank wrote, so that
    /// no text of one payment can make the server reject the batch.
    fn push(&mut self, proposal: &Proposal) {
        self.shoppers.push(proposal.request.shopper.get());
        self.ids.push(proposal.transaction_id.to_uuid());
        self.fingerprints
            .push(proposal.fingerprint.as_bytes().to_vec());
        self.banks.push(proposal.request.bank.as_str().to_owned());
        self.reasons.push(proposal.reason.as_str());
        self.codes.push(proposal.code.as_str().to_owned());
        self.amounts.push(proposal.amount().minor());
        self.currencies
            .push(proposal.request.amount.currency().code().to_owned());
        self.rungs.push(proposal.rung.as_str());
        self.whys.push(proposal.why.map(crate::answer::Why::as_str));
        self.caps.push(proposal.cap);
        self.trips
            .push(proposal.trip.as_ref().map(|trip| trip.id.0));
        let age = |ms| i64::try_from(ms).unwrap_or(i64::MAX);
        self.ages.push(proposal.trip_age_ms.map(age));
        self.policies.push(i64::from(proposal.policy_version));
        self.exposed.push(proposal.rung == Rung::Isolated);
        self.stores
            .push(proposal.store.map(crate::id::StoreId::get));
        self.picked
            .push(proposal.trip.as_ref().map(|trip| trip.picked));
    }
}
