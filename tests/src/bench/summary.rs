//! What a run came to: the machine, a table of medians and ranges, and whether the targets hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::cpu::load_average;
use super::measure::{Measurement, good};

/// How long the disk is tried.
const DISK_TRIAL: Duration = Duration::from_secs(2);
/// Written and synced each time: one block, as a small batch of the log is.
const BLOCK: [u8; 4_096] = [0x5a; 4_096];
/// Blocks of the file that is written over and over.
const BLOCKS: u64 = 1_024;
/// What the rate load has to stay under, milliseconds.
const P99_TARGET_MS: f64 = 50.0;
/// How many times the plain service's throughput the edge has to have.
const TIMES_PLAIN_TARGET: f64 = 3.0;
/// Picks a second that the whole deployment has to carry.
const PICKS_TARGET: f64 = 250_000.0;

/// The machine it ran on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Cores we may use.
    pub cores: usize,
    /// As the kernel names it.
    pub cpu: String,
    /// Kernel release.
    pub kernel: String,
    /// Memory, GiB.
    pub memory_gib: f64,
    /// Load average before anything was started.
    pub load_average: f64,
    /// One 4 KiB write and fdatasync after the other on the log's file system.
    pub disk: Disk,
}

/// What durable means here.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Disk {
    /// A second, one after the other.
    pub per_second: f64,
    /// Median, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Longest.
    pub max_ms: f64,
}

/// A run's measurements by program and load.
pub struct Summary<'a> {
    machine: &'a Machine,
    rows: Vec<(&'a str, &'a str, Vec<&'a Measurement>)>,
}

/// Middle and ends of a figure over the rounds.
#[derive(Clone, Copy, Debug)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

// === impl Machine ===

impl Machine {
    /// Looks at the machine; tries the disk that holds `folder`.
    pub fn look(folder: &Path) -> anyhow::Result<Self> {
        let value_of = |file: &str, key: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key));
            let value = line.and_then(|line| line.split_once(':'));
            value
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = value_of("/proc/meminfo", "MemTotal");
        let kib: f64 = memory
            .split(' ')
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0.0);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            cpu: value_of("/proc/cpuinfo", "model name"),
            kernel: kernel.trim().to_owned(),
            memory_gib: kib / 1_048_576.0,
            load_average: load_average(),
            disk: Disk::try_out(folder)?,
        })
    }

    /// What a report begins with.
    pub fn line(&self) -> String {
        let Self {
            cores,
            cpu,
            kernel,
            memory_gib,
            load_average,
            disk,
        } = self;
        format!(
            "{cores} cores ({cpu}), {memory_gib:.1} GiB, Linux {kernel}; load average before the run \
             {load_average:.2}.\nDisk: {:.0} durable 4 KiB writes a second one after the other \
             (fdatasync p50 {:.3} ms, p99 {:.3} ms, max {:.2} ms).\n\n",
            disk.per_second, disk.p50_ms, disk.p99_ms, disk.max_ms
        )
    }
}

// === impl Disk ===

impl Disk {
    fn try_out(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("disk-trial");
        let mut file = File::create(&path)?;
        for _ in 0..BLOCKS {
            file.write_all(&BLOCK)?;
        }
        file.sync_all()?;
        let begun = Instant::now();
        let mut took = Vec::new();
        for block in (0..BLOCKS).cycle() {
            if begun.elapsed() >= DISK_TRIAL {
                break;
            }
            let one = Instant::now();
            file.seek(SeekFrom::Start(block * 4_096))?;
            file.write_all(&BLOCK)?;
            file.sync_data()?;
            took.push(one.elapsed().as_secs_f64() * 1_000.0);
        }
        let seconds = begun.elapsed().as_secs_f64();
        drop(file);
        fs::remove_file(path)?;
        took.sort_by(f64::total_cmp);
        let at = |share: usize| {
            let index = (took.len() * share / 100).min(took.len().saturating_sub(1));
            took.get(index).copied().unwrap_or(0.0)
        };
        Ok(Self {
            per_second: took.len() as f64 / seconds,
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms: at(100),
        })
    }
}

// === impl Spread ===

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
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

    fn whole(self) -> String {
        format!("{:.0} ({:.0}-{:.0})", self.median, self.least, self.most)
    }

    fn fine(self) -> String {
        format!("{:.2} ({:.2}-{:.2})", self.median, self.least, self.most)
    }
}

// === impl Summary ===

impl<'a> Summary<'a> {
    /// Groups measurements by program and load, in the order in which they first came.
    pub fn new(machine: &'a Machine, all: &'a [Measurement]) -> Self {
        let mut rows: Vec<(&str, &str, Vec<&Measurement>)> = Vec::new();
        for found in all {
            let same = rows
                .iter_mut()
                .find(|(program, load, _)| *program == found.program && *load == found.load);
            match same {
                Some((_, _, rounds)) => rounds.push(found),
                None => rows.push((&found.program, &found.load, vec![found])),
            }
        }
        Self { machine, rows }
    }

    /// The whole report.
    pub fn markdown(&self) -> String {
        let mut page = self.tables();
        self.targets(&mut page);
        page
    }

    /// The machine, and every figure.
    pub fn tables(&self) -> String {
        let mut page = self.machine.line();
        self.latency_table(&mut page);
        self.cpu_table(&mut page);
        self.details_table(&mut page);
        page
    }

    /// The median of a figure of one program under loads that begin so.
    pub fn median(
        &self,
        program: &str,
        load: &str,
        figure: impl Fn(&Measurement) -> f64,
    ) -> Option<f64> {
        let (.., rounds) = self
            .rows
            .iter()
            .find(|(name, under, _)| *name == program && under.starts_with(load))?;
        Some(Spread::of(rounds.iter().map(|found| figure(found))).median)
    }

    fn latency_table(&self, page: &mut String) {
        page.push_str(
            "| program | load | good answers/s | p50 ms | p99 ms | max ms | not good | rungs |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        for (program, load, rounds) in &self.rows {
            let spread = |of: fn(&Measurement) -> f64| Spread::of(rounds.iter().map(|m| of(m)));
            let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
            for (kind, count) in rounds.iter().flat_map(|found| &found.kinds) {
                *kinds.entry(kind).or_default() += count;
            }
            let all: u64 = kinds.values().sum();
            let bad = rounds.iter().map(|found| {
                found
                    .kinds
                    .values()
                    .sum::<u64>()
                    .saturating_sub(good(&found.kinds))
            });
            let bad: u64 = bad.sum();
            let shares = kinds.iter().map(|(kind, count)| {
                let share = *count as f64 * 100.0 / all.max(1) as f64;
                format!("{kind} {share:.2} %")
            });
            let shares: Vec<String> = shares.collect();
            line(
                page,
                format_args!(
                    "| {program} | {load} | {} | {} | {} | {} | {bad} of {all} | {} |",
                    spread(|m| m.per_second).whole(),
                    spread(|m| m.latency.p50).fine(),
                    spread(|m| m.latency.p99).fine(),
                    spread(|m| m.latency.max).fine(),
                    shares.join(", "),
                ),
            );
        }
        page.push('\n');
    }

    fn cpu_table(&self, page: &mut String) {
        let families: BTreeSet<&str> = self
            .rows
            .iter()
            .flat_map(|(_, _, rounds)| rounds)
            .flat_map(|found| found.cpu.cores.keys().map(String::as_str))
            .collect();
        let head: Vec<&str> = families.iter().copied().collect();
        line(
            page,
            format_args!(
                "Busy cores, median over the rounds (`others`: what is neither ours nor our servers').\n\n\
             | program | load | {} | others | steal | whole machine | load average |\n\
             |---|---|{}---|---|---|---|",
                head.join(" | "),
                "---|".repeat(head.len()),
            ),
        );
        for (program, load, rounds) in &self.rows {
            let median = |of: &dyn Fn(&Measurement) -> f64| {
                format!(
                    "{:.2}",
                    Spread::of(rounds.iter().map(|found| of(found))).median
                )
            };
            let cells = families.iter().map(|family| {
                if rounds
                    .iter()
                    .all(|found| !found.cpu.cores.contains_key(*family))
                {
                    return "-".to_owned();
                }
                median(&|found| found.cpu.cores.get(*family).copied().unwrap_or(0.0))
            });
            let cells: Vec<String> = cells.collect();
            line(
                page,
                format_args!(
                    "| {program} | {load} | {} | {} | {} | {} | {} |",
                    cells.join(" | "),
                    median(&|found| found.cpu.others),
                    median(&|found| found.cpu.steal),
                    median(&|found| found.cpu.machine),
                    median(&|found| found.cpu.load_average),
                ),
            );
        }
        page.push('\n');
    }

    fn details_table(&self, page: &mut String) {
        page.push_str("| program | load | figure | median (range) |\n|---|---|---|---|\n");
        for (program, load, rounds) in &self.rows {
            let names: BTreeSet<&str> = rounds
                .iter()
                .flat_map(|found| found.details.keys().map(String::as_str))
                .collect();
            for name in names {
                let values = rounds
                    .iter()
                    .filter_map(|found| found.details.get(name).copied());
                let spread = Spread::of(values).fine();
                line(
                    page,
                    format_args!("| {program} | {load} | {name} | {spread} |"),
                );
            }
        }
        page.push('\n');
    }

    fn targets(&self, page: &mut String) {
        for program in ["edge, primary", "edge, stand_in"] {
            if let Some((load, rounds)) = self.find(program, false) {
                let asked: f64 = load.trim_end_matches("/s").parse().unwrap_or(0.0);
                let rate = Spread::of(rounds.iter().map(|found| found.per_second));
                let p99 = Spread::of(rounds.iter().map(|found| found.latency.p99));
                let rung = program.trim_start_matches("edge, ");
                let on_rung = rounds.iter().all(|found| {
                    let name = format!("approved on {rung}");
                    let share = found.kinds.get(&name).copied().unwrap_or(0) as f64;
                    share >= 0.999 * found.kinds.values().sum::<u64>() as f64
                });
                // A percent: the window's ends cut through requests.
                let holds = rate.least >= asked * 0.99 && p99.most < P99_TARGET_MS && on_rung;
                line(
                    page,
                    format_args!(
                        "- {program}: {asked:.0}/s with p99 under {P99_TARGET_MS} ms in every round and on \
                     its rung: {} ({} /s, p99 {} ms)",
                        verdict(holds),
                        rate.whole(),
                        p99.fine()
                    ),
                );
            }
        }
        let most = |program: &str| self.most(program);
        if let (Some(edge), Some(plain)) = (most("edge, primary"), most("plain")) {
            let times = edge / plain.max(1.0);
            line(
                page,
                format_args!(
                    "- edge on primary against the plain service at saturation, {TIMES_PLAIN_TARGET} times: \
                 {} ({times:.2} times)",
                    verdict(times >= TIMES_PLAIN_TARGET)
                ),
            );
        }
        for program in ["edge, primary", "edge, stand_in", "plain"] {
            if let (Some(this), Some(ceiling)) = (most(program), most("ceiling")) {
                let share = this * 100.0 / ceiling.max(1.0);
                line(
                    page,
                    format_args!("- {program}: {share:.1} % of the ceiling"),
                );
            }
        }
        if let Some((_, rounds)) = self.find("trips API", true) {
            for figure in [
                "picks acknowledged a second",
                "picks a second from end to end",
            ] {
                let values = rounds
                    .iter()
                    .filter_map(|found| found.details.get(figure).copied());
                let picks = Spread::of(values);
                let share = picks.median * 100.0 / PICKS_TARGET;
                line(
                    page,
                    format_args!(
                        "- {figure}: {}, {share:.1} % of the deployment's {PICKS_TARGET:.0}",
                        picks.whole()
                    ),
                );
            }
        }
    }

    /// Median rate at saturation; of an edge, of answers on the rung that was asked for only.
    fn most(&self, program: &str) -> Option<f64> {
        let (_, rounds) = self.find(program, true)?;
        let rung = program.strip_prefix("edge, ");
        let rates = rounds.iter().map(|found| match rung {
            None => found.per_second,
            Some(rung) => {
                let kind = format!("approved on {rung}");
                let share = found.kinds.get(&kind).copied().unwrap_or(0) as f64;
                found.per_second * share / good(&found.kinds).max(1) as f64
            }
        });
        Some(Spread::of(rates).median)
    }

    /// A program's rounds at saturation, or at the rate.
    fn find(&self, program: &str, saturation: bool) -> Option<(&str, &[&'a Measurement])> {
        self.rows
            .iter()
            .find(|(name, load, _)| {
                *name == program && load.starts_with("saturation") == saturation
            })
            .map(|(_, load, rounds)| (*load, rounds.as_slice()))
    }
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes every text");
    page.push('\n');
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
        assert_eq!(Spread::of([7.0]).median, 7.0);
    }
}
