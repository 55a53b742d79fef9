//! Load: a closed loop to find what a server can do at most, an open loop to find how it answers at
//! a given rate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use standin_cli::open_loop::{fire, moment};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::wire::{Dial, Wire};

/// Longest latency told apart, microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// After so long a request counts as not answered.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before a connection that broke is made again.
const RECONNECT: Duration = Duration::from_millis(5);

/// What is sent, and what comes back.
pub trait Work: Send + Sync + 'static {
    /// Writes request number `number`, head and body, into `out` (empty when it comes).
    fn write(&self, number: u64, out: &mut Vec<u8>);

    /// What a response is counted as; `None`: as its status.
    fn kind(&self, status: u16, body: &[u8]) -> Option<&'static str>;
}

/// How load is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// Each of so many connections sends its next request when the last one was answered.
    Saturation {
        /// Connections.
        connections: usize,
    },
    /// The same, each request over a connection of its own: of TLS, a session resumed.
    Fresh {
        /// Connections at once.
        connections: usize,
    },
    /// So many arrivals a second, whatever becomes of them, over at most so many connections.
    Rate {
        /// A second.
        per_second: u64,
        /// Connections at most.
        connections: usize,
    },
}

/// When load runs, and when it counts.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The load begins.
    pub start: Instant,
    /// What is sent from here on counts.
    pub from: Instant,
    /// The last request is sent before this.
    pub end: Instant,
}

/// What load came to.
#[derive(Debug)]
pub struct Tally {
    /// Microseconds from sending (closed loop) or from the intended moment (open loop) to the
    /// response, of every request that counts, answered or not.
    pub latency: Histogram<u64>,
    /// Requests by what became of them.
    pub kinds: BTreeMap<String, u64>,
    /// Responses that came between `from` and `end`, by what they were, whenever they were asked
    /// for: what a rate is computed from.
    pub inside: BTreeMap<String, u64>,
}

/// Requests are numbered across all load of a run, so that every payment is another one.
#[derive(Debug, Default)]
pub struct Numbers(AtomicU64);

// === impl Numbers ===

impl Numbers {
    /// The next number.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

// === impl Window ===

impl Window {
    /// From now: `warm` uncounted, then `counted`.
    pub fn of(warm: Duration, counted: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            from: start + warm,
            end: start + warm + counted,
        }
    }
}

// === impl Tally ===

impl Default for Tally {
    fn default() -> Self {
        Self {
            latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("the bounds are constants that fit"),
            kinds: BTreeMap::new(),
            inside: BTreeMap::new(),
        }
    }
}

impl Tally {
    fn record(&mut self, window: &Window, asked: Instant, kind: &str) {
        let now = Instant::now();
        if now >= window.from && now < window.end {
            count(&mut self.inside, kind);
        }
        if asked >= window.from {
            count(&mut self.kinds, kind);
            let micros = now.duration_since(asked).as_micros();
            let micros = u64::try_from(micros).unwrap_or(u64::MAX);
            self.latency.saturating_record(micros.max(1));
        }
    }

    fn add(&mut self, other: &Self) {
        self.latency
            .add(&other.latency)
            .expect("both have the same constant bounds");
        for (kind, more) in &other.kinds {
            *self.kinds.entry(kind.clone()).or_default() += more;
        }
        for (kind, more) in &other.inside {
            *self.inside.entry(kind.clone()).or_default() += more;
        }
    }
}

fn count(kinds: &mut BTreeMap<String, u64>, kind: &str) {
    match kinds.get_mut(kind) {
        Some(count) => *count += 1,
        None => drop(kinds.insert(kind.to_owned(), 1)),
    }
}

/// Runs load against `to` until the window's end and everything sent is answered or given up.
pub async fn run(
    to: &Dial,
    load: Load,
    work: Arc<dyn Work>,
    numbers: Arc<Numbers>,
    window: Window,
) -> Tally {
    match load {
        Load::Saturation { connections } => {
            saturate(to, (connections, true), work, numbers, window).await
        }
        Load::Fresh { connections } => {
            saturate(to, (connections, false), work, numbers, window).await
        }
        Load::Rate {
            per_second,
            connections,
        } => arrive(to, (per_second, connections), work, numbers, window).await,
    }
}

async fn saturate(
    to: &Dial,
    (connections, kept): (usize, bool),
    work: Arc<dyn Work>,
    numbers: Arc<Numbers>,
    window: Window,
) -> Tally {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (work, numbers) = (Arc::clone(&work), Arc::clone(&numbers));
        let to = to.clone();
        tasks.spawn(async move {
            let mut tally = Tally::default();
            let mut wire = None;
            let mut bytes = Vec::with_capacity(2_048);
            while Instant::now() < window.end {
                bytes.clear();
                work.write(numbers.next(), &mut bytes);
                let asked = Instant::now();
                let kind = ask(&to, &mut wire, &bytes, asked + PATIENCE, work.as_ref()).await;
                tally.record(&window, asked, &kind);
                if !kept {
                    wire = None;
                } else if wire.is_none() {
                    tokio::time::sleep(RECONNECT).await;
                }
            }
            tally
        });
    }
    let mut all = Tally::default();
    while let Some(done) = tasks.join_next().await {
        all.add(&done.expect("a load task does not panic"));
    }
    all
}

async fn arrive(
    to: &Dial,
    (per_second, connections): (u64, usize),
    work: Arc<dyn Work>,
    numbers: Arc<Numbers>,
    window: Window,
) -> Tally {
    let idle = Arc::new(Mutex::new(Vec::<Wire>::new()));
    let permits = Arc::new(Semaphore::new(connections));
    let tally = Arc::new(Mutex::new(Tally::default()));
    let seconds = window.end.duration_since(window.start).as_secs_f64();
    let arrivals = (per_second as f64 * seconds) as u64;
    let arrivals = (0..arrivals).map(|index| (moment(index, per_second), numbers.next()));
    let stop = CancellationToken::new();
    let fired = fire(window.start, arrivals, &stop, |number, intended| {
        let (work, tally) = (Arc::clone(&work), Arc::clone(&tally));
        let (idle, permits) = (Arc::clone(&idle), Arc::clone(&permits));
        let to = to.clone();
        async move {
            let mut bytes = Vec::with_capacity(1_024);
            work.write(number, &mut bytes);
            let deadline = intended + PATIENCE;
            let kind = match timeout_at(deadline, permits.acquire()).await {
                Err(_elapsed) => "timeout".to_owned(),
                Ok(_permit) => {
                    let mut wire = lock(&idle).pop();
                    let kind = ask(&to, &mut wire, &bytes, deadline, work.as_ref()).await;
                    lock(&idle).extend(wire);
                    kind
                }
            };
            lock(&tally).record(&window, intended, &kind);
        }
    })
    .await;
    let mut tally = std::mem::take(&mut *lock(&tally));
    if fired.unsent > 0 {
        tally.kinds.insert("unsent".to_owned(), fired.unsent);
    }
    sleep_until(window.end).await;
    tally
}

/// One exchange over `wire`, made first if need be; a broken one is given up.
async fn ask(
    to: &Dial,
    wire: &mut Option<Wire>,
    bytes: &[u8],
    deadline: Instant,
    work: &dyn Work,
) -> String {
    let exchange = async {
        let mut used = match wire.take() {
            Some(used) => used,
            None => Wire::dial(to).await?,
        };
        let (status, body) = used.exchange(bytes).await?;
        let kind = match work.kind(status, body) {
            Some(kind) => kind.to_owned(),
            None => format!("status {status}"),
        };
        Ok::<_, std::io::Error>((used, kind))
    };
    match timeout_at(deadline, exchange).await {
        Ok(Ok((used, kind))) => {
            *wire = Some(used);
            kind
        }
        Ok(Err(error)) => format!("broken: {:?}", error.kind()),
        Err(_elapsed) => "timeout".to_owned(),
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
