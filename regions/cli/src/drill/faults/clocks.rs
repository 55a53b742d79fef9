//! Clocks of edges that jump.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use standin_core::clock::{Clock, SystemClock};
use tokio::time::Instant;

use super::Broken;
use crate::drill::world::{KEEPERS, World};

const HOUR_MS: i64 = 60 * 60 * 1_000;
/// What an edge says its time is may be so far from what was meant: it is asked over a connection.
const CLOSE_MS: i64 = 5_000;
/// How soon a clock that was put right is said to be.
const RIGHT_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);
/// What edges count of requests that they did not take for the bank's.
const REFUSED: &str = "standin_authentication_failures_total{";

/// The leader of the log goes an hour ahead, and the next edge an hour back.
pub(super) async fn inject(world: &mut World, broken: &mut Broken) -> anyhow::Result<()> {
    let leader = world.leader_but(None).await?;
    let behind = leader.rem_euclid(KEEPERS).saturating_add(1);
    for (edge, off_ms) in [(leader, HOUR_MS), (behind, HOUR_MS.saturating_neg())] {
        world.edge(edge)?.step_clock(off_ms)?;
        broken.stepped.push((edge, off_ms));
    }
    broken.notes.push(format!(
        "Edge {leader}, which led the log then, went an hour ahead, and edge {behind} an hour back."
    ));
    Ok(())
}

/// By what the edges themselves say their time is.
pub(super) async fn prove(world: &World, broken: &mut Broken) -> anyhow::Result<()> {
    for (edge, off_ms) in broken.stepped.clone() {
        let (said, is_ms) = told(world, edge).await?;
        broken.saw(
            is_ms.abs_diff(off_ms) <= CLOSE_MS.unsigned_abs(),
            format!("edge {edge} says that it is {said}, {}", in_words(is_ms)),
        );
        let refused = refused(world, edge).await?;
        let alarms = alarms(world, edge).await?;
        broken.notes.push(format!(
            "Edge {edge} had refused {refused} requests; its alarms: {alarms}."
        ));
    }
    Ok(())
}

pub(super) async fn heal(world: &mut World, broken: &mut Broken) -> anyhow::Result<()> {
    let stepped = broken.stepped.clone();
    for (edge, _) in &stepped {
        world.edge(*edge)?.step_clock(0)?;
    }
    let deadline = Instant::now().checked_add(RIGHT_WITHIN);
    for (edge, _) in stepped {
        loop {
            let (said, is_ms) = told(world, edge).await?;
            if is_ms.abs() <= CLOSE_MS {
                let words = format!("edge {edge} says again that it is {said}");
                broken.saw(true, format!("{words}, {}", in_words(is_ms)));
                break;
            }
            let late = deadline.is_none_or(|deadline| Instant::now() >= deadline);
            ensure!(!late, "edge {edge} still says that it is {said}");
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// What an edge says its time is, and how many milliseconds it is ahead of the machine's.
async fn told(world: &World, edge: u64) -> anyhow::Result<(String, i64)> {
    let page = page(world, edge).await?;
    let said = page.get("now").and_then(Value::as_str);
    let said = said.with_context(|| format!("edge {edge} does not say its time"))?;
    let time: jiff::Timestamp = said.parse().context("what an edge says its time is")?;
    let now = SystemClock.now().as_millis();
    Ok((said.to_owned(), time.as_millisecond().saturating_sub(now)))
}

async fn alarms(world: &World, edge: u64) -> anyhow::Result<String> {
    let page = page(world, edge).await?;
    let raised = page.get("alarms").and_then(Value::as_array);
    let names = raised.into_iter().flatten();
    let names: Vec<&str> = names
        .filter_map(|alarm| alarm.get("name")?.as_str())
        .collect();
    Ok(match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    })
}

/// How many requests it did not take for the bank's, by cause.
async fn refused(world: &World, edge: u64) -> anyhow::Result<String> {
    let metrics = world.edge(edge)?.metrics().await;
    let metrics = metrics.with_context(|| format!("edge {edge} does not show its metrics"))?;
    let causes: Vec<String> = metrics
        .lines()
        .filter_map(|line| {
            let (labels, count) = line.strip_prefix(REFUSED)?.rsplit_once(' ')?;
            let cause = labels.split('"').nth(1)?;
            (count != "0").then(|| format!("{count} ({cause})"))
        })
        .collect();
    Ok(match causes.is_empty() {
        true => "no".to_owned(),
        false => causes.join(", "),
    })
}

async fn page(world: &World, edge: u64) -> anyhow::Result<Value> {
    let page = world.edge(edge)?.look().await;
    page.with_context(|| format!("edge {edge} does not answer"))
}

fn in_words(ahead_ms: i64) -> String {
    let way = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let ms = ahead_ms.unsigned_abs();
    format!("{} s {way} the machine", ms.saturating_add(500) / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_of_the_machine_or_behind() {
        assert_eq!(in_words(3_600_017), "3600 s ahead of the machine");
        assert_eq!(in_words(-3_599_990), "3600 s behind the machine");
        assert_eq!(in_words(0), "0 s ahead of the machine");
    }
}
