//! One keeper's process, as the demo drives it.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::super::words::{Order, Word};

/// Orders that wait to be read; past it the keeper is told no more of what may be lost.
const ORDERS_MAX: usize = 65_536;
/// Says what is logged on standard error.
const LOG_VARIABLE: &str = "STANDIN_LOG";
/// How long a keeper may take to open: it waits for the others.
const OPEN_WITHIN: Duration = Duration::from_secs(60);
/// How long a keeper may take to end.
const END_WITHIN: Duration = Duration::from_secs(30);

/// A keeper's process. Dropping it kills it.
pub(super) struct Keeper {
    child: Child,
    orders: mpsc::Sender<Order>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
    said: watch::Receiver<Said>,
    /// Nothing more is heard of it.
    muted: Arc<AtomicBool>,
}

/// The last of what a keeper said, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Said {
    open: bool,
    settled: u64,
    ledger: Option<(u64, u64)>,
    clean: Option<bool>,
    /// It says nothing any more.
    over: bool,
}

/// Hears who leads, as a keeper sees it; `None`: the keeper is gone.
pub(super) type Hear = Arc<dyn Fn(Option<Option<u64>>) + Send + Sync>;

// === impl Keeper ===

impl Keeper {
    /// Starts the process and tells it to begin.
    pub(super) fn spawn(program: &Path, begin: Order, hear: Hear) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        if std::env::var_os(LOG_VARIABLE).is_none() {
            // What is going to fail is known, and the report says what came of it.
            command.env(LOG_VARIABLE, "off");
        }
        let mut child = command
            .arg("demo-edge")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let input = child.stdin.take().context("a child without input")?;
        let output = child.stdout.take().context("a child without output")?;
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        orders.try_send(begin).context("the first order")?;
        let (say, said) = watch::channel(Said::default());
        let muted = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&muted);
        let hear: Hear = Arc::new(move |named| {
            if !heard.load(Ordering::Acquire) {
                hear(named);
            }
        });
        Ok(Self {
            child,
            orders,
            writer: tokio::spawn(write(input, waiting)),
            reader: tokio::spawn(read(output, say, hear)),
            said,
            muted,
        })
    }

    /// Takes its orders. It stops only once nobody can give any more.
    pub(super) fn orders(&self) -> mpsc::Sender<Order> {
        self.orders.clone()
    }

    /// Waits until it is open.
    pub(super) async fn open(&self) -> anyhow::Result<()> {
        self.hears(OPEN_WITHIN, |said| said.open).await.map(drop)
    }

    /// Waits until it has carried out everything it was told.
    pub(super) async fn settled(&self) -> anyhow::Result<()> {
        let before = self.said.borrow().settled;
        self.orders.send(Order::Settle).await?;
        self.hears(OPEN_WITHIN, |said| said.settled > before)
            .await
            .map(drop)
    }

    /// How many final rows its ledger holds, and their digest.
    pub(super) async fn ledger(&self) -> anyhow::Result<(u64, u64)> {
        self.orders.send(Order::Ledger).await?;
        let said = self.hears(END_WITHIN, |said| said.ledger.is_some()).await?;
        said.ledger.context("it said so")
    }

    /// What it said and nobody has read yet is not heard: it is about to be killed.
    pub(super) fn mute(&self) {
        self.muted.store(true, Ordering::Release);
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    pub(super) async fn kill(mut self) -> anyhow::Result<ExitStatus> {
        self.child.start_kill().context("SIGKILL")?;
        let status = self.child.wait().await.context("waiting for the killed")?;
        self.writer.abort();
        tokio::time::timeout(END_WITHIN, &mut self.reader)
            .await
            .context("a killed keeper still speaks")?
            .context("the reader broke")?;
        Ok(status)
    }

    /// Ends its input and waits until it has stopped in order; one that does not is killed.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.orders);
        let ended = tokio::time::timeout(END_WITHIN, self.child.wait()).await;
        if ended.is_err() {
            self.child.kill().await.context("SIGKILL")?;
            bail!("a keeper did not stop within {END_WITHIN:?}");
        }
        tokio::time::timeout(END_WITHIN, &mut self.reader)
            .await
            .context("a keeper that ended still speaks")?
            .context("the reader broke")?;
        let clean = self.said.borrow().clean;
        anyhow::ensure!(clean == Some(true), "a keeper stopped, but not in order");
        Ok(())
    }

    async fn hears(
        &self,
        within: Duration,
        wanted: impl Fn(&Said) -> bool,
    ) -> anyhow::Result<Said> {
        let mut said = self.said.clone();
        let heard = said.wait_for(|said| said.over || wanted(said));
        let heard = tokio::time::timeout(within, heard).await;
        let heard = *heard
            .context("a keeper says nothing")?
            .context("a keeper is gone")?;
        anyhow::ensure!(wanted(&heard), "a keeper ended");
        Ok(heard)
    }
}

/// Writes orders until there are no more to come or nobody reads them; then the input ends.
async fn write(mut input: ChildStdin, mut waiting: mpsc::Receiver<Order>) {
    while let Some(order) = waiting.recv().await {
        let Ok(mut line) = serde_json::to_vec(&order) else {
            continue;
        };
        line.push(b'\n');
        if input.write_all(&line).await.is_err() || input.flush().await.is_err() {
            return;
        }
    }
}

/// Reads words until the keeper ends.
async fn read(output: ChildStdout, say: watch::Sender<Said>, hear: Hear) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Word::Open) => say.send_modify(|said| said.open = true),
            Ok(Word::Leader { leader, .. }) => hear(Some(leader)),
            Ok(Word::Settled) => {
                say.send_modify(|said| said.settled = said.settled.saturating_add(1));
            }
            Ok(Word::Ledger { finals, digest }) => {
                say.send_modify(|said| said.ledger = Some((finals, digest)));
            }
            Ok(Word::Stopped { clean }) => say.send_modify(|said| said.clean = Some(clean)),
            Err(error) => tracing::warn!(%error, "a keeper says what nobody understands"),
        }
    }
    hear(None);
    say.send_modify(|said| said.over = true);
}
