//! Measures durable appends of 256 bytes: `cargo run --release -p standin-wal --example append --
//! DIR [writers] [seconds] [direct|fdatasync]`. DIR must be empty or a log of a run before; it stays
//! behind.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "deadlines of seconds do not overflow"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use standin_wal::{Applied, Config, NodeId, StateMachine, SystemTimeSource, Wal, WriteMode};
use tokio::task::JoinSet;
use tokio::time::Instant;

struct Count(u64);

impl StateMachine for Count {
    type Outcome = u64;
    fn apply(&mut self, _at: Applied, _proposal: &[u8]) -> u64 {
        self.0 = self.0.saturating_add(1);
        self.0
    }
}

fn write_mode(name: &str) -> Option<WriteMode> {
    match name {
        "direct" => Some(WriteMode::Direct),
        "fdatasync" => Some(WriteMode::Fdatasync),
        _ => None,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args
        .next()
        .ok_or("usage: append DIR [writers] [seconds] [direct|fdatasync]")?;
    let writers: u32 = args.next().map_or(Ok(64), |text| text.parse())?;
    let seconds: u32 = args.next().map_or(Ok(3), |text| text.parse())?;
    let write_mode = args.next().as_deref().and_then(write_mode);
    let config = Config {
        write_mode,
        ..Config::new(dir, NodeId(1), "bench")
    };
    let wal = Arc::new(Wal::open(
        config,
        Box::new(SystemTimeSource::new()),
        Count(0),
    )?);
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let wal = Arc::clone(&wal);
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let start = Instant::now();
                if start >= end {
                    return Ok(latencies);
                }
                let deadline = start + Duration::from_secs(5);
                wal.propose(Bytes::from_static(&[7; 256]), deadline).await?;
                latencies.push(start.elapsed().as_micros());
            }
        });
    }
    let mut latencies = Vec::new();
    for result in tasks.join_all().await {
        let result: Result<Vec<u128>, standin_wal::ProposeError> = result;
        latencies.extend(result?);
    }
    latencies.sort_unstable();
    let count = latencies.len();
    let at = |permille: usize| {
        let place = count
            .saturating_mul(permille)
            .checked_div(1000)
            .unwrap_or(0);
        latencies
            .get(place.min(count.saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    };
    let per_second = u32::try_from(count)?.checked_div(seconds).unwrap_or(0);
    let counters = wal.status().counters;
    println!("{:?}", wal.status().write_mode);
    println!("{writers} writers: {per_second} durable appends/s of 256 bytes");
    println!(
        "p50 {} us, p99 {} us, p99.9 {} us, max {} us",
        at(500),
        at(990),
        at(999),
        at(1000)
    );
    println!(
        "{} batches, {} segments begun, {} of them in used files",
        counters.batches, counters.rotations, counters.recycled
    );
    wal.stop().await;
    Ok(())
}
