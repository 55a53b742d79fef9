//! Real servers, started from the binaries that are installed here.

pub mod postgres;
pub mod redis;

use std::io;
use std::time::Duration;

use crate::process::ProcessError;

pub use postgres::{Postgres, PostgresOptions, Replicated, ReplicatedOptions, StandbyOptions};
pub use redis::{Redis, RedisOptions};

/// How long a server may take to accept its first connection.
pub const START_MAX: Duration = Duration::from_secs(30);
/// How long a server may take to end after it was asked to.
pub const STOP_MAX: Duration = Duration::from_secs(20);
/// Starting again on another port after somebody else took the first one meanwhile.
const START_TRIES: u32 = 3;

/// Why a server is not there.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A program is not installed; `hint` says how to get it.
    #[error("{program} was not found in PATH{also}; {hint}")]
    Missing {
        /// The program.
        program: &'static str,
        /// Where else was looked.
        also: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// It ended, or did not answer, while it was starting.
    #[error("{name} did not start: {why}\n{tail}")]
    NotReady {
        /// Which server.
        name: &'static str,
        /// What was seen.
        why: String,
        /// The end of its log.
        tail: String,
    },
    /// It is stopped.
    #[error("{name} is not running")]
    NotRunning {
        /// Which server.
        name: &'static str,
    },
    /// It refused what it was asked.
    #[error("{name} refused: {why}")]
    Refused {
        /// Which server.
        name: &'static str,
        /// Its words.
        why: String,
    },
    /// A process could not be started, signalled or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Files or sockets of this machine.
    #[error(transparent)]
    Io(#[from] io::Error),
}
