//! Faults of links: between edges and primary by a proxy, between edges by packet filters.

use std::time::Duration;

use anyhow::Context;
use standin_drill::network::{End, Network};
use standin_drill::proxy::Fault as LinkFault;

use super::{Broken, Trouble};
use crate::drill::world::{KEEPERS, World};

/// Between two cuts of a swizzle, and between two of its healings.
const STEP: Duration = Duration::from_millis(700);
/// What may have been under way when a link was stalled.
const UNDER_WAY_BYTES: u64 = 64 * 1024;

pub(super) fn trouble(world: &World, trouble: Trouble, broken: &mut Broken) {
    let Some(link) = &world.primary_link else {
        broken.saw(false, "there is no proxy on the link to the primary");
        return;
    };
    broken.before = link.counts();
    link.set_both(match trouble {
        Trouble::Blackhole => LinkFault::Stall,
        Trouble::Slow(time) => LinkFault::Delay(time),
        Trouble::Sometimes(percent, delay) => LinkFault::Sometimes { percent, delay },
    });
}

pub(super) fn prove(world: &World, trouble: Trouble, broken: &mut Broken) {
    let Some(link) = &world.primary_link else {
        return;
    };
    let (now, before) = (link.counts(), broken.before);
    let stalled = now.stalled.saturating_sub(before.stalled);
    let forwarded = now.forwarded.saturating_sub(before.forwarded);
    let delayed = now.delayed.saturating_sub(before.delayed);
    match trouble {
        Trouble::Blackhole => broken.saw(
            stalled > 0 && forwarded <= UNDER_WAY_BYTES,
            format!("{stalled} bytes to and from the primary are held, {forwarded} passed"),
        ),
        Trouble::Slow(_) | Trouble::Sometimes(..) => broken.saw(
            delayed > 0,
            format!("{delayed} pieces to and from the primary came late; {forwarded} bytes passed"),
        ),
    }
}

pub(super) fn untrouble(world: &World) {
    if let Some(link) = &world.primary_link {
        link.set_both(LinkFault::Pass);
    }
}

pub(super) async fn cut_leader(
    world: &World,
    both_ways: bool,
    broken: &mut Broken,
) -> anyhow::Result<()> {
    let leader = world.leader_but(None).await?;
    let network = network(world)?;
    broken.counted = dropped(network)?;
    for other in (1..=KEEPERS).filter(|other| *other != leader) {
        let (this, other) = (end(leader)?, end(other)?);
        cut(network, this, other, broken)?;
        if both_ways {
            cut(network, other, this, broken)?;
        }
    }
    broken
        .notes
        .push(format!("Edge {leader} led the log when it was cut off."));
    Ok(())
}

pub(super) async fn swizzle(world: &World, broken: &mut Broken) -> anyhow::Result<()> {
    let network = network(world)?;
    broken.counted = dropped(network)?;
    let mut links = Vec::new();
    for from in 1..=KEEPERS {
        for to in (1..=KEEPERS).filter(|to| *to != from) {
            links.push((end(from)?, end(to)?));
        }
    }
    while !links.is_empty() {
        let (from, to) = take(&mut links, broken);
        cut(network, from, to, broken)?;
        tokio::time::sleep(STEP).await;
    }
    Ok(())
}

pub(super) fn prove_cut(world: &World, broken: &mut Broken) -> anyhow::Result<()> {
    let count = dropped(network(world)?)?.saturating_sub(broken.counted);
    let links = broken.cut.len();
    broken.saw(
        count > 0 && links > 0,
        format!("{links} links between edges are cut, {count} packets were dropped"),
    );
    Ok(())
}

pub(super) async fn heal_cut(world: &World, broken: &mut Broken) -> anyhow::Result<()> {
    let network = network(world)?;
    let slowly = broken.cut.len() == usize::try_from(KEEPERS * (KEEPERS - 1))?;
    let mut cut = std::mem::take(&mut broken.cut);
    while !cut.is_empty() {
        let (from, to) = take(&mut cut, broken);
        network.heal(from, to)?;
        if slowly {
            tokio::time::sleep(STEP).await;
        }
    }
    Ok(())
}

fn cut(network: &Network, from: End, to: End, broken: &mut Broken) -> anyhow::Result<()> {
    network.cut(from, to)?;
    broken.cut.push((from, to));
    Ok(())
}

/// Takes one by chance; the first of none is the first edge's to itself, which is never asked for.
fn take(links: &mut Vec<(End, End)>, broken: &mut Broken) -> (End, End) {
    let bound = u64::try_from(links.len().max(1)).unwrap_or(1);
    let at = usize::try_from(broken.chance.below(bound)).unwrap_or(0);
    links.swap_remove(at)
}

fn dropped(network: &Network) -> anyhow::Result<u64> {
    let mut sum = 0_u64;
    for host in 1..=KEEPERS {
        sum = sum.saturating_add(network.dropped(u8::try_from(host)?)?);
    }
    Ok(sum)
}

fn end(edge: u64) -> anyhow::Result<End> {
    Ok(End::Host(u8::try_from(edge)?))
}

fn network(world: &World) -> anyhow::Result<&Network> {
    world
        .network
        .as_deref()
        .context("the edges have no network")
}
