//! A child process that never outlives its handle, with every process it started itself.
//!
//! Signals reach the whole *family*: Postgres' backends each call `setsid`, so a signal to the
//! process group would freeze the postmaster and leave existing connections answering. The family
//! is read from `/proc` while its root is stopped, so that nothing is born meanwhile.
//! Deliberately absent: restarting (a server knows how to start itself) and output pipes
//! (a pipe that nobody reads stops the child; a log file does not).

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// How much of a log [`Process::tail`] shows.
pub const TAIL_BYTES_MAX: u64 = 4 * 1024;
/// Ports are taken below the range the kernel gives to outgoing connections, so that a server can
/// come back on its own port.
const PORT_MIN: u16 = 12_000;
const PORT_COUNT: u16 = 18_000;
/// How often a condition without an event of its own is looked at again.
const POLL: Duration = Duration::from_millis(5);
/// A family that still grows after so many looks is a fork bomb; what was found is signalled.
const FAMILY_ROUNDS_MAX: u32 = 16;

/// A child process, its descendants and its log. Dropping it kills them all.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Whom [`Process::kill`] killed: they may take a moment to be gone.
    killed: HashSet<Pid>,
    status: Option<ExitStatus>,
}

/// Why a process did not start, or did not do what was waited for.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be run.
    #[error("{name}: cannot run {program}: {source}")]
    Spawn {
        /// What the process is called here.
        name: String,
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It did not end in time.
    #[error("{name} still runs after {waited:?}")]
    StillRunning {
        /// What the process is called here.
        name: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The system refused a signal or a look at the process.
    #[error("{name}: {source}")]
    System {
        /// What the process is called here.
        name: String,
        /// Why.
        source: io::Error,
    },
}

// === impl Process ===

impl Process {
    /// Starts `command` in a process group of its own, standard output and error appended to
    /// `log`. `name` is for messages.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self, ProcessError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| ProcessError::Spawn {
            name: name.to_owned(),
            program: program.clone(),
            source,
        };
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(failed)?;
        let err = out.try_clone().map_err(failed)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            killed: HashSet::new(),
            status: None,
        })
    }

    /// The process id of the root of the family.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            // An error means that somebody else reaped it: then it has ended and never answers.
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Freezes the family (SIGSTOP): new and existing connections hang, nothing is closed.
    pub fn pause(&self) -> Result<(), ProcessError> {
        self.freeze().map(drop)
    }

    /// Thaws the family (SIGCONT).
    pub fn resume(&self) -> Result<(), ProcessError> {
        let root = self.root()?;
        for pid in family(root).map_err(|source| self.system(source))? {
            signal(pid, Signal::CONT).map_err(|source| self.system(source))?;
        }
        signal(root, Signal::CONT).map_err(|source| self.system(source))
    }

    /// Asks the root alone to end (SIGTERM).
    pub fn terminate(&self) -> Result<(), ProcessError> {
        self.signal(Signal::TERM)
    }

    /// Sends a signal to the root alone.
    pub fn signal(&self, what: Signal) -> Result<(), ProcessError> {
        signal(self.root()?, what).map_err(|source| self.system(source))
    }

    /// Kills the family at once (SIGKILL), as a machine that loses its power would. Use
    /// [`Process::ended`] to wait until it is gone.
    pub fn kill(&mut self) -> Result<(), ProcessError> {
        if self.status().is_some() {
            return Ok(());
        }
        // The root first: a postmaster that outlived a child would begin its own recovery.
        let root = self.root()?;
        let mut members = self.freeze().unwrap_or_default();
        members.remove(&root);
        signal(root, Signal::KILL).map_err(|source| self.system(source))?;
        for pid in &members {
            signal(*pid, Signal::KILL).map_err(|source| self.system(source))?;
        }
        self.killed.extend(members);
        Ok(())
    }

    /// Waits until the root has ended and everyone that was killed with it is gone.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus, ProcessError> {
        let deadline = Instant::now().checked_add(within);
        loop {
            self.killed.retain(|pid| is_alive(*pid));
            if let Some(status) = self.status()
                && self.killed.is_empty()
            {
                return Ok(status);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(ProcessError::StillRunning {
                    name: self.name.clone(),
                    waited: within,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// How its root and everyone below it are, a letter each as in `/proc/PID/stat`: `T` is stopped,
    /// `Z` is dead. Nobody once it is gone.
    pub fn states(&self) -> Vec<char> {
        let Ok(root) = self.root() else {
            return Vec::new();
        };
        let members = family(root).unwrap_or_default();
        let all = std::iter::once(root).chain(members);
        all.filter_map(|pid| parent_and_state(pid.as_raw_nonzero().get()))
            .map(|(_, state)| state)
            .collect()
    }

    /// The end of its log, for messages.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }

    fn root(&self) -> Result<Pid, ProcessError> {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .filter(|_| self.status.is_none())
            .ok_or_else(|| self.system(io::ErrorKind::NotFound.into()))
    }

    /// Stops the root, then whoever is found below it until nobody new appears.
    fn freeze(&self) -> Result<HashSet<Pid>, ProcessError> {
        let root = self.root()?;
        let failed = |source| self.system(source);
        signal(root, Signal::STOP).map_err(failed)?;
        let mut stopped = HashSet::from([root]);
        for _ in 0..FAMILY_ROUNDS_MAX {
            let found = family(root).map_err(failed)?;
            let fresh: Vec<Pid> = found.difference(&stopped).copied().collect();
            if fresh.is_empty() {
                break;
            }
            for pid in fresh {
                signal(pid, Signal::STOP).map_err(failed)?;
                stopped.insert(pid);
            }
        }
        Ok(stopped)
    }

    fn system(&self, source: io::Error) -> ProcessError {
        ProcessError::System {
            name: self.name.clone(),
            source,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status().is_some() {
            return;
        }
        if let Err(error) = self.kill() {
            tracing::warn!(process = %self.name, %error, "could not kill a child process");
            return;
        }
        // Killed, so this is short; without it the entry would stay in the process table.
        if let Err(error) = self.child.wait() {
            tracing::warn!(process = %self.name, %error, "could not reap a child process");
        }
    }
}

// === free functions ===

/// A loopback port that nobody listens on now and that the kernel gives to nobody by itself.
pub fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run side by side begin far from each other.
    let seed = std::process::id().wrapping_mul(7_919);
    for _ in 0..PORT_COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = seed
            .wrapping_add(step)
            .checked_rem(u32::from(PORT_COUNT))
            .and_then(|offset| u16::try_from(offset).ok())
            .unwrap_or(0);
        let port = PORT_MIN.saturating_add(offset);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// The first folder that holds `program`: those of `PATH`, then `others`.
pub fn find_program(program: &str, others: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(others.iter().cloned())
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The last [`TAIL_BYTES_MAX`] of a log; a sentence when it cannot be read.
pub fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| format!("(no log: {error})"))
}

/// A process that is already gone is no error: that is what most signals here are sent for.
fn signal(pid: Pid, what: Signal) -> io::Result<()> {
    match kill_process(pid, what) {
        Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Everyone below `root`, without it.
fn family(root: Pid) -> io::Result<HashSet<Pid>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some((parent, _)) = parent_and_state(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = HashSet::new();
    let mut next = vec![root.as_raw_nonzero().get()];
    while let Some(parent) = next.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            next.push(child);
            found.extend(Pid::from_raw(child));
        }
    }
    Ok(found)
}

/// False for a zombie too: it holds no socket, file or memory any more.
fn is_alive(pid: Pid) -> bool {
    parent_and_state(pid.as_raw_nonzero().get()).is_some_and(|(_, state)| state != 'Z')
}

fn parent_and_state(pid: i32) -> Option<(i32, char)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}
