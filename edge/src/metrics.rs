//! What the edge counts, as Prometheus reads it.
//!
//! One meter provider with a Prometheus reader; every instrument has a method with typed arguments,
//! so that labels come from closed sets and never from what a client sent. Amounts are exposed as
//! sums of minor units, never per payment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider, UpDownCounter};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};
use standin_core::answer::{Reason, Rung, Verdict, Why};
use standin_core::id::BankId;
use standin_core::money::Currency;
use standin_core::trip_cache::TripCache;

use crate::admission::Shed;
use crate::authenticate::AuthenticationError;
use crate::played::Plays;
use crate::problem::{Problem, Unavailable};

/// Every instrument of one edge. Recording takes no lock that is held for long and never fails.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    // Dropping it would end collection.
    provider: SdkMeterProvider,
    answers: Counter<u64>,
    answer_seconds: Histogram<f64>,
    replays: Counter<u64>,
    refusals: Counter<u64>,
    /// Of them, those for overload: a counter cannot be read back.
    overloads: AtomicU64,
    shed: Counter<u64>,
    authentication_failures: Counter<u64>,
    connections_refused: Counter<u64>,
    handshakes_failed: Counter<u64>,
    without_primary: Counter<u64>,
    shadow_differences: Counter<u64>,
    proposal_judged: Counter<u64>,
    proposal_differences: Counter<u64>,
    step_seconds: Histogram<f64>,
    in_flight: UpDownCounter<i64>,
    hold_batch_size: Histogram<u64>,
    hold_batch_seconds: Histogram<f64>,
    wal_commit_seconds: Histogram<f64>,
    wal_bytes: Gauge<u64>,
    wal_budget_bytes: Gauge<u64>,
    wal_members: Gauge<u64>,
    wal_led: Gauge<u64>,
    wal_term: Gauge<u64>,
    wal_index: Gauge<u64>,
    wal_behind: Gauge<u64>,
    advices_waiting: Gauge<u64>,
    corrections: Gauge<u64>,
    breaker: Gauge<u64>,
    stand_in_mode: Gauge<u64>,
    trip_age_seconds: Histogram<f64>,
    drain_backlog: Gauge<u64>,
    drained: Counter<u64>,
    exposure: Gauge<i64>,
    alarms: Gauge<u64>,
}

/// One answer given, as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// To whom.
    pub bank: &'a BankId,
    /// How it was reached.
    pub rung: Rung,
    /// What it was.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Why not on the primary.
    pub why: Option<Why>,
    /// From the end of the head to the answer.
    pub took: Duration,
    /// How old the cached trip was.
    pub trip_age_ms: Option<u64>,
}

/// A part of the path of a request that has a duration of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The signature check.
    Authenticate,
    /// The read of the trip cache.
    Look,
    /// Whether it has its answer, and the wait for whoever is at it.
    Recall,
    /// The rules.
    Decide,
    /// The hold on the primary.
    AskPrimary,
    /// The commit of the log.
    WriteAhead,
    /// What is done when the log did not commit in its time.
    WithoutTheLog,
}

/// What became of outcomes that were drained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrainResult {
    /// Became final now.
    Finalized,
    /// Was final already.
    Already,
    /// Went to `conflicts`.
    Conflict,
}

/// Which exposure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exposure {
    /// Approved beyond what a healthy ledger would have allowed, at present.
    Now,
    /// The most the region can come to in one outage, known in advance.
    WorstCase,
    /// Of that, the banks' limits while standing in.
    WorstStandIn,
    /// Of that, for trips that are too old.
    WorstOldTrips,
    /// Of that, what was granted to all edges for when they are cut off.
    WorstReserves,
    /// What was granted to this start of this edge.
    Granted,
    /// What of that is spent.
    Spent,
}

/// Where an edge's log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogPlace {
    /// How many vote.
    pub keepers: usize,
    /// How many only hear.
    pub learners: usize,
    /// Somebody leads, as far as this edge knows.
    pub led: bool,
    /// This edge does.
    pub leads: bool,
    /// The term it knows of.
    pub term: u64,
    /// Its last entry.
    pub last_index: u64,
    /// The last one applied here.
    pub applied_index: u64,
    /// The last one that the ledger has.
    pub drained_index: u64,
    /// Of who leads: entries that the slowest member lacks.
    pub behind_max: u64,
}

/// Where the breaker stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakerState {
    /// The primary is asked.
    Closed,
    /// It is not.
    Open,
    /// A canary commit is under way.
    HalfOpen,
    /// It is asked for a growing share.
    Ramping,
}

const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.3, 0.35, 0.5, 0.75,
    1.0, 2.0,
];
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const AGES: &[f64] = &[
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0,
];

// === impl Step ===

impl Step {
    /// Its name in metrics and traces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Look => "look",
            Self::Recall => "recall",
            Self::Decide => "decide",
            Self::AskPrimary => "ask_primary",
            Self::WriteAhead => "write_ahead",
            Self::WithoutTheLog => "without_the_log",
        }
    }
}

// === impl BreakerState ===

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Open, Self::HalfOpen, Self::Ramping];

    /// The word in metrics and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Ramping => "ramping",
        }
    }
}

// === impl Metrics ===

/// Metrics could not be set up: a defect of the build, not of the machine.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(#[from] opentelemetry_sdk::error::OTelSdkError);

impl Metrics {
    /// Registers every instrument.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()?;
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        let meter = provider.meter("standin-edge");
        Ok(Self::of(&meter, registry, provider))
    }

    /// Reads the trip cache's troubles at every scrape from now on.
    pub fn watch_trip_cache(&self, cache: Arc<dyn TripCache>) {
        let meter = self.provider.meter("standin-edge");
        // The meter keeps the callback; nobody needs the handle.
        let _handle = meter
            .u64_observable_counter("standin_trip_cache_troubles")
            .with_description("What went wrong with the trip cache, by kind; a miss each.")
            .with_callback(move |observer| {
                for (kind, count) in cache.troubles() {
                    observer.observe(count, &[KeyValue::new("kind", kind)]);
                }
            })
            .build();
    }

    /// Shows at every scrape from now on which fault this edge plays on itself, until when, and what all of
    /// them hit.
    pub fn watch_plays(&self, plays: Arc<Plays>) {
        let meter = self.provider.meter("standin-edge");
        let (now, ends, hit) = (Arc::clone(&plays), Arc::clone(&plays), plays);
        // The meter keeps the callbacks; nobody needs the handles.
        let _handle = meter
            .u64_observable_gauge("standin_played_fault")
            .with_description("1 while this edge plays the fault on itself, for a drill.")
            .with_callback(move |observer| {
                for count in now.counts() {
                    let fault = KeyValue::new("fault", count.fault);
                    observer.observe(u64::from(count.is_played), &[fault]);
                }
            })
            .build();
        let _handle = meter
            .u64_observable_gauge("standin_played_fault_ends_at")
            .with_unit("s")
            .with_description(
                "When the fault that is played ends by itself, since 1970; 0 while none is.",
            )
            .with_callback(move |observer| observer.observe(ends.ends_at_secs(), &[]))
            .build();
        let _handle = meter
            .u64_observable_counter("standin_played_fault_calls")
            .with_description(
                "Calls that faults played here hit, by fault and whose calls they were.",
            )
            .with_callback(move |observer| {
                for count in hit.counts() {
                    for (calls, hits) in count.calls {
                        let labels = [
                            KeyValue::new("fault", count.fault),
                            KeyValue::new("calls", calls),
                        ];
                        observer.observe(hits, &labels);
                    }
                }
            })
            .build();
    }

    fn of(meter: &Meter, registry: Registry, provider: SdkMeterProvider) -> Self {
        let count = |name, help| meter.u64_counter(name).with_description(help).build();
        let gauge = |name, help| meter.u64_gauge(name).with_description(help).build();
        let seconds = |name, help, bounds: &[f64]| {
            let histogram = meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(help);
            histogram.with_boundaries(bounds.to_vec()).build()
        };
        Self {
            answers: count("standin_answers", "Answers given, by bank, rung, verdict and reason."),
            answer_seconds: seconds("standin_answer_duration", "From the head of a request to its answer, by rung.", SECONDS),
            replays: count("standin_replays", "Answers given again to the same request."),
            refusals: count("standin_refusals", "Requests that got no answer, by problem and cause."),
            overloads: AtomicU64::new(0),
            shed: count("standin_shed", "Requests that got no place, by cause; refusals too."),
            authentication_failures: count("standin_authentication_failures", "Requests that were not a bank's, by cause."),
            connections_refused: count("standin_connections_refused", "Connections closed at once: their address had as many as it may."),
            handshakes_failed: count("standin_handshakes_failed", "Connections that did not get through their TLS handshake."),
            without_primary: count("standin_without_primary", "Answers given without the primary, by why."),
            shadow_differences: count("standin_shadow_differences", "Requests on which the rules of the other rung said something else."),
            proposal_judged: count("standin_proposed_policy_judged", "Requests that were decided by the proposed policy too."),
            proposal_differences: count("standin_proposed_policy_differences", "Of them, those of which it said something else, by bank, rules and both reasons."),
            step_seconds: seconds("standin_step_duration", "Duration of the steps of a request.", SECONDS),
            in_flight: meter.i64_up_down_counter("standin_in_flight").with_description("Authorizations in progress.").build(),
            hold_batch_size: meter
                .u64_histogram("standin_hold_batch_size")
                .with_description("Holds in one transaction on the primary.")
                .with_boundaries(SIZES.to_vec())
                .build(),
            hold_batch_seconds: seconds("standin_hold_batch_duration", "Duration of a transaction of holds.", SECONDS),
            wal_commit_seconds: seconds("standin_wal_commit_duration", "From proposing to the committed outcome.", SECONDS),
            wal_bytes: meter.u64_gauge("standin_wal_used").with_unit("By").with_description("Bytes of the log's budget in use.").build(),
            wal_budget_bytes: meter.u64_gauge("standin_wal_budget").with_unit("By").with_description("Bytes the log may use.").build(),
            wal_members: gauge("standin_wal_members", "Members of the log's group, by role."),
            wal_led: gauge("standin_wal_led", "1 for `group` while somebody leads the log, 1 for `this_edge` while this edge does."),
            wal_term: gauge("standin_wal_term", "The term that this edge knows of."),
            wal_index: gauge("standin_wal_index", "Entries of the log here: the last one, the last applied, the last in the ledger."),
            wal_behind: gauge("standin_wal_behind", "Entries that the slowest member lacks, of who leads."),
            advices_waiting: gauge("standin_advices_waiting", "Answers given without the log that it may not have yet."),
            corrections: gauge("standin_corrections", "Advices that met another answer, payments marked late, late approvals given back; since the log began."),
            breaker: gauge("standin_breaker_state", "1 for the state the breaker is in."),
            stand_in_mode: gauge("standin_stand_in_mode", "1 for the mode operators have set."),
            trip_age_seconds: seconds("standin_trip_age", "Age of the cached trip that an answer was given from, by rung.", AGES),
            drain_backlog: gauge("standin_drain_backlog", "Committed entries of the log that the ledger does not have yet."),
            drained: count("standin_drained", "Outcomes copied into the ledger, by what became of them."),
            exposure: meter
                .i64_gauge("standin_exposure_minor_units")
                .with_description("Money beyond what a healthy ledger would allow, now and at worst, by currency.")
                .build(),
            alarms: gauge("standin_alarm", "1 while the alarm is raised."),
            registry,
            provider,
        }
    }

    /// The exposition text of `/metrics`.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Counts an answer given for the first time.
    pub fn answered(&self, answer: &Answered<'_>) {
        let rung = KeyValue::new("rung", answer.rung.as_str());
        self.answers.add(
            1,
            &[
                KeyValue::new("bank", answer.bank.as_str().to_owned()),
                rung.clone(),
                KeyValue::new("verdict", answer.verdict.as_str()),
                KeyValue::new("reason", answer.reason.as_str()),
            ],
        );
        let rung = [rung];
        self.answer_seconds.record(answer.took.as_secs_f64(), &rung);
        if let Some(age) = answer.trip_age_ms {
            let age = Duration::from_millis(age);
            self.trip_age_seconds.record(age.as_secs_f64(), &rung);
        }
        if let Some(why) = answer.why {
            self.without_primary
                .add(1, &[KeyValue::new("why", why.as_str())]);
        }
    }

    /// Counts an answer given again.
    pub fn replayed(&self) {
        self.replays.add(1, &[]);
    }

    /// Counts a request that got no answer.
    pub fn refused(&self, problem: &Problem) {
        let cause = match problem {
            Problem::Unavailable { cause, .. } => {
                if *cause == Unavailable::Overloaded {
                    self.overloads.fetch_add(1, Ordering::Relaxed);
                }
                cause.as_str()
            }
            Problem::Field { field, .. } => field,
            _ => "",
        };
        let labels = [
            KeyValue::new("problem", problem.slug()),
            KeyValue::new("cause", cause),
        ];
        self.refusals.add(1, &labels);
    }

    /// Requests refused for overload so far.
    pub fn overloads(&self) -> u64 {
        self.overloads.load(Ordering::Relaxed)
    }

    /// Counts a request that got no place.
    pub fn shed(&self, shed: Shed) {
        self.shed.add(1, &[KeyValue::new("cause", shed.as_str())]);
    }

    /// Counts a connection that was closed at once.
    pub fn connection_refused(&self) {
        self.connections_refused.add(1, &[]);
    }

    /// Counts a connection that did not get through its handshake.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.add(1, &[]);
    }

    /// Counts a request that was not a bank's.
    pub fn authentication_failed(&self, error: AuthenticationError) {
        let cause = KeyValue::new("cause", error.as_str());
        self.authentication_failures.add(1, &[cause]);
    }

    /// Counts a request on which the rules of the other rung said something else.
    pub fn shadow_differed(&self, given: Reason, other: Reason) {
        let labels = [
            KeyValue::new("given", given.as_str()),
            KeyValue::new("other", other.as_str()),
        ];
        self.shadow_differences.add(1, &labels);
    }

    /// Counts a request that the proposed policy decided too.
    pub fn proposal_judged(&self) {
        self.proposal_judged.add(1, &[]);
    }

    /// Counts one of which the proposed policy said something else by `rules`.
    pub fn proposal_differed(
        &self,
        bank: &BankId,
        rules: &'static str,
        active: Reason,
        proposed: Reason,
    ) {
        let labels = [
            KeyValue::new("bank", bank.to_string()),
            KeyValue::new("rules", rules),
            KeyValue::new("active", active.as_str()),
            KeyValue::new("proposed", proposed.as_str()),
        ];
        self.proposal_differences.add(1, &labels);
    }

    /// Records how long a step took.
    pub fn step(&self, step: Step, took: Duration) {
        let label = KeyValue::new("step", step.as_str());
        self.step_seconds.record(took.as_secs_f64(), &[label]);
    }

    /// An authorization begins.
    pub fn begun(&self) {
        self.in_flight.add(1, &[]);
    }

    /// It ends, however.
    pub fn ended(&self) {
        self.in_flight.add(-1, &[]);
    }

    /// Records one transaction of holds.
    pub fn held(&self, batch: usize, took: Duration) {
        let size = u64::try_from(batch).unwrap_or(u64::MAX);
        self.hold_batch_size.record(size, &[]);
        self.hold_batch_seconds.record(took.as_secs_f64(), &[]);
    }

    /// Records one commit of the log.
    pub fn committed(&self, took: Duration) {
        self.wal_commit_seconds.record(took.as_secs_f64(), &[]);
    }

    /// Sets how much of its budget the log uses.
    pub fn wal_space(&self, used_bytes: u64, budget_bytes: u64) {
        self.wal_bytes.record(used_bytes, &[]);
        self.wal_budget_bytes.record(budget_bytes, &[]);
    }

    /// Sets where the log is.
    pub fn wal_place(&self, place: &LogPlace) {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let set = |gauge: &Gauge<u64>, key, values: &[(&'static str, u64)]| {
            for (name, value) in values {
                gauge.record(*value, &[KeyValue::new(key, *name)]);
            }
        };
        let members = [
            ("keeper", count(place.keepers)),
            ("learner", count(place.learners)),
        ];
        set(&self.wal_members, "role", &members);
        let led = [
            ("group", u64::from(place.led)),
            ("this_edge", u64::from(place.leads)),
        ];
        set(&self.wal_led, "by", &led);
        let indexes = [
            ("last", place.last_index),
            ("applied", place.applied_index),
            ("drained", place.drained_index),
        ];
        set(&self.wal_index, "of", &indexes);
        self.wal_term.record(place.term, &[]);
        self.wal_behind.record(place.behind_max, &[]);
    }

    /// Sets how many answers wait to be carried to the log.
    pub fn advices_waiting(&self, waiting: u64) {
        self.advices_waiting.record(waiting, &[]);
    }

    /// Sets what came after answers, since the log began.
    pub fn corrections(&self, conflicts: u64, late: u64, released: u64) {
        for (kind, count) in [
            ("conflict", conflicts),
            ("late", late),
            ("released", released),
        ] {
            self.corrections
                .record(count, &[KeyValue::new("kind", kind)]);
        }
    }

    /// Sets where the breaker stands.
    pub fn breaker(&self, now: BreakerState) {
        for state in BreakerState::ALL {
            let label = KeyValue::new("state", state.as_str());
            self.breaker.record(u64::from(state == now), &[label]);
        }
    }

    /// Sets the mode operators have set.
    pub fn stand_in_mode(&self, now: standin_core::entry::StandInMode) {
        use standin_core::entry::StandInMode::{Auto, Forbid, Force};
        for mode in [Auto, Force, Forbid] {
            let label = KeyValue::new("mode", mode.as_str());
            self.stand_in_mode.record(u64::from(mode == now), &[label]);
        }
    }

    /// Sets how many committed entries the ledger does not have.
    pub fn drain_backlog(&self, entries: u64) {
        self.drain_backlog.record(entries, &[]);
    }

    /// Counts outcomes that were drained.
    pub fn drained(&self, result: DrainResult, outcomes: u64) {
        let result = match result {
            DrainResult::Finalized => "finalized",
            DrainResult::Already => "already",
            DrainResult::Conflict => "conflict",
        };
        self.drained
            .add(outcomes, &[KeyValue::new("result", result)]);
    }

    /// Sets an exposure.
    pub fn exposure(&self, which: Exposure, minor: i64, currency: Currency) {
        let which = match which {
            Exposure::Now => "now",
            Exposure::WorstCase => "worst_case",
            Exposure::WorstStandIn => "worst_stand_in",
            Exposure::WorstOldTrips => "worst_old_trips",
            Exposure::WorstReserves => "worst_reserves",
            Exposure::Granted => "granted",
            Exposure::Spent => "spent",
        };
        let labels = [
            KeyValue::new("kind", which),
            KeyValue::new("currency", currency.code().to_owned()),
        ];
        self.exposure.record(minor, &labels);
    }

    /// Sets an alarm's gauge; [`crate::alarm::Alarms`] calls this.
    pub(crate) fn alarm(&self, name: &'static str, raised: bool) {
        self.alarms
            .record(u64::from(raised), &[KeyValue::new("name", name)]);
    }
}

#[cfg(test)]
mod tests;
