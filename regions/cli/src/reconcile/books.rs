//! How commands of reconciliation reach the ledger.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use standin_core::authorities::Authorities;
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};

/// Longest statement of a page or a batch: reports are not in a hurry, and give way to payments.
const STATEMENT_MAX: Duration = Duration::from_secs(60);

/// The ledger of record.
#[derive(Debug, clap::Args)]
pub(crate) struct BooksArgs {
    /// The ledger of record. Others on this machine may see a command line: prefer the variable.
    #[arg(
        long,
        value_name = "URL",
        env = "STANDIN_POSTGRES",
        hide_env_values = true
    )]
    postgres: Option<String>,
    /// TLS, to a server whose certificate is of an authority in this PEM file.
    #[arg(long, value_name = "FILE")]
    postgres_ca: Option<PathBuf>,
}

// === impl BooksArgs ===

impl BooksArgs {
    /// Whether a ledger is named.
    pub(crate) const fn is_named(&self) -> bool {
        self.postgres.is_some()
    }

    /// Sets the connections up.
    pub(crate) fn connect(&self) -> anyhow::Result<PostgresLedger> {
        let Some(url) = &self.postgres else {
            bail!("name the ledger with --postgres URL, or in STANDIN_POSTGRES");
        };
        let mut config = PostgresConfig::new(url.clone());
        config.background.statement_timeout = STATEMENT_MAX;
        config.background.connections = 1;
        if let Some(ca) = &self.postgres_ca {
            let authorities = Authorities::read(ca);
            config.authorities = Some(authorities.context("--postgres-ca")?);
        }
        Ok(PostgresLedger::connect(&config)?)
    }
}
