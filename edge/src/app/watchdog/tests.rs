#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// An edge with nothing the matter.
fn well() -> Reading {
    Reading {
        poisoned: false,
        wal_used_bytes: 70,
        wal_budget_bytes: 100,
        breaker: Position::Closed,
        outage: None,
        mode: StandInMode::Auto,
        beat_age_ms: Some(60_000),
        beat_age_max_ms: 60_000,
        lapses: Lapses {
            missing: 4,
            looked_for: 4,
            ..Lapses::default()
        },
        drained: 7,
        last_index: 7,
        reserve: Tally {
            amount: 1_000,
            count: 10,
        },
        reserve_spent: Tally {
            amount: 799,
            count: 7,
        },
        faulted: 0,
        overloads: 0,
        conflicts: 0,
        advices: 0,
        oldest_advice: None,
    }
}

fn raised(judge: &mut Judge, reading: Reading, now: Instant) -> Vec<Alarm> {
    let judged = judge.judge(&reading, now);
    let raised = judged.into_iter().filter(|(_, because)| because.is_some());
    raised.map(|(alarm, _)| alarm).collect()
}

#[test]
fn each_condition_raises_its_own_alarm_and_no_other() {
    let check = |reading: Reading, expected: &[Alarm]| {
        let now = Instant::now();
        let got = raised(&mut Judge::new(now), reading, now);
        assert_eq!(got, expected, "{reading:?}");
    };
    let well = well();
    check(well, &[]);
    let breaker = |breaker| Reading { breaker, ..well };
    check(breaker(Position::Open(Why::Timeout)), &[Alarm::PrimaryAway]);
    check(breaker(Position::Ramp(10)), &[Alarm::PrimaryAway]);
    let outage = Some(Why::Connection);
    check(Reading { outage, ..well }, &[Alarm::PrimaryAway]);
    let beat_age_ms = Some(60_001);
    check(
        Reading {
            beat_age_ms,
            ..well
        },
        &[Alarm::TripCacheStale],
    );
    let older = Lapses {
        older: 1,
        ..Lapses::default()
    };
    let hearts = Lapses {
        hearts: 1,
        ..Lapses::default()
    };
    let past = Lapses {
        past_homes: 1,
        ..Lapses::default()
    };
    for lapses in [older, hearts, past] {
        check(Reading { lapses, ..well }, &[Alarm::TripCacheBackwards]);
    }
    let wal_used_bytes = 71;
    check(
        Reading {
            wal_used_bytes,
            ..well
        },
        &[Alarm::WalNearlyFull],
    );
    let poisoned = true;
    check(Reading { poisoned, ..well }, &[Alarm::WalPoisoned]);
    let drained = 8;
    check(Reading { drained, ..well }, &[Alarm::DrainStalled]);
    let spent = |amount, count| Reading {
        reserve_spent: Tally { amount, count },
        ..well
    };
    check(spent(800, 0), &[Alarm::ReserveLow]);
    check(spent(0, 8), &[Alarm::ReserveLow]);
    let faulted = 1;
    check(Reading { faulted, ..well }, &[Alarm::Faulted]);
    for mode in [StandInMode::Force, StandInMode::Forbid] {
        check(Reading { mode, ..well }, &[Alarm::StandInOverridden]);
    }
    let overloads = 1;
    check(Reading { overloads, ..well }, &[Alarm::Overloaded]);
}

#[test]
fn a_reserve_of_nothing_is_not_low() {
    let now = Instant::now();
    let none = Tally::default();
    let reading = Reading {
        reserve: none,
        reserve_spent: none,
        ..well()
    };
    assert_eq!(raised(&mut Judge::new(now), reading, now), []);
}

#[test]
fn a_drain_is_stalled_when_it_could_move_and_did_not_for_ten_seconds() {
    let began = Instant::now();
    let mut judge = Judge::new(began);
    let at = |seconds: u32| began + SECOND * seconds;
    let behind = |drained, last_index| Reading {
        drained,
        last_index,
        ..well()
    };
    assert_eq!(raised(&mut judge, behind(7, 9), at(1)), [], "it just moved");
    assert_eq!(raised(&mut judge, behind(7, 12), at(10)), []);
    let stalled = [Alarm::DrainStalled];
    assert_eq!(raised(&mut judge, behind(7, 12), at(11)), stalled);
    assert_eq!(raised(&mut judge, behind(8, 12), at(12)), [], "it moved");
    assert_eq!(raised(&mut judge, behind(8, 12), at(22)), stalled);
    let away = Reading {
        breaker: Position::Open(Why::Timeout),
        ..behind(8, 12)
    };
    let without = [Alarm::PrimaryAway];
    assert_eq!(raised(&mut judge, away, at(40)), without, "it may not move");
    assert_eq!(raised(&mut judge, behind(8, 12), at(49)), [], "ten anew");
    assert_eq!(raised(&mut judge, behind(8, 12), at(50)), stalled);
    assert_eq!(
        raised(&mut judge, behind(12, 12), at(51)),
        [],
        "all is there"
    );
    assert_eq!(raised(&mut judge, behind(12, 12), at(99)), []);
    assert_eq!(raised(&mut judge, behind(12, 13), at(100)), [], "new work");
}

#[test]
fn one_look_that_brings_nothing_is_no_stale_cache() {
    let now = Instant::now();
    let mut judge = Judge::new(now);
    let missed = Reading {
        beat_age_ms: None,
        ..well()
    };
    assert_eq!(raised(&mut judge, missed, now), []);
    assert_eq!(raised(&mut judge, missed, now), []);
    assert_eq!(raised(&mut judge, well(), now), []);
    assert_eq!(raised(&mut judge, missed, now), []);
    assert_eq!(raised(&mut judge, missed, now), []);
    let stale = [Alarm::TripCacheStale];
    assert_eq!(raised(&mut judge, missed, now), stale);
    assert_eq!(raised(&mut judge, well(), now), []);
}

#[test]
fn trips_that_are_missing_for_one_look_are_no_alarm_and_it_ends_by_itself() {
    let now = Instant::now();
    let mut judge = Judge::new(now);
    let missing = |missing| Reading {
        lapses: Lapses {
            missing,
            looked_for: 10,
            ..Lapses::default()
        },
        ..well()
    };
    assert_eq!(raised(&mut judge, missing(10), now), []);
    assert_eq!(raised(&mut judge, missing(0), now), []);
    assert_eq!(raised(&mut judge, missing(5), now), []);
    let gone = [Alarm::TripsVanished];
    assert_eq!(raised(&mut judge, missing(5), now), gone);
    assert_eq!(raised(&mut judge, missing(4), now), []);
}

#[test]
fn an_overload_is_over_after_five_quiet_seconds() {
    let began = Instant::now();
    let mut judge = Judge::new(began);
    let refused = |overloads| Reading {
        overloads,
        ..well()
    };
    let over = [Alarm::Overloaded];
    assert_eq!(raised(&mut judge, refused(3), began), over);
    assert_eq!(raised(&mut judge, refused(4), began + SECOND * 4), over);
    assert_eq!(raised(&mut judge, refused(4), began + SECOND * 8), over);
    assert_eq!(raised(&mut judge, refused(4), began + SECOND * 9), []);
    assert_eq!(raised(&mut judge, refused(5), began + SECOND * 60), over);
}

#[test]
fn advices_are_alarmed_when_one_of_them_waits_and_not_when_they_flow() {
    let start = Instant::now();
    let mut judge = Judge::new(start);
    let waits = |oldest| Reading {
        advices: 3,
        oldest_advice: oldest,
        ..well()
    };
    let at = |seconds: u64| start + SECOND * u32::try_from(seconds).unwrap();
    // They flow: the oldest is another one each time.
    for second in 0..40 {
        let seen = raised(&mut judge, waits(Some(second)), at(second));
        assert_eq!(seen, [], "{second}");
    }
    assert_eq!(raised(&mut judge, waits(Some(39)), at(68)), []);
    let late = raised(&mut judge, waits(Some(39)), at(69));
    assert_eq!(late, [Alarm::AdvicesWait]);
    assert_eq!(raised(&mut judge, waits(None), at(70)), []);
    // The next one has a time of its own.
    assert_eq!(raised(&mut judge, waits(Some(40)), at(71)), []);
}

#[test]
fn a_conflict_is_told_of() {
    assert_eq!(conflicts_because(0), None);
    assert!(conflicts_because(2).unwrap().starts_with("2 answers"));
}
