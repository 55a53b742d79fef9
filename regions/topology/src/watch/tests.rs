use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;

use super::*;
use crate::announce::Parts;
use crate::announcer::Switch;

const WELL: Probe = Probe::Answered(Parts {
    decide: true,
    write_ahead: true,
    fresh_trips: true,
});

/// An edge that is as it is told to be; `None`: it hangs.
struct Told(Mutex<Option<Probe>>, AtomicU64);

/// Another announcer that is well.
struct Good;

impl Told {
    fn new(probe: Option<Probe>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(probe), AtomicU64::new(0)))
    }

    fn set(&self, probe: Option<Probe>) {
        *self.0.lock().unwrap() = probe;
    }
}

impl Edge for Told {
    fn probe(&self) -> BoxFuture<'_, Probe> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let now = *self.0.lock().unwrap();
        Box::pin(async move {
            match now {
                Some(probe) => probe,
                None => std::future::pending().await,
            }
        })
    }
}

impl Other for Good {
    fn ask(&self) -> BoxFuture<'_, Option<Word>> {
        Box::pin(async {
            Some(Word {
                announced: true,
                health: Health::Well,
            })
        })
    }
}

struct Running {
    edge: Arc<Told>,
    switch: Switch,
    report: watch::Receiver<Report>,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<Ended>,
}

async fn start(on: bool, others: usize) -> Running {
    let edge = Told::new(Some(WELL));
    let mut switch = Switch::default();
    if on {
        switch.announce().await.unwrap();
    }
    let (tell, report) = watch::channel(Report::new());
    let (stop, stopped) = oneshot::channel::<()>();
    let setup = Setup {
        rules: Rules::default(),
        timing: Timing::default(),
        edge: Arc::<Told>::clone(&edge),
        others: (0..others)
            .map(|_| -> Arc<dyn Other> { Arc::new(Good) })
            .collect(),
    };
    let announcer = switch.clone();
    let ended = tokio::spawn(run(setup, announcer, tell, async {
        drop(stopped.await);
    }));
    Running {
        edge,
        switch,
        report,
        stop,
        ended,
    }
}

impl Running {
    async fn until(&mut self, is: impl FnMut(&Report) -> bool) -> Report {
        self.report.wait_for(is).await.unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_edge_is_withdrawn_within_two_seconds_and_rises_slowly() {
    let mut running = start(true, 1).await;
    running.until(|report| report.health == Health::Well).await;
    running.edge.set(None);
    let hung = Instant::now();
    running.until(|report| !report.announced).await;
    let within = hung.elapsed();
    assert!(within <= Duration::from_millis(1_450), "{within:?}");
    assert!(!running.switch.is_on());
    running.edge.set(Some(WELL));
    let thawed = Instant::now();
    running.until(|report| report.announced).await;
    assert!(thawed.elapsed() >= Duration::from_secs(30));
    assert!(running.switch.is_on());
    drop(running.stop);
    assert_eq!(running.ended.await.unwrap(), Ended::Withdrawn);
    assert!(!running.switch.is_on());
}

#[tokio::test(start_paused = true)]
async fn alone_it_is_left_announced_at_the_end() {
    let mut running = start(true, 0).await;
    running.edge.set(Some(Probe::Unreachable));
    running.until(|report| report.why == Why::LastOne).await;
    drop(running.stop);
    assert_eq!(running.ended.await.unwrap(), Ended::LeftAnnounced);
    assert!(running.switch.is_on());
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_switched_is_switched_back() {
    let mut running = start(true, 1).await;
    running.until(|report| report.health == Health::Well).await;
    running.switch.withdraw().await.unwrap();
    // Paused time moves on only when nothing else does.
    while !running.switch.is_on() {
        running.report.changed().await.unwrap();
    }
    assert_eq!(running.report.borrow().changes, 0);
    drop(running.stop);
    running.ended.await.unwrap();
}
