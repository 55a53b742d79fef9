//! Every drill there is: what is believed, what is broken, and what is expected.
//!
//! The figures of the limits are those of the design's promises L1 to L6. Where a fault leaves no room
//! for one (an edge without a log answers only after the log's budget), the limit is wider or absent,
//! and the hypothesis says why.

use std::time::Duration;

use standin_core::answer::Rung;
use standin_reconcile::report::drill::{DrainLimits, GoodputLimits, Limits};

use super::faults::{Fault, Trouble};
use super::world::{Shape, Standby};

/// One drill.
#[derive(Clone, Debug)]
pub(super) struct Drill {
    /// On the command line.
    pub(super) name: &'static str,
    /// In a few words.
    pub(super) title: &'static str,
    /// What is believed to happen.
    pub(super) hypothesis: &'static str,
    /// What is broken, in this order; healed in the other.
    pub(super) faults: Vec<Fault>,
    /// The world it needs.
    pub(super) shape: Shape,
    /// How long its parts are.
    pub(super) pace: Pace,
    /// What the load is while something is broken.
    pub(super) storm: Storm,
    /// What is expected.
    pub(super) limits: Limits,
}

/// How long the parts of a drill are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pace {
    /// Before.
    pub(super) steady: Duration,
    /// While something is broken.
    pub(super) fault: Span,
    /// After.
    pub(super) after: Duration,
}

/// How long something is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Span {
    /// So long.
    For(Duration),
    /// Until so many answers wait for the ledger as are asked for.
    UntilBacklog,
}

/// What the load is while something is broken, beside the usual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Storm {
    /// Times the usual rate.
    pub(super) rate: u64,
    /// How often each payment is sent at once.
    pub(super) copies: u8,
}

// === impl Pace ===

impl Pace {
    pub(super) const fn of(steady: u64, fault: u64, after: u64) -> Self {
        Self {
            steady: Duration::from_secs(steady),
            fault: Span::For(Duration::from_secs(fault)),
            after: Duration::from_secs(after),
        }
    }

    /// The same in a quarter of the time, and of no part less than 4 s.
    pub(super) fn quick(self) -> Self {
        let short = |time: Duration| {
            time.checked_div(4)
                .unwrap_or(time)
                .max(Duration::from_secs(4))
                .min(time)
        };
        Self {
            steady: short(self.steady),
            fault: match self.fault {
                Span::For(time) => Span::For(short(time)),
                Span::UntilBacklog => Span::UntilBacklog,
            },
            after: short(self.after),
        }
    }
}

// === impl Storm ===

impl Storm {
    const NONE: Self = Self { rate: 1, copies: 1 };
}

// === impl Drill ===

impl Drill {
    fn new(
        name: &'static str,
        title: &'static str,
        hypothesis: &'static str,
        faults: Vec<Fault>,
    ) -> Self {
        Self {
            name,
            title,
            hypothesis,
            faults,
            shape: Shape::USUAL,
            pace: Pace::of(10, 15, 15),
            storm: Storm::NONE,
            limits: Limits::default(),
        }
    }

    fn expects(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    fn lasting(mut self, steady: u64, fault: u64, after: u64) -> Self {
        self.pace = Pace::of(steady, fault, after);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Shape)) -> Self {
        change(&mut self.shape);
        self
    }

    /// The drill of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        all().into_iter().find(|drill| drill.name == name)
    }
}

/// Answers within 300 ms: so many percent, and none may be missing.
pub(super) fn prompt(percent: f64) -> Limits {
    Limits {
        prompt_percent: Some(percent),
        ..Limits::default()
    }
}

/// The same, and the first stand-in answer comes so soon.
pub(super) fn stands_in(percent: f64, first_ms: u64) -> Limits {
    Limits {
        first_stand_in_ms: Some(first_ms),
        rungs: vec![Rung::StandIn],
        ..prompt(percent)
    }
}

/// Every drill, the most telling first.
pub(super) fn all() -> Vec<Drill> {
    let mut all = of_the_primary();
    all.extend(of_its_link());
    all.extend(of_the_ledger());
    all.extend(of_the_trip_cache());
    all.extend(of_the_log());
    all.extend(of_clocks());
    all.extend(of_links());
    all.extend(of_load());
    all.extend(of_two());
    all
}

fn of_the_primary() -> Vec<Drill> {
    vec![
        Drill::new(
            "primary-killed",
            "The Postgres primary is killed",
            "Connections break at once; every edge stands in with its next request, and the primary \
             answers again after it is started.",
            vec![Fault::PrimaryKilled],
        )
        .expects(stands_in(99.95, 500)),
        Drill::new(
            "primary-hung",
            "The Postgres primary hangs",
            "Nothing is closed and nothing is answered: each request waits for its own budget (100 ms) \
             and stands in, until the breakers open.",
            vec![Fault::PrimaryHung],
        )
        .expects(stands_in(99.9, 1_000)),
        Drill::new(
            "long-outage",
            "A long outage, then the backlog drains",
            "Everything is answered from the log; when the primary is back the backlog goes into the \
             ledger without live payments feeling it.",
            vec![Fault::PrimaryHung],
        )
        .expects(Limits {
            drain: Some(DrainLimits {
                backlog_min: 0,
                within_ms_per_20_000: 20_000,
                p99_ratio: 1.5,
            }),
            ..stands_in(99.9, 1_000)
        })
        .until_backlog(),
    ]
}

fn of_its_link() -> Vec<Drill> {
    let link = |trouble| vec![Fault::PrimaryLink(trouble)];
    let through_proxy = |shape: &mut Shape| shape.primary_link = true;
    let late = |ms| Trouble::Slow(Duration::from_millis(ms));
    let no_flaps = |limits: Limits| Limits {
        mode_changes_per_minute: Some(1),
        ..limits
    };
    vec![
        Drill::new(
            "primary-blackholed",
            "The link to the primary swallows everything",
            "As a primary that hangs: connections stay open, no byte passes either way, each request \
             stands in when its own budget is spent.",
            link(Trouble::Blackhole),
        )
        .with(through_proxy)
        .expects(stands_in(99.9, 1_000)),
        Drill::new(
            "primary-slow",
            "The primary is 300 ms away",
            "Slower than each request's budget: edges stand in, and the breakers open once and stay \
             open rather than flap.",
            link(late(300)),
        )
        .with(through_proxy)
        .lasting(10, 60, 15)
        .expects(no_flaps(stands_in(99.95, 1_000))),
        Drill::new(
            "primary-very-slow",
            "The primary is a second away",
            "As 300 ms, only more so.",
            link(late(1_000)),
        )
        .with(through_proxy)
        .lasting(10, 60, 15)
        .expects(no_flaps(stands_in(99.95, 1_000))),
        Drill::new(
            "primary-brown-out",
            "One piece in ten on the link to the primary is a second late",
            "Requests that are caught stand in at the end of their own budget, and the breakers \
             change at most once a minute.",
            link(Trouble::Sometimes(10, Duration::from_secs(1))),
        )
        .with(through_proxy)
        .lasting(10, 60, 15)
        .expects(no_flaps(stands_in(99.95, 2_000))),
    ]
}

fn of_the_ledger() -> Vec<Drill> {
    vec![
        Drill::new(
            "primary-read-only",
            "The primary refuses to write",
            "Its refusal is no answer for a bank: edges stand in, and nothing is lost when it takes \
             writes again.",
            vec![Fault::PrimaryReadOnly],
        )
        .expects(stands_in(99.95, 1_000)),
        Drill::new(
            "primary-full",
            "The primary's disk is full",
            "Postgres refuses or ends; either way edges stand in, and what they answered is booked when \
             there is room.",
            vec![Fault::PrimaryFull],
        )
        .with(|shape| shape.small_disk = true)
        .expects(Limits {
            // Until it must grow a file it goes on.
            first_stand_in_ms: None,
            ..stands_in(99.9, 0)
        })
        .lasting(10, 20, 15),
        Drill::new(
            "promotion",
            "The primary dies, its synchronous standby is promoted",
            "Edges follow without a restart and nothing is missing in the ledger; the old primary, \
             which comes back and takes writes, is used by nobody.",
            vec![Fault::PrimaryLost],
        )
        .expects(stands_in(99.9, 500)),
        Drill::new(
            "promotion-with-losses",
            "The primary dies, and the promoted standby lacks its last commits",
            "What the standby never heard of is put back from the log, and nothing that was told is \
             missing in the end.",
            vec![Fault::PrimaryLost],
        )
        .with(|shape| shape.standby = Standby::Asynchronous)
        .expects(Limits {
            // The primary dies some seconds after its standby was cut off.
            first_stand_in_ms: None,
            ..stands_in(99.9, 0)
        }),
        Drill::new(
            "standby-lost",
            "The standby hangs that commits wait for",
            "Commits of the drain hang; holds do not wait for it, and payments go on being answered \
             promptly.",
            vec![Fault::StandbyHung],
        )
        .expects(prompt(99.9)),
    ]
}

fn of_the_trip_cache() -> Vec<Drill> {
    let on_primary = || Limits {
        rungs: vec![Rung::Primary],
        ..prompt(99.9)
    };
    vec![
        Drill::new(
            "replica-killed",
            "The edges' replica of the trip cache is killed",
            "Trips are read from the sibling, and payments go on as before.",
            vec![Fault::ReplicaKilled],
        )
        .expects(on_primary()),
        Drill::new(
            "replica-hung",
            "The edges' replica of the trip cache hangs",
            "A look ends with its 20 ms; the sibling or the primary has the trip.",
            vec![Fault::ReplicaHung],
        )
        .expects(on_primary()),
        Drill::new(
            "replica-stale",
            "The edges' replica of the trip cache hears nothing any more",
            "Its age is measured, not believed: what is too old is looked up elsewhere.",
            vec![Fault::ReplicaStale],
        )
        .with(|shape| shape.replica_link = true)
        .expects(on_primary()),
        Drill::new(
            "replica-wiped",
            "The edges' replica of the trip cache loses every key",
            "A trip that is missing is loaded from the primary; nobody is declined for it.",
            vec![Fault::ReplicaWiped],
        )
        .expects(on_primary()),
    ]
}

fn of_the_log() -> Vec<Drill> {
    vec![
        Drill::new(
            "leader-killed",
            "The edge that leads the log is killed",
            "Another one leads within an election (after 210 to 300 ms of silence); what was under way is \
             answered by another edge, and what was acknowledged is on its disk.",
            vec![Fault::LeaderKilled],
        )
        .expects(prompt(99.0)),
        Drill::new(
            "leader-hung",
            "The edge that leads the log hangs",
            "The others elect another leader; the bank asks another edge. When it goes on it has \
             nothing to say that was not said.",
            vec![Fault::LeaderHung],
        )
        .expects(prompt(99.0)),
        Drill::new(
            "disk-lost",
            "A keeper loses its disk and is rebuilt",
            "It never votes again: a new keeper gets everything from the others, by standin wal \
             rebuild, while the region serves.",
            vec![Fault::KeeperDiskLost],
        )
        .expects(prompt(99.0)),
        Drill::new(
            "region-lost",
            "Every edge of a region is killed",
            "The bank asks the other region, which has a log of its own and the same primary; what was \
             answered before has the same answer there.",
            vec![Fault::RegionLost],
        )
        .with(|shape| shape.far = true)
        .expects(prompt(99.0)),
        Drill::new(
            "certificate-expired",
            "An edge starts with a certificate that has expired",
            "The other edges have no link to it and go on without it; with a fresh certificate it comes \
             in: by itself, or after another start where it had given up.",
            vec![Fault::CertificateExpired],
        )
        .expects(prompt(99.0)),
    ]
}

fn of_clocks() -> Vec<Drill> {
    vec![
        Drill::new(
            "clock-stepped",
            "Two edges' clocks jump an hour, one ahead and one back",
            "Log time and budgets go by the steady clock: the leader goes on leading and stamping, and \
             log time jumps nowhere. Both edges refuse every request whose signature has a time (401), \
             so they answer nobody, though they say that they are ready: the bank, which asks another \
             edge then, has all its answers from the one that is right.",
            vec![Fault::ClocksStepped],
        )
        // Those that meet a refusal are asked for once more, at once.
        .expects(Limits {
            rungs: vec![Rung::Primary],
            ..prompt(99.0)
        }),
    ]
}

fn of_links() -> Vec<Drill> {
    let on_hosts = |shape: &mut Shape| shape.hosts = true;
    // An edge without its log may answer only when the log's budget (700 ms) is spent.
    let slow_edge = || Limits {
        unanswered_of_10_000: 10,
        ..prompt(95.0)
    };
    vec![
        Drill::new(
            "leader-cut",
            "The leader of the log is cut off from the other edges",
            "The two others elect a leader and go on; the one that is alone answers on primary_only at \
             the end of the log's budget, or the bank has its answer from another before.",
            vec![Fault::LeaderCut { both_ways: true }],
        )
        .with(on_hosts)
        .expects(slow_edge()),
        Drill::new(
            "leader-mute",
            "The leader of the log hears the other edges, and they do not hear it",
            "A leader that nobody hears is replaced, and gives way.",
            vec![Fault::LeaderCut { both_ways: false }],
        )
        .with(on_hosts)
        .expects(slow_edge()),
        Drill::new(
            "swizzle",
            "Links between edges are cut one by one and healed in another order",
            "In the worst of it nobody can commit to the log, and edges answer on primary_only; \
             afterwards they agree on one log.",
            vec![Fault::Swizzle],
        )
        .with(on_hosts)
        .lasting(10, 12, 20)
        .expects(Limits {
            // Nobody can answer before the log's budget is spent while all links are cut.
            unanswered_of_10_000: 500,
            rungs: vec![Rung::PrimaryOnly],
            ..Limits::default()
        }),
    ]
}

fn of_load() -> Vec<Drill> {
    let flood = |during, after| Limits {
        unanswered_of_10_000: 10_000,
        goodput: Some(GoodputLimits { during, after }),
        ..Limits::default()
    };
    vec![
        Drill::new(
            "overload",
            "Three times as many payments as usual",
            "What is too much is refused cheaply; what was usual is still answered, and all is as \
             before as soon as it is over.",
            vec![Fault::Flood { times: 3 }],
        )
        .storming(3, 1)
        .lasting(10, 60, 20)
        .expects(flood(80.0, 95.0)),
        Drill::new(
            "retry-storm",
            "Every payment is asked for five times at once",
            "Four of the five are the same payment and cost little; each is answered once.",
            vec![Fault::Flood { times: 5 }],
        )
        .storming(1, 5)
        .lasting(10, 30, 20)
        .expects(flood(80.0, 95.0)),
    ]
}

fn of_two() -> Vec<Drill> {
    vec![
        Drill::new(
            "primary-and-leader",
            "The primary hangs, and the leader of the log is killed",
            "The region stands in, and goes on standing in under another leader.",
            vec![Fault::PrimaryHung, Fault::LeaderKilled],
        )
        .expects(stands_in(99.0, 1_000)),
        Drill::new(
            "primary-and-replica",
            "The primary is killed, and the edges' replica of the trip cache hangs",
            "Trips are read from the sibling, and the region stands in.",
            vec![Fault::PrimaryKilled, Fault::ReplicaHung],
        )
        .expects(stands_in(99.9, 500)),
    ]
}

impl Drill {
    fn until_backlog(mut self) -> Self {
        self.pace.fault = Span::UntilBacklog;
        self.pace.after = Duration::from_secs(30);
        self
    }

    fn storming(mut self, rate: u64, copies: u8) -> Self {
        self.storm = Storm { rate, copies };
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn drills_have_names_of_their_own_and_something_to_break() {
        let names: BTreeSet<&str> = all().iter().map(|drill| drill.name).collect();
        assert_eq!(names.len(), all().len());
        for drill in all() {
            assert!(!drill.faults.is_empty(), "{}", drill.name);
            assert!(Drill::named(drill.name).is_some());
            assert!(!drill.hypothesis.is_empty());
        }
        assert!(Drill::named("nothing").is_none());
    }

    #[test]
    fn a_quick_pace_is_shorter_and_never_longer() {
        let pace = Pace::of(10, 60, 3).quick();
        assert_eq!(pace, Pace::of(4, 15, 3));
    }
}
