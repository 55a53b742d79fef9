//! Runs the scenarios of `wal/src/threads.rs` under shuttle: random schedules, and schedules with few
//! preemptions at unlikely places. A schedule that fails is printed and replays with
//! `STANDIN_SCHEDULE=… cargo nextest run -p standin-threads NAME`; `STANDIN_SCHEDULES=N` tries more.

#![allow(clippy::unwrap_used, reason = "a scenario that fails panics")]

use bytes::Bytes;
use standin_core::entry::{Entry, LogPosition};
use standin_core::id::TransactionId;
use standin_core::register::{Outcome, Register, RegisterConfig};
use standin_threads::threads::{self, Notes};
use standin_threads::{Applied, LoadError, Replicable, StateMachine};

/// Schedules tried of each kind.
const SCHEDULES: usize = 1_000;
/// Preemptions placed in a schedule of the second kind.
const PREEMPTIONS: usize = 4;

/// The register, as an edge puts it under its log.
struct Registered(Register);

impl StateMachine for Registered {
    type Outcome = Outcome;
    fn apply(&mut self, at: Applied, proposal: &[u8]) -> Outcome {
        let position = LogPosition {
            index: at.index,
            slot: at.slot,
        };
        let entry = Entry::decode(proposal).unwrap();
        self.0.apply(position, at.log_time_ms, &entry)
    }
}

impl Replicable for Registered {
    fn save(&self) -> Vec<u8> {
        self.0.save().unwrap()
    }
    fn freeze(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let register = self.0.clone();
        Box::new(move || register.save().unwrap())
    }
    fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let loaded = self.0.load(bytes);
        loaded.map_err(|error| LoadError(error.to_string()))
    }
    fn outcome_to_bytes(outcome: &Outcome) -> Vec<u8> {
        postcard::to_stdvec(outcome).unwrap()
    }
    fn outcome_from_bytes(bytes: &[u8]) -> Option<Outcome> {
        postcard::from_bytes(bytes).ok()
    }
}

/// Tries a scenario under many schedules, or under the one that is asked for.
fn check(scenario: fn()) {
    // Bounded waits ask for a timer, which never rings: no time passes in a scenario.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let _entered = runtime.enter();
    if let Ok(schedule) = std::env::var("STANDIN_SCHEDULE") {
        shuttle::replay(scenario, &schedule);
        return;
    }
    let asked = std::env::var("STANDIN_SCHEDULES").ok();
    let schedules = asked.map_or(SCHEDULES, |asked| asked.parse().unwrap());
    shuttle::check_random(scenario, schedules);
    shuttle::check_pct(scenario, schedules, PREEMPTIONS);
}

#[test]
fn who_waits_hears_of_it() {
    check(threads::who_waits_hears_of_it);
}

#[test]
fn what_is_read_is_of_one_moment() {
    check(threads::what_is_read_is_of_one_moment);
}

#[test]
fn what_is_given_up_is_not_written_under_its_reader() {
    check(threads::what_is_given_up_is_not_written_under_its_reader);
}

#[test]
fn a_full_disk_is_not_met_inside_a_write() {
    check(threads::a_full_disk_is_not_met_inside_a_write);
}

#[test]
fn a_stopped_log_has_all_that_was_told() {
    check(threads::a_stopped_log_has_all_that_was_told);
}

#[test]
fn every_proposer_hears_once_when_the_log_is_stopped() {
    check(|| threads::every_proposer_hears_once(false));
}

#[test]
fn every_proposer_hears_once_when_the_disk_fails() {
    check(|| threads::every_proposer_hears_once(true));
}

#[test]
fn what_is_trimmed_is_not_damaged() {
    check(threads::what_is_trimmed_is_not_damaged);
}

#[test]
fn a_snapshot_is_of_one_moment() {
    check(|| {
        threads::a_snapshot_is_of_one_moment(
            Notes::default,
            |index| Bytes::from(index.to_le_bytes().to_vec()),
            Notes::count,
        );
    });
}

#[test]
fn a_snapshot_of_the_register_is_of_one_moment() {
    check(|| {
        threads::a_snapshot_is_of_one_moment(
            || Registered(Register::new(RegisterConfig { answers_max: 100 })),
            |index| {
                let id = TransactionId::from_bytes(u128::from(index).to_be_bytes());
                Entry::Tombstone(id).encode().unwrap().into()
            },
            |machine| u64::try_from(machine.0.len()).unwrap(),
        );
    });
}
