//! A simulated network between nodes: loss, delay, reordering, duplicates, ways that are cut in one
//! direction, and nodes that nothing gets into or out of for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use standin_wal::testing::{Said, look_into_reply, look_into_request};
use standin_wal::{Member, NodeId, Replicable, Transport, TransportError};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::oracle::Oracle;
use super::run::{Gone, Run};
use super::scene::{Scene, locked};

/// The network.
pub struct Net<M: Replicable> {
    scene: Arc<Scene>,
    oracle: Arc<Oracle>,
    tasks: TaskTracker,
    state: Mutex<State<M>>,
}

struct State<M: Replicable> {
    nodes: BTreeMap<u64, Arc<Run<M>>>,
    cuts: BTreeSet<(u64, u64)>,
    /// Nothing gets into or out of a node before this, in simulated milliseconds.
    paused: BTreeMap<u64, u64>,
    weather: Weather,
}

/// What happens to messages.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Lost, of a hundred.
    pub loss: u64,
    /// Delivered twice, of a hundred.
    pub twice: u64,
    /// Milliseconds on the way.
    pub delay: (u64, u64),
    /// Of a hundred, how many are late by up to so many more milliseconds.
    pub late: (u64, u64),
}

/// One node's way to the others.
pub struct Way<M: Replicable> {
    net: Arc<Net<M>>,
    from: Arc<Gone>,
}

impl Weather {
    /// What a network is most of the time.
    pub const FAIR: Self = Self {
        loss: 0,
        twice: 0,
        delay: (0, 2),
        late: (0, 0),
    };
}

// === impl Net ===

impl<M: Replicable> Net<M> {
    /// A network without nodes.
    pub fn new(scene: Arc<Scene>, oracle: Arc<Oracle>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            scene,
            oracle,
            tasks,
            state: Mutex::new(State {
                nodes: BTreeMap::new(),
                cuts: BTreeSet::new(),
                paused: BTreeMap::new(),
                weather: Weather::FAIR,
            }),
        })
    }

    /// A node's way out.
    pub fn way(self: &Arc<Self>, from: Arc<Gone>) -> Arc<Way<M>> {
        Arc::new(Way {
            net: Arc::clone(self),
            from,
        })
    }

    /// A node is reached from now on.
    pub fn join(&self, run: Arc<Run<M>>) {
        locked(&self.state).nodes.insert(run.node(), run);
    }

    /// A node is reached no more.
    pub fn leave(&self, node: u64) {
        locked(&self.state).nodes.remove(&node);
    }

    /// The nodes that run.
    pub fn nodes(&self) -> Vec<Arc<Run<M>>> {
        locked(&self.state).nodes.values().cloned().collect()
    }

    /// A node that runs.
    pub fn node(&self, node: u64) -> Option<Arc<Run<M>>> {
        locked(&self.state).nodes.get(&node).cloned()
    }

    /// Nothing gets from one node to another any more.
    pub fn cut(&self, from: u64, to: u64) {
        self.scene.note("cut", &[from, to]);
        locked(&self.state).cuts.insert((from, to));
    }

    /// Nothing gets into or out of a node for so long.
    pub fn pause(&self, node: u64, millis: u64) {
        self.scene.note("pause", &[node, millis]);
        let until = self.scene.now_ms().saturating_add(millis);
        locked(&self.state).paused.insert(node, until);
    }

    /// Every way is open.
    pub fn heal(&self) {
        self.scene.note("heal", &[]);
        let mut state = locked(&self.state);
        state.cuts.clear();
        state.paused.clear();
        state.weather = Weather::FAIR;
    }

    /// What happens to messages from now on.
    pub fn set_weather(&self, weather: Weather) {
        locked(&self.state).weather = weather;
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        locked(&self.state).cuts.contains(&(from, to))
    }

    /// The way of one message. `None`: it does not arrive.
    async fn travel(&self, from: u64, to: u64) -> Option<()> {
        let weather = locked(&self.state).weather;
        let scene = &self.scene;
        if scene.chance(weather.loss) || self.is_cut(from, to) {
            return None;
        }
        let mut delay = scene.millis(weather.delay.0, weather.delay.1);
        if weather.late.0 > 0 && scene.chance(weather.late.0) {
            delay = delay.saturating_add(scene.millis(0, weather.late.1));
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        loop {
            let now = scene.now_ms();
            let paused = {
                let state = locked(&self.state);
                let until = [from, to].map(|node| state.paused.get(&node).copied().unwrap_or(0));
                until.into_iter().max().unwrap_or(0)
            };
            let Some(left) = paused.checked_sub(now).filter(|left| *left > 0) else {
                break;
            };
            tokio::time::sleep(Duration::from_millis(left)).await;
        }
        (!self.is_cut(from, to)).then_some(())
    }

    /// Brings a request to a node, and its reply back.
    async fn carry(self: Arc<Self>, from: Arc<Gone>, to: u64, request: Bytes) -> Option<Bytes> {
        let said = look_into_request(&request);
        self.note("request", from.node, to, said);
        if let Said::AskVote { term } = said {
            self.oracle.spoke(from.node, term);
        }
        self.travel(from.node, to).await?;
        let run = self.node(to)?;
        let reply = tokio::select! {
            biased;
            () = run.gone.token.cancelled() => return None,
            reply = run.group().handle(request) => reply,
        };
        if run.gone.token.is_cancelled() || from.token.is_cancelled() {
            return None;
        }
        let said = look_into_reply(&reply);
        if let Said::Voted { term, .. } = said {
            self.oracle.spoke(to, term);
        }
        if let Said::Voted {
            term,
            node,
            granted: true,
        } = said
        {
            self.oracle.voted(to, term, node);
        }
        self.note("reply", to, from.node, said);
        self.travel(to, from.node).await?;
        Some(reply)
    }

    fn note(&self, what: &'static str, from: u64, to: u64, said: Said) {
        let figures = match said {
            Said::Append {
                term,
                entries,
                committed,
            } => [1, term, entries, committed],
            Said::AskVote { term } => [2, term, 0, 0],
            Said::Snapshot => [3, 0, 0, 0],
            Said::Propose { proposals } => [4, proposals, 0, 0],
            Said::Voted {
                term,
                node,
                granted,
            } => [5, term, node, u64::from(granted)],
            Said::Outcomes { outcomes } => [6, outcomes, 0, 0],
            Said::Appended => [7, 0, 0, 0],
            Said::Other => [0, 0, 0, 0],
        };
        let [a, b, c, d] = figures;
        self.scene.note(what, &[from, to, a, b, c, d]);
    }
}

impl<M: Replicable> Transport for Way<M> {
    fn call(
        &self,
        to: NodeId,
        _member: &Member,
        request: Bytes,
        patience: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + '_>> {
        Box::pin(async move {
            let net = &self.net;
            let silence = || TransportError::NoReply("silence".to_owned());
            if self.from.token.is_cancelled() {
                tokio::time::sleep(patience).await;
                return Err(silence());
            }
            // A machine that is up without the process says so.
            if net.node(to.0).is_none() && !net.is_cut(self.from.node, to.0) && net.scene.chance(50)
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
                return Err(TransportError::Unreachable("nobody listens".to_owned()));
            }
            let twice = locked(&net.state).weather.twice;
            let (replied, reply) = oneshot::channel();
            // On its way, a message needs nobody who waits for its reply.
            let (carrier, from, copy) = (Arc::clone(net), Arc::clone(&self.from), request.clone());
            net.tasks.spawn(async move {
                if let Some(reply) = carrier.carry(from, to.0, copy).await {
                    drop(replied.send(reply));
                }
            });
            if twice > 0 && net.scene.chance(twice) {
                let (carrier, from) = (Arc::clone(net), Arc::clone(&self.from));
                net.tasks.spawn(async move {
                    drop(carrier.carry(from, to.0, request).await);
                });
            }
            let began = tokio::time::Instant::now();
            match tokio::time::timeout(patience, reply).await {
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(_lost)) => {
                    // Nobody tells that a message was lost.
                    tokio::time::sleep(patience.saturating_sub(began.elapsed())).await;
                    Err(silence())
                }
                Err(_elapsed) => Err(silence()),
            }
        })
    }
}
