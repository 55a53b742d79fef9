//! The simulation of the log alone: clients propose at any node while everything fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use standin_wal::{Fate, Replicable};
use tokio::time::Instant;

use super::disk::Mark;
use super::faults;
use super::oracle::{Oracle, Told};
use super::scene::{digest, locked};
use super::till::{Till, payment};
use super::well::{give_room, is_level, make_well};
use super::world::{Hooks, World};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(700);
/// Rest after a refusal.
const REFUSED_REST: Duration = Duration::from_millis(200);
const CLIENTS: u64 = 4;
/// Simulated milliseconds of faults.
const FAULTS_MS: u64 = 3_000;

type Payments = Arc<Mutex<Vec<(Mark, Bytes)>>>;

/// Runs one simulation of three keepers and two others.
pub async fn simulate(scene: Arc<super::scene::Scene>) -> Arc<World<Till>> {
    let oracle = Oracle::new(Arc::clone(&scene), Box::new(|_, _| {}));
    let hooks = Hooks {
        make: Box::new(Till::default),
        started: Box::new(|group, _, _, _| Arc::new(group)),
        compact_upto: Box::new(|run| run.group().status().applied_index),
    };
    let world = World::new(scene, oracle, hooks);
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
            .group()
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
                    world.judge_durable(mark);
                }
                return true;
            }
            Err(error) => {
                world.scene.note("not told", &[run.node()]);
                if error.fate() == Fate::NotBegun {
                    // A log whose disk was full tries again after a second.
                    tokio::time::sleep(REFUSED_REST).await;
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
    if !make_well(world).await {
        return;
    }
    let known: Vec<(Mark, Bytes)> = locked(payments).clone();
    for (mark, told) in world.oracle.all_told() {
        let Some((_, bytes)) = known.iter().find(|(known, _)| *known == mark) else {
            continue;
        };
        give_room(world).await;
        if !ask(world, &mark, bytes, 12).await {
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
    world.compare();
    world.look();
}
