//! A real Redis in a temporary folder, and just enough of its protocol to set a stage with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{START_MAX, START_TRIES, STOP_MAX, ServerError};
use crate::process::{self, Process};

const NAME: &str = "redis-server";
/// How long one command of [`Redis::command`] may take.
const COMMAND_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// Nesting of a reply; a command that needs more is not for setting a stage.
const DEPTH_MAX: u32 = 8;

/// How to set a server up.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Whether every write is synced to the append-only file before it is answered.
    pub appendonly: bool,
    /// The port on loopback of the primary to follow.
    pub replica_of: Option<u16>,
    /// Further arguments, as on a command line.
    pub extra: Vec<String>,
}

/// A running Redis. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    port: u16,
    options: RedisOptions,
    process: Mutex<Option<Process>>,
    // Last, so that the folder goes after the server.
    folder: tempfile::TempDir,
}

/// What Redis answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Text, also for a status.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Nothing.
    Nil,
    /// Several.
    Many(Vec<Reply>),
}

// === impl Redis ===

impl Redis {
    /// Starts an empty server on a free port.
    pub async fn start(options: RedisOptions) -> Result<Self, ServerError> {
        let program = process::find_program(NAME, &[]).ok_or(ServerError::Missing {
            program: NAME,
            also: "",
            hint: "install Redis 7 or newer (Debian: apt install redis-server)",
        })?;
        let folder = tempfile::Builder::new()
            .prefix("standin-redis-")
            .tempdir()?;
        let mut server = Self {
            program,
            port: 0,
            options,
            process: Mutex::new(None),
            folder,
        };
        for attempt in 1_u32.. {
            server.port = process::free_port()?;
            match server.launch().await {
                Err(ServerError::NotReady { tail, .. })
                    if attempt < START_TRIES && tail.contains("Address already in use") => {}
                done => return done.map(|()| server),
            }
        }
        Err(ServerError::NotRunning { name: NAME })
    }

    /// Connection text, for clients of this machine.
    pub fn url(&self) -> String {
        let port = self.port;
        format!("redis://127.0.0.1:{port}")
    }

    /// Where it listens on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds its data and its log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How its processes are ([`Process::states`]); nobody when it does not run.
    pub fn states(&self) -> Vec<char> {
        self.lock().as_ref().map_or_else(Vec::new, Process::states)
    }

    /// Freezes it: new and existing connections hang.
    pub fn pause(&self) -> Result<(), ServerError> {
        self.with_process(|process| process.pause())
    }

    /// Thaws what [`Redis::pause`] froze.
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

    /// Stops the server in order and waits.
    pub async fn stop(&self) -> Result<(), ServerError> {
        let mut process = self.take()?;
        process.resume()?;
        process.terminate()?;
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

    /// Sends one command over a connection of its own. An error reply is
    /// [`ServerError::Refused`].
    pub async fn command(&self, words: &[&str]) -> Result<Reply, ServerError> {
        match tokio::time::timeout(COMMAND_MAX, self.talk(words)).await {
            Ok(reply) => reply,
            Err(_elapsed) => Err(refused("no answer in time")),
        }
    }

    async fn talk(&self, words: &[&str]) -> Result<Reply, ServerError> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes()).await?;
        read_reply(&mut BufReader::new(stream), 0).await
    }

    async fn launch(&self) -> Result<(), ServerError> {
        let log = self.folder.path().join("redis.log");
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.folder.path())
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--daemonize", "no", "--dir"])
            .arg(self.folder.path())
            // A replica is of use at once; waiting for more replicas is for another scale.
            .args(["--repl-diskless-sync-delay", "0"]);
        let RedisOptions {
            appendonly,
            replica_of,
            extra,
        } = &self.options;
        if *appendonly {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        if let Some(port) = replica_of {
            command.args(["--replicaof", &format!("127.0.0.1 {port}")]);
        }
        command.args(extra);
        let mut process = Process::spawn(NAME, command, &log)?;
        self.await_ready(&mut process).await?;
        *self.lock() = Some(process);
        Ok(())
    }

    /// Waits for a PING to be answered: not before the append-only file is loaded.
    async fn await_ready(&self, process: &mut Process) -> Result<(), ServerError> {
        let deadline = Instant::now().checked_add(START_MAX);
        loop {
            let why = match self.command(&["PING"]).await {
                Ok(_pong) => return Ok(()),
                Err(error) => error.to_string(),
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

/// Reads one RESP2 reply.
async fn read_reply<R>(stream: &mut R, depth: u32) -> Result<Reply, ServerError>
where
    R: AsyncBufRead + Unpin + Send,
{
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let line = line.trim_end();
    let kind = line.chars().next().ok_or_else(|| refused("no answer"))?;
    let rest = line.get(1..).unwrap_or_default();
    let number = || rest.parse::<i64>().map_err(refused);
    match kind {
        '+' => Ok(Reply::Text(rest.to_owned())),
        '-' => Err(refused(rest)),
        ':' => Ok(Reply::Number(number()?)),
        '$' => match usize::try_from(number()?) {
            Err(_negative) => Ok(Reply::Nil),
            Ok(length) => {
                let mut bytes = vec![0; length.saturating_add(2)];
                stream.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
        },
        '*' if depth < DEPTH_MAX => {
            let mut many = Vec::new();
            for _ in 0..number()?.max(0) {
                many.push(Box::pin(read_reply(stream, depth.saturating_add(1))).await?);
            }
            Ok(Reply::Many(many))
        }
        _ => Err(refused("not a reply")),
    }
}

fn refused(why: impl std::fmt::Display) -> ServerError {
    ServerError::Refused {
        name: NAME,
        why: why.to_string(),
    }
}
