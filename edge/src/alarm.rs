//! Alarms: conditions a human should know of. Each is a gauge, an item of `/statusz`, and one log
//! line when it is raised and one when it is cleared.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use standin_core::clock::{Clock, Timestamp};

use crate::metrics::Metrics;

/// Everything there is an alarm for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Alarm {
    /// The primary is not asked.
    PrimaryAway,
    /// No trip can be read from the cache, or its heartbeat is too old.
    TripCacheStale,
    /// A copy of the trip cache shows an earlier state than it did.
    TripCacheBackwards,
    /// A copy of the trip cache lost trips that are not over.
    TripsVanished,
    /// The log is close to its budget of space.
    WalNearlyFull,
    /// The log failed; this edge is going down.
    WalPoisoned,
    /// Outcomes wait longer than they should for the ledger.
    DrainStalled,
    /// The drain cannot go on by itself: the log and the ledger do not fit each other.
    DrainStuck,
    /// An outcome could not be booked as it is, or an advice met another answer.
    Conflict,
    /// The reserve for answers on stale data is nearly spent.
    ReserveLow,
    /// A payment's answer is a 500 until an operator clears it.
    Faulted,
    /// An operator forces or forbids standing in.
    StandInOverridden,
    /// Requests are refused for overload.
    Overloaded,
    /// The keeper links' certificates end soon, or the new ones do not serve.
    Certificates,
    /// The certificates of a listener end soon, or the new ones do not serve.
    DoorCertificates,
    /// A bank's secrets end soon, are not all here, or the new ones do not serve.
    BankSecrets,
    /// Answers given without the log wait longer than they should to be carried to it.
    AdvicesWait,
    /// The policy's file does not serve and the version before stays, or a proposal is not tried.
    Policy,
    /// For a drill this edge plays a fault on itself.
    FaultPlayed,
}

/// An alarm that is raised.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Raised {
    /// Its name.
    pub name: &'static str,
    /// Since when.
    pub since: String,
    /// What is the matter; no payment data.
    pub detail: String,
}

/// The alarms of one edge.
pub struct Alarms {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    raised: Mutex<BTreeMap<Alarm, (Timestamp, String)>>,
}

// === impl Alarm ===

impl Alarm {
    /// Every alarm.
    pub const ALL: [Self; 19] = [
        Self::PrimaryAway,
        Self::TripCacheStale,
        Self::TripCacheBackwards,
        Self::TripsVanished,
        Self::WalNearlyFull,
        Self::WalPoisoned,
        Self::DrainStalled,
        Self::DrainStuck,
        Self::Conflict,
        Self::ReserveLow,
        Self::Faulted,
        Self::StandInOverridden,
        Self::Overloaded,
        Self::Certificates,
        Self::DoorCertificates,
        Self::BankSecrets,
        Self::AdvicesWait,
        Self::Policy,
        Self::FaultPlayed,
    ];

    /// The word in metrics, logs and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrimaryAway => "primary_away",
            Self::TripCacheStale => "trip_cache_stale",
            Self::TripCacheBackwards => "trip_cache_backwards",
            Self::TripsVanished => "trips_vanished",
            Self::WalNearlyFull => "wal_nearly_full",
            Self::WalPoisoned => "wal_poisoned",
            Self::DrainStalled => "drain_stalled",
            Self::DrainStuck => "drain_stuck",
            Self::Conflict => "conflict",
            Self::ReserveLow => "reserve_low",
            Self::Faulted => "faulted",
            Self::StandInOverridden => "stand_in_overridden",
            Self::Overloaded => "overloaded",
            Self::Certificates => "certificates",
            Self::DoorCertificates => "door_certificates",
            Self::BankSecrets => "bank_secrets",
            Self::AdvicesWait => "advices_wait",
            Self::Policy => "policy",
            Self::FaultPlayed => "fault_played",
        }
    }
}

// === impl Alarms ===

impl Alarms {
    /// None raised.
    pub fn new(metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        for alarm in Alarm::ALL {
            metrics.alarm(alarm.as_str(), false);
        }
        Self {
            metrics,
            clock,
            raised: Mutex::default(),
        }
    }

    /// Raises an alarm. Raising it again only renews its detail.
    pub fn raise(&self, alarm: Alarm, detail: impl Into<String>) {
        let detail = detail.into();
        let name = alarm.as_str();
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, old)) = raised.get_mut(&alarm) {
            *old = detail;
            return;
        }
        tracing::error!(alarm = name, %detail, "alarm raised");
        raised.insert(alarm, (self.clock.now(), detail));
        // Under the lock, so that gauge and table never disagree for good.
        self.metrics.alarm(name, true);
    }

    /// Clears an alarm, if it is raised.
    pub fn clear(&self, alarm: Alarm) {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, _)) = raised.remove(&alarm) {
            let lasted_ms = self.clock.now().millis_since(since);
            tracing::info!(alarm = alarm.as_str(), lasted_ms, "alarm cleared");
            self.metrics.alarm(alarm.as_str(), false);
        }
    }

    /// Raises or clears, by condition.
    pub fn set(&self, alarm: Alarm, because: Option<String>) {
        match because {
            Some(detail) => self.raise(alarm, detail),
            None => self.clear(alarm),
        }
    }

    /// Raises an alarm for all of these problems, or clears it when there is none.
    pub fn set_for(&self, alarm: Alarm, problems: impl Iterator<Item = String>) {
        let problems: Vec<_> = problems.collect();
        self.set(alarm, (!problems.is_empty()).then(|| problems.join("; ")));
    }

    /// Whether an alarm is raised.
    pub fn is_raised(&self, alarm: Alarm) -> bool {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        raised.contains_key(&alarm)
    }

    /// What is raised, for pages.
    pub fn raised(&self) -> Vec<Raised> {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |(alarm, (since, detail)): (&Alarm, &(Timestamp, String))| Raised {
            name: alarm.as_str(),
            since: since.to_string(),
            detail: detail.clone(),
        };
        raised.iter().map(shown).collect()
    }
}

impl fmt::Debug for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.raised()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use standin_core::clock::ManualClock;

    use super::*;

    #[test]
    fn an_alarm_keeps_its_beginning_and_renews_its_detail() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(0)));
        let alarms = Alarms::new(Arc::clone(&metrics), clock.clone());
        let gauge = || {
            let page = metrics.render().unwrap();
            page.contains(r#"standin_alarm{name="conflict"} 1"#)
        };
        assert!(!gauge());
        alarms.raise(Alarm::Conflict, "1 row");
        clock.advance(Duration::from_secs(5));
        alarms.raise(Alarm::Conflict, "2 rows");
        let raised = alarms.raised();
        assert_eq!(raised.len(), 1);
        assert_eq!(raised[0].since, "1970-01-01T00:00:00.000Z");
        assert_eq!(raised[0].detail, "2 rows");
        assert!(gauge());
        alarms.clear(Alarm::Conflict);
        alarms.clear(Alarm::Faulted);
        assert!(!gauge() && alarms.raised().is_empty());
    }
}
