//! Clearing files line by line, and what stands beside payments.
//!
//! Which files count is the caller's to know: a condition on the file here would tempt the planner,
//! while tables are small, to read whole files for the sake of a few payments.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Object;
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::clearing::{
    Beside, BesideAsk, CLEARING_ROWS_MAX, ClearingFile, ClearingLine, FileState, Receipt,
    StageStep, StagedLine,
};
use super::super::rows::{without_nul, wrong};
use super::decode::{
    Params, execute, get, maybe, nearest_time, number, query, time, trip_status, word,
};
use super::link::Failure;
use super::settlements;
use crate::id::{BankId, ShopperId, TransactionId, TripId};
use crate::money::Money;
use crate::trip::TripStatus;

const FILE: &str = "file_id, bank, sha256, mapping, name, last_line, staged_to, state, opened_at";
const LINE: &str = "l.file_id, l.line, l.reference, l.kind, l.transaction_id, l.named_by, \
     l.shopper_id, l.code, l.merchant, l.network_id, l.terminal, l.amount, l.currency, l.cleared_at";
/// Most files of a bank, and most logs.
const FILES_MAX: i64 = 10_000;

/// Opens a file, or finds it.
pub(super) async fn open_file(
    client: &Object,
    file: &ClearingFile,
) -> Result<ClearingFile, Failure> {
    let sql = "insert into clearing_files (file_id, bank, sha256, mapping, name, last_line, \
         staged_to, state, opened_at) values ($1, $2, $3, $4, $5, $6, 0, 'staging', $7) \
         on conflict (file_id) do nothing";
    let params: Params<'_> = &[
        &file.id,
        &file.bank.as_str(),
        &file.sha256,
        &file.mapping,
        &without_nul(&file.name),
        &whole(file.last_line)?,
        &nearest_time(file.opened_at),
    ];
    execute(client, sql, params)
        .await
        .map_err(Failure::committing)?;
    let sql = format!("select {FILE} from clearing_files where file_id = $1");
    let rows = query(client, &sql, &[&file.id]).await?;
    let row = rows.first().ok_or_else(|| wrong("no such file"))?;
    read_file(row)
}

/// Stages a step, if it is the next one.
pub(super) async fn stage(client: &mut Object, step: &StageStep) -> Result<u64, Failure> {
    if step.lines.len() > CLEARING_ROWS_MAX {
        return Err(wrong("too many lines in one step").into());
    }
    let (from, to) = (whole(step.from)?, whole(step.to)?);
    let tx = client.transaction().await?;
    let sql = "update clearing_files set staged_to = $3 where file_id = $1 and staged_to = $2";
    if execute(&tx, sql, &[&step.file, &from, &to]).await? == 0 {
        let sql = "select staged_to from clearing_files where file_id = $1";
        let rows = query(&tx, sql, &[&step.file]).await?;
        let row = rows.first().ok_or_else(|| wrong("no such file"))?;
        return number(row, "staged_to");
    }
    if !step.lines.is_empty() {
        insert(&tx, step.file, &step.lines).await?;
    }
    tx.commit().await.map_err(Failure::committing)?;
    Ok(step.to)
}

async fn insert(
    tx: &deadpool_postgres::Transaction<'_>,
    file: Uuid,
    lines: &[StagedLine],
) -> Result<(), Failure> {
    fn column<T>(lines: &[StagedLine], of: impl Fn(&ClearingLine) -> T) -> Vec<T> {
        lines.iter().map(|staged| of(&staged.line)).collect()
    }
    let text = |text: &Option<String>| text.as_deref().map(without_nul);
    let numbers: Result<Vec<i64>, _> = lines.iter().map(|one| whole(one.line.line)).collect();
    let references = column(lines, |line| line.reference);
    let kinds = column(lines, |line| line.kind.as_str());
    let payments = column(lines, |line| {
        line.transaction_id.map(TransactionId::to_uuid)
    });
    let named = column(lines, |line| line.named_by.map(|by| by.as_str()));
    let shoppers = column(lines, |line| line.shopper.map(ShopperId::get));
    let codes = column(lines, |line| text(&line.code));
    let merchants = column(lines, |line| text(&line.merchant));
    let networks = column(lines, |line| text(&line.network_id));
    let terminals = column(lines, |line| text(&line.terminal));
    let amounts = column(lines, |line| line.amount.minor());
    let currencies = column(lines, |line| String::from(line.amount.currency()));
    let times = column(lines, |line| nearest_time(line.at));
    let card = |one: &StagedLine| one.card.clone();
    let banks: Vec<Option<String>> = lines
        .iter()
        .map(|one| card(one).map(|card| card.bank.into()))
        .collect();
    let tokens: Vec<Option<String>> = lines
        .iter()
        .map(|one| card(one).map(|card| without_nul(&card.token)))
        .collect();
    let sql = "insert into clearing_lines (file_id, line, reference, kind, transaction_id, named_by, \
         shopper_id, code, merchant, network_id, terminal, amount, currency, cleared_at) \
         select $1, p.line, p.reference, p.kind, p.payment, p.named, \
         coalesce(p.shopper, c.shopper_id), p.code, p.merchant, p.network, p.terminal, p.amount, \
         p.currency, p.cleared_at \
         from unnest($2::bigint[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::bigint[], \
         $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], \
         $14::timestamptz[], $15::text[], $16::text[]) as p (line, reference, kind, payment, named, \
         shopper, code, merchant, network, terminal, amount, currency, cleared_at, card_bank, card) \
         left join cards c on c.bank = p.card_bank and c.token = p.card \
         on conflict (file_id, line) do nothing";
    let params: Params<'_> = &[
        &file,
        &numbers?,
        &references,
        &kinds,
        &payments,
        &named,
        &shoppers,
        &codes,
        &merchants,
        &networks,
        &terminals,
        &amounts,
        &currencies,
        &times,
        &banks,
        &tokens,
    ];
    execute(tx, sql, params).await?;
    Ok(())
}

/// Lets a file count, in the place of the same file under another mapping.
pub(super) async fn complete_file(client: &mut Object, file: Uuid) -> Result<(), Failure> {
    let tx = client.transaction().await?;
    // Locked in id order, so that two that replace each other do not wait in a circle.
    let sql = "select file_id, bank, sha256, state, staged_to, last_line from clearing_files \
         where sha256 = (select sha256 from clearing_files where file_id = $1) \
         order by file_id for update";
    let rows = query(&tx, sql, &[&file]).await?;
    let mut own = None;
    for row in &rows {
        if get::<Uuid>(row, "file_id")? == file {
            own = Some(row);
        }
    }
    let own = own.ok_or_else(|| wrong("no such file"))?;
    if number::<u64>(own, "staged_to")? < number::<u64>(own, "last_line")? {
        return Err(wrong("the file is not staged to its end").into());
    }
    if word::<FileState>(own, "state")? != FileState::Complete {
        let sql = "update clearing_files set state = 'replaced' \
             where bank = $1 and sha256 = $2 and state = 'complete'";
        let (bank, sha256): (&str, &str) = (get(own, "bank")?, get(own, "sha256")?);
        execute(&tx, sql, &[&bank, &sha256]).await?;
        let sql = "update clearing_files set state = 'complete' where file_id = $1";
        execute(&tx, sql, &[&file]).await?;
    }
    tx.commit().await.map_err(Failure::committing)
}

/// A bank's complete files.
pub(super) async fn files(client: &Object, bank: &BankId) -> Result<Vec<ClearingFile>, Failure> {
    let sql = format!(
        "select {FILE} from clearing_files where bank = $1 and state = 'complete' \
         order by opened_at, file_id limit $2"
    );
    let rows = query(client, &sql, &[&bank.as_str(), &FILES_MAX]).await?;
    rows.iter().map(read_file).collect()
}

/// What stands beside payments.
pub(super) async fn beside(client: &Object, ask: &BesideAsk) -> Result<Beside, Failure> {
    let BesideAsk {
        payments,
        shoppers,
        trips,
    } = ask;
    let most = payments.len().max(shoppers.len()).max(trips.len());
    if most > CLEARING_ROWS_MAX {
        return Err(wrong("too much asked about at once").into());
    }
    let ids: Vec<Uuid> = payments.iter().map(|id| id.to_uuid()).collect();
    let owners: Vec<i64> = shoppers.iter().map(|shopper| shopper.get()).collect();
    let mut lines = BTreeMap::new();
    let by_payment =
        format!("select {LINE} from clearing_lines l where l.transaction_id = any($1)");
    let by_shopper = format!("select {LINE} from clearing_lines l where l.shopper_id = any($1)");
    let mut rows = query(client, &by_payment, &[&ids]).await?;
    rows.extend(query(client, &by_shopper, &[&owners]).await?);
    for row in &rows {
        let line = read_line(row)?;
        lines.insert((line.file, line.line), line);
    }
    let sql = "select distinct c.transaction_id from conflicts c where c.transaction_id = any($1)";
    let mut conflicted = BTreeSet::new();
    for row in query(client, sql, &[&ids]).await? {
        conflicted.insert(TransactionId::from_uuid(get(&row, "transaction_id")?));
    }
    Ok(Beside {
        lines: lines.into_values().collect(),
        movements: settlements::of(client, &ids).await?,
        conflicted,
        receipts: receipts(client, trips).await?,
    })
}

async fn receipts(client: &Object, of: &[(ShopperId, TripId)]) -> Result<Vec<Receipt>, Failure> {
    let owners: Vec<i64> = of.iter().map(|(shopper, _)| shopper.get()).collect();
    let ids: Vec<Uuid> = of.iter().map(|(_, trip)| trip.0).collect();
    let sql = "select t.trip_id, t.status, t.picked, t.currency \
         from unnest($1::bigint[], $2::uuid[]) as k (shopper_id, trip_id) \
         join trips t on t.shopper_id = k.shopper_id and t.trip_id = k.trip_id";
    let receipt = |row: &Row| -> Result<Receipt, Failure> {
        Ok(Receipt {
            trip: TripId(get(row, "trip_id")?),
            picked: Money::from_minor(get(row, "picked")?, word(row, "currency")?),
            closed: trip_status(row)? != TripStatus::Shopping,
        })
    };
    let rows = query(client, sql, &[&owners, &ids]).await?;
    rows.iter().map(receipt).collect()
}

/// Lines of a file by their numbers.
pub(super) async fn lines_at(
    client: &Object,
    file: Uuid,
    lines: &[u64],
) -> Result<Vec<ClearingLine>, Failure> {
    if lines.len() > CLEARING_ROWS_MAX {
        return Err(wrong("too many lines asked for at once").into());
    }
    let numbers: Result<Vec<i64>, Failure> = lines.iter().map(|line| whole(*line)).collect();
    let sql = format!(
        "select {LINE} from clearing_lines l where l.file_id = $1 and l.line = any($2) \
         order by l.line"
    );
    let rows = query(client, &sql, &[&file, &numbers?]).await?;
    rows.iter().map(read_line).collect()
}

/// Those of these payments that have a row.
pub(super) async fn known(
    client: &Object,
    payments: &[TransactionId],
) -> Result<BTreeSet<TransactionId>, Failure> {
    let ids: Vec<Uuid> = payments.iter().map(|id| id.to_uuid()).collect();
    let sql = "select x.transaction_id from transactions x join authorizations a \
         on a.shopper_id = x.shopper_id and a.transaction_id = x.transaction_id \
         where x.transaction_id = any($1)";
    let rows = query(client, sql, &[&ids]).await?;
    rows.iter()
        .map(|row| Ok(TransactionId::from_uuid(get(row, "transaction_id")?)))
        .collect()
}

/// How far every log was drained.
pub(super) async fn cursors(client: &Object) -> Result<Vec<(Uuid, u64)>, Failure> {
    let sql = "select log, log_index from wal_cursor order by log limit $1";
    let rows = query(client, sql, &[&FILES_MAX]).await?;
    rows.iter()
        .map(|row| Ok((get(row, "log")?, number(row, "log_index")?)))
        .collect()
}

fn read_file(row: &Row) -> Result<ClearingFile, Failure> {
    Ok(ClearingFile {
        id: get(row, "file_id")?,
        bank: word(row, "bank")?,
        sha256: get(row, "sha256")?,
        mapping: get(row, "mapping")?,
        name: get(row, "name")?,
        last_line: number(row, "last_line")?,
        staged_to: number(row, "staged_to")?,
        state: word(row, "state")?,
        opened_at: time(row, "opened_at")?,
    })
}

fn read_line(row: &Row) -> Result<ClearingLine, Failure> {
    let payment: Option<Uuid> = get(row, "transaction_id")?;
    Ok(ClearingLine {
        file: get(row, "file_id")?,
        line: number(row, "line")?,
        reference: get(row, "reference")?,
        kind: word(row, "kind")?,
        transaction_id: payment.map(TransactionId::from_uuid),
        named_by: match get::<Option<&str>>(row, "named_by")? {
            Some(_) => Some(word(row, "named_by")?),
            None => None,
        },
        shopper: maybe(row, "shopper_id")?,
        code: get(row, "code")?,
        merchant: get(row, "merchant")?,
        network_id: get(row, "network_id")?,
        terminal: get(row, "terminal")?,
        amount: Money::from_minor(get(row, "amount")?, word(row, "currency")?),
        at: time(row, "cleared_at")?,
    })
}

fn whole(count: u64) -> Result<i64, Failure> {
    Ok(i64::try_from(count).map_err(|_| wrong("a line past 2^63"))?)
}
