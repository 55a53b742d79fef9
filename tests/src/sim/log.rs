//! The simulation of the log alone: clients propose at any node while everything fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use standin_wal::{Fate, Replicable};
use tokio::time::Instant;

use super::disk::Mark;
use super::faults;
use super::oracle::Told;
use super::scene::{digest, locked};
use super::till::{Till, payment};
use super::world::{State, World};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(700);
const CLIENTS: u64 = 4;
/// Simulated milliseconds of faults.
const FAULTS_MS: u64 = 3_000;
/// Simulated time in which a healed group must be well again.
const WELL_WITHIN: Duration = Duration::from_secs(30);

type Payments = Arc<Mutex<Vec<(Mark, Bytes)>>>;

/// Runs one simulation of three keepers and two others.
pub async fn simulate(scene: Arc<super::scene::Scene>) -> Arc<World<Till>> {
    let world = World::new(scene, Box::new(Till::default), Box::new(|_, _| {}));
    world.found(3, 2).await;
    let payments: Payments = Arc::default();
    let end = world.scene.now_ms().saturating_add(FAULTS_MS);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(pay(Arc::clone(&world), Arc::clone(&payments), client, end)))
        .collect();
    faults::until(&world, end).await;
    for client in clients {
        if client.await.is_err() {
            world.scene.wrong(|| "a client panicked".to_owned());
        }
    }
    get_well(&world, &payments).await;
    world
}

async fn pay(world: Arc<World<Till>>, payments: Payments, client: u64, end_ms: u64) {
    let mut number = 0_u64;
    while world.scene.now_ms() < end_ms && world.scene.verdict().is_none() {
        tokio::time::sleep(world.scene.millis(0, 120)).await;
        let known = locked(&payments).clone();
        let again = world.scene.pick(&known).filter(|_| world.scene.chance(25));
        let (mark, bytes) = again.unwrap_or_else(|| {
            number = number.saturating_add(1);
            let mut mark = Mark::default();
            let (head, tail) = mark.split_at_mut(4);
            head.copy_from_slice(&u32::try_from(client).unwrap_or(0).to_le_bytes());
            tail.copy_from_slice(&number.to_le_bytes());
            let amount = u8::try_from(world.scene.between(1, 200)).unwrap_or(1);
            let filler = usize::try_from(world.scene.below(3_000)).unwrap_or(0);
            (mark, payment(&mark, amount, filler))
        });
        locked(&payments).push((mark, bytes.clone()));
        world.oracle.proposed(&bytes);
        if !ask(&world, &mark, &bytes, 4).await {
            world.oracle.unknown();
        }
    }
}

/// Proposes at one node after the other, until one answers.
async fn ask(world: &Arc<World<Till>>, mark: &Mark, bytes: &Bytes, tries: u32) -> bool {
    for _ in 0..tries {
        let Some(run) = world.scene.pick(&world.net.nodes()) else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let deadline = Instant::now().checked_add(PATIENCE);
        let proposing = run
            .group
            .propose(bytes.clone(), deadline.unwrap_or_else(Instant::now));
        let proposed = tokio::select! {
            biased;
            () = run.gone.token.cancelled() => continue,
            proposed = proposing => proposed,
        };
        match proposed {
            Ok(committed) => {
                let at = committed.applied();
                let answer = digest(&Till::outcome_to_bytes(committed.outcome()));
                world
                    .scene
                    .note("told", &[run.node(), at.index, u64::from(at.slot), answer]);
                let at = Some((at.index, at.slot));
                if world.oracle.told(*mark, Told { at, answer }) {
                    world.judge_durable(mark, &run);
                }
                return true;
            }
            Err(error) => {
                world.scene.note("not told", &[run.node()]);
                if error.fate() == Fate::NotBegun {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
    false
}

/// Everything that can be whole is made whole; then the group must answer at every node, and what was
/// told must be so everywhere.
async fn get_well(world: &Arc<World<Till>>, payments: &Payments) {
    if world.scene.verdict().is_some() {
        return;
    }
    world.net.heal();
    let until = Instant::now().checked_add(WELL_WITHIN);
    let until = until.unwrap_or_else(Instant::now);
    let mut settled = false;
    while Instant::now() < until && world.scene.verdict().is_none() {
        for (node, state, _) in world.machines() {
            if let Some(disk) = world.disk(node) {
                disk.set_pace(0, 2);
            }
            if state != State::Retired && state != State::Up {
                faults::start_one(world).await;
            }
        }
        world.look();
        if !world.is_wounded() && is_level(world) {
            settled = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if world.scene.verdict().is_some() {
        return;
    }
    if !settled {
        world
            .scene
            .wrong(|| format!("L7: not well again in time: {}", describe(world)));
        return;
    }
    let known: Vec<(Mark, Bytes)> = locked(payments).clone();
    for (mark, told) in world.oracle.all_told() {
        let Some((_, bytes)) = known.iter().find(|(known, _)| *known == mark) else {
            continue;
        };
        if !ask(world, &mark, bytes, 3).await {
            world
                .scene
                .wrong(|| "L7: a healed group does not answer".to_owned());
        }
        if let Some(at) = told.at
            && world.oracle.outcome_at(at) != Some(told.answer)
        {
            world
                .scene
                .wrong(|| format!("S8: what was told at {at:?} is not what is there"));
        }
    }
    for _ in 0..100 {
        if is_level(world) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for run in world.net.nodes() {
        run.group.read(|watched| watched.compare());
    }
    world.look();
}

/// Whether every machine that is to run runs, knows the leader, and has applied as much as the others.
fn is_level<M: Replicable>(world: &World<M>) -> bool {
    let machines = world.machines();
    let to_run = machines
        .iter()
        .filter(|(_, state, _)| *state != State::Retired);
    let nodes = world.net.nodes();
    let applied = |run: &Arc<super::run::Run<super::oracle::Watched<M>>>| {
        let status = run.group.status();
        (
            status.leader,
            status.applied_index,
            status.last_index == status.applied_index,
        )
    };
    let first = nodes.first().map(applied);
    nodes.len() == to_run.count()
        && first.is_some_and(|(leader, _, whole)| leader.is_some() && whole)
        && nodes.iter().all(|run| Some(applied(run)) == first)
}

fn describe<M: Replicable>(world: &World<M>) -> String {
    let nodes = world.net.nodes();
    let told: Vec<String> = nodes
        .iter()
        .map(|run| {
            let status = run.group.status();
            format!(
                "{}: leader {:?} term {} last {} applied {} keepers {:?}",
                status.node,
                status.leader,
                status.term,
                status.last_index,
                status.applied_index,
                status.keepers
            )
        })
        .collect();
    format!("{told:?}, machines {:?}", world.machines())
}
