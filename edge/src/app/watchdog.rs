//! The watchdog: looks at the edge once a second, and raises and clears its alarms.
//!
//! What it measures and what it makes of it are apart: [`Judge`] is pure. The alarm on conflicts is
//! only raised, here and by the drain: it stays until somebody restarts the edge after looking at
//! them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use standin_core::answer::Why;
use standin_core::decide::Tally;
use standin_core::entry::StandInMode;
use standin_core::trip_cache::hindsight::Lapses;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use crate::alarm::{Alarm, Alarms};
use crate::breaker::Position;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks at the trip cache in a row that bring nothing before it counts as stale: one slow answer
/// on a busy machine is no alarm.
const MISSED_LOOKS_MAX: u32 = 3;
/// Looks in a row that miss too many trips: a replica that starts is empty for a moment.
const VANISHED_LOOKS_MIN: u32 = 2;
/// How long a drain that has something to do may stand still while the primary is asked.
const DRAIN_STILL_MAX: Duration = Duration::from_secs(10);
/// How long after the last refusal for overload its alarm stays.
const OVERLOAD_QUIET: Duration = Duration::from_secs(5);
/// Percent of the log's space that may be used.
const WAL_USED_MAX_PERCENT: u128 = 70;
/// Percent of the reserve that are spent when it is low.
const RESERVE_SPENT_LOW_PERCENT: u128 = 80;
/// How often it looks whether the log has a leader: an edge without one is not ready.
const LEADER_EVERY: Duration = Duration::from_millis(100);
/// How long one advice may wait to be carried to the log.
const ADVICE_WAIT_MAX: Duration = Duration::from_secs(30);

/// What one look saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) poisoned: bool,
    pub(super) wal_used_bytes: u64,
    pub(super) wal_budget_bytes: u64,
    pub(super) breaker: Position,
    /// Why the outage that the log agreed on began; `None` when none is on.
    pub(super) outage: Option<Why>,
    pub(super) mode: StandInMode,
    /// Age of the trip cache's heartbeat; `None` when a look brought none.
    pub(super) beat_age_ms: Option<u64>,
    /// Age from which on no trip is stood in for.
    pub(super) beat_age_max_ms: u64,
    /// What the trip cache shows less of than it did.
    pub(super) lapses: Lapses,
    /// The last batch that the ledger has.
    pub(super) drained: u64,
    /// The last batch of the log, read after `drained`.
    pub(super) last_index: u64,
    pub(super) reserve: Tally,
    pub(super) reserve_spent: Tally,
    /// Payments whose stored 500 replays.
    pub(super) faulted: u64,
    /// Refusals for overload since the process began.
    pub(super) overloads: u64,
    /// Advices that met another answer since this edge started.
    pub(super) conflicts: u64,
    /// Advices that wait for the log, and the place of the oldest.
    pub(super) advices: u64,
    pub(super) oldest_advice: Option<u64>,
}

/// Turns readings into alarms; remembers only what a condition that lasts needs.
#[derive(Debug)]
pub(super) struct Judge {
    missed_looks: u32,
    vanished_looks: u32,
    drained: u64,
    /// Since when the drain could have moved and did not.
    still_since: Instant,
    overloads: u64,
    overloaded_at: Option<Instant>,
    /// The advice that waits longest, and since when.
    oldest_advice: Option<(u64, Instant)>,
}

/// Looks until `stop` is cancelled; a log that is poisoned is seen at once.
pub(super) async fn run(desk: Arc<Desk>, stop: CancellationToken) {
    let began = Instant::now();
    let mut judge = Judge::new(began);
    // The first look comes late enough for the heart to have beaten.
    let first = began.checked_add(LOOK_EVERY).unwrap_or(began);
    let mut beat = tokio::time::interval_at(first, LOOK_EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leader_beat = tokio::time::interval(LEADER_EVERY);
    leader_beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut poisoned = false;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = desk.log().poisoned(), if !poisoned => {}
            _ = beat.tick() => {}
            _ = leader_beat.tick() => {
                desk.leaderless.look(&desk.log().status(), Instant::now());
                continue;
            }
        }
        let reading = desk.read().await;
        poisoned = reading.poisoned;
        let alarms = &desk.shared.alarms;
        for (alarm, because) in judge.judge(&reading, Instant::now()) {
            alarms.set(alarm, because);
        }
        if let Some(because) = conflicts_because(reading.conflicts) {
            alarms.raise(Alarm::Conflict, because);
        }
    }
}

/// Raises or clears the alarm on stored faults.
pub(super) fn set_faulted(alarms: &Alarms, faulted: u64) {
    alarms.set(Alarm::Faulted, faulted_because(faulted));
}

// === impl Desk ===

impl Desk {
    async fn read(&self) -> Reading {
        let beat_age_ms = self.trip_cache_age_ms().await;
        let lapses = self.cache().check().await;
        let shared = &self.shared;
        let drained = shared.progress.cursor.load(Ordering::Relaxed);
        let wal = shared.log.status();
        let poisoned = shared.log.is_poisoned();
        let policy = self.path.policy.load();
        let refused = shared.metrics.overloads();
        let advices = shared.advices.waiting();
        let oldest_advice = shared.advices.oldest_waiting();
        shared.log.read(|register| Reading {
            poisoned,
            wal_used_bytes: wal.bytes_used,
            wal_budget_bytes: wal.budget_bytes,
            breaker: shared.primary.position(),
            outage: register.outage().map(|outage| outage.why),
            mode: register.mode(),
            beat_age_ms,
            lapses,
            beat_age_max_ms: policy.stand_in.trip_age_max_ms,
            drained,
            last_index: wal.last_index,
            reserve: policy.isolated.reserve,
            reserve_spent: register.reserve_used(),
            faulted: register.faulted(),
            overloads: refused.saturating_add(wal.counters.refused_busy),
            conflicts: register
                .counts()
                .conflicts
                .saturating_sub(self.conflicts_before),
            advices,
            oldest_advice,
        })
    }
}

// === impl Judge ===

impl Judge {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            missed_looks: 0,
            vanished_looks: 0,
            drained: 0,
            still_since: now,
            overloads: 0,
            overloaded_at: None,
            oldest_advice: None,
        }
    }

    /// Every alarm it knows, with why it is raised.
    pub(super) fn judge(
        &mut self,
        reading: &Reading,
        now: Instant,
    ) -> [(Alarm, Option<String>); 12] {
        let poisoned = reading
            .poisoned
            .then(|| "the log's disk failed or is damaged, or its group refuses this edge; it is going down".to_owned());
        [
            (Alarm::PrimaryAway, primary_away(reading)),
            (Alarm::TripCacheStale, self.trip_cache_stale(reading)),
            (Alarm::TripCacheBackwards, went_back(reading.lapses)),
            (Alarm::TripsVanished, self.trips_vanished(reading.lapses)),
            (Alarm::WalNearlyFull, wal_nearly_full(reading)),
            (Alarm::WalPoisoned, poisoned),
            (Alarm::DrainStalled, self.drain_stalled(reading, now)),
            (Alarm::ReserveLow, reserve_low(reading)),
            (Alarm::Faulted, faulted_because(reading.faulted)),
            (Alarm::StandInOverridden, overridden(reading.mode)),
            (Alarm::Overloaded, self.overloaded(reading, now)),
            (Alarm::AdvicesWait, self.advices_wait(reading, now)),
        ]
    }

    fn trip_cache_stale(&mut self, reading: &Reading) -> Option<String> {
        let Some(age_ms) = reading.beat_age_ms else {
            self.missed_looks = self.missed_looks.saturating_add(1);
            return (self.missed_looks >= MISSED_LOOKS_MAX)
                .then(|| "no heartbeat can be read from the trip cache".to_owned());
        };
        self.missed_looks = 0;
        let max_ms = reading.beat_age_max_ms;
        (age_ms > max_ms)
            .then(|| format!("the last heartbeat is {age_ms} ms old; at most {max_ms} ms serve"))
    }

    fn trips_vanished(&mut self, lapses: Lapses) -> Option<String> {
        if !lapses.vanished() {
            self.vanished_looks = 0;
            return None;
        }
        self.vanished_looks = self.vanished_looks.saturating_add(1);
        let (missing, of) = (lapses.missing, lapses.looked_for);
        (self.vanished_looks >= VANISHED_LOOKS_MIN).then(|| {
            format!(
                "{missing} of {of} trips that are not over are gone from a copy of the trip cache: \
                 it was emptied, or filled from an empty one"
            )
        })
    }

    fn drain_stalled(&mut self, reading: &Reading, now: Instant) -> Option<String> {
        let Reading {
            drained,
            last_index,
            ..
        } = *reading;
        if drained > last_index {
            return Some(format!(
                "the ledger has batch {drained} of this log, which ends at {last_index}: the log \
                 was replaced or cut"
            ));
        }
        let may_move = drained < last_index && reading.breaker == Position::Closed;
        if drained != self.drained || !may_move {
            (self.drained, self.still_since) = (drained, now);
            return None;
        }
        let still = now.saturating_duration_since(self.still_since);
        let waiting = last_index.saturating_sub(drained);
        (still >= DRAIN_STILL_MAX).then(|| {
            let seconds = still.as_secs();
            format!("{waiting} batches wait, and none was booked for {seconds} s")
        })
    }

    fn advices_wait(&mut self, reading: &Reading, now: Instant) -> Option<String> {
        let oldest = reading.oldest_advice?;
        let since = match self.oldest_advice {
            Some((same, since)) if same == oldest => since,
            Some(_) | None => now,
        };
        self.oldest_advice = Some((oldest, since));
        let waits = now.saturating_duration_since(since);
        (waits >= ADVICE_WAIT_MAX).then(|| {
            let (advices, seconds) = (reading.advices, waits.as_secs());
            format!("{advices} answers given without the log wait for it, one for {seconds} s")
        })
    }

    fn overloaded(&mut self, reading: &Reading, now: Instant) -> Option<String> {
        if reading.overloads > self.overloads {
            self.overloads = reading.overloads;
            self.overloaded_at = Some(now);
        }
        let at = self.overloaded_at?;
        if now.saturating_duration_since(at) >= OVERLOAD_QUIET {
            self.overloaded_at = None;
            return None;
        }
        let refused = self.overloads;
        Some(format!(
            "requests are refused for overload; {refused} since the process began"
        ))
    }
}

fn went_back(lapses: Lapses) -> Option<String> {
    let Lapses {
        older,
        hearts,
        past_homes,
        ..
    } = lapses;
    lapses.went_back().then(|| {
        format!(
            "of the trip cache, {past_homes} copies are of a home of the past; {older} trips are shown in an \
             earlier state than before, and the heartbeat went back in {hearts} copies"
        )
    })
}

fn conflicts_because(conflicts: u64) -> Option<String> {
    (conflicts > 0).then(|| {
        format!("{conflicts} answers given without the log met another one there; see /statusz")
    })
}

fn primary_away(reading: &Reading) -> Option<String> {
    match (reading.breaker, reading.outage) {
        (Position::Open(why), _) => Some(format!("the breaker is open: {}", why.as_str())),
        (Position::Ramp(share), _) => {
            Some(format!("the primary is asked for {share} % of requests"))
        }
        (Position::Closed, Some(why)) => Some(format!("an outage is on: {}", why.as_str())),
        (Position::Closed, None) => None,
    }
}

fn wal_nearly_full(reading: &Reading) -> Option<String> {
    let (used, budget) = (reading.wal_used_bytes, reading.wal_budget_bytes);
    (percent(used, budget) > WAL_USED_MAX_PERCENT)
        .then(|| format!("{used} of {budget} bytes are used"))
}

fn reserve_low(reading: &Reading) -> Option<String> {
    let (spent, reserve) = (reading.reserve_spent, reading.reserve);
    let amount = |tally: Tally| u64::try_from(tally.amount).unwrap_or(0);
    // A reserve of nothing cannot run low.
    let low = |spent: u64, of: u64| of > 0 && percent(spent, of) >= RESERVE_SPENT_LOW_PERCENT;
    let is_low =
        low(amount(spent), amount(reserve)) || low(spent.count.into(), reserve.count.into());
    is_low.then(|| {
        format!(
            "{} of {} minor units and {} of {} approvals are spent",
            spent.amount, reserve.amount, spent.count, reserve.count
        )
    })
}

fn faulted_because(faulted: u64) -> Option<String> {
    (faulted > 0).then(|| format!("{faulted} payments answer 500 until an operator clears them"))
}

fn overridden(mode: StandInMode) -> Option<String> {
    match mode {
        StandInMode::Auto => None,
        StandInMode::Force | StandInMode::Forbid => {
            Some(format!("an operator ordered {}", mode.as_str()))
        }
    }
}

/// Whole percent, rounded down; all of nothing is used.
fn percent(used: u64, budget: u64) -> u128 {
    u128::from(used)
        .saturating_mul(100)
        .checked_div(budget.into())
        .unwrap_or(100)
}

#[cfg(test)]
mod tests;
