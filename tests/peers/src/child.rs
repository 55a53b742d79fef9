//! This very program as a child process: what is measured runs alone, and its CPU time can be read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::cpu::{Snapshot, Usage};
use crate::recorder::Found;

/// A child that says nothing for so long is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(900);

/// A child of this program that is killed when this is dropped.
pub struct Child {
    process: tokio::process::Child,
    id: u32,
    lines: Lines<BufReader<ChildStdout>>,
    input: ChildStdin,
}

// === impl Child ===

impl Child {
    /// Starts it with these arguments.
    pub fn start(arguments: &[OsString]) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let out = process.stdout.take().context("its output is piped")?;
        let input = process.stdin.take().context("its input is piped")?;
        let id = process.id().context("it was just started")?;
        Ok(Self {
            process,
            id,
            lines: BufReader::new(out).lines(),
            input,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The next line that it prints.
    pub async fn line(&mut self) -> anyhow::Result<String> {
        let line = tokio::time::timeout(SILENCE_MAX, self.lines.next_line()).await;
        match line.context("a child is stuck")?? {
            Some(line) => Ok(line),
            None => bail!("a child ended: {}", self.process.wait().await?),
        }
    }

    /// Tells it one line.
    pub async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    /// Waits for this word.
    pub async fn expect(&mut self, word: &str) -> anyhow::Result<()> {
        let line = self.line().await?;
        anyhow::ensure!(line == word, "a child said {line:?} instead of {word:?}");
        Ok(())
    }

    /// The next line, as JSON.
    pub async fn json<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let line = self.line().await?;
        serde_json::from_str(&line).with_context(|| format!("a child said {line:?}"))
    }

    /// A measurement that it makes now, with the CPU time of everybody meanwhile. `names` are our
    /// children by id; a server goes by its program.
    pub async fn measured(
        &mut self,
        names: &BTreeMap<u32, String>,
    ) -> anyhow::Result<(Found, Usage)> {
        self.expect("begin").await?;
        let before = Snapshot::take(names);
        self.expect("end").await?;
        let usage = before.until(&Snapshot::take(names));
        Ok((self.json().await?, usage))
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Waits for it to end well.
    pub async fn end(mut self) -> anyhow::Result<()> {
        drop(self.input);
        let status = tokio::time::timeout(SILENCE_MAX, self.process.wait()).await;
        let status = status.context("a child does not end")??;
        anyhow::ensure!(status.success(), "a child ended: {status}");
        Ok(())
    }
}

/// Arguments of a child, from anything that is text.
pub fn arguments<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}
