//! redb: a transaction is durable when its commit returns (`Durability::Immediate`, its default).

use std::path::Path;
use std::sync::Arc;

use redb::{Database, TableDefinition};

use super::batched::Sink;
use crate::load::{BODY_BYTES, BlockingWriter};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

pub struct Writer {
    database: Arc<Database>,
    number: u64,
    count: u64,
}

/// One writer a thread, each in keys of its own.
pub fn writers(dir: &Path, count: usize) -> anyhow::Result<Vec<Writer>> {
    let database = Arc::new(Database::create(dir.join("log.redb"))?);
    let writer = |number| Writer {
        database: Arc::clone(&database),
        number: number as u64,
        count: 0,
    };
    Ok((0..count).map(writer).collect())
}

/// One for the committing thread.
pub fn sink(dir: &Path) -> anyhow::Result<Writer> {
    Ok(Writer {
        database: Arc::new(Database::create(dir.join("log.redb"))?),
        number: 0,
        count: 0,
    })
}

impl Writer {
    fn write<'a>(&mut self, bodies: impl Iterator<Item = &'a [u8]>) -> anyhow::Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(LOG)?;
            for body in bodies {
                self.count += 1;
                table.insert(self.number << 40 | self.count, body)?;
            }
        }
        Ok(transaction.commit()?)
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
