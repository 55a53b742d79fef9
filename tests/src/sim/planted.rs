//! The bugs that the simulator must find, and in which simulation.

use standin_core::planted as rules;
use standin_wal::testing as log;

use super::{Options, Report, What, run};

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// In the log.
    Log(log::Planted),
    /// In the register, the memory ledger, or an edge's path.
    Rules(rules::Planted),
}

/// A bug that was looked for.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// How many seeds it took, and what was wrong; `None`: not found in so many.
    pub after: Option<(u64, Report)>,
}

// === impl Bug ===

impl Bug {
    /// Every bug.
    pub fn all() -> impl Iterator<Item = Self> {
        let log = log::Planted::ALL.into_iter().map(Self::Log);
        log.chain(rules::Planted::ALL.into_iter().map(Self::Rules))
    }

    /// Its name.
    pub fn name(self) -> String {
        match self {
            Self::Log(bug) => format!("{bug:?}"),
            Self::Rules(bug) => format!("{bug:?}"),
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|bug| bug.name() == name)
    }

    /// The simulation that looks for it.
    pub fn what(self) -> What {
        match self {
            Self::Log(_) => What::Log,
            Self::Rules(_) => What::Edges,
        }
    }

    /// Plants it on this thread.
    pub(super) fn plant(planted: Option<Self>) {
        let (log_bug, rules_bug) = match planted {
            None => (None, None),
            Some(Self::Log(bug)) => (Some(bug), None),
            Some(Self::Rules(bug)) => (None, Some(bug)),
        };
        log::plant(log_bug);
        rules::plant(rules_bug);
    }

    /// Runs seeds from `start` on until it is found, at most so many.
    pub fn hunt(self, start: u64, seeds: u64) -> Found {
        let options = Options {
            what: self.what(),
            planted: Some(self),
            ..Options::default()
        };
        let mut tried = 0_u64;
        let after = (start..start.saturating_add(seeds)).find_map(|seed| {
            tried = tried.saturating_add(1);
            let report = run(seed, options);
            report.wrong.is_some().then_some((tried, report))
        });
        Found {
            name: self.name(),
            after,
        }
    }
}
