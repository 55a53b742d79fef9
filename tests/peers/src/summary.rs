//! What a run came to: tables of medians and ranges, and whether the targets hold.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use crate::machine::Machine;
use crate::plan::{Appending, Measurements, Reopening};

/// Times the best peer's throughput at 64 and 256 writers.
const TIMES_MANY: f64 = 1.3;
/// Times the best peer's at one writer.
const TIMES_ONE: f64 = 0.9;
/// Longest append at a rotation, in times of the 99th percentile.
const TIMES_P99: f64 = 2.0;
/// Times etcd's throughput.
const TIMES_ETCD: f64 = 5.0;
/// Others that were busier than this, in cores, make a row unfit to judge by.
const OTHERS_MAX: f64 = 0.2;

const OURS: &str = "standin";
const OURS_GROUP: &str = "standin ×3, writers at the leader";
const ETCD: &str = "etcd ×3";

/// Middle and ends of a figure over the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

struct Precise(Spread, usize);

type Rows<'a> = Vec<(&'a str, usize, Vec<&'a Appending>)>;

// === impl Spread ===

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
        let (half, last) = (sorted.len() / 2, sorted.len().saturating_sub(1));
        let median = if sorted.len().is_multiple_of(2) && last > 0 {
            f64::midpoint(at(half - 1), at(half))
        } else {
            at(half)
        };
        Self {
            median,
            least: at(0),
            most: at(last),
        }
    }
}

impl fmt::Display for Precise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(
            Spread {
                median,
                least,
                most,
            },
            digits,
        ) = *self;
        write!(f, "{median:.digits$} ({least:.digits$}-{most:.digits$})")
    }
}

/// The whole report.
pub fn markdown(machine: &Machine, all: &Measurements) -> String {
    let mut page = String::new();
    write(&mut page, machine, all).expect("a string takes every text");
    page
}

fn write(page: &mut String, machine: &Machine, all: &Measurements) -> fmt::Result {
    let Machine {
        cores,
        cpu,
        kernel,
        memory_gib,
        disk,
        load_average,
        syncs_per_second,
        sync_p50_ms,
        sync_p99_ms,
        sync_max_ms,
    } = machine;
    writeln!(
        page,
        "{cores} cores ({cpu}), {memory_gib:.1} GiB, Linux {kernel}; load average before the run {load_average:.2}.\n\
         Disk: {disk}; {syncs_per_second:.0} durable 4 KiB writes into zeros a second one after the other \
         (p50 {sync_p50_ms:.3} ms, p99 {sync_p99_ms:.3} ms, max {sync_max_ms:.2} ms).\n"
    )?;
    if !all.append.is_empty() {
        writeln!(page, "### Durable appends of 256 bytes\n")?;
        append_table(page, &rows(&all.append))?;
        details(page, &rows(&all.append))?;
    }
    if !all.reopen.is_empty() {
        writeln!(page, "### Reopening after kill -9\n")?;
        reopen_table(page, &all.reopen)?;
    }
    if !all.group.is_empty() {
        writeln!(page, "### A group of three\n")?;
        append_table(page, &rows(&all.group))?;
        details(page, &rows(&all.group))?;
    }
    for (what, why) in &all.missing {
        writeln!(page, "Not measured: {what}: {why}\n")?;
    }
    writeln!(page, "### Targets\n")?;
    targets(page, all)
}

fn rows(all: &[Appending]) -> Rows<'_> {
    let mut by: BTreeMap<(usize, usize), (&str, Vec<&Appending>)> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    // As the first round, whose order is that of the parts, has them.
    for one in all {
        if !order.contains(&one.contender.as_str()) {
            order.push(&one.contender);
        }
        let place = order.iter().position(|name| *name == one.contender);
        let row = by.entry((one.writers, place.unwrap_or(0)));
        let row = row.or_insert_with(|| (one.contender.as_str(), Vec::new()));
        row.1.push(one);
    }
    by.into_iter()
        .map(|((writers, _), (name, rounds))| (name, writers, rounds))
        .collect()
}

fn spread(rounds: &[&Appending], figure: impl Fn(&Appending) -> f64, digits: usize) -> Precise {
    Precise(Spread::of(rounds.iter().map(|round| figure(round))), digits)
}

fn append_table(page: &mut String, rows: &Rows<'_>) -> fmt::Result {
    writeln!(
        page,
        "| writers | program | appends/s | p50 ms | p99 ms | max ms | busy cores: program | servers | others | µs of CPU an append |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    )?;
    for (name, writers, rounds) in rows {
        let ours = |one: &Appending| one.cpu.cores.values().sum::<f64>();
        let program = |one: &Appending| one.cpu.cores.get("program").copied().unwrap_or(0.0);
        writeln!(
            page,
            "| {writers} | {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
            spread(rounds, |one| one.found.per_second, 0),
            spread(rounds, |one| one.found.p50_ms, 2),
            spread(rounds, |one| one.found.p99_ms, 2),
            spread(rounds, |one| one.found.max_ms, 1),
            spread(rounds, program, 2),
            spread(rounds, |one| ours(one) - program(one), 2),
            spread(rounds, |one| one.cpu.others, 2),
            spread(
                rounds,
                |one| ours(one) * 1e6 / one.found.per_second.max(1.0),
                1
            ),
        )?;
    }
    writeln!(page)
}

fn details(page: &mut String, rows: &Rows<'_>) -> fmt::Result {
    let detailed = rows
        .iter()
        .filter(|(_, _, rounds)| rounds.iter().any(|round| !round.found.details.is_empty()));
    let mut said = false;
    for (name, writers, rounds) in detailed {
        if !said {
            writeln!(page, "What the program says of itself:\n")?;
            writeln!(
                page,
                "| writers | program | figure | median (range) |\n|---|---|---|---|"
            )?;
            said = true;
        }
        let names = rounds.first().map(|round| round.found.details.keys());
        for figure in names.into_iter().flatten() {
            let of = |one: &Appending| one.found.details.get(figure).copied().unwrap_or(0.0);
            writeln!(
                page,
                "| {writers} | {name} | {figure} | {} |",
                spread(rounds, of, 2)
            )?;
        }
    }
    if said { writeln!(page) } else { Ok(()) }
}

fn reopen_table(page: &mut String, all: &[Reopening]) -> fmt::Result {
    writeln!(
        page,
        "| program | until it takes appends, ms | every record read and verified, ms | CPU s | records | MiB on disk |\n\
         |---|---|---|---|---|---|"
    )?;
    for (name, rounds) in by_name(all) {
        let of = |figure: &dyn Fn(&Reopening) -> f64, digits| {
            Precise(Spread::of(rounds.iter().map(|one| figure(one))), digits)
        };
        writeln!(
            page,
            "| {name} | {} | {} | {} | {} | {} |",
            of(&|one| one.found.open_ms, 0),
            of(&|one| one.found.verified_ms, 0),
            of(&|one| one.machine_cpu_seconds, 2),
            of(&|one| one.found.records as f64, 0),
            of(&|one| one.bytes_on_disk as f64 / 1_048_576.0, 0),
        )?;
    }
    writeln!(page)
}

fn by_name(all: &[Reopening]) -> Vec<(&str, Vec<&Reopening>)> {
    let mut rows: Vec<(&str, Vec<&Reopening>)> = Vec::new();
    for one in all {
        match rows.iter_mut().find(|(name, _)| *name == one.contender) {
            Some((_, rounds)) => rounds.push(one),
            None => rows.push((&one.contender, vec![one])),
        }
    }
    rows
}

fn targets(page: &mut String, all: &Measurements) -> fmt::Result {
    let appends = rows(&all.append);
    let rate = |rows: &Rows<'_>, name: &str, writers: usize| {
        let row = rows.iter().find(|row| row.0 == name && row.1 == writers)?;
        Some(Spread::of(row.2.iter().map(|one| one.found.per_second)).median)
    };
    for (writers, times) in [(1, TIMES_ONE), (64, TIMES_MANY), (256, TIMES_MANY)] {
        let peers = appends
            .iter()
            .filter(|row| row.0 != OURS && row.1 == writers);
        let best = peers
            .filter_map(|row| Some((row.0, rate(&appends, row.0, writers)?)))
            .max_by(|one, other| one.1.total_cmp(&other.1));
        if let (Some(ours), Some((peer, best))) = (rate(&appends, OURS, writers), best) {
            let found = ours / best.max(1.0);
            writeln!(
                page,
                "- {writers} writers, at least {times} × the best peer ({peer}, {best:.0}/s): {} ({found:.2} ×)",
                verdict(found >= times)
            )?;
        }
    }
    for (_, writers, rounds) in appends.iter().filter(|row| row.0 == OURS) {
        let detail = |one: &Appending, name: &str| one.found.details.get(name).copied();
        let ratio = rounds.iter().filter_map(|one| {
            let rotations = detail(one, "rotations").filter(|count| *count > 0.0);
            rotations?;
            let longest = detail(one, "longest at a rotation, ms")?;
            Some(longest / one.found.p99_ms.max(0.001))
        });
        let ratio: Vec<f64> = ratio.collect();
        if ratio.is_empty() {
            writeln!(
                page,
                "- {writers} writers: no rotation was seen; measure for longer"
            )?;
            continue;
        }
        let ratio = Spread::of(ratio);
        writeln!(
            page,
            "- {writers} writers, longest append at a rotation within {TIMES_P99} × p99: {} ({} ×)",
            verdict(ratio.median <= TIMES_P99),
            Precise(ratio, 1)
        )?;
    }
    reopen_target(page, &all.reopen)?;
    group_targets(page, &rows(&all.group))?;
    let noisy = all.append.iter().chain(&all.group);
    let noisy = noisy.filter(|one| one.cpu.others > OTHERS_MAX).count();
    if noisy > 0 {
        writeln!(
            page,
            "- {noisy} measurements were made while others were busy (more than {OTHERS_MAX} cores): \
             these figures are no result"
        )?;
    }
    Ok(())
}

fn reopen_target(page: &mut String, all: &[Reopening]) -> fmt::Result {
    let verified =
        |rounds: &[&Reopening]| Spread::of(rounds.iter().map(|one| one.found.verified_ms)).median;
    let rows = by_name(all);
    let ours = rows.iter().find(|row| row.0 == OURS);
    // The plain file is what any scan costs, not a peer that could be used.
    let peers = rows
        .iter()
        .filter(|row| row.0 != OURS && !row.0.starts_with("plain"));
    let best = peers.min_by(|one, other| verified(&one.1).total_cmp(&verified(&other.1)));
    if let (Some(ours), Some(best)) = (ours, best) {
        let (ours, least) = (verified(&ours.1), verified(&best.1));
        writeln!(
            page,
            "- reopening no slower than the fastest peer that verifies its log ({}, {least:.0} ms): {} ({ours:.0} ms)",
            best.0,
            verdict(ours <= least)
        )?;
    }
    Ok(())
}

fn group_targets(page: &mut String, rows: &Rows<'_>) -> fmt::Result {
    for with in ["", ", TLS"] {
        let (ours, etcd) = (format!("{OURS_GROUP}{with}"), format!("{ETCD}{with}"));
        for (_, writers, rounds) in rows.iter().filter(|row| row.0 == ours) {
            let peer = rows.iter().find(|row| row.0 == etcd && row.1 == *writers);
            let Some((_, _, peer)) = peer else { continue };
            let rate = |rounds: &[&Appending]| {
                Spread::of(rounds.iter().map(|one| one.found.per_second)).median
            };
            let times = rate(rounds) / rate(peer).max(1.0);
            writeln!(
                page,
                "- {writers} writers{with}: three keepers at least {TIMES_ETCD} × three etcds: {} ({times:.2} ×)",
                verdict(times >= TIMES_ETCD)
            )?;
        }
    }
    Ok(())
}

fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "MISSED" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_the_ends() {
        let odd = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.least, odd.most), (2.0, 1.0, 3.0));
        let even = Spread::of([4.0, 1.0, 2.0, 3.0]);
        assert_eq!((even.median, even.least, even.most), (2.5, 1.0, 4.0));
    }
}
