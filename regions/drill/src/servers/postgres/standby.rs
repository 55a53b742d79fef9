//! Standbys by streaming replication, and their promotion.
//!
//! A standby is a base copy of its primary that follows it. [`Postgres::detach`] makes it lag from
//! then on: what the primary commits later does not reach it, and is lost when it is promoted.
//! Deliberately absent: fencing of the old primary. It may come back, as old primaries do.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::{NAME, POLL, Postgres, PostgresOptions, SUPERUSER, ServerError, refused};

/// How long a standby may take to follow, to catch up or to become a primary.
const CHANGE_MAX: Duration = Duration::from_secs(30);

/// How to set a standby up.
#[derive(Clone, Debug)]
pub struct StandbyOptions {
    /// What the primary knows it by; a-z, 0-9 and _.
    pub name: String,
    /// The port; a free one when absent.
    pub port: Option<u16>,
}

/// How to set a primary with standbys up.
#[derive(Clone, Debug)]
pub struct ReplicatedOptions {
    /// The primary; its settings are the standbys' too.
    pub primary: PostgresOptions,
    /// How many standbys.
    pub standbys: usize,
    /// Whether a commit of the primary waits for one of them (any) to have it on disk.
    pub synchronous: bool,
}

/// A primary and its standbys, as they were at the start: [`Postgres::promote`] changes their roles,
/// not their places.
#[derive(Debug)]
pub struct Replicated {
    /// The primary of the start.
    pub primary: Postgres,
    /// Its standbys, `standby_1` and so on.
    pub standbys: Vec<Postgres>,
}

// === impl Replicated ===

impl Replicated {
    /// Starts a primary and its standbys, all caught up.
    pub async fn start(options: ReplicatedOptions) -> Result<Self, ServerError> {
        let ReplicatedOptions {
            primary,
            standbys: number,
            synchronous,
        } = options;
        let primary = Postgres::start_with(primary).await?;
        let mut standbys = Vec::with_capacity(number);
        for name in (1..=number).map(|n| format!("standby_{n}")) {
            standbys.push(primary.standby(StandbyOptions { name, port: None }).await?);
        }
        if synchronous {
            primary.wait_for_standbys(true).await?;
        }
        Ok(Self { primary, standbys })
    }

    /// Connection text that names every server, the primary of the start first; the client is to
    /// look for the one that takes writes.
    pub fn url(&self, database: &str) -> String {
        let standbys = self.standbys.iter().map(Postgres::port);
        let hosts: Vec<String> = std::iter::once(self.primary.port())
            .chain(standbys)
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let hosts = hosts.join(",");
        format!("postgres://{SUPERUSER}@{hosts}/{database}?target_session_attrs=read-write")
    }
}

// === impl Postgres ===

impl Postgres {
    /// Starts a standby that follows this server, with this server's settings.
    pub async fn standby(&self, options: StandbyOptions) -> Result<Self, ServerError> {
        let StandbyOptions { name, port } = options;
        let mut settings = self.settings.clone();
        // The name that a standby gives itself at its primary.
        settings.push(("cluster_name".to_owned(), name.clone()));
        let standby = Self::prepare(settings, port, None)?;
        let mut command = standby.command("pg_basebackup");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            SUPERUSER,
        ]);
        command.arg("-D").arg(standby.data());
        // Written so that it follows; taken from a checkpoint made now.
        command.args(["-R", "-X", "stream", "-c", "fast", "--no-sync"]);
        standby.run("pg_basebackup", command).await?;
        let standby = standby.begin(port).await?;
        let following = format!(
            "select 1 from pg_stat_replication where application_name = '{name}' \
             and state = 'streaming'"
        );
        self.until(&following, "the standby does not follow")
            .await?;
        Ok(standby)
    }

    /// Whether commits wait for one standby (any) to have them on disk.
    pub async fn wait_for_standbys(&self, wait: bool) -> Result<(), ServerError> {
        let names = if wait { "ANY 1 (*)" } else { "" };
        let set = format!("alter system set synchronous_standby_names = '{names}'");
        // Changed for the sessions of the server too, or what commits next may not wait yet.
        self.configure(&set).await?;
        let shown = format!(
            "select 1 where current_setting('synchronous_standby_names') = '{names}' and \
             ('{names}' = '' or exists (select 1 from pg_stat_replication \
             where sync_state = 'quorum'))"
        );
        self.until(&shown, "no standby is waited for").await
    }

    /// Cuts a standby from its primary: it hears of no later commit until it is attached again.
    pub async fn detach(&self) -> Result<(), ServerError> {
        self.configure("alter system set primary_conninfo = ''")
            .await?;
        let cut = "select 1 where not exists (select 1 from pg_stat_wal_receiver)";
        self.until(cut, "the standby still follows").await
    }

    /// Lets a standby follow `primary` (again).
    pub async fn attach(&self, primary: &Self) -> Result<(), ServerError> {
        let port = primary.port;
        let to = format!("user={SUPERUSER} host=127.0.0.1 port={port}");
        self.configure(&format!("alter system set primary_conninfo = '{to}'"))
            .await?;
        let follows = "select 1 from pg_stat_wal_receiver where status = 'streaming'";
        self.until(follows, "the standby does not follow").await
    }

    /// Waits until `standby` has applied everything that this primary has committed by now, those
    /// commits included that waited for no disk.
    pub async fn caught_up(&self, standby: &Self) -> Result<(), ServerError> {
        // A commit that waits for the disk takes everything before it there.
        self.execute(
            "postgres",
            "select pg_logical_emit_message(true, 'standin', '')",
        )
        .await?;
        let place = self.ask("select pg_current_wal_flush_lsn()::text").await?;
        let place = place.ok_or_else(|| refused("no place in the log"))?;
        let applied = format!("select 1 where pg_last_wal_replay_lsn() >= '{place}'::pg_lsn");
        standby.until(&applied, "the standby lags").await
    }

    /// Makes a standby a primary, and waits until it takes writes. Nothing happens to the old one.
    pub async fn promote(&self) -> Result<(), ServerError> {
        self.execute("postgres", "select pg_promote(false)").await?;
        let done = "select 1 where not pg_is_in_recovery()";
        self.until(done, "the standby is still one").await
    }

    /// Ends the server at once without a checkpoint, as its own `immediate` mode does: backends are
    /// told to quit and connections close. Its data stays for `restart`.
    pub async fn stop_immediate(&self) -> Result<(), ServerError> {
        let mut process = self.take()?;
        process.resume()?;
        process.signal(Signal::QUIT)?;
        process.ended(super::STOP_MAX).await?;
        Ok(())
    }

    async fn configure(&self, setting: &str) -> Result<(), ServerError> {
        self.execute("postgres", setting).await?;
        self.execute("postgres", "select pg_reload_conf()").await
    }

    /// Waits until a question has an answer.
    async fn until(&self, question: &str, complaint: &str) -> Result<(), ServerError> {
        let deadline = Instant::now().checked_add(CHANGE_MAX);
        while self.ask(question).await?.is_none() {
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                return Err(ServerError::NotReady {
                    name: NAME,
                    why: complaint.to_owned(),
                    tail: String::new(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn ask(&self, question: &str) -> Result<Option<String>, ServerError> {
        self.ask_in("postgres", question).await
    }
}
