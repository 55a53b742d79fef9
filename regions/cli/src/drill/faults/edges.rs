//! Faults of edges and their disks.

use std::process::Stdio;

use anyhow::{Context, ensure};
use serde_json::Value;
use standin_core::clock::{Clock, SystemClock};
use standin_reconcile::log::source::{DirectoryLog, contents};

use super::{Broken, Fault, all_stopped};
use crate::drill::edges::{Edge, Good};
use crate::drill::world::{KEEPERS, World};
use crate::killed::Killed;

/// The number of the keeper that takes the place of one whose disk is lost.
const NEWCOMER: u64 = KEEPERS + 1;
/// Seconds that a rebuild may take.
const REBUILD_WITHIN: &str = "120";

pub(super) async fn inject(
    fault: Fault,
    world: &mut World,
    broken: &mut Broken,
) -> anyhow::Result<()> {
    let leader = world.leader_but(None).await?;
    if fault == Fault::RegionLost {
        return lose_region(world, broken).await;
    }
    match fault {
        Fault::LeaderHung => {
            world.edge(leader)?.pause()?;
            broken.hung = Some(leader);
        }
        Fault::KeeperDiskLost => {
            // Whoever follows the leader in number.
            let victim = leader.rem_euclid(KEEPERS).saturating_add(1);
            let at = SystemClock.now();
            let edge = world.edge_mut(victim)?;
            let ended = edge.kill().await?;
            std::fs::remove_dir_all(edge.wal())?;
            let gone = !edge.wal().exists();
            broken.saw(
                gone,
                format!("edge {victim} ended with {ended}, and its log is deleted"),
            );
            broken.down = Some((victim, at));
        }
        Fault::CertificateExpired => {
            let victim = leader.rem_euclid(KEEPERS).saturating_add(1);
            world.common.papers.sign_edge(victim, Good::NoMore)?;
            let edge = world.edge_mut(victim)?;
            edge.stop().await?;
            edge.spawn()?;
            broken.notes.push(format!(
                "The certificate of edge {victim} was the expired one."
            ));
            broken.down = Some((victim, SystemClock.now()));
        }
        _ => {
            let at = SystemClock.now();
            let ended = world.edge_mut(leader)?.kill().await?;
            broken.saw(
                ended.contains("signal: 9"),
                format!("edge {leader}, which led the log, ended with {ended}"),
            );
            broken.down = Some((leader, at));
        }
    }
    Ok(())
}

pub(super) async fn prove(
    fault: Fault,
    world: &mut World,
    broken: &mut Broken,
) -> anyhow::Result<()> {
    if let Some(leader) = broken.hung {
        let (ok, seen) = all_stopped(&format!("edge {leader}"), &world.edge(leader)?.states());
        broken.saw(ok, seen);
        let next = world.leader_but(Some(leader)).await?;
        broken.saw(true, format!("edge {next} leads instead"));
        return Ok(());
    }
    if fault == Fault::RegionLost {
        let running = world
            .edges
            .iter_mut()
            .filter_map(|edge| edge.runs().then_some(edge.id));
        let running = running.count();
        broken.saw(running == 0, format!("{running} edges of the region run"));
        return Ok(());
    }
    let (down, _) = broken.down.context("nobody is down")?;
    if fault == Fault::CertificateExpired {
        return prove_unheard(world, down, broken).await;
    }
    let runs = world.edge_mut(down)?.runs();
    broken.saw(!runs, format!("edge {down} is down"));
    if fault == Fault::LeaderKilled {
        let next = world.leader_but(Some(down)).await?;
        broken.saw(true, format!("edge {next} leads instead"));
    }
    Ok(())
}

pub(super) async fn heal(
    fault: Fault,
    world: &mut World,
    broken: &mut Broken,
) -> anyhow::Result<()> {
    if let Some(leader) = broken.hung.take() {
        let edge = world.edge_mut(leader)?;
        edge.resume()?;
        return edge.ready().await;
    }
    if fault == Fault::RegionLost {
        for edge in &mut world.edges {
            edge.spawn()?;
        }
        return world.ready().await;
    }
    let (down, at) = broken.down.take().context("nobody is down")?;
    if fault == Fault::KeeperDiskLost {
        return rebuild(world, down, broken).await;
    }
    if fault == Fault::CertificateExpired {
        world.common.papers.sign_edge(down, Good::Still)?;
        let edge = world.edge_mut(down)?;
        // Edges look at their files by themselves; one that gave up is started again.
        if !edge.runs() {
            edge.spawn()?;
            broken
                .notes
                .push(format!("Edge {down} had given up, and was started again."));
        }
        return edge.ready().await;
    }
    let edge = world.edge_mut(down)?;
    let log = contents(&DirectoryLog::new(edge.wal())).await;
    let log = log.context("reading the killed edge's log")?;
    broken.killed.push(Killed {
        node: down,
        at,
        log,
    });
    edge.spawn()?;
    edge.ready().await
}

/// Kills every edge of the region at once, and reads what their disks hold.
async fn lose_region(world: &mut World, broken: &mut Broken) -> anyhow::Result<()> {
    let at = SystemClock.now();
    for edge in &mut world.edges {
        let ended = edge.kill().await?;
        broken.saw(
            ended.contains("signal: 9"),
            format!("edge {} ended with {ended}", edge.id),
        );
    }
    for edge in &world.edges {
        let log = contents(&DirectoryLog::new(edge.wal())).await;
        broken.killed.push(Killed {
            node: edge.id,
            at,
            log: log.context("reading a killed edge's log")?,
        });
    }
    Ok(())
}

/// Nobody has a link to the edge, and it says of itself that it is not ready.
async fn prove_unheard(world: &World, edge: u64, broken: &mut Broken) -> anyhow::Result<()> {
    let leader = world.leader_but(Some(edge)).await?;
    let pages = world.pages().await;
    let number = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_u64);
    let page = pages
        .iter()
        .find(|page| number(page, "/edge") == Some(leader));
    let members = page.and_then(|page| page.pointer("/wal/members")?.as_array());
    let mut members = members.into_iter().flatten();
    let link = members
        .find(|member| number(member, "/node") == Some(edge))
        .and_then(|member| member.get("link"))
        .cloned()
        .unwrap_or_default();
    let connected = link.get("connected").and_then(Value::as_bool);
    let why = link.get("last_error").and_then(Value::as_str);
    let ready = world.edge(edge)?.is_ready().await;
    broken.saw(
        connected == Some(false) && !ready,
        format!(
            "edge {leader}, the leader, has no link to edge {edge} ({}), which is ready: {ready}",
            why.unwrap_or("no error")
        ),
    );
    Ok(())
}

/// Puts a new keeper in the lost one's place, by the operator's own command.
async fn rebuild(world: &mut World, lost: u64, broken: &mut Broken) -> anyhow::Result<()> {
    let leader = world.leader_but(Some(lost)).await?;
    let admin = world.edge(leader)?.admin.to_string();
    let wal = world.edge(lost)?.wal();
    let mut newcomer = Edge::set_up(&world.common, NEWCOMER)?;
    newcomer.spawn()?;
    let (old, new) = (lost.to_string(), NEWCOMER.to_string());
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.args(["wal", "rebuild", "--old", &old, "--new", &new, "--dir"]);
    command.arg(&wal);
    command.args(["--admin", &admin, "--within", REBUILD_WITHIN]);
    command.args(["--operator", "drill", "--reason", "its disk is lost"]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.context("standin wal rebuild")?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(output.status.success(), "standin wal rebuild: {said}");
    newcomer.ready().await?;
    world.edges.retain(|edge| edge.id != lost);
    world.edges.push(newcomer);
    let last = said.lines().last().unwrap_or_default();
    broken.notes.push(format!("standin wal rebuild: {last}"));
    Ok(())
}
