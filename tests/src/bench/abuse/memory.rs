//! What memory a process has, from `/proc`.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Resident memory, MiB.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Memory {
    /// The most that was seen in this phase.
    pub phase_peak_mib: f64,
    /// The most since the process began, as the kernel counts it.
    pub peak_mib: f64,
}

/// Looks at a process for so long.
pub(super) async fn watch(process: u32, length: Duration) -> Memory {
    let end = Instant::now() + length;
    let mut memory = Memory {
        phase_peak_mib: 0.0,
        peak_mib: 0.0,
    };
    while Instant::now() < end {
        let now = read(process, "VmRSS:");
        memory.phase_peak_mib = memory.phase_peak_mib.max(now);
        tokio::time::sleep(LOOK_EVERY).await;
    }
    memory.peak_mib = read(process, "VmHWM:");
    memory
}

fn read(process: u32, key: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0.0) / 1_024.0
}
