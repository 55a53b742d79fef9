//! A real Postgres in a temporary folder.
//!
//! Its data is as durable as a ledger's should be (fsync on) unless a test says otherwise. Postgres
//! refuses to run as root; started by root it runs as the user `postgres` that its package makes.
//! With standbys it is a [`Replicated`] one.

mod standby;

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use standin_core::ledger::postgres::describe;
use tokio::time::Instant;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::{START_MAX, START_TRIES, STOP_MAX, ServerError};
use crate::process::{self, Process};

const NAME: &str = "postgres";
const SUPERUSER: &str = "standin";
/// How long one try to connect may take while the server starts.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How often a server that starts is tried again.
const POLL: Duration = Duration::from_millis(20);

pub use standby::{Replicated, ReplicatedOptions, StandbyOptions};

/// How to set a server up.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Settings of `postgresql.conf`, over those made here; the last one of a name wins.
    pub settings: Vec<(String, String)>,
    /// The port; a free one when absent.
    pub port: Option<u16>,
    /// Data of a stopped cluster to begin with a copy of, instead of making one: as good, and an
    /// order of magnitude cheaper. See [`Postgres::save`].
    pub copy_of: Option<PathBuf>,
    /// Whether commits reach the disk. Off is faster, and as good for whoever only kills processes.
    pub fsync: bool,
    /// Where its folder is made: a disk of its own, for one that is to become full. Everybody's
    /// temporary folder when absent.
    pub within: Option<PathBuf>,
}

/// A running Postgres. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    owner: Option<Owner>,
    port: u16,
    settings: Vec<(String, String)>,
    process: Mutex<Option<Process>>,
    // Last, so that the folder goes after the server.
    folder: tempfile::TempDir,
}

/// Whom the server runs as when we are root.
#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: u32,
    gid: u32,
}

// === impl PostgresOptions ===

impl PostgresOptions {
    fn settings(&self) -> Vec<(String, String)> {
        let fsync = if self.fsync { "on" } else { "off" };
        let mut settings = vec![("fsync".to_owned(), fsync.to_owned())];
        settings.extend(self.settings.iter().cloned());
        settings
    }
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            settings: Vec::new(),
            port: None,
            copy_of: None,
            fsync: true,
            within: None,
        }
    }
}

// === impl Postgres ===

impl Postgres {
    /// Makes a cluster and starts it on a free port.
    pub async fn start() -> Result<Self, ServerError> {
        Self::start_with(PostgresOptions::default()).await
    }

    /// Makes a cluster and starts it.
    pub async fn start_with(options: PostgresOptions) -> Result<Self, ServerError> {
        let server = Self::prepare(options.settings(), options.port, options.within.as_deref())?;
        match &options.copy_of {
            Some(saved) => copy_tree(saved, &server.data(), server.owner)?,
            None => server.init().await?,
        }
        server.begin(options.port).await
    }

    /// A server without data.
    fn prepare(
        settings: Vec<(String, String)>,
        port: Option<u16>,
        within: Option<&Path>,
    ) -> Result<Self, ServerError> {
        let bin = find_binaries()?;
        let owner = owner()?;
        let mut folder = tempfile::Builder::new();
        folder.prefix("standin-postgres-");
        let folder = match within {
            Some(within) => folder.tempdir_in(within)?,
            None => folder.tempdir()?,
        };
        if let Some(Owner { uid, gid }) = owner {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        Ok(Self {
            bin,
            owner,
            port: port.unwrap_or(0),
            settings,
            process: Mutex::new(None),
            folder,
        })
    }

    /// Starts a server that has data, on `port` or a free one.
    async fn begin(mut self, port: Option<u16>) -> Result<Self, ServerError> {
        for attempt in 1_u32.. {
            self.port = match port {
                Some(port) => port,
                None => process::free_port()?,
            };
            match self.launch().await {
                // Somebody may have taken the port between our look and its bind.
                Err(ServerError::NotReady { tail, .. })
                    if port.is_none()
                        && attempt < START_TRIES
                        && tail.contains("Address already in use") => {}
                done => return done.map(|()| self),
            }
        }
        Err(ServerError::NotRunning { name: NAME })
    }

    /// Connection text for `database`, for clients of this machine.
    pub fn url(&self, database: &str) -> String {
        let port = self.port;
        format!("postgres://{SUPERUSER}@127.0.0.1:{port}/{database}")
    }

    /// Where it listens on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds its data and its log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes an empty database and gives its connection text.
    pub async fn create_database(&self, name: &str) -> Result<String, ServerError> {
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !plain || name.is_empty() {
            return Err(refused("a database name is a-z, 0-9 and _"));
        }
        self.execute("postgres", &format!("create database \"{name}\""))
            .await?;
        Ok(self.url(name))
    }

    /// Runs statements in `database` over a connection of its own.
    pub async fn execute(&self, database: &str, statements: &str) -> Result<(), ServerError> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls)
            .await
            .map_err(failed)?;
        let talk = async {
            let done = client.batch_execute(statements).await;
            // The connection ends when its client is gone.
            drop(client);
            done
        };
        let (done, closed) = tokio::join!(talk, connection);
        done.map_err(failed)?;
        closed.map_err(failed)
    }

    /// The first column of the first row, as text, over a connection of its own.
    pub async fn ask_in(
        &self,
        database: &str,
        question: &str,
    ) -> Result<Option<String>, ServerError> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls)
            .await
            .map_err(failed)?;
        let talk = async {
            let reply = client.simple_query(question).await;
            drop(client);
            reply
        };
        let (reply, closed) = tokio::join!(talk, connection);
        let messages = reply.map_err(failed)?;
        closed.map_err(failed)?;
        Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        }))
    }

    /// How its processes are ([`Process::states`]); nobody when it does not run.
    pub fn states(&self) -> Vec<char> {
        self.lock().as_ref().map_or_else(Vec::new, Process::states)
    }

    /// Freezes the postmaster and all its backends: new and existing connections hang.
    pub fn pause(&self) -> Result<(), ServerError> {
        self.with_process(|process| process.pause())
    }

    /// Thaws what [`Postgres::pause`] froze.
    pub fn resume(&self) -> Result<(), ServerError> {
        self.with_process(|process| process.resume())
    }

    /// Kills the server at once and waits until it is gone. Its data stays for `restart`.
    pub async fn kill(&self) -> Result<(), ServerError> {
        let mut process = self.take()?;
        process.kill()?;
        process.ended(STOP_MAX).await?;
        Ok(())
    }

    /// Stops the server in order (open connections are cut, data is checkpointed) and waits.
    pub async fn stop(&self) -> Result<(), ServerError> {
        let mut process = self.take()?;
        process.resume()?;
        process.signal(Signal::INT)?;
        process.ended(STOP_MAX).await?;
        Ok(())
    }

    /// Starts the server again on its port, after ending it in order if it runs.
    pub async fn restart(&self) -> Result<(), ServerError> {
        match self.stop().await {
            Ok(()) | Err(ServerError::NotRunning { .. }) => self.launch().await,
            Err(error) => Err(error),
        }
    }

    /// Stops the server in order and copies its data to `folder`, for
    /// [`PostgresOptions::copy_of`]. The copy is there whole or not at all.
    pub async fn save(&self, folder: &Path) -> Result<(), ServerError> {
        self.stop().await?;
        let partial = folder.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        copy_tree(&self.data(), &partial, None)?;
        fs::rename(&partial, folder)?;
        Ok(())
    }

    async fn init(&self) -> Result<(), ServerError> {
        let mut command = self.command("initdb");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8"])
            .args(["--locale=C", "--no-sync", "--no-instructions"]);
        self.run("initdb", command).await
    }

    /// Runs one of Postgres' programs to its end.
    async fn run(&self, name: &'static str, command: Command) -> Result<(), ServerError> {
        let log = self.folder.path().join(format!("{name}.log"));
        let mut process = Process::spawn(name, command, &log)?;
        let status = process.ended(START_MAX).await?;
        if status.success() {
            return Ok(());
        }
        Err(ServerError::NotReady {
            name,
            why: status.to_string(),
            tail: process.tail(),
        })
    }

    async fn launch(&self) -> Result<(), ServerError> {
        let log = self.folder.path().join("postgres.log");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        command.args(["-p", &self.port.to_string()]);
        let socket = self.folder.path().to_string_lossy().into_owned();
        let ours = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &socket),
            ("max_connections", "200"),
            ("shared_buffers", "64MB"),
            // One checkpoint in a test would be noise; recovery stays short all the same.
            ("max_wal_size", "1GB"),
            ("log_min_messages", "warning"),
            ("logging_collector", "off"),
            ("restart_after_crash", "on"),
        ];
        for (key, value) in ours {
            command.args(["-c", &format!("{key}={value}")]);
        }
        for (key, value) in &self.settings {
            command.args(["-c", &format!("{key}={value}")]);
        }
        let mut process = Process::spawn(NAME, command, &log)?;
        self.await_ready(&mut process).await?;
        *self.lock() = Some(process);
        Ok(())
    }

    /// Waits for a statement to succeed, so that recovery after a kill is over as well.
    async fn await_ready(&self, process: &mut Process) -> Result<(), ServerError> {
        let deadline = Instant::now().checked_add(START_MAX);
        loop {
            let try_once = self.execute("postgres", "select 1");
            let why = match tokio::time::timeout(CONNECT_MAX, try_once).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_elapsed) => "no answer to a connection".to_owned(),
            };
            let ended = process.status().map(|status| status.to_string());
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if ended.is_some() || late {
                return Err(ServerError::NotReady {
                    name: NAME,
                    why: ended.unwrap_or(why),
                    tail: process.tail(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.folder.path());
        if let Some(Owner { uid, gid }) = self.owner {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<Process, ServerError> {
        let taken = self.lock().take();
        taken.ok_or(ServerError::NotRunning { name: NAME })
    }

    fn with_process(
        &self,
        act: impl FnOnce(&Process) -> Result<(), process::ProcessError>,
    ) -> Result<(), ServerError> {
        match self.lock().as_ref() {
            Some(process) => Ok(act(process)?),
            None => Err(ServerError::NotRunning { name: NAME }),
        }
    }
}

// === free functions ===

/// The folder with `initdb` and `postgres`: of `PATH`, else Debian's newest.
fn find_binaries() -> Result<PathBuf, ServerError> {
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    debian.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let others: Vec<PathBuf> = debian.into_iter().map(|(_, path)| path).collect();
    let missing = |program| ServerError::Missing {
        program,
        also: " or /usr/lib/postgresql/*/bin",
        hint: "install Postgres 15 or newer (Debian: apt install postgresql)",
    };
    let initdb = process::find_program("initdb", &others).ok_or(missing("initdb"))?;
    // Both from one installation; PATH may hold links to it.
    let initdb = fs::canonicalize(initdb)?;
    let bin = initdb.parent().ok_or(missing("initdb"))?;
    if bin.join("postgres").is_file() {
        Ok(bin.to_owned())
    } else {
        Err(missing("postgres"))
    }
}

/// Copies a folder with its permissions; symbolic links are followed.
fn copy_tree(from: &Path, to: &Path, owner: Option<Owner>) -> Result<(), ServerError> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if fs::metadata(&source)?.is_dir() {
            copy_tree(&source, &target, owner)?;
        } else {
            fs::copy(&source, &target)?;
            give(&target, owner)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    give(to, owner)
}

fn give(path: &Path, owner: Option<Owner>) -> Result<(), ServerError> {
    if let Some(Owner { uid, gid }) = owner {
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn owner() -> Result<Option<Owner>, ServerError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd")?;
    let found = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (name == "postgres").then_some(Owner { uid, gid })
    });
    found.map(Some).ok_or(ServerError::Missing {
        program: "the account postgres",
        also: "",
        hint: "Postgres does not run as root: run as another user, or install its package",
    })
}

fn failed(error: tokio_postgres::Error) -> ServerError {
    refused(describe(&error))
}

fn refused(why: impl std::fmt::Display) -> ServerError {
    ServerError::Refused {
        name: NAME,
        why: why.to_string(),
    }
}
