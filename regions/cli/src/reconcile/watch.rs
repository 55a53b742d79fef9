//! `standin reconcile watch`: runs on a schedule, and once the primary is back.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;
use standin_core::clock::{Clock, SystemClock};
use standin_reconcile::turns::{Cause, Heard, Rules, Turns};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::files::Shelf;
use super::source::SourceArgs;
use crate::admin::lasts;
use crate::client::Target;
use crate::console::edge_page::EdgePage;
use crate::console::edges::{EDGES_MAX, Named};
use crate::console::watch::Watch;
use crate::out::say;

/// How often the edges are asked, and it is decided whether a run is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The rest after a run that failed, and the longest after several.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];
/// The shortest and the longest time of a schedule.
const EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(31 * 86_400)];
/// How long a run may go on, once stopping.
const RUN_WITHIN: Duration = Duration::from_secs(15);
/// How long everything else may take to end then.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Makes a run as `standin reconcile run` does, on a schedule and when the primary is back.
///
/// It runs once at its start, then --every so long after the end of the last run. It looks at the
/// edges' admin listeners: when an outage is over and what their logs held then is drained, it runs
/// at once. What is not drained within --drained-within is not waited for any longer; it says so, and
/// the run drains it. An outage too short to be seen counts as well, as edges tell of it afterwards.
///
/// A run that fails is told and tried again after a second, then after twice as long each time, up to
/// five minutes; a primary that comes back ends the wait. Two watches at once are harmless: a run
/// that finds everything done changes nothing.
///
/// Each report goes to a folder of its own in --out, under a name that sorts by time; the last --keep
/// stay. `standin console --reports` shows the newest. On SIGTERM or SIGINT a run may end within 15 s;
/// one that does not is left, and the next one makes up for it.
///
/// Exit code: 0 stopped by a signal, 1 could not start.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  export STANDIN_POSTGRES=postgres://standin@db/standin
  standin reconcile watch --wal /var/lib/standin/wal --edge http://127.0.0.1:8081 --out runs
  standin reconcile watch --every 15m --keep 500 --json \\
    --wal east/wal --admin http://east:8481 --edge http://east:8481 \\
    --wal west/wal --admin http://west:8481 --edge http://west:8481
  standin reconcile report                      what the last run came to")]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// From the end of a run to the next, from a second to 31 days, as 90s, 15m, 1h or 1d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = every)]
    every: Duration,
    /// Admin listener of an edge that tells when the primary is back; once for each. Without, only
    /// the schedule counts.
    #[arg(long, value_name = "URL")]
    edge: Vec<Target>,
    /// How long a run waits for the backlog, once the primary is back.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lasts)]
    drained_within: Duration,
    /// Where the reports go, a folder each.
    #[arg(long, value_name = "DIR", default_value = "reconcile-runs")]
    out: PathBuf,
    /// How many reports stay.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    keep: u32,
    /// Lines of JSON.
    #[arg(long)]
    json: bool,
}

/// What it tells, a line each.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Told {
    Watching {
        edges: usize,
        every_s: u64,
    },
    Begins {
        because: Cause,
    },
    Ran {
        because: Cause,
        findings: u64,
        report: PathBuf,
    },
    Failed {
        because: Cause,
        why: String,
        again_in_s: u64,
    },
    Left {
        because: Cause,
    },
    Stopped,
}

/// What is told, and when.
#[derive(Serialize)]
struct Line {
    at: String,
    #[serde(flatten)]
    told: Told,
}

/// A run under way.
struct Running<'a> {
    because: Cause,
    run: Pin<Box<dyn Future<Output = anyhow::Result<Ran>> + Send + 'a>>,
}

/// What a run came to.
struct Ran {
    findings: u64,
    report: PathBuf,
}

// === impl WatchArgs ===

impl WatchArgs {
    /// Runs until a signal.
    ///
    /// # Errors
    /// When it cannot start.
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        self.source.check()?;
        let count = self.edge.len();
        ensure!(
            count <= EDGES_MAX,
            "at most {EDGES_MAX} edges are looked at"
        );
        let mut signals = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        let named = self.edge.iter().map(|admin| Named {
            name: admin.to_string(),
            region: None,
            admin: admin.clone(),
        });
        let watch = Arc::new(Watch::new(named.collect(), &self.source.tls, LOOK_EVERY)?);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        watch.spawn(&tasks, &stop);
        self.tell(Told::Watching {
            edges: count,
            every_s: self.every.as_secs(),
        });
        let signalled = async {
            tokio::select! {
                _ = signals.0.recv() => {}
                _ = signals.1.recv() => {}
            }
        };
        self.turn(&watch, signalled).await;
        stop.cancel();
        tasks.close();
        if tokio::time::timeout(STOP_WITHIN, tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("looking at the edges did not end in time");
        }
        self.tell(Told::Stopped);
        Ok(0)
    }

    /// Run after run, until it is told to stop.
    async fn turn(&self, watch: &Watch, signalled: impl Future<Output = ()>) {
        tokio::pin!(signalled);
        let began = Instant::now();
        let mut turns = Turns::new(self.rules(), self.edge.len());
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running: Option<Running<'_>> = None;
        loop {
            tokio::select! {
                biased;
                () = &mut signalled => break,
                ended = end_of(&mut running) => {
                    running = None;
                    self.ended(&mut turns, began.elapsed(), ended);
                }
                _ = looks.tick() => {}
            }
            let now = began.elapsed();
            let looked = watch.looked().into_iter();
            // An edge that was not heard at the last look says nothing.
            let seen = looked.map(|edge| match (&edge.seen.heard_at, &edge.seen.silent) {
                (Some(_), None) => Some(heard(&edge.seen.page)),
                _ => None,
            });
            turns.hear(now, &seen.collect::<Vec<_>>());
            if running.is_none()
                && let Some(because) = turns.due(now)
            {
                turns.began();
                self.tell(Told::Begins { because });
                let run = Box::pin(self.once());
                running = Some(Running { because, run });
            }
        }
        self.finish(turns, began, running).await;
    }

    /// Lets a run end that is under way, if it does soon. Left where it is it is harmless.
    async fn finish(&self, mut turns: Turns, began: Instant, running: Option<Running<'_>>) {
        let Some(because) = running.as_ref().map(|running| running.because) else {
            return;
        };
        let mut running = running;
        match tokio::time::timeout(RUN_WITHIN, end_of(&mut running)).await {
            Ok(ended) => self.ended(&mut turns, began.elapsed(), ended),
            Err(_late) => self.tell(Told::Left { because }),
        }
    }

    /// One run, to the end of its report.
    async fn once(&self) -> anyhow::Result<Ran> {
        let report = Box::pin(self.source.reconcile()).await?;
        let shelf = Shelf {
            dir: self.out.clone(),
            keep: usize::try_from(self.keep).unwrap_or(usize::MAX),
        };
        Ok(Ran {
            findings: report.all_findings(),
            report: shelf.put(&report)?,
        })
    }

    fn ended(&self, turns: &mut Turns, now: Duration, ended: (Cause, anyhow::Result<Ran>)) {
        let (because, ran) = ended;
        let rest = turns.ended(now, ran.is_ok());
        self.tell(match ran {
            Ok(Ran { findings, report }) => Told::Ran {
                because,
                findings,
                report,
            },
            Err(error) => Told::Failed {
                because,
                why: format!("{error:#}"),
                again_in_s: rest.as_secs(),
            },
        });
    }

    fn rules(&self) -> Rules {
        let [retry_first, retry_most] = RETRY;
        Rules {
            every: self.every,
            drained_within: self.drained_within,
            retry_first,
            retry_most,
        }
    }

    fn tell(&self, told: Told) {
        let line = Line {
            at: SystemClock.now().to_string(),
            told,
        };
        match serde_json::to_string(&line) {
            Ok(json) if self.json => say(json),
            _ => say(line),
        }
    }
}

/// The end of the run that is under way; never, while none is.
async fn end_of(running: &mut Option<Running<'_>>) -> (Cause, anyhow::Result<Ran>) {
    match running {
        Some(Running { because, run }) => (*because, run.await),
        None => std::future::pending().await,
    }
}

fn heard(page: &EdgePage) -> Heard {
    let stand_in = &page.stand_in;
    let over = stand_in.outages.iter().rev();
    let mut over = over.filter(|outage| outage.until.is_some());
    Heard {
        outage: stand_in.outage.is_some(),
        over: over.next().map(|outage| outage.from_index),
        last_index: page.wal.last_index,
        cursor: page.drain.cursor,
    }
}

fn every(text: &str) -> Result<Duration, String> {
    let [least, most] = EVERY;
    let every = lasts(text)?;
    if (least..=most).contains(&every) {
        Ok(every)
    } else {
        Err("from a second to 31 days".to_owned())
    }
}

// === impl Line ===

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.at)?;
        match &self.told {
            Told::Watching { edges, every_s } => {
                write!(f, "runs every {every_s} s; looks at {edges} edges")
            }
            Told::Begins { because } => write!(f, "a run begins: {}", because.as_str()),
            Told::Ran {
                findings, report, ..
            } => write!(f, "{findings} findings. Report: {}", report.display()),
            Told::Failed {
                why, again_in_s, ..
            } => write!(f, "the run failed: {why}; again in {again_in_s} s"),
            Told::Left { .. } => write!(f, "the run was left where it was"),
            Told::Stopped => write!(f, "stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edges_page_says_what_is_over_and_what_is_on() {
        let page = |outage: &str, outages: &str| {
            let page = format!(
                r#"{{"stand_in":{{"outage":{outage},"outages":{outages}}},
                "wal":{{"last_index":40}},"drain":{{"cursor":38}}}}"#
            );
            let heard = heard(&EdgePage::read(page.as_bytes()).unwrap());
            assert_eq!((heard.last_index, heard.cursor), (40, 38));
            (heard.outage, heard.over)
        };
        assert_eq!(page("null", "[]"), (false, None));
        let two = r#"[{"from_index":3,"from_ms":1,"why":"timeout","until":[5,9]},
            {"from_index":8,"from_ms":10,"why":"timeout","until":null}]"#;
        assert_eq!(page(r#"{"why":"timeout"}"#, two), (true, Some(3)));
        let over = two.replace("null", "[9,20]");
        assert_eq!(page("null", &over), (false, Some(8)));
    }

    #[test]
    fn a_schedule_has_bounds() {
        for (text, ok) in [("1h", true), ("1s", true), ("900ms", false), ("32d", false)] {
            assert_eq!(every(text).is_ok(), ok, "{text}");
        }
    }
}
