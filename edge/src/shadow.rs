//! A proposed policy, evaluated beside the active one on each request that is decided here, and what the
//! two said differently. It answers nobody.
//!
//! What is counted is of this process and this proposal: another proposal begins at nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use standin_core::answer::{Reason, Verdict};
use standin_core::authorization::Authorization;
use standin_core::clock::Timestamp;
use standin_core::decide::{Decision, Facts, Rules, decide};
use standin_core::id::BankId;
use standin_core::policy::Policy;

use crate::metrics::Metrics;

/// The proposal, if there is one.
#[derive(Default)]
pub struct Shadow(ArcSwapOption<Tried>);

/// One proposal that is tried.
pub struct Tried {
    policy: Policy,
    fingerprint: String,
    since: Timestamp,
    judged: AtomicU64,
    /// Bounded: banks, two sets of rules, and the reasons that there are.
    differences: Mutex<BTreeMap<Sort, Sum>>,
}

/// What was said differently.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Sort {
    bank: BankId,
    rules: &'static str,
    active: &'static str,
    proposed: &'static str,
    loosens: bool,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    count: u64,
    amount: i64,
}

/// A proposal on the status page.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shown {
    /// Its version.
    pub version: u32,
    /// Its fingerprint ([`Policy::fingerprint`]).
    pub fingerprint: String,
    /// Since when this process tries it, RFC 3339.
    pub since: String,
    /// Requests decided since.
    pub judged: u64,
    /// What was said differently.
    pub differences: Vec<Difference>,
}

/// Requests of one bank that both versions decided, each for its own reason, and not alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Difference {
    /// Whose.
    pub bank: String,
    /// By which rules: `primary` or `stand_in`.
    pub rules: String,
    /// What the active version said.
    pub active: String,
    /// What the proposed one said.
    pub proposed: String,
    /// The proposal would approve what the active version declines; else it is the other way.
    pub loosens: bool,
    /// Requests.
    pub count: u64,
    /// Sum of what was asked for, minor units.
    pub amount_minor: i64,
}

// === impl Shadow ===

impl Shadow {
    /// Tries a proposal from now on, or none. The one that is tried already goes on.
    pub fn set(&self, proposed: Option<&Policy>, now: Timestamp) {
        let Some(policy) = proposed else {
            self.0.store(None);
            return;
        };
        if self
            .0
            .load()
            .as_ref()
            .is_some_and(|tried| tried.policy == *policy)
        {
            return;
        }
        self.0.store(Some(Arc::new(Tried {
            policy: policy.clone(),
            fingerprint: policy.fingerprint(),
            since: now,
            judged: AtomicU64::new(0),
            differences: Mutex::default(),
        })));
    }

    /// What is tried.
    pub fn tried(&self) -> Option<Arc<Tried>> {
        self.0.load_full()
    }
}

// === impl Tried ===

impl Tried {
    /// Decides a request by the proposal too, and counts where it says something else. `active` are the
    /// active version's decisions, by the rules they are of.
    pub fn judge(
        &self,
        request: &Authorization,
        facts: &Facts<'_>,
        active: [(Rules, &Decision); 2],
        now: Timestamp,
        metrics: &Metrics,
    ) {
        self.judged.fetch_add(1, Ordering::Relaxed);
        metrics.proposal_judged();
        for (rules, active) in active {
            let proposed = decide(request, facts, &self.policy, rules, now);
            if proposed.reason.verdict() == active.reason.verdict() {
                continue;
            }
            let rules = match rules {
                Rules::Primary => "primary",
                Rules::StandIn => "stand_in",
                Rules::Isolated => "isolated",
            };
            metrics.proposal_differed(&request.bank, rules, active.reason, proposed.reason);
            self.count(request, rules, active.reason, proposed.reason);
        }
    }

    fn count(
        &self,
        request: &Authorization,
        rules: &'static str,
        active: Reason,
        proposed: Reason,
    ) {
        let sort = Sort {
            bank: request.bank.clone(),
            rules,
            active: active.as_str(),
            proposed: proposed.as_str(),
            loosens: proposed.verdict() == Verdict::Approved,
        };
        let mut differences = self
            .differences
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let sum = differences.entry(sort).or_default();
        sum.count = sum.count.saturating_add(1);
        sum.amount = sum.amount.saturating_add(request.amount.minor());
    }

    /// For the status page.
    pub fn shown(&self) -> Shown {
        let differences = self
            .differences
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let shown = |(sort, sum): (&Sort, &Sum)| Difference {
            bank: sort.bank.to_string(),
            rules: sort.rules.to_owned(),
            active: sort.active.to_owned(),
            proposed: sort.proposed.to_owned(),
            loosens: sort.loosens,
            count: sum.count,
            amount_minor: sum.amount,
        };
        Shown {
            version: self.policy.version,
            fingerprint: self.fingerprint.clone(),
            since: self.since.to_string(),
            judged: self.judged.load(Ordering::Relaxed),
            differences: differences.iter().map(shown).collect(),
        }
    }
}
