//! What goes wrong in a simulation, and when.

use std::sync::Arc;
use std::time::Duration;

use standin_wal::Replicable;
use standin_wal::inspect::verify_on;

use super::disk::{Failing, Rot};
use super::net::Weather;
use super::world::{State, World};

/// Injects faults until this simulated millisecond, looking at every node after every step.
pub async fn until<M: Replicable>(world: &Arc<World<M>>, end_ms: u64) {
    while world.scene.now_ms() < end_ms && world.scene.verdict().is_none() {
        tokio::time::sleep(world.scene.millis(10, 150)).await;
        world.look();
        one(world).await;
        world.look();
    }
}

async fn one<M: Replicable>(world: &Arc<World<M>>) {
    let scene = &world.scene;
    let kind = scene.below(100);
    world.oracle.fault();
    match kind {
        0..=11 => kill(world),
        12..=21 => cut_power(world),
        22..=41 => start_one(world).await,
        42..=49 => cut_ways(world),
        50..=57 => world.net.heal(),
        58..=61 => {
            if let Some(node) = any(world) {
                world.net.pause(node, scene.between(20, 900));
            }
        }
        62..=68 => world.net.set_weather(Weather {
            loss: scene.below(30),
            twice: scene.below(30),
            delay: (0, scene.between(1, 40)),
            late: (scene.below(20), scene.between(0, 400)),
        }),
        69..=76 => fail_disk(world),
        77..=80 => slow_disk(world),
        81..=86 => compact(world),
        87..=91 => spoil(world).await,
        92..=94 => wipe(world),
        95..=96 => stop(world).await,
        97..=98 => jump_clock(world),
        _ => depose(world),
    }
}

fn any<M: Replicable>(world: &World<M>) -> Option<u64> {
    let nodes: Vec<u64> = world.net.nodes().iter().map(|run| run.node()).collect();
    // The leader meets more of it than the others do.
    match world.leader() {
        Some(leader) if world.scene.chance(35) => Some(leader.node()),
        Some(_) | None => world.scene.pick(&nodes),
    }
}

fn kill<M: Replicable>(world: &World<M>) {
    if let Some(run) = any(world).and_then(|node| world.net.node(node)) {
        world.end(&run);
    }
}

fn cut_power<M: Replicable>(world: &World<M>) {
    let Some(node) = any(world) else { return };
    let Some(disk) = world.disk(node) else { return };
    let own = world.own_disk(node);
    if world.scene.chance(50) {
        let disk = own.filter(|_| world.scene.chance(30)).unwrap_or(disk);
        disk.cut_power_after(world.scene.between(1, 40));
    } else {
        disk.cut_power();
        if let Some(own) = own {
            own.cut_power();
        }
        if let Some(run) = world.net.node(node) {
            world.end(&run);
        }
    }
}

/// Starts a machine that is down, or replaces one that does not open any more.
pub async fn start_one<M: Replicable>(world: &Arc<World<M>>) {
    let down: Vec<(u64, State)> = world
        .machines()
        .into_iter()
        .filter(|(_, state, _)| !matches!(state, State::Up | State::Retired))
        .map(|(node, state, _)| (node, state))
        .collect();
    let Some((node, state)) = world.scene.pick(&down) else {
        return;
    };
    world.start(node).await;
    let still = world
        .machines()
        .into_iter()
        .any(|(at, now, _)| at == node && now == state && matches!(now, State::Spoilt { .. }));
    if still {
        world.set_state(node, State::Retired);
        world.tasks.spawn(Arc::clone(world).replace(node));
    }
}

fn cut_ways<M: Replicable>(world: &World<M>) {
    let nodes: Vec<u64> = world.net.nodes().iter().map(|run| run.node()).collect();
    let Some(node) = any(world) else { return };
    let mode = world.scene.below(3);
    for other in nodes.into_iter().filter(|other| *other != node) {
        if world.scene.chance(30) {
            continue;
        }
        if mode != 1 {
            world.net.cut(node, other);
        }
        if mode != 0 {
            world.net.cut(other, node);
        }
    }
}

fn fail_disk<M: Replicable>(world: &World<M>) {
    let Some(disk) = any(world).and_then(|node| world.disk(node)) else {
        return;
    };
    let failing = [
        Failing::SyncKeeping,
        Failing::SyncDropping,
        Failing::Full,
        Failing::Write,
    ];
    if let Some(failing) = world.scene.pick(&failing) {
        disk.fail(failing, world.scene.below(20));
    }
}

fn slow_disk<M: Replicable>(world: &World<M>) {
    let Some(disk) = any(world).and_then(|node| world.disk(node)) else {
        return;
    };
    if world.scene.chance(50) {
        disk.set_pace(0, world.scene.between(5, 250));
    } else {
        disk.set_pace(0, 2);
    }
}

fn compact<M: Replicable>(world: &Arc<World<M>>) {
    let Some(run) = any(world).and_then(|node| world.net.node(node)) else {
        return;
    };
    let keep = world.scene.below(10);
    let upto = world.compact_upto(&run).saturating_sub(keep);
    world.scene.note("compact", &[run.node(), upto]);
    let patience = Duration::from_secs(3);
    world.tasks.spawn(async move {
        let compacted = tokio::time::timeout(patience, run.group().compact(upto));
        tokio::select! {
            biased;
            () = run.gone.token.cancelled() => {}
            // A node that ended, or was too slow, has not compacted: nothing more is to be done.
            _ = compacted => {}
        }
    });
}

/// Takes a machine down whose disk is whole, if every other one's is.
fn take_down<M: Replicable>(world: &Arc<World<M>>) -> Option<u64> {
    if world.is_wounded() {
        return None;
    }
    let whole: Vec<u64> = world
        .machines()
        .into_iter()
        .filter(|(_, state, _)| matches!(state, State::Up | State::Down))
        .map(|(node, ..)| node)
        .collect();
    let node = world.scene.pick(&whole)?;
    if let Some(run) = world.net.node(node) {
        world.end(&run);
    }
    Some(node)
}

/// Spoils the disk of a machine that is down, or is taken down for it; one at a time.
async fn spoil<M: Replicable>(world: &Arc<World<M>>) {
    let Some(node) = take_down(world) else { return };
    let Some(disk) = world.disk(node) else { return };
    // As the next start will find it.
    disk.settle();
    let Ok(report) = verify_on(&disk.mount(u64::MAX)) else {
        disk.sever();
        return;
    };
    disk.sever();
    let rots = [Rot::Bit, Rot::Bit, Rot::LostWrite, Rot::MisdirectedWrite];
    let Some(rot) = world.scene.pick(&rots) else {
        return;
    };
    if disk.rot(rot).is_some() {
        let last_index = report.last_index;
        world.set_state(node, State::Spoilt { last_index });
    }
}

/// A machine loses its disk: another one comes in its place.
fn wipe<M: Replicable>(world: &Arc<World<M>>) {
    let Some(node) = take_down(world) else { return };
    world.scene.note("wipe", &[node]);
    world.set_state(node, State::Retired);
    world.tasks.spawn(Arc::clone(world).replace(node));
}

async fn stop<M: Replicable>(world: &Arc<World<M>>) {
    if let Some(run) = any(world).and_then(|node| world.net.node(node)) {
        world.stop(&run).await;
    }
}

fn jump_clock<M: Replicable>(world: &World<M>) {
    if let Some(clocks) = any(world).and_then(|node| world.clocks(node)) {
        let by = i64::try_from(world.scene.below(120_000)).unwrap_or(0);
        clocks.jump(by.saturating_sub(60_000));
    }
}

fn depose<M: Replicable>(world: &World<M>) {
    if let Some(leader) = world.leader() {
        world
            .net
            .pause(leader.node(), world.scene.between(300, 700));
    }
}
