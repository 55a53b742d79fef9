//! `standin wal verify`: checks every checksum of an edge's logs.

use std::path::{Path, PathBuf};

use serde::Serialize;
use standin_wal::OpenError;
use standin_wal::inspect::{self, LogReport};

use crate::out::{say, say_json};

/// Checks every checksum of a log: all of it, and that of what the edge said without the log.
///
/// The folder may be in use; nothing in it is changed. A write that was torn at the end is no damage:
/// it was never acknowledged, and opening the log cuts it. Damage is never cut: see `standin wal
/// rebuild`.
///
/// Exit code: 0 whole, 1 damaged (what and where is said), 2 it cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin wal verify --dir /var/lib/standin/wal
  standin wal verify --dir /var/lib/standin/wal --json | jq '.logs[].report.damage'")]
pub(super) struct Args {
    /// The folder of an edge's log.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// One JSON document on standard output.
    #[arg(long)]
    json: bool,
}

/// What verifying came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Whole,
    Damaged,
    Unreadable,
}

#[derive(Debug, Serialize)]
pub(super) struct Verified {
    pub(super) verdict: Verdict,
    pub(super) logs: Vec<VerifiedLog>,
}

#[derive(Debug, Serialize)]
pub(super) struct VerifiedLog {
    dir: PathBuf,
    pub(super) verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) report: Option<LogReport>,
    /// Why there is no report.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

// === impl Args ===

impl Args {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let verified = verify(&self.dir);
        if self.json {
            say_json(&verified)?;
        } else {
            for log in &verified.logs {
                for line in log.lines() {
                    say(line);
                }
            }
        }
        Ok(match verified.verdict {
            Verdict::Whole => 0,
            Verdict::Damaged => 1,
            Verdict::Unreadable => 2,
        })
    }
}

/// The log in a folder, and the edge's own beside it when there is one.
pub(super) fn verify(dir: &Path) -> Verified {
    let own = super::own_log(dir);
    let own = own.is_dir().then_some(own);
    let dirs = [Some(dir.to_owned()), own].into_iter().flatten();
    let logs: Vec<_> = dirs.map(VerifiedLog::of).collect();
    let worst = logs.iter().map(|log| log.verdict).max();
    Verified {
        verdict: worst.unwrap_or(Verdict::Unreadable),
        logs,
    }
}

/// What does not verify, a line each.
pub(super) fn troubles(report: &LogReport) -> Vec<String> {
    let torn = report.torn.map(|torn| {
        format!(
            "torn write in segment {}, bytes {} to {}: no damage; opening the log cuts it",
            torn.segment, torn.offset, torn.until
        )
    });
    let damage = report.damage.iter().map(|damage| {
        format!(
            "DAMAGED: {} at byte {}: {}",
            damage.file, damage.offset, damage.what
        )
    });
    torn.into_iter().chain(damage).collect()
}

// === impl VerifiedLog ===

impl VerifiedLog {
    fn of(dir: PathBuf) -> Self {
        let (verdict, report, error) = match inspect::examine(&dir) {
            Ok(report) if report.damage.is_empty() => (Verdict::Whole, Some(report), None),
            Ok(report) => (Verdict::Damaged, Some(report), None),
            Err(error) => (verdict_on(&error), None, Some(whole_text(&error))),
        };
        Self {
            dir,
            verdict,
            report,
            error,
        }
    }

    fn lines(&self) -> Vec<String> {
        let dir = self.dir.display();
        let Some(report) = &self.report else {
            let error = self.error.as_deref().unwrap_or("no report");
            let word = match self.verdict {
                Verdict::Damaged => "DAMAGED",
                Verdict::Whole | Verdict::Unreadable => "cannot be read",
            };
            return vec![format!("{dir}: {word}: {error}")];
        };
        let word = if report.damage.is_empty() {
            "whole"
        } else {
            "DAMAGED"
        };
        let head = format!(
            "{dir}: {word}; edge {}, {} entries, {} segments",
            report.node,
            report.entries,
            report.segments.len()
        );
        let mut lines = vec![head];
        lines.extend(troubles(report));
        lines
    }
}

/// Bytes that are not what was written are damage; what was never there, or is not for this
/// program, is not.
fn verdict_on(error: &OpenError) -> Verdict {
    match error {
        OpenError::Damaged { .. }
        | OpenError::StateDamaged { .. }
        | OpenError::IdentityMissing
        | OpenError::Foreign { .. } => Verdict::Damaged,
        OpenError::Config { .. }
        | OpenError::Locked
        | OpenError::Io { .. }
        | OpenError::OtherKind
        | OpenError::Raft(_)
        | OpenError::Cancelled
        | OpenError::NoLog
        | OpenError::UnknownFormat { .. } => Verdict::Unreadable,
    }
}

/// An error with its cause.
pub(super) fn whole_text(error: &OpenError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
