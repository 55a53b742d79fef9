//! A watch is told what edges said, at moments that are made up.

#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use anyhow::anyhow;
use serde_json::json;

use super::super::desk::tests::well;
use super::*;

/// An edge that has counted so many answers on primary and while standing in, late ones among the former,
/// and requests without an answer.
fn counted(edge: u64, [primary, stand_in, late, unanswered]: [u64; 4]) -> Seen {
    let in_time = primary - late;
    let text = format!(
        r#"standin_answers_total{{bank="a",rung="primary"}} {primary}
standin_answers_total{{bank="a",rung="stand_in"}} {stand_in}
standin_answer_duration_seconds_bucket{{rung="primary",le="0.3"}} {in_time}
standin_answer_duration_seconds_bucket{{rung="primary",le="1"}} {in_time}
standin_answer_duration_seconds_bucket{{rung="primary",le="+Inf"}} {primary}
standin_answer_duration_seconds_bucket{{rung="stand_in",le="0.3"}} {stand_in}
standin_answer_duration_seconds_bucket{{rung="stand_in",le="1"}} {stand_in}
standin_answer_duration_seconds_bucket{{rung="stand_in",le="+Inf"}} {stand_in}
"#
    );
    Seen {
        counters: Counters::read(&text),
        unanswered,
        ..well(edge)
    }
}

fn with(mut seen: Seen, path: &str, value: Value) -> Seen {
    let (parent, name) = path.rsplit_once('/').unwrap();
    seen.page.pointer_mut(parent).unwrap()[name] = value;
    seen
}

struct Told {
    watch: Watch,
    began: Instant,
}

impl Told {
    /// Of two edges of one region; the fault is played on the first.
    fn new() -> Self {
        let name = |edge| EdgeName {
            region: "near".to_owned(),
            edge,
        };
        let about = About {
            names: vec![name(1), name(2)],
            played: BTreeSet::from([0]),
            deadline_ms: 1_000,
            abort: Abort {
                unanswered_of_10_000: 100,
                late_of_10_000: 500,
            },
        };
        let began = Instant::now();
        Self {
            watch: Watch::new(about, began),
            began,
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    /// Looks that took 10 ms.
    fn hear(&mut self, ms: u64, looks: [anyhow::Result<Seen>; 2]) {
        let (sent, now) = (self.at(ms - 10), self.at(ms));
        self.watch.hear(looks.into(), sent, now);
    }

    fn counts(&mut self, ms: u64, first: [u64; 4], second: [u64; 4]) {
        self.hear(ms, [Ok(counted(1, first)), Ok(counted(2, second))]);
    }

    fn cause(&self, ms: u64) -> Option<String> {
        self.watch.cause_to_abort(self.at(ms))
    }
}

#[tokio::test]
async fn what_is_counted_belongs_to_its_part_and_to_whom_it_was_played_on() {
    let mut told = Told::new();
    // What edges had counted before does not belong to the drill.
    told.counts(100, [500, 7, 3, 9], [900, 0, 0, 0]);
    told.counts(1_100, [540, 7, 3, 9], [960, 0, 0, 0]);
    told.watch.fault_began(told.at(1_100), told.at(1_120));
    told.counts(2_100, [541, 47, 4, 11], [1_020, 0, 0, 0]);
    told.watch.fault_ended(told.at(2_100));
    // The second edge began anew.
    told.counts(3_100, [581, 47, 4, 11], [5, 0, 0, 1]);
    let part = |phase, of_played| told.watch.part(phase, of_played);
    let before = part(Phase::Before, false);
    assert_eq!(
        (before.answered, before.unanswered, before.late),
        (100, 0, 0)
    );
    assert_eq!(before.prompt, 100);
    let fault = part(Phase::Fault, false);
    assert_eq!((fault.answered, fault.unanswered, fault.late), (101, 2, 1));
    assert_eq!(fault.rungs["stand_in"], 40);
    assert_eq!(fault.prompt, 100);
    let played = part(Phase::Fault, true);
    assert_eq!((played.answered, played.unanswered), (41, 2));
    assert_eq!((played.rungs["primary"], played.ms), (1, 1_000));
    let after = part(Phase::After, false);
    assert_eq!((after.answered, after.unanswered), (45, 1));
    assert_eq!(part(Phase::After, true).answered, 40);
    let (ticks, _) = told.watch.timeline();
    let answers = |at: usize| ticks[at].replies.values().sum::<u64>();
    assert_eq!((ticks.len(), answers(1), answers(2)), (4, 100, 101));
}

#[tokio::test]
async fn the_first_stand_in_answer_lies_between_two_looks() {
    let mut told = Told::new();
    told.counts(100, [10, 5, 0, 0], [10, 0, 0, 0]);
    told.watch.fault_began(told.at(150), told.at(160));
    told.counts(250, [11, 5, 0, 0], [12, 0, 0, 0]);
    // Another edge's does not count.
    told.counts(350, [11, 5, 0, 0], [12, 1, 0, 0]);
    assert_eq!(told.watch.first_stand_in, None);
    told.counts(450, [11, 6, 0, 0], [12, 1, 0, 0]);
    told.counts(550, [11, 9, 0, 0], [12, 1, 0, 0]);
    // The look at 350 was sent at 340 and had not seen it.
    let expected = Between {
        after_ms: 180,
        by_ms: 300,
    };
    assert_eq!(told.watch.first_stand_in, Some(expected));
}

#[tokio::test]
async fn a_drill_ends_when_too_many_of_the_last_seconds_requests_fail() {
    let mut told = Told::new();
    told.counts(100, [0, 0, 0, 0], [0, 0, 0, 0]);
    told.counts(200, [10, 0, 0, 5], [0, 0, 0, 0]);
    assert_eq!(told.cause(200), None, "15 requests say nothing");
    told.counts(300, [15, 0, 0, 5], [0, 0, 0, 0]);
    let cause = told.cause(300).unwrap();
    assert!(cause.starts_with("5 of 20 requests"), "{cause}");
    told.counts(400, [495, 0, 0, 5], [0, 0, 0, 0]);
    assert_eq!(told.cause(400), None, "5 of 500 may be");
    // What is older than the window does not count any more.
    told.counts(5_350, [496, 0, 0, 6], [0, 0, 0, 0]);
    assert_eq!(told.cause(5_350), None, "two requests of 480 and two");
    told.counts(5_450, [517, 0, 2, 6], [0, 0, 0, 0]);
    let cause = told.cause(5_450);
    assert!(cause.is_some_and(|cause| cause.contains("no answer")));
    told.counts(11_000, [517, 0, 2, 6], [0, 0, 0, 0]);
    told.counts(11_100, [537, 0, 4, 6], [0, 0, 0, 0]);
    let cause = told.cause(11_100).unwrap();
    assert!(
        cause.contains("2 of 20 requests") && cause.contains("late"),
        "{cause}"
    );
}

#[tokio::test]
async fn a_drill_ends_when_an_edge_has_a_trouble_of_its_own() {
    let fine = || Ok(well(2));
    let mut told = Told::new();
    told.hear(100, [Ok(well(1)), fine()]);
    let alarmed = |name| with(well(1), "/alarms", json!([{ "name": name }]));
    told.hear(
        200,
        [Ok(alarmed("primary_away")), Ok(alarmed("primary_away"))],
    );
    told.hear(300, [Ok(alarmed("fault_played")), fine()]);
    assert_eq!(told.cause(300), None, "that is what a fault raises");
    told.hear(400, [Ok(well(1)), Ok(alarmed("overloaded"))]);
    let cause = told.cause(400).unwrap();
    assert!(cause.contains("near/2 raises overloaded"), "{cause}");
    let mut unready = well(2);
    unready.ready.ok = false;
    unready.ready.why = Some("the write-ahead log has no leader".to_owned());
    told.hear(500, [Ok(well(1)), Ok(unready)]);
    assert!(told.cause(500).unwrap().contains("has no leader"));
    told.hear(550, [Ok(well(1)), fine()]);
    told.hear(600, [Ok(well(1)), Err(anyhow!("refused"))]);
    told.hear(3_500, [Ok(well(1)), Err(anyhow!("refused"))]);
    assert_eq!(told.cause(3_500), None, "it may come back");
    assert!(!told.watch.troubles().is_empty());
    told.hear(3_600, [Ok(well(1)), Err(anyhow!("refused"))]);
    assert!(
        told.cause(3_600)
            .unwrap()
            .contains("does not answer: refused")
    );
    told.hear(3_700, [Ok(well(1)), fine()]);
    assert_eq!(told.cause(3_700), None);
    assert_eq!(told.watch.troubles(), [""; 0]);
}

/// Edges of a log that is applied and drained so far; the first leads.
fn logged(applied: u64, drained: u64, changes: u64) -> [anyhow::Result<Seen>; 2] {
    [1, 2].map(|edge| {
        let wal = json!({ "applied_index": applied, "leader": 1, "node": edge, "term": 3 });
        let seen = with(well(edge), "/wal", wal);
        let cursor = if edge == 1 { drained } else { 0 };
        let seen = with(seen, "/drain", json!({ "cursor": cursor }));
        let exposure = json!({ "currency": "USD", "worst_case_minor": 90, "approved_without_primary_minor": applied });
        let seen = with(seen, "/exposure", exposure);
        let counts = json!({ "counts": { "answered": applied } });
        let seen = with(seen, "/register", counts);
        let changes = if edge == 1 { changes } else { 50 * changes };
        Ok(with(seen, "/breaker/changes", json!(changes)))
    })
}

#[tokio::test]
async fn it_is_settled_when_what_the_log_held_is_in_the_ledger_and_all_is_well() {
    let mut told = Told::new();
    told.hear(100, logged(10, 10, 3));
    told.watch.fault_began(told.at(100), told.at(110));
    told.hear(200, logged(40, 12, 4));
    told.watch.fault_ended(told.at(210));
    assert_eq!(told.watch.backlog_at_heal, 30);
    told.hear(310, logged(60, 39, 5));
    assert_eq!(told.watch.drained_in_ms, None);
    let [first, second] = logged(70, 40, 5);
    let still_open = first.map(|seen| with(seen, "/breaker/position/state", json!("ramp")));
    told.hear(410, [still_open, second]);
    assert_eq!(
        told.watch.drained_in_ms,
        Some(200),
        "what came after is live traffic"
    );
    assert_eq!(told.watch.settled_in_ms, None);
    told.hear(510, logged(80, 50, 5));
    told.hear(610, logged(90, 50, 5));
    assert_eq!(told.watch.settled_in_ms, Some(300));
    // In the fault, of the edge that it was played on.
    assert_eq!(told.watch.mode_changes(), 1);
    assert_eq!(
        (told.watch.exposed_minor, told.watch.worst_case_minor),
        (90, 90)
    );
    assert_eq!(told.watch.currency.as_deref(), Some("USD"));
}
