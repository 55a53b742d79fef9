#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::id::StoreId;
use crate::money::Currency;
use crate::trip::Trip;

const LIFE: Duration = Duration::from_secs(900);
const SECOND: Duration = Duration::from_secs(1);

fn shopper(number: u64) -> ShopperId {
    number.try_into().unwrap()
}

fn trip(number: u64, version: u64) -> Trip {
    Trip {
        id: TripId(Uuid::from_u128(number.into())),
        shopper: shopper(number % 10_000),
        store: StoreId::try_from(9_i64).unwrap(),
        currency: Currency::USD,
        status: TripStatus::Shopping,
        version,
        picked: 0,
        picked_listed: 0,
        mix: BTreeMap::new(),
        started_at: Timestamp::from_millis(i64::try_from(number).unwrap()),
    }
}

/// A look that shows a trip, or none, at a beat in seconds.
fn look(trip: Option<Trip>, beat: impl Into<Option<i64>>) -> Look {
    Look {
        trip: trip.map(|trip| CachedTrip {
            trip,
            approvals: Vec::new(),
            position: None,
        }),
        beat: beat.into().map(|s| Timestamp::from_millis(s * 1_000)),
        behind: false,
    }
}

/// Two copies, and a clock.
struct Scene {
    hindsight: Hindsight,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        Self {
            hindsight: Hindsight::new(2, LIFE),
            now: Instant::now(),
        }
    }

    fn see(&mut self, copy: usize, number: u64, look: &Look) -> Standing {
        self.hindsight.see(copy, shopper(number), look, self.now)
    }

    fn lapses(&mut self) -> Lapses {
        self.hindsight.lapses(self.now)
    }

    /// Some trips seen in the near copy at beat 100.
    fn with_trips(count: u64) -> Self {
        let mut scene = Self::new();
        for number in 1..=count {
            scene.see(0, number, &look(Some(trip(number, 5)), 100));
        }
        scene
    }
}

#[test]
fn a_copy_that_lags_is_behind_and_has_not_gone_back() {
    let mut scene = Scene::with_trips(1);
    // It has not heard of the version yet, and its heart says so; clocks of writers differ a little.
    for beat in [99, 100, 102] {
        let seen = scene.see(1, 1, &look(Some(trip(1, 4)), beat));
        assert_eq!(seen, Standing::Behind, "{beat}");
        assert_eq!(scene.see(1, 1, &look(None, beat)), Standing::Behind);
    }
    assert_eq!(scene.lapses(), Lapses::default());
    assert_eq!(
        scene.see(1, 1, &look(Some(trip(1, 5)), 103)),
        Standing::Current
    );
}

#[test]
fn an_older_version_at_a_later_beat_has_gone_back_until_it_is_new_again() {
    let mut scene = Scene::with_trips(2);
    assert_eq!(
        scene.see(1, 1, &look(Some(trip(1, 4)), 103)),
        Standing::Older
    );
    assert_eq!(
        scene.see(0, 1, &look(Some(trip(1, 5)), 103)),
        Standing::Current
    );
    let lapses = scene.lapses();
    assert!(lapses.went_back() && lapses.older == 1, "{lapses:?}");
    assert!(scene.hindsight.is_suspect(1) && !scene.hindsight.is_suspect(0));
    // Which of the two is wrong does not matter: the same version as before, or a later one, ends it.
    scene.see(1, 1, &look(Some(trip(1, 5)), 104));
    assert!(!scene.lapses().went_back());
    assert!(!scene.hindsight.is_suspect(1));
}

#[test]
fn an_older_version_ends_to_count_when_it_is_not_looked_at_or_may_be_gone() {
    let mut scene = Scene::with_trips(1);
    scene.see(1, 1, &look(Some(trip(1, 4)), 103));
    scene.now += OLDER_WINDOW;
    assert!(scene.lapses().went_back());
    scene.now += SECOND;
    assert!(!scene.lapses().went_back(), "that was long ago");
    scene.now += LIFE;
    let seen = scene.see(1, 1, &look(Some(trip(1, 4)), 2_000));
    assert_eq!(seen, Standing::Current, "what was seen is forgotten");
}

#[test]
fn a_shoppers_pointer_never_goes_back_and_a_closed_trip_is_never_opened_again() {
    let mut scene = Scene::new();
    let (first, second) = (trip(10_001, 3), trip(20_001, 1));
    scene.see(0, 1, &look(Some(first.clone()), 100));
    // The next trip begins with a version of its own.
    let next = look(Some(second.clone()), 110);
    assert_eq!(scene.see(0, 1, &next), Standing::Current);
    assert_eq!(scene.see(0, 1, &look(Some(first), 120)), Standing::Older);
    let closed = Trip {
        status: TripStatus::Complete,
        ..second.clone()
    };
    assert_eq!(scene.see(0, 1, &look(Some(closed), 130)), Standing::Current);
    assert_eq!(scene.see(0, 1, &look(Some(second), 140)), Standing::Older);
}

#[test]
fn trips_that_vanish_together_are_no_chance_and_those_that_end_are() {
    let mut scene = Scene::with_trips(20);
    // Ordinary ends: seen closed, then gone. Any number of them.
    for number in 1..=10 {
        let closed = Trip {
            status: TripStatus::Complete,
            ..trip(number, 6)
        };
        scene.see(0, number, &look(Some(closed), 104));
        assert_eq!(scene.see(0, number, &look(None, 108)), Standing::Current);
    }
    assert_eq!(scene.lapses().missing, 0);
    // Four are too few to say, five of ten are not.
    for number in 11..=20 {
        scene.see(0, number, &look(Some(trip(number, 5)), 108));
    }
    for number in 11..=15 {
        assert!(!scene.lapses().vanished(), "{number}");
        assert_eq!(scene.see(0, number, &look(None, 109)), Standing::Missing);
    }
    let lapses = scene.lapses();
    assert_eq!((lapses.missing, lapses.looked_for), (5, 10));
    assert!(lapses.vanished() && !lapses.went_back());
    // They come back, one after the other.
    scene.see(0, 11, &look(Some(trip(11, 5)), 110));
    assert!(!scene.lapses().vanished());
}

#[test]
fn few_among_many_are_no_alarm_and_what_was_seen_minutes_ago_says_nothing() {
    let mut scene = Scene::with_trips(100);
    for number in 1..=16 {
        assert_eq!(scene.see(0, number, &look(None, 103)), Standing::Missing);
    }
    assert!(!scene.lapses().vanished(), "16 of 100");
    scene.now += MISSING_WINDOW + SECOND;
    for number in 17..=32 {
        scene.see(0, number, &look(None, 109));
    }
    let lapses = scene.lapses();
    assert_eq!((lapses.missing, lapses.looked_for), (16, 16));
    assert!(lapses.vanished());
    // Nobody looks any more: nothing is known to be missing.
    scene.now += MISSING_WINDOW + SECOND;
    assert!(!scene.lapses().vanished());
}

#[test]
fn a_copy_without_even_a_heartbeat_has_lost_what_it_had() {
    let mut scene = Scene::with_trips(5);
    for number in 1..=5 {
        assert_eq!(scene.see(0, number, &look(None, None)), Standing::Missing);
    }
    let lapses = scene.lapses();
    assert!(lapses.vanished() && lapses.hearts == 1, "{lapses:?}");
    // One that never beat has lost nothing that one could know of.
    let mut scene = Scene::new();
    scene.see(0, 1, &look(Some(trip(1, 1)), None));
    assert_eq!(scene.see(0, 1, &look(None, None)), Standing::Behind);
    assert_eq!(scene.lapses().hearts, 0);
}

#[test]
fn a_heart_that_goes_back_is_noticed_by_copy_and_until_it_is_where_it_was() {
    let mut scene = Scene::new();
    let stranger = |beat| look(None, beat);
    scene.see(0, 1, &stranger(100));
    // Another copy that lags was never further.
    scene.see(1, 1, &stranger(50));
    scene.see(0, 1, &stranger(98));
    assert_eq!(scene.lapses().hearts, 0, "clocks differ a little");
    scene.see(0, 1, &stranger(97));
    assert_eq!(scene.lapses().hearts, 1);
    scene.see(0, 1, &stranger(99));
    assert_eq!(scene.lapses().hearts, 1, "not there yet");
    scene.see(0, 1, &stranger(100));
    assert_eq!(scene.lapses().hearts, 0);
    // A writer whose clock was ahead and is right again is not waited for forever.
    scene.see(0, 1, &stranger(9_000));
    scene.see(0, 1, &stranger(101));
    scene.now += LIFE;
    scene.see(0, 1, &stranger(1_001));
    assert_eq!(scene.lapses().hearts, 0);
}

#[test]
fn a_copy_of_a_home_of_the_past_counts_until_it_is_none_any_more() {
    let mut scene = Scene::new();
    scene.hindsight.set_past(1, true);
    let lapses = scene.lapses();
    assert!(lapses.went_back() && lapses.past_homes == 1, "{lapses:?}");
    assert!(scene.hindsight.is_suspect(1));
    scene.hindsight.set_past(1, false);
    assert_eq!(scene.lapses(), Lapses::default());
}

#[test]
fn memory_is_bounded_and_each_trip_has_its_turn() {
    let most = u64::try_from(TRIPS_MAX).unwrap();
    let mut scene = Scene::with_trips(most + 100);
    assert_eq!(scene.hindsight.trips.len(), TRIPS_MAX);
    assert_eq!(scene.hindsight.turns.len(), TRIPS_MAX);
    let mut turns = Vec::new();
    while turns.len() < TRIPS_MAX {
        let due = scene.hindsight.due(16, scene.now);
        for shopper in due {
            let number = shopper.get().unsigned_abs();
            scene.see(0, number, &look(Some(trip(number, 5)), 101));
            turns.push(number);
        }
    }
    turns.sort_unstable();
    let all: Vec<u64> = (101..=most + 100).collect();
    assert_eq!(turns, all, "the first hundred were forgotten");
    scene.now += LIFE;
    assert_eq!(scene.hindsight.due(16, scene.now), []);
    assert!(scene.hindsight.trips.is_empty() && scene.hindsight.turns.is_empty());
}
