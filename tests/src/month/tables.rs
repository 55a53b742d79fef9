//! The ledger's side of a made-up month: one file of COPY text a table.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::SinkExt;
use standin_core::id::TransactionId;
use tokio_postgres::NoTls;
use uuid::Uuid;

use super::{BANK, Booked, Payment, store_id};

const AUTHORIZATIONS: &str = "authorizations (shopper_id, transaction_id, state, fingerprint, bank, \
     verdict, reason, code, amount, currency, rung, why, cap, approved_before, trip_id, \
     policy_version, exposed, store_id, picked, reversed, held_at, log, log_index, log_slot, final_at)";
const TRANSACTIONS: &str = "transactions (transaction_id, shopper_id, fingerprint)";
const TRIPS: &str = "trips (shopper_id, trip_id, store_id, currency, status, version, picked, \
     picked_listed, mix, started_at)";
const CONFLICTS: &str = "conflicts (log, log_index, log_slot, transaction_id, cause, outcome)";
const SETTLEMENTS: &str = "settlements (settlement_id, bank, kind, shopper_id, transaction_id, amount, \
     currency, settled_at)";
const STORES: &str = "stores (store_id, name, address, lat_e6, lon_e6)";
const MERCHANT_IDS: &str = "merchant_ids (network_id, terminal, store_id)";
const FINGERPRINT: &str = "\\\\x0000000000000000000000000000000000000000000000000000000000000000";
const CHUNK_BYTES: usize = 256 * 1024;

/// What is copied into the ledger.
pub struct Tables {
    folder: PathBuf,
    files: Vec<(&'static str, BufWriter<File>)>,
    payments: u64,
}

// === impl Tables ===

impl Tables {
    pub(super) fn create(folder: &Path) -> Self {
        let tables = [
            AUTHORIZATIONS,
            TRANSACTIONS,
            TRIPS,
            CONFLICTS,
            SETTLEMENTS,
            STORES,
            MERCHANT_IDS,
        ];
        let file = |table| {
            let file = File::create(path(folder, table)).unwrap();
            (table, BufWriter::new(file))
        };
        Self {
            folder: folder.to_owned(),
            files: tables.into_iter().map(file).collect(),
            payments: 0,
        }
    }

    /// Payments written.
    pub fn payments(&self) -> u64 {
        self.payments
    }

    pub(super) fn stores(&mut self, count: u64) {
        for store in 1..=count {
            self.put(
                STORES,
                &format!("{store}\tSTORE {store:03}\t{store} Main St\t0\t0"),
            );
            self.put(MERCHANT_IDS, &format!("{}\t\t{store}", store_id(store)));
        }
    }

    pub(super) fn authorization(&mut self, payment: &Payment, booked: &Booked<'_>) {
        let Booked {
            state,
            verdict,
            reversed,
            cap,
            rung,
        } = *booked;
        self.payments += 1;
        let Payment {
            shopper,
            trip,
            id,
            code,
            at,
            amount,
            store,
            ..
        } = payment;
        let why = match rung {
            "stand_in" | "isolated" => "timeout",
            _ => "\\N",
        };
        let reason = match (verdict, rung) {
            ("declined", _) => "far_from_store",
            (_, "stand_in") => "within_stand_in_limits",
            (_, "isolated") => "within_floor_limit",
            _ => "within_cap",
        };
        let (at, log, id) = (time(*at), log(), id.to_uuid());
        let exposed = rung == "isolated";
        let number = self.payments;
        self.put(
            AUTHORIZATIONS,
            &format!(
                "{shopper}\t{id}\t{state}\t{FINGERPRINT}\t{BANK}\t{verdict}\t{reason}\t{code}\t\
                 {amount}\tUSD\t{rung}\t{why}\t{cap}\t0\t{trip}\t1\t{exposed}\t{store}\t{amount}\t\
                 {reversed}\t{at}\t{log}\t{number}\t0\t{at}"
            ),
        );
        self.put(TRANSACTIONS, &format!("{id}\t{shopper}\t{FINGERPRINT}"));
    }

    pub(super) fn trip(&mut self, payment: &Payment, picked: i64) {
        let Payment {
            shopper,
            trip,
            store,
            at,
            ..
        } = payment;
        let at = time(*at);
        self.put(
            TRIPS,
            &format!(
                "{shopper}\t{trip}\t{store}\tUSD\tCOMPLETE\t1\t{picked}\t{picked}\t{{}}\t{at}"
            ),
        );
    }

    pub(super) fn conflict(&mut self, id: TransactionId) {
        let (log, number, id) = (log(), self.payments, id.to_uuid());
        self.put(
            CONFLICTS,
            &format!("{log}\t{number}\t1\t{id}\tother_answer\t{{}}"),
        );
    }

    pub(super) fn settlement(&mut self, id: TransactionId, shopper: u64, amount: i64, at: i64) {
        let (at, id) = (time(at), id.to_uuid());
        self.put(
            SETTLEMENTS,
            &format!("{id}\t{BANK}\tcapture\t{shopper}\t{id}\t{amount}\tUSD\t{at}"),
        );
    }

    pub(super) fn flush(&mut self) {
        for (_, file) in &mut self.files {
            file.flush().unwrap();
        }
    }

    fn put(&mut self, table: &'static str, row: &str) {
        let file = self.files.iter_mut().find(|(name, _)| *name == table);
        writeln!(file.unwrap().1, "{row}").unwrap();
    }

    /// Copies everything into a ledger that has its schema, and takes its statistics.
    pub async fn copy(&self, url: &str) {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let driven = tokio::spawn(connection);
        for (table, _) in &self.files {
            let sink = client.copy_in(&format!("copy {table} from stdin")).await;
            let mut sink = Box::pin(sink.unwrap());
            let mut file = BufReader::new(File::open(path(&self.folder, table)).unwrap());
            loop {
                let mut chunk = vec![0; CHUNK_BYTES];
                let read = file.read(&mut chunk).unwrap();
                if read == 0 {
                    break;
                }
                chunk.truncate(read);
                sink.send(Bytes::from(chunk)).await.unwrap();
            }
            sink.close().await.unwrap();
        }
        let cursor = format!(
            "insert into wal_cursor (log, log_index) values ('{}', {})",
            log(),
            self.payments
        );
        client.batch_execute(&cursor).await.unwrap();
        client.batch_execute("analyze").await.unwrap();
        drop(client);
        driven.await.unwrap().unwrap();
    }
}

fn path(folder: &Path, table: &str) -> PathBuf {
    let name = table.split_whitespace().next().unwrap();
    folder.join(format!("{name}.copy"))
}

fn log() -> Uuid {
    Uuid::from_u128(0xacce)
}

fn time(at: i64) -> String {
    jiff::Timestamp::from_millisecond(at).unwrap().to_string()
}
