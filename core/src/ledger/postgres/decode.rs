//! Between rows and our vocabulary. A row that does not read back is an error that names the column.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};
use uuid::Uuid;

use super::super::rows::wrong;
use super::super::{AuthorizationRow, AuthorizationState};
use super::link::Failure;
use crate::answer::{Answer, Code};
use crate::clock::Timestamp;
use crate::entry::LogPosition;
use crate::id::{Fingerprint, ShopperId, StoreId, TransactionId, TripId};
use crate::money::Money;
use crate::trip::{ItemStatus, OrderStatus, TripStatus};

pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The columns of `authorizations` that [`authorization`] reads, of alias `a`.
pub(super) const AUTHORIZATION: &str = "a.shopper_id, a.transaction_id, a.state, a.fingerprint, \
     a.bank, a.verdict, a.reason, a.code, a.amount, a.currency, a.rung, a.why, a.cap, \
     a.approved_before, a.trip_id, a.trip_age_ms, a.policy_version, a.store_id, a.picked, a.reversed, \
     a.held_at, a.log, a.log_index, a.log_slot, a.final_at";

/// Joins the payment of a row's `id`: its claim as `x`, and as `a` its authorization, if it has one. Looked
/// up by key whatever the tables hold (decision 33).
pub(super) fn payment(id: &str) -> String {
    format!(
        "cross join lateral (select x.transaction_id, x.shopper_id, x.fingerprint \
         from transactions x where x.transaction_id = {id} limit 1) x \
         left join lateral (select * from authorizations a where a.shopper_id = x.shopper_id \
         and a.transaction_id = x.transaction_id limit 1) a on true"
    )
}

/// Runs a statement, prepared once a connection, and gives its rows.
pub(super) async fn query(
    client: &impl GenericClient,
    sql: &str,
    params: Params<'_>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, params).await
}

/// Runs a statement, prepared once a connection, and gives the number of rows it touched.
pub(super) async fn execute(
    client: &impl GenericClient,
    sql: &str,
    params: Params<'_>,
) -> Result<u64, tokio_postgres::Error> {
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, params).await
}

/// A column as it comes.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, Failure> {
    row.try_get(column).map_err(|_| unreadable(column))
}

/// A text column that holds one of our words, slugs or codes.
pub(super) fn word<T: std::str::FromStr>(row: &Row, column: &str) -> Result<T, Failure> {
    get::<&str>(row, column)?
        .parse()
        .map_err(|_| unreadable(column))
}

/// A number column that holds an id or a count.
pub(super) fn number<T: TryFrom<i64>>(row: &Row, column: &str) -> Result<T, Failure> {
    get::<i64>(row, column)?
        .try_into()
        .map_err(|_| unreadable(column))
}

/// A number column that may be null.
pub(super) fn maybe<T: TryFrom<i64>>(row: &Row, column: &str) -> Result<Option<T>, Failure> {
    let value = get::<Option<i64>>(row, column)?;
    value
        .map(T::try_from)
        .transpose()
        .map_err(|_| unreadable(column))
}

pub(super) fn time(row: &Row, column: &str) -> Result<Timestamp, Failure> {
    Ok(from_sql_time(get(row, column)?))
}

pub(super) fn unreadable(column: &str) -> Failure {
    Failure::Ours(wrong(format!("a row's column {column} does not read back")))
}

/// A timestamp for a column, if Postgres can hold it.
pub(super) fn sql_time(time: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(time.as_millis()).ok()
}

/// A timestamp for a bound of a search: one that does not fit is the nearest that does.
pub(super) fn nearest_time(time: Timestamp) -> jiff::Timestamp {
    sql_time(time).unwrap_or(if time.as_millis() < 0 {
        jiff::Timestamp::UNIX_EPOCH
    } else {
        jiff::Timestamp::MAX
    })
}

pub(super) fn from_sql_time(time: jiff::Timestamp) -> Timestamp {
    Timestamp::from_millis(time.as_millisecond())
}

/// A stored authorization, from the columns of [`AUTHORIZATION`].
pub(super) fn authorization(row: &Row) -> Result<AuthorizationRow, Failure> {
    let currency = word(row, "currency")?;
    let answer = Answer {
        transaction_id: TransactionId::from_uuid(get(row, "transaction_id")?),
        fingerprint: fingerprint(row, "fingerprint")?,
        bank: word(row, "bank")?,
        shopper: number::<ShopperId>(row, "shopper_id")?,
        verdict: word(row, "verdict")?,
        reason: word(row, "reason")?,
        code: Code::try_from(get::<String>(row, "code")?).map_err(|_| unreadable("code"))?,
        amount: Money::from_minor(get(row, "amount")?, currency),
        rung: word(row, "rung")?,
        why: match get::<Option<&str>>(row, "why")? {
            Some(_) => Some(word(row, "why")?),
            None => None,
        },
        cap: get(row, "cap")?,
        approved_before: get(row, "approved_before")?,
        trip: get::<Option<Uuid>>(row, "trip_id")?.map(TripId),
        trip_age_ms: maybe(row, "trip_age_ms")?,
        policy_version: number(row, "policy_version")?,
    };
    let log = match get::<Option<Uuid>>(row, "log")? {
        None => None,
        Some(log) => Some((
            log,
            LogPosition {
                index: number(row, "log_index")?,
                slot: number(row, "log_slot")?,
            },
        )),
    };
    Ok(AuthorizationRow {
        state: state(get(row, "state")?)?,
        answer,
        store: maybe::<StoreId>(row, "store_id")?,
        picked: get(row, "picked")?,
        reversed: get(row, "reversed")?,
        held_at: get::<Option<jiff::Timestamp>>(row, "held_at")?.map(from_sql_time),
        log,
        final_at: get::<Option<jiff::Timestamp>>(row, "final_at")?.map(from_sql_time),
    })
}

pub(super) fn fingerprint(row: &Row, column: &str) -> Result<Fingerprint, Failure> {
    Fingerprint::try_from(get::<&[u8]>(row, column)?).map_err(|_| unreadable(column))
}

pub(super) fn state(text: &str) -> Result<AuthorizationState, Failure> {
    use AuthorizationState::{Final, Held, Released, Reversed};
    [Held, Final, Released, Reversed]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| unreadable("state"))
}

macro_rules! stored_words {
    ($($to:ident, $from:ident: $name:ident { $($variant:ident = $text:literal),* };)*) => {$(
        pub(super) const fn $to(value: $name) -> &'static str {
            match value { $($name::$variant => $text),* }
        }
        pub(super) fn $from(row: &Row) -> Result<$name, Failure> {
            match get::<&str>(row, "status")? {
                $($text => Ok($name::$variant),)*
                _ => Err(unreadable("status")),
            }
        }
    )*};
}
stored_words! {
    order_word, order_status: OrderStatus {
        Placed = "PLACED", Claimed = "CLAIMED", Shopping = "SHOPPING",
        Delivering = "DELIVERING", Complete = "COMPLETE"
    };
    trip_word, trip_status: TripStatus {
        Shopping = "SHOPPING", Delivering = "DELIVERING", Complete = "COMPLETE"
    };
    item_word, item_status: ItemStatus {
        Wanted = "WANTED", Picked = "PICKED", OutOfStock = "OUT_OF_STOCK"
    };
}
