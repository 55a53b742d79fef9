//! The end of a simulation: everything that can be whole is made whole, and must be well soon.

use std::sync::Arc;
use std::time::Duration;

use standin_wal::Replicable;
use tokio::time::Instant;

use super::faults;
use super::run::Run;
use super::world::{State, World};

/// Simulated time in which a healed group must be well again.
const WELL_WITHIN: Duration = Duration::from_secs(30);
/// Simulated time in which a node must give up what it need not keep.
const ROOM_WITHIN: Duration = Duration::from_secs(5);

/// Heals everything and starts everything; false when something is wrong, too late among it.
pub async fn make_well<M: Replicable>(world: &Arc<World<M>>) -> bool {
    if world.scene.verdict().is_some() {
        return false;
    }
    world.net.heal();
    let until = Instant::now().checked_add(WELL_WITHIN);
    let until = until.unwrap_or_else(Instant::now);
    let mut settled = false;
    while Instant::now() < until && world.scene.verdict().is_none() {
        for (node, state, _) in world.machines() {
            let disks = [world.disk(node), world.own_disk(node)];
            for disk in disks.into_iter().flatten() {
                disk.heal();
            }
            if state != State::Retired && state != State::Up {
                faults::start_one(world).await;
            }
        }
        give_room(world).await;
        world.look();
        if !world.is_wounded() && is_level(world) {
            settled = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if world.scene.verdict().is_some() {
        return false;
    }
    if !settled {
        world
            .scene
            .wrong(|| format!("L7: not well again in time: {}", describe(world)));
        return false;
    }
    true
}

/// Gives up what may go where half of the budget is spent, as a region does in the course of its days: a
/// group whose budget is spent is right not to answer, and a node without room not to follow.
pub async fn give_room<M: Replicable>(world: &World<M>) {
    for run in world.net.nodes() {
        let status = run.group().status();
        let upto = world.compact_upto(&run);
        let half = status.budget_bytes.div_euclid(2);
        if status.bytes_used <= half || upto <= status.first_index {
            continue;
        }
        world.scene.note("room", &[run.node(), upto]);
        let compacted = tokio::time::timeout(ROOM_WITHIN, run.group().compact(upto));
        tokio::select! {
            biased;
            () = run.gone.token.cancelled() => {}
            // (One that has failed ends, and comes again.)
            () = run.gone.failed.cancelled() => {}
            compacted = compacted => if !matches!(compacted, Ok(Ok(()))) {
                world
                    .scene
                    .wrong(|| format!("L7: node {} does not compact: {compacted:?}", run.node()));
            },
        }
    }
}

/// Whether every machine that is to run runs, knows the leader, and has applied as much as the others.
pub fn is_level<M: Replicable>(world: &World<M>) -> bool {
    let machines = world.machines();
    let to_run = machines
        .iter()
        .filter(|(_, state, _)| *state != State::Retired);
    let nodes = world.net.nodes();
    let applied = |run: &Arc<Run<M>>| {
        let status = run.group().status();
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
            let status = run.group().status();
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
