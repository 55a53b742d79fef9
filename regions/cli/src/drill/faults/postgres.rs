//! Faults of the primary and its standby.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use standin_drill::servers::Postgres;
use tokio::net::TcpStream;

use super::{Broken, Fault, all_stopped};
use crate::drill::seed::DATABASE;
use crate::drill::world::{Standby, World};

/// What fills a disk.
const FILLER: &str = "filler";
/// How long commits are kept from a standby that is to lose them.
const UNHEARD: Duration = Duration::from_secs(3);
/// Rows that are named in a note.
const NAMED_MAX: usize = 20;
const FINALS: &str = "select coalesce(string_agg(transaction_id::text, ','), '') from authorizations where state = 'final'";

pub(super) async fn inject(
    fault: Fault,
    world: &mut World,
    broken: &mut Broken,
) -> anyhow::Result<()> {
    match fault {
        Fault::PrimaryHung => world.postgres.pause()?,
        Fault::PrimaryReadOnly => read_only(&world.postgres, "set", " = on").await?,
        Fault::PrimaryFull => fill(world)?,
        Fault::PrimaryLost => fail_over(world, broken).await?,
        Fault::StandbyHung => world.standby.pause()?,
        _ => world.postgres.kill().await?,
    }
    Ok(())
}

pub(super) async fn prove(fault: Fault, world: &World, broken: &mut Broken) {
    match fault {
        Fault::PrimaryHung => {
            let (ok, seen) = all_stopped("the primary", &world.postgres.states());
            broken.saw(ok, seen);
        }
        Fault::PrimaryReadOnly => refuses(&world.postgres, "read-only", broken).await,
        Fault::PrimaryFull => prove_full(world, broken).await,
        Fault::StandbyHung => {
            let (ok, seen) = all_stopped("the standby", &world.standby.states());
            broken.saw(ok, seen);
            let waiting =
                "select count(*)::text from pg_stat_activity where wait_event = 'SyncRep'";
            let found = world.postgres.ask_in(DATABASE, waiting).await;
            let count = found.ok().flatten().unwrap_or_else(|| "unknown".to_owned());
            broken.saw(
                count.parse::<u64>().is_ok_and(|count| count > 0),
                format!("{count} commits of the primary wait for the standby"),
            );
        }
        _ => {
            let gone = world.postgres.states().is_empty();
            let port = world.postgres.port();
            let refused = TcpStream::connect(("127.0.0.1", port)).await.is_err();
            broken.saw(
                gone && refused,
                format!(
                    "the primary has no process (gone: {gone}) and its port is closed ({refused})"
                ),
            );
        }
    }
    if fault == Fault::PrimaryLost {
        let question = "select pg_is_in_recovery()::text";
        let standby = world.standby.ask_in(DATABASE, question).await;
        let word = standby.ok().flatten().unwrap_or_default();
        broken.saw(
            word == "false",
            format!("the standby takes writes (in recovery: {word})"),
        );
    }
}

pub(super) async fn heal(
    fault: Fault,
    world: &mut World,
    broken: &mut Broken,
) -> anyhow::Result<()> {
    match fault {
        Fault::PrimaryHung => world.postgres.resume()?,
        Fault::PrimaryReadOnly => read_only(&world.postgres, "reset", "").await?,
        Fault::PrimaryFull => {
            let disk = world.disk.as_ref().context("no disk of its own")?;
            std::fs::remove_file(disk.path().join(FILLER))?;
            // Without room for its log Postgres ends; an operator makes room and starts it.
            if world.postgres.execute(DATABASE, "select 1").await.is_err() {
                broken
                    .notes
                    .push("The full primary had ended by itself.".to_owned());
                world.postgres.restart().await?;
            }
        }
        Fault::StandbyHung => world.standby.resume()?,
        Fault::PrimaryLost => {
            world.postgres.restart().await?;
            let question = "select pg_is_in_recovery()::text";
            let word = world.postgres.ask_in(DATABASE, question).await?;
            broken.notes.push(format!(
                "The old primary came back and takes writes (in recovery: {}); nobody may use it.",
                word.unwrap_or_default()
            ));
        }
        _ => world.postgres.restart().await?,
    }
    Ok(())
}

async fn read_only(server: &Postgres, verb: &str, value: &str) -> anyhow::Result<()> {
    let order = format!("alter system {verb} default_transaction_read_only{value}");
    server.execute("postgres", &order).await?;
    server
        .execute("postgres", "select pg_reload_conf()")
        .await?;
    Ok(())
}

/// The primary refuses a write, with this word in its answer.
async fn refuses(server: &Postgres, word: &str, broken: &mut Broken) {
    let asked = server
        .execute(DATABASE, "create table drill_probe ()")
        .await;
    let seen = match &asked {
        Ok(()) => "it took a write".to_owned(),
        Err(error) => error.to_string(),
    };
    broken.saw(
        seen.contains(word),
        format!("a write to the primary: {seen}"),
    );
}

fn fill(world: &World) -> anyhow::Result<()> {
    let disk = world.disk.as_ref().context("no disk of its own")?;
    write_until_full(&disk.path().join(FILLER))
}

fn write_until_full(path: &Path) -> anyhow::Result<()> {
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)?;
    // Large pieces first, then what is left.
    for size in [1 << 20, 4_096, 1] {
        let piece = vec![0_u8; size];
        loop {
            match file.write(&piece) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

async fn prove_full(world: &World, broken: &mut Broken) {
    let Some(disk) = world.disk.as_ref() else {
        broken.saw(false, "the primary has no disk of its own");
        return;
    };
    let probe = disk.path().join("probe");
    let written = std::fs::write(&probe, vec![0_u8; 1 << 16]);
    drop(std::fs::remove_file(&probe));
    let full = written.is_err_and(|error| error.kind() == ErrorKind::StorageFull);
    broken.saw(full, format!("the primary's disk is full ({full})"));
    let asked = world
        .postgres
        .execute(
            DATABASE,
            "create table drill_probe as select generate_series(1, 100000)",
        )
        .await;
    let seen = asked.map_or_else(|error| error.to_string(), |()| "it took a write".to_owned());
    let first = seen.lines().next().unwrap_or_default();
    broken.saw(
        seen != "it took a write",
        format!("a write to the primary: {first}"),
    );
}

/// Kills the primary and promotes the standby; says which final rows that lost.
async fn fail_over(world: &mut World, broken: &mut Broken) -> anyhow::Result<()> {
    let asynchronous = world.shape.standby == Standby::Asynchronous;
    if asynchronous {
        world.standby.detach().await?;
        tokio::time::sleep(UNHEARD).await;
    }
    let before = finals(&world.postgres).await?;
    world.postgres.kill().await?;
    world.standby.promote().await?;
    world.promoted = true;
    let after = finals(&world.standby).await?;
    broken.lost = before.difference(&after).cloned().collect();
    let (lost, all) = (broken.lost.len(), before.len());
    broken.notes.push(format!(
        "Of {all} final rows of the old primary the promoted standby lacked {lost}."
    ));
    if asynchronous {
        broken.saw(
            lost > 0,
            format!("the promoted standby lacks {lost} final rows"),
        );
        let named: Vec<&str> = broken
            .lost
            .iter()
            .take(NAMED_MAX)
            .map(String::as_str)
            .collect();
        let named = named.join(", ");
        broken
            .notes
            .push(format!("The first of the lost rows: {named}."));
    }
    Ok(())
}

/// Payments whose row is final.
async fn finals(server: &Postgres) -> anyhow::Result<BTreeSet<String>> {
    let all = server.ask_in(DATABASE, FINALS).await?.unwrap_or_default();
    let ids = all.split(',').filter(|id| !id.is_empty());
    Ok(ids.map(str::to_owned).collect())
}
