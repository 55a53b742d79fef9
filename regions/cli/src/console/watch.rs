//! Looks at every edge, each in a task of its own, so that one that hangs holds up nobody.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use standin_core::clock::{Clock, SystemClock, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::edge_page::{EdgePage, cut};
use super::edges::Named;
use super::exposition::Counters;
use super::history::{History, STEP_MS, STEPS_MAX};
use crate::admin::why_not;
use crate::client::{Call, CallError, Pool, Reply, TlsArgs};

/// How long one look at an edge may take, its three pages together.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// An edge that gives nothing is asked less and less often, down to this: it may be at its last.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long connections may take to close at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The edges and what was last seen of them.
pub struct Watch {
    edges: Vec<Watched>,
    /// Where the milliseconds of histories are counted from.
    began: Instant,
    every: Duration,
}

struct Watched {
    named: Named,
    pool: Pool,
    seen: Mutex<Seen>,
}

/// An edge, and what was last seen of it.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Which.
    pub named: Named,
    /// What.
    pub seen: Seen,
}

/// What was last seen of an edge.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When it last gave its pages.
    pub heard_at: Option<Timestamp>,
    /// Why the last look gave nothing; `None` when it did, or there was none yet.
    pub silent: Option<String>,
    /// Its page then.
    pub page: EdgePage,
    /// Why banks should not be sent there, then.
    pub unready: Option<String>,
    /// Its counters.
    pub history: History,
}

/// What one look gives.
struct Look {
    page: EdgePage,
    unready: Option<String>,
    counters: Counters,
}

/// Why a look gave nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("no reply within {} s", LOOK_WITHIN.as_secs())]
    Late,
    #[error(transparent)]
    Call(CallError),
    #[error("{path} was answered with {status}: {why}")]
    Status {
        path: &'static str,
        status: u16,
        why: String,
    },
    #[error("its /statusz does not read: {0}")]
    Page(#[from] serde_json::Error),
}

// === impl Watch ===

impl Watch {
    /// Knows how to reach each edge; nothing is asked yet.
    ///
    /// # Errors
    /// When certificates do not serve.
    pub fn new(edges: Vec<Named>, tls: &TlsArgs, every: Duration) -> anyhow::Result<Self> {
        let watched = edges.into_iter().map(|named| {
            Ok(Watched {
                pool: tls.pool(&named.admin, 1)?,
                named,
                seen: Mutex::default(),
            })
        });
        Ok(Self {
            edges: watched.collect::<anyhow::Result<_>>()?,
            began: Instant::now(),
            every,
        })
    }

    /// Looks at every edge until `stop`.
    pub fn spawn(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        for at in 0..self.edges.len() {
            let (watch, stop) = (Arc::clone(self), stop.clone());
            tasks.spawn(async move {
                if let Some(edge) = watch.edges.get(at) {
                    watch.look_on(edge, &stop).await;
                }
            });
        }
    }

    async fn look_on(&self, edge: &Watched, stop: &CancellationToken) {
        let mut pause = self.every;
        loop {
            let looked = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                looked = look(&edge.pool) => looked,
            };
            pause = match looked {
                Ok(_) => self.every,
                Err(_) => pause.saturating_mul(2).min(PAUSE_MAX.max(self.every)),
            };
            edge.take(looked, self.now_ms());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        let closed = tokio::time::timeout(CLOSE_WITHIN, edge.pool.clone().close()).await;
        if closed.is_err() {
            tracing::warn!(edge = edge.named.name, "a connection did not close in time");
        }
    }

    /// The present on the clock of the histories. It begins with a whole timeline behind it.
    pub fn now_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        elapsed.saturating_add(STEP_MS.saturating_mul(STEPS_MAX))
    }

    /// What was last seen of every edge.
    pub fn looked(&self) -> Vec<Looked> {
        let looked = self.edges.iter().map(|edge| Looked {
            named: edge.named.clone(),
            seen: edge
                .seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        });
        looked.collect()
    }
}

// === impl Watched ===

impl Watched {
    fn take(&self, looked: Result<Look, LookError>, now_ms: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match looked {
            Ok(look) => {
                let Look {
                    page,
                    unready,
                    counters,
                } = look;
                seen.history.hear(now_ms, counters);
                seen.page = page;
                seen.unready = unready;
                seen.heard_at = Some(SystemClock.now());
                seen.silent = None;
            }
            Err(error) => seen.silent = Some(cut(&error.to_string())),
        }
    }
}

async fn look(pool: &Pool) -> Result<Look, LookError> {
    let pages = async {
        let status = ask(pool, "/statusz", &[200]).await?;
        let metrics = ask(pool, "/metrics", &[200]).await?;
        let ready = ask(pool, "/readyz", &[200, 503]).await?;
        let why = || {
            let told: Value = serde_json::from_slice(&ready.body).unwrap_or_default();
            cut(told
                .get("why")
                .and_then(Value::as_str)
                .unwrap_or("no reason given"))
        };
        Ok(Look {
            page: EdgePage::read(&status.body)?,
            unready: (ready.status != 200).then(why),
            counters: Counters::read(&String::from_utf8_lossy(&metrics.body)),
        })
    };
    tokio::time::timeout(LOOK_WITHIN, pages)
        .await
        .unwrap_or(Err(LookError::Late))
}

async fn ask(pool: &Pool, path: &'static str, good: &[u16]) -> Result<Reply, LookError> {
    let asked = pool.ask(Call::get(path), LOOK_WITHIN).await;
    let reply = asked.map_err(|error| match error {
        CallError::Timeout => LookError::Late,
        error => LookError::Call(error),
    })?;
    if good.contains(&reply.status) {
        return Ok(reply);
    }
    let told: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    Err(LookError::Status {
        path,
        status: reply.status,
        why: why_not(&told).to_owned(),
    })
}
