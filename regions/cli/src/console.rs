//! `standin console`: one page that shows every region and edge, live, and changes nothing.
//!
//! Read in this order: [`edges`] (whom to look at), [`watch`] (looks, each edge in a task of its own),
//! [`edge_page`] and [`exposition`] (what is read of an edge), [`history`] (the last ten minutes),
//! [`reports`] (what lies in a folder), [`state`] (what all of it comes to: pure), [`page`] (the same as
//! HTML), [`serve`] (to browsers).
//!
//! It asks edges only, never Postgres or Redis, so that it reads the same when they are gone.

pub mod edge_page;
pub mod edges;
pub mod exposition;
pub mod history;
pub mod page;
pub mod reports;
pub mod serve;
pub mod state;
pub mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::json;
use standin_core::clock::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::edges::Named;
use self::page::Page;
use self::reports::{Folder, Reports};
use self::serve::Shown;
use self::state::State;
use self::watch::Watch;
use crate::client::TlsArgs;
use crate::out::say;

/// How often the folder of reports is looked at.
const REPORTS_EVERY: Duration = Duration::from_secs(2);
/// How long everything may take to end, once stopping.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Serves one page that shows every region and edge, live, and changes nothing.
///
/// Regions and edges, the rung they answer on, breaker, answers a second and p99 by rung, log and
/// drain, age of the trip cache, exposure now and at worst, alarms, a drill in progress, the last
/// reconciliation and its findings. It asks each edge's admin listener for /statusz, /metrics and
/// /readyz, and nobody else: with Postgres and Redis down it reads the same. An edge that does not
/// answer within 2 s is shown as not heard from, since when and why, and holds up nothing.
///
/// Open the printed address in a browser; without JavaScript it is a snapshot. /events is the stream
/// that keeps it live, /state.json the same for programs. Only GET is answered.
///
/// It listens on loopback only: whoever reaches it may read it. From elsewhere, go through
/// `ssh -L 8090:localhost:8090 HOST`.
///
/// Exit code: 0 stopped by a signal, 1 could not start or stop.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin console --edge local=http://127.0.0.1:8081
  standin console --config console.toml --reports /var/lib/standin/reports
  standin console --edge e1=https://10.0.0.1:8481 --ca admin-ca.pem --certificate ada.pem --key ada.key

A file of edges:
  [regions.east]
  east-1 = \"https://east-1.internal:8481\"
  east-2 = \"https://east-2.internal:8481\"
  [regions.west]
  west-1 = \"https://west-1.internal:8481\"")]
pub struct Args {
    /// An edge's admin listener, and what to call it; once for each edge.
    #[arg(long, value_name = "NAME=URL")]
    edge: Vec<Named>,
    /// A file of regions and their edges.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where `standin reconcile` and `standin drill` write their reports: the newest report.json and
    /// drill.json in it, or in folders in it, are shown.
    #[arg(long, value_name = "DIR")]
    reports: Option<PathBuf>,
    /// Where browsers connect; loopback.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// How often each edge is asked, seconds.
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10))]
    every: u64,
    #[command(flatten)]
    tls: TlsArgs,
    /// One JSON object on standard output that says where it listens.
    #[arg(long)]
    json: bool,
}

/// What makes pages.
struct Composer {
    watch: Arc<Watch>,
    /// What the folder of reports holds; `None`: none was named.
    reports: Option<Mutex<Reports>>,
}

// === impl Args ===

impl Args {
    /// Runs until a signal.
    ///
    /// # Errors
    /// When it cannot start, or not everything ended in time.
    pub async fn run(self) -> anyhow::Result<u8> {
        ensure!(
            self.listen.ip().is_loopback(),
            "--listen must be a loopback address; from elsewhere, use ssh -L"
        );
        let edges = edges::all(self.config.as_deref(), &self.edge)?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let every = Duration::from_secs(self.every);
        let count = edges.len();
        let watch = Arc::new(Watch::new(edges, &self.tls, every)?);
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        let url = format!("http://{}/", listener.local_addr()?);

        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        watch.spawn(&tasks, &stop);
        let composer = Arc::new(Composer {
            watch,
            reports: self.reports.as_ref().map(|_| Mutex::default()),
        });
        if let Some(dir) = self.reports {
            tasks.spawn(look_for_reports(Arc::clone(&composer), dir, stop.clone()));
        }
        let (show, shown) = tokio::sync::watch::channel(Arc::new(composer.compose()?));
        tasks.spawn(compose_on(composer, show, every, stop.clone()));
        tasks.spawn(serve::serve(listener, shown, stop.clone()));
        say(if self.json {
            json!({ "url": url, "edges": count }).to_string()
        } else {
            format!("{count} edges are looked at; open {url}  (Ctrl-C stops)")
        });
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
        tasks.close();
        let ended = tokio::time::timeout(STOP_WITHIN, tasks.wait()).await;
        ended.context("not everything ended in time")?;
        Ok(0)
    }
}

// === impl Composer ===

impl Composer {
    fn compose(&self) -> anyhow::Result<Shown> {
        let reports = self.reports.as_ref().map(|reports| {
            let reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
            reports.clone()
        });
        let (at, now_ms) = (SystemClock.now(), self.watch.now_ms());
        let state = State::of(&self.watch.looked(), reports, at, now_ms);
        Ok(Shown {
            page: Page::of(&state)?,
            json: Bytes::from(serde_json::to_vec_pretty(&state)?),
        })
    }
}

/// Makes a new page again and again. One that cannot be made leaves the old one, which browsers see to
/// be old.
async fn compose_on(
    composer: Arc<Composer>,
    show: tokio::sync::watch::Sender<Arc<Shown>>,
    every: Duration,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match composer.compose() {
            Ok(shown) => {
                show.send_replace(Arc::new(shown));
            }
            Err(error) => tracing::error!(%error, "no page can be made"),
        }
    }
}

/// Looks at the folder of reports again and again, off the threads that serve.
async fn look_for_reports(composer: Arc<Composer>, dir: PathBuf, stop: CancellationToken) {
    let mut folder = Folder::new(dir);
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            let found = folder.look();
            (folder, found)
        });
        let Ok((back, found)) = looked.await else {
            tracing::error!("the folder of reports is looked at no more");
            return;
        };
        folder = back;
        if let Some(reports) = &composer.reports {
            *reports.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REPORTS_EVERY) => {}
        }
    }
}
