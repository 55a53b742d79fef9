//! The peers of the edge, each as small as it can be.
//!
//! The *ceiling* reads a request, checks the same signature and answers 200: what hyper and the
//! HMAC allow on this machine. The *bare server* also reads the JSON, and writes it back: what a door must
//! cost at least. The *plain service* is what a team would write first: the same
//! check, then one transaction a request on a pool of connections (lock the trip, sum its
//! approvals, insert, commit), prepared statements, a unique key against doubles; no batching, no
//! cache, no log, no answer without Postgres.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use standin_core::clock::{Clock, SystemClock};
use standin_core::money::{Currency, Money};
use standin_core::signature::{
    ID_HEADER, SIGNATURE_HEADER, Secret, Signed, TIMESTAMP_HEADER, TOLERANCE, verify,
};
use tokio_postgres::NoTls;

use super::serve::{Answering, body_of, respond};
use super::work::BANK;

/// Tables of the plain service.
pub const SCHEMA: &str = "
    create table stores (store_id bigint primary key, name text not null, address text not null);
    create table trips (
        trip_id uuid primary key,
        shopper_id bigint not null,
        store_id bigint not null references stores,
        status text not null,
        cap bigint not null
    );
    create unique index trips_open on trips (shopper_id) where status = 'SHOPPING';
    create table authorizations (
        bank text not null,
        transaction_id text not null,
        trip_id uuid not null references trips,
        amount bigint not null,
        verdict text not null,
        code text not null,
        created_at timestamptz not null default now(),
        primary key (bank, transaction_id)
    );
    create index authorizations_trip on authorizations (trip_id);";

const TRIP: &str = "select t.trip_id, t.cap, s.name, s.address \
    from trips t join stores s on s.store_id = t.store_id \
    where t.shopper_id = $1 and t.status = 'SHOPPING' for update of t";
const SUM: &str = "select coalesce(sum(amount), 0)::bigint from authorizations \
    where trip_id = $1 and verdict = 'approved'";
const INSERT: &str = "insert into authorizations \
    (bank, transaction_id, trip_id, amount, verdict, code) values ($1, $2, $3, $4, $5, $6)";

/// Checks the signature and answers 200.
pub struct Ceiling {
    secrets: Vec<Secret>,
}

/// Checks the signature, reads the payment and writes it back.
pub struct Bare {
    secrets: Vec<Secret>,
}

/// One transaction a request.
pub struct Plain {
    secrets: Vec<Secret>,
    pool: Pool,
}

#[derive(Deserialize, Serialize)]
struct Payment<'a> {
    shopper_id: i64,
    #[serde(borrow)]
    amount: &'a RawValue,
    #[serde(borrow)]
    merchant: Merchant<'a>,
    transaction_id: &'a str,
}

#[derive(Deserialize, Serialize)]
struct Merchant<'a> {
    name: &'a str,
    address: &'a str,
}

// === impl Ceiling ===

impl Ceiling {
    /// Checks against one secret, as the edge does for a bank with one.
    pub fn new(secret: Secret) -> Self {
        Self {
            secrets: vec![secret],
        }
    }
}

impl Answering for Ceiling {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> anyhow::Result<Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body_of(body).await?;
        if !is_signed(&self.secrets, &parts.headers, &body) {
            return Ok(respond(StatusCode::UNAUTHORIZED, "{}"));
        }
        // As long as an answer of the edge.
        Ok(respond(
            StatusCode::OK,
            concat!(
                r#"{"decision":"approved","reason":"within_cap","transaction_id":"#,
                r#""00112233445566778899aabbccddeeff","authorization_code":"ABC234","#,
                r#""amount":"300.00","currency":"USD","cap":"9000000.00","approved_before":"0.00","#,
                r#""trip_id":"00112233-4455-6677-8899-aabbccddeeff","trip_age_ms":50,"policy_version":1}"#
            ),
        ))
    }
}

// === impl Bare ===

impl Bare {
    /// Checks against one secret.
    pub fn new(secret: Secret) -> Self {
        Self {
            secrets: vec![secret],
        }
    }
}

impl Answering for Bare {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> anyhow::Result<Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body_of(body).await?;
        if !is_signed(&self.secrets, &parts.headers, &body) {
            return Ok(respond(StatusCode::UNAUTHORIZED, "{}"));
        }
        let payment: Payment<'_> = serde_json::from_slice(&body)?;
        Ok(respond(StatusCode::OK, serde_json::to_vec(&payment)?))
    }
}

// === impl Plain ===

impl Plain {
    /// On `connections` connections to the database at `url`.
    pub fn new(secret: Secret, url: &str, connections: usize) -> anyhow::Result<Self> {
        let config = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_config(url.parse()?, NoTls, config);
        let pool = Pool::builder(manager).max_size(connections).build()?;
        Ok(Self {
            secrets: vec![secret],
            pool,
        })
    }

    async fn decide(&self, body: &[u8]) -> anyhow::Result<Response<Bytes>> {
        let payment: Payment<'_> = serde_json::from_slice(body)?;
        let amount = payment.amount.get().trim_matches('"');
        let amount = Money::parse(amount, Currency::USD)?.minor();
        let mut client = self.pool.get().await?;
        let (trip, sum, insert) = (
            client.prepare_cached(TRIP).await?,
            client.prepare_cached(SUM).await?,
            client.prepare_cached(INSERT).await?,
        );
        let transaction = client.transaction().await?;
        let Some(row) = transaction.query_opt(&trip, &[&payment.shopper_id]).await? else {
            return Ok(respond(
                StatusCode::PAYMENT_REQUIRED,
                r#"{"decision":"declined"}"#,
            ));
        };
        let (trip_id, cap): (uuid::Uuid, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (name, address): (&str, &str) = (row.try_get(2)?, row.try_get(3)?);
        let spent: i64 = transaction.query_one(&sum, &[&trip_id]).await?.try_get(0)?;
        let at_store = name == payment.merchant.name && address == payment.merchant.address;
        let fits = spent.checked_add(amount).is_some_and(|after| after <= cap);
        let verdict = if at_store && fits {
            "approved"
        } else {
            "declined"
        };
        let code = uuid::Uuid::new_v4().simple().to_string();
        let code = code.get(..6).context("32 digits have six")?;
        let row: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
            &BANK,
            &payment.transaction_id,
            &trip_id,
            &amount,
            &verdict,
            &code,
        ];
        transaction.execute(&insert, &row).await?;
        transaction.commit().await?;
        let answer = format!(
            "{{\"decision\":\"{verdict}\",\"transaction_id\":\"{}\",\"authorization_code\":\"{code}\",\
             \"amount\":{amount},\"currency\":\"USD\",\"cap\":{cap},\"approved_before\":{spent},\
             \"trip_id\":\"{trip_id}\"}}",
            payment.transaction_id
        );
        let status = match verdict {
            "approved" => StatusCode::OK,
            _ => StatusCode::PAYMENT_REQUIRED,
        };
        Ok(respond(status, answer))
    }
}

impl Answering for Plain {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> anyhow::Result<Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body_of(body).await?;
        if !is_signed(&self.secrets, &parts.headers, &body) {
            return Ok(respond(StatusCode::UNAUTHORIZED, "{}"));
        }
        self.decide(&body).await
    }
}

fn is_signed(secrets: &[Secret], headers: &HeaderMap, body: &[u8]) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let message = Signed {
        id: text(ID_HEADER).unwrap_or_default(),
        timestamp: text(TIMESTAMP_HEADER).unwrap_or_default(),
        signature: text(SIGNATURE_HEADER).unwrap_or_default(),
        body,
    };
    verify(secrets, &message, SystemClock.now(), TOLERANCE).is_ok()
}
