//! Postgres as just a log: one insert a transaction, prepared, one connection a writer.

use anyhow::Context;
use tokio_postgres::{Client, NoTls, Statement};

/// The table that is inserted into.
pub const SCHEMA: &str = "create table log (id bigserial primary key, body bytea not null)";

pub struct Writer {
    client: Client,
    insert: Statement,
}

/// One connection each.
pub async fn writers(url: &str, count: usize) -> anyhow::Result<Vec<Writer>> {
    let mut writers = Vec::new();
    for _ in 0..count {
        let (client, connection) = tokio_postgres::connect(url, NoTls)
            .await
            .context("connecting to Postgres")?;
        // Ends with its client.
        tokio::spawn(connection);
        let insert = client.prepare("insert into log (body) values ($1)").await?;
        writers.push(Writer { client, insert });
    }
    Ok(writers)
}

impl crate::load::Writer for Writer {
    async fn append(&mut self, body: &[u8]) -> anyhow::Result<()> {
        self.client.execute(&self.insert, &[&body]).await?;
        Ok(())
    }
}
