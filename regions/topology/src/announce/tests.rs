#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "test code"
)]

use proptest::prelude::*;

use super::*;

const WELL: Probe = Probe::Answered(Parts {
    decide: true,
    write_ahead: true,
    fresh_trips: true,
});
const STALE: Probe = Probe::Answered(Parts {
    decide: true,
    write_ahead: true,
    fresh_trips: false,
});
const BEST: Word = Word {
    announced: true,
    health: Health::Well,
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An announced edge beside another one.
fn beside_one() -> Announcement {
    Announcement::new(Rules::default(), true, 1, ms(0))
}

#[test]
fn two_misses_withdraw_when_another_is_well_and_one_does_not() {
    for probe in [STALE, Probe::TimedOut, Probe::Unreachable] {
        let mut edge = beside_one();
        assert_eq!(edge.probed(WELL, ms(0), ms(1)), None);
        assert_eq!(edge.probed(probe, ms(250), ms(251)), None);
        assert_eq!(edge.why(), Why::Doubt);
        assert_eq!(edge.heard(0, BEST, ms(260), ms(261)), None);
        assert_eq!(edge.probed(probe, ms(500), ms(501)), None);
        assert_eq!(edge.heard(0, BEST, ms(510), ms(511)), Some(Act::Withdraw));
        assert_eq!(edge.why(), Why::Sick);
        let mut edge = beside_one();
        edge.heard(0, BEST, ms(260), ms(261));
        for turn in 1..20 {
            let probe = if turn % 2 == 0 { WELL } else { probe };
            assert_eq!(edge.probed(probe, ms(turn * 250), ms(turn * 250 + 1)), None);
        }
    }
}

#[test]
fn words_from_before_the_trouble_do_not_count() {
    let mut edge = beside_one();
    edge.heard(0, BEST, ms(900), ms(901));
    edge.probed(STALE, ms(1_000), ms(1_001));
    assert_eq!(edge.probed(STALE, ms(1_250), ms(1_251)), None);
    assert_eq!(edge.why(), Why::LastOne);
    assert_eq!(
        edge.heard(0, BEST, ms(1_260), ms(1_261)),
        Some(Act::Withdraw)
    );
}

#[test]
fn the_last_one_stays_whatever_becomes_of_it() {
    let others = [
        None,
        Some(Word {
            announced: false,
            health: Health::Well,
        }),
        Some(Word {
            announced: true,
            health: Health::Limps,
        }),
    ];
    for word in others {
        let mut edge = beside_one();
        for turn in 1..100 {
            let at = ms(turn * 250);
            if let Some(word) = word {
                assert_eq!(edge.heard(0, word, at, at), None, "{word:?}");
            }
            assert_eq!(edge.probed(STALE, at, at), None, "{word:?}");
        }
        assert_eq!(edge.why(), Why::LastOne);
        assert!(!edge.end(ms(25_000)));
    }
    // A dead one leaves to one that limps: some answers are better than none.
    let mut edge = beside_one();
    edge.probed(Probe::TimedOut, ms(0), ms(600));
    let limps = Word {
        announced: true,
        health: Health::Limps,
    };
    edge.heard(0, limps, ms(700), ms(701));
    assert_eq!(
        edge.probed(Probe::TimedOut, ms(600), ms(1_200)),
        Some(Act::Withdraw)
    );
}

#[test]
fn an_edge_without_others_is_never_withdrawn() {
    let mut edge = Announcement::new(Rules::default(), true, 0, ms(0));
    for turn in 1..50 {
        assert_eq!(edge.probed(Probe::Unreachable, ms(turn), ms(turn)), None);
    }
    let mut edge = Announcement::new(Rules::default(), false, 0, ms(0));
    assert_eq!(
        edge.probed(Probe::Unreachable, ms(1), ms(2)),
        Some(Act::Announce)
    );
}

#[test]
fn it_rises_after_its_time_and_at_once_when_nobody_else_is_announced() {
    let mut edge = Announcement::new(Rules::default(), false, 1, ms(0));
    for second in 0..30 {
        edge.heard(0, BEST, ms(second * 1_000), ms(second * 1_000));
        assert_eq!(
            edge.probed(WELL, ms(second * 1_000), ms(second * 1_000)),
            None
        );
        assert_eq!(edge.why(), Why::Rising);
    }
    edge.heard(0, BEST, ms(30_000), ms(30_000));
    assert!(edge.is_announced());
    let mut edge = Announcement::new(Rules::default(), false, 1, ms(0));
    assert_eq!(edge.probed(STALE, ms(1), ms(2)), None);
    let gone = Word {
        announced: false,
        health: Health::Limps,
    };
    assert_eq!(edge.heard(0, gone, ms(3), ms(4)), Some(Act::Announce));
    assert_eq!(edge.why(), Why::TooFew);
}

#[test]
fn silence_of_the_others_brings_back_who_answers_and_not_who_is_dead() {
    let withdrawn = |probe| {
        let mut edge = Announcement::new(Rules::default(), false, 1, ms(0));
        edge.heard(0, BEST, ms(0), ms(0));
        assert_eq!(edge.probed(probe, ms(4_900), ms(4_900)), None);
        edge.probed(probe, ms(5_100), ms(5_100))
    };
    assert_eq!(withdrawn(STALE), Some(Act::Announce));
    assert_eq!(withdrawn(Probe::TimedOut), None);
}

#[test]
fn who_left_to_others_that_are_no_better_comes_back() {
    let limps = Word {
        announced: true,
        health: Health::Limps,
    };
    let mut edge = beside_one();
    edge.probed(STALE, ms(0), ms(0));
    edge.probed(STALE, ms(250), ms(250));
    assert_eq!(edge.heard(0, BEST, ms(300), ms(300)), Some(Act::Withdraw));
    // What made it sick makes the other one sick, a moment later.
    for turn in 2..14 {
        assert_eq!(edge.heard(0, limps, ms(turn * 250), ms(turn * 250)), None);
    }
    assert_eq!(edge.why(), Why::Sick);
    assert_eq!(
        edge.heard(0, limps, ms(3_500), ms(3_500)),
        Some(Act::Announce)
    );
    assert_eq!(edge.why(), Why::Even);
    // A moment of the other's trouble is not enough.
    let mut edge = beside_one();
    edge.probed(STALE, ms(0), ms(0));
    edge.probed(STALE, ms(250), ms(250));
    edge.heard(0, BEST, ms(300), ms(300));
    for turn in 2..100 {
        let word = if turn % 8 == 0 { BEST } else { limps };
        assert_eq!(edge.heard(0, word, ms(turn * 250), ms(turn * 250)), None);
    }
}

#[test]
fn a_stopping_edge_is_withdrawn_after_its_farewell() {
    let mut edge = beside_one();
    assert_eq!(edge.probed(Probe::Stopping, ms(0), ms(1)), None);
    assert_eq!(edge.why(), Why::Stopping);
    edge.heard(0, BEST, ms(500), ms(501));
    assert_eq!(edge.probed(Probe::Stopping, ms(250), ms(751)), None);
    assert_eq!(
        edge.probed(Probe::Stopping, ms(1_000), ms(1_001)),
        Some(Act::Withdraw)
    );
    // It is gone, and started again.
    assert_eq!(edge.probed(Probe::Unreachable, ms(2_000), ms(2_001)), None);
    edge.probed(WELL, ms(3_000), ms(3_001));
    assert_eq!(edge.why(), Why::Rising);
}

#[test]
fn an_edge_that_comes_and_goes_is_announced_so_often_only() {
    let rules = Rules {
        rise: ms(1_000),
        rises: 3,
        per: ms(1_000_000),
        ..Rules::default()
    };
    let mut edge = Announcement::new(rules, true, 1, ms(0));
    let mut rose = 0;
    for turn in 0..2_000_u64 {
        let at = ms(turn * 250);
        // Well for two seconds, sick for one.
        let probe = if turn % 12 < 8 { WELL } else { STALE };
        rose += u32::from(edge.heard(0, BEST, at, at) == Some(Act::Announce));
        rose += u32::from(edge.probed(probe, at, at) == Some(Act::Announce));
    }
    assert_eq!(rose, 3);
    assert!(!edge.is_announced());
    // The budget is for a time: later it may again.
    let later = ms(1_600_000);
    edge.probed(WELL, later, later);
    let later = later + ms(1_000);
    edge.heard(0, BEST, later, later);
    assert!(edge.is_announced());
}

#[test]
fn an_operator_may_end_it_where_another_is_as_good() {
    let mut edge = beside_one();
    edge.probed(WELL, ms(0), ms(0));
    edge.heard(0, BEST, ms(10), ms(10));
    assert!(edge.end(ms(20)));
    assert!(!edge.is_announced());
    assert_eq!(edge.why(), Why::Ordered);
    let mut edge = beside_one();
    edge.probed(WELL, ms(0), ms(0));
    edge.heard(0, BEST, ms(10), ms(10));
    assert!(!edge.end(ms(2_000)), "its word is old");
}

fn probe() -> impl Strategy<Value = Probe> {
    prop_oneof![
        4 => Just(WELL),
        2 => Just(STALE),
        1 => Just(Probe::TimedOut),
        1 => Just(Probe::Unreachable),
        1 => Just(Probe::Stopping),
    ]
}

fn word() -> impl Strategy<Value = Word> {
    let health = prop_oneof![
        3 => Just(Health::Well),
        1 => Just(Health::Limps),
        1 => Just(Health::Dead),
    ];
    (prop::bool::weighted(0.8), health).prop_map(|(announced, health)| Word { announced, health })
}

proptest! {
    /// Whatever is seen: a withdrawal is always of an edge with two misses (or that is stopping), and
    /// there is another one, heard since, that is announced and better.
    #[test]
    fn nobody_withdraws_without_a_better_one(
        steps in prop::collection::vec((0..400_u64, probe(), prop::option::of((0..2_usize, word()))), 1..400)
    ) {
        let rules = Rules::default();
        let mut edge = Announcement::new(rules, true, 2, ms(0));
        let (mut now, mut misses, mut since) = (ms(0), 0_u32, ms(0));
        let mut heard: [Option<(Duration, Word)>; 2] = [None; 2];
        for (pass, probe, other) in steps {
            let asked = now;
            now += ms(pass);
            let mut acts = Vec::new();
            if let Some((who, word)) = other {
                heard[who] = Some((asked, word));
                acts.push(edge.heard(who, word, asked, now));
            }
            if probe == WELL {
                misses = 0;
            } else {
                if misses < 2 {
                    since = asked;
                }
                misses += 1;
            }
            // What was heard is judged with what the probe before it found.
            if acts.contains(&Some(Act::Withdraw)) {
                prop_assert!(heard.iter().flatten().any(|(_, word)| word.announced));
            }
            if edge.probed(probe, asked, now) == Some(Act::Withdraw) {
                prop_assert!(misses >= 2 || probe == Probe::Stopping || edge.why() == Why::Stopping);
                let better = heard.iter().flatten().any(|(asked, word)| {
                    *asked >= since
                        && now - *asked <= rules.fresh
                        && word.announced
                        && word.health > probe.health()
                });
                prop_assert!(better, "{heard:?} {probe:?}");
            }
        }
    }

    /// Several edges, each looked after by its own announcer and told of the others after a delay,
    /// fall sick and recover as they like: the prefix is never announced nowhere for longer than it
    /// takes to hear of it; and whenever an edge has been well and the only well one for long enough,
    /// it is announced.
    #[test]
    fn somebody_is_always_announced(
        edges in 2..5_usize,
        changes in prop::collection::vec((0..5_usize, probe(), 1..20_u64), 1..60),
        delays in prop::collection::vec(0..200_u64, 25),
    ) {
        const TURN: u64 = 250;
        let rules = Rules { rise: ms(2_000), ..Rules::default() };
        let mut all: Vec<Announcement> = (0..edges)
            .map(|_| Announcement::new(rules, true, edges - 1, ms(0)))
            .collect();
        let mut probes = vec![WELL; edges];
        // What each knows of the others is as old as its link is slow.
        let mut said: Vec<Vec<Word>> = Vec::new();
        let (mut turn, mut nobody) = (0_u64, 0_u64);
        for (who, probe, turns) in changes {
            probes[who % edges] = probe;
            for _ in 0..turns {
                let now = ms(turn * TURN);
                said.push(all.iter().map(Announcement::word).collect());
                for one in 0..edges {
                    for other in (0..edges).filter(|other| *other != one) {
                        let lag = 1 + delays[one * 5 + other] / TURN;
                        let Some(at) = turn.checked_sub(lag) else { continue };
                        let place = if other < one { other } else { other - 1 };
                        let word = said[at as usize][other];
                        all[one].heard(place, word, ms(at * TURN), now);
                    }
                    all[one].probed(probes[one], now, now);
                }
                turn += 1;
                let announced = all.iter().filter(|edge| edge.is_announced()).count();
                nobody = if announced == 0 { nobody + 1 } else { 0 };
                prop_assert!(nobody <= 2, "nobody is announced for {nobody} turns");
            }
        }
        // In the end one is well, and the others are not.
        probes.fill(STALE);
        probes[0] = WELL;
        for _ in 0..40 {
            let now = ms(turn * TURN);
            let words: Vec<Word> = all.iter().map(Announcement::word).collect();
            for one in 0..edges {
                for other in (0..edges).filter(|other| *other != one) {
                    let place = if other < one { other } else { other - 1 };
                    all[one].heard(place, words[other], now, now);
                }
                all[one].probed(probes[one], now, now);
            }
            turn += 1;
        }
        let on: Vec<bool> = all.iter().map(Announcement::is_announced).collect();
        prop_assert!(on[0], "{on:?}");
        prop_assert!(on[1..].iter().all(|on| !on), "{on:?} {:?}", all.iter().map(Announcement::why).collect::<Vec<_>>());
    }
}
