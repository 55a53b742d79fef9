//! fjall: its journal is synced with `SyncData`.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::batched::Sink;
use crate::load::{BODY_BYTES, BlockingWriter};

pub struct Writer {
    database: Database,
    keyspace: Keyspace,
    number: u64,
    count: u64,
}

fn open(dir: &Path) -> anyhow::Result<(Database, Keyspace)> {
    let database = Database::builder(dir).open()?;
    let keyspace = database.keyspace("log", KeyspaceCreateOptions::default)?;
    Ok((database, keyspace))
}

/// One writer a thread, each in keys of its own.
pub fn writers(dir: &Path, count: usize) -> anyhow::Result<Vec<Writer>> {
    let (database, keyspace) = open(dir)?;
    let writer = |number| Writer {
        database: database.clone(),
        keyspace: keyspace.clone(),
        number: number as u64,
        count: 0,
    };
    Ok((0..count).map(writer).collect())
}

/// One for the committing thread.
pub fn sink(dir: &Path) -> anyhow::Result<Writer> {
    let (database, keyspace) = open(dir)?;
    Ok(Writer {
        database,
        keyspace,
        number: 0,
        count: 0,
    })
}

impl Writer {
    fn write<'a>(&mut self, bodies: impl Iterator<Item = &'a [u8]>) -> anyhow::Result<()> {
        let batch = self.database.batch();
        let mut batch = batch.durability(Some(PersistMode::SyncData));
        for body in bodies {
            self.count += 1;
            let key = (self.number << 40 | self.count).to_be_bytes();
            batch.insert(&self.keyspace, key, body);
        }
        Ok(batch.commit()?)
    }
}

impl BlockingWriter for Writer {
    fn append(&mut self, body: &[u8]) -> anyhow::Result<()> {
        self.write(std::iter::once(body))
    }
}

impl Sink for Writer {
    fn commit(&mut self, bodies: &[[u8; BODY_BYTES]]) -> anyhow::Result<()> {
        self.write(bodies.iter().map(<[u8; BODY_BYTES]>::as_slice))
    }
}
