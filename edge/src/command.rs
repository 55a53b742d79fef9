//! `standin-edge`: one edge as a process. Reads its configuration, runs until a signal, says with
//! its exit code how it ended.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::app::{Edge, Hooks, MigrateLedgerError, StartError, Stopped, migrate_ledger};
use crate::config::{Config, ConfigErrors, Settings};
use crate::telemetry::Telemetry;
use crate::watched::make_now;
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use standin_core::clock::{Clock, SystemClock};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Stopped before everything begun was finished, or could not start.
const EXIT_FAILED: u8 = 1;
/// The command line or the configuration is wrong (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;
/// The write-ahead log failed (`EX_IOERR`): start again, on this disk or another.
const EXIT_POISONED: u8 = 74;
/// Longest wait for the runtime's own threads at the end.
const RUNTIME_STOP: Duration = Duration::from_secs(1);

const AFTER_HELP: &str = "\
Every key of the file can also be given in the environment: STANDIN_EDGE__LISTEN=127.0.0.1:9000,
STANDIN_EDGE__BANKS__0__SLUG=first (sections and numbers between double underscores, lists separated
by commas). Without Postgres and Redis in it, ledger and trip cache are embedded.

  standin-edge config check --config edge.toml    what is in force, and where it came from
  standin-edge migrate --config edge.toml         make or update the tables in Postgres, before the first start
  standin-edge --config edge.toml                 run until SIGTERM or SIGINT
  curl http://127.0.0.1:8481/statusz              how it is doing

Exit codes: 0 stopped, everything begun was finished; 1 could not start or migrate, or the grace ran out;
64 wrong command line or configuration; 74 the write-ahead log failed.";

/// Answers banks: may this gig shopper's card be charged?
#[derive(Parser)]
#[command(name = "standin-edge", version, after_help = AFTER_HELP)]
struct Args {
    /// TOML file to read; without it, defaults and the environment are all there is
    #[arg(long, global = true, value_name = "FILE", env = "STANDIN_EDGE_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the ledger's tables up to this release; needs a Postgres in the configuration
    Migrate,
    /// Look at the configuration without running
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print every effective value and where it came from, or what is wrong (exit code 64)
    Check {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs the program whose command line this process was given.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version come here too; they are no faults.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let loaded = load(args.config.as_deref());
    match (args.command, loaded) {
        (None, Ok((config, _))) => run(config),
        (Some(Command::Migrate), Ok((config, _))) => migrate(&config),
        (None | Some(Command::Migrate), Err(fault)) => {
            eprintln!("standin-edge: the configuration is wrong\n{fault}");
            ExitCode::from(EXIT_USAGE)
        }
        (Some(Command::Config { what }), loaded) => match what {
            ConfigCommand::Check { json: true } => check_json(loaded),
            ConfigCommand::Check { json: false } => check_text(loaded),
        },
    }
}

/// Runs an edge on a configuration file in this process' own runtime, as the program does; gives its
/// exit code. For whoever starts edges as processes of a program of theirs, `hooks` between them and their
/// world.
pub async fn serve_file(file: &Path, hooks: Hooks) -> u8 {
    match load(Some(file)) {
        Ok((config, _)) => {
            raise_descriptors();
            serve(config, hooks).await
        }
        Err(fault) => {
            eprintln!("the edge's configuration is wrong\n{fault}");
            EXIT_USAGE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("cannot read {path}: {error}")]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(transparent)]
    Wrong(#[from] ConfigErrors),
    #[error("{0}")]
    Named(String),
}

fn load(path: Option<&Path>) -> Result<(Config, Settings), LoadError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| LoadError::File {
            path: path.to_owned(),
            error,
        })
    };
    let file = path.map(read).transpose()?;
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
    let (config, settings) = Config::load(file.as_deref(), environment)?;
    check_files(&config)?;
    Ok((config, settings))
}

/// The files that the configuration names, as they are now.
fn check_files(config: &Config) -> Result<(), LoadError> {
    let now = SystemClock.now();
    let wrong = |error: &dyn std::fmt::Display| LoadError::Named(error.to_string());
    for bank in &config.banks {
        make_now(&bank.secrets, now).map_err(|error| wrong(&error))?;
    }
    for tls in config.tls.iter().chain(&config.admin_tls) {
        make_now(tls, now).map_err(|error| wrong(&error))?;
    }
    Ok(())
}

fn check_text(loaded: Result<(Config, Settings), LoadError>) -> ExitCode {
    match loaded {
        Ok((_, settings)) => {
            let shown = settings.shown();
            let width = shown.iter().map(|setting| setting.key.len()).max();
            let width = width.unwrap_or_default();
            let mut page = String::new();
            for setting in shown {
                let (key, value, origin) = (setting.key, setting.value, setting.origin);
                page.push_str(&format!("{key:width$} = {value}  # {origin}\n"));
            }
            print(&page, 0)
        }
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn check_json(loaded: Result<(Config, Settings), LoadError>) -> ExitCode {
    match loaded {
        Ok((_, settings)) => {
            let page = json!({"ok": true, "settings": settings.shown()});
            print(&format!("{page}\n"), 0)
        }
        Err(fault) => {
            let errors: Vec<String> = match &fault {
                LoadError::Wrong(errors) => errors.0.iter().map(ToString::to_string).collect(),
                LoadError::File { .. } | LoadError::Named(_) => vec![fault.to_string()],
            };
            let page = json!({"ok": false, "errors": errors});
            print(&format!("{page}\n"), EXIT_USAGE)
        }
    }
}

/// A reader that went away (`| head`) is not our fault.
fn print(page: &str, code: u8) -> ExitCode {
    match std::io::stdout().write_all(page.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::from(EXIT_FAILED),
        Ok(()) | Err(_) => ExitCode::from(code),
    }
}

fn run(config: Config) -> ExitCode {
    raise_descriptors();
    on_runtime(serve(config, Hooks::default()))
}

/// As many file descriptors as may be had: a connection takes one, and the usual limit is below ours.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!(
            "standin-edge: the limit of file descriptors stays at {:?}: {error}",
            limit.current
        );
    }
}

fn migrate(config: &Config) -> ExitCode {
    on_runtime(async {
        match migrate_ledger(config).await {
            Ok(()) => 0,
            Err(MigrateLedgerError::Embedded) => {
                eprintln!("standin-edge: {}", MigrateLedgerError::Embedded);
                EXIT_USAGE
            }
            Err(error) => {
                eprintln!("standin-edge: {error}");
                EXIT_FAILED
            }
        }
    })
}

fn on_runtime(work: impl Future<Output = u8>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("standin-edge: no runtime: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let code = runtime.block_on(work);
    runtime.shutdown_timeout(RUNTIME_STOP);
    ExitCode::from(code)
}

async fn serve(config: Config, hooks: Hooks) -> u8 {
    let (telemetry, signals) = match (Telemetry::start(&config), Signals::listen()) {
        (Ok(telemetry), Ok(signals)) => (telemetry, signals),
        (Err(error), _) => {
            eprintln!("standin-edge: {error}");
            return EXIT_USAGE;
        }
        (_, Err(error)) => {
            eprintln!("standin-edge: cannot listen for signals: {error}");
            return EXIT_FAILED;
        }
    };
    // Boxed: what it takes to start an edge is large, and needed once.
    let code = match Box::pin(Edge::start(config, hooks)).await {
        Ok(edge) => until_stopped(edge, signals).await,
        Err(error) => {
            tracing::error!(%error, "the edge did not start");
            match error {
                StartError::Wiring(_) | StartError::Secrets(_) | StartError::Certificates(_) => {
                    EXIT_USAGE
                }
                _ => EXIT_FAILED,
            }
        }
    };
    telemetry.stop().await;
    code
}

async fn until_stopped(edge: Edge, mut signals: Signals) -> u8 {
    tokio::select! {
        biased;
        () = edge.poisoned() => {
            tracing::error!("the write-ahead log failed; nothing more can be answered here");
            return EXIT_POISONED;
        }
        name = signals.next() => tracing::info!(signal = name, "stopping"),
    }
    tokio::select! {
        stopped = edge.stop() => match stopped {
            Stopped::Clean => {
                tracing::info!("stopped; everything begun was finished");
                0
            }
            Stopped::TimedOut => {
                tracing::warn!("stopped before everything begun was finished");
                EXIT_FAILED
            }
            Stopped::Poisoned => {
                tracing::error!("the write-ahead log failed while stopping");
                EXIT_POISONED
            }
        },
        name = signals.next() => {
            tracing::warn!(signal = name, "a second signal: not waiting any longer");
            EXIT_FAILED
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
