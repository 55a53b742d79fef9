//! Whether an edge is announced: a pure function of what was seen, and when.
//!
//! *Fall fast*: a few misses in a row withdraw. *Rise slow*: only an edge that has been well for a
//! while is announced again, and only so often. *Fail static*: nobody withdraws unless enough others
//! have said, since it was sure of its trouble, that they are announced and better; whoever hears that
//! too few are announced comes back as it is, and so does, a little later, who hears that none of them
//! is better. So when all regions are sick at once (as when what they
//! share is gone) the prefix stays where it was, and banks get whatever answers there are.
//!
//! An edge is well when it can decide, write ahead and see fresh trips. Postgres does not count:
//! standing in for it is what an edge is for. One that answers a probe and cannot do all of that limps;
//! one that does not answer is dead.
//!
//! Times are since an arbitrary beginning; nothing here looks at a clock.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When to fall and when to rise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// So many probes in a row that are not well withdraw.
    pub misses: u32,
    /// An edge is well for so long before it is announced again.
    pub rise: Duration,
    /// An edge that is stopping keeps its announcement for so long, while it sends its clients away.
    pub farewell: Duration,
    /// It is announced again so many times at most …
    pub rises: u32,
    /// … in such a time.
    pub per: Duration,
    /// So many others must be announced and better before it withdraws.
    pub floor: u32,
    /// How long another's word holds.
    pub fresh: Duration,
    /// Others that were announced and are silent count as gone after so long.
    pub silence: Duration,
    /// Too few announced others have been better for so long: then it comes back as it is.
    pub even: Duration,
}

/// What a probe of the edge found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// It answered.
    Answered(Parts),
    /// It answered that it is stopping.
    Stopping,
    /// Nobody listens there, or it said something that is no answer.
    Unreachable,
    /// It said nothing in time.
    TimedOut,
}

/// What an edge can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// It can decide.
    pub decide: bool,
    /// It can write ahead.
    pub write_ahead: bool,
    /// The trips it sees are fresh.
    pub fresh_trips: bool,
}

/// How an edge is, worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It does not answer, or will not for long.
    Dead,
    /// It answers, and cannot do all that an announcement promises.
    Limps,
    /// It can.
    Well,
}

/// What another announcer says of its edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Word {
    /// It is announced.
    pub announced: bool,
    /// As its last probe found it.
    pub health: Health,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Announce the prefix.
    Announce,
    /// Withdraw it.
    Withdraw,
}

/// Why it is as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It is announced and well.
    Well,
    /// It is announced; its last probes were not well, and too few to say so.
    Doubt,
    /// It is sick, and stays announced: too few others are announced and better.
    LastOne,
    /// It is sick.
    Sick,
    /// It is stopping.
    Stopping,
    /// It is well again, and not for long enough.
    Rising,
    /// It is well again, and was announced again too often lately.
    Flapping,
    /// Too few others were announced, so it is.
    TooFew,
    /// Too few of the others that are announced were better, so it is.
    Even,
    /// An operator ended its announcer.
    Ordered,
}

/// The decision over time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    rules: Rules,
    announced: bool,
    why: Why,
    /// As the last probe found it.
    health: Health,
    misses: u32,
    /// When the one was asked for that made it sure.
    missing_since: Duration,
    well_since: Option<Duration>,
    stopping_since: Option<Duration>,
    /// Since when too few announced others have been better.
    even_since: Option<Duration>,
    /// When it was announced again, the latest last; bounded by the rules.
    rises: VecDeque<Duration>,
    /// What each other announcer last said, and when it was asked.
    others: Vec<Option<(Duration, Word)>>,
    began: Duration,
}

// === impl Rules ===

impl Default for Rules {
    fn default() -> Self {
        Self {
            misses: 2,
            rise: Duration::from_secs(30),
            farewell: Duration::from_secs(1),
            rises: 6,
            per: Duration::from_secs(3_600),
            floor: 1,
            fresh: Duration::from_secs(1),
            silence: Duration::from_secs(5),
            even: Duration::from_secs(3),
        }
    }
}

// === impl Probe ===

impl Probe {
    /// How it shows the edge to be.
    pub const fn health(self) -> Health {
        match self {
            Self::Answered(Parts {
                decide: true,
                write_ahead: true,
                fresh_trips: true,
            }) => Health::Well,
            Self::Answered(_) => Health::Limps,
            Self::Stopping | Self::Unreachable | Self::TimedOut => Health::Dead,
        }
    }
}

// === impl Announcement ===

impl Announcement {
    /// Begins with what is in force, beside so many other announcers.
    pub fn new(rules: Rules, announced: bool, others: usize, now: Duration) -> Self {
        Self {
            rules,
            announced,
            why: if announced { Why::Well } else { Why::Rising },
            health: Health::Dead,
            misses: 0,
            missing_since: now,
            well_since: None,
            stopping_since: None,
            even_since: None,
            rises: VecDeque::new(),
            others: vec![None; others],
            began: now,
        }
    }

    /// Whether it is announced, as far as this decides.
    pub const fn is_announced(&self) -> bool {
        self.announced
    }

    /// Why it is as it is.
    pub const fn why(&self) -> Why {
        self.why
    }

    /// What others are told.
    pub const fn word(&self) -> Word {
        Word {
            announced: self.announced,
            health: self.health,
        }
    }

    /// Hears what a probe found that was asked for at `asked` and ended at `now`.
    pub fn probed(&mut self, probe: Probe, asked: Duration, now: Duration) -> Option<Act> {
        self.health = probe.health();
        if self.health == Health::Well {
            self.misses = 0;
            self.stopping_since = None;
            self.well_since.get_or_insert(now);
            return self.decide(now);
        }
        if self.misses < self.rules.misses {
            self.missing_since = asked;
        }
        self.misses = self.misses.saturating_add(1);
        self.well_since = None;
        match probe {
            Probe::Stopping => {
                self.stopping_since.get_or_insert(now);
            }
            // An edge that said goodbye and is gone has not come back to life.
            Probe::Unreachable | Probe::TimedOut => {}
            Probe::Answered(_) => self.stopping_since = None,
        }
        self.decide(now)
    }

    /// Hears what another announcer said, asked at `asked`.
    pub fn heard(
        &mut self,
        other: usize,
        word: Word,
        asked: Duration,
        now: Duration,
    ) -> Option<Act> {
        if let Some(known) = self.others.get_mut(other) {
            *known = Some((asked, word));
        }
        self.decide(now)
    }

    /// Decides again because time has passed.
    pub fn decide(&mut self, now: Duration) -> Option<Act> {
        if self.announced {
            self.even_since = None;
            self.decide_to_fall(now)
        } else {
            self.decide_to_rise(now)
        }
    }

    /// An operator ends the announcer: whether the prefix may be withdrawn here, as nobody looks
    /// after it from now on. `false`: too few others are announced and well, or better than it.
    pub fn end(&mut self, now: Duration) -> bool {
        let others = self.count(|asked, word| {
            let better = word.health == Health::Well || word.health > self.health;
            self.is_fresh(asked, now) && word.announced && better
        });
        let may = !self.announced || others >= self.rules.floor;
        if may {
            self.announced = false;
            self.why = Why::Ordered;
        } else {
            self.why = Why::LastOne;
        }
        may
    }

    fn decide_to_fall(&mut self, now: Duration) -> Option<Act> {
        let sick = match self.stopping_since {
            Some(since) => now.saturating_sub(since) >= self.rules.farewell,
            None => self.misses >= self.rules.misses,
        };
        if !sick {
            self.why = match (self.stopping_since, self.misses) {
                (Some(_), _) => Why::Stopping,
                (None, 0) => Why::Well,
                (None, _) => Why::Doubt,
            };
            return None;
        }
        if self.better_others(now) < self.rules.floor {
            self.why = Why::LastOne;
            return None;
        }
        self.why = match self.stopping_since {
            Some(_) => Why::Stopping,
            None => Why::Sick,
        };
        self.announced = false;
        Some(Act::Withdraw)
    }

    fn decide_to_rise(&mut self, now: Duration) -> Option<Act> {
        if self.others_that_may_be(now, |_| true) < self.rules.floor {
            self.announced = true;
            self.why = Why::TooFew;
            return Some(Act::Announce);
        }
        if self.are_even(now) && self.may_rise(now) {
            self.rise(now, Why::Even);
            return Some(Act::Announce);
        }
        let Some(since) = self.well_since else {
            self.why = match self.stopping_since {
                Some(_) => Why::Stopping,
                None => Why::Sick,
            };
            return None;
        };
        if now.saturating_sub(since) < self.rules.rise {
            self.why = Why::Rising;
            return None;
        }
        if !self.may_rise(now) {
            let well = self.count(|asked, word| {
                self.is_fresh(asked, now) && word.announced && word.health == Health::Well
            });
            // One that comes and goes is still better than others that limp.
            if well >= self.rules.floor {
                self.why = Why::Flapping;
                return None;
            }
            self.rises.pop_front();
        }
        self.rise(now, Why::Well);
        Some(Act::Announce)
    }

    fn rise(&mut self, now: Duration, why: Why) {
        self.rises.push_back(now);
        self.announced = true;
        self.why = why;
    }

    /// Whether it was not announced again too often lately.
    fn may_rise(&mut self, now: Duration) -> bool {
        while let Some(first) = self.rises.front()
            && now.saturating_sub(*first) >= self.rules.per
        {
            self.rises.pop_front();
        }
        let most = usize::try_from(self.rules.rises).unwrap_or(usize::MAX);
        self.rises.len() < most
    }

    /// Whether, for long enough, too few announced others have been better. Leaving to them was for
    /// nothing then: what made this one sick made them sick too, a little later.
    fn are_even(&mut self, now: Duration) -> bool {
        let health = self.health;
        if self.others_that_may_be(now, |word| word.health > health) >= self.rules.floor {
            self.even_since = None;
            return false;
        }
        let since = *self.even_since.get_or_insert(now);
        health < Health::Well && now.saturating_sub(since) >= self.rules.even
    }

    /// Others that said, not too long ago and since this one was sure, that they are announced and
    /// better than it. What makes one edge sick may make all of them sick: older words say
    /// nothing of that.
    fn better_others(&self, now: Duration) -> u32 {
        self.count(|asked, word| {
            let since = asked >= self.missing_since;
            let better = word.announced && word.health > self.health;
            self.is_fresh(asked, now) && since && better
        })
    }

    /// Others whose last word was that they are announced and that `is` so. The silent ones count for
    /// a while, and beside a dead edge for good: a process that cannot be asked has withdrawn nothing.
    fn others_that_may_be(&self, now: Duration, is: impl Fn(Word) -> bool) -> u32 {
        let for_good = self.health == Health::Dead;
        let heard = self.count(|asked, word| {
            let holds = now.saturating_sub(asked) <= self.rules.silence;
            word.announced && is(word) && (holds || for_good)
        });
        let listening = now.saturating_sub(self.began) <= self.rules.silence;
        let unheard = self.others.iter().filter(|word| word.is_none()).count();
        let unheard = u32::try_from(unheard).unwrap_or(u32::MAX);
        heard.saturating_add(if listening || for_good { unheard } else { 0 })
    }

    fn is_fresh(&self, asked: Duration, now: Duration) -> bool {
        now.saturating_sub(asked) <= self.rules.fresh
    }

    fn count(&self, is: impl Fn(Duration, Word) -> bool) -> u32 {
        let known = self.others.iter().flatten();
        let count = known.filter(|(asked, word)| is(*asked, *word)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
