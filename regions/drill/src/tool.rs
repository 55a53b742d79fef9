//! One call of a system tool, with its words when it refuses.

use std::io;
use std::process::{Command, Stdio};

/// Why a tool did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It could not be run.
    #[error("cannot run {program} (Debian package {package}): {source}")]
    Run {
        /// The program.
        program: String,
        /// Where it comes from.
        package: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It refused.
    #[error("{command}: {words}")]
    Refused {
        /// What was asked.
        command: String,
        /// What it said.
        words: String,
    },
    /// Only root may inject this.
    #[error("{0} needs root: run the scenarios as root")]
    NotRoot(&'static str),
    /// Files of this machine.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs a tool to its end; gives what it wrote to its standard output.
///
/// # Errors
/// When it is not there or fails.
pub fn run(program: &str, package: &'static str, args: &[&str]) -> Result<String, ToolError> {
    let ran = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output();
    let output = ran.map_err(|source| ToolError::Run {
        program: program.to_owned(),
        package,
        source,
    })?;
    if !output.status.success() {
        return Err(ToolError::Refused {
            command: format!("{program} {}", args.join(" ")),
            words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says so when this process is not root's.
///
/// # Errors
/// Then.
pub fn need_root(what: &'static str) -> Result<(), ToolError> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(ToolError::NotRoot(what))
    }
}
