//! The edge itself dies, again and again.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use standin_core::entry::LogPosition;
use standin_reconcile::checker::Recovery;
use standin_reconcile::history::Outcome;
use standin_reconcile::log::source::{DirectoryLog, contents};
use standin_tests::harness::bank::Load;
use standin_tests::harness::{Bank, Edge, Payment, Stage, verdict};

use super::{PROGRAMS, Random, SOON, seed};

/// Kills of one run; `STANDIN_KILLS=n` for more or fewer.
const KILLS: u64 = 200;
/// Requests in flight.
const WORKERS: usize = 8;
/// A kill comes so soon after an answer at most, counted in further answers and microseconds: the
/// edge is then in the middle of something.
const ANSWERS_BEFORE: u64 = 30;
const MICROS_BEFORE: u64 = 20_000;

/// Answered payments that were not asked about again yet, and the body each got.
struct Answered {
    looked_at: usize,
    asked_again: BTreeSet<String>,
}

// === impl Answered ===

impl Answered {
    /// Asks again for some payments answered since the last kill; every answer has to be there.
    async fn ask_again(&mut self, stage: &Stage, bank: &Bank, random: &mut Random) {
        let attempts = stage.history.attempts();
        let fresh: HashMap<String, (u16, String)> = attempts[self.looked_at..]
            .iter()
            .filter_map(|attempt| match &attempt.outcome {
                Outcome::Answered { status, body, .. } => {
                    Some((attempt.payment.clone(), (*status, body.clone())))
                }
                _ => None,
            })
            .filter(|(payment, _)| !self.asked_again.contains(payment))
            .collect();
        self.looked_at = attempts.len();
        // The last answers before the kill are the ones at risk.
        let mut keys: Vec<&String> = fresh.keys().collect();
        keys.sort_by_key(|key| key.rsplit('-').next().and_then(|n| n.parse::<u64>().ok()));
        for key in keys.iter().rev().take(2 + random.below(3) as usize) {
            let payment = payment_of(key);
            let told = bank.pay_until_answered(&payment, SOON).await;
            let (status, body) = &fresh[*key];
            assert_eq!(told.status(), Some(*status), "{key}");
            assert_eq!(told.reply().body, body.as_bytes(), "{key}");
            assert!(told.is_replayed(), "{key} was answered anew");
            self.asked_again.insert((*key).clone());
        }
    }
}

/// The payment that the load made under this key.
fn payment_of(key: &str) -> Payment {
    let mut parts = key.rsplit('-').map(|part| part.parse::<i64>().unwrap());
    let (number, worker) = (parts.next().unwrap(), parts.next().unwrap());
    let shopper = 1 + (worker as u64 + number as u64) % SHOPPERS;
    Payment::new(key, shopper, 100 + number % 400)
}

const SHOPPERS: u64 = 40;
/// The log of the dead edge is read after every so many kills.
const READ_EVERY: u64 = 10;

/// What the log holds now, against what it held when it was read last: an entry that was read from
/// the disk once may never be gone or different.
async fn read(edge: &Edge, kill: u64, held: &mut Vec<(LogPosition, u64)>) -> Recovery {
    let log = contents(&DirectoryLog::new(edge.wal())).await.unwrap();
    assert!(log.damage.is_empty(), "kill {kill}: {:?}", log.damage);
    let recovered: Vec<_> = log
        .records
        .iter()
        .map(|record| (record.at, digest(&record.entry.encode().unwrap())))
        .collect();
    Recovery {
        moment: format!("kill {kill}"),
        acked: std::mem::replace(held, recovered.clone()),
        recovered,
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

async fn settle(bank: &Bank, load: Load) {
    for payment in load.stop().await {
        bank.pay_until_answered(&payment, SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_an_edge_killed_at_any_moment_comes_back_with_every_answer() {
    let seed = seed();
    let mut random = Random(seed);
    let kills = std::env::var("STANDIN_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let stage = Stage::set().await;
    let shoppers = stage.trips(1, SHOPPERS, 10_000_000).await;
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(WORKERS + 2);
    let load = bank.load("0", WORKERS, &shoppers);
    let mut answered = Answered {
        looked_at: 0,
        asked_again: BTreeSet::new(),
    };
    let (mut cut, mut slowest) = (0_u64, Duration::ZERO);
    let (mut held, mut recoveries) = (Vec::new(), Vec::new());
    for kill in 0..kills {
        load.progress(random.below(ANSWERS_BEFORE), SOON).await;
        // The moment itself is what is random, so this is no wait for anything.
        tokio::time::sleep(Duration::from_micros(random.below(MICROS_BEFORE))).await;
        let before = stage.history.attempts().len();
        edge.kill().await;
        if kill % READ_EVERY == 0 {
            recoveries.push(read(&edge, kill, &mut held).await);
        }
        let began = tokio::time::Instant::now();
        edge.restart().await;
        slowest = slowest.max(began.elapsed());
        let attempts = stage.history.attempts();
        let lost = |outcome: &Outcome| matches!(outcome, Outcome::NoReply);
        let broke = attempts[before..].iter().filter(|a| lost(&a.outcome));
        cut += u64::from(broke.count() > 0);
        answered.ask_again(&stage, &bank, &mut random).await;
    }
    settle(&bank, load).await;
    println!(
        "injected: {kills} kills, {cut} of them with requests in flight; {} answers asked for \
         again; ready again in {slowest:?} at most",
        answered.asked_again.len()
    );
    assert!(
        cut >= kills / 2,
        "only {cut} of {kills} kills hit a request"
    );
    let end = verdict::end(&stage, &mut edge, &recoveries).await;
    assert!(end.approved() as u64 >= kills);
    end.all_approved();
    // What is on the disk reads back whole a second time, and says the same.
    let again = contents(&DirectoryLog::new(edge.wal())).await.unwrap();
    assert_eq!(again.records.len(), end.log.records.len());
    assert!(again.damage.is_empty());
}
