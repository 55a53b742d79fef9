//! The machine it ran on, and what durable costs there.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::cpu::load_average;

/// How long the disk is tried.
const DISK_TRIAL: Duration = Duration::from_secs(2);
/// Written and synced each time.
const BLOCK: [u8; 4_096] = [0x5a; 4_096];
/// Blocks of the file that is written over and over.
const BLOCKS: u64 = 4_096;

/// Cores, kernel, disk.
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
    /// Device, file system and its options.
    pub disk: String,
    /// Load average before anything was started.
    pub load_average: f64,
    /// One 4 KiB write into zeros and fdatasync after the other, a second.
    pub syncs_per_second: f64,
    /// Median of those, milliseconds.
    pub sync_p50_ms: f64,
    /// 99th percentile.
    pub sync_p99_ms: f64,
    /// Longest.
    pub sync_max_ms: f64,
}

// === impl Machine ===

impl Machine {
    /// Looks at the machine and tries the disk that holds `folder`.
    pub fn look(folder: &Path) -> anyhow::Result<Self> {
        let load_average = load_average();
        let took = try_disk(folder)?;
        let ms = |share: usize| {
            let at = (took.len() * share / 1_000).min(took.len().saturating_sub(1));
            took.get(at)
                .map_or(0.0, |took| took.as_secs_f64() * 1_000.0)
        };
        let memory = value_of("/proc/meminfo", "MemTotal");
        let kib = memory
            .split(' ')
            .next()
            .and_then(|word| word.parse::<f64>().ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            cpu: value_of("/proc/cpuinfo", "model name"),
            kernel: kernel.trim().to_owned(),
            memory_gib: kib.unwrap_or(0.0) / 1_048_576.0,
            disk: disk_of(folder)?,
            load_average,
            syncs_per_second: took.len() as f64 / DISK_TRIAL.as_secs_f64(),
            sync_p50_ms: ms(500),
            sync_p99_ms: ms(990),
            sync_max_ms: ms(1_000),
        })
    }
}

/// How long each sync took, sorted.
fn try_disk(folder: &Path) -> anyhow::Result<Vec<Duration>> {
    let path = folder.join("disk-trial");
    let file = File::create(&path)?;
    for block in 0..BLOCKS {
        file.write_all_at(&[0; 4_096], block * 4_096)?;
    }
    file.sync_all()?;
    let begun = Instant::now();
    let mut took = Vec::new();
    for block in (0..BLOCKS).cycle() {
        if begun.elapsed() >= DISK_TRIAL {
            break;
        }
        let one = Instant::now();
        file.write_all_at(&BLOCK, block * 4_096)?;
        file.sync_data()?;
        took.push(one.elapsed());
    }
    fs::remove_file(path)?;
    took.sort();
    Ok(took)
}

/// The mount that holds a folder: the longest mount point above it.
fn disk_of(folder: &Path) -> anyhow::Result<String> {
    let folder = folder.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let lines = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, point) = (words.next()?, words.next()?);
        let (kind, options) = (words.next()?, words.next()?);
        folder
            .starts_with(point)
            .then(|| (point.len(), format!("{kind} ({options}) on {device}")))
    });
    let longest = lines.max_by_key(|(length, _)| *length);
    longest
        .map(|(_, text)| text)
        .context("no mount holds the folder")
}

fn value_of(file: &str, key: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split_once(':'));
    value
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}
