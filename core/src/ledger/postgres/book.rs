//! The drain's side: outcomes become final rows, set by set, behind a cursor moved by
//! compare-and-set. A row that cannot be booked goes whole to `conflicts` and never stops the drain.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::{Object, Transaction};
use uuid::Uuid;

use super::super::rows::{audit_row, log_takes, outcome_json, wrong};
use super::super::{
    AuthorizationRow, AuthorizationState, Booked, BookedCounts, DrainStep, LedgerError,
};
use super::decode::{
    AUTHORIZATION, authorization, execute, fingerprint, get, nearest_time, number, payment, query,
};
use super::epoch::Epoch;
use super::final_rows::{Finals, WRITE};
use super::hold::CLAIM;
use super::link::Failure;
use super::reversals;
use super::reword::{self, reword};
use super::settlements;
use crate::answer::Answer;
use crate::entry::{Booking, OperatorAction};
use crate::id::{Fingerprint, TransactionId};

/// How far a log was drained.
pub(super) async fn cursor(client: &Object, log: Uuid) -> Result<u64, Failure> {
    let rows = query(
        client,
        "select log_index from wal_cursor where log = $1",
        &[&log],
    )
    .await?;
    rows.first().map_or(Ok(0), |row| number(row, "log_index"))
}

/// Books a step.
pub(super) async fn book(
    client: &mut Object,
    step: &DrainStep,
    epoch: &Epoch,
) -> Result<Booked, Failure> {
    if !step.fits() {
        return Err(wrong("too many rows in one step").into());
    }
    let mut tx = client.transaction().await?;
    fence(&tx, step, epoch).await?;
    if !move_cursor(&tx, step).await? {
        tx.rollback().await?;
        let cursor = cursor(client, step.log).await?;
        return Ok(Booked::Raced { cursor });
    }
    let mut touched: Vec<Uuid> = reversals::ids(&step.reversals).collect();
    touched.extend(reword::ids(&step.rewordings));
    if !touched.is_empty() {
        touched.extend(step.outcomes.iter().map(id));
        reversals::lock(&tx, &touched).await?;
        reversals::keep(&tx, &step.reversals).await?;
    }
    let mut counts = BookedCounts::default();
    if !step.outcomes.is_empty() {
        counts = outcomes(&mut tx, step).await?;
        touched.extend(step.outcomes.iter().map(id));
    }
    if !step.rewordings.is_empty() {
        reword(&tx, step.log, &step.rewordings).await?;
    }
    if !touched.is_empty() {
        // Each once: a join with an array counts a reversal for every time that an id stands in it.
        touched.sort_unstable();
        touched.dedup();
        reversals::apply(&tx, &touched).await?;
    }
    if !step.settlements.is_empty() {
        let kept = settlements::keep(&tx, step.log, &step.settlements).await?;
        counts.conflicts = counts.conflicts.saturating_add(kept);
    }
    if !step.actions.is_empty() {
        audit(&tx, &step.actions).await?;
    }
    tx.commit().await.map_err(Failure::committing)?;
    Ok(Booked::Moved(counts))
}

fn id(booking: &Booking) -> Uuid {
    booking.answer.transaction_id.to_uuid()
}

/// Refuses a server of a past epoch, and keeps a step with reversals apart from every other.
async fn fence(tx: &Transaction<'_>, step: &DrainStep, epoch: &Epoch) -> Result<(), Failure> {
    let lock = if step.reversals.is_empty() {
        "share"
    } else {
        "update"
    };
    let sql = format!(
        "select e.epoch, 1 / (case when e.epoch >= $1 then 1 else 0 end) as current \
         from ledger_epoch e where e.only_row = 1 for {lock}"
    );
    let rows = query(tx, &sql, &[&epoch.least()]).await?;
    let row = rows
        .first()
        .ok_or_else(|| wrong("the ledger has no epoch"))?;
    epoch.learn(row)
}

/// Moves the cursor if it is where the step begins. A second drainer waits here for the first.
async fn move_cursor(tx: &Transaction<'_>, step: &DrainStep) -> Result<bool, Failure> {
    let index = |index: u64| -> Result<i64, LedgerError> {
        i64::try_from(index).map_err(|_| wrong("a log index past 2^63"))
    };
    let (from, to) = (index(step.from)?, index(step.to)?);
    if from == 0 {
        let first = "insert into wal_cursor (log, log_index) values ($1, 0) \
             on conflict (log) do nothing";
        execute(tx, first, &[&step.log]).await?;
    }
    let moved = "update wal_cursor set log_index = $3, moved_at = now() \
         where log = $1 and log_index = $2";
    Ok(execute(tx, moved, &[&step.log, &from, &to]).await? == 1)
}

/// What is stored under a transaction id.
struct Stored {
    claimed: Fingerprint,
    row: Option<AuthorizationRow>,
}

/// What to do with one outcome.
enum Class {
    Write,
    Before,
    Conflict(&'static str),
}

/// Books the outcomes of a step, in the log's order where two are of one payment.
async fn outcomes(tx: &mut Transaction<'_>, step: &DrainStep) -> Result<BookedCounts, Failure> {
    claim(tx, &step.outcomes).await?;
    let mut counts = BookedCounts::default();
    let mut conflicts: Vec<(&Booking, String)> = Vec::new();
    // Each pass books at most one outcome of a payment; a pass also repeats for a row that another
    // region's drain made final in between. Every pass settles one outcome at least.
    let mut left: Vec<&Booking> = step.outcomes.iter().collect();
    while !left.is_empty() {
        let stored = stored(tx, &left).await?;
        let mut now: Vec<&Booking> = Vec::new();
        let mut writing: HashSet<TransactionId> = HashSet::new();
        let mut later: Vec<&Booking> = Vec::new();
        for booking in left {
            let id = booking.answer.transaction_id;
            if writing.contains(&id) {
                later.push(booking);
                continue;
            }
            match classify(stored.get(&id), &booking.answer) {
                Class::Write => {
                    writing.insert(id);
                    now.push(booking);
                }
                Class::Before => counts.already = counts.already.saturating_add(1),
                Class::Conflict(cause) => conflicts.push((booking, cause.to_owned())),
            }
        }
        let written = write(tx, step.log, &now).await?;
        for (booking, result) in written {
            match result {
                Written::Final => counts.finalized = counts.finalized.saturating_add(1),
                Written::Overtaken => later.push(booking),
                Written::Rejected(cause) => conflicts.push((booking, cause)),
            }
        }
        later.sort_by_key(|booking| booking.at);
        left = later;
    }
    counts.conflicts = u64::try_from(conflicts.len()).unwrap_or(u64::MAX);
    keep_conflicts(tx, step.log, &conflicts).await?;
    Ok(counts)
}

/// Claims the ids, in the order in which holds do.
///
/// Trips are not locked: what is written here was answered already, whatever a hold beside it is told,
/// and a hold that sums a trip meanwhile counts a row as it was or as it is. Locks of the drain would
/// make live payments wait for its commit.
async fn claim(tx: &Transaction<'_>, outcomes: &[Booking]) -> Result<(), Failure> {
    let mut firsts: HashMap<TransactionId, &Answer> = HashMap::new();
    for booking in outcomes {
        let answer = &booking.answer;
        firsts.entry(answer.transaction_id).or_insert(answer);
    }
    let firsts: Vec<&Answer> = firsts.into_values().collect();
    let ids: Vec<Uuid> = firsts
        .iter()
        .map(|answer| answer.transaction_id.to_uuid())
        .collect();
    let shoppers: Vec<i64> = firsts.iter().map(|answer| answer.shopper.get()).collect();
    let prints: Vec<&[u8]> = firsts
        .iter()
        .map(|answer| answer.fingerprint.as_bytes().as_slice())
        .collect();
    execute(tx, CLAIM, &[&ids, &shoppers, &prints]).await?;
    Ok(())
}

async fn stored(
    tx: &Transaction<'_>,
    outcomes: &[&Booking],
) -> Result<HashMap<TransactionId, Stored>, Failure> {
    // Each once: a join with an array gives a row for every time that an id stands in it.
    let ids: HashSet<Uuid> = outcomes
        .iter()
        .map(|b| b.answer.transaction_id.to_uuid())
        .collect();
    let ids: Vec<Uuid> = ids.into_iter().collect();
    // Rather than `= any($1)`, which looks for every id in every partition.
    let sql = format!(
        "select x.transaction_id as id, x.fingerprint as claimed, {AUTHORIZATION} \
         from unnest($1::uuid[]) as u (id) {}",
        payment("u.id")
    );
    let mut all = HashMap::with_capacity(ids.len());
    for row in query(tx, &sql, &[&ids]).await? {
        let known = get::<Option<&str>>(&row, "state")?.is_some();
        let found = known.then(|| authorization(&row)).transpose()?;
        let stored = Stored {
            claimed: fingerprint(&row, "claimed")?,
            row: found,
        };
        all.insert(TransactionId::from_uuid(get(&row, "id")?), stored);
    }
    Ok(all)
}

fn classify(stored: Option<&Stored>, answer: &Answer) -> Class {
    let Some(stored) = stored else {
        return Class::Write;
    };
    if stored.claimed != answer.fingerprint {
        return Class::Conflict("other_fingerprint");
    }
    let Some(row) = &stored.row else {
        return Class::Write;
    };
    match row.state {
        AuthorizationState::Held | AuthorizationState::Released => Class::Write,
        // Its reversals are counted on it again with those of every row of the step.
        AuthorizationState::Final | AuthorizationState::Reversed if log_takes(row, answer) => {
            Class::Write
        }
        AuthorizationState::Final | AuthorizationState::Reversed
            if row.answer.is_the_same(answer) =>
        {
            Class::Before
        }
        AuthorizationState::Final | AuthorizationState::Reversed => Class::Conflict("other_answer"),
    }
}

/// What became of writing one outcome.
enum Written {
    Final,
    /// Another drain made it final first; look again.
    Overtaken,
    /// The server, or the width of a column, does not take it.
    Rejected(String),
}

/// Writes final rows as one set. When the server rejects something in it, row by row instead, each
/// under a savepoint, so that one outcome costs only itself.
async fn write<'a>(
    tx: &mut Transaction<'_>,
    log: Uuid,
    outcomes: &[&'a Booking],
) -> Result<Vec<(&'a Booking, Written)>, Failure> {
    let mut written = Vec::with_capacity(outcomes.len());
    let mut columns = Finals::default();
    let mut sent = Vec::with_capacity(outcomes.len());
    for booking in outcomes {
        match columns.push_booking(booking) {
            Some(()) => sent.push(*booking),
            None => written.push((*booking, Written::Rejected("a number is too large".into()))),
        }
    }
    if sent.is_empty() {
        return Ok(written);
    }
    match write_set(tx, log, &columns).await {
        Ok(done) => written.extend(sent.into_iter().map(|booking| {
            let is_final = done.contains(&booking.answer.transaction_id);
            let result = if is_final {
                Written::Final
            } else {
                Written::Overtaken
            };
            (booking, result)
        })),
        Err(failure) if failure.rejected().is_some() => {
            for booking in sent {
                written.push((booking, write_one(tx, log, booking).await?));
            }
        }
        Err(failure) => return Err(failure),
    }
    Ok(written)
}

async fn write_one(
    tx: &mut Transaction<'_>,
    log: Uuid,
    booking: &Booking,
) -> Result<Written, Failure> {
    let mut columns = Finals::default();
    if columns.push_booking(booking).is_none() {
        return Ok(Written::Rejected("a number is too large".to_owned()));
    }
    match write_set(tx, log, &columns).await {
        Ok(done) if done.is_empty() => Ok(Written::Overtaken),
        Ok(_) => Ok(Written::Final),
        Err(failure) => match failure.rejected() {
            Some(cause) => Ok(Written::Rejected(cause)),
            None => Err(failure),
        },
    }
}

/// Writes a set under a savepoint; gives the ids that became final.
async fn write_set(
    tx: &mut Transaction<'_>,
    log: Uuid,
    columns: &Finals<'_>,
) -> Result<HashSet<TransactionId>, Failure> {
    let savepoint = tx.savepoint("outcomes").await?;
    match query(&savepoint, &WRITE, &columns.params(&Some(log))).await {
        Ok(rows) => {
            savepoint.commit().await?;
            let id = |row| get(row, "transaction_id").map(TransactionId::from_uuid);
            rows.iter().map(id).collect()
        }
        Err(error) => {
            savepoint.rollback().await?;
            Err(error.into())
        }
    }
}

async fn keep_conflicts(
    tx: &Transaction<'_>,
    log: Uuid,
    conflicts: &[(&Booking, String)],
) -> Result<(), Failure> {
    if conflicts.is_empty() {
        return Ok(());
    }
    let number = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
    let indexes: Vec<i64> = conflicts.iter().map(|(b, _)| number(b.at.index)).collect();
    let slots: Vec<i64> = conflicts
        .iter()
        .map(|(b, _)| i64::from(b.at.slot))
        .collect();
    let ids: Vec<Uuid> = conflicts
        .iter()
        .map(|(b, _)| b.answer.transaction_id.to_uuid())
        .collect();
    let causes: Vec<&str> = conflicts.iter().map(|(_, cause)| cause.as_str()).collect();
    // JSON escapes NUL, so the text is always one that Postgres takes.
    let outcomes: Vec<String> = conflicts
        .iter()
        .map(|(b, _)| outcome_json(b).to_string())
        .collect();
    let sql = "insert into conflicts (log, log_index, log_slot, transaction_id, cause, outcome) \
         select $1, p.log_index, p.log_slot, p.transaction_id, p.cause, p.outcome \
         from unnest($2::bigint[], $3::bigint[], $4::uuid[], $5::text[], $6::text[]) \
         as p (log_index, log_slot, transaction_id, cause, outcome) \
         on conflict (log, log_index, log_slot) do nothing";
    execute(tx, sql, &[&log, &indexes, &slots, &ids, &causes, &outcomes]).await?;
    Ok(())
}

async fn audit(tx: &Transaction<'_>, actions: &[OperatorAction]) -> Result<(), Failure> {
    for action in actions {
        let row = audit_row(action);
        let sql = "insert into audit (action_id, acted_at, operator, action, reason) \
             values ($1, $2, $3, $4, $5) on conflict (action_id) do nothing";
        let at = nearest_time(row.at);
        execute(
            tx,
            sql,
            &[&action.id, &at, &row.operator, &row.action, &row.reason],
        )
        .await?;
    }
    Ok(())
}
