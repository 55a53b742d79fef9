//! CPU time of processes and of the whole machine, from `/proc`.
//!
//! A family is a process with all below it; the time of children that have ended is in their
//! parent's account, so that no Postgres backend is missed.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use serde::Serialize;
use tokio::time::Instant;

/// Ticks of `/proc` a second: a constant of the Linux ABI (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time used so far, in ticks.
#[derive(Clone, Debug)]
pub struct Snapshot {
    at: Instant,
    generator: u64,
    /// By name of the program: of the child processes and all below them.
    families: BTreeMap<String, u64>,
    busy: u64,
    steal: u64,
}

/// CPU time used between two snapshots, as a mean number of busy cores.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Usage {
    /// By process family; the load generator is `generator`.
    pub cores: BTreeMap<String, f64>,
    /// The whole machine, ourselves included.
    pub machine: f64,
    /// What neither we nor our servers used: other people's work, and the kernel's own threads.
    pub others: f64,
    /// Taken by the hypervisor.
    pub steal: f64,
    /// Load average over one minute at the end.
    pub load_average: f64,
}

/// One line of `/proc/PID/stat`.
struct Stat {
    parent: u32,
    own: u64,
    with_ended_children: u64,
}

// === impl Snapshot ===

impl Snapshot {
    /// Reads everything now. `names` are our child processes by id.
    pub fn take(names: &BTreeMap<u32, String>) -> Self {
        let mut stats = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
                && let Some(stat) = Stat::read(id)
            {
                stats.insert(id, stat);
            }
        }
        let me = std::process::id();
        let mut families = BTreeMap::new();
        for (id, stat) in &stats {
            if let Some(name) = family_of(*id, &stats, names, me) {
                *families.entry(name).or_insert(0) += stat.with_ended_children;
            }
        }
        let (busy, steal) = machine();
        Self {
            at: Instant::now(),
            generator: stats.get(&me).map_or(0, |stat| stat.own),
            families,
            busy,
            steal,
        }
    }

    /// What was used from this snapshot to `later`.
    pub fn until(&self, later: &Self) -> Usage {
        let seconds = later.at.duration_since(self.at).as_secs_f64().max(0.001);
        let cores = |ticks: u64| ticks as f64 / TICKS_PER_SECOND / seconds;
        let mut used = BTreeMap::new();
        let own = later.generator.saturating_sub(self.generator);
        used.insert("generator".to_owned(), cores(own));
        for (name, now) in &later.families {
            let before = self.families.get(name).copied().unwrap_or(0);
            used.insert(name.clone(), cores(now.saturating_sub(before)));
        }
        let machine = cores(later.busy.saturating_sub(self.busy));
        let ours: f64 = used.values().sum();
        Usage {
            cores: used,
            machine,
            others: (machine - ours).max(0.0),
            steal: cores(later.steal.saturating_sub(self.steal)),
            load_average: load_average(),
        }
    }
}

// === impl Stat ===

impl Stat {
    fn read(id: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name, in parentheses, may itself hold spaces and parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let (user, system) = (number(11)?, number(12)?);
        let (ended_user, ended_system) = (number(13)?, number(14)?);
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            own: user + system,
            with_ended_children: user + system + ended_user + ended_system,
        })
    }
}

/// The name of our child that `id` is, or is below of.
fn family_of(
    id: u32,
    stats: &HashMap<u32, Stat>,
    names: &BTreeMap<u32, String>,
    me: u32,
) -> Option<String> {
    let mut at = id;
    // A process tree is not deep; the bound is against one that changes while it is read.
    for _ in 0..64 {
        let parent = stats.get(&at)?.parent;
        if parent == me {
            return Some(match names.get(&at) {
                Some(name) => name.clone(),
                None => program(at),
            });
        }
        at = parent;
    }
    None
}

fn program(id: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    match name.trim() {
        "redis-server" => "redis".to_owned(),
        other => other.to_owned(),
    }
}

/// Busy and stolen ticks of all cores.
fn machine() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let at = |index: usize| fields.get(index).copied().unwrap_or(0);
    // user, nice, system, irq, softirq.
    (at(0) + at(1) + at(2) + at(5) + at(6), at(7))
}

/// Runnable and waiting processes, mean of the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_work_of_this_process_shows_as_the_generators() {
        let before = Snapshot::take(&BTreeMap::new());
        let mut sum = 0_u64;
        while before.at.elapsed().as_millis() < 120 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let usage = before.until(&Snapshot::take(&BTreeMap::new()));
        let generator = usage.cores.get("generator").copied().unwrap_or(0.0);
        assert!(generator > 0.1, "{usage:?}");
        assert!(usage.machine > 0.0, "{usage:?}");
    }
}
