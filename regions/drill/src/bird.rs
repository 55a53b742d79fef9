//! A real BIRD on a host of a network: it speaks BGP and BFD, and is controlled over its socket.

use std::path::{Path, PathBuf};

use crate::network::Network;
use crate::process::{Process, ProcessError, find_program};

const NAME: &str = "bird";

/// A running BIRD. Dropping it kills it.
#[derive(Debug)]
pub struct Bird {
    process: Process,
    socket: PathBuf,
}

// === impl Bird ===

impl Bird {
    /// Starts it on a host, with its configuration, socket and log in `folder`.
    ///
    /// # Errors
    /// When it cannot be run (Debian package `bird2`), or its configuration cannot be written.
    pub fn start(
        network: &Network,
        host: u8,
        config: &str,
        folder: &Path,
    ) -> Result<Self, ProcessError> {
        let file = folder.join(format!("bird-{host}.conf"));
        let socket = folder.join(format!("bird-{host}.ctl"));
        let failed = |source| ProcessError::System {
            name: NAME.to_owned(),
            source,
        };
        // Where there is no syslog, a test still wants to know.
        let config = config.replace("log syslog all;", "log stderr all;");
        std::fs::write(&file, config).map_err(failed)?;
        let others = [PathBuf::from("/usr/sbin")];
        let program = find_program(NAME, &others).unwrap_or_else(|| PathBuf::from(NAME));
        // On a router nobody would keep it waiting; BFD counts in tenths of a second.
        let mut command = network.command(host, Path::new("nice"));
        command.args(["-n", "-20"]).arg(program);
        command
            .arg("-f")
            .arg("-c")
            .arg(&file)
            .arg("-s")
            .arg(&socket);
        let log = folder.join(format!("bird-{host}.log"));
        let process = Process::spawn(NAME, command, &log)?;
        Ok(Self { process, socket })
    }

    /// Its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
