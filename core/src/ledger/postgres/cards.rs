//! The table of cards.

use deadpool_postgres::Object;
use tokio_postgres::Row;

use super::decode::{execute, get, number, query, word};
use super::link::Failure;
use crate::id::ShopperId;
use crate::ledger::cards::{CARD_ROWS_MAX, Card, CardHolder};

/// Gives a card to a shopper, or takes it from whoever has it.
pub(super) async fn set(
    client: &Object,
    card: &Card,
    shopper: Option<ShopperId>,
) -> Result<(), Failure> {
    let (bank, token) = (card.bank.as_str(), &card.token);
    let done = match shopper {
        Some(shopper) => {
            let sql = "insert into cards (bank, token, shopper_id) values ($1, $2, $3) \
                 on conflict (bank, token) do update set shopper_id = excluded.shopper_id";
            execute(client, sql, &[&bank, token, &shopper.get()]).await
        }
        None => {
            let sql = "delete from cards where bank = $1 and token = $2";
            execute(client, sql, &[&bank, token]).await
        }
    };
    done.map(drop).map_err(Failure::committing)
}

pub(super) async fn holder(client: &Object, card: &Card) -> Result<Option<ShopperId>, Failure> {
    let sql = "select shopper_id from cards where bank = $1 and token = $2";
    let rows = query(client, sql, &[&card.bank.as_str(), &card.token]).await?;
    rows.first()
        .map(|row| number(row, "shopper_id"))
        .transpose()
}

pub(super) async fn after(
    client: &Object,
    after: Option<&Card>,
    limit: u32,
) -> Result<Vec<CardHolder>, Failure> {
    let sql = "select bank, token, shopper_id from cards where (bank, token) > ($1, $2) \
         order by bank, token limit $3";
    // No slug is empty.
    let (bank, token) = after.map_or(("", ""), |card| (card.bank.as_str(), card.token.as_str()));
    let limit = i64::from(limit.min(CARD_ROWS_MAX));
    let holder = |row: &Row| -> Result<CardHolder, Failure> {
        Ok(CardHolder {
            card: Card {
                bank: word(row, "bank")?,
                token: get(row, "token")?,
            },
            shopper: number(row, "shopper_id")?,
        })
    };
    let rows = query(client, sql, &[&bank, &token, &limit]).await?;
    rows.iter().map(holder).collect()
}
