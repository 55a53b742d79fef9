//! What was seen of the trip cache, to notice when it shows less.
//!
//! The version of a trip, the start of a shopper's current trip and the heartbeat only ever rise, and
//! a trip can be looked at until a while after its end. A copy that shows less has gone back (two
//! primaries, a replica filled from an older one) or lost its keys (emptied, or filled from an empty
//! primary), or it merely lags. The heartbeat tells these apart, for it comes down the same stream
//! as the trips: what was seen at one beat is in every copy of that history that shows a later one.
//!
//! Bounded: past [`TRIPS_MAX`] the trip that was looked at longest ago is forgotten, and a trip that
//! no copy has shown for as long as a closed one is kept may be gone by right. Time comes in as an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::{BEAT_AHEAD_MAX_MS, CachedTrip, Look};
use crate::clock::Timestamp;
use crate::id::{ShopperId, TripId};
use crate::trip::TripStatus;

/// Trips remembered.
pub const TRIPS_MAX: usize = 2_048;
/// How long a trip that a copy did not show counts as missing there: looks of the moment, since what
/// was shown minutes ago says nothing of a cache that was emptied since.
const MISSING_WINDOW: Duration = Duration::from_secs(5);
/// How long an older version counts. All trips remembered are looked at again in less.
const OLDER_WINDOW: Duration = Duration::from_secs(300);
/// Trips that have to be missing before it is more than chance …
pub const MISSING_MIN: u32 = 5;
/// … and of how many of those looked at, in percent.
pub const MISSING_MIN_PERCENT: u32 = 50;

/// What was seen of one cache, over all its copies.
#[derive(Debug)]
pub struct Hindsight {
    /// How long a trip can at least be looked at after its end.
    life: Duration,
    copies: Vec<Heart>,
    trips: HashMap<ShopperId, Seen>,
    /// Shoppers in the order of their last look, the longest ago first.
    turns: BTreeMap<u64, ShopperId>,
    turn: u64,
}

/// How a look stands to what was seen before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// As new as anything seen.
    Current,
    /// It shows less, and may merely lag.
    Behind,
    /// It shows an older trip or version at a later beat: its copy has gone back.
    Older,
    /// It shows no trip at a later beat: its copy has lost it.
    Missing,
}

/// What the copies of a cache show less of than was seen. Of the worst copy, where it says trips.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lapses {
    /// Trips shown in an older version than before.
    pub older: u32,
    /// Copies whose heartbeat went back.
    pub hearts: u32,
    /// Copies of a home of the past.
    pub past_homes: u32,
    /// Open trips, seen lately, that are not shown any more …
    pub missing: u32,
    /// … of so many that were looked for.
    pub looked_for: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Heart {
    highest: Option<Timestamp>,
    /// Since when it shows less than that.
    back_since: Option<Instant>,
    /// Whether the copy is one of a home of the past, by its last look.
    is_past: bool,
    /// Whether the copy had lapsed when it was last judged.
    suspect: bool,
}

/// One shopper's trip, as the newest look showed it.
#[derive(Debug)]
struct Seen {
    trip: TripId,
    started_at: Timestamp,
    version: u64,
    over: bool,
    /// The beat at which it was first seen so.
    beat: Option<Timestamp>,
    /// When any copy last showed it.
    shown_at: Instant,
    turn: u64,
    /// What each copy last showed of it, and when.
    by_copy: Vec<Option<(Standing, Instant)>>,
}

// === impl Lapses ===

impl Lapses {
    /// Whether a copy shows an earlier state than before.
    pub const fn went_back(&self) -> bool {
        self.older > 0 || self.hearts > 0 || self.past_homes > 0
    }

    /// Whether a copy lost more trips than chance explains.
    pub const fn vanished(&self) -> bool {
        let share = self.missing.saturating_mul(100);
        self.missing >= MISSING_MIN && share >= self.looked_for.saturating_mul(MISSING_MIN_PERCENT)
    }

    fn is_any(&self) -> bool {
        self.went_back() || self.vanished()
    }
}

// === impl Hindsight ===

impl Hindsight {
    /// Nothing seen of so many copies. A closed trip can be looked at for `life`.
    pub fn new(copies: usize, life: Duration) -> Self {
        Self {
            life,
            copies: vec![Heart::default(); copies],
            trips: HashMap::new(),
            turns: BTreeMap::new(),
            turn: 0,
        }
    }

    /// Takes in what a copy showed of a shopper's trip, and says how it stands to what was seen.
    pub fn see(&mut self, copy: usize, shopper: ShopperId, look: &Look, now: Instant) -> Standing {
        let life = self.life;
        if let Some(heart) = self.copies.get_mut(copy) {
            heart.hear(look.beat, now, life);
        }
        let seen = self.trips.get(&shopper);
        let standing = seen
            .filter(|seen| !seen.is_forgotten(now, life))
            .map_or(Standing::Current, |seen| seen.judge(look));
        match (standing, &look.trip) {
            (Standing::Current, None) => self.forget(shopper),
            (Standing::Current, Some(shown)) => {
                self.remember(copy, shopper, (shown, look.beat), now)
            }
            (Standing::Behind | Standing::Older | Standing::Missing, _) => {
                self.note(copy, shopper, standing, now);
            }
        }
        standing
    }

    /// Hears whether a copy is one of a home of the past. What such a one shows is held against nothing.
    pub fn set_past(&mut self, copy: usize, is_past: bool) {
        if let Some(heart) = self.copies.get_mut(copy) {
            heart.is_past = is_past;
        }
    }

    /// Shoppers to look at again, those first that were looked at longest ago.
    pub fn due(&mut self, most: usize, now: Instant) -> Vec<ShopperId> {
        let life = self.life;
        let forgotten = |seen: &Seen| seen.is_forgotten(now, life);
        let gone: Vec<ShopperId> = self
            .trips
            .iter()
            .filter_map(|(shopper, seen)| forgotten(seen).then_some(*shopper))
            .collect();
        for shopper in gone {
            self.forget(shopper);
        }
        self.turns.values().copied().take(most).collect()
    }

    /// Whether a copy had lapsed at the last [`Hindsight::lapses`].
    pub fn is_suspect(&self, copy: usize) -> bool {
        self.copies.get(copy).is_some_and(|heart| heart.suspect)
    }

    /// What the copies show less of.
    pub fn lapses(&mut self, now: Instant) -> Lapses {
        let mut worst = Lapses::default();
        let (mut hearts, mut past_homes) = (0_u32, 0_u32);
        for copy in 0..self.copies.len() {
            let of_copy = self.lapses_of(copy, now);
            hearts = hearts.saturating_add(of_copy.hearts);
            past_homes = past_homes.saturating_add(of_copy.past_homes);
            if let Some(heart) = self.copies.get_mut(copy) {
                heart.suspect = of_copy.is_any();
            }
            worst.older = worst.older.max(of_copy.older);
            let rank = |lapses: &Lapses| (lapses.vanished(), lapses.missing);
            if rank(&worst) < rank(&of_copy) {
                (worst.missing, worst.looked_for) = (of_copy.missing, of_copy.looked_for);
            }
        }
        (worst.hearts, worst.past_homes) = (hearts, past_homes);
        worst
    }

    fn lapses_of(&self, copy: usize, now: Instant) -> Lapses {
        let mut lapses = Lapses::default();
        let heart = self.copies.get(copy);
        lapses.hearts = u32::from(heart.is_some_and(|heart| heart.back_since.is_some()));
        lapses.past_homes = u32::from(heart.is_some_and(|heart| heart.is_past));
        let seen = self.trips.values();
        for seen in seen.filter(|seen| !seen.is_forgotten(now, self.life)) {
            let Some((standing, at)) = seen.by_copy.get(copy).copied().flatten() else {
                continue;
            };
            let ago = now.saturating_duration_since(at);
            let fresh = ago <= MISSING_WINDOW && !seen.over;
            match standing {
                Standing::Older => {
                    lapses.older = lapses.older.saturating_add(u32::from(ago <= OLDER_WINDOW));
                }
                Standing::Missing => lapses.missing = lapses.missing.saturating_add(fresh.into()),
                Standing::Current | Standing::Behind => {}
            }
            lapses.looked_for = lapses.looked_for.saturating_add(fresh.into());
        }
        lapses
    }

    fn remember(
        &mut self,
        copy: usize,
        shopper: ShopperId,
        (shown, beat): (&CachedTrip, Option<Timestamp>),
        now: Instant,
    ) {
        let trip = &shown.trip;
        let (copies, over) = (self.copies.len(), trip.status == TripStatus::Complete);
        let seen = self.trips.entry(shopper).or_insert_with(|| Seen {
            trip: trip.id,
            started_at: trip.started_at,
            version: trip.version,
            over,
            beat,
            shown_at: now,
            turn: 0,
            by_copy: vec![None; copies],
        });
        if seen.trip != trip.id {
            // What copies said of the trip before says nothing of this one.
            seen.by_copy.fill(None);
        }
        if (seen.trip, seen.version, seen.over) != (trip.id, trip.version, over) {
            seen.beat = beat;
        }
        seen.trip = trip.id;
        seen.started_at = trip.started_at;
        seen.version = trip.version;
        seen.over = over;
        seen.shown_at = now;
        self.note(copy, shopper, Standing::Current, now);
        while self.trips.len() > TRIPS_MAX {
            let Some((_, longest_ago)) = self.turns.pop_first() else {
                break;
            };
            self.trips.remove(&longest_ago);
        }
    }

    /// What a copy said of a shopper, whose turn comes after all others' from now on.
    fn note(&mut self, copy: usize, shopper: ShopperId, standing: Standing, now: Instant) {
        let Some(seen) = self.trips.get_mut(&shopper) else {
            return;
        };
        if let Some(last) = seen.by_copy.get_mut(copy) {
            *last = Some((standing, now));
        }
        self.turns.remove(&seen.turn);
        self.turn = self.turn.saturating_add(1);
        seen.turn = self.turn;
        self.turns.insert(self.turn, shopper);
    }

    fn forget(&mut self, shopper: ShopperId) {
        if let Some(seen) = self.trips.remove(&shopper) {
            self.turns.remove(&seen.turn);
        }
    }
}

// === impl Heart ===

impl Heart {
    fn hear(&mut self, beat: Option<Timestamp>, now: Instant, life: Duration) {
        let Some(highest) = self.highest else {
            self.highest = beat;
            return;
        };
        let since = self.back_since;
        let for_long = since.is_some_and(|since| now.saturating_duration_since(since) >= life);
        if beat.is_some_and(|beat| beat >= highest) || for_long {
            (self.highest, self.back_since) = (beat, None);
        } else if beat.is_none_or(|beat| highest.millis_since(beat) > BEAT_AHEAD_MAX_MS) {
            self.back_since = since.or(Some(now));
        }
    }
}

// === impl Seen ===

impl Seen {
    /// Whether it may have been closed and gone by right since.
    fn is_forgotten(&self, now: Instant, life: Duration) -> bool {
        now.saturating_duration_since(self.shown_at) >= life
    }

    fn judge(&self, look: &Look) -> Standing {
        let (less, proven) = match &look.trip {
            None => (!self.over, Standing::Missing),
            Some(shown) => (self.is_newer_than(shown), Standing::Older),
        };
        match (less, self.was_before(look.beat)) {
            (false, _) => Standing::Current,
            (true, true) => proven,
            (true, false) => Standing::Behind,
        }
    }

    fn is_newer_than(&self, shown: &CachedTrip) -> bool {
        let trip = &shown.trip;
        if trip.id != self.trip {
            return trip.started_at < self.started_at;
        }
        // A closed trip is never opened again.
        let reopened = self.over && trip.status != TripStatus::Complete;
        trip.version < self.version || reopened
    }

    /// Whether a copy of one history that shows this beat must have what was seen. Clocks of several
    /// writers differ a little. One that shows no beat any more has lost even that.
    fn was_before(&self, beat: Option<Timestamp>) -> bool {
        match (self.beat, beat) {
            (Some(then), Some(beat)) => beat.millis_since(then) > BEAT_AHEAD_MAX_MS,
            (Some(_), None) | (None, Some(_)) => true,
            (None, None) => false,
        }
    }
}

#[cfg(test)]
mod tests;
