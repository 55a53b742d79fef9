//! The machines of one simulation: starting them, ending them, and putting a new one in the place of one
//! whose disk cannot be believed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::select_all;
use standin_wal::testing::{Witness, bring_witness};
use standin_wal::{Config, Group, GroupConfig, Member, MemberError, NodeId, OpenError, Replicable};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::disk::{Mark, Mount, SimDisk};
use super::net::Net;
use super::oracle::{Counts, Eye, Oracle};
use super::run::{Clocks, Gone, Holds, Run};
use super::scene::{Scene, locked};

/// Bytes of a segment, and of all of them.
pub const SEGMENT_BYTES: u64 = 64 * 1024;
const BUDGET_BYTES: u64 = 2 * 1024 * 1024;

/// Which group it is.
pub const INCARNATION: Uuid = Uuid::from_u128(0x5117);

/// Up to where a node may give its log up.
pub type CompactUpto<M> = Box<dyn Fn(&Run<M>) -> u64 + Send + Sync>;

/// The world of one simulation.
pub struct World<M: Replicable> {
    /// What its parts share.
    pub scene: Arc<Scene>,
    /// Who judges it.
    pub oracle: Arc<Oracle>,
    /// How its nodes talk.
    pub net: Arc<Net<M>>,
    /// What runs in it.
    pub tasks: TaskTracker,
    machines: Mutex<BTreeMap<u64, Machine>>,
    hooks: Hooks<M>,
    runs: AtomicU64,
    /// Keepers being replaced: the old one and the new one.
    replacing: Mutex<Option<(u64, u64)>>,
    /// Membership changes under way, and simulated time of the last one.
    changed_ms: AtomicU64,
}

/// What runs on the logs of a world.
pub struct Hooks<M: Replicable> {
    /// Makes a state machine that has applied nothing.
    pub make: Box<dyn Fn() -> M + Send + Sync>,
    /// Makes of a log that was opened whatever holds it.
    pub started: Started<M>,
    /// Up to where a node's log may be given up.
    pub compact_upto: CompactUpto<M>,
}

type Started<M> =
    Box<dyn Fn(Group<M>, &Arc<Gone>, &Clocks, Arc<Mount>) -> Arc<dyn Holds<M>> + Send + Sync>;

struct Machine {
    disk: SimDisk,
    /// For what runs beside the group's log.
    own: SimDisk,
    clocks: Clocks,
    keeper: bool,
    state: State,
}

/// What a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its process runs.
    Up,
    /// Its process does not run, its disk is whole.
    Down,
    /// Its disk was spoilt: it need not open, and it must not lose anything in silence.
    Spoilt {
        /// Last entry before that.
        last_index: u64,
    },
    /// It is gone for good.
    Retired,
}

impl<M: Replicable> World<M> {
    /// A world without machines.
    pub fn new(scene: Arc<Scene>, oracle: Arc<Oracle>, hooks: Hooks<M>) -> Arc<Self> {
        let tasks = TaskTracker::new();
        Arc::new(Self {
            net: Net::new(Arc::clone(&scene), Arc::clone(&oracle), tasks.clone()),
            scene,
            oracle,
            tasks,
            machines: Mutex::default(),
            hooks,
            runs: AtomicU64::new(0),
            replacing: Mutex::new(None),
            changed_ms: AtomicU64::new(0),
        })
    }

    /// Puts up a machine with an empty disk. It does not run yet.
    pub fn put_up(&self, node: u64, keeper: bool) {
        let off = i64::try_from(self.scene.below(4_000)).unwrap_or(0);
        let machine = Machine {
            disk: SimDisk::new(Arc::clone(&self.scene), node),
            own: SimDisk::new(Arc::clone(&self.scene), node),
            clocks: Clocks::new(off.saturating_sub(2_000)),
            keeper,
            state: State::Down,
        };
        locked(&self.machines).insert(node, machine);
    }

    /// The machines and what they are.
    pub fn machines(&self) -> Vec<(u64, State, bool)> {
        let machines = locked(&self.machines);
        machines
            .iter()
            .map(|(node, machine)| (*node, machine.state, machine.keeper))
            .collect()
    }

    /// What it came to. Its nodes leave each other, who would keep themselves in memory for ever.
    pub fn close(&self) -> Counts {
        for run in self.net.nodes() {
            self.net.leave(run.node());
        }
        self.oracle.counts()
    }

    /// A machine's disk.
    pub fn disk(&self, node: u64) -> Option<SimDisk> {
        let machines = locked(&self.machines);
        machines.get(&node).map(|machine| machine.disk.clone())
    }

    /// Its other disk.
    pub fn own_disk(&self, node: u64) -> Option<SimDisk> {
        let machines = locked(&self.machines);
        machines.get(&node).map(|machine| machine.own.clone())
    }

    /// Its process ends; its disks keep what they have.
    fn sever(&self, node: u64) {
        for disk in [self.disk(node), self.own_disk(node)].into_iter().flatten() {
            disk.sever();
        }
    }

    /// A machine's clocks.
    pub fn clocks(&self, node: u64) -> Option<Clocks> {
        let machines = locked(&self.machines);
        machines.get(&node).map(|machine| machine.clocks.clone())
    }

    /// Says what a machine is from now on.
    pub fn set_state(&self, node: u64, state: State) {
        if let Some(machine) = locked(&self.machines).get_mut(&node) {
            machine.state = state;
        }
    }

    /// Whether a keeper is being replaced or has to be.
    pub fn is_wounded(&self) -> bool {
        let spoilt = |machine: &Machine| matches!(machine.state, State::Spoilt { .. });
        locked(&self.replacing).is_some() || locked(&self.machines).values().any(spoilt)
    }

    /// Starts a machine's process on its disk, and sees to it that it ends when it must.
    pub async fn start(self: &Arc<Self>, node: u64) {
        let (Some(disk), Some(clocks)) = (self.disk(node), self.clocks(node)) else {
            return;
        };
        let number = self.runs.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let gone = Arc::new(Gone {
            node,
            number,
            token: CancellationToken::new(),
            failed: CancellationToken::new(),
        });
        self.scene.note("start", &[node, number]);
        let mount = Arc::new(disk.mount(number));
        let out = disk.out();
        let Some(own_disk) = self.own_disk(node) else {
            return;
        };
        let own = Arc::new(own_disk.mount(number));
        let mut dice = self.scene.fork();
        let eye: Arc<dyn Witness> = Eye::on(&self.oracle, node);
        bring_witness(Some(eye));
        let opening = Group::open_on(
            mount,
            group_config(node),
            Box::new(clocks.clone()),
            (self.hooks.make)(),
            self.net.way(Arc::clone(&gone)),
            Box::new(move || (u128::from(dice.roll()) << 64) | u128::from(dice.roll())),
        );
        // It looks for its witness when it is first polled, which is now.
        let opened = opening.await;
        let before = self.machines().into_iter().find(|(at, ..)| *at == node);
        let Some((_, state, _)) = before else { return };
        match opened {
            Ok(group) => {
                // The library has said nothing of itself yet.
                tokio::time::sleep(Duration::from_millis(1)).await;
                if let State::Spoilt { last_index } = state {
                    let now = group.status().last_index;
                    if now < last_index {
                        self.scene.wrong(|| {
                            format!("S9: node {node} opened a spoilt log and lost {last_index} - {now} entries")
                        });
                    }
                }
                let held = (self.hooks.started)(group, &gone, &clocks, own);
                let run = Arc::new(Run::new(gone, held));
                self.set_state(node, State::Up);
                self.net.join(Arc::clone(&run));
                let outs = vec![out, own_disk.out()];
                self.tasks.spawn(Arc::clone(self).watch(run, outs));
            }
            Err(error) => {
                self.scene.note("not opened", &[node]);
                self.scene.say(|| format!("node {node}: {error}"));
                gone.token.cancel();
                disk.sever();
                self.judge_open_error(node, state, &error);
            }
        }
    }

    /// A log that does not open must have been spoilt, or its disk failed meanwhile.
    fn judge_open_error(&self, node: u64, state: State, error: &OpenError) {
        match (error, state) {
            (OpenError::Io { .. } | OpenError::Cancelled | OpenError::Raft(_), _) => {}
            (_, State::Spoilt { .. }) => {}
            (_, State::Up | State::Down | State::Retired) => {
                self.scene
                    .wrong(|| format!("S8: the log of node {node} does not open: {error}"));
            }
        }
    }

    /// Ends the run when its disk is poisoned or its power is gone.
    async fn watch(self: Arc<Self>, run: Arc<Run<M>>, outs: Vec<CancellationToken>) {
        let out = async {
            let outs = outs.iter().map(|out| Box::pin(out.cancelled()));
            select_all(outs).await;
        };
        tokio::select! {
            biased;
            () = run.gone.token.cancelled() => {}
            () = out => self.end(&run),
            () = run.gone.failed.cancelled() => self.end(&run),
            () = run.group().poisoned() => {
                self.scene.note("poisoned", &[run.node()]);
                self.end(&run);
            }
        }
    }

    /// Ends a run at once, as kill -9 does.
    pub fn end(&self, run: &Arc<Run<M>>) {
        if run.gone.token.is_cancelled() {
            return;
        }
        self.scene.note("end", &[run.node(), run.gone.number]);
        run.gone.token.cancel();
        self.net.leave(run.node());
        self.sever(run.node());
        self.set_state(run.node(), State::Down);
        // What is left of it is taken away; it has no disk, no network and no clients any more.
        let run = Arc::clone(run);
        self.tasks.spawn(async move { run.group().stop().await });
    }

    /// Stops a run as an operator does.
    pub async fn stop(&self, run: &Arc<Run<M>>) {
        self.scene.note("stop", &[run.node(), run.gone.number]);
        run.group().stop().await;
        if run.gone.token.is_cancelled() {
            return;
        }
        run.gone.token.cancel();
        self.net.leave(run.node());
        self.sever(run.node());
        self.set_state(run.node(), State::Down);
    }

    /// The node that leads, as far as the nodes know.
    pub fn leader(&self) -> Option<Arc<Run<M>>> {
        let leads = |run: &Arc<Run<M>>| {
            let status = run.group().status();
            (status.leader == Some(status.node)).then_some(status.term)
        };
        let nodes = self.net.nodes();
        let leading = nodes
            .into_iter()
            .filter_map(|run| Some((leads(&run)?, run)));
        leading.max_by_key(|(term, _)| *term).map(|(_, run)| run)
    }

    /// Puts a new machine in the place of one whose disk cannot be believed.
    pub async fn replace(self: Arc<Self>, old: u64) {
        let (new, keeper) = {
            let machines = locked(&self.machines);
            let next = machines
                .keys()
                .next_back()
                .map_or(1, |last| last.saturating_add(1));
            let keeper = machines.get(&old).is_some_and(|machine| machine.keeper);
            (next, keeper)
        };
        *locked(&self.replacing) = Some((old, new));
        self.scene.note("replace", &[old, new]);
        self.put_up(new, keeper);
        self.set_state(old, State::Retired);
        self.start(new).await;
        let mut tries = 0_u32;
        loop {
            tries = tries.saturating_add(1);
            if self.is_replaced(old, new, keeper) || tries > 400 {
                break;
            }
            if let Some(leader) = self.leader() {
                let changing = tokio::time::timeout(
                    Duration::from_secs(2),
                    self.change_one(&leader, old, new, keeper),
                );
                tokio::select! {
                    biased;
                    () = leader.gone.token.cancelled() => {}
                    _ = changing => {}
                }
                self.changed_ms
                    .store(self.scene.now_ms(), Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.scene.note("replaced", &[old, new, u64::from(tries)]);
        if tries > 400 {
            self.scene
                .wrong(|| format!("node {new} did not get the place of {old} in 40 s"));
        }
        *locked(&self.replacing) = None;
    }

    async fn change_one(
        &self,
        leader: &Arc<Run<M>>,
        old: u64,
        new: u64,
        keeper: bool,
    ) -> Result<(), MemberError> {
        let status = leader.group().status();
        let known = status.learners.contains(&new) || status.keepers.contains(&new);
        if !known {
            leader.group().add_learner(NodeId(new), member(new)).await?;
        }
        if keeper && !status.keepers.contains(&new) {
            leader.group().add_keeper(NodeId(new)).await?;
        }
        if status.keepers.contains(&old) {
            leader.group().remove_keeper(NodeId(old)).await?;
        }
        Ok(())
    }

    fn is_replaced(&self, old: u64, new: u64, keeper: bool) -> bool {
        self.leader().is_some_and(|leader| {
            let status = leader.group().status();
            let there = if keeper {
                status.keepers.contains(&new)
            } else {
                status.learners.contains(&new)
            };
            let committed = status.applied_index == status.last_index;
            let gone = !status.keepers.contains(&old) && status.keepers.len() == 3;
            // One that leads no more may not know it yet, and still show who its members were.
            let follows = |run: &Arc<Run<M>>| {
                let other = run.group().status();
                status.keepers.contains(&other.node)
                    && (other.leader, other.term) == (status.leader, status.term)
            };
            let followed = self.net.nodes().into_iter().filter(follows).count() >= 2;
            there && gone && committed && followed
        })
    }

    /// Founds the group with the first three machines as keepers, and lets the others learn.
    pub async fn found(self: &Arc<Self>, keepers: u64, learners: u64) {
        for node in 1..=keepers.saturating_add(learners) {
            self.put_up(node, node <= keepers);
            self.start(node).await;
        }
        let all: BTreeMap<NodeId, Member> = (1..=keepers)
            .map(|node| (NodeId(node), member(node)))
            .collect();
        let Some(first) = self.net.node(1) else {
            return;
        };
        if let Err(error) = first.group().found(all).await {
            self.scene
                .wrong(|| format!("the group is not founded: {error}"));
        }
        for learner in keepers.saturating_add(1)..=keepers.saturating_add(learners) {
            for _ in 0..100 {
                if let Some(leader) = self.leader()
                    && leader
                        .group()
                        .add_learner(NodeId(learner), member(learner))
                        .await
                        .is_ok()
                {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Up to where a node's log may be given up.
    pub fn compact_upto(&self, run: &Run<M>) -> u64 {
        (self.hooks.compact_upto)(run)
    }

    /// Has the oracle hold the states of the nodes against each other.
    pub fn compare(&self) {
        for run in self.net.nodes() {
            let at = run.group().status().applied_index;
            let state = run.group().read(Replicable::save);
            self.oracle.saved(run.node(), at, &state);
        }
    }

    /// Looks at every node, and at its disk.
    pub fn look(&self) {
        for run in self.net.nodes() {
            let status = run.group().status();
            self.oracle
                .timed(status.node, status.applied_index, status.log_time_ms);
            if status.leader == Some(status.node) {
                self.oracle.leads(status.node, status.term);
            }
            let used = self
                .disk(status.node)
                .map_or(0, |disk| disk.segment_bytes());
            if used > BUDGET_BYTES {
                self.scene
                    .wrong(|| format!("node {} uses {used} bytes", status.node));
            }
        }
    }

    /// S7: what is told as committed is durable on a majority of the keepers when it is told.
    pub fn judge_durable(&self, mark: &Mark) {
        // (A node that lags may know the members of before.)
        let keepers: BTreeSet<u64> = locked(&self.machines)
            .iter()
            .filter(|(_, machine)| machine.keeper && machine.state != State::Retired)
            .map(|(node, _)| *node)
            .collect();
        let since = self.changed_ms.load(Ordering::Relaxed);
        let settled = since == 0 || self.scene.now_ms().saturating_sub(since) > 2_000;
        if !settled || locked(&self.replacing).is_some() || keepers.len() != 3 {
            return;
        }
        let holds = |node: &&u64| self.disk(**node).is_some_and(|disk| disk.holds(mark));
        let holding: Vec<u64> = keepers.iter().filter(holds).copied().collect();
        if holding.len() < 2 {
            self.scene.wrong(|| {
                format!("S7: a payment was told as committed and is durable on {holding:?} of {keepers:?}")
            });
        }
    }
}

/// How a node's log is made in a simulation.
fn group_config(node: u64) -> GroupConfig {
    let log = Config {
        segment_bytes: SEGMENT_BYTES,
        budget_bytes: BUDGET_BYTES,
        batch_bytes_max: 40 * 1024,
        ..Config::new("", NodeId(node), "sim")
    };
    GroupConfig::new(log, INCARNATION)
}

fn member(node: u64) -> Member {
    Member {
        address: format!("node-{node}"),
        log: Uuid::nil(),
    }
}
