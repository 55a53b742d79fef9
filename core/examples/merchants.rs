//! How often what a bank writes leads to the right store, to another or to none; what a store costs
//! in memory, and how long a resolution takes.
//!
//! `cargo run --release -p standin-core --features testing --example merchants [STORES] [SEED]`
//! (100,000 made-up stores by default, and as many ids of networks). Memory is measured in a process
//! of its own, which reads the stores as an edge reads its copy.

#![allow(clippy::disallowed_methods, reason = "measures how long it takes")]

use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use standin_core::merchant::sample::{Class, Sample};
use standin_core::merchant::{MerchantId, Store, StoreDirectory};

const STORES: usize = 100_000;
const SEED: u64 = 1;
/// Asks for [`memory`] alone.
const MEMORY: &str = "memory";

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|first| first == MEMORY).is_some() {
        return memory();
    }
    let stores = args.next().map_or(Ok(STORES), |text| text.parse())?;
    let seed = args.next().map_or(Ok(SEED), |text| text.parse())?;
    let sample = Sample::new(stores, seed);
    measure_memory(&sample)?;
    let directory = StoreDirectory::new(sample.stores.clone());
    println!("\nseed {seed}; one of ten known stores, and every one that is not ours\n");
    println!("| what the bank writes | texts | right | wrong store | ambiguous | unknown |");
    println!("|---|---|---|---|---|---|");
    for (class, tally) in sample.judge(&directory, 10, seed) {
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            class.name(),
            tally.texts(),
            tally.right,
            tally.wrong,
            tally.ambiguous,
            tally.unknown
        );
    }
    time(&sample, &directory, seed);
    Ok(())
}

/// How long texts take, the best of three each: what else the machine does is left out.
fn time(sample: &Sample, directory: &StoreDirectory, seed: u64) {
    println!("\n| what the bank writes | p50 | p99 | most |");
    println!("|---|---|---|---|");
    for class in Class::ALL {
        let mut times: Vec<u128> = Vec::new();
        for (text, _) in sample.texts(*class, 101, seed) {
            let once = || {
                let began = Instant::now();
                black_box(directory.resolve(&text));
                began.elapsed().as_micros()
            };
            times.push(once().min(once()).min(once()));
        }
        times.sort_unstable();
        let at = |share: usize| {
            let place = times.len().saturating_sub(1).saturating_mul(share);
            let place = place.checked_div(100);
            place
                .and_then(|place| times.get(place).copied())
                .unwrap_or(0)
        };
        let (half, most, all) = (at(50), at(99), at(100));
        println!("| {} | {half} µs | {most} µs | {all} µs |", class.name());
    }
}

/// Has a fresh process say what the stores cost.
fn measure_memory(sample: &Sample) -> Result<(), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(MEMORY)
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(input) = child.stdin.take() {
        let mut input = BufWriter::new(input);
        for store in &sample.stores {
            serde_json::to_writer(&mut input, store)?;
        }
        input.flush()?;
    }
    child.wait()?;
    Ok(())
}

/// Builds the directory of the stores that are read, and says what it costs.
fn memory() -> Result<(), Failure> {
    let before = bytes("VmRSS:")?;
    let input = std::io::stdin().lock();
    let mut stores: Vec<Store> = Vec::new();
    for store in serde_json::Deserializer::from_reader(input).into_iter() {
        stores.push(store?);
    }
    let id = |store: &Store| -> Result<MerchantId, Failure> {
        Ok(MerchantId {
            network_id: format!("{:015}", store.id.get()).parse()?,
            terminal: Some(format!("{:08}", store.id.get()).parse()?),
            store: store.id,
        })
    };
    let ids = stores.iter().map(id).collect::<Result<Vec<_>, _>>()?;
    let records = bytes("VmRSS:")?.saturating_sub(before);
    let began = Instant::now();
    let directory = StoreDirectory::with_ids(stores, ids);
    let took = began.elapsed();
    let all = bytes("VmRSS:")?.saturating_sub(before);
    let most = bytes("VmHWM:")?.saturating_sub(before);
    let count = u64::try_from(directory.len())?;
    println!(
        "{count} stores and {} ids: {} MiB resident, {} bytes a store ({} MiB before they are \
         indexed, {} MiB at most); indexed in {took:.1?}",
        directory.merchant_ids().count(),
        all >> 20,
        all.checked_div(count).unwrap_or(0),
        records >> 20,
        most >> 20,
    );
    Ok(())
}

fn bytes(what: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.unwrap_or_default().parse::<u64>()?.saturating_mul(1024))
}
