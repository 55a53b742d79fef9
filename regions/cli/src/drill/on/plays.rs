//! The drills that can be played on a deployment: those of the catalogue whose failure an edge can play
//! on itself, under the same names, and some that only mean something there.

use std::time::Duration;

use standin_core::answer::Rung;
use standin_edge::played::Fault;
use standin_reconcile::report::drill::Limits;

use super::super::catalogue::{self, Drill, Pace, Span, prompt, stands_in};

/// How long an outage is that goes on, on one machine, until there is a backlog.
const LONG: Duration = Duration::from_secs(300);

/// A drill that can be played on a deployment.
#[derive(Clone, Debug)]
pub(in crate::drill) struct Play {
    /// On the command line.
    pub(in crate::drill) name: &'static str,
    /// In a few words.
    pub(in crate::drill) title: &'static str,
    /// What is believed to happen.
    pub(in crate::drill) hypothesis: &'static str,
    /// What an edge plays.
    pub(super) fault: Fault,
    /// How long its parts are.
    pub(super) pace: Pace,
    /// What is expected.
    pub(super) limits: Limits,
}

// === impl Play ===

impl Play {
    /// The drill of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        all().into_iter().find(|play| play.name == name)
    }

    /// How long the fault is played.
    pub(super) fn lasts(&self, pace: Pace) -> Duration {
        match pace.fault {
            Span::For(time) => time,
            Span::UntilBacklog if pace == self.pace => LONG,
            Span::UntilBacklog => LONG.checked_div(4).unwrap_or(LONG),
        }
    }

    fn of(drill: &Drill, fault: Fault) -> Self {
        let limits = Limits {
            // Each edge's breaker opens once, or the fault is one that it does not open for.
            mode_changes_per_minute: Some(1),
            // When the first of few calls is caught is chance, where traffic is what it is.
            first_stand_in_ms: drill.limits.first_stand_in_ms.filter(|_| fault.hits_all()),
            ..drill.limits.clone()
        };
        Self {
            name: drill.name,
            title: drill.title,
            hypothesis: drill.hypothesis,
            fault,
            pace: drill.pace,
            limits,
        }
    }
}

/// What an edge plays to see what it would see in a drill of this name; `None` where others would have to
/// feel it too.
fn fault(name: &str) -> Option<Fault> {
    let late = |delay_ms, percent| Some(Fault::PrimarySlow { delay_ms, percent });
    match name {
        "primary-killed" => Some(Fault::PrimaryUnreachable),
        "primary-hung" | "long-outage" => Some(Fault::PrimaryHanging),
        "primary-slow" => late(300, 100),
        "primary-very-slow" => late(1_000, 100),
        "primary-brown-out" => late(1_000, 10),
        _ => None,
    }
}

/// Whether a drill of the catalogue can be played on a deployment too.
pub(in crate::drill) fn is_playable(name: &str) -> bool {
    fault(name).is_some()
}

/// Drills that can be played on a deployment only.
pub(in crate::drill) fn only_deployed() -> Vec<Play> {
    let play = |name, title, hypothesis, fault, limits| Play {
        name,
        title,
        hypothesis,
        fault,
        pace: Pace::of(10, 30, 15),
        limits: Limits {
            mode_changes_per_minute: Some(1),
            ..limits
        },
    };
    let on_primary = || Limits {
        rungs: vec![Rung::Primary],
        ..prompt(99.9)
    };
    vec![
        play(
            "primary-failing",
            "One call in ten to the primary is refused",
            "Requests that are caught stand in, and too few are for a breaker to open.",
            Fault::PrimaryFailing { percent: 10 },
            Limits {
                first_stand_in_ms: None,
                ..stands_in(99.9, 0)
            },
        ),
        play(
            "trip-cache-unreachable",
            "No copy of the trip cache answers",
            "A trip that cannot be read is loaded from the primary; nobody is declined for it. The edge says that \
             its trips are not fresh, and whoever announces it may send banks elsewhere.",
            Fault::TripCacheUnreachable,
            on_primary(),
        ),
        play(
            "trip-cache-slow",
            "The trip cache is 100 ms away",
            "A look ends with its 20 ms, and the primary has the trip.",
            Fault::TripCacheSlow { delay_ms: 100 },
            on_primary(),
        ),
    ]
}

/// Every drill that can be played on a deployment.
pub(super) fn all() -> Vec<Play> {
    let catalogue = catalogue::all().into_iter();
    let known =
        catalogue.filter_map(|drill| fault(drill.name).map(|fault| Play::of(&drill, fault)));
    known.chain(only_deployed()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use standin_edge::played::LASTS_MAX;

    use super::super::run::MARGIN;
    use super::*;

    #[test]
    fn every_play_is_one_that_an_edge_takes_under_a_name_of_its_own() {
        let names: BTreeSet<&str> = all().iter().map(|play| play.name).collect();
        assert_eq!(names.len(), all().len());
        for play in all() {
            assert_eq!(play.fault.check(), Ok(()), "{}", play.name);
            for pace in [play.pace, play.pace.quick()] {
                let lasts = play.lasts(pace).checked_add(MARGIN).unwrap();
                assert!(lasts <= LASTS_MAX, "{} for {lasts:?}", play.name);
            }
        }
        let local: Vec<&str> = catalogue::all().iter().map(|drill| drill.name).collect();
        for play in only_deployed() {
            assert!(!local.contains(&play.name), "{}", play.name);
        }
        assert!(Play::named("primary-killed").is_some());
        assert!(Play::named("leader-killed").is_none() && !is_playable("leader-killed"));
    }
}
