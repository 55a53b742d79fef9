//! Findings as cases: kept by id, worked on by people, with a trail of what was done.

use std::collections::{BTreeSet, HashMap};

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::clearing::{
    Acted, CASE_ROWS_MAX, Case, CaseAction, CaseEvent, CaseFilter, CaseStanding, CaseState,
    CaseTrail, FoundCase, Kept, RECONCILE,
};
use super::super::rows::{without_nul, wrong};
use super::decode::{Params, execute, get, maybe, nearest_time, number, query, time, word};
use super::link::Failure;
use crate::clock::Timestamp;
use crate::id::{BankId, ShopperId, TransactionId};
use crate::identity::record_id;

const CASE: &str = "f.case_id, f.kind, f.bank, f.transaction_id, f.shopper_id, f.subject, f.detail, \
     f.amount, f.currency, f.occurred_at, f.facts, f.state, f.owner, f.found_at";
/// Most steps of a case that are told.
const EVENTS_MAX: i64 = 10_000;

/// A step of a case's trail to be written.
struct Step<'a> {
    case: Uuid,
    step: i64,
    action: &'static str,
    owner: Option<&'a str>,
}

/// Keeps findings as cases.
pub(super) async fn keep(
    client: &mut Object,
    found: &[FoundCase],
    at: Timestamp,
) -> Result<Vec<CaseStanding>, Failure> {
    if found.len() > CASE_ROWS_MAX {
        return Err(wrong("too many findings at once").into());
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let tx = client.transaction().await?;
    let new = insert(&tx, found, at).await?;
    let ids: Vec<Uuid> = found.iter().map(|case| case.id).collect();
    let sql = "select case_id, state, owner, facts from finding_cases where case_id = any($1) \
         order by case_id for update";
    let rows = query(&tx, sql, &[&ids]).await?;
    let mut there: HashMap<Uuid, &Row> = HashMap::new();
    for row in &rows {
        there.insert(get(row, "case_id")?, row);
    }
    let mut standings = Vec::new();
    let mut changed = Vec::new();
    let mut seen = BTreeSet::new();
    for case in found {
        let row = there.get(&case.id).ok_or_else(|| wrong("a case is gone"))?;
        let state: CaseState = word(row, "state")?;
        // Of two under one id the first counts.
        let kept = if !seen.insert(case.id) {
            Kept::Known
        } else if new.contains(&case.id) {
            Kept::New
        } else {
            state.kept(get::<&str>(row, "facts")? == without_nul(&case.facts))
        };
        let state = match kept {
            Kept::Reopened => CaseState::Open,
            Kept::New | Kept::Known | Kept::Changed => state,
        };
        if matches!(kept, Kept::Changed | Kept::Reopened) {
            changed.push((case, state));
        }
        let owner: Option<String> = get(row, "owner")?;
        standings.push(CaseStanding { state, owner, kept });
    }
    update(&tx, &changed).await?;
    let steps = next_steps(&tx, &ids).await?;
    let trail: Vec<Step<'_>> = found
        .iter()
        .zip(&standings)
        .filter_map(|(case, standing)| {
            Some(Step {
                case: case.id,
                step: steps.get(&case.id).copied().unwrap_or(1),
                action: standing.kept.word()?,
                owner: standing.owner.as_deref(),
            })
        })
        .collect();
    write_trail(&tx, &trail, at).await?;
    tx.commit().await.map_err(Failure::committing)?;
    Ok(standings)
}

/// Inserts what is not there, in id order, so that two runs do not wait in a circle.
async fn insert(
    tx: &Transaction<'_>,
    found: &[FoundCase],
    at: Timestamp,
) -> Result<BTreeSet<Uuid>, Failure> {
    let mut found: Vec<&FoundCase> = found.iter().collect();
    found.sort_by_key(|case| case.id);
    let ids: Vec<Uuid> = found.iter().map(|case| case.id).collect();
    let kinds: Vec<String> = found.iter().map(|case| without_nul(&case.kind)).collect();
    let banks: Vec<Option<&str>> = found
        .iter()
        .map(|case| case.bank.as_ref().map(BankId::as_str))
        .collect();
    let payments: Vec<Option<Uuid>> = found
        .iter()
        .map(|case| case.transaction_id.map(TransactionId::to_uuid))
        .collect();
    let shoppers: Vec<Option<i64>> = found
        .iter()
        .map(|case| case.shopper.map(ShopperId::get))
        .collect();
    let subjects: Vec<String> = found
        .iter()
        .map(|case| without_nul(&case.subject))
        .collect();
    let details: Vec<String> = found.iter().map(|case| without_nul(&case.detail)).collect();
    let amounts: Vec<i64> = found.iter().map(|case| case.amount).collect();
    let currencies: Vec<Option<String>> = found
        .iter()
        .map(|case| case.currency.map(String::from))
        .collect();
    let times: Vec<jiff::Timestamp> = found
        .iter()
        .map(|case| nearest_time(case.occurred_at))
        .collect();
    let facts: Vec<String> = found.iter().map(|case| without_nul(&case.facts)).collect();
    let sql = "insert into finding_cases (case_id, kind, bank, transaction_id, shopper_id, subject, \
         detail, amount, currency, occurred_at, facts, state, found_at) \
         select p.case_id, p.kind, p.bank, p.payment, p.shopper, p.subject, p.detail, p.amount, \
         p.currency, p.occurred_at, p.facts, 'open', $12 \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::bigint[], $6::text[], \
         $7::text[], $8::bigint[], $9::text[], $10::timestamptz[], $11::text[]) as p (case_id, kind, \
         bank, payment, shopper, subject, detail, amount, currency, occurred_at, facts) \
         on conflict (case_id) do nothing returning case_id";
    let params: Params<'_> = &[
        &ids,
        &kinds,
        &banks,
        &payments,
        &shoppers,
        &subjects,
        &details,
        &amounts,
        &currencies,
        &times,
        &facts,
        &nearest_time(at),
    ];
    let rows = query(tx, sql, params).await?;
    rows.iter().map(|row| get(row, "case_id")).collect()
}

async fn update(tx: &Transaction<'_>, changed: &[(&FoundCase, CaseState)]) -> Result<(), Failure> {
    if changed.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = changed.iter().map(|(case, _)| case.id).collect();
    let details: Vec<String> = changed
        .iter()
        .map(|(case, _)| without_nul(&case.detail))
        .collect();
    let amounts: Vec<i64> = changed.iter().map(|(case, _)| case.amount).collect();
    let currencies: Vec<Option<String>> = changed
        .iter()
        .map(|(case, _)| case.currency.map(String::from))
        .collect();
    let facts: Vec<String> = changed
        .iter()
        .map(|(case, _)| without_nul(&case.facts))
        .collect();
    let states: Vec<&str> = changed.iter().map(|(_, state)| state.as_str()).collect();
    let sql = "update finding_cases f set detail = p.detail, amount = p.amount, \
         currency = p.currency, facts = p.facts, state = p.state \
         from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[]) \
         as p (case_id, detail, amount, currency, facts, state) where f.case_id = p.case_id";
    let params: Params<'_> = &[&ids, &details, &amounts, &currencies, &facts, &states];
    execute(tx, sql, params).await?;
    Ok(())
}

/// The next step of each case that has a trail; its row is locked.
async fn next_steps(tx: &Transaction<'_>, ids: &[Uuid]) -> Result<HashMap<Uuid, i64>, Failure> {
    let sql = "select e.case_id, max(e.step) + 1 as step from finding_events e \
         where e.case_id = any($1) group by e.case_id";
    let rows = query(tx, sql, &[&ids]).await?;
    rows.iter()
        .map(|row| Ok((get(row, "case_id")?, get(row, "step")?)))
        .collect()
}

async fn write_trail(
    tx: &Transaction<'_>,
    trail: &[Step<'_>],
    at: Timestamp,
) -> Result<(), Failure> {
    if trail.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = trail.iter().map(|step| step.case).collect();
    let steps: Vec<i64> = trail.iter().map(|step| step.step).collect();
    let actions: Vec<&str> = trail.iter().map(|step| step.action).collect();
    let owners: Vec<Option<&str>> = trail.iter().map(|step| step.owner).collect();
    let sql = "insert into finding_events (case_id, step, acted_at, actor, action, owner, reason) \
         select p.case_id, p.step, $5, $6, p.action, p.owner, '' \
         from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[]) \
         as p (case_id, step, action, owner)";
    let params: Params<'_> = &[
        &ids,
        &steps,
        &actions,
        &owners,
        &nearest_time(at),
        &RECONCILE,
    ];
    execute(tx, sql, params).await?;
    Ok(())
}

/// Cases by id.
pub(super) async fn after(
    client: &Object,
    filter: &CaseFilter,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Case>, Failure> {
    let sql = format!(
        "select {CASE} from finding_cases f where ($1::uuid is null or f.case_id > $1) \
         and ($2::text is null or f.bank = $2) and ($3::text is null or f.kind = $3) \
         and ($4::text is null or f.state = $4) and ($5::text is null or f.owner = $5) \
         order by f.case_id limit $6"
    );
    let most = u32::try_from(CASE_ROWS_MAX).unwrap_or(u32::MAX);
    let params: Params<'_> = &[
        &after,
        &filter.bank.as_ref().map(BankId::as_str),
        &filter.kind.as_deref(),
        &filter.state.map(CaseState::as_str),
        &filter.owner.as_deref(),
        &i64::from(limit.min(most)),
    ];
    let rows = query(client, &sql, params).await?;
    rows.iter().map(read).collect()
}

/// One case and its trail.
pub(super) async fn one(client: &Object, id: Uuid) -> Result<Option<CaseTrail>, Failure> {
    let sql = format!("select {CASE} from finding_cases f where f.case_id = $1");
    let rows = query(client, &sql, &[&id]).await?;
    let Some(case) = rows.first().map(read).transpose()? else {
        return Ok(None);
    };
    let sql = "select acted_at, actor, action, owner, reason from finding_events \
         where case_id = $1 order by step limit $2";
    let event = |row: &Row| -> Result<CaseEvent, Failure> {
        Ok(CaseEvent {
            at: time(row, "acted_at")?,
            actor: get(row, "actor")?,
            action: get(row, "action")?,
            owner: get(row, "owner")?,
            reason: get(row, "reason")?,
        })
    };
    let rows = query(client, sql, &[&id, &EVENTS_MAX]).await?;
    let events: Result<Vec<CaseEvent>, Failure> = rows.iter().map(event).collect();
    Ok(Some((case, events?)))
}

/// Does something to a case; its trail and the audit say who did it.
pub(super) async fn act(client: &mut Object, action: &CaseAction) -> Result<Acted, Failure> {
    action.check()?;
    let tx = client.transaction().await?;
    let sql = format!("select {CASE} from finding_cases f where f.case_id = $1 for update");
    let rows = query(&tx, &sql, &[&action.case]).await?;
    let Some(mut case) = rows.first().map(read).transpose()? else {
        return Ok(Acted::Unknown);
    };
    let Some((state, owner)) = action.on(case.state, case.owner.as_deref()) else {
        return Ok(Acted::Already(case.state));
    };
    let sql = "update finding_cases set state = $2, owner = $3 where case_id = $1";
    execute(&tx, sql, &[&action.case, &state.as_str(), &owner]).await?;
    let steps = next_steps(&tx, &[action.case]).await?;
    let step = steps.get(&action.case).copied().unwrap_or(1);
    let sql = "insert into finding_events (case_id, step, acted_at, actor, action, owner, reason) \
         values ($1, $2, $3, $4, $5, $6, $7)";
    let at = nearest_time(action.at);
    let params: Params<'_> = &[
        &action.case,
        &step,
        &at,
        &action.actor,
        &action.word(),
        &owner,
        &action.reason,
    ];
    execute(&tx, sql, params).await?;
    let sql = "insert into audit (action_id, acted_at, operator, action, reason) \
         values ($1, $2, $3, $4, $5) on conflict (action_id) do nothing";
    let audited = format!("finding.{} {}", action.word(), action.case);
    let params: Params<'_> = &[
        &action_id(action.case, step),
        &at,
        &action.actor,
        &audited,
        &action.reason,
    ];
    execute(&tx, sql, params).await?;
    tx.commit().await.map_err(Failure::committing)?;
    case.state = state;
    case.owner = owner;
    Ok(Acted::Done(Box::new(case)))
}

/// The audit's id of a step of a case.
fn action_id(case: Uuid, step: i64) -> Uuid {
    record_id(
        "case step",
        &[case.as_bytes().as_slice(), &step.to_be_bytes()],
    )
}

fn read(row: &Row) -> Result<Case, Failure> {
    let payment: Option<Uuid> = get(row, "transaction_id")?;
    let currency = match get::<Option<&str>>(row, "currency")? {
        Some(_) => Some(word(row, "currency")?),
        None => None,
    };
    let bank = match get::<Option<&str>>(row, "bank")? {
        Some(_) => Some(word(row, "bank")?),
        None => None,
    };
    Ok(Case {
        found: FoundCase {
            id: get(row, "case_id")?,
            kind: get(row, "kind")?,
            bank,
            transaction_id: payment.map(TransactionId::from_uuid),
            shopper: maybe(row, "shopper_id")?,
            subject: get(row, "subject")?,
            detail: get(row, "detail")?,
            amount: number(row, "amount")?,
            currency,
            occurred_at: time(row, "occurred_at")?,
            facts: get(row, "facts")?,
        },
        state: word(row, "state")?,
        owner: get(row, "owner")?,
        found_at: time(row, "found_at")?,
    })
}
