use super::*;

const RULES: Rules = Rules {
    every: Duration::from_secs(3_600),
    drained_within: Duration::from_secs(60),
    retry_first: Duration::from_secs(1),
    retry_most: Duration::from_secs(8),
};

/// An edge whose outages began at these places of its log; the last may be on.
fn heard(on: bool, over: Option<u64>, last_index: u64, cursor: u64) -> Option<Heard> {
    Some(Heard {
        outage: on,
        over,
        last_index,
        cursor,
    })
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Turns whose first run ended at 10 s.
fn settled(edges: usize, seen: &[Option<Heard>]) -> Turns {
    let mut turns = Turns::new(RULES, edges);
    turns.hear(s(0), seen);
    assert_eq!(turns.due(s(0)), Some(Cause::Started));
    turns.began();
    assert_eq!(turns.ended(s(10), true), RULES.every);
    assert_eq!(turns.due(s(11)), None);
    turns
}

#[test]
fn a_run_follows_the_end_of_the_last_by_the_schedule() {
    let mut turns = settled(0, &[]);
    assert_eq!(turns.due(s(3_609)), None);
    assert_eq!(turns.due(s(3_610)), Some(Cause::Schedule));
    turns.began();
    turns.ended(s(4_000), true);
    assert_eq!(turns.due(s(7_599)), None);
    assert_eq!(turns.due(s(7_600)), Some(Cause::Schedule));
}

#[test]
fn a_primary_that_is_back_waits_for_its_backlog_and_no_longer() {
    let mut turns = settled(1, &[heard(false, None, 5, 5)]);
    turns.hear(s(20), &[heard(true, None, 9, 5)]);
    assert_eq!(
        turns.due(s(1_000)),
        None,
        "while it is on, only the schedule runs"
    );
    turns.hear(s(1_000), &[heard(false, Some(6), 12, 5)]);
    assert_eq!(turns.due(s(1_000)), None);
    // What is written afterwards is not waited for.
    turns.hear(s(1_001), &[heard(false, Some(6), 40, 11)]);
    assert_eq!(turns.due(s(1_001)), None);
    let mut late = turns.clone();
    assert_eq!(late.due(s(1_059)), None);
    assert_eq!(late.due(s(1_060)), Some(Cause::ReturnedUndrained));
    late.began();
    assert_eq!(late.due(s(1_061)), None, "once");
    turns.hear(s(1_002), &[heard(false, Some(6), 60, 12)]);
    assert_eq!(turns.due(s(1_002)), Some(Cause::Returned));
    turns.began();
    turns.ended(s(1_005), true);
    turns.hear(s(1_006), &[heard(false, Some(6), 61, 61)]);
    assert_eq!(turns.due(s(1_006)), None, "once");
    assert_eq!(turns.due(s(4_605)), Some(Cause::Schedule));
}

#[test]
fn an_outage_between_two_looks_or_during_a_run_counts() {
    let mut turns = settled(1, &[heard(false, Some(3), 5, 5)]);
    turns.hear(s(20), &[heard(false, Some(7), 9, 9)]);
    assert_eq!(turns.due(s(20)), Some(Cause::Returned));
    turns.began();
    turns.hear(s(21), &[heard(false, Some(12), 14, 14)]);
    turns.ended(s(22), true);
    assert_eq!(turns.due(s(22)), Some(Cause::Returned));
}

#[test]
fn an_outage_that_was_over_before_is_the_first_runs() {
    settled(1, &[heard(false, Some(3), 5, 5)]);
    // One that is on when the watch begins is not.
    let mut turns = settled(1, &[heard(true, Some(3), 5, 5)]);
    turns.hear(s(20), &[heard(false, Some(5), 9, 9)]);
    assert_eq!(turns.due(s(20)), Some(Cause::Returned));
}

#[test]
fn a_primary_that_goes_again_is_waited_for_again() {
    let mut turns = settled(1, &[heard(false, None, 5, 5)]);
    turns.hear(s(20), &[heard(false, Some(6), 12, 5)]);
    turns.hear(s(21), &[heard(true, Some(6), 15, 5)]);
    assert_eq!(turns.due(s(500)), None);
    turns.hear(s(500), &[heard(false, Some(13), 20, 20)]);
    assert_eq!(turns.due(s(500)), Some(Cause::Returned));
}

#[test]
fn edges_are_waited_for_together_and_a_silent_one_within_the_bound() {
    let well = heard(false, None, 5, 5);
    let mut turns = settled(2, &[well, well]);
    turns.hear(s(20), &[heard(true, None, 9, 5), heard(true, None, 9, 5)]);
    turns.hear(
        s(30),
        &[heard(false, Some(6), 9, 9), heard(true, None, 9, 5)],
    );
    assert_eq!(turns.due(s(31)), None, "the other is still without");
    turns.hear(s(40), &[None, None]);
    assert_eq!(turns.due(s(89)), None);
    assert_eq!(turns.due(s(90)), Some(Cause::ReturnedUndrained));
    turns.hear(s(50), &[None, heard(false, Some(6), 9, 9)]);
    assert_eq!(turns.due(s(50)), Some(Cause::Returned));
    // One that was never heard holds up nothing.
    let mut turns = settled(2, &[well, None]);
    turns.hear(s(20), &[heard(false, Some(6), 9, 9), None]);
    assert_eq!(turns.due(s(20)), Some(Cause::Returned));
}

#[test]
fn a_run_that_failed_is_tried_again_after_longer_and_longer_but_bounded() {
    let mut turns = Turns::new(RULES, 1);
    let mut now = s(0);
    let rests: Vec<u64> = (0..6)
        .map(|_| {
            assert!(turns.due(now).is_some());
            turns.began();
            let rest = turns.ended(now, false);
            assert_eq!(turns.due(now), None);
            now = now.saturating_add(rest);
            assert_eq!(turns.due(now), Some(Cause::Retry));
            rest.as_secs()
        })
        .collect();
    assert_eq!(rests, [1, 2, 4, 8, 8, 8]);
    turns.began();
    turns.ended(now, true);
    assert_eq!(turns.due(now), None);
    turns.began();
    assert_eq!(turns.ended(now, false), s(1), "a report begins it anew");
    // A primary that is back does not wait for the rest to be over.
    turns.hear(now, &[heard(false, None, 1, 1)]);
    turns.hear(now, &[heard(false, Some(2), 4, 4)]);
    assert_eq!(turns.due(now), Some(Cause::Returned));
}

#[test]
fn no_rest_is_longer_than_the_schedule() {
    let rules = Rules {
        every: s(2),
        ..RULES
    };
    let mut turns = Turns::new(rules, 0);
    let rests = [(); 4].map(|()| turns.ended(s(0), false).as_secs());
    assert_eq!(rests, [1, 2, 2, 2]);
}
