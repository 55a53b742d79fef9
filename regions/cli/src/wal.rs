//! `standin wal`: looks at a log, measures a disk, and changes who keeps it.

use std::path::{Path, PathBuf};

mod bench;
mod dump;
mod member;
mod rebuild;
mod status;
#[cfg(test)]
mod tests;
mod verify;

/// The write-ahead log: how it is, whether it is whole, what is in it, and who keeps it.
///
/// status and dump show, verify checks, bench measures: they change nothing and may be run on a log
/// that is in use. member and rebuild change who keeps the region's log, audited.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Status(status::Args),
    Verify(verify::Args),
    Dump(dump::Args),
    Bench(bench::Args),
    Member(member::Args),
    Rebuild(Box<rebuild::Args>),
}

// === impl Args ===

impl Args {
    /// Runs it; gives the exit code.
    ///
    /// # Errors
    /// When it could not do what it was asked.
    pub async fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Status(args) => args.run().await,
            Command::Verify(args) => args.run(),
            Command::Dump(args) => args.run(),
            Command::Bench(args) => args.run().await,
            Command::Member(args) => args.run().await,
            Command::Rebuild(args) => args.run().await,
        }
    }
}

/// An edge's folder holds its part of the region's log, and in `advices` a log of its own.
fn own_log(dir: &Path) -> PathBuf {
    dir.join("advices")
}
