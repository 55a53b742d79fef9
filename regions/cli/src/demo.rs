//! `standin demo`: the whole of Standin on one machine, on real baskets, through an outage and the
//! death of the log's leader.

mod edge;
mod elections;
mod fault;
mod group;
mod judge;
pub(crate) mod outcome;
pub(crate) mod payments;
mod plan;
mod primary;
mod run;
mod settings;
mod shoppers;
mod stories;
mod summary;
mod words;

use std::path::PathBuf;

use clap::ValueEnum;

pub use edge::EdgeArgs;
pub use fault::{FaultyLedger, State, Switch};
pub use outcome::Outcome;
pub use stories::Story;

use crate::out::{say, say_json};

/// Shows the whole of it: shoppers shop, banks ask, the primary dies and comes back, the log's
/// leader is killed meanwhile, nothing is lost.
///
/// One region with three edges, each in a process of its own, on loopback: real HTTP on the banks'
/// side and on the platform's, a write-ahead log that the three keep together on disk, real grocery
/// baskets. Shoppers claim orders, pick items and pay at the till's prices; some in several
/// payments, some retried, some over the cap, some in the wrong store; each payment was made to get
/// one answer, and has to get it. A bank that gets no answer from an edge asks the next. At a third
/// of the time the primary hangs, a moment later it is gone, at two thirds it is back. In the middle
/// of the outage the edge that leads the log is killed (SIGKILL), and comes back a moment later. Then
/// the log drains, reconciliation compares it with the ledger, and a checker judges what every client
/// saw against every edge's log.
///
/// Writes DIR/report.json and DIR/report.html (open it in a browser), and DIR/history.jsonl.
///
/// Exit code: 0 everything was answered in time and rightly and every promise held, 2 not so,
/// 1 it could not run.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin demo
  standin demo --seconds 60 --rate 500 --out /tmp/demo
  standin demo --with postgres,redis      real servers, found on this machine; Postgres is
                                          stopped (SIGSTOP), then killed (SIGKILL)
  standin demo --baskets my-baskets.csv.gz --json")]
pub struct Args {
    /// How long the load lasts; the outage is the middle third.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(9..=1_800))]
    pub seconds: u64,
    /// Requests a second; left out, 200, or 50 with real servers: they, the edge, the platform and
    /// the load share this machine's cores.
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=5_000))]
    pub rate: Option<u64>,
    /// Baskets to shop: CSV or CSV.gz with the columns basket_id, shopper_id, store_id, at,
    /// product_id, department, category, quantity, est_cents, actual_cents; left out, a built-in
    /// sample of 808 real ones.
    #[arg(long, value_name = "FILE")]
    pub baskets: Option<PathBuf>,
    /// Where the reports go.
    #[arg(long, value_name = "DIR", default_value = "demo-out")]
    pub out: PathBuf,
    /// Real servers to start, instead of what is embedded. Postgres brings Redis with it: the edges
    /// share what is picked through the log only while the ledger is embedded.
    #[arg(long, value_name = "SERVERS", value_delimiter = ',')]
    pub with: Vec<With>,
    /// The same number makes the same orders and payments.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The report as JSON on standard output, instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// A real server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum With {
    /// The ledger of record.
    Postgres,
    /// The trip cache and the queue of events.
    Redis,
}

// === impl Args ===

impl Args {
    /// Requests a second.
    pub fn rate(&self) -> u64 {
        const EMBEDDED: u64 = 200;
        const REAL_SERVERS: u64 = 50;
        let usual = if self.with.is_empty() {
            EMBEDDED
        } else {
            REAL_SERVERS
        };
        self.rate.unwrap_or(usual)
    }

    /// Runs it; writes the reports and says how it went.
    ///
    /// # Errors
    /// When it could not run.
    pub async fn run(self) -> anyhow::Result<u8> {
        let json = self.json;
        let outcome = Box::pin(run::run(&self)).await?;
        if json {
            say_json(&outcome.json)?;
        } else {
            say(summary::text(&outcome, &self.out));
        }
        Ok(if outcome.is_clean { 0 } else { 2 })
    }

    /// Runs it and hands back what came of it, without a word.
    ///
    /// # Errors
    /// When it could not run.
    pub async fn outcome(&self) -> anyhow::Result<Outcome> {
        Box::pin(run::run(self)).await
    }

    fn is_real(&self, server: With) -> primary::Server {
        let asked = self.with.contains(&server);
        // Edges with a real ledger share a real trip cache, or an outage would find them without.
        let needed = server == With::Redis && self.with.contains(&With::Postgres);
        if asked || needed {
            primary::Server::Real
        } else {
            primary::Server::Embedded
        }
    }
}
