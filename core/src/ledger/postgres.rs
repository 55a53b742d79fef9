//! The ledger in Postgres: the only module that knows tokio-postgres.
//!
//! Three small pools, so that a burst of one kind of work cannot take the connections of another:
//! `foreground` for holds and the reads of a decision, `background` for the drain, the platform and
//! reconciliation, `probe` for the breaker's canary. Nothing connects before it is asked, and a
//! server that is down is an error of the call, not of [`PostgresLedger::connect`].
//!
//! Promises: uniqueness and row locks alone keep the invariants (READ COMMITTED); a commit is never
//! cancelled, its wait is the caller's; the connection of a future dropped half-way goes back when it
//! has answered what was sent on it, or is closed. Lock order
//! everywhere: epoch, cursor, transaction ids, orders, trips, authorizations, each in id order.
//!
//! Of several hosts the one that takes writes is found anew for every connection (`hosts`); a
//! server whose epoch is below one seen before writes nothing (`epoch`).
//!
//! Absent on purpose: LISTEN/NOTIFY, advisory locks, SERIALIZABLE, anything else that engines speaking the protocol lack.

mod advise;
mod book;
mod cache_home;
mod cards;
mod cases;
mod charges;
mod clearing;
mod closed;
mod decode;
mod directory;
mod epoch;
mod events;
mod final_rows;
mod hold;
mod hosts;
mod link;
mod orders;
mod refusals;
mod reports;
mod reversals;
mod reword;
mod settlements;
mod trips;

use std::collections::BTreeSet;
use std::time::Duration;

use secrecy::SecretString;
use uuid::Uuid;

use super::clearing::{
    Acted, Beside, BesideAsk, Case, CaseAction, CaseFilter, CaseStanding, CaseTrail, ClearingBooks,
    ClearingFile, ClearingLine, FoundCase, KeptRun, RunPlace, StageStep,
};
use super::{
    Advice, Advised, AuditRow, AuthorizationRow, Booked, BookedEvent, CacheHome, CachePromotion,
    Card, CardHolder, Claim, ClosedCursor, ClosedTrip, Completed, ConflictRow, DirectoryVersion,
    DrainStep, EventsBooked, HoldReply, Ledger, LedgerError, OpenTrip, Placed, ReconcileRun,
    StaleHold, StartTrip, Started,
};
use crate::BoxFuture;
use crate::authorities::Authorities;
use crate::clock::Timestamp;
use crate::entry::{Proposal, Settlement};
use crate::id::{BankId, OrderId, ShopperId, StoreId, TransactionId, TripId};
use crate::merchant::{MerchantId, MerchantKey, Store};
use crate::trip::Order;
use epoch::Epoch;
use link::{Failure, Link};

pub use charges::Charge;
pub use link::describe;

/// How to reach Postgres, and every bound on waiting for it.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// Connection string; may name several hosts, of which the one that takes writes is used.
    pub url: SecretString,
    /// For decisions.
    pub foreground: PoolConfig,
    /// For the drain, the platform and reconciliation.
    pub background: PoolConfig,
    /// For [`Ledger::probe`].
    pub probe: PoolConfig,
    /// Connections are over TLS, to servers whose certificates are of these; `None`: plain.
    pub authorities: Option<Authorities>,
    /// For the TCP connection to one host.
    pub connect_timeout: Duration,
    /// For a whole new connection: TCP, login, and the questions whether it takes writes and of what
    /// epoch it is. All hosts are tried at once, each for three quarters of this.
    pub create_timeout: Duration,
    /// How long a connection whose caller gave up may take to answer what was sent on it, before it is
    /// closed. Of a server that was left for another, connections go after this.
    pub salvage_timeout: Duration,
    /// How long sent bytes may stay without an acknowledgement.
    pub tcp_user_timeout: Duration,
    /// Idle time before a keepalive probe, and between probes; three unanswered close it.
    pub keepalive: Duration,
    /// How long the server lets a transaction of ours sit idle, locks and all.
    pub idle_in_transaction: Duration,
    /// Shown in `pg_stat_activity`; also names this prober's row.
    pub application_name: String,
    /// The ledger's epoch at least: servers of a lower one are refused from the start.
    pub epoch_min: u64,
    /// For [`Ledger::closed_since`]: every transaction that closes a trip has ended this long after
    /// it wrote the close, a wait for a standby included. Only later ones could be missed.
    pub closes_settle: Duration,
}

/// Bounds of one pool.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Most connections.
    pub connections: usize,
    /// Longest wait for a free one; then the call fails, nothing done.
    pub wait: Duration,
    /// The server gives a statement up after this. A COMMIT that waits for a standby is not bound.
    pub statement_timeout: Duration,
    /// The server gives a wait for a lock up after this; below the caller's budget.
    pub lock_timeout: Duration,
    /// What a COMMIT waits for.
    pub commit: Commit,
}

/// What a COMMIT waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commit {
    /// The server's own setting: its disk, and its synchronous standby.
    Durable,
    /// Nothing: it is visible at once and durable within a second. For holds only: a hold is not an
    /// answer, and one that a crash takes is put back, as a final row, from the log.
    Soon,
}

/// Why a configuration is not one.
#[derive(Debug, thiserror::Error)]
pub enum PostgresConfigError {
    /// The connection string does not parse.
    #[error("the connection string of Postgres is not valid: {0}")]
    Url(#[from] tokio_postgres::Error),
    /// The pool cannot be made.
    #[error("no pool of connections: {0}")]
    Pool(String),
}

/// Why the migrations did not run to their end. Those before the failed one stay applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// No connection.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A migration failed, or the database was migrated by something else.
    #[error("migration: {0}")]
    Migration(#[from] refinery::Error),
}

/// The ledger in Postgres.
pub struct PostgresLedger {
    foreground: Link,
    background: Link,
    probe: Link,
    prober: String,
    epoch: Epoch,
    closes_settle: Duration,
}

mod embedded {
    #![allow(missing_docs, unreachable_pub, reason = "made by the macro")]
    refinery::embed_migrations!("migrations");
}

// === impl PostgresConfig ===

impl PostgresConfig {
    /// Defaults that fit a Postgres budget of 100 ms.
    pub fn new(url: impl Into<String>) -> Self {
        let pool = |connections, statement, lock| PoolConfig {
            connections,
            wait: Duration::from_millis(statement),
            statement_timeout: Duration::from_millis(statement),
            lock_timeout: Duration::from_millis(lock),
            commit: Commit::Durable,
        };
        Self {
            url: SecretString::from(url.into()),
            foreground: PoolConfig {
                commit: Commit::Soon,
                ..pool(4, 100, 60)
            },
            background: pool(4, 5_000, 1_000),
            probe: pool(1, 500, 200),
            authorities: None,
            connect_timeout: Duration::from_millis(500),
            create_timeout: Duration::from_secs(1),
            salvage_timeout: Duration::from_millis(500),
            tcp_user_timeout: Duration::from_secs(2),
            keepalive: Duration::from_secs(5),
            idle_in_transaction: Duration::from_secs(5),
            application_name: "standin".to_owned(),
            epoch_min: 0,
            closes_settle: Duration::from_secs(600),
        }
    }
}

// === impl PostgresLedger ===

impl PostgresLedger {
    /// Sets the pools up. The server need not be there yet.
    pub fn connect(config: &PostgresConfig) -> Result<Self, PostgresConfigError> {
        let epoch = Epoch::new(config.epoch_min);
        let link = |pool| Link::new(config, pool, epoch.clone());
        Ok(Self {
            foreground: link(&config.foreground)?,
            background: link(&config.background)?,
            probe: link(&config.probe)?,
            prober: config.application_name.clone(),
            closes_settle: config.closes_settle,
            epoch,
        })
    }

    /// What trips were charged, or asked to be, after a key: at most `limit`, those of a shopper together.
    ///
    /// # Errors
    /// As any call of the ledger's.
    pub async fn charges(
        &self,
        after: Option<(ShopperId, TransactionId)>,
        limit: u32,
    ) -> Result<Vec<Charge>, LedgerError> {
        let lease = self.background.lease().await?;
        let result = charges::charges(&lease, after, limit).await;
        self.background.settle(lease, result)
    }

    /// Opens the connections that decisions use and rehearses a hold on each, so that the first payments
    /// need not. Says how many there are; a server that is away, or has no schema yet, is no error here.
    pub async fn warm(&self) -> usize {
        let leases = (0..self.foreground.connections_max()).map(|_| self.foreground.lease());
        let leases = futures_util::future::join_all(leases).await;
        let rehearsed = leases.into_iter().flatten().map(|lease| async {
            let result = hold::rehearse(&lease, &self.epoch).await;
            let kept = self.foreground.settle(lease, result);
            if let Err(error) = &kept {
                tracing::debug!(%error, "a hold cannot be rehearsed");
            }
            kept.is_ok()
        });
        let rehearsed = futures_util::future::join_all(rehearsed).await;
        rehearsed.into_iter().filter(|ready| *ready).count()
    }

    /// Brings the schema up to this build's. Forward only. One process at a time should; of two
    /// that start together on an empty database one may fail and succeeds when it tries again.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        let mut lease = self.background.lease().await?;
        // A migration may take longer than a statement of everyday.
        let unbounded = lease.batch_execute("set statement_timeout = 0; set lock_timeout = 0");
        let unbounded = unbounded.await.map_err(Failure::from);
        if let Err(failure) = unbounded {
            return Err(self.background.settle(lease, Err(failure))?);
        }
        let client: &mut tokio_postgres::Client = &mut lease;
        let migrated = embedded::migrations::runner().run_async(client).await;
        // Not settled: the session's timeouts were changed, so its connection is closed.
        lease.close();
        migrated?;
        Ok(())
    }

    /// Closes the pools: waiting and later calls fail at once.
    pub fn close(&self) {
        let Self {
            foreground,
            background,
            probe,
            prober: _,
            epoch: _,
            closes_settle: _,
        } = self;
        for link in [foreground, background, probe] {
            link.close();
        }
    }
}

impl std::fmt::Debug for PostgresLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresLedger").finish_non_exhaustive()
    }
}

/// Runs one call on a lease of a pool and settles the lease by its result.
macro_rules! on {
    ($link:expr, |$lease:ident| $call:expr) => {
        Box::pin(async move {
            #[allow(unused_mut, reason = "calls without a transaction only read the lease")]
            let mut $lease = $link.lease().await?;
            let result = $call.await;
            $link.settle($lease, result)
        })
    };
}

impl Ledger for PostgresLedger {
    fn hold(&self, batch: Vec<Proposal>) -> BoxFuture<'_, Result<Vec<HoldReply>, LedgerError>> {
        Box::pin(async move {
            let lease = self.foreground.lease().await?;
            let mut result = hold::hold(&lease, &batch, &self.epoch).await;
            if result.as_ref().is_err_and(Failure::stale_plan) {
                // A migration ran since the plans were made; nothing was done. Once more.
                lease.statement_cache.clear();
                result = hold::hold(&lease, &batch, &self.epoch).await;
            }
            self.foreground.settle(lease, result)
        })
    }

    fn advise(&self, advice: Advice) -> BoxFuture<'_, Result<Advised, LedgerError>> {
        Box::pin(async move {
            let lease = self.foreground.lease().await?;
            let mut result = advise::advise(&lease, &advice, &self.epoch).await;
            if result.as_ref().is_err_and(Failure::stale_plan) {
                lease.statement_cache.clear();
                result = advise::advise(&lease, &advice, &self.epoch).await;
            }
            self.foreground.settle(lease, result)
        })
    }

    fn open_trip(
        &self,
        shopper: ShopperId,
    ) -> BoxFuture<'_, Result<Option<OpenTrip>, LedgerError>> {
        on!(self.foreground, |lease| trips::open(&lease, shopper))
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        on!(self.probe, |lease| reports::probe(
            &lease,
            &self.prober,
            &self.epoch
        ))
    }

    fn directory_version(&self) -> BoxFuture<'_, Result<DirectoryVersion, LedgerError>> {
        on!(self.background, |lease| directory::version(&lease))
    }

    fn stores_after(
        &self,
        after: Option<StoreId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Store>, LedgerError>> {
        on!(self.background, |lease| directory::stores(
            &lease, after, limit
        ))
    }

    fn merchant_ids_after(
        &self,
        after: Option<MerchantKey>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<MerchantId>, LedgerError>> {
        on!(self.background, |lease| directory::merchant_ids(
            &lease, after, limit
        ))
    }

    fn card_holder(&self, card: Card) -> BoxFuture<'_, Result<Option<ShopperId>, LedgerError>> {
        on!(self.foreground, |lease| cards::holder(&lease, &card))
    }

    fn cards(
        &self,
        after: Option<Card>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<CardHolder>, LedgerError>> {
        on!(self.background, |lease| cards::after(
            &lease,
            after.as_ref(),
            limit
        ))
    }

    fn cursor(&self, log: Uuid) -> BoxFuture<'_, Result<u64, LedgerError>> {
        on!(self.background, |lease| book::cursor(&lease, log))
    }

    fn book(&self, step: DrainStep) -> BoxFuture<'_, Result<Booked, LedgerError>> {
        on!(self.background, |lease| book::book(
            &mut lease,
            &step,
            &self.epoch
        ))
    }

    fn epoch(&self) -> u64 {
        self.epoch.seen()
    }

    fn require_epoch(&self, epoch: u64) {
        self.epoch.raise(epoch);
    }

    fn promote_epoch(&self) -> BoxFuture<'_, Result<u64, LedgerError>> {
        Box::pin(async move {
            let sql = "update ledger_epoch set epoch = greatest(epoch, $1) + 1 \
                 where only_row = 1 returning epoch";
            let row = self.background.ask_any(sql, self.epoch.least()).await?;
            let raised = self.epoch.learn(&row);
            raised.map_err(|_| super::rows::wrong("the epoch does not read back"))?;
            for pool in [&self.foreground, &self.background, &self.probe] {
                pool.look_again();
            }
            Ok(self.epoch.seen())
        })
    }

    fn cache_home(&self) -> BoxFuture<'_, Result<CacheHome, LedgerError>> {
        on!(self.background, |lease| cache_home::home(&*lease, ""))
    }

    fn promote_cache_home(
        &self,
        promotion: CachePromotion,
    ) -> BoxFuture<'_, Result<CacheHome, LedgerError>> {
        on!(self.background, |lease| cache_home::promote(
            &mut lease, &promotion
        ))
    }

    fn put_store(&self, store: Store) -> BoxFuture<'_, Result<(), LedgerError>> {
        on!(self.background, |lease| directory::put_store(
            &mut lease, &store
        ))
    }

    fn put_merchant_id(&self, id: MerchantId) -> BoxFuture<'_, Result<(), LedgerError>> {
        on!(self.background, |lease| directory::put_merchant_id(
            &mut lease, &id
        ))
    }

    fn remove_merchant_id(&self, key: MerchantKey) -> BoxFuture<'_, Result<bool, LedgerError>> {
        on!(self.background, |lease| directory::remove_merchant_id(
            &mut lease, &key
        ))
    }

    fn set_card(
        &self,
        card: Card,
        shopper: Option<ShopperId>,
    ) -> BoxFuture<'_, Result<(), LedgerError>> {
        on!(self.background, |lease| cards::set(&lease, &card, shopper))
    }

    fn place_order(&self, order: Order) -> BoxFuture<'_, Result<Placed, LedgerError>> {
        on!(self.background, |lease| orders::place(&mut lease, order))
    }

    fn order(&self, id: OrderId) -> BoxFuture<'_, Result<Option<Order>, LedgerError>> {
        on!(self.background, |lease| orders::order(&*lease, id))
    }

    fn offers(&self, store: StoreId, limit: u32) -> BoxFuture<'_, Result<Vec<Order>, LedgerError>> {
        on!(self.background, |lease| orders::offers(
            &lease, store, limit
        ))
    }

    fn claim(
        &self,
        order: OrderId,
        shopper: ShopperId,
    ) -> BoxFuture<'_, Result<Claim, LedgerError>> {
        on!(self.background, |lease| orders::claim(
            &lease, order, shopper
        ))
    }

    fn start_trip(&self, start: StartTrip) -> BoxFuture<'_, Result<Started, LedgerError>> {
        on!(self.background, |lease| trips::start(&mut lease, &start))
    }

    fn trip(
        &self,
        shopper: ShopperId,
        trip: TripId,
    ) -> BoxFuture<'_, Result<Option<OpenTrip>, LedgerError>> {
        on!(self.background, |lease| trips::trip(&lease, shopper, trip))
    }

    fn book_events(
        &self,
        events: Vec<BookedEvent>,
    ) -> BoxFuture<'_, Result<EventsBooked, LedgerError>> {
        on!(self.background, |lease| events::book(&mut lease, &events))
    }

    fn complete(
        &self,
        shopper: ShopperId,
        trip: TripId,
    ) -> BoxFuture<'_, Result<Completed, LedgerError>> {
        on!(self.background, |lease| trips::complete(
            &mut lease, shopper, trip
        ))
    }

    fn closed_since(
        &self,
        after: Option<ClosedCursor>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<ClosedTrip>, LedgerError>> {
        on!(self.background, |lease| closed::since(
            &lease,
            after,
            limit,
            self.closes_settle
        ))
    }

    fn authorizations(
        &self,
        after: Option<(ShopperId, TransactionId)>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<AuthorizationRow>, LedgerError>> {
        on!(self.background, |lease| reports::authorizations(
            &lease, after, limit
        ))
    }

    fn authorization(
        &self,
        id: TransactionId,
    ) -> BoxFuture<'_, Result<Option<AuthorizationRow>, LedgerError>> {
        on!(self.foreground, |lease| reports::one(&lease, id))
    }

    fn stale_holds(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<StaleHold>, LedgerError>> {
        on!(self.background, |lease| reports::stale_holds(
            &lease, before, limit
        ))
    }

    fn release(&self, holds: Vec<StaleHold>) -> BoxFuture<'_, Result<u64, LedgerError>> {
        on!(self.background, |lease| reports::release(
            &mut lease, &holds
        ))
    }

    fn settlements(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Settlement>, LedgerError>> {
        on!(self.background, |lease| settlements::after(
            &lease, after, limit
        ))
    }

    fn conflicts(&self, limit: u32) -> BoxFuture<'_, Result<Vec<ConflictRow>, LedgerError>> {
        on!(self.background, |lease| reports::conflicts(&lease, limit))
    }

    fn audit(&self, limit: u32) -> BoxFuture<'_, Result<Vec<AuditRow>, LedgerError>> {
        on!(self.background, |lease| reports::audit(&lease, limit))
    }

    fn record_run(&self, run: ReconcileRun) -> BoxFuture<'_, Result<(), LedgerError>> {
        on!(self.background, |lease| reports::record_run(
            &mut lease, &run
        ))
    }
}

impl ClearingBooks for PostgresLedger {
    fn open_file(&self, file: ClearingFile) -> BoxFuture<'_, Result<ClearingFile, LedgerError>> {
        on!(self.background, |lease| clearing::open_file(&lease, &file))
    }

    fn stage(&self, step: StageStep) -> BoxFuture<'_, Result<u64, LedgerError>> {
        on!(self.background, |lease| clearing::stage(&mut lease, &step))
    }

    fn complete_file(&self, file: Uuid) -> BoxFuture<'_, Result<(), LedgerError>> {
        on!(self.background, |lease| clearing::complete_file(
            &mut lease, file
        ))
    }

    fn clearing_files(
        &self,
        bank: BankId,
    ) -> BoxFuture<'_, Result<Vec<ClearingFile>, LedgerError>> {
        on!(self.background, |lease| clearing::files(&lease, &bank))
    }

    fn beside(&self, ask: BesideAsk) -> BoxFuture<'_, Result<Beside, LedgerError>> {
        on!(self.background, |lease| clearing::beside(&lease, &ask))
    }

    fn lines_at(
        &self,
        file: Uuid,
        lines: Vec<u64>,
    ) -> BoxFuture<'_, Result<Vec<ClearingLine>, LedgerError>> {
        on!(self.background, |lease| clearing::lines_at(
            &lease, file, &lines
        ))
    }

    fn known_payments(
        &self,
        payments: Vec<TransactionId>,
    ) -> BoxFuture<'_, Result<BTreeSet<TransactionId>, LedgerError>> {
        on!(self.background, |lease| clearing::known(&lease, &payments))
    }

    fn cursors(&self) -> BoxFuture<'_, Result<Vec<(Uuid, u64)>, LedgerError>> {
        on!(self.background, |lease| clearing::cursors(&lease))
    }

    fn keep_cases(
        &self,
        found: Vec<FoundCase>,
        at: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<CaseStanding>, LedgerError>> {
        on!(self.background, |lease| cases::keep(&mut lease, &found, at))
    }

    fn cases(
        &self,
        filter: CaseFilter,
        after: Option<Uuid>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Case>, LedgerError>> {
        on!(self.background, |lease| cases::after(
            &lease, &filter, after, limit
        ))
    }

    fn case(&self, id: Uuid) -> BoxFuture<'_, Result<Option<CaseTrail>, LedgerError>> {
        on!(self.background, |lease| cases::one(&lease, id))
    }

    fn act_on_case(&self, action: CaseAction) -> BoxFuture<'_, Result<Acted, LedgerError>> {
        on!(self.background, |lease| cases::act(&mut lease, &action))
    }

    fn runs(
        &self,
        before: Option<RunPlace>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<KeptRun>, LedgerError>> {
        on!(self.background, |lease| reports::runs(
            &lease, before, limit
        ))
    }
}
