//! Measures the two ways to make a write durable against each other, write by write in turn, so that
//! whatever else the machine does falls on both: `cargo run --release -p standin-wal --example
//! write_modes -- DIR [pairs]`. DIR must be on the disk in question; two files stay behind in it.

use std::path::Path;
use std::sync::Arc;

use standin_wal::WriteMode;
use standin_wal::disk::real::RealDir;
use standin_wal::disk::{SegmentDir, SegmentFile};
use tokio::time::Instant;

const FILE_BYTES: u64 = 64 << 20;
const MODES: [WriteMode; 2] = [WriteMode::Direct, WriteMode::Fdatasync];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: write_modes DIR [pairs]")?;
    let pairs: usize = args.next().map_or(Ok(2000), |text| text.parse())?;
    let mut files = Vec::new();
    for mode in MODES {
        let dir = RealDir::create_as(Path::new(&dir), Some(mode))?;
        let file = dir.create(&format!("{mode:?}"), FILE_BYTES)?;
        file.sync_data()?;
        files.push(file);
    }
    println!("{pairs} pairs of writes, microseconds");
    for bytes in [4096_usize, 16_384, 65_536, 262_144] {
        let taken = in_turn(&files, bytes, pairs)?;
        for (mode, mut taken) in MODES.into_iter().zip(taken) {
            taken.sort_unstable();
            let at = |permille: usize| {
                let place = taken.len().saturating_mul(permille).div_euclid(1000);
                taken.get(place.min(taken.len().saturating_sub(1))).copied()
            };
            let [p1, p10, p50, p99] = [10, 100, 500, 990].map(|permille| at(permille).unwrap_or(0));
            println!("{bytes:>7} bytes, {mode:?}: p1 {p1}, p10 {p10}, p50 {p50}, p99 {p99}");
        }
    }
    Ok(())
}

/// Writes to each file in turn; what each write took.
fn in_turn(
    files: &[Arc<dyn SegmentFile>],
    bytes: usize,
    pairs: usize,
) -> std::io::Result<Vec<Vec<u128>>> {
    let block = vec![7; bytes];
    let step = u64::try_from(bytes).unwrap_or(FILE_BYTES);
    let mut offset = 0_u64;
    let mut taken = vec![Vec::with_capacity(pairs); files.len()];
    for _ in 0..pairs {
        for (file, taken) in files.iter().zip(&mut taken) {
            let start = Instant::now();
            file.write_at(&block, offset)?;
            file.sync_data()?;
            taken.push(start.elapsed().as_micros());
        }
        offset = offset.saturating_add(step);
        if offset.saturating_add(step) > FILE_BYTES {
            offset = 0;
        }
    }
    Ok(taken)
}
