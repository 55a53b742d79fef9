//! Faults of the edges' own replica of the trip cache.

use anyhow::Context;
use standin_core::clock::{Clock, SystemClock};
use standin_drill::proxy::Fault as LinkFault;
use standin_drill::servers::Redis;
use standin_drill::servers::redis::Reply;

use super::{Broken, Fault, all_stopped};
use crate::drill::world::{World, keys};

/// The key that tells how old the cache is.
const HEARTBEAT: &str = "heartbeat";
/// A replica that has heard nothing for so long is stale, milliseconds.
const STALE_MS: i64 = 2_000;
/// What a wiped replica may hold again at once.
const LEFT_MAX: i64 = 100;

pub(super) async fn inject(fault: Fault, world: &World, broken: &mut Broken) -> anyhow::Result<()> {
    let replica = own(world)?;
    match fault {
        Fault::ReplicaHung => replica.pause()?,
        Fault::ReplicaStale => {
            let link = world.replica_link.as_ref().context("no link to cut")?;
            broken.before = link.counts();
            link.set_both(LinkFault::Stall);
        }
        Fault::ReplicaWiped => {
            let before = keys(replica).await?;
            replica
                .command(&["CONFIG", "SET", "replica-read-only", "no"])
                .await?;
            replica.command(&["FLUSHALL"]).await?;
            let after = keys(replica).await?;
            broken.saw(
                before > LEFT_MAX && after <= LEFT_MAX,
                format!("the replica had {before} keys, and then {after}"),
            );
        }
        _ => replica.kill().await?,
    }
    Ok(())
}

pub(super) async fn prove(fault: Fault, world: &World, broken: &mut Broken) -> anyhow::Result<()> {
    let replica = own(world)?;
    match fault {
        Fault::ReplicaHung => {
            let (ok, seen) = all_stopped("the replica", &replica.states());
            broken.saw(ok, seen);
        }
        Fault::ReplicaStale => {
            let link = world.replica_link.as_ref().context("no link to cut")?;
            let held = link.counts().stalled.saturating_sub(broken.before.stalled);
            let age = SystemClock
                .now()
                .as_millis()
                .saturating_sub(beat(replica).await?);
            broken.saw(
                held > 0 && age >= STALE_MS,
                format!(
                    "{held} bytes for the replica are held; its last heartbeat is {age} ms old"
                ),
            );
        }
        Fault::ReplicaWiped => {
            let (here, there) = (keys(replica).await?, keys(&world.home).await?);
            broken.saw(
                here < there,
                format!("it holds {here} keys, its home {there}"),
            );
        }
        _ => {
            let gone = replica.states().is_empty();
            broken.saw(gone, format!("the replica has no process (gone: {gone})"));
        }
    }
    Ok(())
}

pub(super) async fn heal(fault: Fault, world: &World) -> anyhow::Result<()> {
    let replica = own(world)?;
    match fault {
        Fault::ReplicaHung => replica.resume()?,
        Fault::ReplicaStale => {
            let link = world.replica_link.as_ref().context("no link to cut")?;
            link.set_both(LinkFault::Pass);
        }
        // A wiped one does not know what it lacks: it starts again, and gets everything.
        _ => replica.restart().await?,
    }
    Ok(())
}

fn own(world: &World) -> anyhow::Result<&Redis> {
    world.replicas.first().context("no replica")
}

/// The last heartbeat that a Redis has, milliseconds since the epoch.
async fn beat(redis: &Redis) -> anyhow::Result<i64> {
    match redis.command(&["GET", HEARTBEAT]).await? {
        Reply::Text(text) => text.parse().context("the heartbeat is no number"),
        other => anyhow::bail!("the heartbeat is {other:?}"),
    }
}
